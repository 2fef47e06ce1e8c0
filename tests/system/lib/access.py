"""Who may connect, as those see it who try: at a listener from some address, at a Unix socket as some user."""

import pwd
import subprocess
import sys

from evapid import is_of
from process import until


def listener_of(stage, address):
    return next(at for at in stage.evapid.status()["listeners"] if at["address"] == address)


def refusals_of(stage, address):
    """The reasons for which the listener has refused somebody, and how often; their sum is what it shows as refused."""
    listener = listener_of(stage, address)
    assert sum(listener["refusals"].values()) == listener["refused"]
    return {reason: count for reason, count in listener["refusals"].items() if count}


def is_taken(stage, address, source=None):
    """Does the listener keep a connection from source? Nothing is sent by it, whether it does or not."""
    client = stage.connect(address, admitted=False, source=source)

    def look():
        if any(is_of(entry, client) for entry in stage.evapid.status()["clients"]):
            return "taken"
        client.socket.setblocking(False)
        try:
            return "refused" if client.socket.recv(1) == b"" else "sent something"
        except ConnectionResetError:
            return "refused"
        except BlockingIOError:
            return None
        finally:
            client.socket.setblocking(True)
    found = until(look, f"{address} takes or refuses a connection from {source}")
    assert found in ("taken", "refused")
    return found == "taken"


NOBODY = pwd.getpwnam("nobody")
ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    try:
        asking.connect(sys.argv[1])
    except PermissionError:
        sys.exit("no permission")
    try:
        asking.sendall(b'{"command": "status"}\\n')
        sys.stdout.buffer.write(asking.makefile("rb").readline())
    except (BrokenPipeError, ConnectionResetError):
        pass
"""


def ask_as(user, path):
    """The answer to a request for the status by a process of that user: a status, "" (closed), or "no permission"."""
    ran = subprocess.run([sys.executable, "-c", ASK, path], user=user, group=user, extra_groups=[], capture_output=True,
                         text=True, timeout=30, cwd="/")
    return ran.stdout or ran.stderr.strip()
