"""Who reads evapid's log, and can stop."""

import fcntl
import os
import socket
import sys
import termios
import tty

SHELL = ["/bin/sh", "-c"]
REOPEN = """
import os, socket, sys
end = socket.socket(socket.AF_UNIX)
end.connect(sys.argv[1])
os.environ["JOURNAL_STREAM"] = "%d:%d" % (os.fstat(end.fileno()).st_dev, os.fstat(end.fileno()).st_ino)
os.dup2(end.fileno(), 2, inheritable=True)
os.execv(sys.argv[2], sys.argv[2:])
"""


class LogReader:
    """What evapid has as its standard error: a pipe, a terminal or the journal's socket, which nobody reads until read() is
    called. before: what makes it so, and becomes evapid."""

    def __init__(self, kind, folder):
        path = folder / "log"
        self.fd = self.held = None
        self.before = [*SHELL, f'exec "$@" 2>{path}', "sh"]
        if kind == "pipe":
            os.mkfifo(path)
            self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, 4096)
        elif kind == "terminal":
            self.fd, self.held = os.openpty()
            tty.setraw(self.held)
            os.set_blocking(self.fd, False)
            self.before = [*SHELL, f'exec "$@" 2>{os.ttyname(self.held)}', "sh"]
            termios.tcflow(self.held, termios.TCOOFF)
        else:
            self.listening = socket.socket(socket.AF_UNIX)
            self.listening.bind(str(path))
            self.listening.listen()
            self.before = [sys.executable, "-I", "-S", "-c", REOPEN, path]
        self.text = ""

    def read(self):
        """All that has been written so far."""
        if self.held is not None:
            termios.tcflow(self.held, termios.TCOON)
        if self.fd is None:
            self.fd = self.listening.accept()[0].detach()
            os.set_blocking(self.fd, False)
        try:
            while more := os.read(self.fd, 65536):
                self.text += more.decode()
        except BlockingIOError:
            pass
        return self.text

    def close(self):
        for fd in (self.fd, self.held):
            if fd is not None:
                os.close(fd)
