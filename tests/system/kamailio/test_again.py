"""Clients that a Kamailio before this one has let in: they stay and are told apart ($evapi(again)), or they go with their
Kamailio (keep_clients 0). With the login of docs/migration.md, which lives in a hash table of the script."""

import re

import pytest

import commands
import wire
from worker import Worker

ROUTES = """
route[TEST] {
    if ($rU == "go") $shv(go) = 1;
    evapi_relay("$rb");
    if ($rU == "end") sl_send_reply("202", "Accepted"); else sl_send_reply("200", "OK");
}
event_route[evapi:connection-new] {
    xlog("L_NOTICE", "NEW $evapi(conidx) again $evapi(again) tag $evapi(tag);\\n");
    WAIT
}
event_route[evapi:message-received] {
    xlog("L_NOTICE", "GOT $evapi(conidx) $evapi(msg) again $evapi(again);\\n");
    if ($evapi(msg) == "tag") evapi_set_tag("blue");
    if ($evapi(msg) == "slow") while (1) usleep("10000");
    evapi_relay("heard $evapi(msg)");
}
event_route[evapi:connection-closed] { xlog("L_NOTICE", "CLOSED $evapi(conidx) again $evapi(again);\\n"); }
"""
PROMPT = ROUTES.replace("WAIT", "")
WAITING = ROUTES.replace("WAIT", 'while ($shv(go) != 1) usleep("10000");')


def begin(stage, keep_clients=1, routes=PROMPT, **settings):
    stage.start_evapid(**settings)
    stage.start_kamailio(routes, evapi={"keep_clients": keep_clients})


def supervised(stage, keep_clients=1):
    """Under a service manager, which keeps clients when evapid is killed."""
    stage.start_supervised()
    stage.start_kamailio(PROMPT, evapi={"keep_clients": keep_clients})


def announced(kamailio, client):
    """What connection-new saw of the client in this Kamailio, each time that it ran."""
    return re.findall(rf"NEW {client.index} again (\S+) tag (\S+);", kamailio.text())


def away(stage):
    stage.kamailio.terminate()
    stage.evapid.detached()


# ---- $evapi(again)


def test_a_client_that_stays_is_announced_again_and_a_new_one_is_not(stage):
    begin(stage)
    client = stage.connect()
    assert announced(stage.kamailio, client) == [("0", "<null>")]
    client.send(b"tag")
    assert client.receive() == b"heard tag"
    away(stage)
    late = stage.connect(admitted=False)
    late.index = stage.evapid.client(late, "admitting")["index"]
    stage.restart_kamailio()
    stage.evapid.clients(2)
    assert announced(stage.kamailio, client) == [("1", "blue")]
    assert announced(stage.kamailio, late) == [("0", "<null>")], "no Kamailio had let it in"
    away(stage)
    stage.restart_kamailio()
    stage.evapid.clients(2)
    assert announced(stage.kamailio, late) == [("1", "<null>")]


def test_again_is_null_in_any_other_route(stage):
    begin(stage)
    client = stage.connect()
    away(stage)
    stage.restart_kamailio()
    stage.evapid.client(client)
    client.send(b"word")
    assert client.receive() == b"heard word"
    client.close()
    stage.kamailio.logged(rf"CLOSED {client.index} again <null>;")
    stage.kamailio.logged(rf"GOT {client.index} word again <null>;")


@pytest.mark.parametrize("let_in", [False, True], ids=["new", "again"])
def test_a_kamailio_that_dies_in_connection_new_has_let_nobody_in(stage, let_in):
    """A client that was new is so for the next Kamailio, and one that an earlier one had let in is not."""
    begin(stage, routes=PROMPT if let_in else WAITING)
    client = stage.connect(admitted=let_in)
    client.index = stage.evapid.client(client, "open" if let_in else "admitting")["index"]
    if let_in:
        away(stage)
        stage.start_kamailio(WAITING)
    stage.kamailio.logged(rf"NEW {client.index} ")
    stage.kamailio.kill()
    stage.evapid.detached()
    stage.start_kamailio(PROMPT)
    stage.evapid.client(client)
    assert announced(stage.kamailio, client) == [("1" if let_in else "0", "<null>")]


def restart(stage):
    stage.evapid.restart()


def kill(stage):
    stage.evapid.kill_and_restart()


@pytest.mark.parametrize("end", [restart, kill])
def test_evapid_s_restart_while_kamailio_is_away_forgets_nothing(stage, end):
    supervised(stage)
    client = stage.connect()
    away(stage)
    late = stage.connect(admitted=False)
    late.index = stage.evapid.client(late, "admitting")["index"]
    end(stage)
    stage.restart_kamailio()
    stage.evapid.clients(2)
    assert announced(stage.kamailio, client) == [("1", "<null>")]
    assert announced(stage.kamailio, late) == [("0", "<null>")]


def test_a_successor_knows_whom_a_kamailio_had_let_in(stage):
    begin(stage)
    client = stage.connect()
    away(stage)
    stage.replace_evapid()
    stage.restart_kamailio()
    stage.evapid.client(client)
    assert announced(stage.kamailio, client) == [("1", "<null>")]


def test_an_evapid_that_was_killed_announces_to_the_same_kamailio_again(stage):
    supervised(stage)
    client = stage.connect()
    kill(stage)
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.client(client)
    assert announced(stage.kamailio, client) == [("0", "<null>"), ("1", "<null>")]


def test_the_frame_says_whether_the_client_was_let_in_before(stage):
    stage.start_evapid()
    seen = []
    for instance in (1, 2):
        worker = Worker(stage, instance=instance, bind_addr=stage.address.encode()).welcomed()
        if instance == 1:
            client = stage.connect(admitted=False)
        kind, body = worker.link.frame()
        while kind == wire.NOTICE:
            kind, body = worker.link.frame()
        assert kind == wire.NEW
        seen.append(wire.again(body))
        worker.done(1)
        stage.evapid.client(client)
        worker.close()
        stage.evapid.detached()
    assert seen == [False, True]


# ---- keep_clients 0


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_clients_go_with_their_kamailio_when_what_is_queued_has_been_sent(stage, end):
    other = stage.new_address()
    begin(stage, keep_clients=0, listeners=[{"address": other}])
    clients = [stage.connect(), stage.connect(other)]
    phone = stage.phone()
    stage.evapid.stopped()
    for number in range(50):
        assert phone.ask("MESSAGE", body=b"%d" % number).code == 200
    getattr(stage.kamailio, end)()
    stage.evapid.goes_on()
    for client in clients:
        assert client.receive_rest() == [b"%d" % number for number in range(50)]
    status = stage.evapid.until_status(lambda s: s["clients"] == [], "nothing is left of them")
    assert status["totals"]["out"]["delivered"] == 100
    stage.evapid.logged(r"notice kamailio: closing 2 clients: their Kamailio has gone \(keep_clients 0\)")
    stage.restart_kamailio()
    late = stage.connect()
    assert announced(stage.kamailio, late) == [("0", "<null>")]
    assert not stage.kamailio.lines(r"CLOSED|again 1"), "the next Kamailio never hears of them"


def test_messages_that_no_route_began_with_go_with_the_client_and_are_counted(stage):
    begin(stage, keep_clients=0)
    client = stage.connect()
    client.send(b"slow")
    stage.kamailio.logged("GOT .* slow")
    for number in range(10):
        client.send(b"%d" % number)
    client.wait_read()
    stage.kamailio.kill()
    assert client.receive_rest() == []
    into = stage.evapid.until_status(lambda s: s["clients"] == [], "nothing is left of it")["totals"]["in"]
    assert (into["frames"], into["delivered"], into["waiting"], into["dropped"]["closed"]) == (11, 1, 0, 10)
    stage.restart_kamailio()
    stage.connect()
    assert not stage.kamailio.lines("GOT")


def test_a_client_that_comes_while_no_kamailio_is_there_waits_for_the_next(stage):
    begin(stage, keep_clients=0)
    client = stage.connect()
    away(stage)
    assert client.receive_rest() == []
    late = stage.connect(admitted=False)
    stage.evapid.client(late, "admitting")
    stage.restart_kamailio()
    stage.evapid.client(late)
    late.send(b"word")
    assert late.receive() == b"heard word"


def test_what_holds_is_what_the_kamailio_that_goes_has_said(stage):
    begin(stage, keep_clients=0)
    client = stage.connect()
    away(stage)
    assert client.receive_rest() == []
    stage.start_kamailio(PROMPT, evapi={"keep_clients": 1})
    client = stage.connect()
    away(stage)
    stage.start_kamailio(PROMPT, evapi={"keep_clients": 0})
    stage.evapid.client(client)
    assert announced(stage.kamailio, client) == [("1", "<null>")]
    away(stage)
    assert client.receive_rest() == []


@pytest.mark.parametrize("end", ["restart", "replace", "kill"])
def test_evapid_s_own_restart_closes_nobody(stage, end):
    supervised(stage, keep_clients=0) if end != "replace" else begin(stage, keep_clients=0)
    client = stage.connect()
    if end == "replace":
        stage.replace_evapid()
    else:
        {"restart": restart, "kill": kill}[end](stage)
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.client(client)
    client.send(b"still here")
    assert client.receive() == b"heard still here"
    away(stage)
    assert client.receive_rest() == []


@pytest.mark.parametrize("comes", [True, False], ids=["another comes", "nobody comes"])
def test_a_kamailio_that_goes_while_evapid_is_down_takes_its_clients_along(stage, comes):
    """evapid, killed, can't see that Kamailio goes: it knows it by the next one that comes, or when none does for a while."""
    supervised(stage, keep_clients=0)
    client = stage.connect()
    stage.evapid.kill()
    stage.kamailio.kill()
    if comes:
        stage.restart_kamailio(attach=False)
    stage.evapid.start_again()
    assert client.receive_rest() == []
    stage.evapid.until_status(lambda s: s["clients"] == [], "nothing is left of it")
    if comes:
        stage.evapid.attached(stage.kamailio.pid)
        assert not stage.kamailio.lines(r"NEW|CLOSED")


def test_clients_that_are_being_closed_when_evapid_is_killed_are_closed_all_the_same(stage):
    supervised(stage, keep_clients=0)
    client = stage.connect()
    away(stage)
    stage.evapid.kill_and_restart()
    assert client.receive_rest() == []


# ---- the login of docs/migration.md


HTABLE = {"modules": ("htable",), "params": {"htable": {"htable": "login=>size=8;"}}}
TEST = 'route[TEST] { sl_send_reply("200", "OK"); }'
LOGIN = TEST + commands.text_of("docs/migration.md", "a login")
# As it was written for EVAPI: a connection is new, and nobody has logged in on it.
FORGETFUL = re.sub(r"event_route\[evapi:connection-new\] \{.*?^\}", "", LOGIN, flags=re.S | re.M)


def log_in(stage, name):
    client = stage.connect()
    client.send(b"login %s secret" % name)
    assert client.receive() == b"welcome, %s" % name
    return client


def test_a_login_lives_on_in_the_tag_when_kamailio_restarts(stage):
    stage.start_evapid()
    stage.start_kamailio(LOGIN, **HTABLE)
    alice, stranger = log_in(stage, b"alice"), stage.connect()
    away(stage)
    stage.restart_kamailio()
    stage.evapid.clients(2)
    alice.send(b"who am I")
    assert alice.receive() == b"alice: who am I"
    stranger.send(b"who am I")
    assert stranger.receive_rest() == [], "it had not logged in"


def test_a_login_is_forgotten_by_a_script_that_does_not_look_for_it(stage):
    assert FORGETFUL != LOGIN
    stage.start_evapid()
    stage.start_kamailio(FORGETFUL, **HTABLE)
    alice = log_in(stage, b"alice")
    away(stage)
    stage.restart_kamailio()
    stage.evapid.clients(1)
    alice.send(b"who am I")
    assert alice.receive_rest() == []


def test_an_application_logs_in_anew_when_its_connection_ends_with_kamailio(stage):
    """keep_clients 0: neither script nor application is changed."""
    stage.start_evapid()
    stage.start_kamailio(FORGETFUL, evapi={"keep_clients": 0}, **HTABLE)
    alice = log_in(stage, b"alice")
    away(stage)
    assert alice.receive_rest() == []
    stage.restart_kamailio()
    alice = log_in(stage, b"alice")
    alice.send(b"who am I")
    assert alice.receive() == b"alice: who am I"
