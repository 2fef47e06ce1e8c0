"""What a successor makes of what it finds: books that are still another's, clients whose policy, access or listener are others
in its configuration."""

import json
import os

import pytest

from access import NOBODY, ask_as
from books import balanced, entry_of, number_of, numbered
from client import Client
from handover import ROUTES, begin, goes_on, replace, stall
from script import ask
from successor import Between, try_replace


def configured_restart(stage, **settings):
    stage.evapid.configure(**settings)
    stage.evapid.restart()


# ---- it is let down


def test_a_successor_that_is_let_down_at_the_end_leaves_the_books_as_they_were(stage):
    """It has read the state and works on the books that both have; what a client was passed over for is counted once."""
    phone = begin(stage, replace, limits={"max_queued_bytes": 1 << 18, "slow_policy": "drop-newest"})
    slow, quick = stage.connect(receive_buffer=4096), stage.connect()
    events = stall(stage, phone, slow, [quick], 1 << 17)
    for _ in range(30):  # and nobody asks for the status, which would count what is missed
        events.append(b"x" * 50000)
        assert ask(phone, "relay", events[-1]) == 1
        assert quick.receive() == events[-1]
    between = Between(stage, lambda step: step != "ready")
    code, said = try_replace(stage, control_socket=str(between.path))
    between.ended()
    assert code == 1 and "the running evapid goes on" in said
    status = stage.evapid.status()
    assert [entry["out"]["relayed"] for entry in status["clients"]] == [len(events)] * 2
    assert status["totals"]["out"]["relayed"] == 2 * len(events)
    mine = status["clients"][0]
    assert mine["dropped"]["slow"] == status["totals"]["out"]["dropped"]["slow"] >= 20
    assert slow.receive_many(mine["out"]["relayed"] - mine["dropped"]["slow"]) == events[:-mine["dropped"]["slow"]]
    goes_on(stage, phone, [slow, quick])


# ---- another configuration


def relay_numbered(phone, quick, first, count):
    """Relay events with numbers from first on; returns the next number."""
    for number in range(first, first + count):
        assert ask(phone, "relay", numbered(number, 16000)) == 1
        assert number_of(quick.receive()) == number
    return first + count


def passed_over(stage, policy):
    """A client for which events have been dropped because it doesn't read, beside one that does. Returns a phone, both, and
    how many events there were."""
    phone = begin(stage, replace, limits={"max_queued_bytes": 1 << 18, "slow_policy": policy})
    slow, quick = stage.connect(receive_buffer=4096), stage.connect()
    count = 0
    while entry_of(stage, slow)["dropped"]["slow"] < 10:
        count = relay_numbered(phone, quick, count, 5)
    return phone, slow, quick, count


@pytest.mark.parametrize("before", ["drop-newest", "drop-oldest"])
def test_a_client_that_lost_events_is_disconnected_when_that_is_the_policy_now(stage, before):
    phone, slow, quick, count = passed_over(stage, before)
    stage.replace_evapid(limits={"max_queued_bytes": 1 << 18, "slow_policy": "disconnect"})
    relay_numbered(phone, quick, count, 40)
    stage.evapid.logged(rf"client {slow.index}: .* does not keep up: .* disconnecting it")
    numbers = [number_of(event) for event in slow.receive_rest()]
    assert numbers == sorted(set(numbers))
    assert balanced(stage.evapid.clients(1))


def test_a_client_that_got_the_older_events_gets_the_newer_ones_when_that_is_the_policy_now(stage):
    phone, slow, quick, count = passed_over(stage, "drop-newest")
    stage.replace_evapid(limits={"max_queued_bytes": 1 << 18, "slow_policy": "drop-oldest"})
    count = relay_numbered(phone, quick, count, 40)
    mine = entry_of(stage, slow)
    numbers = [number_of(event) for event in slow.receive_many(mine["out"]["relayed"] - mine["dropped"]["slow"])]
    assert numbers == sorted(set(numbers)) and numbers[-1] == count - 1
    assert len(numbers) + mine["dropped"]["slow"] == count
    assert balanced(stage.evapid.status())


def test_who_is_connected_is_closed_when_access_speaks_against_it_now(stage):
    begin(stage, replace)
    client = stage.connect()
    stage.replace_evapid(access={"deny": ["127.0.0.0/8"]})
    assert client.receive_rest() == []
    stage.kamailio.logged(rf"CLOSED {client.index};")
    assert stage._keep(Client(stage.address)).receive_rest() == []
    refusals = stage.evapid.status()["listeners"][0]["refusals"]
    assert (refusals["denied"], refusals["revoked"]) == (1, 1)


@pytest.mark.parametrize("how", [replace, configured_restart])
def test_the_sockets_get_the_group_and_mode_that_they_have_now(house, how):
    other = NOBODY.pw_gid
    (house.start_evapid if how is replace else house.start_supervised)(
        control_access={"group": other, "mode": "0660"}, kamailio_access={"mode": "0666", "users": []})
    house.start_kamailio(ROUTES)
    assert ask_as(NOBODY.pw_uid, house.evapid.kamailio_socket) == ""
    assert json.loads(ask_as(NOBODY.pw_uid, house.evapid.control_socket))["pid"] == house.evapid.pid
    inodes = [path.stat().st_ino for path in (house.evapid.control_socket, house.evapid.kamailio_socket)]
    if how is replace:
        house.replace_evapid(control_access={}, kamailio_access={"mode": "0640", "group": other})
    else:
        configured_restart(house, control_access={}, kamailio_access={"mode": "0640", "group": other})
    control, kamailio = house.evapid.control_socket.stat(), house.evapid.kamailio_socket.stat()
    assert [control.st_ino, kamailio.st_ino] == inodes
    assert (control.st_mode & 0o7777, control.st_gid) == (0o660, os.getegid())
    assert (kamailio.st_mode & 0o7777, kamailio.st_gid) == (0o640, other)
    assert ask_as(NOBODY.pw_uid, house.evapid.control_socket) == "no permission"
    assert house.evapid.status()["sockets"]["kamailio"]["refused"] == 1  # counted on from there
