"""A running evapid takes over its changed configuration, by SIGHUP and by the control socket: all of it, or nothing."""

import grp
import os
import pwd
import re
import signal
import socket
import threading

import pytest

from access import NOBODY, is_taken, listener_of, refusals_of
from books import balanced
from client import Client, netstring, refused
from handover import ROUTES, begin, goes_on, replace, restart
from namespace import within
from privilege import only_root
from process import until
from script import ask, events_of

GROUPS = [NOBODY.pw_gid, os.getegid()]


def by_signal(stage, **settings):
    """SIGHUP, and wait for its end."""
    done = len(stage.evapid.lines("evapid: reloaded: "))
    stage.evapid.configure(**settings)
    stage.evapid.signal(signal.SIGHUP)
    stage.evapid.logged("evapid: reloaded: ", done + 1)


def by_request(stage, **settings):
    stage.evapid.reload(**settings)


both_ways = pytest.mark.parametrize("reload", [by_signal, by_request])


def relay_until(phone, probe, size=20000):
    """Relay to clients that don't read, until probe returns something true; returns that."""
    for _ in range(3000):
        if seen := probe():
            return seen
        assert ask(phone, "relay", b"x" * size) == 1
    raise AssertionError("3000 events have not been enough")


def standing(stage):
    """What of evapid a reload may not change when it fails."""
    status = stage.evapid.status()
    files = [os.stat(path) for path in (stage.evapid.kamailio_socket, stage.evapid.control_socket)]
    return {**{key: value for key, value in status.items() if key not in ("uptime_s", "kamailio")},
            "files": [(file.st_mode, file.st_gid, file.st_ino) for file in files],
            "descriptors": len(stage.evapid.descriptors())}


# ---- listeners


@both_ways
def test_listeners_come_and_go_and_clients_stay(stage, reload):
    first, second, third = stage.new_address(), stage.new_address(), stage.new_address()
    phone = begin(stage, replace, listeners=[{"address": first}, {"address": second}])
    clients = [stage.connect(address) for address in (first, second, stage.address)]
    reload(stage, listeners=[{"address": second, "max_clients": 1}, {"address": third, "framing": "netstring"}])
    stage.evapid.logged("reloaded: 1 listeners are new, 1 have gone, 0 clients may not stay")
    assert refused(first)
    assert not is_taken(stage, second), "it has the one client that it may have by now"
    clients.append(stage.connect(third))
    goes_on(stage, phone, clients)
    assert (listener_of(stage, first)["state"], listener_of(stage, first)["clients"]) == ("closed", 1)
    clients.pop(0).close()
    stage.evapid.until_status(lambda s: first not in [at["address"] for at in s["listeners"]], "it is forgotten")
    goes_on(stage, phone, clients, b"still")


def test_a_listener_that_has_gone_and_comes_back_counts_the_clients_that_stayed(stage):
    address = stage.new_address()
    begin(stage, replace, listeners=[{"address": address}])
    clients = [stage.connect(address) for _ in range(2)]
    for _ in range(2):
        stage.evapid.reload(listeners=[])
        stage.evapid.reload(listeners=[{"address": address, "max_clients": 2}])
    assert [at["clients"] for at in stage.evapid.status()["listeners"] if at["address"] == address] == [2]
    assert not is_taken(stage, address)
    clients[0].close()
    stage.evapid.until_status(lambda s: len(s["clients"]) == 1, "one has left")
    assert is_taken(stage, address)


def test_what_a_listener_has_refused_counts_on_when_it_has_gone(stage):
    address = stage.new_address()
    stage.start_evapid(listeners=[{"address": address, "access": {"deny": ["127.0.0.0/8"]}}])
    assert not is_taken(stage, address)
    stage.evapid.reload(listeners=[])
    stage.replace_evapid()
    status = stage.evapid.status()
    assert status["listeners"] == [] and status["totals"]["clients"]["refused"] == 1


@only_root("can enter a network namespace")
@pytest.mark.parametrize("before, after", [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_an_address_may_overlap_with_one_that_goes(stage, alone, before, after):
    stage.start_evapid(before=alone, listeners=[{"address": f"{before}:8448"}])
    stage.start_kamailio(ROUTES)

    def connect():
        client = within(stage.evapid.pid, lambda: Client("127.0.0.1:8448"))
        stage.connections.append(client)
        client.index = stage.evapid.client(client)["index"]
        return client
    old = connect()
    why = stage.evapid.reload_in_vain(listeners=[{"address": f"{before}:8448"}, {"address": f"{after}:8448"}])
    assert why == f"listener {after}:8448: address in use"
    assert stage.evapid.reload(listeners=[{"address": f"{after}:8448"}]) == {
        "listeners_added": 1, "listeners_removed": 1, "clients_closed": 0, "changed": ["listeners"]}
    new = connect()
    assert [stage.evapid.client(client)["listener"] for client in (old, new)] == [f"{before}:8448", f"{after}:8448"]
    goes_on(stage, stage.phone(), [old, new])

    def try_to_listen():
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((before, 8448))
                other.listen()
        return True
    assert within(stage.evapid.pid, try_to_listen), "the port is ours alone"


def test_the_framing_is_that_of_new_clients(stage):
    address = stage.new_address()
    phone = begin(stage, replace, listeners=[{"address": address}])
    old = stage.connect(address)
    stage.evapid.reload(listeners=[{"address": address, "framing": "raw"}])
    new = stage.connect(address)
    assert ask(phone, "relay", b"hello") == 1
    assert old.receive() == b"hello" and new.receive_bytes(5) == b"hello"
    old.send(b"netstring")
    new.send_bytes(b"raw")
    stage.kamailio.logged(rf"GOT {old.index} netstring;")
    stage.kamailio.logged(rf"GOT {new.index} raw;")


def test_the_module_s_listener_is_closed_and_opened_again_and_goes_from_one_configuration_to_the_other(stage):
    phone = begin(stage, replace, evapi={"max_clients": 3})
    client = stage.connect()
    assert stage.evapid.reload(module_listener=False)["listeners_removed"] == 1
    assert refused(stage.address)
    assert stage.evapid.reload(module_listener=True)["listeners_added"] == 1
    assert (listener_of(stage, stage.address)["source"], listener_of(stage, stage.address)["max_clients"]) == ("module", 3)
    assert stage.evapid.reload(listeners=[{"address": stage.address, "max_clients": 7}]) == {
        "listeners_added": 0, "listeners_removed": 0, "clients_closed": 0, "changed": ["listeners"]}
    assert (listener_of(stage, stage.address)["source"], listener_of(stage, stage.address)["max_clients"]) == ("config", 7)
    stage.evapid.reload(listeners=[], limits={"unicast_mode": "round-robin"})
    shown = listener_of(stage, stage.address)
    assert (shown["source"], shown["max_clients"], shown["unicast_mode"], shown["clients"]) == ("module", 3, "round-robin", 1)
    goes_on(stage, phone, [client, stage.connect()])


def test_the_module_s_framing_stays(stage):
    begin(stage, replace, evapi={"netstring_format": 0})
    stage.evapid.listening(stage.address)
    assert listener_of(stage, stage.address)["framing"] == "raw"
    stage.evapid.reload(limits={"linger_ms": 1})
    assert listener_of(stage, stage.address)["framing"] == "raw"
    client = stage.connect()
    client.send_bytes(b"raw")
    stage.kamailio.logged(rf"GOT {client.index} raw;")


def test_a_declaration_that_was_not_allowed_is_opened_once_it_is(stage):
    stage.start_evapid(module_listener=False)
    stage.start_kamailio(ROUTES)
    stage.kamailio.logged("module_listener false")
    assert refused(stage.address)
    assert stage.evapid.reload(module_listener=True)["listeners_added"] == 1
    goes_on(stage, stage.phone(), [stage.connect()])


def test_an_address_of_the_module_s_that_can_not_be_had_is_still_tried_again(stage):
    with socket.socket() as holder:
        host, port = stage.address.split(":")
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, int(port)))
        holder.listen()
        begin(stage, replace)
        assert listener_of(stage, stage.address)["state"] == "failed"
        why = stage.evapid.reload_in_vain(listeners=[{"address": stage.address}])
        assert why == f"listener {stage.address}: address in use"
        stage.evapid.reload(limits={"linger_ms": 1})
        assert listener_of(stage, stage.address)["state"] == "failed"
    stage.evapid.listening(stage.address)


# ---- limits


def test_a_queue_s_limit_and_policy_are_those_that_hold_now(stage):
    """A client that does not read: first nothing is dropped, then the oldest events, and last it is disconnected."""
    phone = begin(stage, replace, limits={"max_queued_bytes": 1 << 26})
    slow, quick = stage.connect(receive_buffer=4096), stage.connect()
    relayed = 0

    def relay_until(probe):
        nonlocal relayed
        entry = None
        while entry is None or not probe(entry):
            assert relayed < 5000
            relayed += 1
            assert ask(phone, "relay", b"%d:" % relayed + b"x" * 20000) == 1
            assert quick.receive().startswith(b"%d:" % relayed)
            entry = next(e for e in stage.evapid.status()["clients"] if e["index"] == slow.index)
        return entry
    entry = relay_until(lambda e: e["out"]["queued_bytes"] > 1 << 20)
    assert not entry["dropped"]["slow"]
    stage.evapid.reload(limits={"max_queued_bytes": 1 << 19, "slow_policy": "drop-oldest"})
    entry = relay_until(lambda e: e["dropped"]["slow"])
    assert entry["out"]["queued_bytes"] <= 1 << 19
    stage.evapid.reload(limits={"max_queued_bytes": 1 << 26, "slow_policy": "drop-oldest"})
    entry = relay_until(lambda e: e["out"]["queued_bytes"] > 1 << 20)
    stage.evapid.reload(limits={"max_queued_bytes": 1 << 19})
    assert ask(phone, "relay", b"more") == 1
    assert quick.receive() == b"more"
    stage.evapid.logged(rf"client {slow.index}: .* does not keep up: .*limit 524288")
    balanced(stage.evapid.status())


@pytest.mark.parametrize("limits", [{"slow_policy": "disconnect", "max_queued_bytes": 1 << 19},
                                    {"slow_policy": "drop-newest", "max_queued_bytes": 1 << 26}],
                         ids=["another policy", "a larger queue"])
def test_who_is_passed_over_is_so_no_longer_when_nothing_asks_for_it(stage, limits):
    phone = begin(stage, replace, limits={"max_queued_bytes": 1 << 19, "slow_policy": "drop-newest"})
    slow = stage.connect(receive_buffer=4096)
    relay_until(phone, lambda: stage.evapid.client(slow)["dropped"]["slow"])
    before = stage.evapid.client(slow)
    stage.evapid.reload(limits=limits)
    assert ask(phone, "relay", b"x" * 20000) == 1
    if limits["slow_policy"] == "disconnect":
        stage.evapid.logged(rf"client {slow.index}: .* disconnecting it")
        return
    after = stage.evapid.client(slow)
    assert after["dropped"]["slow"] == before["dropped"]["slow"]
    assert after["out"]["queued_frames"] == before["out"]["queued_frames"] + 1


def test_a_message_that_waits_is_judged_by_the_limit_it_came_under(stage):
    """A worker has not taken it when the limit becomes smaller, and another has not come whole: both are worked on."""
    phone = begin(stage, replace, limits={"worker_window_frames": 1})
    client, other = stage.connect(), stage.connect()
    ask(phone, "gate", gate="2")
    client.send(b"0")
    stage.kamailio.logged(rf"GOT {client.index} 0;")
    client.send_bytes(b"".join(netstring(b"%d" % number + b"y" * 2000) for number in range(1, 6)))  # one segment
    client.wait_read()
    other.send_bytes(netstring(b"y" * 3000 + b"end")[:1500])
    other.wait_read()
    stage.evapid.until_status(lambda s: s["kamailio"]["workers"][0]["waiting"] == 1, "the window is full")
    stage.evapid.reload(limits={"max_message_bytes": 1000, "worker_window_frames": 1})
    replace(stage)
    other.send_bytes(netstring(b"y" * 3000 + b"end")[1500:])
    ask(phone, "gate", gate="0")
    for number in range(1, 6):
        stage.kamailio.logged(rf"GOT {client.index} {number}y+;")
    stage.kamailio.logged(rf"GOT {other.index} y+end;")
    other.send(b"z" * 1001)
    assert other.receive_rest() == []
    stage.evapid.logged(r"the length is over the limit \(limit 1000 bytes\)")
    balanced(stage.evapid.status())


def test_a_wider_window_is_used(stage):
    phone = begin(stage, replace, limits={"worker_window_frames": 1})
    client = stage.connect()
    ask(phone, "gate", gate="2")
    for number in range(10):
        client.send(b"%d" % number)
    stage.evapid.until_status(lambda s: s["kamailio"]["workers"][0]["waiting"] == 1, "the window is full")
    stage.evapid.reload(limits={"worker_window_frames": 10})
    stage.evapid.until_status(lambda s: s["kamailio"]["workers"][0]["in_flight"] == 10, "all are with the worker")
    ask(phone, "gate", gate="0")
    stage.kamailio.logged(rf"GOT {client.index} 9;")


def test_times_are_those_that_hold_now(stage):
    address = stage.new_address()
    begin(stage, replace, listeners=[{"address": address}], limits={"message_timeout_ms": 0}, access={"admission_timeout_ms": 0})
    dribbling = stage.connect(address)
    dribbling.send_bytes(b"100:abc")
    dribbling.wait_read()
    worker = stage.evapid.status()["kamailio"]["workers"][0]["pid"]
    os.kill(worker, signal.SIGSTOP)  # Kamailio is there, and lets nobody in
    waiting = stage.connect(address, admitted=False)
    stage.evapid.client(waiting, "admitting")
    stage.evapid.reload(limits={"message_timeout_ms": 1}, access={"admission_timeout_ms": 1})
    assert dribbling.receive_rest() == waiting.receive_rest() == []
    stage.evapid.logged(r"not become whole in 1 ms")
    stage.evapid.logged(r"not let it in within 1 ms")
    patient = [{"address": address, "access": {"admission_timeout_ms": 0}}]
    stage.evapid.reload(listeners=patient)
    waiting = stage.connect(address, admitted=False)
    os.kill(worker, signal.SIGCONT)
    stage.evapid.client(waiting)


def keepalive_of(client):
    """The timer of evapid's end of the connection (proc_net_tcp.rst): 02 is keepalive; and the seconds to its end."""
    local, remote = f":{client.server_port:04X}", f":{client.port:04X}"
    with open("/proc/net/tcp") as table:
        fields = next(line.split() for line in table if line.split()[1].endswith(local) and line.split()[2].endswith(remote))
    kind, left = fields[5].split(":")
    return kind == "02", int(left, 16) / 100


@pytest.mark.parametrize("how", [by_request, lambda stage, **settings: stage.replace_evapid(**settings)],
                         ids=["reload", "replace"])
def test_keepalive_is_set_for_those_that_are_connected(stage, how):
    begin(stage, replace, keepalive={"idle_s": 20000})
    client = stage.connect()
    until(lambda: keepalive_of(client)[1] > 10000, "it is probed after hours")
    how(stage, keepalive={"idle_s": 500})
    until(lambda: keepalive_of(client)[0] and keepalive_of(client)[1] <= 500, "it is probed after minutes")
    how(stage, keepalive={"idle_s": 0})
    until(lambda: not keepalive_of(client)[0], "it is not probed")


def test_the_log_s_level_is_that_of_the_file(stage):
    stage.start_evapid(log={"level": "warning"})
    stage.evapid.reload(log={"level": "info"})
    stage.evapid.logged("evapid: reloaded")
    stage.evapid.reload(log={"level": "error"})
    assert len(stage.evapid.lines("evapid: reloaded")) == 1


def test_the_memory_of_all_queues_is_bounded_by_the_limit_that_holds_now(stage):
    phone = begin(stage, replace, limits={"max_queued_bytes": 1 << 25})
    slow = stage.connect(receive_buffer=4096)
    relay_until(phone, lambda: stage.evapid.status()["totals"]["out"]["queued_memory"] > 1 << 22)
    stage.evapid.reload(limits={"max_total_queued_bytes": 1 << 21})
    assert ask(phone, "relay", b"the last") == 1
    stage.evapid.until_status(lambda s: s["totals"]["out"]["queued_memory"] <= 1 << 21, "memory is bounded")
    stage.evapid.logged(rf"client {slow.index}: .* disconnecting it")
    balanced(stage.evapid.status())


# ---- access


@pytest.mark.parametrize("how", ["reload", "replace", "restart"])
def test_who_may_not_be_connected_any_more_is_closed_and_the_others_stay(stage, how):
    own = stage.new_address()
    phone = begin(stage, restart if how == "restart" else replace, listeners=[{"address": own, "access": {"deny": []}}])
    stage.evapid.listening(stage.address)
    clients = {}
    for address in (own, stage.address):
        for source in ("127.0.0.1", "127.0.0.2"):
            clients[address, source] = stage.connect(address, source=source)
    access = {"deny": ["127.0.0.2/31"], "allow": ["127.0.0.0/8"]}
    if how == "reload":
        assert stage.evapid.reload(access=access)["clients_closed"] == 1
    elif how == "replace":
        stage.replace_evapid(access=access)
    else:
        stage.evapid.configure(access=access)
        stage.evapid.restart()
    gone = clients.pop((stage.address, "127.0.0.2"))
    assert gone.receive_rest() == []
    stage.kamailio.logged(rf"CLOSED {gone.index};")
    stage.evapid.logged(rf"warning listener {stage.address}: closing 127\.0\.0\.2 port {gone.port}: .*by now \(access\)")
    assert refusals_of(stage, stage.address) == {"revoked": 1} and refusals_of(stage, own) == {}
    assert not is_taken(stage, stage.address, "127.0.0.2")
    goes_on(stage, phone, clients.values())


def test_clients_of_a_listener_that_has_gone_are_judged_by_nobody(stage):
    address = stage.new_address()
    phone = begin(stage, replace, listeners=[{"address": address}])
    client = stage.connect(address)
    assert stage.evapid.reload(listeners=[], access={"deny": ["0.0.0.0/0"]})["clients_closed"] == 0
    goes_on(stage, phone, [client])
    assert stage.evapid.reload(listeners=[{"address": address}])["clients_closed"] == 1
    assert client.receive_rest() == []


def test_who_is_over_a_smaller_limit_stays(stage):
    phone = begin(stage, replace)
    clients = [stage.connect() for _ in range(3)]
    stage.evapid.reload(listeners=[{"address": stage.address, "max_clients": 1}], access={"max_clients_per_address": 1})
    goes_on(stage, phone, clients)
    assert not is_taken(stage, stage.address)


# ---- the Unix sockets


@only_root("can give a file to another group")
def test_the_sockets_get_another_mode_and_other_users(stage):
    stage.start_evapid()
    stage.evapid.reload(control_access={"mode": "0666", "group": GROUPS[0]}, kamailio_access={"mode": "0600"})
    files = [path.stat() for path in (stage.evapid.control_socket, stage.evapid.kamailio_socket)]
    assert [(file.st_mode & 0o7777, file.st_gid) for file in files] == [(0o666, GROUPS[0]), (0o600, GROUPS[1])]
    assert stage.evapid.status()["sockets"]["control"]["mode"] == "0666"
    stage.evapid.reload(control_access={}, kamailio_access={})
    files = [path.stat() for path in (stage.evapid.control_socket, stage.evapid.kamailio_socket)]
    assert [(file.st_mode & 0o7777, file.st_gid) for file in files] == [(0o660, GROUPS[1])] * 2


def test_the_sockets_move(stage):
    phone = begin(stage, replace)
    client = stage.connect()
    old = stage.evapid.kamailio_socket, stage.evapid.control_socket
    stage.evapid.reload(kamailio_socket=str(stage.folder / "k2.sock"), control_socket=str(stage.folder / "c2.sock"))
    assert not any(path.exists() for path in old)
    stage.evapid.attached(stage.kamailio.pid)
    goes_on(stage, phone, [client])
    replace(stage)
    goes_on(stage, phone, [client], b"behind")
    stage.kamailio.terminate()
    stage.start_kamailio(ROUTES, evapi={"socket": str(stage.folder / "k2.sock")})
    client.send(b"again")
    stage.kamailio.logged(rf"GOT {client.index} again;")


def test_a_socket_whose_file_has_gone_is_there_again(stage):
    stage.start_evapid()
    stage.evapid.kamailio_socket.unlink()
    stage.evapid.reload()
    stage.start_kamailio(ROUTES)


# ---- what can't be done


def test_what_is_wrong_changes_nothing_and_is_said(stage):
    address, wanted, taken = stage.new_address(), stage.new_address(), stage.new_address()
    phone = begin(stage, replace, listeners=[{"address": address, "max_clients": 5}])
    client = stage.connect(address)
    stage.evapid.ask(command="status")
    before = until(lambda: (lambda one, other: one == other and [one])(standing(stage), standing(stage)), "it is at rest")[0]
    path = stage.evapid.config
    other_file = stage.folder / "a file"
    other_file.write_text("")
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", int(taken.split(":")[1])))
        holder.listen()
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        much = {"access": {"deny": ["127.0.0.0/8"]}, "limits": {"max_queued_bytes": 1024}, "log": {"level": "error"},
                "kamailio_access": {"mode": "0600"}}
        for settings, reason in [
                ({"listeners": [{"address": wanted}, {"address": taken}], **much}, f"listener {taken}: address in use"),
                ({"listeners": [{"address": wanted}, {"address": "192.0.2.1:1"}], **much},
                 "listener 192.0.2.1:1: Cannot assign requested address"),
                ({"listeners": [{"address": wanted}], **much, "kamailio_socket": str(other_file)},
                 f"{other_file}: a file of that name exists and is not a socket"),
                ({"listeners": [{"address": wanted}], **much, "control_socket": str(other_file)},
                 f"{other_file}: a file of that name exists and is not a socket"),
                ({"listeners": [{"address": wanted}], **much, "control_socket": str(stage.folder / "a" / "b")},
                 f"{stage.folder}/a/b: the folder {stage.folder}/a is missing; make it as root: install -d -m 750 -o {user} -g {group} "
                 f"{stage.folder}/a"),
                ({**much, "listners": []}, f"{path}:"),
                ({**much, "limits": {"max_queued_bytes": 1}}, f"{path}:")]:
            why = stage.evapid.reload_in_vain(**settings)
            assert why.startswith(reason) and (why == reason or re.match(rf"{path}:\d+:\d+: \w+", why)), why
            stage.evapid.logged(re.escape(f"error evapid: not reloaded, nothing has changed: {why}"))
            assert until(lambda: standing(stage) == before and [standing(stage)], "nothing has changed")
    path.unlink()
    assert stage.evapid.ask(command="reload")["detail"] == f"{path}: No such file or directory"
    os.mkfifo(path)
    assert stage.evapid.ask(command="reload")["detail"] == f"{path}: it is no file, and can be read only once"
    path.unlink()
    stage.evapid.signal(signal.SIGHUP)
    stage.evapid.logged("not reloaded, nothing has changed: .*No such file", 2)
    assert refused(wanted)
    goes_on(stage, phone, [client])
    stage.evapid.configure()
    stage.evapid.reload()


def test_an_evapid_that_stops_is_not_reloaded(stage):
    phone = begin(stage, replace, shutdown_grace_ms=60000)
    slow = stage.connect(receive_buffer=4096)
    relay_until(phone, lambda: stage.evapid.client(slow)["out"]["queued_bytes"] > 100000)
    stage.evapid.expect_end = True
    stage.evapid.signal(signal.SIGINT)
    stage.evapid.logged("stopping: SIGINT")
    assert stage.evapid.ask(command="reload") == {"error": "not reloaded", "detail": "evapid is stopping"}
    stage.evapid.signal(signal.SIGHUP)
    slow.receive_rest()
    assert stage.evapid.ended() == 0


def test_a_hang_up_while_evapid_starts_does_not_end_it(stage):
    """It waits for its configuration, which comes by a pipe."""
    path, moved, pid = stage.folder / "evapid.json", stage.folder / "moved.json", stage.folder / "pid"
    script = 'mv "$0" moved.json; mkfifo "$0"; echo $$ > pid; exec "$@"'

    def give():
        until(lambda: pid.exists() and pid.read_text(), "the pipe is there")
        with open(path, "w") as pipe:  # waits for who reads
            os.kill(int(pid.read_text()), signal.SIGHUP)
            pipe.write(moved.read_text())
    thread = threading.Thread(target=give)
    thread.start()
    try:
        stage.start_evapid(before=["sh", "-c", script, path])
    finally:
        thread.join()
    stage.evapid.logged("not reloaded, nothing has changed: .*: it is no file, and can be read only once")


# ---- the service manager


def test_the_service_manager_is_told(stage):
    begin(stage, restart)
    client = stage.connect()
    stage.evapid.reload(limits={"linger_ms": 1})
    until(lambda: stage.evapid.heard("RELOADING") == "1", "it has been told that evapid reads its configuration")
    assert int(stage.evapid.heard("MONOTONIC_USEC")) > 0
    assert stage.evapid.heard("STATUS") == f"workers attach at {stage.evapid.kamailio_socket}"
    stage.evapid.reload_in_vain(limits={"linger_ms": -1})
    until(lambda: stage.evapid.heard("STATUS") == "not reloaded: the log says why", "and what came of it")
    assert stage.evapid.heard("READY") == "1"
    address = stage.new_address()
    for _ in range(3):
        stage.evapid.reload(listeners=[{"address": address}])
        stage.evapid.reload(listeners=[])
    stored = [name for name in stage.evapid.stored() if name.startswith("listener-")]
    assert len(stored) == 1, "those that have gone are not kept"
    stage.evapid.reload(listeners=[{"address": address}])
    stage.evapid.kill_and_restart()
    stage.evapid.listening(address)
    client.send(b"on")
    stage.kamailio.logged(rf"GOT {client.index} on;")


# ---- again and again


def alternating(stage, address, times):
    """Reload with one configuration and another, which has each kind of change."""
    settings = [
        {"listeners": [{"address": address}], "limits": {"max_queued_bytes": 1 << 27, "worker_window_frames": 64},
         "access": {"deny": ["192.0.2.0/24"]}, "keepalive": {"idle_s": 100}, "control_access": {"mode": "0600"}},
        {"listeners": [{"address": stage.address, "max_clients": 50}], "limits": {"max_queued_bytes": 1 << 28},
         "access": {"allow": ["127.0.0.0/8"]}, "keepalive": {"idle_s": 0}, "control_access": {"mode": "0660"}}]
    for number in range(times):
        stage.evapid.reload(**settings[number % 2])


def test_again_and_again_under_traffic_both_ways(stage):
    """Nobody is disconnected, and nothing lost, doubled or torn, while evapid is reloaded a hundred times."""
    address = stage.new_address()
    phone = begin(stage, replace, {"workers": 2}, limits={"max_queued_bytes": 1 << 28}, listeners=[{"address": address}])
    readers = [stage.connect(at) for at in (address, stage.address) for _ in range(3)]
    talkers = [stage.connect() for _ in range(3)]
    got, ended, sent = {reader: [] for reader in readers}, threading.Event(), dict.fromkeys(talkers, 0)

    def read(reader):
        got[reader] = reader.receive_until(b"the end")

    def talk(talker):
        while not ended.is_set():
            talker.send(b"%d" % sent[talker] + b" " * (sent[talker] % 3000))
            sent[talker] += 1
            if sent[talker] % 50 == 0:
                talker.wait_read()

    relayed = []

    def relay():
        while not ended.is_set():
            relayed.append(b"%d:" % len(relayed) + b"x" * (len(relayed) * 37 % 20000))
            assert ask(phone, "relay", relayed[-1]) == 1
    threads = [threading.Thread(target=read, args=[reader]) for reader in readers]
    threads += [threading.Thread(target=talk, args=[talker]) for talker in talkers] + [threading.Thread(target=relay)]
    for thread in threads:
        thread.start()
    try:
        alternating(stage, address, 100)
    finally:
        ended.set()
        threads[-1].join()
        ask(phone, "relay", b"the end")
        for thread in threads:
            thread.join()
    assert len(relayed) > 10 and all(got[reader] == relayed for reader in readers)
    for talker in talkers:
        talker.send(b"last")
        stage.kamailio.logged(rf"GOT {talker.index} last;")
        texts = [text for event, text in events_of(stage.kamailio, talker.index) if event == "GOT"]
        assert [text.strip() for text in texts] == [*map(str, range(sent[talker])), "last"]
        assert talker.receive_many(len(relayed) + 1) == relayed + [b"the end"]
    status = stage.evapid.until_status(lambda s: s["totals"]["in"]["waiting"] == 0, "all messages are worked on")
    balanced(status)
    assert len(status["clients"]) == 9 and status["totals"]["clients"]["closed"] == 0
    assert set(status["totals"]["out"]["dropped"].values()) == {0}


def test_a_thousand_reloads_leak_nothing(stage):
    address = stage.new_address()
    phone = begin(stage, replace, listeners=[{"address": address}])
    client = stage.connect(address)
    alternating(stage, address, 200)
    opened, memory = len(stage.evapid.descriptors()), stage.evapid.rss_bytes()
    alternating(stage, address, 800)
    assert len(stage.evapid.descriptors()) == opened
    assert stage.evapid.rss_bytes() - memory < 2 << 20
    goes_on(stage, phone, [client])
