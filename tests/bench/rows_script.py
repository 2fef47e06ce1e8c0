"""Events from a loop in Kamailio's routing script: what arrives, and what one evapi_relay costs the SIP worker.

The loop of one SIP request calls evapi_relay so many times, or does all but that. It takes the time of day before and
after; the time of the processor that its process has used is read from outside. An event has 200 bytes and one variable
in it, the number of the turn, as an event of a real script would have."""

import time
from dataclasses import dataclass

from kamailio_systems import EVAPI, EVAPID, EVENT_BYTES, SYSTEMS, Bus, buses, monotonic_ns
from process import until
from results import row
from stage import Stage
from systems import RUN_S, RunFailed, counted, load

NUMBER = 1000000000  # of the first event: all have ten digits
TEXT = '{\\"event\\": \\"bench\\", \\"number\\": $var(number), \\"text\\": \\"%s\\"}'
EVENT = TEXT % ("x" * (EVENT_BYTES - len(TEXT.replace("\\", "").replace("$var(number)", str(NUMBER)) % "")))

# 100 first, so that the INVITE is not sent again while its loop runs. A loop begins a moment later: when several
# requests are sent at once, every one finds a worker that has none yet, and all begin together.
ROUTES = """
route[TEST] {
    sl_send_reply("100", "Trying");
    usleep("100000");
    $var(number) = %d;
    $var(end) = $var(number) + $(hdr(X-Calls){s.int});
    if ($rU == "relay") {
        $var(s) = $TV(sn); $var(us) = $TV(un);
        while ($var(number) < $var(end)) {
            evapi_relay("%s");
            $var(number) = $var(number) + 1;
        }
    } else {
        $var(s) = $TV(sn); $var(us) = $TV(un);
        while ($var(number) < $var(end)) {
            $var(number) = $var(number) + 1;
        }
    }
    $var(end_s) = $TV(sn); $var(end_us) = $TV(un);
    append_to_reply("X-Loop: $pp $var(s) $var(us) $var(end_s) $var(end_us)\\r\\n");
    sl_send_reply("200", "OK");
}
""" % (NUMBER, EVENT)


@dataclass
class Loop:
    """One that has run: in which process, and from when to when by the time of day."""
    pid: int
    first_us: int
    last_us: int

    @classmethod
    def of(cls, answer):
        pid, s, us, end_s, end_us = map(int, answer["X-Loop"].split())
        return cls(pid, s * 1_000_000 + us, end_s * 1_000_000 + end_us)

    @property
    def seconds(self):
        return (self.last_us - self.first_us) / 1e6


def start(phone, kind, calls):
    return phone.start("INVITE", kind, {"X-Calls": calls})


def answered(phone, transactions):
    """Wait until the loops have ended; returns them."""
    def look():
        phone.turn()
        return all(transaction.final for transaction in transactions)
    try:
        until(look, "the loop ends", RUN_S)
    except AssertionError:
        raise RunFailed(f"the script's loop had not ended after {RUN_S} s") from None
    return [Loop.of(transaction.final) for transaction in transactions]


def run_loop(phone, kind, calls):
    return answered(phone, [start(phone, kind, calls)])[0]


def crowd(clients):
    return {0: "no client", 1: "1 client"}.get(clients, f"{clients} clients")


# ---- what arrives

BURST = 100_000
BURST_LEAST = 100
PARTS = "each event", "of it in the loop", "the loop without it"
EVAPI_CROWD, EVAPI_BURST = 64, 20_000  # with so many clients 100,000 events hold EVAPI's script up for 20 s and more


def burst(bench, system, clients, events):
    """One request, in a Kamailio of its own, whose script relays so many events. Returns seconds: from the first relay
    to the last byte at the last client; of the script's loop; and of the loop when it relays nothing."""
    with Bus(bench, system, ROUTES) as bus:
        listen = bus.listeners(clients, events)
        phone = bus.phone()
        loop = run_loop(phone, "relay", events)
        received = listen.printed()
        if not received["complete"]:
            raise RunFailed(f"{received['completed']} of {clients} clients got all of {events} events, "
                            f"{received['bytes']} bytes in all")
        empty = run_loop(phone, "empty", events)
        return (received["last_ns"] - monotonic_ns(loop.first_us)) / 1e9, loop.seconds, empty.seconds


def whole_burst(bench, clients):
    """The largest burst that EVAPI delivers whole, from 100,000 down by halves; less where that would take too long."""
    events = BURST if clients < EVAPI_CROWD else EVAPI_BURST
    if bench.quick:
        return events // 20
    while events > BURST_LEAST:
        try:
            burst(bench, EVAPI, clients, events)
            return events
        except RunFailed:
            events //= 2
    return events


@row("script", "events of 200 bytes from one SIP request whose script relays in a loop, to every client")
def script(bench):
    for clients in (1, 64) if bench.quick else (1, 8, 64):
        params = {"clients": clients}
        bursts = {EVAPID: BURST, EVAPI: whole_burst(bench, clients)}
        if bursts[EVAPI] != BURST:
            bench.results.note("script", f"EVAPI with {crowd(clients)}: {bursts[EVAPI]:,} events, evapid: {BURST:,}.")
        for _ in range(bench.repeat):
            for system in SYSTEMS:
                with counted(bench, "script", system, params, "deliveries/s"):
                    seconds = burst(bench, system, clients, bursts[system])
                    rate = bursts[system] * clients / seconds[0]
                    bench.results.add("script", system, params, "rate", "deliveries/s", rate)
                    for metric, took in zip(PARTS, seconds):
                        bench.results.add("script", system, params, metric, "us", took * 1e6 / bursts[system])
    most = {"clients": 64}
    bench.results.target("script", f"evapid to EVAPI, {crowd(64)}", (EVAPID, most), (EVAPI, most), at_least=20)
    one = {"clients": 1}
    bench.results.target("script", "bound by the script: until the last byte, to the loop itself, 1 client",
                         (EVAPID, one, PARTS[0]), (EVAPID, one, PARTS[1]), at_most=1.1)


# ---- what it costs

SAME = 1.25      # what still counts as the same cost on a machine whose processors are shared
FOREVER = 10**9  # events that the listeners wait for: they are there until the end
PAUSE_S = 0.05   # between loops: what the last one has sent is read, what the process has used is known
TIMES = 3        # a loop is run for one figure, with and without the call: the least counts, what disturbs can only add
CALLS = {EVAPID: 100_000, EVAPI: 20_000}
CROWD_CALLS = {EVAPID: 100_000, EVAPI: 3_000}  # to 64 clients: EVAPI holds the script up


def cpu_ns(pid):
    """Time of a processor that the process has used; exact while it rests."""
    with open(f"/proc/{pid}/schedstat") as schedstat:
        return int(schedstat.read().split()[0])


def run_loops(bus, phone, kind, calls, workers):
    """So many loops at once, each of so many calls, each in a worker of its own. Returns nanoseconds for each call:
    elapsed, from the first loop's start to the last one's end over all calls; and used of the processor."""
    time.sleep(PAUSE_S)
    used = {pid: cpu_ns(pid) for pid in bus.kamailio.members()}
    loops = answered(phone, [start(phone, kind, calls) for _ in range(workers)])
    time.sleep(PAUSE_S)
    pids = {loop.pid for loop in loops}
    if len(pids) < workers:
        raise RunFailed(f"{workers} requests at once ran in {len(pids)} workers")
    elapsed_us = max(loop.last_us for loop in loops) - min(loop.first_us for loop in loops)
    cpu = sum(cpu_ns(pid) - used[pid] for pid in pids)
    return {"elapsed": elapsed_us * 1000 / calls / workers, "cpu": cpu / calls / workers}


def add_cost(bench, name, bus, phone, params, calls, workers=1):
    """Measure once what one evapi_relay costs: the loop less the same loop without it."""
    with counted(bench, name, bus.system, params, "ns", "cpu"):
        pairs = [[run_loops(bus, phone, kind, calls, workers) for kind in ("empty", "relay")] for _ in range(TIMES)]
        for metric in ("cpu", "elapsed"):
            empty, relay = (min(costs[metric] for costs in kind) for kind in zip(*pairs))
            bench.results.add(name, bus.system, params, metric, "ns", relay - empty)
        bench.results.add(name, bus.system, params, "the loop without it", "ns", empty)


@row("relay-cost", "what one evapi_relay of 200 bytes costs the SIP worker")
def relay_cost(bench):
    counts = (0, 1, 64)
    for clients in counts:
        calls = CALLS if clients < EVAPI_CROWD else CROWD_CALLS
        with buses(bench, ROUTES) as pair:
            for bus in pair:
                if clients > 0:
                    bus.listeners(clients, FOREVER)
            phones = [bus.phone() for bus in pair]
            for _ in range(bench.repeat):
                for bus, phone in zip(pair, phones):
                    many = calls[bus.system] // (10 if bench.quick else 1)
                    add_cost(bench, "relay-cost", bus, phone, {"clients": clients}, many)
        for metric in ("cpu", "elapsed"):
            bench.results.target("relay-cost", f"{metric}, evapid to EVAPI, {crowd(clients)}",
                                 (EVAPID, {"clients": clients}, metric), (EVAPI, {"clients": clients}, metric),
                                 at_most=0.15)
    for metric in ("cpu", "elapsed"):
        bench.results.target("relay-cost", f"{metric}, evapid, 64 clients to none",
                             (EVAPID, {"clients": 64}, metric), (EVAPID, {"clients": 0}, metric), at_most=SAME)
    bench.results.note("relay-cost", "cpu is the processor time of the SIP worker. elapsed also has its waits for a "
                       "processor, because evapid and the clients use them too, and for EVAPI's dispatcher.")


WORKERS = {EVAPID: (1, 2, 4, 8, 16, 32), EVAPI: (1, 8)}
PUSHES = 100_000  # of all processes together: with those that do not count they fit into the ring
PARTS_OF_TIME = ("p50", "p99", "p99.9")


def push_alone(bench, workers, pinned):
    """Processes in the place of SIP workers push, without Kamailio: how long a push takes, and a copy of as many bytes."""
    params = {"processes": workers, "pinned": "yes" if pinned else "no"}
    with counted(bench, "relay-workers", EVAPID, params, "ns", "push, cpu"):
        try:
            with Stage() as stage:
                evapid = stage.start_evapid(log={"level": "warning"}, shutdown_grace_ms=0)
                found = load(bench, stage, "push", socket=evapid.kamailio_socket, workers=workers, size=EVENT_BYTES,
                             events=PUSHES // workers // (10 if bench.quick else 1), pin=pinned, timeout=RUN_S).printed()
        except AssertionError as error:
            raise RunFailed(str(error)[:400]) from None
        if found["full"]:
            raise RunFailed(f"{found['full']} pushes found no room")
        bench.results.add("relay-workers", EVAPID, params, "push, cpu", "ns", found["cpu"])
        for kind in ("push", "copy"):
            for part in PARTS_OF_TIME:
                bench.results.add("relay-workers", EVAPID, params, f"{kind}, {part}", "ns", found[kind][part])


@row("relay-workers", "the same cost with up to 32 SIP workers calling at once, one client; and of the push by itself")
def relay_workers(bench):
    with buses(bench, ROUTES, children=max(WORKERS[EVAPID])) as pair:
        for bus in pair:
            bus.listeners(1, FOREVER)
        phones = [bus.phone() for bus in pair]
        for _ in range(bench.repeat):
            for bus, phone in zip(pair, phones):
                for workers in WORKERS[bus.system]:
                    many = CALLS[bus.system] // workers // (4 if bench.quick else 1)
                    add_cost(bench, "relay-workers", bus, phone, {"workers": workers}, many, workers)
    for _ in range(bench.repeat):
        for pinned in (False, True):
            for workers in WORKERS[EVAPID]:
                push_alone(bench, workers, pinned)
    for workers, bound in ((8, 1.5), (32, 2)):
        for metric in ("cpu", "elapsed"):
            bench.results.target("relay-workers", f"{metric} for each call, evapid, {workers} workers to 1",
                                 (EVAPID, {"workers": workers}, metric), (EVAPID, {"workers": 1}, metric), at_most=bound)
        one, many = ({"processes": count, "pinned": "no"} for count in (1, workers))
        bench.results.target("relay-workers", f"cpu of a push by itself, {workers} processes to 1",
                             (EVAPID, many, "push, cpu"), (EVAPID, one, "push, cpu"), at_most=bound)
    bench.results.target("relay-workers", "p99.9 of a push, 32 processes, to that of a copy of as many bytes",
                         (EVAPID, many, "push, p99.9"), (EVAPID, many, "copy, p99.9"), at_most=2)
    bench.results.note("relay-workers", "The push by itself: processes push as the module does, and look at the clock around "
                       "each push. The copy is the same into memory of their own: what the scheduler does to them.")
