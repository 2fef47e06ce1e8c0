"""The books of what clients send: every message that came whole is delivered, waits, or was dropped for a reason."""

import random
import re

from books import balanced, entry_of, numbered
from client import netstring
from script import gate

ROUTES = """
route[TEST] {
    switch ($rU) {
        case "relay": evapi_relay("$rb"); break;
        case "close": evapi_close("$hdr(X-Index)"); break;
        case "gate": $shv(gate) = $(hdr(X-Gate){s.int}); break;
    }
    sl_send_reply("200", "OK");
}
event_route[evapi:message-received] {
    xlog("L_NOTICE", "GOT $evapi(conidx) $(evapi(msg){s.substr,0,20});\\n");
    while ($shv(gate) == 1) usleep("1000");
}
"""

NOTHING_LOST = {"closed": 0, "memory": 0, "lost": 0}


def begin(stage, evapi=None, **settings):
    stage.start_evapid(**settings)
    stage.start_kamailio(ROUTES, evapi=evapi)
    return stage.phone()


def messages(first, last):
    return b"".join(netstring(b"%d" % number) for number in range(first, last))


def in_books(stage, client, frames, delivered):
    """Wait until the client has sent so many, of which so many are delivered; returns that status."""
    def look(status):
        in_ = next(entry["in"] for entry in status["clients"] if entry["index"] == client.index)
        return balanced(status) and (in_["frames"], in_["delivered"]) == (frames, delivered)
    return stage.evapid.until_status(look, f"{frames} messages came and {delivered} are delivered")


def test_messages_wait_while_a_route_runs_and_are_delivered_when_it_has_ended(stage):
    phone = begin(stage)
    client = stage.connect()
    client.send_bytes(messages(0, 10))
    in_books(stage, client, 10, 10)
    gate(phone, 1)
    client.send_bytes(messages(10, 15))
    in_books(stage, client, 15, 10)
    assert entry_of(stage, client)["in"]["waiting"] == 5
    gate(phone, 0)
    status = in_books(stage, client, 15, 15)
    assert entry_of(stage, client)["in"]["dropped"] == NOTHING_LOST
    assert status["totals"]["in"] == entry_of(stage, client)["in"]
    assert status["totals"]["in"]["bytes"] == sum(len(b"%d" % number) for number in range(15))


def test_messages_of_a_client_that_has_gone_stay_in_the_totals(stage):
    begin(stage)
    for number in range(5):
        client = stage.connect()
        client.send_bytes(messages(0, number))
        client.half_close()
        assert client.receive_rest() == []
    status = stage.evapid.until_status(lambda s: s["totals"]["in"]["delivered"] == 10, "all are delivered")
    assert balanced(status) and status["totals"]["in"]["frames"] == 10


def test_messages_that_a_close_throws_away_are_dropped_and_those_on_their_way_delivered(stage):
    phone = begin(stage, limits={"worker_window_frames": 4})
    gate(phone, 1)
    client = stage.connect()
    client.send_bytes(messages(0, 50))
    in_books(stage, client, 4, 0)
    client.wait_read()
    assert phone.ask("MESSAGE", "close", {"X-Index": str(client.index)}).code == 200
    assert client.receive_rest() == []
    mine = entry_of(stage, client)["in"]
    assert mine["dropped"] == {**NOTHING_LOST, "closed": 46}
    assert (mine["frames"], mine["waiting"], mine["bytes"]) == (50, 4, 10 + 2 * 40)
    gate(phone, 0)
    status = stage.evapid.until_status(lambda s: s["totals"]["in"]["delivered"] == 4, "those on their way are delivered")
    assert balanced(status) and status["totals"]["in"]["dropped"]["closed"] == 46


def test_a_message_whose_route_kamailio_died_in_is_delivered_and_the_others_wait(stage):
    phone = begin(stage)
    client = stage.connect()
    client.send_bytes(messages(0, 3))
    in_books(stage, client, 3, 3)
    gate(phone, 1)
    client.send_bytes(messages(3, 8))
    stage.kamailio.logged(rf"GOT {client.index} 3;")
    in_books(stage, client, 8, 3)
    stage.kamailio.kill()
    stage.evapid.detached()
    in_books(stage, client, 8, 4)
    assert entry_of(stage, client)["in"]["waiting"] == 4
    stage.restart_kamailio()
    in_books(stage, client, 8, 8)
    assert re.findall(rf"GOT {client.index} (\d+);", stage.kamailio.text()) == ["4", "5", "6", "7"]


def test_both_books_balance_whatever_happens(stage):
    """Clients of every policy that come, go, read or don't, and a Kamailio that dies: at each look all is accounted for."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    addresses = [stage.new_address() for _ in range(3)]
    listeners = [{"address": address, "slow_policy": policy, "max_queued_bytes": 100000}
                 for address, policy in zip(addresses, ("disconnect", "drop-newest", "drop-oldest"))]
    phone = begin(stage, evapi={"workers": 2}, listeners=listeners,
                  limits={"worker_window_frames": 4, "max_total_queued_bytes": 1 << 20, "message_timeout_ms": 1000})
    stage.connect(addresses[1], receive_buffer=4096)  # never reads, and drops what is newest
    clients = []  # the others, but for those that have begun a message which they won't finish
    for round_ in range(600):
        action = chance.randrange(10)
        if action == 0 and len(clients) < 12:
            clients.append(stage.connect(chance.choice(addresses), admitted=False, receive_buffer=4096))
        elif action == 1 and clients:
            client = clients.pop(chance.randrange(len(clients)))
            chance.choice([client.close, client.reset, client.half_close])()
        elif action < 4 and clients:
            client = chance.choice(clients)
            try:
                client.send_bytes(messages(0, chance.randrange(20)))
                if chance.random() < 0.1:
                    client.send_bytes(b"3:ab")
                    clients.remove(client)
                if client.port % 2:
                    client.receive_ready()
            except (BrokenPipeError, ConnectionResetError, AssertionError):
                clients = [other for other in clients if other is not client]  # it has been closed
        else:
            phone.ask("MESSAGE", "relay", body=numbered(round_, chance.randrange(60000)))
        if round_ % 10 == 0:
            gate(phone, int(chance.random() < 0.3))
            assert balanced(stage.evapid.status())
        if round_ == 300:
            stage.kamailio.kill()
            assert balanced(stage.evapid.status())
            stage.restart_kamailio()
    gate(phone, 0)
    stage.hang_up()
    status = stage.evapid.clients(0)
    assert balanced(status)
    totals = status["totals"]
    assert totals["in"]["waiting"] == 0 and totals["in"]["delivered"] > 0
    assert totals["out"]["relayed"] == totals["out"]["delivered"] + sum(totals["out"]["dropped"].values())
    assert totals["out"]["dropped"]["slow"] > 0
