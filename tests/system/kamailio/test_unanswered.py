"""Scripts that do not look at what an async call returns: when nobody can answer, their requests end as with EVAPI, by tm's
timer. Those that look get a negative value at once, and their own answer or relay is all that happens.

The user of a request's URI says how the script ends; X-Fr is for tm's fr_timer, in milliseconds."""

import pytest

from exchange import Exchange
from process import until

START = """
route[TEST] {
    if (is_method("CANCEL")) {
        if (t_check_trans()) t_relay();
        exit;
    }
    if ($hdr(X-Fr) != $null) t_set_fr(0, $(hdr(X-Fr){s.int}));
    if (is_method("INVITE") && $rU != "looks-sl") dlg_manage();
    $var(nothing) = "";
    if ($hdr(X-Route) != $null) {
        t_on_failure("LATE");
        t_on_branch("NONE");
        t_on_reply("NONE");
    }
    switch ($rU) {
"""

NATIVE_CALLS = """
        case "newtran": t_newtran(); evapi_async_relay("q"); exit;
        case "exit": evapi_async_relay("q"); exit;
        case "return": evapi_async_relay("q"); return;
        case "drop": evapi_async_relay("q"); drop;
        case "subroute": route(ASK); break;
        case "multicast": evapi_async_multicast("q", "nobody"); exit;
        case "unicast": evapi_async_unicast("q", "nobody"); exit;
        case "progress": evapi_async_relay("q"); t_reply("183", "Progress"); exit;
        case "twice": evapi_async_relay("q"); evapi_async_relay("q"); exit;
        case "empty": evapi_async_relay("$var(nothing)"); exit;
        case "empty-tag": evapi_async_unicast("q", "$var(nothing)"); exit;
        case "release": evapi_async_relay("q"); t_release(); exit;
"""

END = """
    }
    exit;
}
route[ASK] { evapi_async_relay("q"); }
branch_route[NONE] { return; }
onreply_route[NONE] { return; }
failure_route[LATE] { t_reply("480", "Late"); }
"""

LUA = """
local ways = {
    ["newtran"] = function() KSR.tm.t_newtran() KSR.evapi.async_relay("q") end,
    ["exit"] = function() KSR.evapi.async_relay("q") KSR.x.exit() end,
    ["return"] = function() KSR.evapi.async_relay("q") return end,
    ["drop"] = function() KSR.evapi.async_relay("q") KSR.x.drop() end,
    ["multicast"] = function() KSR.evapi.async_multicast("q", "nobody") end,
    ["unicast"] = function() KSR.evapi.async_unicast("q", "nobody") end,
    ["progress"] = function() KSR.evapi.async_relay("q") KSR.tm.t_reply(183, "Progress") end,
    ["twice"] = function() KSR.evapi.async_relay("q") KSR.evapi.async_relay("q") end,
    ["looks"] = function() if KSR.evapi.async_relay("q") < 0 then KSR.tm.t_reply(480, "Nobody") end end,
}

function test_route()
    if KSR.pv.gete("$rm") == "CANCEL" then
        if KSR.tm.t_check_trans() > 0 then KSR.tm.t_relay() end
        return
    end
    local fr = KSR.pv.gete("$hdr(X-Fr)")
    if fr ~= "" then KSR.tm.t_set_fr(0, tonumber(fr)) end
    if KSR.pv.gete("$rm") == "INVITE" then KSR.dialog.dlg_manage() end
    if KSR.pv.gete("$hdr(X-Route)") ~= "" then KSR.tm.t_on_failure("late") end
    ways[KSR.pv.gete("$rU")]()
end

function late() KSR.tm.t_reply(480, "Late") end
"""

DIALOG = {"modules": ("rr", "dialog", "async"), "params": {"async": {"workers": 1}}, "settings": "async_workers=1"}


def play(**what):
    with Exchange() as own:
        yield own.open(**DIALOG, **what)


def both(*scripts):
    return [pytest.param((script, module), id=f"{script}-{module}", marks=[pytest.mark.once] if module == "evapi" else [])
            for module in ("evapi", "evapid") for script in scripts]


@pytest.fixture(scope="module", params=both("native", "lua"))
def either_shared(request):
    script, module = request.param
    script = {"native": {"routes": START + NATIVE_CALLS + END}, "lua": {"lua": LUA}}[script]
    yield from play(ours=module == "evapid", **script)


@pytest.fixture
def either(either_shared):
    """Each test four times: a native script and Lua, with EVAPI and with evapid. At the end nothing is left in Kamailio."""
    yield either_shared
    either_shared.no_transaction_is_left()
    either_shared.no_dialog_is_left()
    either_shared.hang_up()
    assert not either_shared.problems()


native = pytest.mark.parametrize("either_shared", both("native"), indirect=True)


WAYS = ["newtran", "exit", "return", "drop", "multicast", "unicast", "progress", "twice"]


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
@pytest.mark.parametrize("way", WAYS)
def test_the_request_ends_by_the_timer(either, way, method):
    assert either.phone().ask(method, way, {"X-Fr": 300}).code == 408


@native
@pytest.mark.parametrize("way", ["subroute", "empty", "empty-tag"])
def test_so_it_does_from_a_subroute_and_with_a_text_that_is_empty(either, way):
    assert either.phone().ask("INVITE", way, {"X-Fr": 300}).code == 408


@pytest.mark.parametrize("way", WAYS)
def test_the_failure_route_runs(either, way):
    answer = either.phone().ask("INVITE", way, {"X-Fr": 300, "X-Route": "armed"})
    assert (answer.code, answer.reason) == (480, "Late")


@pytest.mark.parametrize("way", WAYS)
def test_cancel_is_answered_and_ends_the_request(either, way):
    phone = either.phone()
    call = phone.start("INVITE", way)
    until(lambda: phone.turn() or call.answers, "the caller hears that the request is worked on")
    phone.cancel(call)
    assert phone.finish(call).code == 487
    until(lambda: phone.turn() or call.cancelled, "the CANCEL is answered")
    assert call.cancelled[0].code == 200


def test_a_retransmission_is_absorbed(either):
    phone = either.phone()
    call = phone.start("INVITE", "newtran", {"X-Fr": 1000})
    until(lambda: phone.turn() or call.answers, "the caller hears that the request is worked on")
    for _ in range(3):
        phone.send(call)
    phone.finish(call)
    either.no_transaction_is_left()
    assert {answer.code for answer in call.answers} == {100, 408}
    assert not either.kamailio.lines("WARNING.*release transaction")


def test_thirty_calls_at_once_leave_no_dialog_that_starts(either):
    phone = either.phone()
    calls = [phone.start("INVITE", "newtran", {"X-Fr": 1000}) for _ in range(30)]
    assert {answer.code for answer in phone.finish_all(calls)} == {408}


@native
def test_a_transaction_that_the_script_releases_is_let_go_without_an_answer(either):
    phone, before = either.phone(), either.kamcmd("tm.stats")["total"]
    asked = phone.start("MESSAGE", "release", {"X-Fr": 100})
    until(lambda: phone.turn(0.01) or either.kamcmd("tm.stats")["total"] > before, "the transaction has begun")
    either.no_transaction_is_left()
    phone.turn()
    assert not asked.answers


# What a call can fail for with evapid, besides that nobody is there.
FAILURES = """
        case "large":
            $var(big) = "0123456789abcdef0123456789abcdef";
            $var(i) = 0;
            while ($var(i) < 12) {
                $var(big) = $var(big) + $var(big);
                $var(i) = $var(i) + 1;
            }
            evapi_async_relay("$var(big)");
            $var(big) = "";
            exit;
        case "long-tag":
            evapi_async_unicast("q", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0"); exit;
        case "fill":
            if (evapi_relay("$hdr(X-Word)")) sl_send_reply("200", "Queued");
            else sl_send_reply("500", "Full");
            exit;
        case "word": evapi_async_relay("$hdr(X-Word)"); exit;
"""

LOOKS = """
        case "looks-reply": if (!evapi_async_relay("q")) t_reply("480", "Nobody"); exit;
        case "looks-send-reply": if (!evapi_async_relay("q")) send_reply("480", "Nobody"); exit;
        case "looks-sl": if (!evapi_async_relay("q")) sl_send_reply("480", "Nobody"); exit;
        case "looks-relay":
            if (!evapi_async_relay("q")) {
                $du = "sip:127.0.0.1:" + $hdr(X-Callee);
                t_relay();
            }
            exit;
        case "relay-fails":
            evapi_async_relay("q");
            $du = "sip:127.0.0.1:5060;transport=tcp";
            t_relay();
            exit;
        case "send-fails":
            evapi_async_relay("q");
            $du = "sip:192.0.2.1:5060";                      # not to be reached from the loopback
            t_relay();
            exit;
        case "relay-fails-silently":
            evapi_async_relay("q");
            t_set_disable_internal_reply(1);
            $du = "sip:127.0.0.1:5060;transport=tcp";
            t_relay();
            exit;
        case "other-module": evapi_async_relay("q"); async_route("OTHER", "1"); exit;
        case "resumed": evapi_async_unicast("$T(id_index):$T(id_label)", "app"); exit;
        case "asked-after-failure":
            $du = "sip:127.0.0.1:" + $hdr(X-Callee);
            t_on_failure("ASKS");
            t_relay();
            exit;
"""

ROUTES = """
route[OTHER] {
    $du = "sip:127.0.0.1:" + $hdr(X-Callee);
    t_relay();
}
failure_route[ASKS] { evapi_async_relay("q"); exit; }
route[AGAIN] { evapi_async_unicast("q", "nobody"); exit; }
event_route[evapi:connection-new] { evapi_set_tag("app"); }
event_route[evapi:message-received] {
    $var(index) = $(evapi(msg){s.select,0,:}{s.int});
    $var(label) = $(evapi(msg){s.select,1,:}{s.int});
    t_continue("$var(index)", "$var(label)", "AGAIN");
}
"""


@pytest.fixture(scope="module")
def ours_shared():
    yield from play(routes=START + NATIVE_CALLS + FAILURES + LOOKS + END + ROUTES, evapi={"queue_size": 65536})


@pytest.fixture
def ours(ours_shared):
    yield ours_shared
    ours_shared.no_transaction_is_left()
    ours_shared.no_dialog_is_left()
    ours_shared.hang_up()
    assert not ours_shared.problems()


@pytest.mark.parametrize("way", ["large", "long-tag", "empty", "empty-tag", "unicast"])
def test_whatever_the_call_fails_for_with_a_client_connected(ours, way):
    client = ours.connect()
    assert ours.phone().ask("INVITE", way, {"X-Fr": 300}).code == 408
    answer = ours.phone().ask("INVITE", way, {"X-Fr": 300, "X-Route": "armed"})
    assert (answer.code, answer.reason) == (480, "Late")
    assert not client.receive_ready()


def test_the_queue_is_full(ours):
    client, phone, event = ours.connect(), ours.phone(), "e" * 1000
    ours.evapid.stopped()
    while phone.ask("MESSAGE", "fill", {"X-Word": event}).code == 200:
        pass
    answer = phone.ask("INVITE", "word", {"X-Word": event, "X-Fr": 300})
    ours.evapid.goes_on()
    assert answer.code == 408
    assert client.receive() == event.encode()


def test_evapid_is_down():
    with Exchange() as stage:
        stage.open(routes=START + NATIVE_CALLS + END, **DIALOG)
        assert stage.evapid.terminate() == 0
        stage.kamailio.logged("lost evapid")
        answer = stage.phone().ask("INVITE", "newtran", {"X-Fr": 300, "X-Route": "armed"})
        assert (answer.code, answer.reason) == (480, "Late")
        assert stage.phone().ask("INVITE", "newtran", {"X-Fr": 300}).code == 408
        stage.no_transaction_is_left()
        stage.no_dialog_is_left()


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
@pytest.mark.parametrize("way", ["looks-reply", "looks-send-reply", "looks-sl"])
def test_the_script_s_own_reply_is_the_only_one(ours, way, method):
    """X-Fr is short: a transaction that was suspended all the same would be answered once more before it is gone."""
    phone = ours.phone()
    asked = phone.start(method, way, {"X-Fr": 300})
    assert phone.finish(asked).reason == "Nobody"
    ours.no_transaction_is_left()
    phone.turn()
    assert {answer.code for answer in asked.finals} == {480}


@pytest.mark.parametrize("method,code", [("INVITE", 404), ("MESSAGE", 404), ("MESSAGE", 200)])
def test_the_script_s_own_relay_is_all_that_happens(ours, method, code):
    callee, phone = ours.callee(code, "From the callee"), ours.phone()
    asked = phone.start(method, "looks-relay", {"X-Callee": callee.port, "X-Fr": 5000})
    assert phone.finish(asked).reason == "From the callee"
    ours.no_transaction_is_left()
    phone.turn()
    assert {answer.code for answer in asked.finals} == {code}


@pytest.mark.parametrize("way", ["relay-fails", "send-fails"])
def test_a_relay_that_fails_is_answered_by_tm_at_once(ours, way):
    assert 400 <= ours.phone().ask("INVITE", way).code < 700


def test_a_relay_that_fails_and_is_not_answered_by_tm_ends_by_the_timer(ours):
    assert ours.phone().ask("INVITE", "relay-fails-silently", {"X-Fr": 300}).code == 408


def test_what_another_module_suspends_after_the_call_is_its_own(ours):
    callee = ours.callee(404, "From the callee")
    assert ours.phone().ask("INVITE", "other-module", {"X-Callee": callee.port}).reason == "From the callee"


@pytest.mark.parametrize("route,answered", [(None, (408, "Request Timeout")), ("armed", (480, "Late"))])
def test_a_resumed_script_that_asks_once_more_in_vain_ends_by_the_timer(ours, route, answered):
    client, phone = ours.connect(), ours.phone()
    until(lambda: ours.evapid.client(client)["tag"] == "app", "the application has its tag")
    headers = {"X-Fr": 300} | ({"X-Route": route} if route else {})
    call = phone.start("INVITE", "resumed", headers)
    client.send(client.receive())
    answer = phone.finish(call)
    assert (answer.code, answer.reason) == answered


def test_after_a_failure_route_that_asks_in_vain_the_callee_s_answer_is_handed_on(ours):
    callee = ours.callee(486, "From the callee")
    assert ours.phone().ask("INVITE", "asked-after-failure", {"X-Callee": callee.port}).reason == "From the callee"
