"""A terminal to run a program in: tmux shows what a screen looks like, a pty what is written to it."""

import os
import pty
import select
import shlex
import subprocess
import time

from process import DEADLINE_S, until


class Screen:
    """A shell in a terminal of tmux, of its own server; folder has the server's socket. Use it as a context manager."""

    count = 0

    def __init__(self, folder, columns=80, lines=24, shell="bash --norc --noprofile", environment=None):
        Screen.count += 1
        self.socket = folder / f"tmux-{Screen.count}"
        set_ = "".join(f"{key}={shlex.quote(str(value))} " for key, value in (environment or {}).items())
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), f"env PS1='$ ' {set_}{shell}")
        self.shows("$")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True)

    def _tmux(self, *words):
        ran = subprocess.run(["tmux", "-S", self.socket, *words], capture_output=True, text=True, timeout=DEADLINE_S)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def keys(self, *keys):
        self._tmux("send-keys", *keys)

    def types(self, text):
        self._tmux("send-keys", "-l", text)

    def runs(self, *words):
        """Type a command and Enter."""
        self.types(shlex.join(map(str, words)))
        self.keys("Enter")

    def lines(self):
        return self._tmux("capture-pane", "-p").splitlines()

    def resize(self, columns, lines):
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def shows(self, *texts):
        """Wait until each text is on the screen; returns its lines."""
        def look():
            lines = self.lines()
            assert all(any(text in line for line in lines) for text in texts), "\n".join(lines)
            return lines or [""]
        return until(look, f"the screen shows {texts}")

    def mode(self):
        """Does the program use the alternate screen, and is the cursor shown?"""
        return self._tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}").split()


class Typescript:
    """A program on a pty, and all that it writes there."""

    def __init__(self, command, environment=None):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(str(command[0]), [str(word) for word in command],
                       {**os.environ, "TERM": "xterm-256color", **(environment or {})})
        self.written = b""

    def reads(self, text, deadline_s=DEADLINE_S):
        """Wait until the program has written this, of type bytes; returns all that it has."""
        end = time.monotonic() + deadline_s
        while text not in self.written:
            ready = select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]
            assert ready, f"not written: {text!r}; but {self.written[-2000:]!r}"
            self.written += os.read(self.fd, 65536)
        return self.written

    def close(self):
        os.close(self.fd)  # SIGHUP
        os.waitpid(self.pid, 0)
