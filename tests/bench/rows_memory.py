"""Memory: what clients cost that do nothing, and what those cost that do not read.

Taken from /proc/PID/status. The ring, which evapid shares with Kamailio, is part of RSS but not of a client's cost: that is
the growth of anonymous memory. What a client's socket holds is the kernel's, and shows in neither."""

from results import row
from stage import Stage
from systems import EvapidFed, Nats, Redis, RunFailed, Work, counted, load

MIB = 1 << 20
BEHIND = 8 * MIB
FRAME = 205  # bytes of a netstring of 200
SYSTEMS = (EvapidFed, Redis, Nats)


def memory_of(pid):
    """Resident bytes of a process: all, and those that nobody shares."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))


def server_pid(stage):
    return stage.processes[0].pid


def crowd(bench, stage, system, address, work):
    """Clients that do not read."""
    return load(bench, stage, "listen", protocol=system.protocol, connect=address, clients=work.clients, events=0,
                size=work.size, stall=work.clients, hold=True, timeout=120).says("^ready")


def played(bench, system, work):
    """Connect clients that do not read, publish, and return memory before and after, as (RSS, anonymous) each, and bytes
    queued by evapid for one client (None: another system)."""
    try:
        with Stage() as stage:
            fed = isinstance(system, EvapidFed)
            address = system.open(bench, stage, work, hold=True) if fed else system.open(bench, stage, work)
            before = memory_of(server_pid(stage))
            crowd(bench, stage, system, address, work)
            if fed or work.events:
                published = system.publish(bench, stage, work).printed()
                if published["failed"]:
                    raise RunFailed("publications failed")
            after = memory_of(server_pid(stage))
            queued = None
            if fed and work.events:
                queued = min(client["out"]["queued_bytes"] for client in stage.evapid.status()["clients"])
            return before, after, queued
    except AssertionError as error:
        raise RunFailed(str(error)[:400]) from None


@row("memory-idle", "memory with 0, 1,000 and 10,000 idle clients")
def memory_idle(bench):
    results, counts = bench.results, (1000,) if bench.quick else (1000, 10000)
    for _ in range(bench.repeat_slow):
        for count in counts:
            for system in SYSTEMS:
                params = {"clients": count}
                with counted(bench, "memory-idle", system, params, "bytes", "RSS"):
                    before, after, _ = played(bench, system(), Work(count, 0))
                    results.add("memory-idle", system.name, {"clients": 0}, "RSS", "bytes", before[0])
                    results.add("memory-idle", system.name, params, "RSS", "bytes", after[0])
                    results.add("memory-idle", system.name, params, "for each client", "bytes",
                                (after[0] - before[0]) / count)
    for count in counts:
        results.target("memory-idle", f"bytes for each of {count:,} idle clients",
                       ("evapid", {"clients": count}, "for each client"), at_most=4096)


def events_behind(bench, system, count):
    """How many events it takes until each of count clients is 8 MiB behind: what the sockets take comes on top."""
    events = BEHIND // FRAME
    if isinstance(system, EvapidFed):
        *_, queued = played(bench, system, Work(count, events))
        events += (BEHIND - queued) // FRAME
    return events


@row("memory-behind", "memory with 1 client, and with 64, that are 8 MiB behind")
def memory_behind(bench):
    results, counts = bench.results, (1, 8) if bench.quick else (1, 64)
    for count in counts:
        for system in SYSTEMS:
            params = {"behind": count}
            with counted(bench, "memory-behind", system, params, "bytes", "growth"):
                events = events_behind(bench, system(), count)
                for _ in range(bench.repeat_slow):
                    before, after, queued = played(bench, system(), Work(count, events))
                    results.add("memory-behind", system.name, params, "growth", "bytes", after[1] - before[1])
                    results.add("memory-behind", system.name, params, "RSS", "bytes", after[0])
                    if queued is not None:
                        results.add("memory-behind", system.name, params, "queued for each", "bytes", queued)
    few, many = ({"behind": count} for count in counts)
    results.target("memory-behind", f"growth with {counts[1]} clients behind to with 1", ("evapid", many),
                   ("evapid", few), at_most=1.5)
    results.note("memory-behind", "growth: of anonymous memory, for the clients and what waits for them. "
                                  "RSS also has the 8 MiB of the ring.")
