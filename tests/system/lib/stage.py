"""Where a test plays: a folder, ports, and everything that was started there, ended and looked over when it closes."""

import os
import shutil
import tempfile
from pathlib import Path

from client import Client
from evapid import Evapid
from kamailio import Config, Kamailio, check_config
from ports import Ports
from sip import Callee, Phone
from supervisor import Supervised


class Stage:
    """One evapid and one Kamailio at a time are the usual cast (evapid, kamailio name the latest of each); a test may start
    more. Use it as a context manager: it ends all, and fails when a program did not end well."""

    playing = []  # for the report of a failure

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="evapid-"))  # short: paths of Unix sockets end at 107 bytes
        self.ports = Ports()
        self.processes, self.connections = [], []
        self.evapid = self.kamailio = None
        self.sip_port = self.ports.udp()
        self.address = f"127.0.0.1:{self.ports.tcp()}"  # of the listener that the module declares
        Stage.playing.append(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        problems = self.close()
        if problems and kind is None:
            raise AssertionError("; ".join(problems))

    def new_address(self, host="127.0.0.1"):
        """An address that nobody listens at."""
        shown = f"[{host}]" if ":" in host else host
        return f"{shown}:{self.ports.tcp(host)}"

    def unix_address(self, name="clients.sock"):
        return f"unix:{self.folder / name}"

    def start_evapid(self, environment=None, before=(), **settings):
        self.evapid = Evapid(self.folder, settings, environment, before=before)
        self.processes.append(self.evapid)
        return self.evapid.ready()

    def start_supervised(self, store=4096, environment=None, before=(), **settings):
        """evapid as a service, whose supervisor keeps up to so many descriptors for it."""
        self.evapid = Supervised(self.folder, settings, environment, store, before)
        self.processes.append(self.evapid)
        return self.evapid.ready()

    def replace_evapid(self, before=(), environment=None, **settings):
        """A successor takes over from the evapid that runs, which ends."""
        last = self.evapid
        last.expect_end = True
        self.evapid = Evapid(self.folder, {**last.settings, **settings}, environment, ["--replace"], before)
        self.processes.append(self.evapid)
        code = last.ended()
        assert code == 0, f"{last.name} ended with {code} when it was replaced: {last.tail(20)}"
        return self.evapid.ready()

    def restart_evapid(self):
        """Once more, with the configuration that the last one had."""
        return self.start_evapid(**self.evapid.settings)

    def kamailio_config(self, routes=None, evapi=None, kind=Config, **pieces):
        """A configuration whose module finds our evapid, and declares a listener at our address unless evapi says
        otherwise. kind: how it is written."""
        if routes is not None:
            pieces["routes"] = routes
        evapi = {"socket": str(self.folder / "kamailio.sock"), "bind_addr": self.address, "max_clients": 100,
                 **(evapi or {})}
        return kind(evapi=evapi, **pieces)

    def start_kamailio(self, routes=None, port=None, attach=True, **pieces):
        """Start Kamailio and wait until it answers SIP and, unless attach is False, is attached to evapid."""
        return self.run_kamailio(self.kamailio_config(routes, **pieces), port, attach)

    def run_kamailio(self, config, port=None, attach=True):
        self.kamailio = Kamailio(self.folder, config, port or self.sip_port)
        self.processes.append(self.kamailio)
        self.kamailio.ready()
        if attach:
            self.evapid.attached(self.kamailio.pid, config.evapi.get("workers", 1))
        return self.kamailio

    def restart_kamailio(self, attach=True):
        """The same configuration again, once the last one has ended."""
        return self.run_kamailio(self.kamailio.config, self.kamailio.port, attach)

    def try_kamailio(self, routes=None, **pieces):
        """Start a Kamailio that is expected to end by itself, for its configuration is wrong: exit code, output."""
        return self.try_config(self.kamailio_config(routes, **pieces))

    def try_config(self, config):
        kamailio = Kamailio(self.folder, config, self.sip_port)
        self.processes.append(kamailio)
        code = kamailio.ended()
        self.processes.remove(kamailio)
        return code, kamailio.text()

    def check_kamailio(self, routes=None, before=(), **pieces):
        """kamailio -c, run by a command before it: exit code, output."""
        return check_config(self.kamailio_config(routes, **pieces), self.folder, self.sip_port, before)

    def phone(self):
        return self._keep(Phone(self.sip_port))

    def callee(self, code, reason):
        return self._keep(Callee(code, reason))

    def connect(self, address=None, admitted=True, **more):
        """A client, by default of the module's listener, that has been let in."""
        if self.evapid is not None and self.evapid.alive():
            self.evapid.listening(address or self.address)
        others = {entry["index"] for entry in self.evapid.status()["clients"]} if (address or "").startswith("unix:") else ()
        client = self._keep(Client(address or self.address, **more))
        client.others = others
        if admitted:
            client.index = self.evapid.client(client)["index"]
        return client

    def _keep(self, connection):
        self.connections.append(connection)
        return connection

    def hang_up(self):
        """Close all phones and clients, and wait until evapid has noticed: the next test finds an empty house."""
        for connection in self.connections:
            connection.close()
        self.connections.clear()
        if self.evapid is not None and self.evapid.alive():
            self.evapid.clients(0)

    def problems(self):
        return [problem for process in self.processes for problem in process.problems()]

    def close(self):
        """End everything; returns what was wrong."""
        problems = []
        for connection in self.connections:
            connection.close()
        for process in reversed(self.processes):
            try:
                problems += process.finish()
            except AssertionError as error:
                problems.append(str(error))
            finally:
                process.clean_up()
        self.ports.close()
        if os.environ.get("EVAPID_KEEP"):
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        Stage.playing.remove(self)
        return problems
