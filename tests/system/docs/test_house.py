"""The house, over the sources: every arrow points to a lower floor, none goes in a circle, and each struct has one owner.

To see the floors, run `python3 tests/system/lib/house.py`.
"""
import re

import pytest
from house import (FLOOR, FLOORS, OF_THE_TOOL, ROOT, calls, circles, code_of, floors, includes, noun_of, path_of, sources, structs,
                   wing_of, writes)

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
