"""The same functions through KEMI: a Lua script with KSR.evapi.*, and event_callback in place of event routes."""

import pytest

SCRIPT = """
local function text(name)
    return KSR.pv.gete("$hdr(" .. name .. ")")
end

local calls = {
    ["relay"] = function() return KSR.evapi.relay(text("X-Event")) end,
    ["relay-literal"] = function() return KSR.evapi.relay("a literal event") end,
    ["relay-dollar"] = function() return KSR.evapi.relay("price: $var(x) $5") end,
    ["relay-empty"] = function() return KSR.evapi.relay("") end,
    ["relay-bytes"] = function() return KSR.evapi.relay(KSR.pv.get("$rb")) end,
    ["multicast"] = function() return KSR.evapi.relay_multicast(text("X-Event"), text("X-Tag")) end,
    ["unicast"] = function() return KSR.evapi.relay_unicast(text("X-Event"), text("X-Tag")) end,
    ["close"] = function() return KSR.evapi.close() end,
    ["set-tag"] = function() return KSR.evapi.set_tag("blue") end,
    ["big"] = function() return KSR.evapi.relay(string.rep("x", tonumber(text("X-Size")))) end,
}

function test_route()
    local rc = calls[KSR.pv.gete("$rU")]()
    KSR.hdr.append_to_reply("X-Rc: " .. tostring(rc) .. "\\r\\n")
    KSR.sl.sl_send_reply(200, "OK")
end

function evapi_event(name)
    local index, message = KSR.pv.get("$evapi(conidx)"), KSR.pv.get("$evapi(msg)")
    local where = tostring(KSR.pv.get("$evapi(srcaddr)")) .. ":" .. tostring(KSR.pv.get("$evapi(srcport)"))
    local rc = "-"
    if name == "evapi:message-received" then
        local order, word = string.match(message, "^([^:]*):?(.*)$")
        if order == "tag" then rc = KSR.evapi.set_tag(word) end
        if order == "close" then rc = KSR.evapi.close() end
        if order == "relay" then rc = KSR.evapi.relay(word) end
    end
    KSR.notice(string.format("EVENT %s %s %s [%s] tag=[%s] rc=%s\\n", name, tostring(index), where, tostring(message),
                             tostring(KSR.pv.get("$evapi(tag)")), tostring(rc)))
    return 1
end
"""


@pytest.fixture(scope="module")
def stage(shared_stage):
    shared_stage.start_evapid()
    shared_stage.start_kamailio(lua=SCRIPT, evapi={"event_callback": "evapi_event", "queue_size": 4 << 20})
    return shared_stage


pytestmark = pytest.mark.usefixtures("calm")


def call(stage, user, **headers):
    named = {"X-" + name.title(): value for name, value in headers.items()}
    return stage.phone().ask("MESSAGE", user, named)["X-Rc"]


def order(stage, client, text):
    """Return value and tag after an order that the client gave."""
    client.send(text.encode())
    line = stage.kamailio.logged(rf"EVENT evapi:message-received {client.index} .*\[{text}\]")[-1]
    tag, rc = line.split("tag=[")[1].split("] rc=")
    return rc, tag


def test_relay_returns_1_and_reaches_every_client(stage):
    clients = [stage.connect(), stage.connect()]
    assert call(stage, "relay", event="some words") == "1"
    assert call(stage, "relay-literal") == "1"
    for client in clients:
        assert client.receive_many(2) == [b"some words", b"a literal event"]


def test_a_string_is_taken_as_it_is(stage):
    client = stage.connect()
    assert call(stage, "relay-dollar") == "1"
    assert client.receive() == b"price: $var(x) $5"


def test_relay_takes_any_bytes(stage):
    client = stage.connect()
    body = bytes(range(256))
    assert stage.phone().ask("MESSAGE", "relay-bytes", body=body)["X-Rc"] == "1"
    assert client.receive() == body


def test_an_empty_event_is_negative(stage):
    client = stage.connect()
    assert int(call(stage, "relay-empty")) < 0
    assert call(stage, "relay-literal") == "1"
    assert client.receive() == b"a literal event"


def test_multicast_and_unicast_go_by_the_tag(stage):
    first, second, other = [stage.connect() for _ in range(3)]
    for client in (first, second):
        assert order(stage, client, "tag:blue") == ("1", "blue")
    assert call(stage, "multicast", event="to all", tag="blue") == "1"
    assert call(stage, "unicast", event="to one", tag="blue") == "1"
    assert call(stage, "relay-literal") == "1"
    assert first.receive_many(3) == [b"to all", b"to one", b"a literal event"]
    assert second.receive_many(2) == [b"to all", b"a literal event"]
    assert other.receive() == b"a literal event"


def test_set_tag_accepts_64_characters_and_refuses_65(stage):
    client = stage.connect()
    assert order(stage, client, "tag:" + "t" * 64) == ("1", "t" * 64)
    rc, tag = order(stage, client, "tag:" + "u" * 65)
    assert int(rc) < 0 and tag == "t" * 64


def test_set_tag_and_close_outside_of_an_event_are_negative(stage):
    assert int(call(stage, "set-tag")) < 0
    assert int(call(stage, "close")) < 0


def test_close_ends_the_client_of_the_event(stage):
    client, other = stage.connect(), stage.connect()
    assert order(stage, client, "close")[0] == "1"
    assert client.receive_rest() == []
    stage.kamailio.logged(rf"EVENT evapi:connection-closed {client.index} ")
    assert call(stage, "relay-literal") == "1"
    assert other.receive() == b"a literal event"


def test_the_callback_gets_the_three_events_with_their_variables(stage):
    client = stage.connect()
    client.send(b"relay:back")
    assert client.receive() == b"back"
    client.close()
    here = f"127.0.0.1:{client.port}"
    # A variable without a value is "<null>" to KSR.pv.get, or nil, as the version of Kamailio has it.
    for event, message in (("connection-new", "(nil|<null>)"), ("message-received", "relay:back"),
                           ("connection-closed", "(nil|<null>)")):
        lines = stage.kamailio.logged(rf"EVENT evapi:{event} {client.index} {here} \[{message}\]")
        assert len(lines) == 1


@pytest.mark.parametrize("size", [1, 8192, 8193, 65536, 1 << 20])
def test_an_event_arrives_whole_whatever_its_size(stage, size):
    client = stage.connect()
    assert call(stage, "big", size=size) == "1"
    assert client.receive() == b"x" * size


def test_an_event_over_the_limit_is_negative_and_breaks_nothing(stage):
    client = stage.connect()
    assert int(call(stage, "big", size=2 << 20)) < 0
    assert call(stage, "relay-literal") == "1"
    assert client.receive() == b"a literal event"
