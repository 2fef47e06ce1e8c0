"""An application on the bus: one connection, by TCP or a Unix socket, that speaks netstrings, or raw bytes."""

import fcntl
import os
import selectors
import socket
import struct
import time

from process import DEADLINE_S, until

SIOCOUTQ = 0x5411  # bytes in the send queue that the peer's kernel has not acknowledged


def netstring(payload):
    return b"%d:%s," % (len(payload), payload)


def split_address(address):
    """ "127.0.0.1:80" or "[::1]:80" as host and port."""
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


class Client:
    """Blocking, with a deadline on everything. receive_buffer: bytes of SO_RCVBUF, to stall early. source: the address to
    come from."""

    def __init__(self, address, receive_buffer=None, source=None):
        self.index, self.others = None, ()
        self.buffer = bytearray()
        self.eof = False
        if address.startswith("unix:"):
            self._connect_unix(address.removeprefix("unix:"))
            return
        host, port = split_address(address)
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(self.family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(DEADLINE_S)
        if source is not None:
            self.socket.bind((source, 0))
        self.socket.connect((host, port))
        self.host, self.port = self.socket.getsockname()[:2]
        self.server_port = port

    def _connect_unix(self, path):
        """evapid shows the user, in place of host and port: clients of one user differ by their index (Stage.connect)."""
        self.family = socket.AF_UNIX
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(path)
        self.host, self.port, self.server_port = "unix", os.getuid(), None

    def send(self, payload):
        """One message."""
        self.send_bytes(netstring(payload))

    def send_bytes(self, bytes_):
        self.socket.sendall(bytes_)

    def send_apart(self, parts):
        """Send parts so that evapid reads each by itself: the next leaves when the one before has been read."""
        for part in parts:
            self.send_bytes(part)
            self.wait_read()

    def wait_read(self):
        """Wait until evapid has read all that was sent: nothing is left in our send queue or in its receive queue."""
        until(lambda: self._unacknowledged() == 0 and self._unread_by_peer() == 0, "evapid reads what was sent")

    def _unacknowledged(self):
        return struct.unpack("i", fcntl.ioctl(self.socket, SIOCOUTQ, b"\0\0\0\0"))[0]

    def _unread_by_peer(self):
        """Bytes in the receive queue of evapid's end: rx_queue of /proc/net/tcp, 0 when that end has been closed."""
        local, remote = f":{self.server_port:04X}", f":{self.port:04X}"
        with open("/proc/net/tcp6" if self.family == socket.AF_INET6 else "/proc/net/tcp") as table:
            for line in table:
                fields = line.split()
                if fields[1].endswith(local) and fields[2].endswith(remote):
                    return int(fields[4].split(":")[1], 16)
        return 0

    def _take(self):
        """A whole frame out of the buffer, or None; anything but a netstring is a failure."""
        colon = self.buffer.find(b":", 0, 12)
        if colon < 0:
            assert len(self.buffer) < 12, f"no netstring: {bytes(self.buffer[:40])!r}"
            return None
        digits = bytes(self.buffer[:colon])
        assert digits.isdigit(), f"no netstring: {bytes(self.buffer[:40])!r}"
        end = colon + 1 + int(digits)
        if len(self.buffer) <= end:
            return None
        assert self.buffer[end] == ord(","), f"no comma: {bytes(self.buffer[:40])!r}"
        payload = bytes(self.buffer[colon + 1:end])
        del self.buffer[:end + 1]
        return payload

    def _fill(self):
        """More bytes into the buffer; False at the end of the stream. A reset is an end as well."""
        try:
            more = self.socket.recv(1 << 18)
        except ConnectionResetError:
            more = b""
        except TimeoutError:
            raise AssertionError(f"nothing received in {DEADLINE_S:g} s; in the buffer: {bytes(self.buffer[:200])!r}")
        self.eof = self.eof or not more
        self.buffer += more
        return bool(more)

    def receive(self):
        """The next event, as bytes."""
        while True:
            payload = self._take()
            if payload is not None:
                return payload
            assert self._fill(), f"closed by evapid; in the buffer: {bytes(self.buffer[:200])!r}"

    def receive_many(self, count):
        return [self.receive() for _ in range(count)]

    def receive_ready(self):
        """The events that are there, without waiting for more."""
        self.socket.setblocking(False)
        try:
            while self._fill():
                pass
        except BlockingIOError:
            pass
        self.socket.settimeout(DEADLINE_S)
        events = []
        while (payload := self._take()) is not None:
            events.append(payload)
        return events

    def receive_until(self, last):
        """All events up to the one that is last, without it."""
        events = []
        while (event := self.receive()) != last:
            events.append(event)
        return events

    def receive_bytes(self, count):
        """Exactly count bytes, whatever the framing."""
        while len(self.buffer) < count:
            assert self._fill(), f"closed by evapid after {len(self.buffer)} of {count} bytes"
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def receive_rest(self):
        """All events until evapid closes; nothing of a frame may be left then."""
        events = []
        while True:
            while (payload := self._take()) is not None:
                events.append(payload)
            if not self._fill():
                assert not self.buffer, f"the stream ended in a frame: {bytes(self.buffer[:200])!r}"
                return events

    def exchange(self, sent, count):
        """Send bytes and receive count events at the same time."""
        view, events = memoryview(sent), []
        end = time.monotonic() + 2 * DEADLINE_S
        self.socket.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while len(events) < count:
                assert time.monotonic() < end, f"{len(events)} of {count} events, {len(view)} bytes not sent yet"
                for _, ready in selector.select(1):
                    if ready & selectors.EVENT_WRITE and view:
                        view = view[self.socket.send(view[:1 << 18]):]
                        if not view:
                            selector.modify(self.socket, selectors.EVENT_READ)
                    if ready & selectors.EVENT_READ:
                        assert self._fill(), f"closed by evapid after {len(events)} of {count} events"
                        while (payload := self._take()) is not None:
                            events.append(payload)
        self.socket.settimeout(DEADLINE_S)
        return events

    def send_all_it_takes(self, bytes_, most):
        """Send bytes again and again until most have been sent, or the peer takes no more for a moment. Returns how many
        were sent."""
        sent, idle = 0, 0
        self.socket.setblocking(False)
        while sent < most and idle < 50:
            try:
                at = sent % len(bytes_)
                sent += self.socket.send(memoryview(bytes_)[at:])
                idle = 0
            except BlockingIOError:
                idle += 1
                time.sleep(0.01)
        self.socket.settimeout(DEADLINE_S)
        return sent

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """Close with a reset: what is under way is lost."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        self.socket.close()


def refused(address):
    """Is a connection to address refused, for nobody listens there?"""
    try:
        Client(address).close()
    except ConnectionRefusedError:
        return True
    return False
