"""What was measured: the rows, each run's figure, medians and ratios, what is to be reached; as CSV and as a table.

A *point* is one row, one system, one set of parameters and one metric; each run adds a value to it. A *goal* compares the
medians of two points, or one with a figure."""

import csv
from dataclasses import dataclass, field
from statistics import median

rows = {}  # name: Row, in the order in which they were registered


@dataclass
class Row:
    name: str
    title: str
    function: object


def row(name, title):
    """Register a function that measures a row: it is called with the bench."""
    def register(function):
        rows[name] = Row(name, title, function)
        return function
    return register


@dataclass
class Point:
    row: str
    system: str
    params: str  # "clients=64 size=200"
    metric: str
    unit: str
    values: list = field(default_factory=list)
    failures: list = field(default_factory=list)  # why a run gave no figure

    @property
    def median(self):
        return median(self.values) if self.values else None

    def cells(self):
        """One line of the CSV."""
        figures = [f"{of(self.values):.10g}" for of in (median, min, max)] if self.values else ["", "", ""]
        return [self.row, self.system, self.params, self.metric, self.unit, *figures, len(self.values),
                len(self.failures), " ".join(f"{value:.10g}" for value in self.values),
                "; ".join(dict.fromkeys(self.failures))]

    @classmethod
    def of_line(cls, line):
        values = [float(value) for value in line["values"].split()]
        return cls(*(line[name] for name in POINT_FIELDS[:5]), values, [line["why"]] * int(line["failed"]))


@dataclass
class Goal:
    row: str
    text: str
    left: str   # what is compared, in words
    right: str
    ratio: float | None  # left / right, or left itself when there is nothing on the right; None: not measured
    sense: str  # "at least" or "at most"
    bound: float

    @property
    def verdict(self):
        if self.ratio is None:
            return "not measured"
        good = self.ratio >= self.bound if self.sense == "at least" else self.ratio <= self.bound
        return "reached" if good else "falls short"

    def cells(self):
        ratio = "" if self.ratio is None else f"{self.ratio:.6g}"
        return [self.row, self.text, self.left, self.right, ratio, self.sense, f"{self.bound:g}", self.verdict]

    @classmethod
    def of_line(cls, line):
        ratio = float(line["ratio"]) if line["ratio"] else None
        return cls(*(line[name] for name in GOAL_FIELDS[:4]), ratio, line["sense"], float(line["bound"]))


POINT_FIELDS = ["row", "system", "params", "metric", "unit", "median", "min", "max", "runs", "failed", "values",
                "why"]
GOAL_FIELDS = ["row", "text", "left", "right", "ratio", "sense", "bound", "verdict"]


def params_text(params):
    return " ".join(f"{key}={value}" for key, value in params.items())


class Results:
    def __init__(self):
        self.points = {}  # (row, system, params, metric): Point
        self.goals = []
        self.notes = {}   # row: what a reader of its figures has to know
        self.machine = {}  # what it was measured on

    def _point(self, row, system, params, metric, unit):
        key = row, system, params_text(params), metric
        return self.points.setdefault(key, Point(*key, unit))

    def add(self, row, system, params, metric, unit, value):
        """The figure of one run."""
        self._point(row, system, params, metric, unit).values.append(value)

    def fail(self, row, system, params, metric, unit, why):
        """A run that gave no figure: it is shown as failed, and never counted."""
        self._point(row, system, params, metric, unit).failures.append(why)

    def note(self, row, text):
        known = self.notes.setdefault(row, [])
        if text not in known:
            known.append(text)

    def median(self, row, system, params, metric=None):
        """The median of a point, or None; without a metric, of the row's first."""
        for point in self.points.values():
            if ((point.row, point.system, point.params) == (row, system, params_text(params)) and
                    metric in (None, point.metric)):
                return point.median
        return None

    def target(self, row, text, left, right=None, at_least=None, at_most=None):
        """A ratio of two medians to reach: left and right are (system, params) or (system, params, metric). Without right,
        left itself is to reach it."""
        sides = [self.median(row, *side) for side in (left, right) if side is not None]
        ratio = None if None in sides else sides[0] if right is None else sides[0] / sides[1] if sides[1] else None
        sense, bound = ("at least", at_least) if at_least is not None else ("at most", at_most)
        self.goals.append(Goal(row, text, side_text(left), side_text(right), ratio, sense, bound))

    def without_figure(self, system):
        """Points of the system that no run gave a figure for."""
        return [point for point in self.points.values() if point.system == system and not point.values]

    # ---- files

    def write(self, folder):
        """results.csv has the points, goals.csv what was to be reached, notes.csv and machine.csv the rest."""
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "results.csv", POINT_FIELDS, [point.cells() for point in self.points.values()])
        write_csv(folder / "goals.csv", GOAL_FIELDS, [goal.cells() for goal in self.goals])
        write_csv(folder / "notes.csv", ["row", "note"], [(row, note) for row in self.notes for note in self.notes[row]])
        write_csv(folder / "machine.csv", ["part", "which"], self.machine.items())

    @classmethod
    def read(cls, folder, skip=()):
        """What was written there, but for some rows."""
        results = cls()
        points = [Point.of_line(line) for line in read_csv(folder / "results.csv")]
        goals = [Goal.of_line(line) for line in read_csv(folder / "goals.csv")]
        results.points = {(p.row, p.system, p.params, p.metric): p for p in points if p.row not in skip}
        results.goals = [goal for goal in goals if goal.row not in skip]
        for line in read_csv(folder / "notes.csv"):
            if line["row"] not in skip:
                results.note(line["row"], line["note"])
        return results

    def add_all(self, other):
        """What another one has, of other rows."""
        self.points |= other.points
        self.goals += other.goals
        self.notes |= other.notes

    def in_order(self):
        """Put the rows into the order in which they are registered, whenever each was measured."""
        place = {name: i for i, name in enumerate(rows)}
        self.points = dict(sorted(self.points.items(), key=lambda item: place.get(item[0][0], len(place))))
        self.goals.sort(key=lambda goal: place.get(goal.row, len(place)))
        self.notes = dict(sorted(self.notes.items(), key=lambda item: place.get(item[0], len(place))))

    def printed(self, quick=False):
        """The table; of a quick run without the verdicts, for which it has too few events."""
        lines = []
        for name in dict.fromkeys(point.row for point in self.points.values()):
            lines += self._printed_row(name, quick)
        return "\n".join(lines)

    def _printed_row(self, name, quick):
        points = [point for point in self.points.values() if point.row == name]
        title = rows[name].title if name in rows else name
        lines = ["", f"{name}: {title}"]
        systems = list(dict.fromkeys(point.system for point in points))
        lines.append("  " + f"{'':42}" + "".join(f"{system:>14}" for system in systems))
        for params, metric, unit in dict.fromkeys((p.params, p.metric, p.unit) for p in points):
            cells = {p.system: shown(p) for p in points if (p.params, p.metric) == (params, metric)}
            lines.append("  " + f"{f'{params} {metric}, {unit}':42}" +
                         "".join(f"{cells.get(system, ''):>14}" for system in systems))
        for goal in (goal for goal in self.goals if goal.row == name):
            ratio = "-" if goal.ratio is None else f"{goal.ratio:.3g}"
            verdict = "quick run, not judged" if quick else goal.verdict
            lines.append(f"    {goal.text}: {ratio}, to reach {goal.sense} {goal.bound:g}: {verdict}")
        lines += [f"    note: {note}" for note in self.notes.get(name, [])]
        lines += [f"    failed: {p.system} {p.params}: {why}" for p in points for why in dict.fromkeys(p.failures)]
        return lines


def side_text(side):
    if side is None:
        return ""
    system, params, *metric = side
    return " ".join([system, params_text(params), *metric]).strip()


def shown(point):
    """A figure as people read it, with how many runs failed."""
    failed = f" ({len(point.failures)} failed)" if point.failures else ""
    return (number_text(point.median) if point.values else "-") + failed


def number_text(value):
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    if value >= 1e4:
        return f"{value / 1e3:.3g} k"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def write_csv(path, header, lines):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def read_csv(path):
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
