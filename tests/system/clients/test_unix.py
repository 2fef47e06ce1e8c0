"""Clients at a Unix socket: who they are, who may connect, the life of the socket's file, and that they stay when evapid goes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from access import NOBODY, listener_of, refusals_of
from books import balanced
from client import Client, netstring
from evapid import run_evapid
from formats import Ledger, memory_of
from handover import ROUTES as HANDOVER, begin, goes_on, replace, restart, set_tag, stall
from process import until
from script import ask
from supervisor import stored_as

ROUTES = """
route[TEST] { sl_send_reply("200", "OK"); }
event_route[evapi:connection-new] { evapi_set_tag("c$evapi(conidx)"); xlog("L_NOTICE", "NEW $evapi(srcaddr) $evapi(srcport);\\n"); }
event_route[evapi:message-received] { evapi_unicast("$evapi(srcaddr) $evapi(srcport) $evapi(msg)", "c$evapi(conidx)"); }
event_route[evapi:connection-closed] { xlog("L_NOTICE", "CLOSED $evapi(srcaddr) $evapi(srcport);\\n"); }
"""
SAY = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(60)
    try:
        client.connect(sys.argv[1])
    except PermissionError:
        sys.exit("no permission")
    try:
        client.sendall(b"5:hello,")
        sys.stdout.buffer.write(client.recv(1000))
    except (BrokenPipeError, ConnectionResetError):
        pass
"""


def path_of(address):
    return Path(address.removeprefix("unix:"))


def say_as(user, address):
    """What a client of that user gets for its "hello": an event, "" (closed), or "no permission"."""
    ran = subprocess.run([sys.executable, "-c", SAY, path_of(address)], user=user, group=user, extra_groups=[],
                         capture_output=True, text=True, timeout=120, cwd="/")
    return ran.stdout or ran.stderr.strip()


# ---- who


def test_a_script_sees_the_user_whatever_its_number(house):
    """A user's number has 32 bits, a port 16: 65536 must not look like root."""
    address = house.unix_address()
    house.start_evapid(listeners=[{"address": address, "mode": "0666"}])
    house.start_kamailio(ROUTES)
    for user in (NOBODY.pw_uid, 65536, 4000000000):
        shown = f"unix {user} hello"
        assert say_as(user, address) == f"{len(shown)}:{shown},"
        house.kamailio.logged(rf"NEW unix {user};")
        house.kamailio.logged(rf"CLOSED unix {user};")
        house.evapid.logged(rf"client \d+: unix user {user} connected to {address}")
    client = house.connect(address)
    entry = house.evapid.client(client)
    assert (entry["address"], entry["listener"], entry["stream"]) == (f"unix:{os.getuid()}", address, "unix")
    assert house.evapid.client(house.connect())["stream"] == "tcp"


def test_mode_group_and_users_say_who_may_connect(house):
    address = house.unix_address()
    listener = {"address": address, "mode": "0660", "group": NOBODY.pw_gid}
    house.start_evapid(listeners=[listener])
    house.start_kamailio(ROUTES)
    there = path_of(address).stat()
    assert (there.st_mode & 0o7777, there.st_gid) == (0o660, NOBODY.pw_gid)
    assert say_as(NOBODY.pw_uid, address).endswith("hello,")
    house.evapid.clients(0)  # else the reload would close it, too
    assert say_as(54321, address) == "no permission"
    house.evapid.reload(listeners=[{**listener, "mode": "0666", "users": [54321]}])
    assert (say_as(54321, address)[-6:], say_as(NOBODY.pw_uid, address)) == ("hello,", "")
    assert refusals_of(house, address) == {"denied": 1}
    house.evapid.logged(rf"warning {path_of(address)}: refused pid \d+ of user {NOBODY.pw_uid} \(nobody\): it is not among users")
    assert house.evapid.status()["totals"]["clients"]["refused"] == 1
    house.replace_evapid()
    assert refusals_of(house, address) == {"denied": 1}


def test_a_client_whose_user_may_no_longer_connect_is_closed(house):
    address = house.unix_address()
    house.start_evapid(listeners=[{"address": address, "mode": "0666"}])
    mine = house.connect(address, admitted=False)
    with subprocess.Popen([sys.executable, "-c", SAY, path_of(address)], user=54321, group=54321, extra_groups=[],
                          stdout=subprocess.PIPE, cwd="/") as other:
        house.evapid.until_status(lambda s: len(s["clients"]) == 2, "both are there")
        closed = house.evapid.reload(listeners=[{"address": address, "mode": "0666", "users": []}])["clients_closed"]
        assert (closed, other.communicate(timeout=60)[0]) == (1, b"")
    assert refusals_of(house, address) == {"revoked": 1}
    house.evapid.logged(r"closing unix user 54321: it is not among users by now \(access\)")
    mine.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        mine.socket.recv(1)


def test_a_user_has_so_many_clients(house):
    address = house.unix_address()
    house.start_evapid(access={"allow": ["127.0.0.1"]},  # networks are not for Unix sockets
                       listeners=[{"address": address, "mode": "0666", "access": {"max_clients_per_address": 1}}])
    house.start_kamailio(ROUTES)
    house.connect(address)
    assert Client(address).socket.recv(1) == b""
    assert say_as(54321, address).endswith("hello,")
    assert refusals_of(house, address) == {"address": 1}
    house.evapid.logged(rf"refused unix user {os.getuid()}: it has 1 places already \(max_clients_per_address\)")


# ---- its file


def test_a_stale_file_is_replaced_and_ours_is_removed(stage):
    address = stage.unix_address()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path_of(address)))
    stage.start_evapid(listeners=[{"address": address}])
    stage.evapid.logged(f"{path_of(address)}: replacing a socket that nobody listens on")
    stage.connect(address, admitted=False)
    stage.evapid.terminate()
    assert not path_of(address).exists()


def test_a_socket_that_is_answered_is_left_alone(stage, tmp_path):
    address, other = stage.unix_address(), stage.unix_address("other.sock")
    stage.start_evapid(listeners=[{"address": address}])
    config = tmp_path / "evapid.json"
    config.write_text(f'{{"kamailio_socket": "{tmp_path}/k", "control_socket": "{tmp_path}/c", '
                      f'"listeners": [{{"address": "{other}"}}, {{"address": "{address}"}}]}}')
    ran = run_evapid("-c", config)
    assert ran.returncode != 0 and f"listener {address}: another process listens there" in ran.stderr
    assert not path_of(other).exists(), "what was made is removed"
    stage.connect(address, admitted=False)


def test_a_reload_opens_changes_and_removes_it(stage):
    address, other = stage.unix_address(), stage.unix_address("other.sock")
    stage.start_evapid()
    assert stage.evapid.reload(listeners=[{"address": address}])["listeners_added"] == 1
    stage.connect(address, admitted=False)
    why = stage.evapid.reload_in_vain(listeners=[{"address": address, "mode": "0600"}, {"address": "unix:/nowhere/x.sock"}])
    assert "listener unix:/nowhere/x.sock: the folder /nowhere is missing" in why
    assert path_of(address).stat().st_mode & 0o777 == 0o660
    stage.evapid.reload(listeners=[{"address": address, "mode": "0600"}])
    assert path_of(address).stat().st_mode & 0o777 == 0o600
    path_of(address).unlink()
    stage.evapid.reload()
    stage.connect(address, admitted=False)
    assert stage.evapid.reload(listeners=[{"address": other}])["listeners_removed"] == 1
    assert not path_of(address).exists() and path_of(other).exists()
    assert len(stage.evapid.status()["clients"]) == 2, "its clients stay"


# ---- when evapid goes


@pytest.mark.parametrize("how", [replace, restart])
def test_clients_and_the_file_go_over(stage, how):
    address = stage.unix_address()
    phone = begin(stage, how, listeners=[{"address": address}])
    clients = [stage.connect(address), stage.connect(address)]
    set_tag(stage, clients[0], b"blue")
    stall(stage, phone, clients[1], clients[:1])
    clients[0].send_bytes(b"7:in ")
    inode = path_of(address).stat().st_ino
    how(stage)
    assert path_of(address).stat().st_ino == inode
    clients[0].send_bytes(b"part,")
    stage.kamailio.logged(rf"GOT {clients[0].index} in part;")
    assert stage.evapid.client(clients[0])["tag"] == "blue"
    assert ask(phone, "relay", b"the end") == 1
    assert clients[0].receive() == b"the end"
    clients[1].receive_until(b"the end")
    goes_on(stage, phone, [*clients, stage.connect(address)])
    assert balanced(stage.evapid.status())


@pytest.mark.parametrize("how", [replace, restart])
def test_a_successor_without_the_listener_removes_the_file(stage, how):
    address = stage.unix_address()
    phone = begin(stage, how, listeners=[{"address": address}])
    client = stage.connect(address)
    stage.evapid.configure(listeners=[])
    how(stage)
    until(lambda: not path_of(address).exists(), "the file is removed")
    goes_on(stage, phone, [client])


def test_after_a_kill_a_client_between_frames_goes_on_at_the_same_file(stage):
    address = stage.unix_address()
    phone = begin(stage, restart, listeners=[{"address": address}])
    whole, torn = stage.connect(address), stage.connect(address)
    assert ask(phone, "relay", b"before") == 1
    assert whole.receive() == torn.receive() == b"before"
    torn.send_bytes(b"7:in ")  # it is in the middle of a frame this way, too: the kernel may take whole frames only
    stall(stage, phone, torn, [whole])
    inode = path_of(address).stat().st_ino
    stage.evapid.kill_and_restart()
    stage.evapid.attached(stage.kamailio.pid)
    assert path_of(address).stat().st_ino == inode
    stage.evapid.logged(rf"client {torn.index}: its stream may stand in the middle of a frame; closing it")
    stage.evapid.client(whole)
    assert ask(phone, "relay", b"after") == 1
    assert whole.receive() == b"after"
    stage.connect(address)
    assert balanced(stage.evapid.status())


def test_after_a_kill_in_a_write_the_kernel_tells_nothing_and_the_client_is_closed(stage):
    """The kernel does not tell how many bytes a Unix socket has taken: the write may have got anywhere."""
    address = stage.unix_address()
    begin(stage, restart, listeners=[{"address": address}])
    clients = [stage.connect(address), stage.connect(address)]
    with open(f"/proc/self/fd/{stored_as(stage.evapid, 'ledger')}", "r+b") as memory:
        ledger = Ledger(memory.read())
        for number in range(2):
            if ledger.slot(number, "index") == clients[1].index:
                os.pwrite(memory.fileno(), b"\xff" * 8, ledger.slot_at(number, "offered"))
    stage.evapid.kill_and_restart()
    stage.evapid.logged("1 clients go on, 1 are closed")
    stage.evapid.client(clients[0])
    assert clients[1].receive_rest() == []
