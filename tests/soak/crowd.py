"""The clients of the soak: a program that plays some of them, and its handle.

    python3 crowd.py CONTROL residents|visitors SEED LISTENER=ADDRESS...

Listeners are called as the roles that come to them; "kept" is that of applications that are restarted, "module" that of all
others. Somebody connects to the Unix socket
CONTROL and sends a line, "quiet" (behave no more, read all) or "report"; a line of JSON says then what
has been seen. What must not happen is printed, a line each: "violation:"; "torn:" for a stream that ended within a frame;
"early:" for an event that came before connection-new had let its client in."""

import json
import os
import random
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "system/lib")]

from event import merged
from process import DEADLINE_S, Process, until
from roles import RESIDENTS, VISITORS, Restarter

TURN_S = 0.05


class Crowd:
    """All the apps of a process, and the one who asks about them."""

    def __init__(self, control, apps):
        self.apps, self.quiet = apps, False
        self.selector = selectors.DefaultSelector()
        self.watched = {}  # app: its connection that is in the selector
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(control)
        self.listener.listen()
        self.selector.register(self.listener, selectors.EVENT_READ, None)

    def play(self):
        next_turn = 0.0
        while True:
            now = time.monotonic()
            if now >= next_turn:
                for app in self.apps:
                    app.turn(now)
                next_turn = now + TURN_S
            self._watch()
            for key, _ in self.selector.select(max(0, next_turn - time.monotonic())):
                if key.data is None:
                    self._answer()
                elif key.data.connection is self.watched.get(key.data):
                    key.data.readable()

    def _watch(self):
        """Have the selector know the connections of those who want to read."""
        wanted = {app: app.connection if app.reading else None for app in self.apps}
        # First those that go: a descriptor that has been closed may be another connection's by now. The selector finds a
        # closed socket by its object.
        for app, known in list(self.watched.items()):
            if known is not wanted[app]:
                self.selector.unregister(known.socket)
                del self.watched[app]
        for app, connection in wanted.items():
            if connection is not None and app not in self.watched:
                self.selector.register(connection.socket, selectors.EVENT_READ, app)
                self.watched[app] = connection

    def _answer(self):
        asker, _ = self.listener.accept()
        with asker, asker.makefile("rw") as stream:
            if stream.readline().strip() == "quiet":
                for app in self.apps:
                    app.quiet = True
                    app.on_quiet()
            json.dump(self.report(), stream)

    def report(self):
        seen = {}
        for app in self.apps:
            for key, runs in app.seen().items():
                seen.setdefault(key, []).append(runs)
        return {"apps": [app.report() for app in self.apps],
                "seen": [[kind, source, merged(runs)] for (kind, source), runs in seen.items()]}


class CrowdProcess(Process):
    """The handle of one."""

    count = 0

    def __init__(self, folder, kind, seed, addresses):
        CrowdProcess.count += 1
        name = f"{kind}-{CrowdProcess.count}"
        self.control = folder / f"{name}.sock"
        super().__init__(name, [sys.executable, "-B", __file__, self.control, kind, seed,
                                *(f"{name}={address}" for name, address in addresses.items())], folder)
        until(self.control.exists, f"{name} is there")

    def ask(self, word):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
            asker.settimeout(DEADLINE_S)
            asker.connect(str(self.control))
            asker.sendall(word.encode() + b"\n")
            with asker.makefile() as stream:
                return json.load(stream)

    def problems(self):
        if self.popen.poll() is not None and not self.expect_end:
            return [f"{self.name} ended by itself with {self.popen.returncode}: {self.tail(5)}"]
        return []

    def finish(self):
        found = self.problems()
        self.terminate()
        return found


def main():
    control, kind, seed, *listeners = sys.argv[1:]
    addresses = dict(word.split("=", 1) for word in listeners)
    apps = []
    for role, count in RESIDENTS if kind == "residents" else VISITORS:
        address = addresses.get("kept" if issubclass(role, Restarter) else role.role, addresses["module"])
        apps += [role(number, address, random.Random(f"{seed} {role.role} {number}")) for number in range(count)]
    crowd = Crowd(control, apps)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    crowd.play()


if __name__ == "__main__":
    main()
