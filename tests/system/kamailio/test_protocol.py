"""docs/protocol.md from the other side: a module that is written anew in lib/worker.py attaches, and plays a worker's part."""

import os
import re
import struct

import pytest

import wire
from process import until
from ring import CLOSE, MULTICAST, RELAY, SLEEPING, TAG, TAIL, UNICAST, Ring, record
from worker import INSTANCE, Worker


@pytest.fixture
def worker(stage):
    stage.start_evapid()
    worker = Worker(stage, bind_addr=stage.address.encode()).welcomed()
    yield worker
    worker.close()


def let_in(stage, worker):
    client = stage.connect(admitted=False)
    kind, (_, client.index, port, address, tag, message) = worker.run()
    assert (kind, port, address, tag, message) == (wire.NEW, client.port, b"127.0.0.1", b"", b"")
    stage.evapid.client(client)
    return client


def test_welcome_names_evapid_and_status_names_the_module(stage, worker):
    assert worker.evapid == stage.evapid.pid
    kamailio = stage.evapid.attached(os.getpid(), 1)["kamailio"]
    assert (kamailio["version"], kamailio["module"]) == ("5.6.3", "0.0")
    assert kamailio["ring"]["capacity"] == 65536
    assert stage.evapid.status()["session"] == worker.session


def test_events_and_messages_pass_through_the_ring_and_the_socket(stage, worker):
    client, other = let_in(stage, worker), let_in(stage, worker)
    client.send(b"a message\0\xff")
    kind, (sequence, connection, port, address, tag, message) = worker.run()
    assert (kind, sequence, connection, port, message) == (wire.MESSAGE, 3, client.index, client.port, b"a message\0\xff")
    worker.push(RELAY, payload=b"to all")
    worker.push(TAG, tag=b"blue", session=worker.session, target=client.index)
    worker.push(MULTICAST, tag=b"blue", payload=b"to blue")
    worker.push(CLOSE, session=worker.session, target=client.index)
    worker.push(RELAY, payload=b"to who is left")
    assert client.receive_rest() == [b"to all", b"to blue"]
    assert other.receive_many(2) == [b"to all", b"to who is left"]
    kind, (_, connection, _, _, tag, _) = worker.run()
    assert (kind, connection, tag) == (wire.CLOSED, client.index, b"blue")


def test_evapid_asks_to_be_woken_by_a_done_when_somebody_waits_for_it(stage, worker):
    client = let_in(stage, worker)
    assert worker.awaited() == 1, "a client waited to be let in"
    client.send(b"a message")
    worker.begin()
    assert worker.awaited() == 1, "nobody waits for the end of a message's route"
    worker.done(2, wake=False)
    stage.evapid.until_status(lambda s: s["kamailio"]["workers"][0]["in_flight"] == 0, "the done is known all the same")
    client.send(b"the last one")
    worker.begin()
    client.close()
    until(lambda: worker.awaited() == 3, "the client's end waits for the end of its message's route")
    worker.done(3)
    assert worker.run()[0] == wire.CLOSED


def test_evapid_asks_to_be_woken_by_a_done_when_the_window_is_closed(stage):
    stage.start_evapid(limits={"worker_window_frames": 2})
    worker = Worker(stage, bind_addr=stage.address.encode()).welcomed()
    client = let_in(stage, worker)
    for message in (b"one", b"two", b"three"):
        client.send(message)
    until(lambda: worker.awaited() == 3, "the third message waits for a place")
    assert [worker.run()[1][5] for _ in range(3)] == [b"one", b"two", b"three"]
    worker.close()


def test_the_module_lets_evapid_sleep_when_nobody_waits_for_a_done(stage):
    stage.start_evapid()
    stage.start_kamailio('route[TEST] { exit; } event_route[evapi:message-received] { usleep("2000"); }')
    ring = Ring(stage.kamailio.pid)
    client = stage.connect()

    def left_alone():
        """Of a message's route, longer than evapid polls for its end, the DONE stays in the ring."""
        before = ring.head()
        client.send(b"a message")
        until(lambda: ring.head() != before, "the route has ended")
        return ring.get(SLEEPING) != 0 and ring.get(TAIL) != ring.head()

    until(left_alone, "evapid sleeps on")  # again, should its look of every second have come just then
    client.close()
    stage.evapid.clients(0)
    ring.close()


def test_nobody_is_let_in_before_done(stage, worker):
    client = stage.connect(admitted=False)
    client.send(b"early")
    _, (sequence, *_) = worker.begin()
    worker.push(RELAY, payload=b"not for the new one")
    stage.evapid.until_status(lambda s: s["totals"]["events"]["no_receiver"] == 1, "the event has found nobody")
    assert stage.evapid.client(client, "admitting")["in"]["frames"] == 0
    worker.done(sequence)
    assert worker.run()[1][5] == b"early"
    worker.push(RELAY, payload=b"welcome")
    assert client.receive() == b"welcome"


def test_the_window_bounds_what_a_worker_has_to_do(stage):
    stage.start_evapid(limits={"worker_window_frames": 4})
    worker = Worker(stage, bind_addr=stage.address.encode()).welcomed()
    client = let_in(stage, worker)
    for number in range(10):
        client.send(b"%d" % number)
    begun = [worker.begin()[1] for _ in range(4)]
    (shown,) = stage.evapid.until_status(
        lambda s: s["kamailio"]["workers"][0]["in_flight"] == 4, "the window is full")["kamailio"]["workers"]
    assert shown["waiting"] == 1
    worker.link.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        worker.link.socket.recv(1)
    worker.link.socket.settimeout(30)
    worker.done(begun[-1][0])  # of all four
    assert [worker.run()[1][5] for _ in range(6)] == [b"%d" % number for number in range(4, 10)]
    worker.close()


def test_what_a_worker_had_not_begun_goes_to_the_next_kamailio(stage):
    stage.start_evapid()
    worker = Worker(stage, bind_addr=stage.address.encode()).welcomed()
    client = let_in(stage, worker)
    for number in range(5):
        client.send(b"%d" % number)
    assert [worker.begin()[1][5] for _ in range(2)] == [b"0", b"1"]
    worker.close()
    stage.evapid.detached()
    worker = Worker(stage, instance=INSTANCE + 1, bind_addr=stage.address.encode()).welcomed()
    assert [worker.run()[1][5] for _ in range(4)] == [b"", b"2", b"3", b"4"], "NEW, then what had not begun"
    worker.close()


def test_a_worker_that_dies_leaves_its_clients_to_the_others(stage):
    stage.start_evapid()
    first = Worker(stage, workers=2, bind_addr=stage.address.encode()).welcomed()
    second = Worker(stage, ring=(first.memory, first.wake), index=1, workers=2,
                    bind_addr=stage.address.encode()).welcomed()
    stage.evapid.attached(os.getpid(), 2)
    client = stage.connect(admitted=False)
    its, other = (first, second) if stage.evapid.until_status(
        lambda s: sum(worker["clients"] for worker in s["kamailio"]["workers"]) == 1, "the client has a worker"
    )["kamailio"]["workers"][0]["clients"] else (second, first)
    its.run()
    stage.evapid.client(client)
    for number in range(3):
        client.send(b"%d" % number)
    assert its.begin()[1][5] == b"0"
    its.close()
    assert [other.run()[1][5] for _ in range(2)] == [b"1", b"2"], "not announced again: it is the same Kamailio"
    other.close()


def test_unicast_passes_over_a_first_one_that_is_not_let_in_yet(stage, worker):
    early = stage.connect(admitted=False)
    _, (sequence, index, *_) = worker.begin()
    worker.push(TAG, tag=b"blue", session=worker.session, target=index)
    late = stage.connect(admitted=False)
    _, (last, other, *_) = worker.begin()
    worker.push(TAG, tag=b"blue", session=worker.session, target=other)
    worker.push(UNICAST, tag=b"blue", payload=b"for nobody")
    worker.done(sequence)
    worker.push(UNICAST, tag=b"blue", payload=b"for the early one")
    assert early.receive() == b"for the early one"
    worker.done(last)
    worker.push(CLOSE, session=worker.session, target=index)
    worker.push(UNICAST, tag=b"blue", payload=b"for the late one")
    assert late.receive() == b"for the late one"
    assert early.receive_rest() == []


def test_unicast_passes_over_a_first_one_that_was_announced_anew(stage, worker):
    """After its worker's death in connection-new a client waits again; who was let in is served."""
    first, second = let_in(stage, worker), let_in(stage, worker)
    for client in (first, second):
        worker.push(TAG, tag=b"blue", session=worker.session, target=client.index)
    worker.push(UNICAST, tag=b"blue", payload=b"for the first")
    assert first.receive() == b"for the first"
    worker.close()
    stage.evapid.detached()
    again = Worker(stage, instance=INSTANCE + 1, bind_addr=stage.address.encode()).welcomed()
    events = [again.begin()[1] for _ in range(2)]
    assert sorted(event[1] for event in events) == [first.index, second.index]
    assert all(event[4] == b"blue" for event in events)
    again.done(events[-1][0])
    again.push(UNICAST, tag=b"blue", payload=b"still for the first")
    assert first.receive() == b"still for the first"
    again.close()


def test_an_event_may_wrap_around_the_ring_s_end(stage, worker):
    client = let_in(stage, worker)
    for number in range(200):
        payload = b"%d:" % number + bytes([number]) * 997
        worker.push(RELAY, payload=payload)
        assert client.receive() == payload


@pytest.mark.parametrize("more, said", [
    ({"instance": INSTANCE + 1}, str(os.getpid())), ({"index": 0, "workers": 1}, "worker"),
    ({"index": 1, "workers": 3}, "worker")], ids=["another Kamailio", "the same worker", "another number of workers"])
def test_who_does_not_belong_to_the_attached_kamailio_is_refused(stage, worker, more, said):
    other = Worker(stage, **{"ring": (worker.memory, worker.wake), "workers": 1, **more})
    assert said in other.link.refused()[1]
    other.close()
    client = let_in(stage, worker)
    worker.push(RELAY, payload=b"undisturbed")
    assert client.receive() == b"undisturbed"


def test_a_worker_that_talks_after_its_hello_is_cut_off(stage, worker):
    worker.link.send(wire.frame(wire.WELCOME, b"\0" * 12))
    assert worker.link.read() == b""
    stage.evapid.detached()
    assert re.search(r"(warning|notice|error) ", stage.evapid.text())


# ---- questions


@pytest.fixture
def ask(stage):
    """Open a connection and send a QUERY on it."""
    links = []

    def send(*parts, **of):
        link = wire.Link(stage.evapid.kamailio_socket)
        links.append(link)
        for part in parts or [wire.query(**of)]:
            link.send(part)
        return link
    yield send
    for link in links:
        link.close()


def answered(link):
    kind, body = link.frame()
    assert kind == wire.ANSWER
    assert link.read() == b"", "behind the answer is nothing"
    return wire.answer(body)


def test_a_query_is_answered_and_then_the_connection_ends(stage, ask):
    stage.start_evapid()
    answer = answered(ask())
    assert answer["pid"] == stage.evapid.pid and answer["kamailio"] == {"state": "detached"}
    assert "ring" not in answer and answer["workers"] == answer["listeners"] == []
    assert answered(ask(subject=wire.CLIENTS)) == {"total": 0, "clients": [], "shown": 0, "left": 0}


def leave_a_hole(worker, payload):
    """Another process of the worker's module claims and writes a record, and does not publish it. Returns its position."""
    head = record(RELAY, payload=len(payload))
    at = worker.ring.claim(struct.unpack_from("=QI", head)[1], slot=1)
    worker.ring.write(at, head + payload)
    return at


def test_a_process_that_is_stopped_in_its_push_delays_what_comes_after_it_until_it_goes_on(stage, worker):
    client = let_in(stage, worker)
    worker.push(RELAY, payload=b"before")
    at = leave_a_hole(worker, b"in the middle")
    worker.push(RELAY, payload=b"after")
    assert client.receive() == b"before"
    status = stage.evapid.until_status(lambda s: s["kamailio"]["ring"]["stuck"], "evapid says that it is stuck")
    assert status["kamailio"]["ring"]["lost"] == 0
    worker.ring.publish(at)
    worker.wake.send()
    assert [client.receive(), client.receive()] == [b"in the middle", b"after"]
    stage.evapid.until_status(lambda s: not s["kamailio"]["ring"]["stuck"], "it goes on")


def test_what_a_whole_kamailio_has_left_is_read_but_for_the_record_that_was_not_finished(stage, worker):
    client = let_in(stage, worker)
    leave_a_hole(worker, b"never finished")
    worker.push(RELAY, payload=b"after")
    worker.close()
    worker.wake.close()
    assert client.receive() == b"after"
    assert stage.evapid.until_status(lambda s: s["kamailio"]["state"] == "detached", "it has gone")["kamailio"]["ring"]["lost"] == 1


def test_a_query_may_come_in_pieces(stage, ask):
    stage.start_evapid()
    whole = wire.query(subject=wire.CLIENTS, limit=1)
    assert answered(ask(*(whole[at:at + 1] for at in range(len(whole)))))["total"] == 0


def test_questions_leave_the_attachment_in_peace(stage, worker, ask):
    client = let_in(stage, worker)
    for _ in range(300):  # more than may be strangers at a time
        assert answered(ask())["kamailio"]["pid"] == os.getpid()
    worker.push(RELAY, payload=b"event")
    assert client.receive() == b"event"
    answer = answered(ask(subject=wire.CLIENTS))
    assert [entry["address"] for entry in answer["clients"]] == [f"127.0.0.1:{client.port}"]


def test_an_answer_counts_what_the_ring_has_without_a_wake(stage, worker, ask):
    let_in(stage, worker)
    worker.push(RELAY, payload=b"event", wake=False)
    assert answered(ask(subject=wire.CLIENTS))["clients"][0]["relayed"] == 1


@pytest.mark.parametrize("bad", [wire.query(version=9), wire.query(magic=b"evapid\0\1"), wire.query(subject=3),
                                 wire.frame(wire.QUERY, b""), wire.query()[:8] + wire.query()[9:] + b"\0",
                                 wire.frame(wire.QUERY, wire.query()[8:] + b"\0"), wire.frame(wire.ANSWER, b"")])
def test_what_is_no_query_is_refused(stage, ask, bad):
    stage.start_evapid()
    version, reason = ask(bad).refused()
    assert version == wire.VERSION
    assert re.search(f"speaks version {wire.VERSION} .* version 9" if bad == wire.query(version=9) else "that is no HELLO", reason)


def test_who_has_asked_is_no_worker(stage, ask):
    stage.start_evapid()
    link = ask(wire.query(), wire.hello())
    assert link.frame()[0] == wire.ANSWER
    assert link.read() == b"" and stage.evapid.status()["kamailio"]["state"] == "detached"


def test_who_does_not_read_the_answer_holds_nobody_up(stage, ask):
    """Answers are as long as a socket takes, so that evapid has none of them to keep."""
    stage.start_evapid(listeners=[{"address": stage.new_address(), "max_clients": 200}])
    address = stage.evapid.settings["listeners"][0]["address"]
    for _ in range(150):
        stage.connect(address, admitted=False)
    stage.evapid.until_status(lambda s: len(s["clients"]) == 150, "all have come")
    deaf = [ask(subject=wire.CLIENTS) for _ in range(40)]
    assert answered(ask(subject=wire.CLIENTS))["left"] == 50
    assert all(len(answered(link)["clients"]) == 100 for link in deaf)
