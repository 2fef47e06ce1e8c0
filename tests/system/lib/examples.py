"""The examples of docs/examples as they are: their programs, their kamailio.cfg, a database; and what stands between a
program and evapid to make its life hard."""

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

from client import split_address
from evapid import MODULE, ROOT
from process import DEADLINE_S, Process, until

EXAMPLES = ROOT / "docs/examples"


class Example:
    """The kamailio.cfg of an example, with the definitions that it leaves to who uses it. For Kamailio, what a Config
    is."""

    def __init__(self, stage, name, **defined):
        self.path = EXAMPLES / name / "kamailio.cfg"
        self.evapi = {}
        self.defined = {"EVAPI_MODULE": f'"{MODULE}"', "EVAPI_SOCKET": f'"{stage.folder}/kamailio.sock"',
                        "EVAPI_BIND": f'"{stage.address}"', **defined}

    def write(self, folder, name, port):
        defined = {**self.defined, "SIP_LISTEN": f"udp:127.0.0.1:{port}"}
        lines = ["#!KAMAILIO", *(f"#!define {key} {value}" for key, value in defined.items()),
                 f'include_file "{self.path}"']
        path = folder / f"{name}.cfg"
        path.write_text("\n".join(lines) + "\n")
        return path


class Program(Process):
    """An example's program, which ends well when it is told to."""

    count = 0
    ends_with = (0,)

    def __init__(self, stage, *command, ends_with=(0,)):
        Program.count += 1
        self.ends_with, self.command = ends_with, command
        super().__init__(f"{Path(command[0]).stem}-{Program.count}", command, stage.folder)
        stage.processes.append(self)

    def problems(self):
        ended_by_itself = self.popen.poll() is not None and not self.expect_end
        return [f"{self.name} ended by itself with {self.popen.returncode}"] if ended_by_itself else []

    def finish(self):
        found = self.problems()
        if self.alive() and (code := self.terminate()) not in self.ends_with:
            found.append(f"{self.name} ended with {code} on SIGTERM")
        return found


class Proxy:
    """Hands on what a program and evapid say to each other, in pieces of so many bytes; and breaks off."""

    def __init__(self, stage, piece=1):
        self.target, self.piece = split_address(stage.address), piece
        self.left = None  # bytes to the program until it breaks off, or None
        self.mute = False  # does what the program says get lost?
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self.listener.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                program, _ = self.listener.accept()
            except OSError:
                return
            with program:
                try:
                    with socket.create_connection(self.target, DEADLINE_S) as evapid:
                        self.connections += 1
                        self._hand_on(program, evapid)
                except OSError:
                    pass

    def _hand_on(self, program, evapid):
        """One connection, until either side ends it."""
        for end in (program, evapid):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            for end in select.select([program, evapid], [], [])[0]:
                piece = end.recv(self.piece)
                if not piece:
                    return
                if end is evapid and self.left is not None:
                    self.left -= len(piece)
                    if self.left < 0:
                        self.left = None
                        return
                if end is evapid:
                    program.sendall(piece)
                elif not self.mute:
                    evapid.sendall(piece)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Database(Process):
    """A PostgreSQL of its own, which listens to a Unix socket alone. It does not run as root: then it is nobody's."""

    count = 0

    def __init__(self, stage):
        Database.count += 1
        self.home = Path(tempfile.mkdtemp(prefix="evapid-postgres-"))
        self.binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self.drop = []
        if os.geteuid() == 0:
            shutil.chown(self.home, "nobody", "nogroup")
            self.drop = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=TERM"]
        made = subprocess.run([*self.drop, self.binaries / "initdb", "-D", self.home / "data", "-U", "calls",
                               "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"], cwd=self.home,
                              capture_output=True, text=True, timeout=2 * DEADLINE_S)
        assert made.returncode == 0, made.stdout + made.stderr
        self.dsn = f"host={self.home} user=calls dbname=postgres"
        super().__init__(f"postgres-{Database.count}", self._command(), self.home)
        stage.processes.append(self)
        self.ready()

    def _command(self):
        return [*self.drop, self.binaries / "postgres", "-D", self.home / "data", "-k", self.home,
                "-c", "listen_addresses=", "-c", "fsync=off"]

    def _psql(self, statement):
        return subprocess.run([self.binaries / "psql", "-qAt", "-d", self.dsn, "-c", statement], capture_output=True,
                              text=True, timeout=DEADLINE_S)

    def ready(self):
        until(lambda: self._psql("SELECT 1").returncode == 0, "the database answers")

    def rows(self, statement):
        """Lines of an answer, cells separated by |; none when there is no such table yet."""
        ran = self._psql(statement)
        assert ran.returncode == 0 or "does not exist" in ran.stderr, ran.stderr
        return ran.stdout.splitlines()

    def stop(self):
        """At once, whoever is connected."""
        self.expect_end = True
        self.signal(signal.SIGINT)
        self.ended()

    def start_again(self):
        self.start(self._command())
        self.ready()

    def problems(self):
        return []

    def finish(self):
        if self.alive():
            self.stop()
        return []

    def clean_up(self):
        super().clean_up()
        shutil.rmtree(self.home, ignore_errors=True)


def start_example(stage, name, **defined):
    """evapid, unless it runs already, and Kamailio with the example's configuration."""
    if stage.evapid is None:
        stage.start_evapid()
    return stage.run_kamailio(Example(stage, name, **defined))


def tagged(stage, tag):
    """Wait until a client carries the tag, and gets what is sent to it."""
    def there(status):
        return tag in [client["tag"] for client in status["clients"] if client["state"] == "open"]
    return stage.evapid.until_status(there, f"a client is {tag}")
