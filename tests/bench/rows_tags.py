"""Events to one client of many, each of which has a tag of its own: what an event costs must not depend on how many are
connected."""

from results import row
from systems import EvapidFed, Trial, Work, compare


@row("tags", "events of 200 bytes by tag, to 1 client of 10 and to 1 of 10,000")
def tags(bench):
    few, many = 10, 1000 if bench.quick else 10000
    modes = ("multicast", "unicast")
    for mode in modes:
        compare(bench, "tags", [Trial({"mode": mode, "clients": count},
                                      Work(count, 0, receivers=1, mode=mode, tags=True), (EvapidFed,))
                                for count in (few, many)], "deliveries/s", bench.repeat)
        bench.results.target("tags", f"{mode}: what an event costs with {many:,} clients, to with {few}",
                             ("evapid", {"mode": mode, "clients": few}), ("evapid", {"mode": mode, "clients": many}),
                             at_most=1.5)
