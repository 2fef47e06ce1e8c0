"""The turns of evapid's loop, in processor time as evapid itself measures it: whatever happens, each is short."""

import os

from scrape import metrics


class Turns:
    """Each evapid counts its own, so it is looked at before it is ended, as far as it can be asked then."""

    def __init__(self, director):
        self.director = director
        self.bound_s = "0.05"
        if "asan" in os.environ.get("EVAPID_BUILD", ""):
            self.bound_s = "0.25"  # the promise is for evapid as it is built for use
        if os.environ.get("EVAPID_WRAPPER"):
            self.bound_s = None    # valgrind's processor time says nothing: it isn't looked at
        self.seen = {}  # evapid's pid: long turns, all turns

    def look(self):
        if self.bound_s is not None:
            seen = metrics(self.director.metrics)
            count = seen.value("evapid_turn_seconds_count")
            short = seen.value("evapid_turn_seconds_bucket", le=self.bound_s)
            self.seen[self.director.stage.evapid.pid] = int(count - short), int(count)

    def checks(self):
        if self.bound_s is not None:
            yield f"no turn of evapid's loop took longer than {1000 * float(self.bound_s):g} ms of processor time", self.long()

    def long(self):
        self.look()
        if not sum(count for _, count in self.seen.values()):
            return ["no turn was counted"]
        return [f"evapid {pid}: {long} of {count} turns" for pid, (long, count) in self.seen.items() if long]
