"""Kamailio with evapid and its module, or the same Kamailio with the EVAPI module that is packaged with it.

Both get the same routing script, children and memory. Only the line that loads the module differs, and what is said of
the size of queues: EVAPI has no parameter for that."""

import socket
import time
from contextlib import ExitStack, contextmanager

from client import split_address
from evapid import MODULE
from kamailio import Config, Kamailio, modparams
from process import Process, until
from stage import Stage
from systems import RUN_S, RunFailed, load


class System(str):
    """One of the two, by the name that the results have for it."""

    @property
    def name(self):
        return str(self)


EVAPID, EVAPI = System("evapid"), System("EVAPI")
SYSTEMS = (EVAPID, EVAPI)

EVENT_BYTES = 200
CLIENTS_MAX = 256
SETTLE_S = 0.1  # what EVAPI gets to call its routes for new clients
SHARED_MIB, PRIVATE_MIB = 1024, 16  # Kamailio's memory: transactions of the async row live for seconds
QUEUE_BYTES = 64 << 20              # room for a burst of 100,000 events
NO_LIMIT = 1 << 30                  # bytes that may wait for a client: a burst is no reason to cut it off


# As the system tests have it, but that tm is told of an ACK: else it would send its 200 again and again.
REQUESTS = """
request_route {
    if (is_method("OPTIONS") && $rU == "ready") {
        sl_send_reply("200", "Ready");
        exit;
    }
    if (is_method("ACK")) {
        t_check_trans();
        exit;
    }
    route(TEST);
}
"""


class BusConfig(Config):
    """kamailio.cfg of one of the two systems."""

    def __init__(self, system, **pieces):
        super().__init__(**pieces)
        self.system = system

    def write(self, folder, name, port):
        lines = [self.head(port)]
        lines += [f'loadmodule "{module}.so"' for module in self.modules]
        lines.append(f'loadmodule "{MODULE if self.system == EVAPID else "evapi.so"}"')
        lines += [modparams("evapi", self.evapi), REQUESTS, self.routes]
        path = folder / f"{name}.cfg"
        path.write_text("\n".join(lines))
        return path


class BusKamailio(Kamailio):
    """The same, with memory enough for many transactions."""

    def __init__(self, folder, config, port):
        Kamailio.count += 1
        name = f"kamailio-{Kamailio.count}"
        self.port, self.config = port, config
        path = config.write(folder, name, port)
        run = folder / name
        run.mkdir()
        Process.__init__(self, name, ["kamailio", "-f", path, "-DD", "-E", "-m", SHARED_MIB, "-M", PRIVATE_MIB,
                                      "-Y", run, "-w", run], folder)


class Bus:
    """One of the systems, up and answering SIP while the context is open. address is where clients connect."""

    def __init__(self, bench, system, routes, workers=1, children=1):
        self.bench, self.system, self.stage = bench, system, Stage()
        self.address, self.sip_port = self.stage.address, self.stage.sip_port
        evapi = {"bind_addr": self.address, "max_clients": CLIENTS_MAX, "workers": workers}
        if system == EVAPID:
            evapi |= {"socket": str(self.stage.folder / "kamailio.sock"), "queue_size": QUEUE_BYTES}
        self.config = BusConfig(system, routes=routes, evapi=evapi, children=children)

    def __enter__(self):
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _start(self):
        stage = self.stage
        if self.system == EVAPID:
            stage.start_evapid(log={"level": "notice"}, shutdown_grace_ms=0,
                               limits={"max_queued_bytes": NO_LIMIT, "max_total_queued_bytes": NO_LIMIT})
        self.kamailio = BusKamailio(stage.folder, self.config, self.sip_port)
        stage.processes.append(self.kamailio)
        self.kamailio.ready()
        if self.system == EVAPID:
            stage.evapid.attached(self.kamailio.pid, self.config.evapi["workers"])
            stage.evapid.listening(self.address)
        else:
            until(lambda: listened(self.address), "EVAPI listens")

    def __exit__(self, kind, error, trace):
        """End it. What was awaited in vain is a run that failed; an EVAPI that has to be killed in the end is none."""
        problems = self.stage.close()
        if kind is AssertionError:
            raise RunFailed(str(error)[:400]) from None
        if problems and kind is None and self.system == EVAPID:
            raise RunFailed("; ".join(problems))

    def load(self, command, **options):
        """Start clients of the bus: a subcommand of load, which says when they are connected."""
        return load(self.bench, self.stage, command, connect=self.address, **options).says("^ready")

    def listeners(self, count, events, timeout=RUN_S):
        """Start so many clients, which expect so many events of EVENT_BYTES each; returns the program when all have
        been let in. EVAPI can't be asked about that: it gets a moment after it has accepted them."""
        program = self.load("listen", protocol="netstring", clients=count, events=events, size=EVENT_BYTES,
                            timeout=timeout)
        if self.system == EVAPID:
            self.stage.evapid.clients(count)
        else:
            until(lambda: len(taken(self.address)) == count, f"EVAPI has accepted {count} clients")
            time.sleep(SETTLE_S)
        return program

    def phone(self):
        return self.stage.phone()


@contextmanager
def buses(bench, routes, systems=SYSTEMS, **pieces):
    """All systems at once, each idle while another is measured, so that they can take turns."""
    with ExitStack() as stack:
        yield [stack.enter_context(Bus(bench, system, routes, **pieces)) for system in systems]


def tcp_table(address, state):
    """The lines of /proc/net/tcp of sockets that are bound there and in that state."""
    host, port = split_address(address)
    here = f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"
    with open("/proc/net/tcp") as table:
        return [fields for fields in map(str.split, table) if fields[1] == here and fields[3] == state]


def listened(address):
    """Is there a listener? It is not connected to for that: the first client would be ours."""
    return tcp_table(address, "0A")


def taken(address):
    """Connections that have been accepted: they belong to a process, and so have an inode."""
    return [fields for fields in tcp_table(address, "01") if fields[9] != "0"]


def monotonic_ns(time_of_day_us):
    """What CLOCK_MONOTONIC showed when the time of day was that."""
    return time_of_day_us * 1000 - (time.time_ns() - time.monotonic_ns())
