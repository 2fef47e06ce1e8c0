"""Fan-out: the same events to every client."""

from results import row
from systems import QUEUE, EvapidFed, Floor, LargeFloor, Nats, Redis, Trial, Work, compare, rates

BROKERS = (EvapidFed, Redis, Nats)
ALL = (EvapidFed, Floor, LargeFloor, Redis, Nats)


def fanned_out(bench, name, copy):
    counts = (1, 64) if bench.quick else (1, 8, 64, 256)
    rates(bench, name, [Trial({"clients": count}, Work(count, 0, copy=copy), ALL) for count in counts])
    for count in counts:
        params, where = {"clients": count}, f"{count} client{'s' if count > 1 else ''}"
        brokers = 2 if count >= 64 else 1
        floor = 0.5 if count >= 64 else None
        for other, text, bound in (("floor", "the floor", floor), ("floor 256K", "the floor with larger blocks", floor),
                                   ("redis", "Redis", brokers), ("nats", "NATS", brokers)):
            if bound is not None:
                bench.results.target(name, f"evapid to {text}, {where}", ("evapid", params), (other, params),
                                     at_least=bound)
    bench.results.note(name, "The floor is a yardstick, not a lower bound: with blocks of 256 KiB the same program can be "
                             "faster, and evapid can be faster than it. Why is not known.")


@row("fan-out", "events of 200 bytes to every client, evapid fed through its ring")
def fan_out(bench):
    fanned_out(bench, "fan-out", copy=False)
    bench.results.note("fan-out", "The kernel throws the clients' bytes away unread (except NATS'), so the figures show the "
                                  "servers more than the clients; in fan-out-reading the clients read.")


@row("fan-out-reading", "the same, to clients that read what they get")
def fan_out_reading(bench):
    fanned_out(bench, "fan-out-reading", copy=True)


@row("stalled", "one client of 64 does not read: the rate of the other 63")
def stalled(bench):
    """Both ways that it can end: the client is never cut off and its queue grows, or it is, when it is 8 MiB behind."""
    name, without = "stalled", {"stalled": 0}
    limits = (({"stalled": 1}, QUEUE), ({"stalled": 1, "limit": "8MiB"}, 8 << 20))
    trials = [Trial(without, Work(63, 0), BROKERS), Trial(limits[0][0], Work(64, 0, stall=1, queue=QUEUE), BROKERS),
              Trial(limits[1][0], Work(64, 0, stall=1, queue=limits[1][1]), (EvapidFed,))]
    compare(bench, name, trials, "deliveries/s", bench.repeat_fine)
    for params, text in ((limits[0][0], "never cut off"), (limits[1][0], "cut off when it is 8 MiB behind")):
        bench.results.target(name, f"the other 63 with it, {text}, to without it", ("evapid", params),
                             ("evapid", without), at_least=0.95)
