"""Strangers at both Unix sockets of evapid: a program that plays hundreds of them, and its handle.

    python3 strangers.py SEED KAMAILIO_SOCKET CONTROL_SOCKET

Most say nothing. Some send what is no frame and no request, some pass descriptors, some ask and don't read the answer. Each
comes again as soon as evapid has closed its connection. None says a whole HELLO: who says one is Kamailio."""

import os
import random
import resource
import selectors
import socket
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "system/lib")]

import wire
from process import Process

TURN_S = 0.05
HELLO = wire.hello(pid=os.getpid())
GARBAGE = [b"\0", b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"{" * 300, b"{}\n", b"\n" * 50, b'{"command": "nothing"}\n', HELLO[:20],
           b"\0" * 5000, wire.frame(99, b"x")]
QUESTIONS = {"kamailio": wire.query(subject=wire.CLIENTS), "control": b'{"command": "status"}\n' * 3}


def silent(stranger):
    pass


def garbage(stranger):
    rng = stranger.random
    if rng.random() < 0.1:
        stranger.send(rng.choice(GARBAGE) if rng.random() < 0.7 else rng.randbytes(rng.choice((1, 50, 3000))))


def passes(stranger):
    rng = stranger.random
    if rng.random() < 0.1:
        files = [*os.pipe(), *(end.detach() for end in socket.socketpair()), os.memfd_create("stranger"), os.eventfd(0)]
        stranger.send(rng.choice((b"\0", b"{", HELLO[:30])), rng.sample(files, rng.randrange(1, len(files))))
        for fd in files:
            os.close(fd)


def asks(stranger):
    if stranger.random.random() < 0.05:
        stranger.send(QUESTIONS[stranger.door])


BEHAVIOURS = [(silent, 260), (garbage, 20), (passes, 20), (asks, 10)]  # at each socket: more than may be there at a time


class Stranger:
    def __init__(self, door, path, behaviour, random):
        self.door, self.path, self.behaviour, self.random = door, path, behaviour, random
        self.socket = None
        self.selector = None

    def turn(self):
        if self.socket is None:
            self._come()
        else:
            self.behaviour(self)
            if self.behaviour is not silent and self.random.random() < 0.02:
                self.go()

    def _come(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)
        try:
            self.socket.connect(self.path)
        except OSError:  # the queue is full, or nobody is there
            self.socket.close()
            self.socket = None
            return
        self.selector.register(self.socket, selectors.EVENT_READ, self)

    def send(self, bytes_, descriptors=()):
        try:
            socket.send_fds(self.socket, [bytes_], descriptors)
        except OSError:
            pass  # the reading side says it; or no descriptors may be passed

    def readable(self):
        if self.behaviour is asks:
            if self.random.random() > 0.01:
                return
        try:
            ended = not self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self.go()

    def go(self):
        self.selector.unregister(self.socket)
        self.socket.close()
        self.socket = None


def main():
    seed, *paths = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, most), most))
    selector, strangers = selectors.DefaultSelector(), []
    for door, path in zip(("kamailio", "control"), paths):
        for behaviour, count in BEHAVIOURS:
            strangers += [Stranger(door, path, behaviour, random.Random(f"{seed} {door} {behaviour.__name__} {number}"))
                          for number in range(count)]
    for stranger in strangers:
        stranger.selector = selector
    while True:
        for stranger in strangers:
            stranger.turn()
        for key, _ in selector.select(0):
            key.data.readable()
        time.sleep(TURN_S)


class StrangersProcess(Process):
    """The handle of them."""

    count = 0

    def __init__(self, folder, seed, evapid):
        StrangersProcess.count += 1
        super().__init__(f"strangers-{StrangersProcess.count}",
                         [sys.executable, "-B", __file__, seed, evapid.kamailio_socket, evapid.control_socket], folder)

    def problems(self):
        if self.popen.poll() is not None and not self.expect_end:
            return [f"{self.name} ended by themselves with {self.popen.returncode}: {self.tail(5)}"]
        return []

    def finish(self):
        found = self.problems()
        self.terminate()
        return found


if __name__ == "__main__":
    main()
