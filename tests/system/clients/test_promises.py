"""The promises of docs/architecture.md, each by its number."""

import fcntl
import os
import random
import re
import struct
import threading

import pytest

from books import balanced, entry_of, number_of, numbered
from client import netstring
from process import until
from ring import (CLAIMED, CLOSE, DONE, MULTICAST, RECORD, RECORDS, RELAY, SLOTS, SLOTS_USED, TAG, Ring, Wake, make_ring,
                  record)
from script import gate, relay
from wire import Link, hello

# A request relays its body, or does what its user part says; X-Rc is the return value. The gate holds connection-new.
ROUTES = """
route[TEST] {
    $var(rc) = 0;
    switch ($rU) {
        case "relay": evapi_relay("$rb"); $var(rc) = $rc; break;
        case "count":
            $var(count) = $var(count) + 1;
            evapi_relay("$pp $var(count)"); $var(rc) = $rc;
            break;
        case "number": evapi_relay("$pp $hdr(X-Number)"); $var(rc) = $rc; break;
        case "multicast": evapi_multicast("$rb", "$hdr(X-Tag)"); $var(rc) = $rc; break;
        case "close": evapi_close("$hdr(X-Index)"); $var(rc) = $rc; break;
        case "gate": $shv(gate) = $(hdr(X-Gate){s.int}); break;
        case "flood":
            $var(big) = $rb;
            $var(i) = 0;
            while ($var(i) < 16) {
                evapi_relay("$var(big)");
                $var(i) = $var(i) + 1;
            }
            break;
    }
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    sl_send_reply("200", "OK");
}

event_route[evapi:connection-new] {
    xlog("L_NOTICE", "NEW $evapi(conidx);\\n");
    if ($shv(gate) == 1) evapi_set_tag("early");
    while ($shv(gate) == 1) usleep("1000");
    if ($shv(gate) == 2) {
        evapi_relay("for those who are let in");
        evapi_close();
    } else if ($shv(gate) == 3) {
        evapi_relay("welcome");
    }
}

event_route[evapi:message-received] {
    xlog("L_NOTICE", "GOT $evapi(conidx) $evapi(msg);\\n");
    if ($evapi(msg) == "wait") {
        while ($shv(gate) != 5) usleep("1000");
    } else if ($evapi(msg) == "commands") {
        evapi_multicast("before", "t$evapi(conidx)");
        evapi_set_tag("t$evapi(conidx)");
        evapi_multicast("tagged", "t$evapi(conidx)");
        evapi_set_tag("u$evapi(conidx)");
        evapi_multicast("too late", "t$evapi(conidx)");
        evapi_multicast("tagged anew", "u$evapi(conidx)");
        evapi_close();
        evapi_multicast("closed", "u$evapi(conidx)");
    } else if ($evapi(msg) =~ "^tag:") {
        evapi_set_tag("$(evapi(msg){s.select,1,:})");
        evapi_multicast("tagged", "$(evapi(msg){s.select,1,:})");
    }
}

event_route[evapi:connection-closed] {
    xlog("L_NOTICE", "CLOSED $evapi(conidx);\\n");
}
"""


def begin(stage, evapi=None, children=4, **settings):
    stage.start_evapid(**settings)
    stage.start_kamailio(ROUTES, evapi=evapi, children=children)
    return stage.phone()


# ---- 1. A SIP worker never waits for evapid or for a client


def flood_until_slow(stage, phone, healthy):
    """Relay numbered events until a client that doesn't read has lost some, and fifty more. The healthy client gets each.
    Returns how many."""
    number, more = 0, 50
    while more > 0:
        assert number < 6000, "a client that doesn't read has been given everything"
        assert relay(phone, numbered(number, 16000)) == 1
        assert number_of(healthy.receive()) == number
        number += 1
        if more < 50 or stage.evapid.status()["totals"]["out"]["dropped"]["slow"] > 0:
            more -= 1
    return number


def test_promise_1_a_client_that_stops_reading_holds_up_neither_sip_nor_another_client(stage):
    phone = begin(stage, limits={"max_queued_bytes": 262144, "linger_ms": 600000})
    stalled, healthy = stage.connect(receive_buffer=4096), stage.connect()
    flood_until_slow(stage, phone, healthy)
    assert entry_of(stage, healthy)["dropped"]["slow"] == 0
    stage.evapid.logged(rf"warning client {stalled.index}: .*does not keep up")


def test_promise_1_sip_is_answered_while_evapid_is_stopped_and_a_full_queue_says_so(stage):
    phone = begin(stage, evapi={"queue_size": 65536})
    client = stage.connect()
    stage.evapid.stopped()
    accepted, refused, number = [], 0, 0
    while refused < 20:
        rc = relay(phone, numbered(number, 1000))
        assert rc == 1 or rc < 0
        if rc == 1:
            accepted.append(number)
        else:
            refused += 1
        number += 1
        assert number < 1000, "a queue of 64 KiB takes no 1 MB"
    assert len(accepted) >= 30
    stage.evapid.goes_on()
    assert [number_of(client.receive()) for _ in accepted] == accepted
    assert stage.evapid.status()["kamailio"]["ring"]["refused_full"] == refused
    assert relay(phone, b"end") == 1
    assert client.receive() == b"end"


def test_promise_1_sip_is_answered_while_an_event_route_takes_long(stage):
    phone = begin(stage)
    client = stage.connect()
    gate(phone, 1)
    waiting = stage.connect(admitted=False)
    stage.evapid.client(waiting, "admitting")
    for number in range(100):
        assert relay(phone, b"%d" % number) == 1
        assert client.receive() == b"%d" % number
    gate(phone, 0)
    stage.evapid.client(waiting)


def test_promise_1_sip_is_answered_while_evapid_is_gone(stage):
    phone = begin(stage, evapi={"queue_size": 65536})
    stage.evapid.kill()
    returned = [relay(phone, numbered(number, 1000)) for number in range(200)]
    assert returned == sorted(returned, reverse=True) and returned[0] == 1 and returned[-1] < 0


# ---- 2. A frame reaches a client whole or not at all


def test_promise_2_a_client_that_lost_events_got_the_others_whole_and_in_order(stage):
    phone = begin(stage, limits={"max_queued_bytes": 262144, "linger_ms": 600000})
    stalled, healthy = stage.connect(receive_buffer=4096), stage.connect()
    sent = flood_until_slow(stage, phone, healthy)
    numbers = [number_of(event) for event in stalled.receive_rest()]
    assert numbers == list(range(len(numbers))) and len(numbers) < sent
    stage.evapid.clients(1)
    totals = stage.evapid.status()["totals"]["out"]
    assert totals["delivered"] == sent + len(numbers)
    assert totals["delivered"] + totals["dropped"]["slow"] == totals["relayed"]


def test_promise_2_what_waits_for_a_client_that_is_closed_leaves_whole(stage):
    phone = begin(stage)
    stalled, healthy = stage.connect(receive_buffer=4096), stage.connect()
    for number in range(300):
        assert relay(phone, numbered(number, 16000)) == 1
        healthy.receive()
    assert entry_of(stage, stalled)["out"]["queued_frames"] > 0
    phone.ask("MESSAGE", "close", {"X-Index": stalled.index})
    assert relay(phone, b"end") == 1
    assert healthy.receive() == b"end"
    assert [number_of(event) for event in stalled.receive_rest()] == list(range(300))


# ---- 3. Commands take effect in the order issued, across all Kamailio processes


def test_promise_3_events_of_each_sip_worker_stay_in_its_order(stage):
    phone = begin(stage, children=8)
    client = stage.connect()
    phone.finish_all([phone.start("MESSAGE", "count") for _ in range(600)])
    assert relay(phone, b"end") == 1
    counts = {}
    for event in client.receive_until(b"end"):
        process, number = map(int, event.split())
        counts.setdefault(process, []).append(number)
    assert sum(map(len, counts.values())) >= 600 and len(counts) > 1
    for numbers in counts.values():
        assert numbers == list(range(1, len(numbers) + 1))


def test_promise_3_what_one_worker_issued_after_another_arrives_after_it(stage):
    phone = begin(stage, children=8)
    client = stage.connect()
    for number in range(300):
        phone.ask("MESSAGE", "number", {"X-Number": number})
    events = [event.split() for event in client.receive_many(300)]
    assert [int(number) for _, number in events] == list(range(300))


def test_promise_3_tag_close_and_event_take_effect_where_the_script_has_them(stage):
    begin(stage)
    for _ in range(20):
        client = stage.connect()
        client.send(b"commands")
        assert client.receive_rest() == [b"tagged", b"tagged anew"]


def test_promise_3_a_close_by_one_process_stands_before_the_next_event_of_another(stage):
    phone = begin(stage)
    other = stage.connect()
    for _ in range(20):
        client = stage.connect()
        assert relay(phone, b"before") == 1
        assert int(phone.ask("MESSAGE", "close", {"X-Index": client.index})["X-Rc"]) == 1
        assert relay(phone, b"after") == 1
        assert client.receive_rest() == [b"before"]
        assert other.receive_many(2) == [b"before", b"after"]


# ---- 4. A client sees nothing before its connection-new route let it in, and inherits nothing


def test_promise_4_no_event_and_no_reading_before_connection_new_has_let_the_client_in(stage):
    phone = begin(stage)
    other = stage.connect()
    gate(phone, 1)
    client = stage.connect(admitted=False)
    client.send(b"early")
    client.index = stage.evapid.client(client, "admitting")["index"]
    stage.kamailio.logged(rf"NEW {client.index};")
    for number in range(20):
        assert relay(phone, b"early %d" % number) == 1
        assert other.receive() == b"early %d" % number
    waiting = stage.evapid.client(client, "admitting")
    assert (waiting["out"]["relayed"], waiting["in"]["frames"]) == (0, 0)
    assert not stage.kamailio.lines(r"GOT \d+ early;")
    gate(phone, 0)
    stage.evapid.client(client)
    assert relay(phone, b"now") == 1
    assert client.receive() == other.receive() == b"now"
    assert len(stage.kamailio.logged(rf"GOT {client.index} early;")) == 1


def test_promise_4_a_tag_that_connection_new_has_set_brings_no_event_of_another_process_before_it_ends(stage):
    phone = begin(stage, evapi={"workers": 2})
    gate(phone, 1)
    client = stage.connect(admitted=False)
    stage.evapid.until_status(lambda s: s["clients"] and s["clients"][0]["tag"] == "early", "the client is tagged")
    gate(phone, 0)
    stage.evapid.client(client)
    client.send(b"wait")  # so that its worker is busy; the next client gets the other one
    gate(phone, 1)
    second = stage.connect(admitted=False)
    until(lambda: stage.evapid.client(second, "admitting")["tag"] == "early", "the second client is tagged")
    assert int(phone.ask("MESSAGE", "multicast", {"X-Tag": "early"}, b"for the first")["X-Rc"]) == 1
    assert client.receive() == b"for the first"
    gate(phone, 5)
    stage.evapid.client(second)
    assert int(phone.ask("MESSAGE", "multicast", {"X-Tag": "early"}, b"for both")["X-Rc"]) == 1
    assert client.receive() == second.receive() == b"for both"


def test_promise_4_what_connection_new_says_is_the_first_that_the_client_hears(stage):
    phone = begin(stage)
    other = stage.connect()
    gate(phone, 3)
    for number in range(20):
        client = stage.connect(admitted=False)
        assert client.receive() == b"welcome"
        assert relay(phone, b"%d" % number) == 1
        assert client.receive() == b"%d" % number
        assert other.receive_many(2) == [b"welcome", b"%d" % number]
        client.close()


def test_promise_4_a_client_that_connection_new_closes_gets_no_byte_and_says_none(stage):
    phone = begin(stage)
    other = stage.connect()
    gate(phone, 2)
    for number in range(20):
        client = stage.connect(admitted=False)
        client.send(b"let me in")
        assert relay(phone, b"%d" % number) == 1
        assert client.receive_rest() == []
    assert relay(phone, b"end") == 1
    assert sorted(other.receive_until(b"end")) == sorted(
        [b"%d" % number for number in range(20)] + [b"for those who are let in"] * 20)
    assert len(stage.kamailio.logged(r"CLOSED \d+;", 20)) == 20
    assert not stage.kamailio.lines(r"GOT .*let me in")


def test_promise_4_a_client_inherits_nothing_from_an_earlier_one(stage):
    phone = begin(stage)
    first = stage.connect(receive_buffer=4096)
    first.send(b"tag:blue")
    assert first.receive() == b"tagged"
    for number in range(100):
        assert int(phone.ask("MESSAGE", "multicast", {"X-Tag": "blue"}, numbered(number, 50000))["X-Rc"]) == 1
    stage.evapid.until_status(lambda s: s["clients"][0]["out"]["queued_frames"] > 0, "events wait for the first client")
    first.send_bytes(b"1000:the beginning of a message")
    first.reset()
    stage.evapid.clients(0)
    second = stage.connect()
    assert second.index > first.index and stage.evapid.client(second)["tag"] in ("", None)
    assert int(phone.ask("MESSAGE", "multicast", {"X-Tag": "blue"}, b"to the first")["X-Rc"]) == 1
    assert relay(phone, b"to the second") == 1
    assert second.receive() == b"to the second"
    second.send(b"a message of its own")
    stage.kamailio.logged(rf"GOT {second.index} a message of its own;")


# ---- 5. Messages reach routes in order, each at most once, none lost before its route starts


def got_numbers(kamailios, index):
    """The numbers that routes of these Kamailios have begun with, for one client."""
    pattern = re.compile(rf"GOT {index} (\d+);")
    return [int(found.group(1)) for kamailio in kamailios for found in pattern.finditer(kamailio.text())]


def test_promise_5_kamailio_killed_in_a_stream_of_messages(stage):
    """At each SIGKILL one route may have begun and not yet said so: only such a message may be missing."""
    kills, part = 3, 3000  # each life of Kamailio gets a part of the stream of its own, so that it has something to die in
    total = (kills + 1) * part
    begin(stage, evapi={"workers": 2})
    kamailios, clients = [stage.kamailio], [stage.connect() for _ in range(3)]
    for client in clients:
        client.socket.settimeout(120)

    def send_part(life):
        stream = b"".join(netstring(b"%d" % number) for number in range(life * part, (life + 1) * part))
        for client in clients:
            client.send_bytes(stream)

    for life in range(kills + 1):
        sender = threading.Thread(target=send_part, args=(life,), daemon=True)
        sender.start()
        if life < kills:
            stage.kamailio.logged(r"GOT \d+ \d+;", 100)
            stage.kamailio.kill()
            kamailios.append(stage.restart_kamailio())
        sender.join(120)
    for client in clients:
        until(lambda: got_numbers(kamailios, client.index)[-1:] == [total - 1], "the last message is worked on")
        numbers = got_numbers(kamailios, client.index)
        assert numbers == sorted(set(numbers)), "each at most once, in order"
        missing = set(range(total)) - set(numbers)
        assert len(missing) <= kills, f"lost without a route: {sorted(missing)[:20]}"
        assert entry_of(stage, client)["in"]["frames"] == total


def test_promise_5_a_route_that_kamailio_died_in_is_not_begun_again_and_the_next_message_is_not_lost(stage):
    begin(stage)
    client = stage.connect()
    client.send_bytes(b"".join(map(netstring, (b"1", b"wait", b"3", b"4"))))
    stage.kamailio.logged(rf"GOT {client.index} wait;")
    first = stage.kamailio
    first.kill()
    stage.restart_kamailio()
    stage.kamailio.logged(rf"GOT {client.index} 4;")
    begun = [re.findall(rf"GOT {client.index} (\w+);", kamailio.text()) for kamailio in (first, stage.kamailio)]
    assert begun == [["1", "wait"], ["3", "4"]]


def test_promise_5_a_connection_new_that_kamailio_died_in_is_begun_again(stage):
    """It has not let the client in: only one that ends does."""
    phone = begin(stage)
    gate(phone, 1)
    client = stage.connect(admitted=False)
    client.send(b"a message")
    stage.kamailio.logged(r"NEW 1;")
    stage.kamailio.kill()
    stage.evapid.client(client, "admitting")
    stage.restart_kamailio()
    stage.kamailio.logged(r"GOT 1 a message;")
    assert len(stage.kamailio.lines(r"NEW 1;")) == 1


# ---- 6. Every loss is counted with its reason and shown by status


def test_promise_6_the_books_balance_per_client_and_in_total(stage):
    phone = begin(stage, limits={"max_queued_bytes": 262144, "linger_ms": 600000}, evapi={"max_clients": 3})
    healthy, stalled, leaving = stage.connect(), stage.connect(receive_buffer=4096), stage.connect(receive_buffer=4096)
    assert stage.connect(admitted=False).receive_rest() == []
    sent = 0
    while entry_of(stage, leaving)["out"]["queued_frames"] == 0:
        assert relay(phone, numbered(sent, 16000)) == 1
        healthy.receive()
        sent += 1
    assert balanced(stage.evapid.status())
    lost = entry_of(stage, leaving)["out"]["queued_frames"]
    leaving.reset()
    stage.evapid.until_status(lambda s: len(s["clients"]) == 2, "the client that left has gone")
    for _ in range(2):
        assert int(phone.ask("MESSAGE", "multicast", {"X-Tag": "nobody"}, b"x")["X-Rc"]) == 1
    sent += flood_until_slow(stage, phone, healthy)
    for number in range(10):
        healthy.send(b"%d" % number)
    status = stage.evapid.until_status(lambda s: s["totals"]["in"]["frames"] == 10, "ten messages came")
    assert balanced(status)
    totals = status["totals"]
    assert (totals["clients"]["accepted"], totals["clients"]["refused"]) == (3, 1)
    events = totals["events"]
    assert (events["relay"], events["multicast"], events["unicast"], events["no_receiver"]) == (sent, 2, 0, 2)
    assert totals["out"]["dropped"]["closed"] == lost
    assert totals["out"]["dropped"]["slow"] > 0
    assert totals["in"]["bytes"] == 10
    mine = entry_of(stage, healthy)
    assert (mine["out"]["relayed"], mine["out"]["delivered"], mine["in"]["frames"]) == (sent, sent, 10)


def test_promise_6_messages_that_a_close_throws_away_are_counted(stage):
    begin(stage, limits={"worker_window_frames": 8})
    client = stage.connect()
    client.send_bytes(netstring(b"commands") + b"".join(netstring(b"%d" % number) for number in range(100)))
    assert client.receive_rest() == [b"tagged", b"tagged anew"]
    stage.kamailio.logged(rf"CLOSED {client.index};")
    run = len(stage.kamailio.lines(rf"GOT {client.index} "))
    dropped = stage.evapid.status()["totals"]["in"]["dropped"]["closed"]
    assert run >= 1 and dropped >= 92 and run + dropped == 101


# ---- 7. Memory is bounded by configuration

MIB = 1 << 20
SLACK = 24 * MIB  # for the allocator and the sanitizers


def test_promise_7_stalled_clients_cost_no_more_memory_than_their_queues(stage):
    phone = begin(stage, limits={"max_queued_bytes": 262144, "linger_ms": 600000})
    for _ in range(20):
        stage.connect(receive_buffer=4096)
    before = stage.evapid.own_bytes()
    for _ in range(100):  # 1600 events of 60 kB: 96 MB
        phone.ask("MESSAGE", "flood", body=b"x" * 60000)
    status = stage.evapid.until_status(lambda s: s["kamailio"]["ring"]["used"] == 0, "the ring is drained")
    assert all(entry["out"]["queued_bytes"] <= 262144 for entry in status["clients"])
    assert stage.evapid.own_bytes() < before + 20 * 262144 + SLACK
    assert balanced(status)


def test_promise_7_messages_that_nobody_takes_cost_no_more_memory_than_their_limits(stage):
    begin(stage, limits={"max_message_bytes": MIB})
    clients = [stage.connect() for _ in range(4)]
    stage.kamailio.terminate()
    stage.evapid.detached()
    before = stage.evapid.own_bytes()
    for client in clients:
        client.send_all_it_takes(netstring(b"y" * 1000), 24 * MIB)
    assert stage.evapid.own_bytes() < before + 4 * MIB + SLACK
    assert stage.evapid.status()["kamailio"]["state"] == "detached"


def test_promise_7_a_slow_route_costs_no_more_memory_than_its_window(stage):
    begin(stage, limits={"max_message_bytes": MIB, "worker_window_frames": 50, "worker_window_bytes": MIB})
    clients = [stage.connect() for _ in range(4)]
    before = stage.evapid.own_bytes()
    clients[0].send(b"wait")
    stage.kamailio.logged(rf"GOT {clients[0].index} wait;")
    for client in clients:
        client.send_all_it_takes(netstring(b"y" * 1000), 24 * MIB)
    (worker,) = stage.evapid.status()["kamailio"]["workers"]
    assert 0 < worker["in_flight"] <= 50
    assert stage.evapid.own_bytes() < before + 5 * MIB + SLACK


def test_promise_7_promised_lengths_cost_nothing_until_the_bytes_come(stage):
    begin(stage, limits={"max_message_bytes": 32 * MIB})
    before = stage.evapid.own_bytes()
    for _ in range(50):
        client = stage.connect()
        client.send_apart([b"33554432:" + b"z" * 100])
    assert stage.evapid.own_bytes() < before + SLACK


# ---- 8. No input can crash evapid or reach another client


def test_promise_8_garbage_from_the_network_harms_nobody(stage):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    raw = stage.new_address()
    phone = begin(stage, listeners=[{"address": raw, "framing": "raw"}])
    healthy = stage.connect()
    pieces = [b"0:,", b"5:", b"99999999999999999999:", b":", b",", b"\n", b"-1:x,", b"00000000001:x,", b"3:abc"]
    for number in range(120):
        client = stage.connect(raw if number % 4 == 0 else None, admitted=False)
        bytes_ = b"".join(chance.choice(pieces) if chance.random() < 0.7 else chance.randbytes(chance.randrange(200))
                          for _ in range(chance.randrange(1, 20)))
        try:
            client.send_bytes(bytes_)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was closed for its beginning
        chance.choice([client.close, client.reset, client.half_close])()
    assert relay(phone, b"end") == 1
    assert healthy.receive() == b"end"


@pytest.mark.parametrize("door", ["kamailio_socket", "control_socket"])
def test_promise_8_garbage_at_the_doors_harms_nobody(stage, door):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    phone = begin(stage)
    client = stage.connect()
    for _ in range(60):
        link = Link(getattr(stage.evapid, door))
        link.send(chance.choice([b"", b"\0" * 8, struct.pack("<II", 0xffffffff, 1), b"GET / HTTP/1.1\r\n\r\n",
                                 struct.pack("<II", 40, 1) + b"evapid\0\0", b"{" * 5000]) +
                  chance.randbytes(chance.randrange(2000)))
        link.close()
    assert stage.evapid.status()["kamailio"]["pid"] == stage.kamailio.pid
    assert relay(phone, b"end") == 1
    assert client.receive() == b"end"


def scribbled(stage, phone, scribble, body=b"x" * 400):
    """With evapid stopped, let Kamailio write a record, and scribble(ring, its position) before evapid reads it."""
    stage.evapid.until_status(lambda s: s["kamailio"]["ring"]["used"] == 0, "the ring is drained")
    ring = Ring(stage.kamailio.pid)
    stage.evapid.stopped()
    at = ring.head()
    assert relay(phone, body) == 1
    assert ring.head() > at
    scribble(ring, at)
    stage.evapid.goes_on()
    ring.close()


SIZE = RECORD.size + 400  # of the record that scribbled() lets Kamailio write


@pytest.mark.parametrize("scribble", [
    lambda ring, at: ring.set(SLOTS + CLAIMED, at + 2 * ring.capacity),
    lambda ring, at: ring.set(SLOTS + CLAIMED, at + 3),
    lambda ring, at: ring.write(at, record(RELAY, size=0)),
    lambda ring, at: ring.write(at, record(RELAY, size=8)),
    lambda ring, at: ring.write(at, record(RELAY, size=0xfffffff8, payload=0xffffff00)),
    lambda ring, at: ring.write(at, record(RELAY, size=SIZE, payload=0xffffffff)),
    lambda ring, at: ring.write(at, record(MULTICAST, size=SIZE, tag=255, payload=10)),
    lambda ring, at: ring.write(at, record(99, size=SIZE)),
    lambda ring, at: ring.write(at, record(0, size=SIZE)),
], ids=["claim too far", "claim not aligned", "no size", "small size", "huge size", "huge payload", "long tag", "unknown type", "no type"])
def test_promise_8_a_scribbled_ring_ends_the_attachment_and_nothing_else(stage, scribble):
    """Each has an evapid of its own: of lines of one kind it writes ten in ten seconds."""
    phone = begin(stage)
    client = stage.connect()
    scribbled(stage, phone, scribble)
    stage.evapid.detached()
    assert stage.evapid.lines(rf"error .*\b{stage.kamailio.pid}\b is corrupt"), stage.evapid.tail()
    assert phone.ask("MESSAGE", "relay", body=b"x").code == 200
    stage.kamailio.terminate()
    stage.restart_kamailio()
    assert stage.evapid.client(client)["index"] == client.index, "the client has stayed"
    assert relay(phone, b"again") == 1
    assert client.receive() == b"again"


@pytest.mark.parametrize("type_, mine, fields", [
    (CLOSE, True, {"target": 4000000000}), (CLOSE, True, {"target": 1 << 63}), (CLOSE, False, {"target": 1}),
    (TAG, True, {"tag": 64, "target": 0}), (TAG, True, {"tag": 4, "target": 1 << 60}),
    (TAG, False, {"tag": 4, "target": 1}),
    (DONE, True, {"worker": 65535, "target": 1}), (DONE, True, {"worker": 127, "target": 1}),
    (DONE, True, {"worker": 0, "target": (1 << 64) - 1}), (DONE, False, {"worker": 0, "target": 1000}),
])
def test_promise_8_a_record_that_makes_no_sense_reaches_nobody(stage, type_, mine, fields):
    """mine: it bears the session of the evapid that reads it."""
    phone = begin(stage)
    client = stage.connect()
    session = stage.evapid.status()["session"] + (0 if mine else 1)
    bytes_ = record(type_, size=SIZE, session=session, **fields)
    scribbled(stage, phone, lambda ring, at: ring.write(at, bytes_))
    client.send(b"a message")
    stage.kamailio.logged(rf"GOT {client.index} a message;")
    assert relay(phone, b"end") == 1
    assert client.receive() == b"end"
    assert stage.evapid.client(client)["tag"] in ("", None)


def test_promise_8_random_scribbles_while_events_pass(stage):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    phone = begin(stage, evapi={"queue_size": 65536})
    for _ in range(5):
        client = stage.connect()
        ring = Ring(stage.kamailio.pid)
        for _ in range(40):
            relay(phone, chance.randbytes(chance.randrange(1, 3000)))
            for _ in range(chance.randrange(20)):
                where = chance.choice([SLOTS_USED, SLOTS, 128, RECORDS]) + chance.randrange(24)
                if chance.random() < 0.7:
                    where = RECORDS + chance.randrange(ring.capacity)
                ring.map[where] = chance.randrange(256)
        ring.close()
        assert stage.evapid.status()["version"]
        client.close()
        stage.kamailio.kill()
        stage.restart_kamailio()
        stage.evapid.clients(0)
    client = stage.connect()
    assert relay(phone, b"end") == 1
    assert client.receive() == b"end"


def put_bytes(memory, at, bytes_):
    os.pwrite(memory, bytes_, at)
    return memory


def with_claim(memory, end):
    put_bytes(memory, SLOTS_USED, struct.pack("=Q", 1))
    return put_bytes(memory, SLOTS + CLAIMED, struct.pack("=Q", end))


@pytest.mark.parametrize("make, why", [
    (lambda: os.memfd_create("empty", os.MFD_ALLOW_SEALING), "seal"),
    (lambda: make_ring(65536, seals=0), "seal"),
    (lambda: make_ring(65536, seals=fcntl.F_SEAL_SHRINK), "seal"),
    (lambda: make_ring(4096), "size"),
    (lambda: make_ring(65536 + 4096), "size"),
    (lambda: put_bytes(make_ring(65536), 0, b"otherone"), "ring"),
    (lambda: put_bytes(make_ring(65536), 8, b"\x01"), "version"),
    (lambda: put_bytes(make_ring(65536), 16, struct.pack("=Q", 1 << 40)), "capacity"),
    (lambda: put_bytes(make_ring(65536), 24, struct.pack("=Q", 2)), "key"),
    (lambda: with_claim(make_ring(65536), 65536 + 8), "claims"),
    (lambda: with_claim(make_ring(65536), 3), "claims"),
], ids=["empty", "no seals", "may grow", "small", "odd capacity", "magic", "version", "huge capacity", "even key",
        "claim too far", "claim not aligned"])
def test_promise_8_a_ring_that_cannot_be_trusted_is_refused(stage, make, why):
    stage.start_evapid()
    link, memory, wake = Link(stage.evapid.kamailio_socket), make(), Wake()
    link.send(hello(), [memory, wake.passed])
    assert why in link.refused()[1]
    link.close()
    os.close(memory)
    wake.close()
    assert stage.evapid.status()["kamailio"]["state"] == "detached"
