"""Frames of the Kamailio socket, for a test that speaks in a worker's place. include/evapid/wire.h has the layout."""

import array
import socket
import struct

from process import DEADLINE_S

HELLO, WELCOME, REFUSED, NOTICE, NEW, CLOSED, MESSAGE = range(1, 8)
VERSION = 2


def text(bytes_):
    return struct.pack("<H", len(bytes_)) + bytes_


def frame(kind, body):
    return struct.pack("<II", len(body), kind) + body


def hello(version=VERSION, instance=1, pid=1, worker=0, workers=1, max_clients=8, framing=0, bind_addr=b"",
          magic=b"evapid\0\0"):
    return frame(HELLO, magic + struct.pack("<IQIHHIB", version, instance, pid, worker, workers, max_clients, framing) +
                 text(bind_addr) + text(b"0.0") + text(b"5.6.3"))


def event(body):
    """An event's sequence, connection, port, address, tag and message."""
    sequence, connection, _, port, length = struct.unpack_from("<QIQHB", body)
    address, rest = body[23:23 + length], body[23 + length:]
    return sequence, connection, port, address, rest[1:1 + rest[0]], rest[1 + rest[0]:]


def read_ns(body):
    """When evapid had read the event's message, by CLOCK_MONOTONIC."""
    return struct.unpack_from("<Q", body, 12)[0]


class Link:
    """A connection to the Kamailio socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))

    def send(self, bytes_, descriptors=()):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self.socket.sendmsg([bytes_], rights)
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed before it has all come: the test sees that when it reads

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
