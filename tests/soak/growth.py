"""Memory and descriptors: after the chaos they are back where they were before it.

Only what one process had at both times can be compared, so a process that was started in between begins anew."""

import os

from evapid import open_by
from process import session_members, stat_fields, until

SPREAD_BYTES = 16 << 20  # what a warm allocator may keep of what it once had
CREEP_BYTES = 6 << 20    # and what may come to that in the second half, when it is warm


def but_files(descriptors):
    """What a process has open but for files: those are its log, and valgrind's."""
    return sorted(f"{fd}={what}" for fd, what in descriptors.items() if what[:1] != "/" or what.startswith("/memfd:"))


def count_of(pid):
    return len(but_files(open_by(pid)))


class Growth:
    """Made when all is at rest, asked when all is at rest again."""

    def __init__(self, director):
        self.director = director
        self.sanitized = "asan" in os.environ.get("EVAPID_BUILD", "") or bool(os.environ.get("EVAPID_WRAPPER"))
        evapid = director.stage.evapid
        self.pid, self.half = evapid.pid, None
        self.fds, self.rss = self._while_all_are_there(), evapid.own_bytes()

    def _while_all_are_there(self):
        """The number of evapid's descriptors. An application that restarts may just be away: then it is counted again."""
        def residents(status):
            return {(entry["index"], entry["state"]) for entry in status["clients"]}

        def look():
            evapid, before = self.director.stage.evapid, residents(self.director.at_rest())
            count = len(but_files(evapid.descriptors()))
            assert residents(evapid.status()) == before, "somebody has left meanwhile"
            return count
        return until(look, "descriptors are counted while nobody leaves")

    def half_time(self):
        evapid = self.director.stage.evapid
        self.half = evapid.pid, evapid.own_bytes()

    def checks(self):
        yield "evapid has no more descriptors than before", self.evapid_descriptors()
        yield "Kamailio's processes have no descriptor too many", self.kamailio_descriptors()
        yield "evapid's memory is bounded", self.memory()

    def evapid_descriptors(self):
        """Also of another process: it has the same listeners, clients and links. A connection that was just ending at the start
        may have been counted then."""
        now = but_files(self.director.stage.evapid.descriptors())
        return [] if len(now) <= self.fds else [f"{self.fds} before, now {len(now)}: {' '.join(now)}"]

    def kamailio_descriptors(self):
        """Those of the processes that run events, which attach again and again, against those of a new Kamailio."""
        kamailio = self.director.stage.kamailio
        workers = [worker["pid"] for worker in self.director.stage.evapid.status()["kamailio"]["workers"]]
        others = [pid for pid in session_members(kamailio.pid) if pid not in workers and stat_fields(pid)]
        most = max(map(count_of, others))
        return [f"event worker {pid} has {count_of(pid)}, no other process more than {most}" for pid in workers
                if count_of(pid) > most + 8]

    def memory(self):
        if self.sanitized:
            return []  # they keep what is freed; what leaks they tell themselves
        evapid, found = self.director.stage.evapid, []
        now = evapid.own_bytes()
        if now > self.rss + SPREAD_BYTES:
            found.append(f"{self.rss} bytes before, now {now}")
        if self.half[0] == evapid.pid and now > self.half[1] + CREEP_BYTES:
            found.append(f"{self.half[1]} bytes at half-time, now {now}")
        return found
