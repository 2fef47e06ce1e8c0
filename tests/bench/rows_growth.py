"""How cost grows with the number of clients and with the size of an event."""

from results import row
from rows_fanout import ALL
from systems import Trial, Work, rates


@row("growth-clients", "events of 200 bytes, from 1 client to 4,096")
def growth_clients(bench):
    counts = (4, 256) if bench.quick else (1, 4, 16, 64, 256, 1024, 4096)
    rates(bench, "growth-clients", [Trial({"clients": count}, Work(count, 0), ALL) for count in counts], "events/s")


@row("growth-bytes", "8 clients, events from 20 bytes to 64 KiB")
def growth_bytes(bench):
    sizes = (20, 65536) if bench.quick else (20, 64, 256, 1024, 4096, 16384, 65536)
    rates(bench, "growth-bytes", [Trial({"bytes": size}, Work(8, 0, size), ALL) for size in sizes], "events/s")
