"""The house, over the sources: every arrow points to a lower floor, none goes in a circle, and each struct has one owner.

What is not true yet stands in two lists, which only shrink: a line in them that is needed no more fails, too. To see the floors,
`python3 tests/system/house.py`.
"""
import re

import pytest
from house import (FLOOR, FLOORS, OF_THE_TOOL, ROOT, Arrow, calls, circles, code_of, floors, includes, noun_of, path_of, sources, structs,
                   wing_of, writes)

pytestmark = pytest.mark.once

# A file that uses another one which stands above it, beside it, or in a circle with it.
KNOWN_ARROWS = """
daemon/kamailio/hold.c -> daemon/kamailio/kamailio.c
daemon/kamailio/hold.h -> daemon/kamailio/kamailio.h
daemon/kamailio/kamailio.c -> daemon/kamailio/stranger.c
daemon/kamailio/kamailio.c -> daemon/kamailio/stranger.h
daemon/kamailio/seat.c -> daemon/kamailio/kamailio.c
daemon/kamailio/seat.c -> daemon/kamailio/kamailio.h
""".split("\n")[1:-1]

# Whose fields are written by whom beside their owner, the file in which the struct's functions are.
OWNERS = {"client": "daemon/client/client", "client_input": "daemon/client/input", "client_output": "daemon/client/output",
          "subscription": "daemon/client/subscription", "pace": "daemon/client/pace", "ledger_slot": "daemon/client/ledger",
          "run": "daemon/events/run", "bus": "daemon/bus/bus", "roster": "daemon/bus/roster", "roster_place": "daemon/bus/roster",
          "flush": "daemon/bus/flush", "tagging": "daemon/bus/tag", "worker": "daemon/kamailio/worker",
          "seat": "daemon/kamailio/seat", "kamailio": "daemon/kamailio/kamailio"}
KNOWN_WRITES = """
daemon/kamailio/hold.c -> kamailio.expected
daemon/kamailio/kamailio.c -> worker.index
daemon/kamailio/kamailio.c -> worker.mark
daemon/kamailio/kamailio.c -> worker.state
daemon/kamailio/seat.c -> kamailio.announced
daemon/kamailio/seat.c -> kamailio.placing
daemon/kamailio/seat.c -> kamailio.serving
daemon/kamailio/seat.c -> kamailio.unplaced
daemon/kamailio/seat.c -> worker.seat_count
daemon/kamailio/seat.c -> worker.seats
daemon/kamailio/seat.c -> worker.waiting
daemon/kamailio/seat.c -> worker.waiting_count
daemon/kamailio/stranger.c -> kamailio.asking
daemon/kamailio/stranger.c -> kamailio.stranger_count
daemon/kamailio/stranger.c -> kamailio.strangers
daemon/kamailio/stranger.c -> kamailio.waiting
daemon/kamailio/succession.c -> kamailio.abandoned
daemon/kamailio/succession.c -> kamailio.attachment
daemon/kamailio/succession.c -> kamailio.corrupt
daemon/kamailio/succession.c -> kamailio.corrupt_instance
daemon/kamailio/succession.c -> kamailio.expected
daemon/kamailio/succession.c -> kamailio.instance
daemon/kamailio/succession.c -> kamailio.pid
daemon/kamailio/succession.c -> kamailio.queue
daemon/kamailio/succession.c -> kamailio.queue_lost
daemon/kamailio/succession.c -> kamailio.resume_wanted
daemon/kamailio/succession.c -> kamailio.session
daemon/kamailio/succession.c -> kamailio.since_ms
daemon/kamailio/succession.c -> kamailio.stale
daemon/kamailio/succession.c -> kamailio.workers
daemon/kamailio/succession.c -> kamailio.workers_attached
daemon/kamailio/succession.c -> kamailio.workers_declared
daemon/kamailio/succession.c -> worker.index
daemon/kamailio/succession.c -> worker.lost
daemon/lifecycle/handover.c -> bus.upstream
daemon/lifecycle/handover.c -> kamailio.declaration
daemon/main.c -> kamailio.asked
daemon/main.c -> kamailio.door
daemon/main.c -> kamailio.subject
""".split("\n")[1:-1]


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
    names = [str(arrow) for arrow in arrows if not arrow.used.startswith(("daemon/", "include/evapid/"))]
    assert names == []


def test_clang_tidy_skips_no_header():
    wanted = re.search(r"^HeaderFilterRegex: '(.*)'$", (ROOT / ".clang-tidy").read_text(), re.M).group(1)
    headers = [file for file in sources("daemon", "include", "shim", "tests") if file.suffix == ".h"]
    assert [path_of(file) for file in headers if not re.search(wanted, str(file))] == []


def test_what_is_shared_uses_nothing_of_the_daemon_and_the_module_nothing_else():
    assert [str(arrow) for arrow in includes("include") if not arrow.used.startswith("include/evapid/")] == []
    assert [str(arrow) for arrow in includes("shim", "shim") if arrow.used.startswith("daemon/")] == []


def test_no_file_uses_one_of_a_higher_floor_or_of_a_neighbour(arrows):
    assert sorted({str(arrow) for arrow in arrows if is_wrong(arrow)} - {*KNOWN_ARROWS}) == []


def test_no_files_use_each_other_in_a_circle(arrows):
    assert circles(arrow for arrow in arrows if is_between_nouns(arrow) and str(arrow) not in KNOWN_ARROWS) == []


@pytest.mark.parametrize("known", KNOWN_ARROWS)
def test_a_known_arrow_is_there_still_and_wrong(arrows, known):
    arrow = Arrow(*known.split(" -> "))
    assert arrow in arrows, "it is gone: take it from the list"
    others = [other for other in arrows if is_between_nouns(other) and str(other) not in KNOWN_ARROWS]
    assert is_wrong(arrow) or circles([*others, arrow]), "it is right by now: take it from the list"


def test_the_wall_clock_is_read_in_one_place():
    """But for the start of this process, which lies between two clocks."""
    reading = [path_of(file) for file in sources("daemon") if "CLOCK_REALTIME" in code_of(file)]
    assert reading == ["daemon/base/clock.h", "daemon/views/process.c"]


def test_connections_are_accepted_in_one_place():
    assert [path_of(file) for file in sources("daemon") if re.search(r"\baccept4?\(", code_of(file))] == ["daemon/net/acceptor.c"]


@pytest.fixture(scope="module")
def foreign():
    """What others than its owner write of a struct."""
    assert OWNERS.keys() <= structs("daemon").keys()
    every = {*writes("daemon", OWNERS)}
    assert {kind for file, kind, _ in every if noun_of(file) == OWNERS[kind]} == {*OWNERS}, "an owner writes nothing: it is another file"
    return {f"{file} -> {kind}.{field}" for file, kind, field in every if noun_of(file) != OWNERS[kind]}


def test_only_its_owner_writes_the_fields_of_a_struct(foreign):
    assert sorted(foreign - {*KNOWN_WRITES}) == []


@pytest.mark.parametrize("known", KNOWN_WRITES)
def test_a_known_write_is_there_still(foreign, known):
    assert known in foreign, "it is gone: take it from the list"
