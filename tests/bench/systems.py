"""The systems that are compared, each started for one run on loopback and ended after it; and one run of a broadcast.

Kamailio's two are in kamailio_systems.py. Folders, ports and processes are those of the system tests."""

import json
import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "system/lib"))
from process import Process, until  # noqa: E402
from stage import Stage  # noqa: E402

START_S = 20.0  # how long a server may take to start
RUN_S = 60      # how long a run may take, with all its clients' connections
QUEUE = 8 << 30  # bytes that may wait for a client: nobody is cut off, as little as by Redis without its limit
CLIENTS_MAX = 60000
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class RunFailed(Exception):
    """A run that gave no figure, and why."""


class Program(Process):
    """A process that is nothing to look over when it has ended: a server under load, or a subcommand of load."""

    count = 0

    def __init__(self, stage, name, command):
        Program.count += 1
        super().__init__(f"{name}-{Program.count}", command, stage.folder)
        stage.processes.append(self)

    def says(self, pattern):
        """Wait until it has printed that."""
        def look():
            ended = not self.alive()
            lines = self.lines(pattern)
            if ended and not lines:
                raise RunFailed(f"{self.name} ended: {self.last_words()}")
            return lines
        try:
            until(look, f"{self.name} says {pattern}", START_S)
        except AssertionError as error:
            raise RunFailed(str(error)) from None
        return self

    def last_words(self):
        return " / ".join(line for line in self.text().splitlines()[-4:] if not line.startswith("{"))[-400:]

    def printed(self):
        """The line of JSON that it printed, once it is there."""
        def look():
            ended = not self.alive()  # before its output is read: what it printed last is there then
            lines = self.lines(r"^\{.*\}$")
            return lines and [json.loads(lines[-1])] or (ended and [None])
        try:
            found = until(look, f"{self.name} ends", RUN_S + 5)[0]
        except AssertionError as error:
            raise RunFailed(str(error)) from None
        if found is None:
            raise RunFailed(f"{self.name} printed nothing: {self.last_words()}")
        return found

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def problems(self):
        return []

    def finish(self):
        self.clean_up()
        return []


def load(bench, stage, command, **options):
    """Start a subcommand of the C program; True is a flag, False and None are left out."""
    words = [bench.load, command]
    for name, value in options.items():
        if value is not None and value is not False:
            words += [f"--{name}"] if value is True else [f"--{name}", value]
    return Program(stage, command, words)


@dataclass
class Work:
    """One broadcast: so many events of so many bytes to so many clients, of which the last ones do not read."""
    clients: int
    events: int
    size: int = 200
    stall: int = 0
    receivers: int | None = None  # only the first so many are meant; None: all
    mode: str = "relay"
    tags: bool = False
    verify: bool = False
    copy: bool = False            # clients read the bytes; else the kernel throws them away
    queue: int = QUEUE            # bytes that evapid lets wait for a client before it cuts it off

    @property
    def reading(self):
        return min(self.clients - self.stall, self.receivers or self.clients)


class EvapidFed:
    """evapid, its ring fed by a program in Kamailio's place."""

    name, protocol = "evapid", "netstring"

    def open(self, bench, stage, work, hold=False):
        address = stage.new_address()
        self.evapid = stage.start_evapid(
            log={"level": "warning"}, shutdown_grace_ms=0, limits={"max_total_queued_bytes": 1 << 40},
            listeners=[{"address": address, "max_clients": CLIENTS_MAX, "max_queued_bytes": work.queue}])
        self.feed = load(bench, stage, "feed", socket=self.evapid.kamailio_socket, clients=work.clients,
                         events=work.events, size=work.size, mode=work.mode, tags=work.tags, hold=hold,
                         timeout=RUN_S).says("^ready")
        return address

    def publish(self, bench, stage, work):
        return self.feed


class Redis:
    """Redis, its publish and subscribe: nothing kept on disk, no limit to what waits for a client."""

    name, protocol = "redis", "redis"

    def open(self, bench, stage, work):
        self.address = stage.new_address()
        Program(stage, "redis", [found("redis-server"), "--port", self.address.split(":")[1], "--bind", "127.0.0.1",
                                 "--save", "", "--appendonly", "no", "--client-output-buffer-limit", "pubsub 0 0 0",
                                 "--maxclients", "15000"]).says("Ready to accept connections")
        return self.address

    def publish(self, bench, stage, work):
        return load(bench, stage, "publish", protocol=self.protocol, connect=self.address, events=work.events,
                    size=work.size)


class Nats:
    """NATS, with so much patience for a slow client that none is cut off."""

    name, protocol = "nats", "nats"

    def open(self, bench, stage, work):
        self.address = stage.new_address()
        config = stage.folder / "nats.conf"
        config.write_text(f'listen: "{self.address}"\nmax_pending: {QUEUE}\nwrite_deadline: "{RUN_S}s"\n'
                          'ping_interval: "10m"\n')
        Program(stage, "nats", [found("nats-server"), "-c", config]).says("Server is ready")
        return self.address

    publish = Redis.publish


class Floor:
    """A bare program that sends the same bytes in 64 KiB blocks."""

    name, protocol, block = "floor", "netstring", 64 << 10

    def open(self, bench, stage, work):
        address = stage.new_address()
        self.server = load(bench, stage, "floor", listen=address, clients=work.clients, events=work.events,
                           size=work.size, block=self.block).says("^ready")
        return address

    def publish(self, bench, stage, work):
        return self.server


class LargeFloor(Floor):
    """The same in larger blocks: what the floor is depends on them."""

    name, block = "floor 256K", 256 << 10


def found(program):
    path = shutil.which(program, path=SBIN)
    if path is None:
        raise RunFailed(f"{program} is not installed")
    return path


def broadcast(bench, system, work):
    """Run it; returns the seconds from the first publish to the last byte at the last client. RunFailed when one client
    did not get all."""
    try:
        with Stage() as stage:
            address = system.open(bench, stage, work)
            listen = load(bench, stage, "listen", protocol=system.protocol, connect=address, clients=work.clients,
                          events=work.events, size=work.size, stall=work.stall, receivers=work.receivers,
                          verify=work.verify, copy=work.copy, timeout=RUN_S).says("^ready")
            published = system.publish(bench, stage, work).printed()
            received = listen.printed()
            if published["failed"]:
                raise RunFailed(f"{published['failed']} publications failed")
            if not received["complete"]:
                raise RunFailed(f"{received['completed']} of {work.reading} clients got all: {listen.last_words()}")
            return (received["last_ns"] - published["first_ns"]) / 1e9
    except AssertionError as error:
        raise RunFailed(str(error)[:400]) from None


@dataclass
class Trial:
    """A point of a row: under these parameters, this work for each of these systems."""
    params: dict
    work: Work
    systems: tuple


RUN_TARGET_S = 0.8            # what a run is to take
PROBE_DELIVERIES = 400_000    # of the first run, which finds out how many events that is
EVENTS_MAX = 4_000_000
BYTES_MAX = 6 << 30           # to all clients together


def sized(bench, system, work):
    """The work with as many events as keep this system busy for a while; in a quick bench, with few."""
    frame = work.size + 5
    most = max(min(EVENTS_MAX, BYTES_MAX // (frame * work.reading)), 1)
    few = max(min(PROBE_DELIVERIES // work.reading, (64 << 20) // frame, most), 20)
    if bench.quick:
        return replace(work, events=few)
    seconds = broadcast(bench, system, replace(work, events=few))
    return replace(work, events=max(min(int(few * RUN_TARGET_S / seconds), most), few))


def rates(bench, row, trials, unit="deliveries/s"):
    """Measure the rate of each trial, by itself."""
    for trial in trials:
        compare(bench, row, [trial], unit, bench.repeat)


def compare(bench, row, trials, unit, repeat):
    """Measure the rates of trials: these and their systems take turns, run by run, so that what the machine does else hits
    all alike."""
    works = []
    for trial in trials:
        for system in trial.systems:
            with counted(bench, row, system, trial.params, unit):
                works.append((system, trial.params, sized(bench, system(), trial.work)))
    for _ in range(repeat):
        for system, params, work in works:
            with counted(bench, row, system, params, unit):
                seconds = broadcast(bench, system(), work)
                each = work.events * (work.reading if unit == "deliveries/s" else 1)
                bench.results.add(row, system.name, params, "rate", unit, each / seconds)


@contextmanager
def counted(bench, row, system, params, unit, metric="rate"):
    """A run that fails is reported as such, and the others go on."""
    try:
        yield
    except RunFailed as error:
        bench.results.fail(row, system.name, params, metric, unit, str(error))
