"""A connection to evapid's control socket, as a program that isn't evapictl has it."""

import json
import socket

from process import DEADLINE_S


class Control:
    """Lines of JSON both ways, with a deadline on everything. receive_buffer: bytes of SO_RCVBUF, to stall early."""

    def __init__(self, path, receive_buffer=None):
        self.socket = socket.socket(socket.AF_UNIX)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def send(self, bytes_):
        self.socket.sendall(bytes_)

    def line(self):
        """The next line; None at the end of the stream."""
        line = self.lines.readline()
        assert not line or line.endswith(b"\n"), f"cut off: {line[:200]!r}"
        return json.loads(line) if line else None

    def ask(self, **request):
        self.send(json.dumps(request).encode() + b"\n")
        return self.line()

    def end(self):
        """Say that nothing more comes."""
        self.socket.shutdown(socket.SHUT_WR)

    def rest(self):
        """All lines until the end."""
        return [json.loads(line) for line in self.lines]

    def close(self):
        self.lines.close()
        self.socket.close()
