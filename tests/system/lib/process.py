"""A program that a test starts, with its log; and waiting for something to become true.

Every process runs in a session of its own, so that all that it forks can be found again, also after it has died. This
process adopts their orphans (prctl PR_SET_CHILD_SUBREAPER), so that a process that has ended is really gone. Processes
are signalled by their pid, never by name."""

import ctypes
import os
import re
import signal
import subprocess
import time

DEADLINE_S = 30.0  # how long something may take before a test gives up: never a promise about speed
POLL_S = 0.01

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
prctl = ctypes.CDLL(None).prctl
prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_us():
    """In a process that is about to become the program: it gets SIGTERM should the tests be killed."""
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def until(probe, what, deadline_s=DEADLINE_S):
    """Call probe until it returns something true, and return that; fail after deadline_s with what was awaited, and the
    last thing that probe said. An AssertionError in probe counts as "not yet"."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            seen = probe()
        except AssertionError as error:
            seen, last = None, str(error)
        else:
            last = repr(seen)
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what}; at the end: {last[:2000]}")
        time.sleep(POLL_S)


def stat_fields(pid):
    """State, parent and session of a process, or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rsplit(b") ", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0].decode(), int(fields[1]), int(fields[3])


def running(pid):
    """Is there such a process? One of our orphans that has ended is laid to rest."""
    fields = stat_fields(pid)
    if fields is None:
        return False
    if fields[0] == "Z" and fields[1] == os.getpid():
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
    return fields[0] not in "ZX"


def session_members(session):
    """The pids of all living processes of a session."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat_fields(int(name))
            if fields is not None and fields[2] == session and fields[0] not in "ZX":
                members.append(int(name))
    return members


class Process:
    """A started program. Its output and errors go to a file, which is read again for each look."""

    def __init__(self, name, command, folder, environment=None):
        self.name, self.folder = name, folder
        self.log = folder / f"{name}.log"
        self.start(command, environment)

    def start(self, command, environment=None, descriptors=()):
        """Start the program. It inherits descriptors, under the numbers that they have here."""
        self.expect_end = False
        with open(self.log, "ab") as output:
            self.popen = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder,
                env={**os.environ, **(environment or {})}, start_new_session=True, preexec_fn=end_with_us,
                pass_fds=descriptors)
        self.pid = self.popen.pid
        self.seen = {self.pid}

    def text(self):
        return self.log.read_text(errors="replace")

    def lines(self, pattern):
        """The lines of the log in which the pattern is found. A last line without its newline is left out while the program runs: it
        may not be whole."""
        going_on = self.alive()
        text = self.text()
        whole = text[:text.rfind("\n") + 1] if going_on else text
        return [line for line in whole.splitlines() if re.search(pattern, line)]

    def logged(self, pattern, count=1):
        """Wait until the log has count lines with the pattern, and return them."""
        def look():
            found = self.lines(pattern)
            assert len(found) >= count, f"{len(found)} of {count} lines"
            return found
        return until(look, f"{self.name} logs /{pattern}/")

    def tail(self, count=60):
        return "\n".join(self.text().splitlines()[-count:])

    def alive(self):
        return self.popen.poll() is None

    def members(self):
        """All living processes that it has become."""
        found = session_members(self.pid)
        self.seen.update(found)
        return found

    def signal(self, number):
        self.popen.send_signal(number)

    def ended(self):
        """Wait until it has ended, and all that it had forked; return its exit code (-N: by signal N)."""
        code = until(lambda: self.popen.poll() is not None and [self.popen.returncode], f"{self.name} ends")[0]
        self.expect_end = True
        until(lambda: not self.members(), f"all processes of {self.name} end")
        for pid in self.seen:
            running(pid)
        return code

    def terminate(self):
        """SIGTERM to the main process; return its exit code when all have ended."""
        self.members()
        self.expect_end = True
        if self.alive():
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self):
        """SIGKILL to the main process, then to each one that it had forked."""
        self.members()
        self.expect_end = True
        if self.alive():
            self.signal(signal.SIGKILL)
            self.popen.wait()
        for pid in self.members():
            os.kill(pid, signal.SIGKILL)
        self.ended()

    def clean_up(self):
        """Whatever state it is in, leave nothing running."""
        if self.alive() or self.members():
            self.kill()
