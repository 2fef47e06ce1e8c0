"""A connection to evapid that comes back whenever it is lost."""

import logging
import random
import select
import signal
import socket
import time

from netstring import Decoder, FrameError, encode

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
CONNECT_S = SEND_S = 5.0
READ_BYTES = 65536

log = logging.getLogger("bus")


class Bus:
    """Each connection is a new client to Kamailio, without a tag: hello is sent first on each, and says what is
    wanted."""

    def __init__(self, host, port, hello):
        self.address, self.hello = (host, port), hello
        self.socket, self.decoder = None, None
        self.failures, self.since, self.next_try = 0, 0.0, 0.0
        # A signal ends a wait, even one that comes just before it: the interpreter sends a byte for each.
        self.signals, self.signalled = socket.socketpair()
        self.signalled.setblocking(False)
        signal.set_wakeup_fd(self.signalled.fileno())

    def receive(self, wait_s):
        """The events that come within wait_s: those of one read, or none. Connects when there is no connection."""
        if self.socket is None and time.monotonic() >= self.next_try:
            self._connect()
        if self.socket is None:
            wait_s = min(wait_s, max(0.0, self.next_try - time.monotonic()))
        return self._read() if self.rest(wait_s, reading=self.socket is not None) else []

    def rest(self, wait_s, reading=False):
        """Wait for a signal. reading: or for events, and say whether there are some."""
        watched = [self.signals, self.socket] if reading else [self.signals]
        ready, _, _ = select.select(watched, [], [], wait_s)
        if self.signals in ready:
            self.signals.recv(READ_BYTES)
        return self.socket in ready

    def send(self, *messages):
        """Send messages. They are lost when there is no connection; what they confirm comes again then."""
        if self.socket is None:
            return
        try:
            self.socket.sendall(b"".join(map(encode, messages)))
        except OSError as error:
            self._lost(error)

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _connect(self):
        self.since = time.monotonic()
        try:
            self.socket = socket.create_connection(self.address, timeout=CONNECT_S)
            self.socket.settimeout(SEND_S)  # who takes nothing for so long is not there
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError as error:
            self._lost(error)
            return
        log.info("connected to %s:%d", *self.address)
        self.decoder = Decoder()
        self.send(self.hello)

    def _read(self):
        events = []
        try:
            piece = self.socket.recv(READ_BYTES)
            if not piece:
                raise ConnectionError("closed by evapid")
            events.extend(self.decoder.push(piece))
        except (OSError, FrameError) as error:
            self._lost(error)
        return events

    def _lost(self, reason):
        self.close()
        # A connection that is accepted and closed at once (max_clients, say) is a failure as well.
        lasted = time.monotonic() - self.since
        self.failures = 1 if lasted > LONGEST_PAUSE_S else self.failures + 1
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self.failures - 1, 16))
        pause *= random.uniform(0.5, 1.0)  # not all clients at the same moment
        self.next_try = time.monotonic() + pause
        log.warning("no connection: %s; again in %.1f s", reason, pause)
