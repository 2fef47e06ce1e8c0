"""Guests: clients that come all at once, read all that they get, and stay until somebody ends them. There are so many that
not all can have a place in the service manager's store."""

import selectors
import socket
import threading

from client import split_address
from event import Violation, take_netstring


class Guests(threading.Thread):
    """open: the ports of those whose connection stands; torn: of those whose stream ended within a frame."""

    def __init__(self, address, count):
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.selector = selectors.DefaultSelector()
        self.open, self.torn, self.violations = set(), [], []
        for _ in range(count):
            guest = socket.create_connection(split_address(address), timeout=30)
            guest.setblocking(False)
            port = guest.getsockname()[1]
            self.open.add(port)
            self.selector.register(guest, selectors.EVENT_READ, (port, bytearray()))
        self.ports = frozenset(self.open)
        self.start()

    def run(self):
        while not self.over.is_set():
            for key, _ in self.selector.select(0.05):
                self._read(key.fileobj, *key.data)

    def _read(self, guest, port, buffer):
        try:
            more = guest.recv(1 << 18)
        except ConnectionError:
            more = b""
        buffer += more
        try:
            while take_netstring(buffer) is not None:
                pass
        except Violation as violation:
            self.violations.append(f"port {port}: {violation}")
            buffer.clear()
        if not more:
            if buffer:
                self.torn.append(port)
            self.selector.unregister(guest)
            guest.close()
            self.open.discard(port)

    def leave(self):
        self.over.set()
        self.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()
