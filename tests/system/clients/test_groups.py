"""Consumer groups: clients that share a tag share its unicasts, as unicast_mode says."""

import threading

import pytest

from books import balanced, entry_of, number_of, numbered
from handover import ROUTES, replace, restart, set_tag
from process import until
from script import ask

GROUP = b"group"
SIZE = 20000  # about, of an event that fills queues


def join(stage, address=None, **more):
    """One more client of the group, at its end."""
    client = stage.connect(address, **more)
    set_tag(stage, client, GROUP)
    return client


def begin(stage, mode, how=replace, listeners=(), **limits):
    settings = {"limits": {"unicast_mode": mode, **limits}, "listeners": list(listeners)}
    (stage.start_evapid if how is replace else stage.start_supervised)(**settings)
    stage.start_kamailio(ROUTES, evapi={"workers": 2})
    return stage.phone()


def unicast(phone, number, size=10):
    assert ask(phone, "unicast", numbered(number, size), tag=GROUP.decode()) == 1


def got(client, count):
    """The numbers of the next events."""
    return [number_of(event) for event in client.receive_many(count)]


def given(stage, clients):
    """How many events each of them was given."""
    entries = {entry["index"]: entry["out"]["relayed"] for entry in stage.evapid.status()["clients"]}
    return [entries[client.index] for client in clients]


def test_round_robin_shares_alike_in_the_order_of_the_events(stage):
    phone = begin(stage, "round-robin")
    clients = [join(stage) for _ in range(3)]
    assert [at["unicast_mode"] for at in stage.evapid.status()["listeners"]] == ["round-robin"]
    for number in range(30):
        unicast(phone, number)
    assert [got(client, 10) for client in clients] == [list(range(first, 30, 3)) for first in range(3)]
    assert ask(phone, "multicast", b"to all of them", tag=GROUP.decode()) == 1
    assert [client.receive() for client in clients] == [b"to all of them"] * 3


@pytest.mark.parametrize("mode", ["round-robin", "least-queued"])
def test_what_many_sip_workers_say_is_shared_alike(stage, mode):
    begin(stage, mode)
    clients = [join(stage) for _ in range(4)]

    def talk(first):
        phone = stage.phone()
        for number in range(first, first + 50):
            unicast(phone, number)
    threads = [threading.Thread(target=talk, args=[first]) for first in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shares = [stage.evapid.client(client)["out"]["relayed"] for client in clients]
    assert sum(shares) == 400
    if mode == "round-robin":
        assert shares == [100] * 4
    else:
        assert min(shares) >= 60, "who reads has its part"
    numbers = [number for client, share in zip(clients, shares) for number in got(client, share)]
    assert sorted(numbers) == list(range(400))


def test_another_copy_takes_its_part_and_one_that_leaves_gives_it_back(stage):
    phone = begin(stage, "round-robin")
    clients = [join(stage) for _ in range(2)]
    for number in range(4):
        unicast(phone, number)
    clients.append(join(stage))
    for number in range(4, 13):
        unicast(phone, number)
    assert [got(client, count) for client, count in zip(clients, (5, 5, 3))] == [
        [0, 2, 4, 7, 10], [1, 3, 5, 8, 11], [6, 9, 12]]
    clients.pop(1).close()
    stage.evapid.clients(2)
    for number in range(13, 19):
        unicast(phone, number)
    assert [got(client, 3) for client in clients] == [[13, 15, 17], [14, 16, 18]]


@pytest.mark.parametrize("mode", ["round-robin", "least-queued"])
def test_a_copy_that_dies_loses_what_it_had_and_no_more(stage, mode):
    """Its share goes to the others, and each event is with somebody or counted."""
    phone = begin(stage, mode)
    clients = [join(stage) for _ in range(3)]
    dying, numbers = clients[1], []
    for number in range(300):
        unicast(phone, number, 2000)
        if number == 100:
            numbers += [number_of(event) for event in dying.receive_ready()]
            dying.reset()
    survivors = [clients[0], clients[2]]
    stage.evapid.until_status(lambda s: s["totals"]["events"]["unicast"] == 300, "all are on their way")
    shares = given(stage, survivors)
    numbers += [number for client, share in zip(survivors, shares) for number in got(client, share)]
    stage.evapid.until_status(lambda s: len(s["clients"]) == 2, "the third has gone")
    status = stage.evapid.status()
    totals = status["totals"]["out"]
    assert totals["relayed"] == 300 and status["totals"]["events"]["no_receiver"] == 0
    assert len(set(numbers)) == len(numbers), "no event has come twice"
    to_the_dead = totals["relayed"] - sum(shares)
    assert to_the_dead < 60, "it got its part as long as it lived"
    assert totals["delivered"] + sum(totals["dropped"].values()) == 300
    assert sorted(numbers)[-150:] == list(range(150, 300)), "all that came later is with the others"
    balanced(status)


@pytest.mark.parametrize("mode, behind", [("round-robin", 1 << 19), ("least-queued", 15 * SIZE)])
def test_a_copy_that_does_not_read_costs_no_event(stage, mode, behind):
    """By turns, one that is slow is passed by; by queues, one that has more waiting than the others."""
    phone = begin(stage, mode, max_queued_bytes=1 << 20)
    stalled = join(stage, receive_buffer=4096)
    share = 0
    while entry_of(stage, stalled)["out"]["queued_bytes"] <= behind:  # many events: the kernel may take some more
        assert share < 3000
        unicast(phone, share, SIZE)
        share += 1
    assert entry_of(stage, stalled)["slow"] == (mode == "round-robin")
    readers, numbers, sent = [join(stage), join(stage)], [], share

    def missing():
        """How many of what was sent the readers have not got."""
        numbers.extend(number_of(event) for client in readers for event in client.receive_ready())
        return sent - len(numbers)

    for _ in range(60):
        unicast(phone, sent, SIZE)
        sent += 1
        until(lambda: missing() == share, "one of the others has it")
    assert given(stage, [stalled]) == [share], "the others took all of it"
    entry = entry_of(stage, stalled)
    assert entry["state"] == "open" and 0 < entry["out"]["queued_bytes"] <= (1 << 19) + 2 * SIZE
    numbers += got(stalled, share)
    assert sorted(numbers) == list(range(sent))
    assert set(stage.evapid.status()["totals"]["out"]["dropped"].values()) == {0}
    stage.evapid.until_status(lambda s: not any(e["slow"] or e["out"]["queued_bytes"] for e in s["clients"]),
                              "it keeps up again")
    for number in range(3):
        unicast(phone, number, SIZE)
    assert given(stage, [stalled]) == [share + 1]


def test_who_has_the_tag_longest_speaks_for_the_group(stage):
    turns, first = stage.new_address(), stage.new_address()
    phone = begin(stage, "first", listeners=[{"address": turns, "unicast_mode": "round-robin"}, {"address": first}])
    shown = {at["address"]: at["unicast_mode"] for at in stage.evapid.status()["listeners"]}
    assert shown == {turns: "round-robin", first: "first", stage.address: "first"}
    oldest = join(stage, turns)
    others = [join(stage, first), join(stage)]
    for number in range(6):
        unicast(phone, number)
    assert [got(client, 2) for client in (oldest, *others)] == [[0, 3], [1, 4], [2, 5]]
    oldest.close()
    stage.evapid.clients(2)
    for number in range(3):
        unicast(phone, number)
    assert got(others[0], 3) == [0, 1, 2]


@pytest.mark.parametrize("how", [replace, restart])
def test_the_turn_goes_over_to_a_successor(stage, how):
    phone = begin(stage, "round-robin", how)
    clients = [join(stage) for _ in range(3)]
    for number in range(20):
        unicast(phone, number)
        if number % 4 == 1:
            how(stage)
    assert [got(client, count) for client, count in zip(clients, (7, 7, 6))] == [
        list(range(first, 20, 3)) for first in range(3)]


def test_a_reload_changes_the_mode(stage):
    phone = begin(stage, "first")
    clients = [join(stage) for _ in range(2)]
    unicast(phone, 0)
    unicast(phone, 1)
    stage.evapid.reload(limits={"unicast_mode": "round-robin"})
    for number in range(2, 6):
        unicast(phone, number)
    assert [got(client, count) for client, count in zip(clients, (4, 2))] == [[0, 1, 2, 4], [3, 5]]
