"""A small service manager, which does for evapid what systemd does: it hears by NOTIFY_SOCKET that evapid is ready, keeps
the descriptors that evapid gives it (sd_notify(3), FDSTORE=1), and hands them to the evapid that it starts next
(sd_listen_fds(3)).

What is stored follows systemd: a descriptor of an open file that is there already is dropped, and so is one beyond the
limit; one that hangs up is let go, unless it came with FDPOLL=0; the newest comes first when they are handed on, so that
nothing can rely on their order."""

import array
import ctypes
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path

from evapid import Evapid
from process import DEADLINE_S, running, stat_fields, until

KCMP_FILE = 0
KCMP = {"x86_64": 312, "aarch64": 272}.get(os.uname().machine)
MOST_DESCRIPTORS = 253  # in one message: SCM_MAX_FD of the kernel
MOST_BYTES = 4096  # of a message, as systemd has it
BACKLOG = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1  # notices that its socket takes unread
syscall = ctypes.CDLL(None, use_errno=True).syscall

# Becomes the program: descriptors from 3 on, in order, and LISTEN_PID its own. What a service manager around the tests
# may have set is not for it.
LAUNCHER = """
import fcntl, os, sys
given = [int(word) for word in sys.argv[1].split(",") if word]
behind = 3 + len(given)
moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(behind, 1 + max(given))) for fd in given]
os.closerange(3, behind)
for number, fd in enumerate(moved, 3):
    os.dup2(fd, number, inheritable=True)
if given:
    os.closerange(behind, 1 + max(given))
for name in ("WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID"):
    os.environ.pop(name, None)
if given:
    os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""


def same_file(one, other):
    """Are they descriptors of one open file, as after dup(2) or SCM_RIGHTS?"""
    if KCMP is not None:
        compared = syscall(KCMP, os.getpid(), os.getpid(), KCMP_FILE, one, other)
        if compared >= 0:
            return compared == 0
    a, b = os.fstat(one), os.fstat(other)
    # A socket's inode is its own. An eventfd shares one with all others: without kcmp they can't be told apart.
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) and not os.readlink(f"/proc/self/fd/{one}").startswith("anon_inode")


def is_name(text):
    """May a descriptor be called that (sd_notify(3))?"""
    return 0 < len(text) <= 255 and ":" not in text and all(" " <= character <= "~" for character in text)


class Stored:
    """A descriptor that the supervisor keeps."""

    def __init__(self, fd, name, polled):
        self.fd, self.name, self.polled = fd, name, polled


class Store:
    """What evapid has given to keep: a name and a descriptor each, at most so many. Used by one thread at a time, under
    the supervisor's lock."""

    def __init__(self, most):
        self.most = most
        self.kept = []  # the newest first
        self.refused = 0  # beyond most

    def add(self, fd, name, polled):
        """Takes fd, and closes it if it isn't kept."""
        if any(same_file(fd, stored.fd) for stored in self.kept):
            os.close(fd)
        elif len(self.kept) >= self.most:
            self.refused += 1
            os.close(fd)
        else:
            self.kept.insert(0, Stored(fd, name, polled))

    def drop(self, unwanted):
        """Close those for which unwanted(stored) is true."""
        for stored in [stored for stored in self.kept if unwanted(stored)]:
            self.kept.remove(stored)
            os.close(stored.fd)

    def watched(self):
        return [stored.fd for stored in self.kept if stored.polled]


class Notifications:
    """The notify socket, and a thread that reads it: heard has the last value of each variable that evapid has sent."""

    def __init__(self, path, most):
        self.path = path
        self.lock = threading.Lock()
        self.store = Store(most)
        self.heard = {}
        self.put_off = None  # what is asked of the store, or None: it is done at once
        self.synced = threading.Event()
        self.hears = threading.Event()
        self.hears.set()
        self.ends = False
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind(str(path))
        os.chmod(path, 0o777)  # whoever the service runs as may speak; the folder is shut
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def exchange(self, change):
        """Put change(name, descriptor) in the place of each descriptor that is kept; None: it is kept no more."""
        with self.lock:
            for stored in self.store.kept:
                stored.fd = change(stored.name, stored.fd)
            self.store.kept = [stored for stored in self.store.kept if stored.fd is not None]

    def _read(self):
        while not self.ends:
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            with self.lock:
                for fd in self.store.watched():
                    poll.register(fd, 0)  # POLLHUP and POLLERR come unasked
            # Nobody else adds to the store; who takes from it says so by the notify socket.
            ready = dict(poll.poll())
            heard = ready.pop(self.socket.fileno(), 0)
            with self.lock:
                self.store.drop(lambda stored: stored.fd in ready)
            self.hears.wait()
            if heard:
                self._receive()

    def _receive(self):
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
        bytes_, ancillary, _, _ = self.socket.recvmsg(MOST_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        descriptors = array.array("i")
        for level, kind, body in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(body[:len(body) - len(body) % descriptors.itemsize])
        lines = bytes_.decode(errors="replace").split("\n")
        self._take(dict(line.split("=", 1) for line in lines if "=" in line), list(descriptors))

    def _take(self, said, descriptors):
        with self.lock:
            asked = {key: said.pop(key) for key in ("FDNAME", "FDPOLL", "FDSTOREREMOVE", "FDSTORE") if key in said}
            if asked and self.put_off is not None:
                self.put_off.append((asked, descriptors))
            else:
                self._store(asked, descriptors)
            said.pop("BARRIER", None)
            if said.pop("X_SYNC", None) is not None:
                self.synced.set()
            self.heard.update(said)

    def _store(self, asked, descriptors):
        name = asked.get("FDNAME", "stored")
        if not is_name(name):
            name = "stored"
        if asked.get("FDSTOREREMOVE") == "1":
            self.store.drop(lambda stored: stored.name == name)
        elif asked.get("FDSTORE") == "1":
            while descriptors:
                self.store.add(descriptors.pop(0), name, asked.get("FDPOLL") != "0")
        for fd in descriptors:  # those of BARRIER=1: the sender sees the end when they are closed
            os.close(fd)

    def puts_off(self):
        """From now on the store stays as it is, whatever is asked of it: the service manager is slow."""
        with self.lock:
            self.put_off = []

    def catches_up(self):
        """What was put off is done, in its order."""
        with self.lock:
            for asked, descriptors in self.put_off or []:
                self._store(asked, descriptors)
            self.put_off = None

    def stops(self):
        """From now on nothing is read: the service manager is stuck."""
        self.hears.clear()

    def goes_on(self):
        self.hears.set()

    def _wake(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"X_SYNC=1", str(self.path))

    def sync(self):
        """Wait until all that has been sent so far is read."""
        self.synced.clear()
        self._wake()
        assert self.synced.wait(DEADLINE_S), "the thread that reads the notify socket has died"

    def forget(self):
        """What evapid has said about itself: a new one is about to start. What it has stored stays."""
        with self.lock:
            self.heard.clear()

    def release(self):
        """Close all that is stored."""
        self.catches_up()
        with self.lock:
            self.store.drop(lambda stored: True)
        self.sync()

    def close(self):
        self.release()
        self.ends = True  # which the thread may see before it reads anything more
        self._wake()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive(), "the thread that reads the notify socket does not end"
        self.socket.close()


class Supervised(Evapid):
    """evapid as a service. For a test it is an Evapid whose pid, popen and log are those of the latest start; all starts
    share one configuration. store: the most descriptors that are kept for it (FileDescriptorStoreMax), 0: none."""

    def __init__(self, folder, settings, environment=None, store=4096, before=()):
        self.path = folder / f"notify-{Evapid.count + 1}.sock"
        self.notifications = Notifications(self.path, store)
        self.starts, self.past_problems = 0, []
        super().__init__(folder, settings, environment, before=before)

    def start(self, command, environment=None, descriptors=()):
        """One more, with what is stored."""
        self.starts += 1
        self.log = self.folder / f"{self.name}-{self.starts}.log"
        self.command, self.environment = command, environment
        self.notifications.forget()
        with self.notifications.lock:
            kept = list(self.notifications.store.kept)
            fds = [stored.fd for stored in kept]
            given = {"NOTIFY_SOCKET": str(self.path)}
            if most := self.notifications.store.most:
                given["FDSTORE"] = str(most)
            if kept:
                given["LISTEN_FDS"] = str(len(kept))
                given["LISTEN_FDNAMES"] = ":".join(stored.name for stored in kept)
            launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, ",".join(map(str, fds))]
            super().start(launch + list(command), {**(environment or {}), **given}, fds)

    def heard(self, name):
        """The last value that evapid has sent of this variable since its start, or None."""
        with self.notifications.lock:
            return self.notifications.heard.get(name)

    def stored(self):
        """The names of what is kept, sorted. A name stands as often as there are descriptors of it."""
        self.notifications.sync()
        with self.notifications.lock:
            return sorted(stored.name for stored in self.notifications.store.kept)

    def refused(self):
        """How many descriptors were dropped because the store was full."""
        with self.notifications.lock:
            return self.notifications.store.refused

    def ready(self):
        """Wait until it has said so, and answers evapictl."""
        def look():
            assert self.alive(), f"evapid ended with {self.popen.returncode}: {self.tail(20)}"
            return self.heard("READY") == "1"
        until(look, "evapid says that it is ready")
        return super().ready()

    def main_pid(self):
        """That of the process that is the service now: another one than was started, if MAINPID= said so."""
        return int(self.heard("MAINPID") or self.popen.pid)

    def alive(self):
        pid = self.main_pid()
        return running(pid) if pid != self.popen.pid else super().alive()

    def signal(self, number):
        pid = self.main_pid()
        if pid != self.popen.pid:
            os.kill(pid, number)
        else:
            super().signal(number)

    def ended(self):
        """Wait until it has ended, and take in all that it has said. Returns its exit code, or 0 for a process that took
        the first one's place, whose code nobody knows."""
        pid = self.main_pid()
        if pid == self.popen.pid:
            code = super().ended()
        else:
            until(lambda: not running(pid) or stat_fields(pid) is None, f"process {pid} of {self.name} ends")
            code = 0
        self.expect_end = True
        self.notifications.sync()
        return code

    def start_again(self):
        """Once more, when it has ended."""
        self.past_problems += [problem for problem in super().problems() if problem not in self.past_problems]
        self.start(self.command, self.environment)
        return self.ready()

    def start_in_vain(self, unless_ready=False):
        """Once more, and it is expected to end by itself (unless_ready: or to be ready). Returns its exit code, or None."""
        self.start(self.command, self.environment)
        until(lambda: not self.alive() or (unless_ready and self.heard("READY") == "1"), "it ends by itself")
        return None if self.alive() else self.ended()

    def restart(self):
        """As systemctl restart: SIGTERM, and when it has ended another one with what is stored."""
        code = self.terminate()
        if code != 0:
            self.past_problems.append(f"{self.name} ended with {code} on SIGTERM")
        return self.start_again()

    def kill_and_restart(self):
        """SIGKILL, and as Restart=on-failure does, another one with what is stored."""
        self.expect_end = True
        self.signal(signal.SIGKILL)
        self.ended()
        return self.start_again()

    def stop(self):
        """As systemctl stop: SIGTERM, and what is stored is let go. Returns the exit code."""
        code = self.terminate()
        self.notifications.release()
        return code

    def problems(self):
        return self.past_problems + [found for found in super().problems() if found not in self.past_problems]

    def finish(self):
        self.notifications.goes_on()
        try:
            return super().finish()
        finally:
            self.notifications.release()

    def clean_up(self):
        super().clean_up()
        self.notifications.close()


def stored_as(evapid, name):
    """The supervisor's descriptor of that name."""
    with evapid.notifications.lock:
        return next(stored.fd for stored in evapid.notifications.store.kept if stored.name == name)
