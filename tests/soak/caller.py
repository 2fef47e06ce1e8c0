"""SIP at a steady rate: sipp sends request.xml, and each request again until it is answered, as RFC 3261 wants it."""

import random
import signal
import string
from pathlib import Path

from process import Process

SCENARIO = Path(__file__).resolve().parent / "request.xml"
REQUESTS = 1000
BODY = string.ascii_letters + string.digits
KINDS = [("plain", 70), ("async", 15), ("large", 10), ("burst", 4), ("flood", 1)]
FLOOD_BYTES = 200  # of its body, from which the route makes half a megabyte: enough for a queue that nobody empties
GROUPS = [("r", 40), ("0", 10), ("1", 10), ("2", 10), ("u", 10)]


def picked(rng, choices):
    names, weights = zip(*choices)
    return rng.choices(names, weights)[0]


def write_requests(path, seed):
    """The file of sipp's fields: what is asked for, whom the event is for, and what it says."""
    rng = random.Random(f"{seed} requests")
    lines = ["SEQUENTIAL"]
    for _ in range(REQUESTS):
        kind = picked(rng, KINDS)
        length = FLOOD_BYTES if kind == "flood" else int(min(900, 10 + rng.expovariate(1 / 150)))
        lines.append(f"{kind};{picked(rng, GROUPS)};{''.join(rng.choices(BODY, k=length))}")
    path.write_text("\n".join(lines) + "\n")


class Caller(Process):
    """sipp, until it is told to stop."""

    def __init__(self, folder, port, rate, seed):
        write_requests(folder / "requests.csv", seed)
        self.said_log, self.errors, self.statistics = (folder / name for name in ("said.log", "sipp.err", "sipp.csv"))
        super().__init__("sipp", ["sipp", f"127.0.0.1:{port}", "-i", "127.0.0.1", "-sf", SCENARIO, "-inf",
                                  folder / "requests.csv", "-r", rate, "-l", 20000, "-nostdin", "-trace_logs",
                                  "-log_file", self.said_log, "-trace_err", "-error_file", self.errors, "-trace_stat",
                                  "-stf", self.statistics, "-fd", 60], folder)

    def hang_up(self):
        """No new request; those under way are finished. Returns sipp's exit code: 0 when all were answered."""
        self.expect_end = True
        self.signal(signal.SIGUSR1)
        return self.ended()

    def figures(self):
        """sipp's last figures by their names."""
        names, *_, last = [line.split(";") for line in self.statistics.read_text().splitlines()]
        return dict(zip(names, last))

    def said(self):
        """For each answer its code, and the events that the route had issued: (kind, source, number)."""
        with open(self.said_log) as log:
            for line in log:
                code, _, *events = line.split()
                events = [event.split(":") for event in events]
                yield code, [(kind, source, int(number)) for kind, source, number in events]

    def problems(self):
        if self.popen.poll() is not None and not self.expect_end:
            return [f"sipp ended by itself with {self.popen.returncode}: {self.tail(5)}"]
        return []

    def finish(self):
        found = self.problems()
        if self.alive():
            self.kill()
        return found
