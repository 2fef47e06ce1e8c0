"""The house, over the sources: every arrow points to a lower floor, none goes in a circle, and each struct has one owner.

To see the floors, run `python3 tests/system/lib/house.py`.
"""
import re
from typing import NamedTuple

import pytest
from house import (FLOOR, FLOORS, OF_THE_TOOL, ROOT, Arrow, calls, circles, code_of, floors, functions, includes, noun_of, path_of, reached,
                   sources, structs, wing_of, writes)

pytestmark = pytest.mark.once

# The file that owns a struct: only it writes the struct's fields. A part of a struct that has an owner of its own is a struct in it.
OWNERS = {"client": "daemon/client/client", "client_input": "daemon/client/input", "client_output": "daemon/client/output",
          "subscription": "daemon/client/subscription", "pace": "daemon/client/pace", "ledger_slot": "daemon/client/ledger",
          "run": "daemon/events/run", "bus": "daemon/bus/bus", "roster": "daemon/bus/roster", "roster_place": "daemon/bus/roster",
          "flush": "daemon/bus/flush", "tagging": "daemon/bus/tag", "kamailio": "daemon/kamailio/kamailio",
          "attachment": "daemon/kamailio/attachment", "gate": "daemon/kamailio/gate", "worker": "daemon/kamailio/worker",
          "worker_seats": "daemon/kamailio/seat", "seat": "daemon/kamailio/seat", "seats": "daemon/kamailio/seat",
          "hold": "daemon/kamailio/hold", "published": "daemon/kamailio/publish"}


@pytest.fixture(scope="module")
def arrows():
    """Between files of the daemon and its tool, by includes and calls."""
    return [*includes("daemon"), *calls("daemon")]


def is_wrong(arrow):
    """Does it point up, or to a neighbour?"""
    if not arrow.used.startswith("daemon/"):
        return False
    user, used = wing_of(arrow.user), wing_of(arrow.used)
    if user == "evapictl":
        return used not in OF_THE_TOOL
    return user != used and (used == "evapictl" or FLOOR[used] >= FLOOR[user])


def is_between_nouns(arrow):
    return arrow.used.startswith("daemon/") and noun_of(arrow.user) != noun_of(arrow.used)


def test_every_file_lies_in_a_wing_and_there_are_at_most_ten_floors():
    print(*floors(), sep="\n")
    assert {wing_of(path_of(file)) for file in sources("daemon")} == {*FLOOR, "evapictl"}
    assert [path_of(file) for file in (ROOT / "daemon").glob("*.[ch]")] == ["daemon/main.c"]
    assert len(FLOORS) <= 10


def test_every_header_is_included_by_its_wing(arrows):
    names = [arrow.used for arrow in arrows if not arrow.used.startswith(("daemon/", "include/evapid/"))]
    assert names == ["web/page_html.h"]  # made by the build


def test_clang_tidy_skips_no_header():
    wanted = re.search(r"^HeaderFilterRegex: '(.*)'$", (ROOT / ".clang-tidy").read_text(), re.M).group(1)
    headers = [file for file in sources("daemon", "include", "shim", "tests") if file.suffix == ".h"]
    assert [path_of(file) for file in headers if not re.search(wanted, str(file))] == []


def test_what_is_shared_uses_nothing_of_the_daemon_and_the_module_nothing_else():
    assert [str(arrow) for arrow in includes("include") if not arrow.used.startswith("include/evapid/")] == []
    assert [str(arrow) for arrow in includes("shim", "shim") if arrow.used.startswith("daemon/")] == []


def test_no_file_uses_one_of_a_higher_floor_or_of_a_neighbour(arrows):
    assert sorted({str(arrow) for arrow in arrows if is_wrong(arrow)}) == []


def test_no_files_use_each_other_in_a_circle(arrows):
    assert circles(filter(is_between_nouns, arrows)) == []


def test_the_wall_clock_is_read_in_one_place():
    """But for the start of this process, which lies between two clocks."""
    reading = [path_of(file) for file in sources("daemon") if "CLOCK_REALTIME" in code_of(file)]
    assert reading == ["daemon/base/clock.h", "daemon/views/process.c"]


def test_connections_are_accepted_in_one_place():
    assert [path_of(file) for file in sources("daemon") if re.search(r"\baccept4?\(", code_of(file))] == ["daemon/net/acceptor.c"]


def test_only_its_owner_writes_the_fields_of_a_struct():
    assert OWNERS.keys() <= structs("daemon").keys()
    every = {*writes("daemon", OWNERS)}
    assert {kind for file, kind, _ in every if noun_of(file) == OWNERS[kind]} == {*OWNERS}, "an owner writes nothing: it is another file"
    assert sorted(f"{file} -> {kind}.{field}" for file, kind, field in every if noun_of(file) != OWNERS[kind]) == []


# ---- the way of an event

class Step(NamedTuple):
    """The walk goes from one file to a function in another. callback: the struct's member by which the function is called. user None: the
    walk begins there."""
    user: str
    used: str
    function: str
    callback: tuple
    is_marked: bool

    def __str__(self):
        return f"{Arrow(self.user, self.used)} ({self.function})"


def way_of_an_event():
    """The lines of that list in docs/architecture.md, and its steps. In a line, the first file calls the others, and then the first
    one of the next line. With "At the end of the turn" the walk begins anew."""
    text = (ROOT / "docs/architecture.md").read_text().split("<!-- test: the way of an event -->\n\n", 1)[1].split("\n\n", 1)[0]
    lines, steps, at = re.split(r"\n(?=\d)", text), [], None
    for line in lines:
        stops = re.findall(r"(↑ )?`(daemon/[\w/]+\.c)` \(`(\w+)`(?:, as `(\w+)\.(\w+)`)?\)", line)
        assert stops, f"no step in: {line}"
        before = None if "At the end of the turn" in line else at
        at = stops[0][1]
        for mark, file, function, struct, member in stops:
            steps.append(Step(at if file != at else before, file, function, (struct, member), bool(mark)))
    return lines, steps


def is_called_back(step):
    """Does the one file set the struct's member to the function, and the other one call the member?"""
    struct, member = step.callback
    declared = any(re.search(rf"^struct {struct} {{\n[^}}]*\(\*{member}\)\(", code_of(ROOT / f"{noun_of(name)}.h"), re.M)
                   for name in (step.user, step.used))
    return (declared and re.search(rf"\.{member} = {step.function}\b", code_of(ROOT / step.used)) is not None and
            re.search(rf"(->|\.){member}\(", code_of(ROOT / step.user)) is not None)


def test_the_way_of_an_event_is_short_and_climbs_seldom(arrows):
    lines, steps = way_of_an_event()
    assert [step.used for step in steps if step.user is None] == ["daemon/kamailio/intake.c", "daemon/main.c"]
    assert steps[-1].used == "daemon/client/stream.c"
    steps = [step for step in steps if step.user is not None]
    climbs = [step for step in steps if noun_of(step.user) in reached(noun_of(step.used), arrows)]
    assert len(lines) <= 10 and len(steps) <= 12 and len(climbs) <= 4
    assert [str(step) for step in steps if step.is_marked] == [str(step) for step in climbs]


def test_each_step_of_the_way_of_an_event_is_a_call_of_the_sources(arrows):
    for step in way_of_an_event()[1]:
        assert step.function in {name for name, *_ in functions(code_of(ROOT / step.used))}, str(step)
        if step.user is None:
            continue
        if any(step.callback):
            assert is_called_back(step), str(step)
        else:
            assert Arrow(step.user, step.used) in arrows, str(step)
            assert re.search(rf"\b{step.function}\(", code_of(ROOT / step.user)), str(step)
