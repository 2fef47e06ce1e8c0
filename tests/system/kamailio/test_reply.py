"""An answer to who has asked: evapi_reply goes to the connection whose event route runs, evapi_send and evapi_async_send to the
one with an index. It reaches that connection and no other, whatever becomes of evapid, of Kamailio and of the connection."""

import os

import pytest

from handover import replace, restart
from process import until
from script import ask, gate
from stage import Stage

MODULES = os.environ.get("EVAPID_KAMAILIO_MODULES")  # of another Kamailio than the packaged one

# Routes log the return values of what they call, in order. A message "wait" keeps its route until gate 2 is left.
NATIVE = """
route[TEST] {
    $var(rc) = 0;
    switch ($rU) {
        case "send": evapi_send("$hdr(X-Index)", "$hdr(X-Event)"); $var(rc) = $rc; break;
        case "empty": $var(none) = ""; evapi_send("$hdr(X-Index)", "$var(none)"); $var(rc) = $rc; break;
        case "reply": evapi_reply("nobody has asked"); $var(rc) = $rc; break;
        case "relay": evapi_relay("$hdr(X-Event)"); $var(rc) = $rc; break;
        case "gate": $shv(gate) = $(hdr(X-Gate){s.int}); break;
        case "ask":
            evapi_async_send("$hdr(X-Index)", "$T(id_index):$T(id_label)"); $var(rc) = $rc;
            if ($var(rc) > 0) exit;
            append_to_reply("X-Rc: $var(rc)\\r\\n");
            t_reply("480", "Nobody there");
            exit;
    }
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    sl_send_reply("200", "OK");
}
route[RESUMED] {
    evapi_reply("resumed");
    t_reply("486", "Asked");
}
event_route[evapi:connection-new] {
    evapi_reply("welcome $evapi(conidx)"); $var(first) = $rc;
    evapi_send("$evapi(conidx)", "number $evapi(conidx)"); $var(second) = $rc;
    xlog("L_NOTICE", "NEW $evapi(conidx) $var(first) $var(second);\\n");
}
event_route[evapi:connection-closed] {
    evapi_reply("too late"); $var(first) = $rc;
    evapi_send("$evapi(conidx)", "too late"); $var(second) = $rc;
    xlog("L_NOTICE", "CLOSED $evapi(conidx) $var(first) $var(second);\\n");
}
event_route[evapi:message-received] {
    xlog("L_NOTICE", "GOT $evapi(conidx) $evapi(msg);\\n");
    if ($evapi(msg) =~ "^[0-9]+:[0-9]+$") {
        $var(index) = $(evapi(msg){s.select,0,:}{s.int});
        $var(label) = $(evapi(msg){s.select,1,:}{s.int});
        t_continue("$var(index)", "$var(label)", "RESUMED");
        exit;
    }
    if ($evapi(msg) == "order") evapi_relay("before");
    while ($evapi(msg) == "wait" && $shv(gate) == 2) usleep("1000");
    evapi_reply("you said $evapi(msg)"); $var(rc) = $rc;
    if ($evapi(msg) == "order") evapi_relay("after");
    xlog("L_NOTICE", "REPLIED $evapi(conidx) $var(rc);\\n");
}
"""

LUA = """
local function header(name) return KSR.pv.gete("$hdr(" .. name .. ")") end

local calls = {
    ["send"] = function() return KSR.evapi.send(tonumber(header("X-Index")), header("X-Event")) end,
    ["empty"] = function() return KSR.evapi.send(tonumber(header("X-Index")), "") end,
    ["reply"] = function() return KSR.evapi.reply("nobody has asked") end,
    ["relay"] = function() return KSR.evapi.relay(header("X-Event")) end,
    ["ask"] = function()
        if KSR.tm.t_newtran() ~= 1 then KSR.x.exit() end -- a retransmission
        local ids = KSR.pv.get("$T(id_index)") .. ":" .. KSR.pv.get("$T(id_label)")
        return KSR.evapi.async_send(tonumber(header("X-Index")), ids)
    end,
}

function test_route()
    local user = KSR.pv.gete("$rU")
    local rc = calls[user]()
    if user == "ask" and rc > 0 then return end
    KSR.hdr.append_to_reply("X-Rc: " .. tostring(rc) .. "\\r\\n")
    if user == "ask" then KSR.tm.t_reply(480, "Nobody there") else KSR.sl.sl_send_reply(200, "OK") end
end

function resumed()
    KSR.evapi.reply("resumed")
    KSR.tm.t_reply(486, "Asked")
end

function evapi_event(name)
    local index, message = KSR.pv.get("$evapi(conidx)"), KSR.pv.gete("$evapi(msg)")
    if name == "evapi:connection-new" then
        local first = KSR.evapi.reply("welcome " .. index)
        local second = KSR.evapi.send(index, "number " .. index)
        KSR.notice(string.format("NEW %d %d %d;\\n", index, first, second))
    elseif name == "evapi:connection-closed" then
        local first = KSR.evapi.reply("too late")
        local second = KSR.evapi.send(index, "too late")
        KSR.notice(string.format("CLOSED %d %d %d;\\n", index, first, second))
    elseif string.match(message, "^%d+:%d+$") then
        local id, label = string.match(message, "^(%d+):(%d+)$")
        KSR.tmx.t_continue(tonumber(id), tonumber(label), "resumed")
    else
        if message == "order" then KSR.evapi.relay("before") end
        local rc = KSR.evapi.reply("you said " .. message)
        if message == "order" then KSR.evapi.relay("after") end
        KSR.notice(string.format("REPLIED %d %d;\\n", index, rc))
    end
    return 1
end
"""

# A call that is left suspended would be answered by this timer at the earliest.
TM = {"tm": {"fr_timer": 120000, "fr_inv_timer": 120000}}


@pytest.fixture(scope="module")
def native_stage():
    with Stage() as own:
        own.start_evapid()
        own.start_kamailio(NATIVE, params=TM)
        yield own


@pytest.fixture(scope="module")
def lua_stage():
    with Stage() as own:
        own.start_evapid()
        own.start_kamailio(lua=LUA, params=TM, evapi={"event_callback": "evapi_event"})
        yield own


@pytest.fixture(params=["native", "lua"])
def both(request):
    """Each test once with the native script and once with Lua."""
    own = request.getfixturevalue(request.param + "_stage")
    yield own
    own.hang_up()
    assert not own.problems()


def greeted(stage, **more):
    """A client that has got what its own connection-new route has sent."""
    client = stage.connect(**more)
    assert client.receive_many(2) == [b"welcome %d" % client.index, b"number %d" % client.index]
    return client


def heard(client, event):
    """The client gets the event; before it perhaps, once more, what connection-new sends."""
    before = client.receive_until(event)
    assert set(before) <= {b"welcome %d" % client.index, b"number %d" % client.index}, before


def relay(phone, event):
    assert ask(phone, "relay", event=event) == 1


def counted(stage):
    events = stage.evapid.status()["totals"]["events"]
    return events["send"], events["no_receiver"]


def gone(stage, client):
    """The client goes, and its routes have ended."""
    others = len(stage.evapid.status()["clients"]) - 1
    client.close()
    stage.evapid.clients(others)


# ---- who gets it


def test_what_connection_new_sends_to_its_own_connection_comes_first_and_to_nobody_else(both):
    clients = [greeted(both) for _ in range(3)]
    for client in clients:
        both.kamailio.logged(rf"NEW {client.index} 1 1;")
    relay(both.phone(), "for all")
    assert [client.receive() for client in clients] == [b"for all"] * 3


def test_a_reply_reaches_the_client_that_has_asked_in_the_order_of_the_script(both):
    asking, other = greeted(both), greeted(both)
    asking.send(b"order")
    assert asking.receive_many(3) == [b"before", b"you said order", b"after"]
    assert other.receive_many(2) == [b"before", b"after"]
    both.kamailio.logged(rf"REPLIED {asking.index} 1;")


def test_a_request_route_sends_to_one_connection(both):
    first, second = greeted(both), greeted(both)
    phone = both.phone()
    assert ask(phone, "send", index=second.index, event="to the second") == 1
    assert ask(phone, "send", index=first.index, event="to the first") == 1
    relay(phone, "for all")
    assert first.receive_many(2) == [b"to the first", b"for all"]
    assert second.receive_many(2) == [b"to the second", b"for all"]


def test_a_connection_that_is_asked_resumes_the_call(both):
    asked, other = greeted(both), greeted(both)
    phone = both.phone()
    call = phone.start("INVITE", "ask", {"X-Index": str(asked.index)})
    asked.send(asked.receive())
    assert phone.finish(call).code == 486
    assert asked.receive() == b"resumed"
    relay(phone, "for all")
    assert asked.receive() == other.receive() == b"for all"


# ---- when there is nobody


def test_connection_closed_sends_nothing_to_the_connection_that_has_gone(both):
    client = greeted(both)
    before = counted(both)
    gone(both, client)
    both.kamailio.logged(rf"CLOSED {client.index} -1 -1;")
    both.kamailio.logged(rf"evapi_reply: connection {client.index} has gone: nobody gets an answer in connection-closed")
    assert counted(both) == before, "nothing was issued"


@pytest.mark.parametrize("user", ["send", "ask"])
def test_a_connection_that_has_gone_is_negative_and_suspends_nothing(both, user):
    client, other = greeted(both), greeted(both)
    gone(both, client)
    phone = both.phone()
    before = counted(both)
    for index in (client.index, other.index + 1, 2147483647):
        answer = phone.ask("INVITE", user, {"X-Index": str(index), "X-Event": "lost"})
        assert (answer.code, answer["X-Rc"]) == (480 if user == "ask" else 200, "-1")
    assert counted(both) == before, "nothing was issued"
    relay(phone, "for all")
    assert other.receive() == b"for all"


@pytest.mark.parametrize("user", ["send", "ask"])
def test_what_is_no_index_is_negative_with_a_line(both, user):
    other = greeted(both)
    answer = both.phone().ask("INVITE", user, {"X-Index": "-1", "X-Event": "lost"})
    assert (answer.code, answer["X-Rc"]) == (480 if user == "ask" else 200, "-1")
    both.kamailio.logged('evapi_%ssend: "-1" is not the index of a connection' % ("async_" if user == "ask" else ""))
    relay(both.phone(), "for all")
    assert other.receive() == b"for all"


def test_a_reply_outside_of_an_event_and_an_empty_event_are_negative(both):
    client = greeted(both)
    phone = both.phone()
    assert ask(phone, "reply") < 0
    both.kamailio.logged("evapi_reply is for the evapi event routes: there is no connection here")
    assert ask(phone, "empty", index=client.index) < 0
    relay(phone, "for all")
    assert client.receive() == b"for all"


# ---- Python


PYTHON = """
import KSR

class Script:
    def child_init(self, rank):
        return 0

    def new(self, msg):
        KSR.evapi.reply("welcome")
        return 1

    def message(self, msg):
        KSR.evapi.reply("you said " + KSR.pv.get("$evapi(msg)"))
        return 1

    def request(self, msg):
        index = int(KSR.pv.get("$hdr(X-Index)"))
        if KSR.pv.get("$rU") == "send":
            KSR.pv.seti("$var(rc)", KSR.evapi.send(index, "sent"))
        else:
            KSR.tm.t_newtran()
            KSR.pv.seti("$var(rc)", KSR.evapi.async_send(index, "asked"))
        return 1

def mod_init():
    return Script()
"""

FROM_PYTHON = """
route[TEST] {
    python_exec("request");
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    if ($rU == "send") sl_send_reply("200", "OK");
    else if ($var(rc) < 0) t_reply("480", "Nobody there");
}
event_route[evapi:connection-new] { python_exec("new"); }
event_route[evapi:message-received] { python_exec("message"); }
"""


@pytest.mark.skipif(MODULES is not None and not os.path.exists(f"{MODULES}/app_python3.so"),
                    reason="this Kamailio was built without app_python3")
def test_a_python_script_answers_who_has_asked(stage):
    stage.start_evapid()
    script = stage.folder / "script.py"
    script.write_text(PYTHON)
    stage.start_kamailio(FROM_PYTHON, modules=("app_python3",), params={"app_python3": {"load": str(script)}, **TM})
    client, other, phone = stage.connect(), stage.connect(), stage.phone()
    client.send(b"hello")
    assert client.receive_many(2) == [b"welcome", b"you said hello"]
    assert ask(phone, "send", index=client.index) == 1
    assert client.receive() == b"sent"
    phone.start("INVITE", "ask", {"X-Index": str(client.index)})
    assert client.receive() == b"asked"
    gone(stage, client)
    assert ask(phone, "send", index=client.index) == -1
    assert phone.ask("INVITE", "ask", {"X-Index": str(client.index)}).code == 480
    assert other.receive_ready() == [b"welcome"]


# ---- restarts


def waits(stage, phone, client):
    """A route of the client waits at the gate, and will reply then."""
    gate(phone, 2)
    client.send(b"wait")
    stage.kamailio.logged(rf"GOT {client.index} wait;")


def kill_and_restart(stage):
    stage.evapid.kill_and_restart()


@pytest.mark.parametrize("how", [replace, restart, kill_and_restart])
def test_an_answer_reaches_its_connection_over_a_change_of_evapid(stage, how):
    """The next evapid goes on with the connections, each under its index: also after a kill, when its session is another."""
    (stage.start_evapid if how is replace else stage.start_supervised)(attach_hold_ms=60000)
    stage.start_kamailio(NATIVE, evapi={"workers": 2}, params=TM)
    asking, other, phone = greeted(stage), greeted(stage), stage.phone()
    waits(stage, phone, asking)
    how(stage)
    stage.evapid.clients(2)
    gate(phone, 0)
    heard(asking, b"you said wait")
    stage.kamailio.logged(rf"REPLIED {asking.index} 1;")
    assert ask(phone, "send", index=other.index, event="to the other") == 1
    heard(other, b"to the other")
    stage.evapid.attached(stage.kamailio.pid, 2)
    relay(phone, "for all")
    for client in (asking, other):
        heard(client, b"for all")
    assert counted(stage)[1] == 0, "each had a receiver"


def test_what_is_sent_while_a_killed_evapid_is_away_waits_for_its_connection(stage):
    stage.start_supervised(attach_hold_ms=60000)
    stage.start_kamailio(NATIVE, params=TM)
    client, other, phone = greeted(stage), greeted(stage), stage.phone()
    stage.evapid.kill()
    assert ask(phone, "send", index=client.index, event="meanwhile") == 1
    stage.kamailio.logged("lost evapid")
    assert phone.ask("INVITE", "ask", {"X-Index": str(client.index)}).code == 480, "no evapid is there"
    stage.evapid.start_again()
    heard(client, b"meanwhile")
    stage.evapid.attached(stage.kamailio.pid, 1)
    relay(phone, "for all")
    heard(client, b"for all")
    heard(other, b"for all")


def test_an_index_that_another_evapid_has_given_to_another_client_gets_no_answer_of_the_first(stage):
    """An evapid that begins anew counts from 1 again. A route that began for the first connection 1 waits for that evapid to come;
    an event for that connection waits in the queue."""
    stage.start_evapid(attach_hold_ms=60000)
    stage.start_kamailio(NATIVE, evapi={"workers": 2}, params=TM)
    first, phone = greeted(stage), stage.phone()
    waits(stage, phone, first)
    stage.evapid.kill()
    assert first.receive_rest() == []
    assert ask(phone, "send", index=first.index, event="to the first") == 1
    stage.restart_evapid()
    second = greeted(stage)
    assert second.index == first.index
    stage.evapid.until_status(lambda s: s["kamailio"]["ring"]["used"] == 0, "the queue has been read")
    gate(phone, 0)
    stage.kamailio.logged(rf"REPLIED {first.index} -1;")
    assert ask(phone, "send", index=second.index, event="to the second") == 1
    assert second.receive() == b"to the second"
    assert counted(stage) == (4, 1)


def test_connections_are_those_that_the_next_kamailio_has_let_in(stage):
    stage.start_evapid()
    stage.start_kamailio(NATIVE, params=TM)
    stays, goes = greeted(stage), greeted(stage)
    stage.kamailio.terminate()
    stage.evapid.detached()
    goes.close()
    stage.evapid.clients(1)
    stage.restart_kamailio()
    stage.evapid.client(stays)
    phone = stage.phone()
    assert stays.receive_many(2) == [b"welcome %d" % stays.index, b"number %d" % stays.index], "its route has run again"
    assert ask(phone, "send", index=goes.index, event="lost") == -1
    assert ask(phone, "send", index=stays.index, event="found") == 1
    assert stays.receive() == b"found"
