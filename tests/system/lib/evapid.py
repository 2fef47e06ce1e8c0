"""evapid, and evapictl to look into it.

EVAPID_BUILD names the folder of both; EVAPID_MODULE the Kamailio module (which is never sanitized). EVAPID_WRAPPER is a
command that runs evapid, valgrind for instance."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

from process import DEADLINE_S, Process, until

ROOT = Path(__file__).resolve().parents[3]


def from_root(path):
    return path if os.path.isabs(path) else str(ROOT / path)


BUILD = Path(from_root(os.environ.get("EVAPID_BUILD", "build/release")))
MODULE = from_root(os.environ.get("EVAPID_MODULE", "build/release/evapi.so"))
EVAPID = BUILD / "evapid"
EVAPICTL = BUILD / "evapictl"
WRAPPER = shlex.split(os.environ.get("EVAPID_WRAPPER", ""))

# A small quarantine, so that memory that is given back is not taken for a leak by the tests that look at it.
SANITIZER = {"ASAN_OPTIONS": "exitcode=99:quarantine_size_mb=4:malloc_context_size=12",
             "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99"}
SANITIZED = re.compile(r"AddressSanitizer|LeakSanitizer|UndefinedBehaviorSanitizer|runtime error:|Assertion .* failed")
# What valgrind says with --track-fds=yes of those that are open in the end, but for a descriptor of its own file that it
# lets slip.
OPEN_AT_EXIT = re.compile(r"^==\d+== (Open (?:file descriptor|\w+ socket) (?!\d+: /usr/bin/valgrind).*)", re.M)


def evapictl(socket, *words, timeout_s=DEADLINE_S):
    """Run evapictl to its end; returns what subprocess.run does, with text."""
    command = [str(EVAPICTL), "-s", str(socket), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **SANITIZER})


def run_evapid(*words, environment=None):
    """Run evapid where it is expected to end by itself."""
    return subprocess.run([str(EVAPID), *map(str, words)], capture_output=True, text=True, timeout=DEADLINE_S,
                          env={**os.environ, **SANITIZER, **(environment or {})})


class Evapid(Process):
    """evapid with its own configuration file and sockets in folder. settings override or add to the file's keys. before: the
    command that becomes evapid, instead of evapid itself."""

    count = 0

    def __init__(self, folder, settings, environment=None, options=(), before=()):
        self.settings = {"kamailio_socket": str(folder / "kamailio.sock"), "control_socket": str(folder / "control.sock"),
                         "log": {"level": "debug"}, **settings}
        self.kamailio_socket = Path(self.settings["kamailio_socket"])
        self.control_socket = Path(self.settings["control_socket"])
        self.config = folder / "evapid.json"
        self.config.write_text(json.dumps(self.settings, indent=4))
        Evapid.count += 1
        super().__init__(f"evapid-{Evapid.count}", [*before, *WRAPPER, EVAPID, *options, "-c", self.config], folder,
                         {**SANITIZER, **(environment or {})})

    def ready(self):
        """Wait until it answers."""
        def look():
            assert self.alive(), f"evapid ended with {self.popen.returncode}: {self.tail(20)}"
            return self.status()
        until(look, "evapid answers at its control socket")
        return self

    def ctl(self, *words):
        return evapictl(self.control_socket, *words)

    def ask(self, **request):
        """The answer to a request by the control socket."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(DEADLINE_S)
            asking.connect(str(self.control_socket))
            asking.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(asking.makefile("rb").readline())

    def configure(self, **settings):
        """Change the file, which it reads when it is told to, or by its successor."""
        self.settings.update(settings)
        self.config.write_text(json.dumps(self.settings, indent=4))

    def reload(self, **settings):
        """Have it take over these settings besides; returns what has changed by that."""
        self.configure(**settings)
        answer = self.ask(command="reload")
        self.control_socket = Path(self.settings["control_socket"])
        self.kamailio_socket = Path(self.settings["kamailio_socket"])
        assert list(answer) == ["reload"], answer
        return answer["reload"]

    def reload_in_vain(self, **settings):
        """Settings that it can't take over; returns why, and puts the file back."""
        before = dict(self.settings)
        self.configure(**settings)
        answer = self.ask(command="reload")
        self.settings = before
        self.configure()
        assert answer["error"] == "not reloaded", answer
        return answer["detail"]

    def status(self):
        """The status, as `evapictl status --json` prints it. It is asked for at the socket: most tests ask many times, and a process
        each time is slow."""
        try:
            answer = self.ask(command="status")
        except (OSError, ValueError) as error:
            raise AssertionError(f"the control socket gives no answer: {error}") from error
        assert "error" not in answer, answer
        return answer

    def until_status(self, probe, what):
        """Wait until probe(status) is true; returns that status."""
        def look():
            seen = self.status()
            assert probe(seen), json.dumps(seen)
            return seen
        return until(look, what)

    def attached(self, pid=None, workers=None):
        """Wait until Kamailio (of that pid) is attached with all its workers; returns the status."""
        def whole(status):
            kamailio = status["kamailio"]
            return (kamailio["state"] == "attached" and pid in (None, kamailio["pid"]) and
                    workers in (None, len(kamailio["workers"])))
        return self.until_status(whole, f"Kamailio {pid or ''} is attached with {workers or 'its'} workers")

    def detached(self):
        return self.until_status(lambda s: s["kamailio"]["state"] == "detached", "Kamailio is detached")

    def listening(self, address):
        def there(status):
            return any(at["address"] == address and at["state"] == "listening" for at in status["listeners"])
        return self.until_status(there, f"a listener at {address}")

    def client(self, client, state="open"):
        """Wait until the client is in that state; returns its entry in the status."""
        def find(status):
            return [entry for entry in status["clients"] if entry["state"] == state and is_of(entry, client)]
        status = self.until_status(find, f"the client from port {client.port} is {state}")
        return find(status)[0]

    def clients(self, count):
        """Wait until so many clients are open, and no other is there."""
        return self.until_status(
            lambda s: len(s["clients"]) == count and all(entry["state"] == "open" for entry in s["clients"]),
            f"{count} clients are open")

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def own_bytes(self):
        """Its memory without what it shares: the ring's pages come as events pass, until each has been written once."""
        with open(f"/proc/{self.pid}/statm") as statm:
            resident, shared = map(int, statm.read().split()[1:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")

    def asked(self):
        """Has anybody a connection to the control socket, or has had one that evapid has not closed yet?"""
        with open(f"/proc/{self.pid}/net/unix") as table:
            return any(line.split()[5] != "01" and line.endswith(f" {self.control_socket}\n") for line in table)

    def descriptors(self):
        """The descriptors that it has open, when it has closed those of all who asked something: number and what it is."""
        until(lambda: not self.asked(), "evapid has closed its control connections")
        return open_by(self.pid)

    def stopped(self):
        """SIGSTOP, and wait until it has stopped."""
        self.signal(signal.SIGSTOP)
        until(lambda: open(f"/proc/{self.pid}/stat").read().rsplit(") ", 1)[1][0] == "T", "evapid has stopped")

    def goes_on(self):
        self.signal(signal.SIGCONT)

    def problems(self):
        """What no run of evapid may leave behind."""
        found = []
        if self.popen.poll() is not None and not self.expect_end:
            found.append(f"{self.name} ended by itself with {self.popen.returncode}")
        text = self.text()
        if reports := SANITIZED.findall(text):
            found.append(f"{self.name} logged {reports[0]}")
        if " evapid: stopped: " in text:  # else all that is open is somebody else's by now
            found += [f"{self.name} under valgrind: {left}" for left in OPEN_AT_EXIT.findall(text)]
        return found

    def finish(self):
        """End it as an operator does; returns what was wrong."""
        found = self.problems()
        if self.alive():
            code = self.terminate()
            if code != 0:
                found.append(f"{self.name} ended with {code} on SIGTERM")
            found += [problem for problem in self.problems() if problem not in found]
        return found


def open_by(pid):
    """The descriptors that a process has open: number and what it is."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass  # closed meanwhile
    return found


def is_of(entry, client):
    """Is the status entry that of the client? Clients of two addresses may have the same port, and so may clients of two listeners.
    At a Unix socket all of a user's clients have the same address."""
    if client.host == "unix":
        return entry["address"] == f"unix:{client.port}" and entry["index"] not in client.others and \
            client.index in (None, entry["index"])
    host, _, port = entry["address"].rpartition(":")
    listener_port = (entry["listener"] or f":{client.server_port}").rpartition(":")[2]
    return (host.strip("[]"), port, listener_port) == (client.host, str(client.port), str(client.server_port))
