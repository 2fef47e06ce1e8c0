"""Clients that misbehave, each by its name in docs/configuration.md: what becomes of it, and that nobody else notices."""

import itertools
import random
import re
import socket
import time

from books import balanced, entry_of, number_of, numbered
from client import netstring
from process import until
from script import gate

ROUTES = """
route[TEST] {
    switch ($rU) {
        case "relay": evapi_relay("$rb"); break;
        case "multicast": evapi_multicast("$rb", "$hdr(X-Tag)"); break;
        case "gate": $shv(gate) = $(hdr(X-Gate){s.int}); break;
    }
    sl_send_reply("200", "OK");
}
event_route[evapi:connection-new] { evapi_set_tag("c$evapi(conidx)"); }
event_route[evapi:message-received] {
    xlog("L_NOTICE", "GOT $evapi(conidx) $(evapi(msg){s.substr,0,20});\\n");
    while ($shv(gate) == 1) usleep("1000");
    if ($evapi(msg) =~ "^ask") evapi_multicast("answer to $evapi(msg)", "c$evapi(conidx)");
}
event_route[evapi:connection-closed] { xlog("L_NOTICE", "CLOSED $evapi(conidx);\\n"); }
"""

MIB = 1 << 20
LIMIT = 262144  # max_queued_bytes
SIZE = 16000    # about, of an event
SLACK = 24 * MIB  # for the allocator and the sanitizers


def begin(stage, evapi=None, limits=None, **settings):
    stage.start_evapid(limits={"max_queued_bytes": LIMIT, "linger_ms": 600000, **(limits or {})}, **settings)
    stage.start_kamailio(ROUTES, evapi=evapi)
    return stage.phone()


def relay(phone, body):
    assert phone.ask("MESSAGE", "relay", body=body).code == 200


def heard(stage, client):
    """What routes have been begun for, in their order."""
    return [line.group(1) for line in re.finditer(rf"GOT {client.index} (\S+);", stage.kamailio.text())]


def relay_until_dropped(stage, phone, healthy, more):
    """Relay numbered events until one has been dropped for somebody, and some more. The healthy client gets each. Returns
    how many."""
    dropped = False
    for number in itertools.count():
        assert number < 6000, "a client that doesn't read has been given everything"
        relay(phone, numbered(number, SIZE))
        assert number_of(healthy.receive()) == number
        dropped = dropped or stage.evapid.status()["totals"]["out"]["dropped"]["slow"] > 0
        more -= dropped
        if more == 0:
            return number + 1


def read_what_is_left(stage, phone, stalled, healthy):
    """Let a client that lost events read at last, and then one more. Returns the numbers that it got, without that one."""
    mine = entry_of(stage, stalled)
    numbers = [number_of(event) for event in stalled.receive_many(mine["out"]["relayed"] - mine["dropped"]["slow"])]
    stage.evapid.until_status(lambda s: not any(entry["slow"] for entry in s["clients"]), "nobody is slow any more")
    relay(phone, b"the end")
    assert stalled.receive() == healthy.receive() == b"the end"
    return numbers


def drop_some(stage, policy):
    """A client that doesn't read beside one that does. Returns how many events there were, the numbers that the first got,
    and its entry in the status when it had read them."""
    phone = begin(stage, limits={"slow_policy": policy})
    stalled, healthy = stage.connect(receive_buffer=4096), stage.connect()
    sent = relay_until_dropped(stage, phone, healthy, 60)
    slow = entry_of(stage, stalled)
    assert slow["slow"] and slow["slow_since"] >= slow["since"] and slow["out"]["queued_bytes"] <= LIMIT
    assert re.search(rf"\b{stalled.index} .* open, SLOW ", stage.evapid.ctl("status").stdout)
    stage.evapid.logged(rf"notice client {stalled.index}: .* is slow: \d+ events \(\d+ bytes, limit {LIMIT}\) wait for it")
    numbers = read_what_is_left(stage, phone, stalled, healthy)
    status = stage.evapid.status()
    assert balanced(status)
    mine, other = entry_of(stage, stalled), entry_of(stage, healthy)
    assert not mine["slow"] and mine["slow_since"] is None and mine["state"] == "open"
    assert sum(other["dropped"].values()) == 0
    lost = mine["dropped"]["slow"]
    assert sum(mine["dropped"].values()) == lost == sent - len(numbers) > 60 - LIMIT // SIZE
    assert numbers == sorted(set(numbers)) and set(numbers) <= set(range(sent))
    stage.evapid.logged(rf"warning client {stalled.index}: .* keeps up again .*: {lost} events were dropped for it")
    return sent, numbers


# ---- sends, and does not read


def test_a_client_that_sends_and_does_not_read_is_heard_until_its_queue_is_full(stage):
    phone = begin(stage)
    stalled, healthy = stage.connect(receive_buffer=4096), stage.connect()
    for number in itertools.count():
        assert number < 6000, "a client that doesn't read has been given everything"
        stalled.send(b"%d" % number)
        stage.evapid.until_status(lambda s: s["totals"]["in"]["frames"] == number + 1, "the message came")
        relay(phone, numbered(number, SIZE))
        assert number_of(healthy.receive()) == number
        if stage.evapid.status()["totals"]["out"]["dropped"]["slow"] > 0:
            break
    stage.evapid.logged(rf"warning client {stalled.index}: .*does not keep up")
    until(lambda: len(heard(stage, stalled)) > number, "the last message is worked on")
    assert heard(stage, stalled) == [str(n) for n in range(number + 1)]
    stalled.receive_rest()
    stage.kamailio.logged(rf"CLOSED {stalled.index};")
    assert entry_of(stage, healthy)["state"] == "open"


def test_who_is_disconnected_got_the_first_events_whole(stage):
    phone = begin(stage)
    stalled, healthy = stage.connect(receive_buffer=4096), stage.connect()
    sent = relay_until_dropped(stage, phone, healthy, 10)
    numbers = [number_of(event) for event in stalled.receive_rest()]
    assert numbers == list(range(len(numbers)))
    status = stage.evapid.clients(1)
    totals = status["totals"]["out"]
    assert totals["relayed"] - sent == len(numbers) + totals["dropped"]["slow"]
    assert LIMIT // SIZE - 2 <= totals["dropped"]["slow"] <= LIMIT // SIZE + 1
    assert balanced(status)


def test_drop_newest_leaves_the_older_events(stage):
    sent, numbers = drop_some(stage, "drop-newest")
    assert numbers == list(range(len(numbers))) and len(numbers) < sent


def test_drop_oldest_leaves_the_newer_events(stage):
    sent, numbers = drop_some(stage, "drop-oldest")
    assert numbers[-1] == sent - 1
    newer = 1
    while numbers[-newer - 1] == sent - 1 - newer:
        newer += 1
    assert LIMIT // SIZE // 2 - 1 <= newer < sent  # behind the last gap


def test_each_listener_has_its_own_policy_and_limit(stage):
    newest, oldest = stage.new_address(), stage.new_address()
    phone = begin(stage, listeners=[{"address": newest, "slow_policy": "drop-newest"},
                                    {"address": oldest, "slow_policy": "drop-oldest", "max_queued_bytes": 8 * MIB}])
    small = {name: stage.connect(address, receive_buffer=4096)
             for name, address in (("disconnect", None), ("newest", newest), ("oldest", oldest))}
    healthy = stage.connect()
    sent = relay_until_dropped(stage, phone, healthy, 30)
    stage.evapid.logged(rf"warning client {small['disconnect'].index}: .*does not keep up")
    small["disconnect"].receive_rest()
    assert entry_of(stage, small["newest"])["dropped"]["slow"] > 0
    assert entry_of(stage, small["oldest"])["dropped"]["slow"] == 0
    assert [number_of(event) for event in small["oldest"].receive_many(sent)] == list(range(sent))


def test_a_small_event_goes_the_same_way_between_large_ones(stage):
    """Events of every size, for all and for one: what comes is whole and in order, and what doesn't is counted."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    newest, oldest = stage.new_address(), stage.new_address()
    phone = begin(stage, listeners=[{"address": newest, "slow_policy": "drop-newest"},
                                    {"address": oldest, "slow_policy": "drop-oldest"}])
    clients = [stage.connect(address, receive_buffer=4096) for address in (newest, newest, oldest, oldest)]
    got = {client.index: [] for client in clients}
    for number in range(1200):
        body = numbered(number, chance.choice([10, 100, 1000, 20000, 50000]))
        if chance.random() < 0.3:
            phone.ask("MESSAGE", "multicast", {"X-Tag": f"c{chance.choice(clients).index}"}, body)
        else:
            relay(phone, body)
        if chance.random() < 0.005:
            reader = chance.choice(clients)
            got[reader.index] += reader.receive_ready()
        if number % 100 == 0:
            assert balanced(stage.evapid.status())
    status = stage.evapid.until_status(lambda s: s["kamailio"]["ring"]["used"] == 0, "the ring is drained")
    assert balanced(status) and status["totals"]["out"]["dropped"]["slow"] > 0
    for client in clients:
        out, dropped = entry_of(stage, client)["out"], entry_of(stage, client)["dropped"]
        assert dropped["slow"] == sum(dropped.values())
        events = got[client.index]
        events += client.receive_many(out["relayed"] - dropped["slow"] - len(events))
        numbers = [number_of(event) for event in events]
        assert numbers == sorted(set(numbers))
    assert all(not client.receive_ready() for client in clients)


# ---- many do not read


def test_many_that_do_not_read_cost_no_more_memory_than_the_total(stage):
    total = 4 * MIB
    newest, oldest = stage.new_address(), stage.new_address()
    stage.start_evapid(limits={"max_total_queued_bytes": total, "max_queued_bytes": 64 * MIB, "linger_ms": 600000}, listeners=[
        {"address": newest, "slow_policy": "drop-newest"}, {"address": oldest, "slow_policy": "drop-oldest"}])
    stage.start_kamailio(ROUTES)
    phone = stage.phone()
    stalled = [stage.connect(address, receive_buffer=4096) for address in (None, newest, oldest) * 3]
    healthy = stage.connect()
    before = stage.evapid.own_bytes()
    for number in range(1000):  # 50 MB, for nobody but one, and one in ten for all
        body = numbered(number, 50000)
        if number % 10 == 0:
            relay(phone, body)
            assert number_of(healthy.receive()) == number
        else:
            phone.ask("MESSAGE", "multicast", {"X-Tag": f"c{stalled[number % len(stalled)].index}"}, body)
        if number % 50 == 0:
            status = stage.evapid.status()
            assert balanced(status)
            assert status["totals"]["out"]["queued_memory"] <= total
            assert max(entry["out"]["queued_bytes"] for entry in status["clients"]) <= total
    assert stage.evapid.own_bytes() < before + total + SLACK
    assert stage.evapid.logged(r"warning bus: the queues of all clients take \d+ bytes")
    mine = entry_of(stage, healthy)
    assert (mine["out"]["delivered"], sum(mine["dropped"].values())) == (100, 0)
    for client in stalled:
        if client.server_port == healthy.server_port:
            events = client.receive_rest()  # it was disconnected
        else:
            out, dropped = entry_of(stage, client)["out"], entry_of(stage, client)["dropped"]
            assert dropped["slow"] == sum(dropped.values()) > 0
            events = client.receive_many(out["relayed"] - dropped["slow"])
        numbers = [number_of(event) for event in events]
        assert numbers == sorted(set(numbers))


# ---- half-closes


def test_a_client_that_half_closes_gets_its_answers_and_the_end(stage):
    phone = begin(stage)
    other = stage.connect()
    gate(phone, 1)
    client = stage.connect()
    client.send_bytes(b"".join(netstring(b"ask %d" % number) for number in range(5)))
    client.half_close()
    stage.evapid.client(client, "finishing")
    relay(phone, b"an event")
    gate(phone, 0)
    assert client.receive_rest() == [b"an event"] + [b"answer to ask %d" % number for number in range(5)]
    stage.kamailio.logged(rf"CLOSED {client.index};")
    assert other.receive() == b"an event"
    assert balanced(stage.evapid.clients(1))


# ---- begins a message and does not finish it


def assert_closed_at_deadline(stage, client, came):
    """The client's stream ends, and the log says why. Messages that it sent before were heard."""
    assert client.receive_rest() == []
    stage.evapid.logged(
        rf"warning client {client.index}: .* at byte 7 of its stream has not become whole in 1000 ms \({came} bytes")
    assert heard(stage, client) == ["1234"]
    status = stage.evapid.clients(1)
    assert balanced(status)
    assert status["totals"]["in"] == {**status["totals"]["in"], "frames": 1, "waiting": 0}


def test_a_client_that_never_finishes_a_frame_is_closed_at_the_deadline(stage):
    begin(stage, limits={"message_timeout_ms": 1000})
    other, client = stage.connect(), stage.connect()
    began = time.monotonic()
    client.send_bytes(netstring(b"1234") + b"100:the beginning")
    assert_closed_at_deadline(stage, client, 17)
    assert time.monotonic() - began > 0.9  # not before its time
    assert stage.evapid.client(other)


def test_a_client_that_dribbles_is_closed_at_the_deadline(stage):
    patient = stage.new_address()
    begin(stage, limits={"message_timeout_ms": 1000}, listeners=[{"address": patient, "message_timeout_ms": 60000}])
    other, client = stage.connect(patient), stage.connect()
    client.send_bytes(netstring(b"1234") + b"100:")
    came = 4
    try:
        while client.index in [entry["index"] for entry in stage.evapid.status()["clients"]]:
            assert came < 100, "it has been let finish"
            client.send_bytes(b"x")
            came += 1
            time.sleep(0.1)
    except (BrokenPipeError, ConnectionResetError):
        pass
    stage.evapid.logged(rf"warning client {client.index}: .* has not become whole in 1000 ms")
    assert heard(stage, client) == ["1234"]
    other.send_apart([b"1", b"0:0123", b"456789,"])  # one that is slow, and done in time
    until(lambda: heard(stage, other) == ["0123456789"], "the message is worked on")


# ---- floods


def test_a_client_that_floods_is_held_back_and_loses_nothing(stage):
    phone = begin(stage, limits={"worker_window_frames": 8})
    flooder, other = stage.connect(), stage.connect()
    before = stage.evapid.own_bytes()
    gate(phone, 1)
    message = netstring(b"x" * 2000)
    sent = flooder.send_all_it_takes(message, 16 * MIB)
    assert sent < 16 * MIB
    other.send(b"mine")
    status = stage.evapid.until_status(lambda s: s["kamailio"]["workers"][0]["waiting"] == 2, "both wait for the worker")
    assert status["kamailio"]["workers"][0]["in_flight"] == 8
    assert status["totals"]["in"]["waiting"] == status["totals"]["in"]["frames"] == 8
    assert stage.evapid.own_bytes() < before + SLACK
    relay(phone, b"an event")
    assert flooder.receive() == other.receive() == b"an event"
    gate(phone, 0)
    flooder.send_bytes(message[sent % len(message):] if sent % len(message) else b"")
    count = -(-sent // len(message))
    status = stage.evapid.until_status(lambda s: s["totals"]["in"]["delivered"] == count + 1, "all is worked on")
    assert balanced(status) and status["totals"]["in"]["waiting"] == 0
    assert len(heard(stage, flooder)) == count
    order = re.findall(r"GOT (\d+) ", stage.kamailio.text())
    assert order.index(str(other.index)) < 40, "the other one had its turn"


# ---- silence

TCP_REPAIR = 19  # linux/tcp.h


def vanish(client):
    """Go as a host does whose power fails: not a packet tells of it (tcp_repair in criu's documentation; needs
    CAP_NET_ADMIN)."""
    client.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    client.close()


def test_a_client_that_has_gone_without_a_word_is_found_out_by_keepalive(stage):
    phone = begin(stage, keepalive={"idle_s": 1, "interval_s": 1, "probes": 2})
    silent, gone = stage.connect(), stage.connect()
    vanish(gone)
    until(lambda: f"CLOSED {gone.index};" in stage.kamailio.text(), "the route of the one that has gone")
    stage.evapid.until_status(lambda s: [entry["index"] for entry in s["clients"]] == [silent.index], "it has gone")
    relay(phone, b"to who is there")
    assert silent.receive() == b"to who is there"
