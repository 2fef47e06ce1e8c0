"""Async calls where nothing can be suspended, or nothing should be: the call is refused with a line that says so, and the
request goes its way. The user of a request's URI says where the call is made."""

import re

import pytest

from exchange import Exchange
from kamailio import Config
from process import until

NATIVE = """
route[TEST] {
    if (is_method("CANCEL") && $rU != "cancel") {
        if (t_check_trans()) t_relay();
        exit;
    }
    if ($hdr(X-Fr) != $null) t_set_fr($(hdr(X-Fr){s.int}), $(hdr(X-Fr){s.int}));
    $du = "sip:127.0.0.1:" + $hdr(X-Callee);
    switch ($rU) {
        case "after-relay": t_relay(); route(CALL); exit;
        case "after-reply": t_newtran(); t_reply("404", "The script's own"); route(CALL); exit;
        case "after-progress": t_newtran(); t_reply("180", "Ringing"); route(CALL); exit;
        case "after-failed-relay":
            $du = "sip:127.0.0.1:5060;transport=tcp";
            if (!t_relay()) route(CALL);
            exit;
        case "after-failed-send":
            $du = "sip:192.0.2.1:5060";                      # not to be reached from the loopback
            if (!t_relay()) route(CALL);
            exit;
        case "in-failure": t_on_failure("RELAYS"); t_relay(); exit;
        case "failed": t_on_failure("ASKS"); t_relay(); exit;
        case "resumed": t_newtran(); route(CALL); exit;
        case "branch": t_on_branch("CALLS"); t_relay(); exit;
        case "reply": t_on_reply("CALLS"); t_relay(); exit;
        case "core-reply": t_relay(); exit;
        case "branch-failure": t_on_branch_failure("calls"); t_relay(); exit;
        case "local":
            t_uac_send("OPTIONS", "sip:local@127.0.0.1:$hdr(X-Callee)", "", "", "From: <sip:a@b>\\r\\nTo: <sip:b@a>\\r\\n", "");
            sl_send_reply("200", "Sent");
            exit;
        case "cancel": route(CALL); exit;
        case "answered": t_newtran(); t_reply("486", "The script's own"); exit;
        case "relayed": t_relay(); exit;
    }
}
route[CALL] {
    evapi_async_relay("$T(id_index):$T(id_label):$rU");
    xlog("L_NOTICE", "RC $ci $rc\\n");
}
failure_route[RELAYS] {
    $du = "sip:127.0.0.1:" + $hdr(X-Next);
    t_relay();
    route(CALL);
}
failure_route[ASKS] { route(CALL); }
branch_route[CALLS] { route(CALL); }
onreply_route[CALLS] { route(CALL); }
reply_route { if ($fU == "core-reply") route(CALL); }
event_route[tm:branch-failure:calls] { route(CALL); }
event_route[tm:local-request] { route(CALL); }
event_route[evapi:message-received] {
    if ($evapi(msg) == "call") {
        route(CALL);
        exit;
    }
    $var(index) = $(evapi(msg){s.select,0,:}{s.int});
    $var(label) = $(evapi(msg){s.select,1,:}{s.int});
    t_continue("$var(index)", "$var(label)", "RESUMED");
}
route[RESUMED] {
    if ($rU != "resumed") {
        t_reply("486", "Resumed");
        exit;
    }
    $du = "sip:127.0.0.1:" + $hdr(X-Callee);
    t_relay();
    route(CALL);
}
"""

LUA = """
local function call()
    local rc = KSR.evapi.async_relay("q")
    KSR.xlog.xnotice("RC $ci " .. tostring(rc) .. "\\n")
end

function test_route()
    local place = KSR.pv.gete("$rU")
    KSR.pv.sets("$du", "sip:127.0.0.1:" .. KSR.pv.gete("$hdr(X-Callee)"))
    if place == "branch" then KSR.tm.t_on_branch("calls") end
    if place == "reply" then KSR.tm.t_on_reply("calls") end
    KSR.tm.t_relay()
    if place == "after-relay" then call() end
end

function calls() call() end

function ksr_onsend_route()
    if KSR.pv.gete("$rU") == "send" then call() end
    return 1
end

function ksr_reply_route()
    if KSR.pv.gete("$fU") == "core-reply" then call() end
    return 1
end

function evapi_event(name)
    if name == "evapi:message-received" then call() end
    return 1
end
"""

RELAYED = "evapi_async_relay: the request has been relayed"
NO_REQUEST = "evapi_async_relay: there is no SIP request here"


def place(route):
    return f"evapi_async_relay can't suspend in {route}"


@pytest.fixture(scope="module")
def native_shared():
    with Exchange() as own:
        yield own.open(routes=NATIVE, children=4)


@pytest.fixture(scope="module")
def lua_shared():
    with Exchange() as own:
        yield own.open(lua=LUA, evapi={"event_callback": "evapi_event"})


def with_client(shared):
    """Somebody is connected who could answer. At the end no transaction is left, and tm has no BUG to tell of."""
    shared.client = shared.connect()
    yield shared
    shared.no_transaction_is_left()
    shared.hang_up()
    assert not shared.problems()


@pytest.fixture
def native(native_shared):
    yield from with_client(native_shared)


@pytest.fixture
def lua(lua_shared):
    yield from with_client(lua_shared)


@pytest.fixture(params=["native", "lua"])
def either(request):
    yield from with_client(request.getfixturevalue(request.param + "_shared"))


def refused(stage, asked, why):
    """The call for this request has been refused, for this reason, and no client got its event."""
    stage.kamailio.logged(f"RC {asked.call_id} -1")
    assert stage.kamailio.lines(re.escape(why)), stage.kamailio.tail(20)
    assert not stage.client.receive_ready()


@pytest.mark.parametrize("method,code", [("INVITE", 404), ("MESSAGE", 404), ("MESSAGE", 200)])
def test_a_relayed_request_ends_by_its_callee(either, method, code):
    callee, phone = either.callee(code, "From the callee"), either.phone()
    asked = phone.start(method, "after-relay", {"X-Callee": callee.port})
    assert (phone.finish(asked).code, asked.final.reason) == (code, "From the callee")
    refused(either, asked, RELAYED)


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_a_relayed_request_that_nobody_answers_ends_by_the_timer(native, method):
    nobody, phone = native.phone(), native.phone()
    asked = phone.start(method, "after-relay", {"X-Callee": nobody.socket.getsockname()[1], "X-Fr": 300})
    assert phone.finish(asked).code == 408
    refused(native, asked, RELAYED)


def test_a_request_that_has_been_answered_stays_answered(native):
    phone = native.phone()
    asked = phone.start("INVITE", "after-reply")
    assert phone.finish(asked).reason == "The script's own"
    refused(native, asked, "the transaction can't be suspended: it has been answered")
    assert {answer.reason for answer in asked.finals} == {"The script's own"}, "tm sends it again until its ACK has come"


@pytest.mark.parametrize("user", ["after-progress", "after-failed-relay", "after-failed-send"])
def test_a_request_that_is_on_its_way_to_nobody_is_suspended(native, user):
    phone = native.phone()
    asked = phone.start("INVITE", user)
    native.client.send(native.client.receive())
    assert phone.finish(asked).reason == "Resumed"


def test_a_request_whose_relay_has_failed_is_suspended_by_its_failure_route(native):
    phone = native.phone()
    asked = phone.start("INVITE", "failed", {"X-Callee": native.callee(404, "From the callee").port})
    native.client.send(native.client.receive())
    assert phone.finish(asked).reason == "Resumed"


def test_a_failure_route_that_relays_once_more_gets_what_that_callee_says(native):
    first, second, phone = native.callee(404, "The first"), native.callee(486, "The second"), native.phone()
    asked = phone.start("INVITE", "in-failure", {"X-Callee": first.port, "X-Next": second.port})
    assert phone.finish(asked).code in (404, 486)  # tm takes the better one of the two
    assert len(second.requests) > 0
    refused(native, asked, RELAYED)


def test_a_resumed_script_that_relays_gets_what_the_callee_says(native):
    callee, phone = native.callee(486, "From the callee"), native.phone()
    asked = phone.start("INVITE", "resumed", {"X-Callee": callee.port})
    native.client.send(native.client.receive())
    assert phone.finish(asked).reason == "From the callee"
    refused(native, asked, RELAYED)


def refused_in(stage, where, route):
    callee, phone = stage.callee(486, "From the callee"), stage.phone()
    asked = phone.start("INVITE", where, {"X-Callee": callee.port}, caller=where)
    assert phone.finish(asked).reason == "From the callee"
    refused(stage, asked, place(route))


@pytest.mark.parametrize("where,route", [("branch", "a branch_route"), ("reply", "an onreply_route"),
                                         ("core-reply", "an onreply_route")])
def test_the_call_is_refused_where_tm_can_suspend_nothing(either, where, route):
    refused_in(either, where, route)


def test_the_call_is_refused_in_a_branch_failure_route(native):
    refused_in(native, "branch-failure", "a branch-failure route")


def test_the_call_is_refused_while_a_message_is_sent(lua):
    """A native onsend_route can call neither functions of modules nor routes."""
    refused_in(lua, "send", "an onsend_route")


def test_the_call_is_refused_for_a_request_of_kamailio_s_own(native):
    callee = native.callee(200, "OK")
    assert native.phone().ask("MESSAGE", "local", {"X-Callee": callee.port}).reason == "Sent"
    native.kamailio.logged(re.escape(place("a route for Kamailio's own requests")))
    until(lambda: callee.requests, "the request of Kamailio's own is sent")


def test_the_call_is_refused_in_an_event_route(either):
    before = len(either.kamailio.lines(NO_REQUEST))
    either.client.send(b"call")
    either.kamailio.logged(NO_REQUEST, before + 1)


def test_a_cancel_that_belongs_to_nothing_is_a_request_as_any_other(native):
    phone = native.phone()
    asked = phone.start("CANCEL", "cancel")
    native.client.send(native.client.receive())
    assert phone.finish(asked).reason == "Resumed"


class WithAck(Config):
    """The script sees ACKs too, and makes an async call for each."""

    def write(self, folder, name, port):
        path = super().write(folder, name, port)
        path.write_text(path.read_text().replace('if (is_method("ACK")) exit;', 'if (is_method("ACK")) { route(CALL); exit; }'))
        return path


@pytest.fixture
def with_ack():
    with Exchange() as own:
        own.open(routes=NATIVE, kind=WithAck)
        yield from with_client(own)


def test_an_ack_is_not_suspended(with_ack):
    """tm absorbs that of a failure, and so has done with the transaction long before its timer."""
    phone = with_ack.phone()
    assert phone.ask("INVITE", "answered").code == 486
    with_ack.no_transaction_is_left()
    assert not with_ack.kamailio.lines("RC ")
    asked = phone.start("INVITE", "relayed", {"X-Callee": with_ack.callee(200, "OK").port})
    assert phone.finish(asked).code == 200
    refused(with_ack, asked, "evapi_async_relay: nobody waits for an answer to an ACK")
