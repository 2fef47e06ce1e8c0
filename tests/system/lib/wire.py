"""Frames of the Kamailio socket, for a test that speaks in a worker's place. include/evapid/wire.h has the layout."""

import array
import socket
import struct
import time

from process import DEADLINE_S, POLL_S

HELLO, WELCOME, REFUSED, NOTICE, NEW, CLOSED, MESSAGE, QUERY, ANSWER = range(1, 10)
STATUS, CLIENTS = 1, 2  # what a QUERY asks for
VERSION = 3


def text(bytes_):
    return struct.pack("<H", len(bytes_)) + bytes_


def frame(kind, body):
    return struct.pack("<II", len(body), kind) + body


def hello(version=VERSION, instance=1, pid=1, worker=0, workers=1, max_clients=8, framing=0, keep_clients=1, bind_addr=b"",
          magic=b"evapid\0\0"):
    return frame(HELLO, magic + struct.pack("<IQIHHIBB", version, instance, pid, worker, workers, max_clients, framing, keep_clients) +
                 text(bind_addr) + text(b"0.0") + text(b"5.6.3"))


def query(subject=STATUS, after=0, limit=100, version=VERSION, magic=b"evapid\0\0"):
    return frame(QUERY, magic + struct.pack("<IBIH", version, subject, after, limit))


def answer(body):
    """What an ANSWER says: structs as dictionaries, lists of them as lists."""
    def items(at):
        found = {}
        while at < len(body) and body[at]:
            kind, length = body[at], body[at + 1]
            name, at = body[at + 2:at + 2 + length].decode(), at + 2 + length
            if kind == 1:
                found[name], at = items(at)
            elif kind == 2:
                found[name] = []
                while body[at]:
                    inner, at = items(at + 2)
                    found[name].append(inner)
                at += 1
            elif kind == 3:
                found[name], at = int.from_bytes(body[at:at + 8], "little"), at + 8
            else:
                size = int.from_bytes(body[at:at + 2], "little")
                found[name], at = body[at + 2:at + 2 + size].decode(), at + 2 + size
        return found, at + 1
    found, end = items(0)
    assert end == len(body) + 1, body
    return found


def event(body):
    """An event's sequence, connection, port, address, tag and message."""
    sequence, connection, _, port, _, length = struct.unpack_from("<QIQHBB", body)
    address, rest = body[24:24 + length], body[24 + length:]
    return sequence, connection, port, address, rest[1:1 + rest[0]], rest[1 + rest[0]:]


def read_ns(body):
    """When evapid had read the event's message, by CLOCK_MONOTONIC."""
    return struct.unpack_from("<Q", body, 12)[0]


def again(body):
    """Has the event's client been let in before?"""
    assert body[22] in (0, 1)
    return body[22] == 1


class Link:
    """A connection to the Kamailio socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))

    def send(self, bytes_, descriptors=()):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            while not self._sent(bytes_, rights):
                time.sleep(POLL_S)
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed before it has all come: the test sees that when it reads

    def _sent(self, bytes_, rights):
        """False: evapid has not let the connection in yet, and the kernel takes no descriptors for it."""
        try:
            self.socket.sendmsg([bytes_], rights)
        except PermissionError:
            return False
        return True

    def frame(self):
        """The next frame: its type and body."""
        length, kind = struct.unpack("<II", self._exactly(8))
        return kind, self._exactly(length)

    def _exactly(self, count):
        bytes_ = b""
        while len(bytes_) < count:
            more = self.socket.recv(count - len(bytes_))
            assert more, f"closed after {bytes_!r}"
            bytes_ += more
        return bytes_

    def read(self):
        """All bytes until evapid closes."""
        all_ = b""
        try:
            while more := self.socket.recv(65536):
                all_ += more
        except ConnectionResetError:
            pass
        return all_

    def refused(self):
        """Wait until evapid has closed, and return version and reason of the REFUSED that it sent before."""
        all_ = self.read()
        assert len(all_) >= 8, f"closed with {all_!r}"
        length, kind = struct.unpack_from("<II", all_)
        assert kind == REFUSED and len(all_) == 8 + length, all_
        version, size = struct.unpack_from("<IH", all_, 8)
        assert size == length - 6
        return version, all_[14:].decode()

    def close(self):
        self.socket.close()
