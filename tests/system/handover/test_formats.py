"""Evapids of different versions follow each other: each takes over what it knows of what the other has left, and says what it
does not know; one that can't go on with it leaves the other one running. And what each version has written lies in
fixtures/, for every later one to read.

The fixture of a new version is made by EVAPID_WRITE_FIXTURE=1 and test_the_fixture_of_this_version_has_every_field."""

import os
import re
import socket

import pytest

from books import balanced
from client import netstring
from evapid import ROOT
from formats import FIXTURES, HEADER_PART, SLOT_PART, Ledger, State, bytes_of, memory_of
from handover import begin, goes_on, replace, restart, set_tag, stall
from process import DEADLINE_S
from ring import Wake, make_ring
from script import ask
from successor import NAME, Successor, batches, close_all, succeed
from supervisor import stored_as

VERSION = int(re.search(r"#define STATE_VERSION (\d+)U", (ROOT / "daemon/base/state.h").read_text()).group(1))
RARE = {"clients.client.seat.returned record", "clients.client.seat.returned.read-ns number",
        "clients.client.seat.returned.message bytes"}  # hardly ever there: messages that a worker has died with


# ---- fixtures


def everything_on_its_way(stage):
    """One of each that a state can have: a message that came in part, messages at a worker and in wait, queues with events of
    their own and with those of all, and a kept tag."""
    phone = begin(stage, replace, {"workers": 2}, limits={"worker_window_frames": 2, "keep_absent_ms": 3600000})
    clients = [stage.connect(), stage.connect(), stage.connect(receive_buffer=4096)]
    for client in (clients[0], clients[2]):
        set_tag(stage, client, b"blue")
    stall(stage, phone, clients[2], clients[:2])
    away = stage.connect()
    set_tag(stage, away, b"away")
    away.close()
    stage.evapid.clients(3)
    assert ask(phone, "unicast", b"to away", tag="away") == 1
    assert ask(phone, "multicast", b"to blue" * 10, tag="blue") == 1
    assert ask(phone, "relay", b"to all" * 10) == 1
    for client in clients[:2]:
        assert (client.receive_many(2) if client is clients[0] else [client.receive()])[-1] == b"to all" * 10
    ask(phone, "gate", gate="2")
    clients[1].send_bytes(netstring(b"said") * 9 + b"20:in part")
    stage.evapid.until_status(lambda s: s["clients"][1]["in"]["frames"] >= 2, "messages are at a worker")
    return clients


def taken(stage):
    """State and ledger of the evapid that runs, which goes on."""
    successor, found = Successor(stage.evapid).ask(), {}
    answer = successor.line()
    for count in batches(int(re.search(rb'"descriptors":(\d+)', answer).group(1))):
        bytes_, descriptors = successor.batch(count)
        for at, descriptor in enumerate(descriptors):
            name = bytes_[at * NAME:(at + 1) * NAME].rstrip(b"\0").decode()
            if name in ("state", "ledger"):
                found[name] = bytes_of(descriptor)
        close_all(descriptors)
    successor.close()
    return State.parse(found["state"]), Ledger(found["ledger"])


def test_the_fixture_of_this_version_has_every_field(stage):
    """A field that comes or goes, or lies elsewhere, needs a new version and its fixture."""
    everything_on_its_way(stage)
    state, ledger = taken(stage)
    assert State.parse(state.build()).fields == state.fields
    folder = FIXTURES / f"format-{VERSION}"
    if os.environ.get("EVAPID_WRITE_FIXTURE"):
        folder.mkdir(parents=True, exist_ok=True)
        state.find("clients", "client", "seat").append(["returned", [["read-ns", 1], ["message", b"came back"]]])
        (folder / "state.json").write_text(state.store() + "\n")
        (folder / "ledger.json").write_text(ledger.store() + "\n")
    fixture = State.load((folder / "state.json").read_text())
    assert (state.version, state.reader) == (fixture.version, fixture.reader) == (VERSION, fixture.reader)
    assert state.shapes() | RARE == fixture.shapes()
    assert ledger.layout() == Ledger.load((folder / "ledger.json").read_text()).layout()
    stage.evapid.logged("not replaced: the successor did not get ready; going on")


def connected():
    """Both ends of a TCP connection: evapid's, and a client's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return server.accept()[0], client


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("format-*")), ids=lambda folder: folder.name)
def test_what_an_earlier_version_has_left_is_gone_on_with(stage, folder):
    state = State.load((folder / "state.json").read_text())
    state.set(["links", "queue", "ahead"], 0)  # the ring is an empty one
    state.set(["kamailio", "declaration", "address"], stage.address.encode())
    state.set(["listeners", "listener", "name"], stage.address.encode())
    stage.start_supervised()
    stage.evapid.terminate()
    stage.evapid.notifications.release()
    clients = [value for name, value in state.find("clients") if name == "client"]
    indexes = [dict(client)["index"] for client in clients]
    kept, ends = {}, {}
    for index in indexes:
        kept[f"client-{index}"], ends[index] = connected()
    links = [socket.socketpair() for _ in range(2)]
    kept["worker-0"], kept["worker-1"] = links[0][0], links[1][0]
    wake = Wake()
    given = {name: os.dup(of.fileno()) for name, of in kept.items()}
    given |= {"ring": make_ring(65536), "ring-wake": os.dup(wake.passed), "state": memory_of(state.build()),
              "ledger": memory_of(Ledger.load((folder / "ledger.json").read_text()).bytes)}
    for name, descriptor in given.items():
        stage.evapid.notifications.store.add(descriptor, name, False)
    for end in kept.values():
        end.close()
    wake.close()
    stage.evapid.start_again()
    stage.evapid.logged(f"taken over: {len(indexes)} clients")
    assert not stage.evapid.lines("can't be taken over|not kept|does not know")
    status = stage.evapid.status()
    assert balanced(status)
    assert [(entry["index"], entry["tag"]) for entry in status["clients"]] == list(zip(indexes, ["blue", None, "blue"]))
    assert [worker["index"] for worker in status["kamailio"]["workers"]] == [0, 1]
    assert status["clients"][1]["in"]["frames"] == 9
    slow, read = ends[indexes[2]], b""
    slow.settimeout(DEADLINE_S)
    while not read.endswith(netstring(b"to blue" * 10) + netstring(b"to all" * 10)):
        read += slow.recv(1 << 20)
    assert len(read) > 1 << 17
    stage.evapid.until_status(lambda s: s["clients"][2]["out"]["queued_frames"] == 0, "all is delivered")
    assert stage.evapid.ask(command="relay", event="on")["published"]["received"] == 1
    for end in ends.values():
        end.settimeout(DEADLINE_S)
        assert end.recv(100) == netstring(b"on")
        end.close()
    for _, link in links:
        link.close()
    stage.evapid.detached()


# ---- another version


def later(version, reader, gone=()):
    """A change of state and ledger to those of another version, which has fields of its own and lacks some of ours."""
    def change(name, descriptor):
        if name == "state":
            state = State.parse(bytes_of(descriptor))
            state.version, state.reader = version, reader
            state.fields.insert(3, ["colours", [["colour", b"blue"], ["number", 4711]]])
            for client in [value for field, value in state.find("clients") if field == "client"]:
                client.insert(2, ["mood", 7])
                client[:] = [field for field in client if field[0] not in gone]
            os.close(descriptor)
            return memory_of(state.build())
        if name == "ledger":
            ledger = Ledger(bytes_of(descriptor))
            ledger.say(version, reader)
            ledger.rename(SLOT_PART, "connected_ns", "mood")
            ledger.rename(HEADER_PART, "meter.refused_full", "weather")
            os.close(descriptor)
            return memory_of(ledger.bytes)
        return descriptor
    return change


UNKNOWN = [r"kept colours in its state, which this one does not know: 40 bytes", r"kept clients\.client\.mood in its state, .*: \d+ bytes",
           r"kept weather in its ledger, .*: 8 bytes", r"kept mood in its ledger, .*: 24 bytes"]


def busy(stage, how):
    """A client in the middle of a message, one for which much waits, one that is idle; and how much waits."""
    phone = begin(stage, how, {"workers": 2})
    clients = [stage.connect(), stage.connect(), stage.connect(receive_buffer=4096)]
    set_tag(stage, clients[0], b"blue")
    events = stall(stage, phone, clients[2], clients[:2])
    clients[1].send_bytes(netstring(b"in two parts")[:7])
    clients[1].wait_read()
    return phone, clients, events


def nothing_is_lost(stage, phone, clients, events):
    stage.evapid.attached(stage.kamailio.pid, 2)
    clients[1].send_bytes(netstring(b"in two parts")[7:])
    stage.kamailio.logged(rf"GOT {clients[1].index} in two parts;")
    assert clients[2].receive_many(len(events)) == events
    assert ask(phone, "unicast", b"to blue", tag="blue") == 1
    assert clients[0].receive() == b"to blue"
    goes_on(stage, phone, clients)
    assert balanced(stage.evapid.status())
    assert sum(stage.evapid.status()["totals"]["out"]["dropped"].values()) == 0


@pytest.mark.parametrize("how", [replace, restart])
def test_what_another_version_keeps_besides_is_passed_over_and_said(stage, how):
    phone, clients, events = busy(stage, how)
    change = later(VERSION + 1, VERSION, gone=("has-turn", "pace"))
    if how is replace:
        last = stage.evapid
        last.expect_end = True
        between, stage.evapid = succeed(stage, lambda successor, step: True, change=change)
        between.ended()
        assert last.ended() == 0
        stage.evapid.ready()
    else:
        stage.evapid.terminate()
        stage.evapid.notifications.exchange(change)
        stage.evapid.start_again()
    for line in UNKNOWN:
        stage.evapid.logged(f"warning handover: the evapid before {line} skipped")
    nothing_is_lost(stage, phone, clients, events)
    if how is restart:  # the ledger that was made of the other one has taken its place
        for ledger in ("ledger-2", "ledger-2"):
            assert [name for name in stage.evapid.stored() if "ledger" in name] == [ledger]
            assert Ledger(bytes_of(stored_as(stage.evapid, ledger))).version == VERSION
            stage.evapid.kill_and_restart()
            assert not stage.evapid.lines("does not know")
            stage.evapid.clients(3)


def test_a_ledger_of_another_version_is_gone_on_with_after_a_kill(stage):
    phone, clients, _ = busy(stage, restart)
    clients[1].send_bytes(netstring(b"in two parts")[7:])
    stage.kamailio.logged(rf"GOT {clients[1].index} in two parts;")
    stage.evapid.kill()
    ledger = next(stored for stored in stage.evapid.notifications.store.kept if stored.name == "ledger")
    ledger.fd = later(VERSION + 1, VERSION)("ledger", ledger.fd)
    stage.evapid.start_again()
    stage.evapid.logged("evapid was killed: 2 clients go on, 1 are closed")
    stage.evapid.attached(stage.kamailio.pid, 2)
    stage.evapid.clients(2)
    assert ask(phone, "unicast", b"to blue", tag="blue") == 1
    assert clients[0].receive() == b"to blue"
    assert balanced(stage.evapid.status())


def test_an_earlier_version_that_can_not_go_on_leaves_the_one_that_runs(stage):
    phone, clients, events = busy(stage, replace)
    between, successor = succeed(stage, lambda successor, step: True, change=later(99, 98))
    successor.expect_end = True
    assert successor.ended() == 1
    between.ended()
    assert successor.lines(r"error .*: it was written by a later version, for 98 or later \(format 99; this one is \d+\)")
    stage.evapid.logged("not replaced: the successor did not get ready; going on")
    nothing_is_lost(stage, phone, clients, events)


def test_a_service_that_can_not_go_on_says_so_and_serves(stage):
    phone, clients, _ = busy(stage, restart)
    stage.evapid.terminate()
    stage.evapid.notifications.exchange(later(99, 98))
    stage.evapid.start_again()
    stage.evapid.logged("error handover: the ledger can't be taken over: it was written by a later version, for 98 or later")
    stage.evapid.attached(stage.kamailio.pid, 2)
    for client in clients[:2]:
        assert client.receive_rest() == []
    client = stage.connect()
    assert ask(phone, "relay", b"on") == 1
    assert client.receive() == b"on"
