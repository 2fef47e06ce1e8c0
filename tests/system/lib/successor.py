"""A successor of the evapid that runs: one that is expected to fail, one that speaks the protocol by itself, and a real one with
somebody between the two. docs/protocol.md has the protocol."""

import json
import os
import socket
import threading

from evapid import Evapid, run_evapid
from process import DEADLINE_S

NAME = 32  # bytes of a descriptor's name
BATCH = 128  # descriptors with their names that come together


def try_replace(stage, *options, run=run_evapid, **settings):
    """A successor with these settings that is expected to fail: its exit code and what it said."""
    path = stage.folder / "successor.json"
    path.write_text(json.dumps({**stage.evapid.settings, **settings}, indent=4))
    ran = run(*options, "--replace", "-c", path)
    return ran.returncode, ran.stderr


def batches(descriptors):
    """How many come together, time after time."""
    return [min(BATCH, descriptors - at) for at in range(0, descriptors, BATCH)]


def close_all(descriptors):
    for descriptor in descriptors:
        os.close(descriptor)


def read_line(peer):
    """Up to the newline or the end, and not a byte more."""
    line = b""
    while not line.endswith(b"\n"):
        byte = peer.recv(1)
        if not byte:
            return line
        line += byte
    return line


class Successor:
    """One that speaks the protocol by itself, as far as a test wants."""

    def __init__(self, evapid):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(evapid.control_socket))

    def ask(self):
        self.socket.sendall(b'{"command":"replace"}\n')
        return self

    def line(self):
        return read_line(self.socket)

    def take(self):
        """All that is handed over, by name; the descriptors are closed."""
        answer = json.loads(self.line())
        names = []
        for count in batches(answer["replace"]["descriptors"]):
            bytes_, descriptors = self.batch(count)
            close_all(descriptors)
            names += [bytes_[i:i + NAME].rstrip(b"\0").decode() for i in range(0, len(bytes_), NAME)]
        return names

    def batch(self, count):
        """The next so many names, as they come, and descriptors."""
        bytes_, descriptors, _, _ = socket.recv_fds(self.socket, count * NAME, BATCH)
        while len(bytes_) < count * NAME:
            bytes_ += self.socket.recv(count * NAME - len(bytes_))
        assert len(descriptors) == count
        return bytes_, descriptors

    def say(self, bytes_):
        self.socket.sendall(bytes_)

    def rest(self):
        """All that still comes."""
        all_ = b""
        try:
            while more := self.socket.recv(4096):
                all_ += more
        except ConnectionResetError:
            pass
        return all_

    def close(self):
        self.socket.close()


class Between:
    """Stands where a successor looks for the evapid that runs, and passes on what the two say to each other: "ready", "go",
    "running". Before it passes one of them on it asks at(step): False lets both down, and the evapid that runs first. Of the
    descriptors it passes on what change(name, descriptor) makes of them."""

    def __init__(self, stage, at, change=lambda name, descriptor: descriptor):
        self.evapid, self.at, self.change = stage.evapid, at, change
        self.path = stage.folder / "between.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(self.path))
        self.socket.listen()
        self.socket.settimeout(DEADLINE_S)
        self.failure = None
        self.thread = threading.Thread(target=self._try)
        self.thread.start()

    def _try(self):
        try:
            with self.socket, self.socket.accept()[0] as peer:
                os.unlink(self.path)  # the successor's own socket is to be there
                peer.settimeout(DEADLINE_S)
                self._pass(peer)
        except BaseException as failure:  # pylint: disable=broad-except
            self.failure = failure

    def _pass(self, peer):
        assert read_line(peer) == b'{"command":"replace"}\n'
        predecessor = Successor(self.evapid).ask()
        line = predecessor.line()
        peer.sendall(line)
        for count in batches(json.loads(line)["replace"]["descriptors"]):
            bytes_, descriptors = predecessor.batch(count)
            names = [bytes_[i:i + NAME].rstrip(b"\0").decode() for i in range(0, len(bytes_), NAME)]
            descriptors = [self.change(name, descriptor) for name, descriptor in zip(names, descriptors)]
            socket.send_fds(peer, [bytes_], descriptors)
            close_all(descriptors)
        for step, source, target in (("ready", peer, predecessor.socket), ("go", predecessor.socket, peer),
                                     ("running", peer, predecessor.socket)):
            said = read_line(source)
            if said != step.encode() + b"\n" or not self.at(step):
                break
            target.sendall(said)
        predecessor.close()
        if self.evapid.alive() and not self.evapid.expect_end:
            self.evapid.logged("not replaced: .*; going on")

    def ended(self):
        self.thread.join(2 * DEADLINE_S)
        if self.failure is not None:
            raise self.failure


def succeed(stage, at, **more):
    """A real successor of the evapid that runs, with somebody between them. at(successor, step) and more: as for Between."""
    there = threading.Event()

    def ask_at(step):
        there.wait(DEADLINE_S)
        return at(successor, step)
    between = Between(stage, ask_at, **more)
    successor = Evapid(stage.folder, {**stage.evapid.settings, "control_socket": str(between.path)}, options=["--replace"])
    stage.processes.append(successor)
    there.set()
    return between, successor
