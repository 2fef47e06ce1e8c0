"""Async calls: a transaction is suspended, its event goes out, and a client's message resumes it, or it is not suspended.
lib/async_calls.py says what events and answers look like."""

import pytest

from async_calls import NATIVE
from process import until
from stage import Stage

LUA = """
local function event()
    if KSR.tm.t_newtran() ~= 1 then KSR.x.exit() end -- a retransmission
    return KSR.pv.get("$T(id_index)") .. ":" .. KSR.pv.get("$T(id_label)") .. ":" .. KSR.pv.gete("$hdr(X-Word)")
end

local calls = {
    ["relay"] = function() return KSR.evapi.async_relay(event()) end,
    ["multicast"] = function() return KSR.evapi.async_multicast(event(), "blue") end,
    ["unicast"] = function() return KSR.evapi.async_unicast(event(), KSR.pv.gete("$hdr(X-Tag)")) end,
    ["large"] = function()
        return KSR.evapi.async_relay(event() .. string.rep("x", 2 ^ (5 + tonumber(KSR.pv.gete("$hdr(X-Times)")))))
    end,
}

function test_route()
    if KSR.pv.gete("$rU") == "sync" then
        KSR.evapi.relay("a plain event")
        KSR.sl.sl_send_reply(200, "OK")
        return
    end
    local rc = calls[KSR.pv.gete("$rU")]()
    if rc > 0 then return end
    KSR.hdr.append_to_reply("X-Rc: " .. tostring(rc) .. "\\r\\n")
    KSR.tm.t_reply(480, "Nobody answers")
end

function evapi_event(name)
    if name ~= "evapi:message-received" then return 1 end
    local message = KSR.pv.get("$evapi(msg)")
    local tag = string.match(message, "^tag:(.*)$")
    if tag then
        KSR.evapi.set_tag(tag)
        return 1
    end
    local index, label, code, word = string.match(message, "^(%d+):(%d+):(%d+):(.*)$")
    resumed_code, resumed_word = tonumber(code), word
    KSR.tmx.t_continue(tonumber(index), tonumber(label), "resumed")
    return 1
end

function resumed()
    KSR.hdr.append_to_reply("X-Word: " .. KSR.pv.gete("$hdr(X-Word)") .. "\\r\\n")
    KSR.hdr.append_to_reply("X-From: " .. tostring(KSR.pv.get("$evapi(srcport)")) .. "\\r\\n")
    KSR.tm.t_reply(resumed_code, resumed_word)
end
"""

# A transaction that is left suspended, or with a branch that nobody ends, would be answered by this timer at the earliest.
TM = {"tm": {"fr_timer": 120000, "fr_inv_timer": 120000}}


@pytest.fixture(scope="module")
def native_stage():
    with Stage() as own:
        own.start_evapid()
        own.start_kamailio(NATIVE, children=4, params=TM, evapi={"queue_size": 1 << 20, "workers": 2})
        yield own


@pytest.fixture(scope="module")
def lua_stage():
    with Stage() as own:
        own.start_evapid()
        own.start_kamailio(lua=LUA, children=4, params=TM, evapi={"queue_size": 1 << 20, "event_callback": "evapi_event"})
        yield own


@pytest.fixture
def native(native_stage):
    yield native_stage
    native_stage.hang_up()
    assert not native_stage.problems()


@pytest.fixture(params=["native", "lua"])
def stage(request):
    """Each test once with the native script and once with Lua."""
    own = request.getfixturevalue(request.param + "_stage")
    yield own
    own.hang_up()
    assert not own.problems()


def tagged(stage, tag):
    client = stage.connect()
    client.send(b"tag:" + tag.encode())
    until(lambda: stage.evapid.client(client)["tag"] == tag, f"the client is tagged {tag}")
    return client


def resume(client, event, code, word=None):
    index, label, was = event.split(b":")[:3]
    client.send(b"%s:%s:%d:%s" % (index, label, code, word or was))


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "OPTIONS"])
def test_a_client_resumes_a_suspended_transaction(stage, method):
    client = stage.connect()
    phone = stage.phone()
    transaction = phone.start(method, "relay", {"X-Word": "please"})
    event = client.receive()
    assert event.split(b":")[2] == b"please"
    assert transaction.final is None
    resume(client, event, 486, b"later")
    answer = phone.finish(transaction)
    assert (answer.code, answer.reason, answer["X-Word"]) == (486, "later", "please")
    assert answer["X-From"] == str(client.port), "the resumed route still knows the event it runs in"


@pytest.mark.parametrize("code", [200, 404, 503, 603])
def test_the_answer_is_the_one_that_the_client_asked_for(stage, code):
    client = stage.connect()
    phone = stage.phone()
    transaction = phone.start("INVITE", "relay", {"X-Word": "w"})
    resume(client, client.receive(), code)
    assert phone.finish(transaction).code == code


def test_multicast_and_unicast_suspend_too(stage):
    first, second, other = tagged(stage, "blue"), tagged(stage, "blue"), stage.connect()
    phone = stage.phone()
    asked = phone.start("INVITE", "multicast", {"X-Word": "all"})
    event = first.receive()
    assert second.receive() == event and event.endswith(b":all")
    resume(second, event, 200)
    assert phone.finish(asked).code == 200
    asked = phone.start("INVITE", "unicast", {"X-Word": "one", "X-Tag": "blue"})
    resume(first, first.receive(), 202)
    assert phone.finish(asked).code == 202
    phone.ask("MESSAGE", "sync")
    assert second.receive() == other.receive() == b"a plain event"


def test_200_suspended_transactions_at_once_are_each_resumed_by_their_own_answer(stage):
    client = stage.connect()
    phone = stage.phone()
    transactions = [phone.start("INVITE", "relay", {"X-Word": f"call-{number}"}) for number in range(200)]
    events = {}
    while len(events) < 200:
        phone.turn(0.01)
        for event in client.receive_ready():
            events[event.split(b":")[2].decode()] = event
    assert all(transaction.final is None for transaction in transactions)
    assert len({event.rsplit(b":", 1)[0] for event in events.values()}) == 200, "each has its own index and label"
    for number in reversed(range(200)):
        resume(client, events[f"call-{number}"], 480 + number % 10)
    for number, answer in enumerate(phone.finish_all(transactions)):
        assert (answer.code, answer.reason, answer["X-Word"]) == (480 + number % 10, *[f"call-{number}"] * 2)


def test_answers_that_come_at_once_race_with_nothing(stage):
    """The client answers while the SIP worker may still be in the route that has suspended."""
    client = stage.connect()
    phone = stage.phone()
    transactions = [phone.start("INVITE", "relay", {"X-Word": f"call-{number}"}) for number in range(300)]
    answered = 0
    while any(transaction.final is None for transaction in transactions):
        phone.turn(0.01)
        for event in client.receive_ready():
            resume(client, event, 486)
            answered += 1
    assert answered == 300, "a retransmission raises no second event"
    for number, transaction in enumerate(transactions):
        assert (transaction.final.code, transaction.final["X-Word"]) == (486, f"call-{number}")


def test_a_retransmission_of_a_suspended_request_raises_no_second_event(stage):
    client = stage.connect()
    phone = stage.phone()
    transaction = phone.start("INVITE", "relay", {"X-Word": "once"})
    event = client.receive()
    for _ in range(3):
        phone.send(transaction)
    assert phone.ask("MESSAGE", "sync").code == 200
    assert client.receive() == b"a plain event"
    resume(client, event, 486)
    assert phone.finish(transaction).code == 486


@pytest.mark.parametrize("user", ["relay", "multicast", "unicast"])
@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_nobody_is_connected_negative_and_the_script_s_own_reply_arrives(stage, user, method):
    answer = stage.phone().ask(method, user, {"X-Word": "w", "X-Tag": "blue"})
    assert (answer.code, answer.reason) == (480, "Nobody answers")
    assert int(answer["X-Rc"]) < 0


@pytest.mark.parametrize("user", ["multicast", "unicast"])
def test_no_one_with_that_tag_negative_and_the_script_s_own_reply_arrives(stage, user):
    client = tagged(stage, "red")
    answer = stage.phone().ask("INVITE", user, {"X-Word": "w", "X-Tag": "blue"})
    assert (answer.code, answer.reason) == (480, "Nobody answers")
    assert int(answer["X-Rc"]) < 0
    stage.phone().ask("MESSAGE", "sync")
    assert client.receive() == b"a plain event"


def test_the_last_one_with_the_tag_has_gone(stage):
    first, second = tagged(stage, "blue"), tagged(stage, "blue")
    phone = stage.phone()
    first.close()
    stage.evapid.clients(1)
    asked = phone.start("INVITE", "multicast", {"X-Word": "w"})
    resume(second, second.receive(), 200)
    assert phone.finish(asked).code == 200
    second.close()
    stage.evapid.clients(0)
    assert phone.ask("INVITE", "multicast", {"X-Word": "w"}).code == 480


def test_an_event_too_large_is_negative_and_nothing_stays_suspended(stage):
    client = stage.connect()
    answer = stage.phone().ask("INVITE", "large", {"X-Word": "w", "X-Times": 15})
    assert (answer.code, answer.reason) == (480, "Nobody answers")
    assert int(answer["X-Rc"]) < 0
    stage.phone().ask("MESSAGE", "sync")
    assert client.receive() == b"a plain event"


def test_a_large_event_suspends_as_a_small_one(stage):
    client = stage.connect()
    phone = stage.phone()
    transaction = phone.start("INVITE", "large", {"X-Word": "w", "X-Times": 12})
    event = client.receive()
    assert len(event) > 1 << 17
    client.send(b"%s:%s:486:w" % tuple(event.split(b":")[:2]))
    assert phone.finish(transaction).code == 486


def test_a_transaction_that_the_script_made_is_the_one_that_is_suspended(native):
    client = native.connect()
    phone = native.phone()
    transaction = phone.start("INVITE", "created-before", {"X-Word": "w"})
    resume(client, client.receive(), 486)
    assert phone.finish(transaction).code == 486


@pytest.mark.parametrize("code", [200, 404])
def test_after_a_call_that_failed_the_request_can_be_relayed_as_if_nothing_had_been(native, code):
    """A blind branch that stayed would keep tm from handing on a 404 until its timer."""
    client, callee = native.connect(), native.callee(code, "From the callee")
    answer = native.phone().ask("INVITE", "large", {"X-Word": "w", "X-Times": 15, "X-Callee": callee.port})
    assert (answer.code, answer.reason) == (code, "From the callee")
    native.phone().ask("MESSAGE", "sync")
    assert client.receive() == b"a plain event"


@pytest.mark.parametrize("code", [200, 404])
def test_a_resumed_request_can_be_relayed(native, code):
    client, callee = native.connect(), native.callee(code, "From the callee")
    phone = native.phone()
    transaction = phone.start("INVITE", "relay", {"X-Word": "w", "X-Callee": callee.port})
    index, label, _ = client.receive().split(b":")
    client.send(b"%s:%s:relay" % (index, label))
    answer = phone.finish(transaction)
    assert (answer.code, answer.reason) == (code, "From the callee")


def test_a_message_that_names_no_transaction_breaks_nothing(stage):
    client = stage.connect()
    client.send(b"4711:815:200:OK")
    phone = stage.phone()
    transaction = phone.start("INVITE", "relay", {"X-Word": "w"})
    resume(client, client.receive(), 486)
    assert phone.finish(transaction).code == 486


def test_the_ring_is_full_negative_and_the_script_s_own_reply_arrives():
    with Stage() as stage:
        stage.start_evapid()
        stage.start_kamailio(NATIVE, params=TM, evapi={"queue_size": 65536})
        client = stage.connect()
        phone = stage.phone()
        stage.evapid.stopped()
        event, filled = "e" * 1000, 0
        while int(phone.ask("MESSAGE", "fill", {"X-Word": event})["X-Rc"]) > 0:
            filled += 1
        answer = phone.ask("INVITE", "relay", {"X-Word": event})
        assert (answer.code, int(answer["X-Rc"]) < 0) == (480, True)
        stage.evapid.goes_on()
        assert client.receive_many(filled) == [event.encode()] * filled
        transaction = phone.start("INVITE", "relay", {"X-Word": "w"})
        resume(client, client.receive(), 486)
        assert phone.finish(transaction).code == 486


def test_without_tm_the_error_is_clear_and_the_other_functions_work():
    with Stage() as stage:
        stage.start_evapid()
        stage.start_kamailio("""
            route[TEST] {
                evapi_async_relay("event"); $var(relay) = $rc;
                evapi_async_multicast("event", "blue"); $var(multicast) = $rc;
                evapi_async_unicast("event", "blue"); $var(unicast) = $rc;
                evapi_relay("a plain event"); $var(plain) = $rc;
                append_to_reply("X-Rc: $var(relay) $var(multicast) $var(unicast) $var(plain)\\r\\n");
                sl_send_reply("200", "OK");
            }
            """, without=("tm", "tmx"))
        client = stage.connect()
        *failed, plain = map(int, stage.phone().ask("INVITE")["X-Rc"].split())
        assert all(rc < 0 for rc in failed) and plain == 1
        assert client.receive() == b"a plain event"
        for name in ("evapi_async_relay", "evapi_async_multicast", "evapi_async_unicast"):
            assert stage.kamailio.lines(rf"ERROR: evapi .*\btm\b.*{name}|ERROR: evapi .*{name}.*\btm\b")
