"""docs/benchmarks.md and its plots, from what was measured.

Only what stands between the two markers is written anew: the prose around them is the authors'."""

import math
import subprocess

from results import rows, shown

BEGIN = "<!-- tests/bench/run --docs writes from here ... -->"
END = "<!-- ... to here -->"
FRESH = f"""# Benchmarks

{BEGIN}
{END}

## What paid and what did not

"""

# Colours that are told apart also by those who see fewer of them (Okabe and Ito, https://jfly.uni-koeln.de/color/).
COLOURS = {"evapid": "#0072b2", "EVAPI": "#d55e00", "floor": "#999999", "floor 256K": "#cccccc",
           "redis": "#e69f00", "nats": "#009e73"}
SPARE = ["#cc79a7", "#56b4e9", "#000000"]


def write(results, docs):
    """The page, its plots and the CSV they come from."""
    folder = docs / "benchmarks"
    results.write(folder)
    plots = draw(results, folder)
    page = docs / "benchmarks.md"
    text = page.read_text() if page.exists() else FRESH
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise SystemExit(f"{page}: its two markers are not there: {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{body(results, plots)}\n\n{END}{after}")


def body(results, plots):
    parts = ["Every figure on this page was measured by `tests/bench/run`, on one machine, and is the median of the runs; "
             "smallest and largest are in [results.csv](benchmarks/results.csv). Compare systems with each other, "
             "not with another machine's.",
             "## To be reached", goals_table(results), *plots.get("goals", []),
             "## Where evapid is worst", worst(results),
             "## Every row"]
    for name in dict.fromkeys(point.row for point in results.points.values()):
        parts += [f"### {name}", f"{sentence(title_of(name))}", row_table(results, name), *plots.get(name, []),
                  *(f"- {note}" for note in results.notes.get(name, [])), *failures(results, name)]
    parts += ["## On what", machine_table(results), "## How", HOW]
    return "\n\n".join(part for part in parts if part)


HOW = """<!-- not run: they measure for hours; `./check --bench` runs the quick one -->
```sh
tests/bench/run                       # every row, one table, build/bench/results.csv
tests/bench/run --only fan-out,tags   # some rows; --list names them
tests/bench/run --quick               # does the harness work? No figures to keep
tests/bench/run --docs                # this page
```

- Everything runs on one machine over loopback: servers, clients and publishers share its processors.
- One program in C, `tests/bench/load`, is the clients of every system. They count bytes. The kernel throws these away
  (`MSG_TRUNC`), except in fan-out-reading, and except for NATS, whose PINGs are between the events. The framing of each system
  is counted exactly. A run in which one client did not get every byte is shown as failed, and never counted.
  `load listen --verify` reads and compares each event instead.
- A rate is events times clients, divided by the time from just before the first publish to the last byte at the last client.
- Systems take turns, run by run, so that other work of the machine hits all of them alike. Each run starts a server of its own,
  and has as many events as keep that server busy for about 0.8 s.
- **evapid** in the rows without Kamailio gets its events through the ring from `load feed`, which attaches as Kamailio's module does.
  If the ring is full, `load feed` tries again until there is room: nothing is lost. No queue has a limit in these rows.
- **redis** is Redis' publish and subscribe, which keeps nothing on disk and has no limit for what waits for a client. The publisher
  pipelines, with at most 16,384 answers outstanding.
- **nats** is a NATS server whose limits are too high to cut a slow client off. The publisher sends in blocks of 64 KiB.
- **floor** is a bare epoll loop. It sends bytes that it has from the start to all clients, in blocks of 64 KiB, one send
  for each block and client. It receives no events, frames nothing and queues nothing. It is a yardstick, not a lower bound:
  **floor 256K** is the same with larger blocks.
- **EVAPI** is Kamailio's packaged module, in the same Kamailio with the same script as evapid."""


# ---- tables

def table(header, lines):
    marks = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in [header, marks, *lines])


def sentence(text):
    return text[0].upper() + text[1:] + "."


def title_of(name):
    return rows[name].title if name in rows else name


def ratio_text(ratio):
    return "" if ratio is None else f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}"


def goals_table(results):
    lines = [[goal.row, goal.text, ratio_text(goal.ratio), f"{goal.sense} {goal.bound:g}", verdict(goal)]
             for goal in results.goals]
    text = table(["row", "", "measured", "to reach", ""], lines)
    return text.replace("| --- | ---: | ---: | ---: | ---: |", "| --- | --- | ---: | --- | --- |")


def verdict(goal):
    return goal.verdict if goal.verdict == "reached" else f"**{goal.verdict}**"


def row_table(results, name):
    points = [point for point in results.points.values() if point.row == name]
    systems = list(dict.fromkeys(point.system for point in points))
    lines = []
    for params, metric, unit in dict.fromkeys((p.params, p.metric, p.unit) for p in points):
        cells = {p.system: shown(p) for p in points if (p.params, p.metric) == (params, metric)}
        lines.append([f"{params} {metric}, {unit}".strip()] + [cells.get(system, "") for system in systems])
    return table(["", *systems], lines)


def failures(results, name):
    return [f"- {len(point.failures)} failed, {point.system} {point.params}: {why}"
            for point in results.points.values() if point.row == name for why in dict.fromkeys(point.failures)]


def machine_table(results):
    return table(["", ""], results.machine.items()).replace("---:", "---")


# ---- the worst

def worst(results):
    """What falls short, then each figure in which another system does better than evapid, the worst first."""
    short = [f"- **{goal.verdict}**, {goal.row}: {goal.text}: {ratio_text(goal.ratio)}, to reach {goal.sense} {goal.bound:g}."
             for goal in results.goals if goal.verdict != "reached"]
    behind = sorted(compared(results), reverse=True)
    lines = [f"- {times:.3g} times worse than {p.system}: {p.row}, {f'{p.params} {p.metric}'.strip()}: {shown(own)} to "
             f"{shown(p)} {p.unit}." for times, _, own, p in behind if times >= 1.05]
    lines = lines and ["", "Where another system does better, by 5% or more (runs differ by more than that):", "", *lines]
    return "\n".join((short or ["- Nothing falls short of what is to be reached."]) +
                     (lines or ["- No other system does better in any row."]))


def compared(results):
    """How many times worse evapid is than another system at the same point, for all of these."""
    for number, point in enumerate(results.points.values()):
        own = results.points.get((point.row, "evapid", point.params, point.metric))
        if own is None or own is point or not own.median or not point.median:
            continue
        times = own.median / point.median
        yield (1 / times if higher_is_better(point.unit) else times), number, own, point


def higher_is_better(unit):
    return unit.endswith("/s") or unit == "share"


# ---- plots

def draw(results, folder):
    """Returns the lines that show the plots, by the row that they stand at."""
    plots = {}

    def put(place, name, text, script):
        gnuplot(folder / f"{name}.svg", script)
        plots.setdefault(place, []).append(f"![{text}](benchmarks/{name}.svg)")

    if any(goal.ratio for goal in results.goals):
        put("goals", "goals", "How far each figure is from what is to be reached", goals_script(results))
    for row, key, label in (("growth-clients", "clients", "clients"), ("growth-bytes", "bytes", "bytes of an event")):
        if any(point.row == row for point in results.points.values()):
            put(row, row, f"{title_of(row)}: events/s", curves_script(results, row, key, label))
    for row in ("fan-out", "fan-out-reading", "script"):
        if any(point.row == row and point.metric == "rate" and point.values for point in results.points.values()):
            put(row, row, f"{title_of(row)}: deliveries/s", bars_script(results, row))
    return plots


def gnuplot(path, script):
    head = (f'set terminal svg size 1000,{script.count("@row") * 22 + 110 if "@row" in script else 430} '
            'font "sans-serif,13" background "white"\n'
            f'set output "{path}"\nset border 3 lc rgb "#666666"\nset tics nomirror\nset grid ytics lc rgb "#dddddd"\n')
    subprocess.run(["gnuplot"], input=head + script, text=True, check=True)


def colour(system, index):
    return COLOURS.get(system, SPARE[index % len(SPARE)])


def curves_script(results, row, key, label):
    """A line for each system, both axes logarithmic."""
    points = [point for point in results.points.values() if point.row == row and point.values]
    systems = list(dict.fromkeys(point.system for point in points))
    blocks, curves = [], []
    for i, system in enumerate(systems):
        lines = [f"{point.params.split(f'{key}=')[1]} {point.median} {min(point.values)} {max(point.values)}"
                 for point in points if point.system == system]
        blocks.append(f"${'s' + str(i)} << EOD\n" + "\n".join(lines) + "\nEOD\n")
        curves.append(f'$s{i} using 1:2:3:4 with yerrorlines lw 2 pt 7 ps 0.5 lc rgb "{colour(system, i)}" title "{system}"')
    return ("".join(blocks) + f'set logscale xy\nset xlabel "{label}"\nset ylabel "events/s"\nset format y "%.0s%c"\n'
            'set key top right\n' + "plot " + ", ".join(curves) + "\n")


def bars_script(results, row):
    """Bars side by side, a group for each set of parameters."""
    points = [point for point in results.points.values() if point.row == row and point.metric == "rate" and point.values]
    systems = list(dict.fromkeys(point.system for point in points))
    groups = list(dict.fromkeys(point.params for point in points))
    medians = {(point.params, point.system): point.median for point in points}
    lines = [f'"{params}" ' + " ".join(str(medians.get((params, system), 0)) for system in systems) for params in groups]
    bars = [f'$bars using {i + 2}{":xtic(1)" if i == 0 else ""} lc rgb "{colour(system, i)}" title "{system}"'
            for i, system in enumerate(systems)]
    return ("$bars << EOD\n" + "\n".join(lines) + "\nEOD\n"
            'set style data histogram\nset style histogram clustered gap 1\nset style fill solid\nset boxwidth 0.9\n'
            f'set yrange [0:*]\nset ylabel "{points[0].unit}"\nset format y "%.0s%c"\nset key top left\n'
            "plot " + ", ".join(bars) + "\n")


def goals_script(results):
    """How many times better than what is to be reached: left of 1 falls short."""
    goals = [goal for goal in results.goals if goal.ratio]
    lines = []
    for i, goal in enumerate(goals):
        better = goal.ratio / goal.bound if goal.sense == "at least" else goal.bound / goal.ratio
        lines.append(f'{len(goals) - i} {math.log2(better):.4f} "{goal.row}: {goal.text}"  # @row')
    low = math.floor(min([math.log2(0.5)] + [float(line.split()[1]) for line in lines]))
    high = math.ceil(max(float(line.split()[1]) for line in lines))
    tics = ", ".join(f'"{tic_text(power)}" {power}' for power in range(low + low % 2, high + 1, 2))
    return ("$goals << EOD\n" + "\n".join(lines) + "\nEOD\n"
            f'set xrange [{low}:{high}]\nset yrange [0.3:{len(goals)}.7]\nset xtics ({tics})\nset grid xtics lc rgb "#dddddd"\n'
            'set xlabel "times better than to be reached"\nset lmargin at screen 0.52\nset style fill solid\nunset key\n'
            f'set arrow from 0,0.3 to 0,{len(goals)}.7 nohead lw 2 lc rgb "#333333"\n'
            f'plot $goals using (0):1:(0):2:($1-0.35):($1+0.35):($2 < 0 ? {int("d55e00", 16)} : {int("0072b2", 16)}):ytic(3) '
            'with boxxyerror lc rgb variable\n')


def tic_text(power):
    return f"1/{2 ** -power}" if power < 0 else str(2 ** power)
