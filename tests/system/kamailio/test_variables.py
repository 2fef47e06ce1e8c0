"""$evapi(srcaddr), $evapi(srcport), $evapi(msg), $evapi(conidx) and $evapi(tag), as an observing client is told them."""

import pytest

from client import netstring

# An observer gets, from each route of any other client: event|srcaddr|srcport|conidx|tag|msg.
ROUTES = """
route[TEST] {
    if ($rU == "release") $shv(hold) = 1;
    append_to_reply("X-Values: $evapi(srcaddr)|$evapi(srcport)|$evapi(conidx)|$evapi(tag)|$evapi(msg)\\r\\n");
    sl_send_reply("200", "OK");
}

route[TELL] {
    evapi_unicast("$var(event)|$evapi(srcaddr)|$evapi(srcport)|$evapi(conidx)|$evapi(tag)|$evapi(msg)", "observer");
}

event_route[evapi:connection-new] {
    $var(event) = "new";
    route(TELL);
}

event_route[evapi:message-received] {
    $var(event) = "message";
    if ($evapi(msg) == "observe") {
        evapi_set_tag("observer");
        evapi_unicast("you observe", "observer");
        exit;
    }
    if ($evapi(msg) == "hold") {
        while ($shv(hold) != 1) usleep("1000");
    }
    if ($evapi(msg) =~ "^tag:") {
        evapi_set_tag("$(evapi(msg){s.select,1,:})");
    }
    if ($evapi(msg) == "sum") {
        if ($evapi(conidx) > 0 && $evapi(srcport) > 1023) {
            $var(sum) = $evapi(srcport) + 1;
            evapi_unicast("$var(sum)", "observer");
        }
        exit;
    }
    route(TELL);
}

event_route[evapi:connection-closed] {
    $var(event) = "closed";
    route(TELL);
}
"""


@pytest.fixture(scope="module")
def stage(shared_stage):
    shared_stage.address6 = shared_stage.new_address("::1")
    shared_stage.start_evapid(listeners=[{"address": shared_stage.address6, "framing": "netstring"}])
    shared_stage.start_kamailio(ROUTES)
    return shared_stage


pytestmark = pytest.mark.usefixtures("calm")


@pytest.fixture
def observer(stage):
    client = stage.connect()
    client.send(b"observe")
    assert client.receive() == b"you observe"
    return client


def heard(observer):
    """The next that an observer is told: event, (srcaddr, srcport, conidx), tag, message."""
    event, address, port, index, tag, message = observer.receive().split(b"|", 5)
    return event.decode(), (address.decode(), int(port), int(index)), tag.decode(), message


def test_outside_of_an_event_all_are_null(stage):
    answer = stage.phone().ask("MESSAGE")
    assert answer["X-Values"] == "|".join(["<null>"] * 5)


def test_all_three_routes_know_the_connection(stage, observer):
    client = stage.connect()
    where = ("127.0.0.1", client.port, client.index)
    client.send(b"words")
    client.close()
    assert heard(observer) == ("new", where, "<null>", b"<null>")
    assert heard(observer) == ("message", where, "<null>", b"words")
    assert heard(observer) == ("closed", where, "<null>", b"<null>")


def test_an_ipv6_client_has_its_ipv6_address(stage, observer):
    client = stage.connect(stage.address6)
    where = ("::1", client.port, client.index)
    client.send(b"words")
    client.close()
    assert heard(observer) == ("new", where, "<null>", b"<null>")
    assert heard(observer) == ("message", where, "<null>", b"words")
    assert heard(observer) == ("closed", where, "<null>", b"<null>")


def test_the_tag_is_shown_from_the_moment_it_is_set_until_closed(stage, observer):
    client = stage.connect()
    where = ("127.0.0.1", client.port, client.index)
    assert heard(observer) == ("new", where, "<null>", b"<null>")
    for message in (b"tag:blue", b"words"):
        client.send(message)
        assert heard(observer) == ("message", where, "blue", message)
    client.close()
    assert heard(observer) == ("closed", where, "blue", b"<null>")


def test_the_tag_that_a_route_has_set_is_shown_to_the_very_next_message(stage, observer):
    """Also when that one had come before the route ran."""
    client = stage.connect()
    client.send_bytes(netstring(b"tag:blue") + netstring(b"words") + netstring(b"tag:red") + netstring(b"more"))
    client.half_close()
    assert heard(observer)[0] == "new"
    told = [heard(observer) for _ in range(5)]
    assert [(event, tag, message) for event, _, tag, message in told] == [
        ("message", "blue", b"tag:blue"), ("message", "blue", b"words"), ("message", "red", b"tag:red"),
        ("message", "red", b"more"), ("closed", "red", b"<null>")]


def test_port_and_index_are_numbers_too(stage, observer):
    client = stage.connect()
    assert heard(observer)[0] == "new"
    client.send(b"sum")
    assert observer.receive() == b"%d" % (client.port + 1)


@pytest.mark.parametrize("message", [
    b"a\0b", b"\0", b"\xff", b"", bytes(range(256)), b"|" * 10, b"\r\n", b"5:hello,", b"$var(event)", b"x" * 65536,
], ids=["nul inside", "nul", "0xff", "empty", "all bytes", "bars", "line end", "netstring", "variable", "64 KiB"])
def test_a_message_may_hold_any_bytes(stage, observer, message):
    client = stage.connect()
    assert heard(observer)[0] == "new"
    client.send(message)
    client.send(b"after")
    assert heard(observer)[3] == message
    assert heard(observer)[3] == b"after"


def test_the_address_is_right_when_the_peer_has_long_gone(stage, observer):
    """The worker is held in a route while its client goes and others come: each event still has its own address."""
    holding = stage.connect()
    assert heard(observer)[0] == "new"
    holding.send(b"hold")
    gone = []
    for _ in range(5):
        client = stage.connect(admitted=False)
        client.send_bytes(netstring(b"first") + netstring(b"second"))
        gone.append(client)
        client.close()
    holding.close()
    later = [stage.connect(admitted=False) for _ in range(5)]
    stage.phone().ask("MESSAGE", "release")
    told = {}
    while len(told) < 11 or any("closed" not in told[client.port] for client in gone):
        event, (address, port, index), _, message = heard(observer)
        assert address == "127.0.0.1"
        told.setdefault(port, {}).setdefault(event, []).append((index, message))
    for client in gone:
        events = told[client.port]
        index = events["new"][0][0]
        assert events == {"new": [(index, b"<null>")], "message": [(index, b"first"), (index, b"second")],
                          "closed": [(index, b"<null>")]}
    for client in later:
        assert list(told[client.port]) == ["new"]


def test_a_connection_index_is_never_used_again(stage, observer):
    seen = []
    for _ in range(30):
        client = stage.connect(admitted=False)
        event, (_, port, index), tag, _ = heard(observer)
        assert (event, port) == ("new", client.port)
        client.close()
        assert heard(observer)[:2] == ("closed", ("127.0.0.1", client.port, index))
        seen.append(index)
    assert seen == sorted(set(seen)) and observer.index not in seen


def test_a_new_client_inherits_no_tag(stage, observer):
    first = stage.connect()
    assert heard(observer)[0] == "new"
    first.send(b"tag:blue")
    assert heard(observer)[2] == "blue"
    first.close()
    event, _, tag, _ = heard(observer)
    assert (event, tag) == ("closed", "blue")
    second = stage.connect()
    assert heard(observer)[2] == "<null>"
    assert stage.evapid.client(second)["tag"] in ("", None)
