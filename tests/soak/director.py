"""What happens to the programs of the soak: a stage with all of them, and the actions that are taken at random.

An action leaves everything running. It may be missing something for a moment: clients come back by themselves, and so
does the attachment."""

import json
import os
import random
import signal
import time

from caller import Caller
from crowd import CrowdProcess
from evapid import run_evapid
from neighbours import LOGGED, Neighbours
from process import running, until
from routes import script
from roles import RESIDENTS, VISITORS
from stage import Stage
from turns import Turns

RESIDENT_COUNT = sum(count for _, count in RESIDENTS)
WORKERS = 2
# evapid's own, beside the one that the module declares: what is said of them in its configuration.
LISTENERS = {"raw": {"framing": "raw"}, "narrow": {"max_queued_bytes": 16384},
             "newest": {"max_queued_bytes": 65536, "slow_policy": "drop-newest"},
             "oldest": {"max_queued_bytes": 65536, "slow_policy": "drop-oldest"},
             "guest": {"max_queued_bytes": 64 << 20}, "kept": {"max_queued_bytes": 64 << 20, "keep_absent_ms": 3600000}}
# In the service manager's store: for the residents, the visitors, what evapid itself needs, and some guests.
PLACES = RESIDENT_COUNT + sum(count for _, count in VISITORS) + 45
SETTLE_S = 120  # for all to come to rest in the end; what holds up a slow machine is no failure
LONGEST_STOP_S = 3.0


class Director(Neighbours):
    """supervised: evapid is a service; else it is alone, and may be replaced. hands_over: evapid can hand its state to
    the next one."""

    def __init__(self, given):
        self.given = given
        self.random = random.Random(f"{given.seed} director")
        self.hands_over = "--replace" in run_evapid("-h").stdout
        self.supervised = given.mode == "service"
        self.stage = Stage()
        self.found = []            # problems of programs that are gone
        self.evapid_losses = []    # when an evapid was ended that could not hand over all that it had
        self.evapid_starts = []    # since when another evapid was on its way, and when it was ready
        self.evapid_stops = []     # when an evapid went on after it had been stopped
        self.kamailio_ends = 0
        self.taken = {}
        self.turns = Turns(self)
        self.caller = self.residents = self.visitors = None

    # ---- begin and end

    def begin(self):
        """All programs but the traffic, at rest."""
        stage, given = self.stage, self.given
        listeners = {name: {"address": stage.new_address(), **keys} for name, keys in LISTENERS.items()}
        self.addresses = {"module": stage.address, **{name: keys["address"] for name, keys in listeners.items()}}
        self.metrics = stage.new_address()
        settings = {
            "metrics": {"address": self.metrics}, "listeners": list(listeners.values()), "limits": {"max_queued_bytes": 262144}, "log": {"level": "info"},
            "attach_hold_ms": 20000 if self.hands_over else 5000}
        if self.supervised:
            stage.start_supervised(PLACES, before=LOGGED, **settings)
        else:
            stage.start_evapid(before=LOGGED, **settings)
        self.config = stage.kamailio_config(
            script(), children=given.sip_workers, params={"tm": {"fr_timer": 15000}},
            evapi={"workers": WORKERS, "max_clients": 1000, "queue_size": given.queue_size})
        stage.run_kamailio(self.config)
        self.residents = self._crowd("residents")
        self.at_rest()

    def call(self):
        """The traffic."""
        self.visitors = self._crowd("visitors")
        self.caller = Caller(self.stage.folder, self.stage.sip_port, self.given.rate, self.given.seed)
        self.stage.processes.append(self.caller)

    def _crowd(self, kind):
        crowd = CrowdProcess(self.stage.folder, kind, f"{self.given.seed}-{CrowdProcess.count}", self.addresses)
        self.stage.processes.append(crowd)
        return crowd

    def at_rest(self):
        """Wait until the residents are all who is connected, and nothing is under way. Returns the status."""
        def rests(status):
            kamailio, clients = status["kamailio"], status["clients"]
            return (len(clients) == RESIDENT_COUNT and all(entry["state"] == "open" for entry in clients) and
                    not any(entry["out"]["queued_frames"] for entry in clients) and
                    kamailio["state"] == "attached" and len(kamailio["workers"]) == WORKERS and
                    not any(worker["in_flight"] or worker["waiting"] for worker in kamailio["workers"]) and
                    kamailio["ring"]["state"] == "running" and kamailio["ring"]["used"] == 0)

        def look():
            status = self.stage.evapid.status()
            assert rests(status), status
            return status
        return until(look, "all come to rest", SETTLE_S)

    def quiet(self):
        """The traffic ends, everybody reads what there is. Returns sipp's exit code, evapid's status, and what the
        residents say, who have all seen the same last event."""
        self.send_strangers_away()
        code = self.caller.hang_up()
        self.visitors.finish()
        self.residents.ask("quiet")
        self.at_rest()
        mark = "%x" % self.random.getrandbits(64)
        phone = self.stage.phone()
        assert phone.ask("MESSAGE", "mark", body=mark.encode()).code == 200

        def marked():
            report = self.residents.ask("report")
            late = [app and app["name"] for app in report["apps"] if app is None or app["mark"] != mark]
            assert not late, late
            return report
        report = until(marked, "all residents have seen the mark", SETTLE_S)
        return code, self.at_rest(), report

    def end(self):
        """End all; returns what was wrong. evapid by SIGINT, after which nobody goes on where it was, so that it has to
        give back all that it has."""
        evapid, problems = self.stage.evapid, list(self.found)
        for process in reversed(self.stage.processes):
            if process is not evapid:
                problems += process.finish()
        if evapid is not None and evapid.alive():
            evapid.expect_end = True
            evapid.signal(signal.SIGINT)
            code = evapid.ended()
            problems += [f"{evapid.name} ended with {code} on SIGINT"] if code != 0 else []
        return problems

    # ---- actions

    def actions(self):
        """Names and weights of what can be done here."""
        known = {"kill-kamailio": 3, "restart-kamailio": 2, "kill-event-worker": 1, "stop-event-worker": 2,
                 "stop-evapid": 2, "reload-evapid": 2, "stop-visitors": 1, "kill-visitors": 2,
                 "kill-kamailio-while-evapid-is-stopped": 1, "stop-log-reader": 1, "bring-or-send-away-strangers": 4}
        if self.supervised:
            known |= {"restart-evapid": 3, "kill-evapid": 2, "kill-evapid-at-work": 3, "kill-both": 1,
                      "stop-service-manager": 1, "restart-evapid-while-service-manager-is-slow": 1,
                      "restart-evapid-while-service-manager-is-stuck": 1, "restart-evapid-with-more-clients-than-places": 2}
        elif self.hands_over:
            known |= {"replace-evapid": 8}
        if self.given.actions:
            unknown = set(self.given.actions) - set(known)
            assert not unknown, f"no such action here: {', '.join(sorted(unknown))}; there are: {', '.join(known)}"
            known = {name: known[name] for name in self.given.actions}
        return known

    def play(self, seconds):
        """Act at random intervals for that long."""
        known = self.actions()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self.random.uniform(0.2, 2.5) * self.given.slower))
            name = self.random.choices(list(known), list(known.values()))[0]
            self.given.say(f"{time.strftime('%H:%M:%S')} {name}")
            getattr(self, name.replace("-", "_"))()
            self.taken[name] = self.taken.get(name, 0) + 1
            problems = self.found + self.stage.problems()
            assert not problems, "; ".join(problems)

    def _pause(self, most):
        time.sleep(self.random.uniform(0, most))

    def _end_kamailio(self, how, crashed=False):
        """Let the present one end; it is looked over and forgotten."""
        kamailio = self.stage.kamailio
        self.kamailio_ends += 1
        getattr(kamailio, how)()
        self.stage.processes.remove(kamailio)
        if not crashed:  # else it says itself that a child of it has
            self.found += kamailio.problems()

    def _start_kamailio(self):
        self._pause(1.5)
        self.stage.run_kamailio(self.config, attach=False)
        if self.random.random() < 0.7:
            self.stage.evapid.attached(self.stage.kamailio.pid, WORKERS)

    def _event_worker(self):
        """The pid of one of Kamailio's that are attached, or None."""
        workers = until(self.stage.evapid.status, "evapid answers")["kamailio"]["workers"]
        return self.random.choice(workers)["pid"] if workers else None

    def kill_kamailio(self):
        self._end_kamailio("kill")
        self._start_kamailio()

    def restart_kamailio(self):
        self._end_kamailio("terminate")
        self._start_kamailio()

    def kill_event_worker(self):
        """Kamailio ends when one of its processes was killed."""
        if pid := self._event_worker():
            self.stage.kamailio.members()
            self.stage.kamailio.expect_end = True
            os.kill(pid, signal.SIGKILL)
            self._end_kamailio("ended", crashed=True)
            self._start_kamailio()

    def stop_event_worker(self):
        if pid := self._event_worker():
            os.kill(pid, signal.SIGSTOP)
            self._pause(LONGEST_STOP_S)
            os.kill(pid, signal.SIGCONT)

    def stop_evapid(self):
        self.stage.evapid.stopped()
        self._pause(LONGEST_STOP_S)
        self._evapid_goes_on()

    def _evapid_goes_on(self):
        self.stage.evapid.goes_on()
        self.evapid_stops.append(time.time())

    def kill_kamailio_while_evapid_is_stopped(self):
        self.stage.evapid.stopped()
        self._pause(0.5)
        self._end_kamailio("kill")
        self._pause(0.5)
        self._evapid_goes_on()
        self._start_kamailio()

    def reload_evapid(self):
        """It takes over another configuration, in which everybody may stay."""
        limits = {**self.stage.evapid.settings.get("limits", {}), "linger_ms": self.random.randrange(10000, 20000),
                  "worker_window_frames": self.random.choice([16, 256]),
                  "unicast_mode": self.random.choice(["first", "round-robin", "least-queued"])}
        settings = {"limits": limits, "access": {"deny": ["192.0.2.0/24"]},
                    "keepalive": {"idle_s": self.random.randrange(60, 100)}}

        def reload():
            try:
                return [self.stage.evapid.reload(**settings)]
            except (BlockingIOError, ConnectionError, json.JSONDecodeError):
                return None  # strangers have taken the place: once more
        until(reload, "evapid takes over another configuration")

    def stop_visitors(self):
        self.visitors.signal(signal.SIGSTOP)
        self._pause(LONGEST_STOP_S)
        self.visitors.signal(signal.SIGCONT)

    def kill_visitors(self):
        self.visitors.kill()
        self._pause(0.5)
        self.visitors = self._crowd("visitors")

    def _starts(self, another):
        began = time.time()
        another()
        self.evapid_starts.append((began, time.time()))

    def restart_evapid(self):
        self.turns.look()
        if not self.hands_over:
            self.evapid_losses.append(time.time())
        self._starts(self.stage.evapid.restart)

    def kill_evapid(self):
        self.turns.look()
        self._kill_evapid()

    def _kill_evapid(self):
        self.evapid_losses.append(time.time())
        self._starts(self.stage.evapid.kill_and_restart)

    def kill_evapid_at_work(self):
        """In the moment in which it works on what has gathered while it was stopped."""
        self.stage.evapid.stopped()
        self._pause(1)
        self.stage.evapid.goes_on()
        self._pause(0.005)
        self._kill_evapid()

    def kill_both(self):
        self._end_kamailio("kill")
        self.turns.look()
        self._kill_evapid()
        self._start_kamailio()

    def replace_evapid(self):
        """A new evapid takes over from the running one, which ends."""
        before = self.stage.evapid
        self.turns.look()
        after = self.stage.replace_evapid(LOGGED)
        self.stage.processes.remove(before)
        self.found += before.problems()
        assert after.pid != before.pid and not running(before.pid)
