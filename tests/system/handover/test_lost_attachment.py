"""A successor can take over the clients, but not Kamailio's attachment: the queue or a link was not kept, or the queue can't be
read. Only the attachment ends. Clients keep all that was theirs, and Kamailio attaches again."""

import os

import pytest

from books import balanced
from client import netstring
from handover import ROUTES, replace, restart, set_tag, stall
from process import until
from ring import RECORDS, VERSION, make_ring
from script import ask, events_of
from successor import succeed

# A message is known by its first bytes, for a line of the log has room for no more.
BRIEF = ROUTES.replace("$(evapi(msg){s.rtrim})", "$(evapi(msg){s.substr,0,4})")
MESSAGES = 12
OTHER_VERSION = "its queue can't be read, because the queue is of another version: install evapid and the module together, and restart Kamailio"
LOST = r"warning kamailio: the attachment of pid {pid} is not taken over: {why}; clients stay, and wait until it attaches again"


def not_kept(*names):
    """The service manager has not kept these."""
    def change(name, descriptor):
        if name not in names:
            return descriptor
        os.close(descriptor)
        return None
    return change


def of_another_version(name, descriptor):
    """The queue, as a module of another version has it: its header has another size."""
    if name != "ring":
        return descriptor
    ring = make_ring(os.fstat(descriptor).st_size - RECORDS, header=RECORDS + 4096)
    os.pwrite(ring, (VERSION + 1).to_bytes(4, "little"), 8)
    os.close(descriptor)
    return ring


def that_can_be_cut_short(name, descriptor):
    """A queue in memory that is not sealed."""
    if name != "ring":
        return descriptor
    os.close(descriptor)
    return make_ring(65536, seals=0)


def that_can_not_be_watched(name, descriptor):
    """A plain file in place of a link."""
    if name != "worker-1":
        return descriptor
    os.close(descriptor)
    return os.open(__file__, os.O_RDONLY)


def come(stage, how, change):
    """A successor, with what change(name, descriptor) makes of all that was left."""
    if how is restart:
        stage.evapid.terminate()
        stage.evapid.notifications.exchange(change)
        return
    last = stage.evapid
    last.expect_end = True
    between, stage.evapid = succeed(stage, lambda successor, step: True, change=change)
    between.ended()
    assert last.ended() == 0
    stage.evapid.ready()


def begin(stage, how, workers, **evapi):
    (stage.start_evapid if how is replace else stage.start_supervised)(
        limits={"worker_window_frames": 64, "worker_window_bytes": 16 << 20})
    stage.start_kamailio(BRIEF, evapi={"workers": workers, **evapi})
    return stage.phone()


def said_once_and_in_order(stage, client):
    """What the client has said has come to routes, in order and each once."""
    said = [b"%04d" % number for number in range(MESSAGES)]

    def look():
        heard = [word.encode() for event, word in events_of(stage.kamailio, client.index) if event == "GOT"]
        assert heard == said[:len(heard)]
        return len(heard) == MESSAGES
    until(look, "all that it has said is heard")


WAYS = [
    (restart, not_kept("ring"), "its queue can't be read, because it was not kept"),
    (restart, not_kept("ring-wake"), "its queue can't be read, because it was not kept"),
    (restart, not_kept("worker-1"), "1 of the 2 links to its workers were not kept"),
    (restart, not_kept("worker-0", "worker-1"), "2 of the 2 links to its workers were not kept"),
    (restart, not_kept("ring", "ring-wake", "worker-0", "worker-1"), "its queue can't be read, because it was not kept"),
    (restart, of_another_version, OTHER_VERSION),
    (restart, that_can_be_cut_short, "its queue can't be read, because its memory is not sealed against a change of size"),
    (restart, that_can_not_be_watched, "1 of the 2 links to its workers were not kept"),
    (replace, of_another_version, OTHER_VERSION),
]


@pytest.mark.parametrize("how, change, why", WAYS, ids=[
    "ring", "wake", "a link", "all links", "everything", "version", "not sealed", "a file as link", "version, replaced"])
def test_clients_stay_with_all_that_is_theirs(stage, how, change, why):
    phone = begin(stage, how, 2)
    tagged, talks, slow, halfway = clients = [stage.connect(receive_buffer=4096 if i == 2 else None) for i in range(4)]
    set_tag(stage, tagged, b"blue")
    events = stall(stage, phone, slow, [tagged, talks, halfway], waiting=1)
    halfway.send_bytes(netstring(b"in two parts")[:7])
    ask(phone, "gate", gate="2")
    for number in range(MESSAGES):
        talks.send(b"%04d" % number + b"x" * 40000)
    stage.kamailio.logged(rf"GOT {talks.index} 0000;")
    stage.evapid.until_status(lambda s: s["clients"][1]["in"]["frames"] == MESSAGES, "all are on their way")
    before = stage.evapid.status()
    come(stage, how, change)
    if how is restart:
        assert ask(phone, "relay", b"away") == 1
        stage.evapid.start_again()
    stage.evapid.logged(LOST.format(pid=stage.kamailio.pid, why=why))
    stage.evapid.attached(stage.kamailio.pid, 1)  # the other one is at work
    halfway.send_bytes(netstring(b"in two parts")[7:])
    stage.kamailio.logged(rf"GOT {halfway.index} in t;")
    assert [word for event, word in events_of(stage.kamailio, talks.index) if event == "GOT"] == ["0000"]
    assert not stage.evapid.lines("does not know|are closed")
    ask(phone, "gate", gate="0")
    if how is replace:
        assert ask(phone, "relay", b"away") == 1
    stage.evapid.attached(stage.kamailio.pid, 2)
    stage.evapid.clients(4)
    said_once_and_in_order(stage, talks)
    assert ask(phone, "multicast", b"to blue", tag="blue") == 1
    assert tagged.receive_many(2) == [b"away", b"to blue"]
    for client in (talks, halfway):
        assert client.receive() == b"away"
    assert slow.receive_many(len(events) + 1) == events + [b"away"]
    for client in clients:
        assert [event for event, _ in events_of(stage.kamailio, client.index)].count("NEW") == 2
    status = stage.evapid.until_status(lambda s: s["totals"]["in"]["waiting"] == s["totals"]["out"]["queued_frames"] == 0,
                                       "all is done")
    assert balanced(status)
    assert sum(status["totals"]["out"]["dropped"].values()) == sum(status["totals"]["in"]["dropped"].values()) == 0
    assert status["session"] != before["session"]
    assert [entry["address"] for entry in status["listeners"]] == [entry["address"] for entry in before["listeners"]]
    if how is restart:
        assert stage.evapid.stored() == sorted([f"client-{client.index}" for client in clients] +
                                               ["ledger", "listener-1", "ring", "ring-wake"])


def test_clients_that_are_to_end_with_their_kamailio_stay_for_it_lives(stage):
    """keep_clients 0, and all links are lost."""
    phone = begin(stage, restart, 1, keep_clients=0)
    client = stage.connect()
    come(stage, restart, not_kept("worker-0"))
    stage.evapid.start_again()
    stage.evapid.attached(stage.kamailio.pid, 1)
    assert ask(phone, "relay", b"on") == 1
    assert client.receive() == b"on"
    stage.kamailio.terminate()
    assert client.receive_rest() == []


def test_a_client_that_has_gone_meanwhile_is_forgotten_once_it_was_heard(stage):
    """All that it had said comes to routes. connection-new runs again, as for every client; connection-closed runs once."""
    phone = begin(stage, restart, 1)
    stays, leaves = stage.connect(), stage.connect()
    ask(phone, "gate", gate="2")
    for number in range(MESSAGES):
        leaves.send(b"%04d" % number + b"x" * 40000)
    stage.kamailio.logged(rf"GOT {leaves.index} 0000;")
    leaves.wait_read()
    leaves.close()
    come(stage, restart, not_kept("ring", "worker-0"))
    stage.evapid.start_again()
    ask(phone, "gate", gate="0")
    said_once_and_in_order(stage, leaves)
    stage.evapid.clients(1)
    assert ask(phone, "relay", b"on") == 1
    assert stays.receive() == b"on"
    assert [event for event, _ in events_of(stage.kamailio, leaves.index) if event != "GOT"] == ["NEW", "NEW", "CLOSED"]
    assert balanced(stage.evapid.status())


def test_one_more_restart_before_all_are_attached_again_keeps_the_order(stage):
    """The worker at work can't attach before its route ends. What the client has said after that goes to no other worker."""
    phone = begin(stage, restart, 2)
    client = stage.connect()
    ask(phone, "gate", gate="2")
    for number in range(MESSAGES):
        client.send(b"%04d" % number + b"x" * 40000)
    stage.kamailio.logged(rf"GOT {client.index} 0000;")
    come(stage, restart, not_kept("worker-0", "worker-1"))
    stage.evapid.start_again()
    stage.evapid.attached(stage.kamailio.pid, 1)
    stage.evapid.restart()
    stage.evapid.attached(stage.kamailio.pid, 1)
    other = stage.connect()
    other.send(b"other")
    stage.kamailio.logged(rf"GOT {other.index} othe;")  # the other worker serves
    assert [word for event, word in events_of(stage.kamailio, client.index) if event == "GOT"] == ["0000"]
    ask(phone, "gate", gate="0")
    said_once_and_in_order(stage, client)
    stage.evapid.clients(2)


def test_killed_beside_a_queue_of_another_version_clients_stay_as_well(stage):
    phone = begin(stage, restart, 2)
    clients = [stage.connect() for _ in range(3)]
    stage.evapid.kill()
    stage.evapid.notifications.exchange(of_another_version)
    assert ask(phone, "relay", b"away") == 1
    stage.evapid.start_again()
    stage.evapid.logged("warning handover: the queue of the Kamailio before can't be read: the queue is of another version")
    stage.evapid.attached(stage.kamailio.pid, 2)
    for client in clients:
        assert client.receive() == b"away"
    assert balanced(stage.evapid.status())
