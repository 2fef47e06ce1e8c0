"""Who may connect: networks, limits and time at the listeners; mode, group and users at the Unix sockets."""

import json
import os
import re
import time

import pytest

import wire
from access import NOBODY, ask_as, is_taken, listener_of, refusals_of
from client import Client
from evapid import run_evapid
from process import until

ROUTES = """
route[TEST] {
    if ($rU == "go") $shv(go) = 1;
    evapi_relay("$rb");
    sl_send_reply("200", "OK");
}
event_route[evapi:connection-new] { evapi_set_tag("c$evapi(conidx)"); }
event_route[evapi:connection-closed] { xlog("L_NOTICE", "CLOSED $evapi(conidx)\\n"); }
event_route[evapi:message-received] { evapi_unicast("$evapi(msg)", "c$evapi(conidx)"); }
"""


def waiting(event):
    """The routes, of which that of the event waits until somebody has asked for sip:go@."""
    head = f"event_route[evapi:{event}] {{"
    return ROUTES.replace(head, head + ' while ($shv(go) != 1) usleep("10000");')


# ---- networks


@pytest.mark.parametrize("access, taken, refused", [
    ({}, ["127.0.0.1", "127.9.9.9"], []),
    ({"allow": ["127.0.0.1", "127.1.0.0/16"]}, ["127.0.0.1", "127.1.2.3"], ["127.0.0.2", "127.2.0.1"]),
    ({"deny": ["127.0.0.2", "127.1.0.0/16"]}, ["127.0.0.1", "127.2.0.1"], ["127.0.0.2", "127.1.2.3"]),
    ({"allow": ["127.0.0.0/8"], "deny": ["127.0.0.0/31"]}, ["127.0.0.2"], ["127.0.0.1"]),
    ({"allow": ["127.0.0.1"], "deny": ["0.0.0.0/0"]}, [], ["127.0.0.1"]),
    ({"allow": ["::/0"]}, [], ["127.0.0.1"]),
], ids=["no lists", "allow", "deny", "deny of what is allowed", "deny of all", "allow of IPv6"])
def test_networks_say_who_may_connect(stage, access, taken, refused):
    address = stage.new_address()
    stage.start_evapid(listeners=[{"address": address, "access": access}])
    assert [source for source in taken if not is_taken(stage, address, source)] == []
    assert [source for source in refused if is_taken(stage, address, source)] == []
    assert refusals_of(stage, address) == ({"denied": len(refused)} if refused else {})
    assert len(stage.evapid.lines(r"warning listener .*refused 127\.\d+\.\d+\.\d+ port \d+: .*\(access\)")) == len(refused)


@pytest.mark.parametrize("access, taken", [
    ({}, True), ({"allow": ["::1"]}, True), ({"allow": ["2001:db8::/32", "127.0.0.1"]}, False), ({"deny": ["::/0"]}, False),
    ({"deny": ["0.0.0.0/0"]}, True), ({"deny": ["::1"], "allow": ["::1"]}, False)])
def test_networks_of_ipv6_say_who_may_connect(stage, access, taken):
    address = stage.new_address("::1")
    stage.start_evapid(listeners=[{"address": address, "access": access}])
    assert is_taken(stage, address) == taken
    assert refusals_of(stage, address) == ({} if taken else {"denied": 1})


def test_access_holds_for_the_module_s_listener_and_a_listener_s_own_keys_go_before(stage):
    own, other = stage.new_address(), stage.new_address()
    stage.start_evapid(access={"deny": ["127.0.0.2"]},
                       listeners=[{"address": own, "access": {"deny": ["127.0.0.3"]}}, {"address": other}])
    stage.start_kamailio(ROUTES)
    assert [is_taken(stage, stage.address, source) for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3")] == [
        True, False, True]
    assert [is_taken(stage, other, source) for source in ("127.0.0.1", "127.0.0.2")] == [True, False]
    assert [is_taken(stage, own, source) for source in ("127.0.0.2", "127.0.0.3")] == [True, False]
    assert stage.evapid.status()["totals"]["clients"]["refused"] == 3
    client = stage.connect()
    client.send(b"hello")
    assert client.receive() == b"hello"


def test_a_flood_of_refusals_writes_few_lines_and_hides_none_of_another_kind(stage):
    address = stage.new_address()
    stage.start_evapid(listeners=[{"address": address, "max_clients": 1, "access": {"deny": ["127.0.0.2"]}}])
    stage.evapid.listening(address)
    for _ in range(200):
        Client(address, source="127.0.0.2").close()
    stage.evapid.until_status(lambda s: s["listeners"][0]["refused"] == 200, "200 were refused")
    assert is_taken(stage, address) and not is_taken(stage, address)
    assert refusals_of(stage, address) == {"denied": 200, "full": 1}
    stage.evapid.logged(r"refused 127\.0\.0\.1 port \d+: 1 places are taken \(max_clients\), 0 of them by clients that have gone")
    stage.evapid.terminate()
    shown = len(stage.evapid.lines(r"refused 127\.0\.0\.2"))
    withheld = [int(re.search(r"(\d+) more", line).group(1)) for line in stage.evapid.lines(r"refused.* \d+ more")]
    assert shown < 50 and shown + sum(withheld) == 200


# ---- limits


def test_an_address_has_so_many_clients_and_no_other_pays_for_it(stage):
    address, second = stage.new_address(), stage.new_address()
    stage.start_evapid(access={"max_clients_per_address": 2}, listeners=[{"address": address}, {"address": second}])
    assert [is_taken(stage, address, "127.0.0.1") for _ in range(4)] == [True, True, False, False]
    assert [is_taken(stage, address, "127.0.0.2") for _ in range(3)] == [True, True, False]
    assert is_taken(stage, second, "127.0.0.1"), "each listener counts its own"
    assert refusals_of(stage, address) == {"address": 3}
    stage.evapid.logged(r"refused 127\.0\.0\.1 port \d+: its address has 2 places already \(max_clients_per_address\)", 2)
    stage.hang_up()
    assert [is_taken(stage, address, "127.0.0.1") for _ in range(3)] == [True, True, False]


def test_an_ipv6_address_has_so_many_clients(stage):
    address = stage.new_address("::1")
    stage.start_evapid(listeners=[{"address": address, "access": {"max_clients_per_address": 1}}])
    assert [is_taken(stage, address) for _ in range(2)] == [True, False]
    stage.hang_up()
    assert is_taken(stage, address)


@pytest.mark.parametrize("limit", ["max_clients", "max_clients_per_address"])
def test_who_has_left_has_its_place_until_connection_closed_has_run(stage, limit):
    """Or else whoever comes and goes while it runs could have any number of seats, and what is kept of each."""
    own = {"max_clients": 1} if limit == "max_clients" else {"access": {limit: 1}}
    address = stage.new_address()
    stage.start_evapid(listeners=[{"address": address, **own}])
    stage.start_kamailio(waiting("connection-closed"))
    client = stage.connect(address)
    client.close()
    stage.evapid.client(client, "gone")
    assert not is_taken(stage, address)
    assert listener_of(stage, address)["clients"] == 1
    stage.replace_evapid()
    stage.evapid.client(client, "gone")
    assert not is_taken(stage, address), "a successor counts it too"
    stage.phone().ask("MESSAGE", "go")
    stage.kamailio.logged(r"CLOSED 1$")
    stage.evapid.until_status(lambda s: s["clients"] == [], "its seat is free")
    assert is_taken(stage, address)


def test_seats_of_clients_that_were_not_let_in_are_bounded_by_max_clients_while_connection_new_hangs(stage):
    """The route of a client that has been closed for that still runs, or is about to: its seat waits for it."""
    address = stage.new_address()
    stage.start_evapid(listeners=[{"address": address, "max_clients": 20}], access={"admission_timeout_ms": 1000})
    stage.start_kamailio(waiting("connection-new"))
    for _ in range(20):
        assert is_taken(stage, address)
    stage.evapid.until_status(lambda s: all(e["state"] == "gone" for e in s["clients"]), "all of them are closed")
    assert [is_taken(stage, address) for _ in range(20)] == [False] * 20
    status = stage.evapid.status()
    assert len(status["clients"]) == 20
    assert refusals_of(stage, address) == {"admission": 20, "full": 20}
    stage.evapid.logged(r"20 places are taken \(max_clients\), 20 of them by clients that have gone and whose routes have not ended")
    stage.phone().ask("MESSAGE", "go")
    stage.evapid.until_status(lambda s: s["clients"] == [], "all seats are free")
    stage.evapid.reload(access={"admission_timeout_ms": 60000})
    client = stage.connect(address)
    client.send(b"back")
    assert client.receive() == b"back"


def test_so_many_connect_in_a_second(stage):
    address = stage.new_address()
    stage.start_evapid(listeners=[{"address": address, "access": {"max_connects_per_second": 5}}])
    stage.evapid.listening(address)
    began = time.monotonic()
    clients = [Client(address) for _ in range(50)]
    seen = stage.evapid.until_status(
        lambda s: s["listeners"][0]["accepted"] + s["listeners"][0]["refused"] == 50, "all 50 have been looked at")
    took_s = time.monotonic() - began
    accepted = seen["listeners"][0]["accepted"]
    assert 5 <= accepted <= 5 + 5 * took_s + 1
    assert refusals_of(stage, address) == {"rate": 50 - accepted}
    stage.evapid.logged(r"refused 127\.0\.0\.1 port \d+: .*\(max_connects_per_second\)")
    until(lambda: is_taken(stage, address), "after a while, one more may connect")
    for client in clients:
        client.close()


def test_who_is_refused_for_another_reason_takes_nothing_from_the_pace(stage):
    address = stage.new_address()
    stage.start_evapid(listeners=[{"address": address, "access": {
        "max_connects_per_second": 1, "deny": ["127.0.0.2"], "max_clients_per_address": 1}}])
    assert is_taken(stage, address, "127.0.0.1")
    until(lambda: is_taken(stage, address, "127.0.0.3"), "after a while, one more may connect")
    for _ in range(20):
        assert not is_taken(stage, address, "127.0.0.2")
        assert not is_taken(stage, address, "127.0.0.1")
    refused = refusals_of(stage, address)
    assert (refused["denied"], refused["address"]) == (20, 20)


# ---- the time until a client is let in


def looked_around(stage):
    """evapid looks once a second who has waited for too long: it has done so several times when this is over, for it gives a
    connection without a HELLO 5 seconds, and looks for those behind."""
    silent = wire.Link(stage.evapid.kamailio_socket)
    assert "5 seconds" in silent.refused()[1]
    silent.close()


def test_a_client_that_no_route_lets_in_is_closed(stage):
    address, patient = stage.new_address(), stage.new_address()
    stage.start_evapid(access={"admission_timeout_ms": 50}, listeners=[
        {"address": address}, {"address": patient, "access": {"admission_timeout_ms": 0}}])
    stage.start_kamailio(waiting("connection-new"))
    unhurried = stage.connect(patient, admitted=False)
    client = stage.connect(address, admitted=False)
    client.send(b"nobody reads this")
    assert client.receive_rest() == []
    stage.evapid.logged(rf"warning listener {address}: closing 127\.0\.0\.1 port {client.port}: .*50 ms \(admission_timeout_ms\)")
    assert refusals_of(stage, address) == {"admission": 1}
    assert listener_of(stage, address)["accepted"] == 1
    assert stage.evapid.client(unhurried, "admitting"), "at this listener there is no limit"
    assert refusals_of(stage, patient) == {}
    stage.phone().ask("MESSAGE", "go")
    stage.evapid.client(unhurried)
    until(lambda: listener_of(stage, address)["clients"] == 0, "its place is free, for its routes have run")


@pytest.mark.parametrize("start", ["with evapid alone", "when Kamailio has gone"])
def test_a_client_waits_for_kamailio_as_long_as_none_is_there(stage, start):
    address = stage.new_address()
    stage.start_evapid(listeners=[{"address": address, "max_clients": 1}])
    if start == "when Kamailio has gone":
        stage.start_kamailio(waiting("connection-new"))
        client = stage.connect(address, admitted=False)
        stage.evapid.client(client, "admitting")
        stage.kamailio.kill()
        stage.evapid.detached()
    else:
        client = stage.connect(address, admitted=False)
    stage.evapid.reload(access={"admission_timeout_ms": 50})
    looked_around(stage)
    assert stage.evapid.client(client, "admitting")
    assert stage.connect(address, admitted=False).receive_rest() == [], "who waits counts for max_clients"
    assert refusals_of(stage, address) == {"full": 1}
    stage.evapid.reload(access={"admission_timeout_ms": 600000})
    stage.start_kamailio(ROUTES)
    stage.evapid.client(client)
    client.send(b"let in")
    assert client.receive() == b"let in"


def restarted(stage):
    stage.evapid.restart()


def killed(stage):
    stage.evapid.kill_and_restart()


@pytest.mark.parametrize("again", [restarted, killed])
def test_a_client_waits_for_kamailio_through_evapid_s_restart(stage, again):
    address = stage.new_address()
    stage.start_supervised(access={"admission_timeout_ms": 50}, listeners=[{"address": address}])
    client = stage.connect(address, admitted=False)
    stage.evapid.client(client, "admitting")
    again(stage)
    looked_around(stage)
    assert stage.evapid.client(client, "admitting")
    stage.start_kamailio(waiting("connection-new"))
    assert client.receive_rest() == [], "its time began when Kamailio came"
    assert refusals_of(stage, address) == {"admission": 1}


def test_a_client_whose_route_takes_too_long_is_closed_and_gets_nothing(stage):
    stage.start_evapid(access={"admission_timeout_ms": 50})
    stage.start_kamailio(waiting("connection-new"))
    client = stage.connect(admitted=False)
    stage.phone().ask("MESSAGE", body=b"event")
    assert client.receive_rest() == []
    assert refusals_of(stage, stage.address) == {"admission": 1}
    assert not stage.kamailio.lines(r"CLOSED")
    stage.phone().ask("MESSAGE", "go")
    stage.kamailio.logged(r"CLOSED 1$")
    stage.evapid.until_status(lambda s: s["clients"] == [], "nothing is left of it")


def test_a_client_that_has_been_let_in_waits_for_a_kamailio_that_restarts(stage):
    stage.start_evapid(attach_hold_ms=600000)
    stage.start_kamailio(ROUTES)
    client = stage.connect()
    stage.evapid.reload(access={"admission_timeout_ms": 50})
    stage.kamailio.terminate()
    stage.evapid.detached()
    stranger = stage.connect(admitted=False)
    stage.evapid.client(stranger, "admitting")
    stage.start_kamailio(waiting("connection-new"))
    assert stranger.receive_rest() == [], "it has not been let in in time"
    stage.evapid.client(client, "admitting")
    late = stage.connect(admitted=False)
    assert late.receive_rest() == [], "by now, evapid has looked who waits for too long"
    stage.evapid.client(client, "admitting")
    stage.phone().ask("MESSAGE", "go", body=b"event")
    client.send(b"still here")
    assert client.receive_many(2) == [b"event", b"still here"]
    assert refusals_of(stage, stage.address) == {"admission": 2}


# ---- listeners that the internet may reach


EXPOSED = "reachable from public networks and no allow is set: whoever can reach it gets every event"


def test_a_public_listener_without_allow_starts_with_a_warning(stage, alone):
    stage.start_evapid(before=alone, listeners=[
        {"address": "0.0.0.0:18448"}, {"address": "[::]:18449", "access": {"allow": ["2001:db8::/32"]}},
        {"address": "[::]:18450"}])
    assert len(stage.evapid.lines(EXPOSED)) == 2
    for address in ("0.0.0.0:18448", "[::]:18450"):
        assert stage.evapid.lines(rf"Z warning listener {re.escape(address)}: {EXPOSED}$")


def test_a_private_listener_starts_without_a_warning(stage):
    stage.start_evapid(listeners=[{"address": stage.new_address()}, {"address": stage.new_address("::1")}])
    stage.start_kamailio(ROUTES)
    assert not stage.evapid.lines("reachable from public") and not stage.kamailio.lines("reachable from public")


@pytest.mark.parametrize("access, warned", [({}, True), ({"allow": ["192.0.2.0/24"]}, False)])
def test_the_module_s_public_listener_is_warned_of_in_both_logs_at_each_start(stage, alone, access, warned):
    stage.address = "0.0.0.0:18448"
    stage.start_evapid(before=alone, access=access)
    for _ in range(2):
        stage.start_kamailio(ROUTES)
        stage.evapid.listening(stage.address)
        if warned:
            stage.kamailio.logged(rf"listener 0\.0\.0\.0:18448: {EXPOSED}")
        stage.kamailio.terminate()
        stage.evapid.detached()
        assert len(stage.kamailio.lines(EXPOSED)) == warned
    assert len(stage.evapid.lines(rf"Z warning kamailio: listener 0\.0\.0\.0:18448: {EXPOSED}")) == 2 * warned


# ---- the Unix sockets


def test_the_sockets_are_for_evapid_s_group_by_default(house):
    house.start_evapid()
    for path in (house.evapid.kamailio_socket, house.evapid.control_socket):
        there = path.stat()
        assert (there.st_mode & 0o7777, there.st_uid, there.st_gid) == (0o660, os.geteuid(), os.getegid())
    assert ask_as(NOBODY.pw_uid, house.evapid.control_socket) == "no permission"
    sockets = house.evapid.status()["sockets"]
    assert sockets["control"] == {"path": str(house.evapid.control_socket), "mode": "0660", "refused": 0}


def test_mode_and_group_of_each_socket_are_as_configured(house):
    house.start_evapid(kamailio_access={"mode": "0600", "group": NOBODY.pw_gid}, control_access={"mode": "0666", "group": "root"})
    kamailio, control = house.evapid.kamailio_socket.stat(), house.evapid.control_socket.stat()
    assert (kamailio.st_mode & 0o7777, kamailio.st_gid) == (0o600, NOBODY.pw_gid)
    assert (control.st_mode & 0o7777, control.st_gid) == (0o666, 0)
    assert [house.evapid.status()["sockets"][each]["mode"] for each in ("kamailio", "control")] == ["0600", "0666"]


def test_whoever_can_open_the_file_may_come_in_when_there_is_no_list(house):
    house.start_evapid(control_access={"mode": "0660", "group": NOBODY.pw_gid})
    assert json.loads(ask_as(NOBODY.pw_uid, house.evapid.control_socket))["pid"] == house.evapid.pid


def test_a_user_who_is_not_in_the_list_is_refused_with_its_name(house):
    house.start_evapid(control_access={"mode": "0666", "users": [54321]}, kamailio_access={"mode": "0666", "users": []})
    assert ask_as(NOBODY.pw_uid, house.evapid.control_socket) == ""
    assert ask_as(NOBODY.pw_uid, house.evapid.kamailio_socket) == ""
    assert ask_as(54321, house.evapid.kamailio_socket) == ""
    assert json.loads(ask_as(54321, house.evapid.control_socket))["pid"] == house.evapid.pid
    sockets = house.evapid.status()["sockets"]
    assert (sockets["control"]["refused"], sockets["kamailio"]["refused"]) == (1, 2)
    for path, user in ((house.evapid.control_socket, rf"{NOBODY.pw_uid} \(nobody\)"),
                       (house.evapid.kamailio_socket, rf"{NOBODY.pw_uid} \(nobody\)"),
                       (house.evapid.kamailio_socket, r"54321 \(unknown\)")):
        assert len(house.evapid.lines(rf"warning {path}: refused pid \d+ of user {user}: it is not among users")) == 1


def test_a_user_in_the_list_and_root_and_evapid_s_own_may_come_in(house):
    house.start_evapid(control_access={"mode": "0666", "users": ["nobody"]}, kamailio_access={"users": []})
    assert json.loads(ask_as(NOBODY.pw_uid, house.evapid.control_socket))["pid"] == house.evapid.pid
    assert house.evapid.ctl("status").returncode == 0
    house.start_kamailio(ROUTES)
    client = house.connect()
    client.send(b"hello")
    assert client.receive() == b"hello"
    assert house.evapid.status()["sockets"]["kamailio"]["refused"] == 0


def test_a_flood_of_refused_users_writes_few_lines_and_a_count(house):
    house.start_evapid(kamailio_access={"mode": "0666", "users": []})
    links = []
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(NOBODY.pw_uid)
            for _ in range(200):
                links.append(wire.Link(house.evapid.kamailio_socket))
                assert links[-1].read() == b""
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert house.evapid.status()["sockets"]["kamailio"]["refused"] == 200
    house.evapid.terminate()
    shown = len(house.evapid.lines(r"refused pid"))
    withheld = [int(re.search(r"(\d+) more", line).group(1)) for line in house.evapid.lines(r"users refused.* \d+ more")]
    assert shown < 50 and shown + sum(withheld) == 200


@pytest.mark.parametrize("key, value", [("users", ["no such user"]), ("group", "no such group"), ("mode", "rw")])
def test_an_access_that_cannot_be_meant_ends_the_start(tmp_path, key, value):
    path = tmp_path / "evapid.json"
    path.write_text(json.dumps({"kamailio_socket": str(tmp_path / "k.sock"), "control_socket": str(tmp_path / "c.sock"),
                                "control_access": {key: value}}))
    ran = run_evapid("-c", path)
    assert ran.returncode == 1 and re.fullmatch(rf"{path}:1:\d+: control_access\.{key}[^ ]*: .+\n", ran.stderr), ran.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["evapid.json"]


def test_a_client_that_has_gone_is_counted_once_though_evapid_is_killed_before_its_seat_is_free(stage):
    address = stage.new_address()
    stage.start_supervised(listeners=[{"address": address, "max_clients": 20}], access={"admission_timeout_ms": 1000})
    stage.start_kamailio(waiting("connection-new"))
    for _ in range(20):
        assert is_taken(stage, address)
    stage.evapid.until_status(lambda s: all(e["state"] == "gone" for e in s["clients"]), "all of them are closed")
    stage.evapid.kill_and_restart()
    clients = stage.evapid.status()["totals"]["clients"]
    assert (clients["accepted"], clients["closed"]) == (20, 20)
    stage.phone().ask("MESSAGE", "go")
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.reload(access={"admission_timeout_ms": 60000})
    client = stage.connect(address)
    client.send(b"back")
    assert client.receive() == b"back"
