"""The books of a soak: what real clients saw, what SIP was told, and what evapid counted have to agree.

A check is a pair: what should be so, and what is wrong (empty: nothing)."""

import re
from math import inf

from director import RESIDENT_COUNT

KILL_NOTICED_S = 8.0   # a client has seen that its evapid was killed, once there is the next one: that ends its stream
HOLD_S = 8.0           # until all residents are there again: one that stalls does so for 5 at most, and then connects
LINGER_S = 10.0        # what evapid gives a client that it cuts off to read the rest of a frame

# evapid says that it has not waited for all clients before it delivered events.
HELD_SHORT = re.compile(r"kamailio: (the queue is nearly full|waited long enough): delivering")
STALLING = re.compile("staller|newest|oldest")
OF_ONE_TAG = ("sender", "answerer", "restarter", "crasher")  # roles that have no group
# The script had something to say to a client, and the queue was full: kind, client's index and port, number of the message.
UNSAID = re.compile(r"<script>: UNSAID (\w) (\d+) (\d+) (\d+)$", re.MULTILINE)


class Books:
    def __init__(self, director, code, status, report):
        self.director, self.code, self.status, self.report = director, code, status, report
        self.apps = [app for app in report["apps"] if app is not None]
        self.seen = {(kind, source): runs for kind, source, runs in report["seen"]}
        logs = [log.read_text(errors="replace") for log in director.stage.folder.glob("evapid-*.log")]
        self.held_short = any(HELD_SHORT.search(text) for text in logs)
        self.unsaid = {tuple(words) for log in director.stage.folder.glob("kamailio-*.log")
                       for words in UNSAID.findall(log.read_text(errors="replace"))}
        for app in self.apps:
            app["index"] = self.index_of(app)
        self.whole = director.hands_over or not director.evapid_losses  # these books are those of the whole run

    def checks(self):
        yield "no client saw what must not happen", self.violations()
        yield "no client got an event before it was let in", self.early()
        yield "no stream ended within a frame", self.torn()
        yield "all residents are connected", [] if len(self.apps) == RESIDENT_COUNT else [f"{len(self.apps)} are"]
        yield "what clients received is what evapid has delivered", self.received()
        yield "numbers that clients miss are what evapid has dropped", self.missed()
        yield "an application that restarts misses nothing", self.restarted()
        yield "relayed = delivered + queued + dropped, of each client and in total", self.balance()
        yield "what the module issued is what evapid has counted", self.issued()
        yield "what SIP was told to be on its way came", self.said()
        yield "SIP lost no request", self.requests()
        yield "each message was run once, in order", self.messages()
        if self.director.supervised:
            yield "the service manager was asked to keep no more than it can", self.refused()

    # ---- what the clients said by themselves

    def lines(self, word):
        folder = self.director.stage.folder
        return [line for log in sorted([*folder.glob("residents-*.log"), *folder.glob("visitors-*.log")])
                for line in log.read_text(errors="replace").splitlines() if line.startswith(word)]

    def violations(self):
        return self.lines("violation:") + self.lines("Traceback")

    def torn(self):
        """A frame may be cut off when evapid is killed, or ends and has no place for the client; or when it was stopped for
        so long that a client which it had cut off could not use its time."""
        ends = [*self.director.evapid_losses, *self.director.evapid_squeezes]

        def excused(line):
            at = float(line.split()[1])
            return (any(end <= at < self._next_ready(end) + KILL_NOTICED_S for end in ends) or
                    STALLING.search(line) and any(0 <= at - went_on < LINGER_S for went_on in self.director.evapid_stops))
        return [line for line in self.lines("torn:") if not excused(line)]

    def _next_ready(self, lost):
        return min((ready for _, ready in self.director.evapid_starts if ready > lost), default=lost)

    def early(self):
        """A client that comes while events are held gets them before those of its own connection-new route, which were
        issued later. They are held after a start of either side."""
        def excused(line):
            at, connected, source = float(line.split()[1]), float(line.split()[-2]), line.split()[-1]
            port = line.split()[4].rstrip(":")
            return (self.unannounced(port) or int(source.split(".")[0]) > connected - HOLD_S or
                    any(connected - HOLD_S < ready and began < at for began, ready in self.director.evapid_starts))
        return [line for line in self.lines("early:") if not excused(line)]

    # ---- client by client

    def unannounced(self, port):
        return any(kind == "W" and at == str(port) for kind, _, at, _ in self.unsaid)

    def index_of(self, app):
        """evapid's index of its connection. The event that tells it may have found the queue full, or may have been dropped
        for the client: then its port tells."""
        if app["index"] is not None:
            return app["index"]
        told = {other["index"] for other in self.apps}
        found = [entry["index"] for entry in self.status["clients"]
                 if entry["index"] not in told and entry["address"].endswith(f":{app['port']}")
                 and (sum(entry["dropped"].values()) or self.unannounced(app["port"]))]
        return found[0] if len(found) == 1 else None

    def each(self, check):
        """What check(app, entry) says of each resident."""
        found, entries = [], {entry["index"]: entry for entry in self.status["clients"]}
        for app in self.apps:
            entry = entries.get(app["index"])
            known = entry is not None and entry["address"].endswith(f":{app['port']}")
            wrong = check(app, entry) if known else f"evapid has {entry} in its place"
            if wrong:
                found.append(f"{app['name']} (client {app['index']}, connection {app['connections']}): {wrong}")
        return found

    def received(self):
        def check(app, entry):
            told, own = (entry["out"]["delivered"], entry["out"]["bytes"]), (app["frames"], app["bytes"])
            return "" if told == own else f"evapid has delivered {told} events and bytes, it has got {own}"
        return self.each(check)

    def missing_of(self, app):
        """How many events passed it over that it should have got, as far as numbers tell."""
        kinds = ["R"] if app["role"] in OF_ONE_TAG else ["R", f"M{app['index'] % 3}"]
        runs_of = {(kind, source): runs for kind, source, runs in app["runs"]}
        early = {(kind, source): number for kind, source, number in app["early"] if kind != "R"}
        missing = 0
        for (kind, source), everything in self.seen.items():
            if kind not in kinds:
                continue
            runs = runs_of.get((kind, source), [])
            if last := early.get((kind, source)):
                # The tag that connection-new gave it in the end counted for events that were held, too; then each of its tags
                # in its turn.
                runs = [[max(a, last + 1), b] for a, b in runs if b > last]
                if not runs:
                    continue
            # It was there before the source was, or before all traffic: then the source's first events were for it too.
            was_there = app["connections"] == 1 or (app["began"] or inf) + 1 < int(source.split(".")[0])
            came_before = was_there and not self.held_short
            if not runs and not came_before:
                continue
            first = 1 if came_before else runs[0][0]
            missing += everything[-1][1] - first + 1 - sum(b - a + 1 for a, b in runs)
        return missing

    def missed(self):
        kills = len(self.director.evapid_losses)

        def check(app, entry):
            missing, dropped = self.missing_of(app), sum(entry["dropped"].values())
            # What it did not get may be of another kind; and of a source that was there before it, the first.
            exact = app["connections"] == 1 and app["role"] not in OF_ONE_TAG and not self.held_short
            most = missing + kills if exact else dropped
            return "" if missing <= dropped <= most else f"misses {missing} events, evapid has dropped {entry['dropped']}"
        return self.each(check)

    def restarted(self):
        """Its tag is kept while it is away. An evapid that is killed, or has no place for it, loses what waited; then only
        the events of those Kamailios tell that came and went without that."""
        found, ends = [], [*self.director.evapid_losses, *self.director.evapid_squeezes]
        starts = sorted({int(source.split(".")[0]) for kind, source in self.seen if kind == "R"})

        def tells(source):
            began = int(source.split(".")[0])
            over = min((start for start in starts if start > began), default=inf)
            return not any(began - HOLD_S < end < over + HOLD_S for end in ends)
        for app in [app for app in self.apps if app["role"] == "restarter" and not self.held_short]:
            got = {source: sum(b - a + 1 for a, b in runs) for source, runs in app["all"]}
            missing = {source: runs[-1][1] - got.get(source, 0) for (kind, source), runs in self.seen.items()
                       if kind == "R" and tells(source)}
            if sum(missing.values()):
                found.append(f"{app['name']} (connection {app['connections']}) misses {missing}")
        return found

    def balance(self):
        def wrong(out, queued, dropped):
            total = out["delivered"] + queued + sum(dropped.values())
            return "" if out["relayed"] == total else f"{out['relayed']} relayed, {total} accounted for"
        found = self.each(lambda _, entry: wrong(entry["out"], entry["out"]["queued_frames"], entry["dropped"]))
        out = self.status["totals"]["out"]
        if total := wrong(out, 0, out["dropped"]):
            found.append(f"in total: {total}")
        clients = sum(entry["out"]["delivered"] for entry in self.status["clients"])
        if clients > out["delivered"]:
            found.append(f"the clients have got {clients}, and all there ever were {out['delivered']}")
        return found

    # ---- all together

    def issued(self):
        """Each process numbers what it issues without a gap, so the last numbers add up to what evapid has read."""
        if not self.whole:
            return []
        events, found = self.status["totals"]["events"], []
        slack = sum(self.status["totals"]["out"]["dropped"].values()) if self.director.evapid_losses else 0
        for name, kinds in (("relay", ("R",)), ("multicast", ("M0", "M1", "M2"))):
            last = sum(runs[-1][1] for (kind, _), runs in self.seen.items() if kind in kinds)
            if not 0 <= events[name] - last <= slack:
                found.append(f"{name}: the last numbers of all processes make {last}, evapid has counted {events[name]}")
        return found

    def said(self):
        """Every event of which SIP was told that it is on its way was seen by one resident at least. What an evapid had
        in memory when it was killed is lost, and counted."""
        unseen, asked = [], 0
        for _, events in self.director.caller.said():
            for kind, source, number in events:
                if kind == "R" or kind.startswith("M"):
                    asked += 1
                    runs = self.seen.get((kind, source), [])
                    if not any(first <= number <= last for first, last in runs):
                        unseen.append(f"{kind} {number} of {source}")
        if not asked:
            return ["SIP was told of no event"]
        if self.director.evapid_losses and not self.director.hands_over:
            return []
        lost = self.status["totals"]["out"]["dropped"].get("lost", 0)
        return [f"{len(unseen)} of {asked} did not: {', '.join(unseen[:10])}"] if len(unseen) > lost else []

    def requests(self):
        figures, found = self.director.caller.figures(), []
        made, failed = int(figures["TotalCallCreated"]), int(figures["FailedCall(C)"])
        if self.code != 0 or failed or not made:
            found.append(f"sipp ended with {self.code}: {failed} of {made} requests without an answer")
        codes = [code for code, _ in self.director.caller.said()]
        if len(codes) != made:
            found.append(f"{made} requests, {len(codes)} answers")
        unanswered = codes.count("504")
        # A transaction whose answerer's words were lost with evapid, or who had no place, or begun by a worker that died.
        ended = self.director.evapid_losses or self.director.evapid_squeezes or self.director.kamailio_ends
        if unanswered and not ended:
            found.append(f"{unanswered} requests were suspended for ever")
        return found

    def refused(self):
        count = self.director.stage.evapid.refused()
        return [f"{count} descriptors were refused"] if count else []

    def messages(self):
        """A dying Kamailio may take one message of each worker with it, a killed evapid those that it had taken, and answers
        that it had: these are what it has dropped besides the events that numbers tell of. A route that has run may have
        found the queue full when it answered: it has said so in the log."""
        def check(app, entry):
            taken = entry["in"]
            lost = sum(taken["dropped"].values())
            if taken["frames"] != app["messages"] or taken["frames"] != taken["delivered"] + taken["waiting"] + lost:
                return f"has sent {app['messages']}, evapid has taken {taken}"
            missing = app["sent"] - app["heard"] + app["missing"] if app["role"] == "sender" else 0
            answers = sum(entry["dropped"].values()) - self.missing_of(app)
            unsaid = sum(kind == "K" and (index, port) == (str(app["index"]), str(app["port"])) and number != "0"
                         for kind, index, port, number in self.unsaid)
            allowed = self.director.kamailio_ends + lost + answers + unsaid
            return f"{missing} of {app['sent']} were not run, evapid has taken {taken}" if missing > allowed else ""
        return self.each(check)
