"""evapid waits for nobody: not for who reads its log, not for the service manager, not for a descriptor that somebody passes."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import tty
from pathlib import Path

import pytest

from evapid import EVAPICTL
from process import DEADLINE_S, running, until

SHELL = ["/bin/sh", "-c"]
RELAY = """
route[TEST] {
    evapi_relay("$rb");
    sl_send_reply("200", "OK");
}
"""


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

REOPEN = """
import os, socket, sys
end = socket.socket(socket.AF_UNIX)
end.connect(sys.argv[1])
os.environ["JOURNAL_STREAM"] = "%d:%d" % (os.fstat(end.fileno()).st_dev, os.fstat(end.fileno()).st_ino)
os.dup2(end.fileno(), 2, inheritable=True)
os.execv(sys.argv[2], sys.argv[2:])
"""


class LogReader:
    """What evapid has as its standard error: a pipe, a terminal or the journal's socket, which nobody reads until read() is
    called. before: what makes it so, and becomes evapid."""

    def __init__(self, kind, folder):
        path = folder / "log"
        self.fd = self.held = None
        self.before = [*SHELL, f'exec "$@" 2>{path}', "sh"]
        if kind == "pipe":
            os.mkfifo(path)
            self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, 4096)
        elif kind == "terminal":
            self.fd, self.held = os.openpty()
            tty.setraw(self.held)
            os.set_blocking(self.fd, False)
            self.before = [*SHELL, f'exec "$@" 2>{os.ttyname(self.held)}', "sh"]
            termios.tcflow(self.held, termios.TCOOFF)
        else:
            self.listening = socket.socket(socket.AF_UNIX)
            self.listening.bind(str(path))
            self.listening.listen()
            self.before = [sys.executable, "-I", "-S", "-c", REOPEN, path]
        self.text = ""

    def read(self):
        """All that has been written so far."""
        if self.held is not None:
            termios.tcflow(self.held, termios.TCOON)
        if self.fd is None:
            self.fd = self.listening.accept()[0].detach()
            os.set_blocking(self.fd, False)
        try:
            while more := os.read(self.fd, 65536):
                self.text += more.decode()
        except BlockingIOError:
            pass
        return self.text

    def close(self):
        for fd in (self.fd, self.held):
            if fd is not None:
                os.close(fd)


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

BACKLOG = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1  # notices that its socket takes unread
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
    until(lambda: not running(stage.evapid.pid), "evapid ends")
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
    until(lambda: not running(stage.evapid.pid), "evapid ends")
    stage.evapid.notifications.goes_on()
    assert stage.evapid.ended() == 0
    assert clients[0].receive_rest() == []
