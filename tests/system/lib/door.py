"""Strangers at evapid's Unix sockets: connections that say nothing, and descriptors that take long to close."""

import select
import time

from background import Background
from wire import Link


def knock(path):
    """A connection, as soon as it finds room in the kernel's queue."""
    while True:
        try:
            return Link(path)
        except BlockingIOError:
            time.sleep(0.001)


class Silent(Background):
    """So many connections that say nothing, and come again as soon as they are closed."""

    def __init__(self, path, count):
        super().__init__()
        self.path, self.renewed, self.failed = path, 0, True
        self.links = [knock(self.path) for _ in range(count)]

    def run(self):
        poll, by_number = select.poll(), {}
        for link in self.links:
            poll.register(link.socket, select.POLLIN)
            by_number[link.socket.fileno()] = link
        while not self.over.is_set():
            for number, _ in poll.poll(10):
                poll.unregister(number)
                by_number.pop(number).close()
                link = knock(self.path)
                poll.register(link.socket, select.POLLIN)
                by_number[link.socket.fileno()] = link
                self.renewed += 1
        for link in by_number.values():
            link.close()
        self.failed = False

    def __exit__(self, *error):
        super().__exit__(*error)
        assert not self.failed


LINGERS_S = 600
# What passes descriptors to a Unix socket that are open nowhere else then: arguments are its path, for how many seconds each takes
# to close, whether the connection ends, and messages, each with how many descriptors go with it.
PASS = """
import socket, struct, sys
path, lingers, ends, messages = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True", eval(sys.argv[4])
connection, peers, taken = socket.socket(socket.AF_UNIX), [], 0
connection.connect(path)

def make():
    # A full TCP socket, which holds up for so long whoever closes it last.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        full = socket.create_connection(listening.getsockname())
        peers.append(listening.accept()[0])
    full.setblocking(False)
    try:
        while True:
            full.send(b"x" * 65536)
    except BlockingIOError:
        return full

def linger(full, on):
    full.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, lingers))

for bytes_, count in messages:
    made = [make() for _ in range(count)]
    for full in made:
        linger(full, 1)
    try:
        socket.send_fds(connection, [bytes_], [full.fileno() for full in made])
        taken += 1
    except (PermissionError, BrokenPipeError, ConnectionResetError):
        for full in made:
            linger(full, 0)
    for full in made:
        full.close()
if ends:
    connection.close()
print(taken, flush=True)
sys.stdin.read()
"""
