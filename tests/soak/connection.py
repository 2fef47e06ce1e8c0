"""A connection of a client of the soak: what came on it, and what was sent."""

import socket
import struct
import time

from client import netstring, split_address
from event import Event, Runs, Violation, take_netstring, take_raw

READ_BYTES = 1 << 18


class Connection:
    """frames, bytes: received; messages: begun to be sent. ended: None, or why it has: "closed", "reset"."""

    def __init__(self, address, framing="netstring", receive_buffer=None, source=None):
        self.take = take_raw if framing == "raw" else take_netstring
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            # And segments as in an Ethernet: for those of the loopback the other side would keep megabytes to send.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        self.socket.settimeout(5)
        try:
            if source is not None:
                self.socket.bind((source, 0))
            self.socket.connect(split_address(address))
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.buffer, self.output = bytearray(), bytearray()
        self.frames = self.bytes = self.messages = 0
        self.connected = time.time()
        self.runs = Runs()
        self.index = self.began = None  # by its first event: evapid's index of it, and when that was
        self.early = None  # an event that came before connection-new's own
        self.early_last = {}  # the last number of such, by kind and source
        self.ended = None

    def read(self, most=READ_BYTES):
        """Up to most bytes; the events that are whole by that."""
        try:
            more = self.socket.recv(most)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            self.ended = "reset"
            return []
        except OSError as error:
            raise Violation(f"recv: {error}") from None
        if not more:
            self.ended = "closed"
        self.bytes += len(more)
        self.buffer += more
        events = []
        while (frame := self.take(self.buffer)) is not None:
            self.frames += 1
            events.append(self._event(Event(frame)))
        return events

    def _event(self, event):
        self.runs.take(event)
        if event.kind == "W":
            index = int(event.rest)
            if self.index not in (None, index):
                raise Violation(f"connection {self.index} is announced as {index}")
            self.index = index
            self.began = self.began or time.time()
        elif self.index is None:
            self.early = self.early or event
            self.early_last[event.kind, event.source] = event.number
        return event

    def torn(self):
        """Has the stream ended within a frame?"""
        return self.ended is not None and bool(self.buffer)

    def send(self, message):
        self.messages += 1
        self.send_bytes(netstring(message))

    def send_bytes(self, bytes_):
        self.output += bytes_
        self.flush()

    def flush(self):
        try:
            while self.output:
                del self.output[:self.socket.send(self.output[:READ_BYTES])]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self.output.clear()  # the reading side says it

    def half_close(self):
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # reset meanwhile

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self):
        self.socket.close()
