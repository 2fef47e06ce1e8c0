"""evapid waits for nobody: not for who reads its log, not for the service manager, not for a descriptor that somebody passes."""

import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest

import wire
from access import NOBODY
from door import LINGERS_S, PASS
from evapid import EVAPICTL
from privilege import only_root
from process import DEADLINE_S, until
from ring import PRESENCE, SLEEPING, Ring, make_ring
from script import RELAY
from standard_error import SHELL, LogReader
from supervisor import BACKLOG


SO_PASSRIGHTS = 83  # asm-generic/socket.h, Linux 6.16


def takes_no_rights():
    """Can a socket be told to take no descriptors?"""
    with socket.socket(socket.AF_UNIX) as any_:
        try:
            return any_.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 1
        except OSError:
            return False


# ---- standard descriptors that are closed


@pytest.mark.parametrize("closed", [[0], [2], [0, 1, 2]], ids=str)
def test_evapid_starts_serves_and_ends_without_standard_descriptors(stage, closed):
    """A socket that gets the number of one of these would be sent lines of the log, and libuv aborts when it closes it."""
    stage.start_evapid(before=[*SHELL, f'exec "$@" {" ".join(f"{number}>&-" for number in closed)}', "sh"])
    opened = stage.evapid.descriptors()
    assert [opened[number] for number in closed] == ["/dev/null"] * len(closed)
    stage.start_kamailio()
    stage.connect()
    assert stage.evapid.terminate() == 0


def test_evapictl_sends_evapid_nothing_that_is_meant_for_standard_output(tmp_path):
    with socket.socket(socket.AF_UNIX) as evapid:
        evapid.bind(str(tmp_path / "control.sock"))
        evapid.listen()
        asking = subprocess.Popen([*SHELL, 'exec "$@" >&-', "sh", EVAPICTL, "-s", tmp_path / "control.sock", "tail"])
        connection, _ = evapid.accept()
        with connection:
            connection.settimeout(DEADLINE_S)
            sent = connection.makefile("rwb")
            assert b"tail" in sent.readline()
            sent.write(b'{"tail":true}\n{"out":"event","kind":"relay","receivers":1,"size":5,"time":0}\n')
            sent.flush()
            connection.shutdown(socket.SHUT_WR)
            assert sent.read() == b""
        asking.wait(DEADLINE_S)


# ---- the reader of the log stops


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_a_reader_of_the_log_that_stops_holds_up_nobody(stage, kind):
    """A reload writes a line. There are far more of them than the reader's own buffer and evapid's memory for lines hold."""
    reader = LogReader(kind, stage.folder)
    stage.start_evapid(before=reader.before, log={"level": "notice"})
    stage.start_kamailio(RELAY)
    client, phone = stage.connect(), stage.phone()
    reloads = 1200
    for _ in range(reloads):
        assert "reload" in stage.evapid.ask(command="reload")
    phone.ask("MESSAGE", "relay", body=b"event")
    assert client.receive() == b"event"

    def told():
        return re.findall(r"log: (\d+) lines were not written", reader.read())
    until(told, "evapid says how many lines are missing")
    until(lambda: reader.read().count("reloaded:") + sum(map(int, told())) >= reloads, "each line was written, or counted")
    assert all(re.search(r"[a-z]+: .+", line) for line in reader.text.splitlines()), "lines are whole"
    for _ in range(reloads):
        assert "reload" in stage.evapid.ask(command="reload")
    assert stage.evapid.terminate() == 0
    reader.close()


def test_a_log_without_any_reader_is_no_matter(stage):
    reader = LogReader("pipe", stage.folder)
    stage.start_evapid(before=reader.before)
    reader.close()
    for _ in range(20):
        assert "reload" in stage.evapid.ask(command="reload")
    stage.start_kamailio(RELAY)
    stage.connect()
    assert stage.evapid.terminate() == 0


# ---- the service manager stops

ALWAYS = ["ledger", "listener-1", "ring", "ring-wake"]  # what is stored beside clients


def names(clients):
    return [f"client-{client.index}" for client in clients]


def begin_stuck(stage):
    """A service manager that reads nothing any more, and more clients than its socket takes notices. Returns them, and a
    phone."""
    count = BACKLOG + 30
    stage.start_supervised()
    stage.start_kamailio(RELAY, evapi={"max_clients": 2 * count})
    stage.evapid.notifications.sync()
    stage.evapid.notifications.stops()
    return [stage.connect() for _ in range(count)], stage.phone()


def test_a_service_manager_that_stops_holds_up_nobody_and_hears_all_later(stage):
    clients, phone = begin_stuck(stage)
    phone.ask("MESSAGE", "relay", body=b"event")
    assert [client.receive() for client in clients] == [b"event"] * len(clients)
    for client in clients[::2]:
        client.close()
    stage.evapid.clients(len(clients) // 2)
    assert "reload" in stage.evapid.ask(command="reload")
    stage.evapid.notifications.goes_on()
    until(lambda: stage.evapid.stored() == sorted(names(clients[1::2]) + ALWAYS), "what is stored is what there is")
    stage.evapid.restart()
    phone.ask("MESSAGE", "relay", body=b"again")
    assert [client.receive() for client in clients[1::2]] == [b"again"] * (len(clients) // 2)


def test_a_restart_waits_for_a_service_manager_that_is_slow(stage):
    clients, phone = begin_stuck(stage)
    stage.evapid.signal(signal.SIGTERM)
    stage.evapid.logged("stopping: SIGTERM")
    stage.evapid.notifications.goes_on()
    assert stage.evapid.ended() == 0
    assert not stage.evapid.lines("not kept")
    stage.evapid.start_again()
    stage.evapid.logged(f"handover: taken over: {len(clients)} clients")
    phone.ask("MESSAGE", "relay", body=b"event")
    assert [client.receive() for client in clients] == [b"event"] * len(clients)


def test_a_restart_with_a_service_manager_that_is_stuck_ends_and_says_what_is_not_kept(stage):
    clients, phone = begin_stuck(stage)
    stage.evapid.signal(signal.SIGTERM)
    stage.evapid.logged("not kept: the service manager has not taken it")
    until(lambda: stage.evapid.popen.poll() is not None, "evapid ends")
    stage.evapid.notifications.goes_on()
    assert stage.evapid.ended() == 0
    kept = [client for client, name in zip(clients, names(clients)) if name in stage.evapid.stored()]
    assert 0 < len(kept) < len(clients)
    assert stage.evapid.lines(r"client-\d+: not kept") and stage.evapid.lines("state: not kept|more such lines")
    stage.evapid.start_again()
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.clients(len(kept))
    phone.ask("MESSAGE", "relay", body=b"event")
    assert [client.receive() for client in kept] == [b"event"] * len(kept)


def test_a_stop_does_not_wait_for_a_service_manager_that_is_stuck(stage):
    """SIGINT is none that anybody comes after."""
    clients, _ = begin_stuck(stage)
    stage.evapid.expect_end = True
    stage.evapid.signal(signal.SIGINT)
    until(lambda: stage.evapid.popen.poll() is not None, "evapid ends")
    stage.evapid.notifications.goes_on()
    assert stage.evapid.ended() == 0
    assert clients[0].receive_rest() == []


# ---- a hostile evapid


class HostileEvapid(threading.Thread):
    """What Kamailio's module attaches to: it takes the HELLO, welcomes the worker, and says in the ring all the time that it
    sleeps, so that each event of the script has it woken."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()

    def welcome(self):
        self.link, _ = self.socket.accept()
        self.link.settimeout(DEADLINE_S)
        hello, (memory, self.wake), _, _ = socket.recv_fds(self.link, 4096, 2)
        self.ring = Ring(None, memory)
        self.link.sendall(wire.frame(wire.WELCOME, hello[16:20] + struct.pack("<II", 7, os.getpid()) + wire.text(b"0")))
        self.ring.set(PRESENCE, 1 | 7 << 32)  # attached, session
        self.start()

    def run(self):
        number = 0
        while not self.over.is_set():
            number += 1
            self.ring.set(SLEEPING, number)

    def close(self):
        self.over.set()
        self.join()
        self.ring.close()
        self.link.close()
        self.socket.close()
        os.close(self.wake)


def makes_it_block_and_fills_it(evapid):
    """The eventfd of the module before was one for both sides: its flags were shared, and its counter can be full."""
    fcntl.fcntl(evapid.wake, fcntl.F_SETFL, 0)
    try:
        os.eventfd_write(evapid.wake, 2**64 - 2)
    except OSError:
        pass  # it is none


def reads_nothing(evapid):
    fcntl.fcntl(evapid.wake, fcntl.F_SETFL, 0)


def has_no_room(evapid):
    end = socket.socket(fileno=os.dup(evapid.wake))
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        end.setsockopt(socket.SOL_SOCKET, option, 0)
    try:
        while True:
            end.send(b"x" * 1000, socket.MSG_DONTWAIT)
    except BlockingIOError:
        end.close()


def shuts_it_down(evapid):
    end = socket.socket(fileno=os.dup(evapid.wake))
    end.shutdown(socket.SHUT_RDWR)
    end.close()


def connects_it_elsewhere(evapid):
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.bind("")
    end = socket.socket(fileno=os.dup(evapid.wake))
    end.connect(other.getsockname())
    end.close()
    other.close()


@pytest.mark.parametrize("does", [makes_it_block_and_fills_it, reads_nothing, has_no_room, shuts_it_down,
                                  connects_it_elsewhere], ids=lambda does: does.__name__)
def test_promise_1_sip_is_answered_whatever_evapid_does_with_the_wake(stage, does):
    evapid = HostileEvapid(stage.folder / "kamailio.sock")
    stage.start_kamailio(RELAY, attach=False, children=2)
    evapid.welcome()
    stage.kamailio.logged("attached to evapid")
    does(evapid)
    phone = stage.phone()
    for number in range(300):
        phone.ask("MESSAGE", "relay", body=b"%d" % number)
    evapid.close()


# ---- descriptors that take long to close


def pass_lingering(evapid, path, messages, ends, user=None):
    """In a process of its own, connect and send each of the messages with so many such sockets, which are open in evapid alone
    then; and close the connection, if it ends. evapid finds all of it when it looks, and is asked for its status."""
    evapid.stopped()
    with subprocess.Popen([sys.executable, "-c", PASS, str(path), str(LINGERS_S), str(ends), repr(messages)], cwd="/",
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=user) as passing:
        passing.stdout.readline()
        evapid.goes_on()
        assert evapid.status()
        passing.stdin.close()
        passing.wait(DEADLINE_S)
    assert evapid.status()


HELLO = wire.hello(pid=os.getpid())
TO_KAMAILIO_S_DOOR = {"nothing more": [(b"\0", 3)], "garbage": [(b"garbage" * 9, 3)], "a HELLO": [(HELLO, 2)],
                      "a HELLO and more than its two": [(HELLO, 7)], "a HELLO in pieces": [(HELLO[:20], 4), (HELLO[20:], 4)],
                      "message after message": [(b"\0", 2)] * 8, "a QUERY": [(wire.query(), 3)]}
TO_THE_CONTROL_DOOR = {"nothing more": [(b"{", 3)], "a request": [(b'{"command": "status"}\n', 3)],
                       "message after message": [(b"{", 2)] * 8}


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "stays"])
@pytest.mark.parametrize("case", TO_KAMAILIO_S_DOOR)
def test_a_descriptor_that_lingers_holds_up_nobody_at_kamailio_s_door(stage, case, ends):
    stage.start_evapid()
    pass_lingering(stage.evapid, stage.evapid.kamailio_socket, TO_KAMAILIO_S_DOOR[case], ends)


@pytest.mark.skipif(not takes_no_rights(), reason="this kernel hands over whatever is passed (before Linux 6.16)")
@pytest.mark.parametrize("ends", [True, False], ids=["ends", "stays"])
@pytest.mark.parametrize("case", TO_THE_CONTROL_DOOR)
def test_a_descriptor_that_lingers_holds_up_nobody_at_the_control_door(stage, case, ends):
    stage.start_evapid()
    pass_lingering(stage.evapid, stage.evapid.control_socket, TO_THE_CONTROL_DOOR[case], ends)


@only_root("can start a process of another user")
def test_a_descriptor_that_lingers_of_a_user_who_is_refused_holds_up_nobody(stage):
    stage.folder.chmod(0o711)
    access = {"mode": "0666", "users": []}
    stage.start_evapid(kamailio_access=access, control_access=access)
    for path in (stage.evapid.kamailio_socket, stage.evapid.control_socket):
        for ends in (True, False):
            pass_lingering(stage.evapid, path, [(HELLO, 2)] * 8, ends, user=NOBODY.pw_uid)
    sockets = stage.evapid.status()["sockets"]
    assert [sockets[each]["refused"] for each in ("kamailio", "control")] == [2, 2]


def test_kamailio_attaches_where_only_some_users_may_pass_descriptors(stage):
    stage.start_evapid(kamailio_access={"users": []})
    stage.start_kamailio(RELAY)
    client, phone = stage.connect(), stage.phone()
    phone.ask("MESSAGE", "relay", body=b"event")
    assert client.receive() == b"event"
    stage.evapid.reload(kamailio_access={"mode": "0660"})
    stage.restart_kamailio() if stage.kamailio.terminate() == 0 else pytest.fail("Kamailio did not end well")


@pytest.mark.parametrize("make", [os.openpty, os.pipe, socket.socketpair, lambda: [os.eventfd(0)]],
                         ids=["a terminal", "a pipe", "a stream", "an eventfd"])
def test_a_wake_that_is_none_is_refused_in_words(stage, make):
    stage.start_evapid()
    ends, memory = make(), make_ring(65536)
    link = wire.Link(stage.evapid.kamailio_socket)
    link.send(HELLO, [memory, ends[0] if isinstance(ends[0], int) else ends[0].fileno()])
    assert link.refused()[1] == "its wake is no Unix datagram socket"
    link.close()
    stage.start_kamailio()
    os.close(memory)
    for end in ends:
        os.close(end) if isinstance(end, int) else end.close()
