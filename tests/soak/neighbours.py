"""The director's actions with those whom evapid waits for never: the reader of its log, the service manager, clients that have
no place in the service manager's store, and strangers at its Unix sockets."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import log_reader
from control import Control
from guests import Guests
from process import running, until
from strangers import StrangersProcess

RELOADS = 900       # while nobody reads the log: more lines than a pipe and evapid's memory for them hold
FEW_RELOADS = 50    # under valgrind, where so many would take too long
AT_ONCE = 50
GUESTS = 60
# Notices that the service manager's socket takes unread.
BACKLOG = min(1000, 1 + int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()))
STOP_S = 3.0
SETTLES_S = 4.0     # evapid waits for the service manager a little longer than that when it ends
ATTACH_S = 120
# Becomes evapid with a reader of its log beside it.
LOGGED = (sys.executable, "-I", "-S", Path(log_reader.__file__).resolve())
MISSING = re.compile(r"log: (\d+) lines were not written")
NOT_TAKEN = r"not kept: the service manager has not taken it"


class Neighbours:
    """Part of the Director, which has all that is used here."""

    strangers = None
    evapid_squeezes = ()  # when clients were ended for want of places

    # ---- the log

    def stop_log_reader(self):
        """evapid writes far more lines than it can keep. Each is written in the end, or counted as missing.

        Not while events are held after a start: what evapid says of that the books need."""
        evapid = self.stage.evapid
        until(lambda: self._delivers(evapid.status()["kamailio"]), "events are delivered", ATTACH_S)

        def counted():
            text = evapid.text()
            return text.count("reloaded:"), sum(map(int, MISSING.findall(text)))
        before = sum(counted())
        readers = log_reader.readers(evapid.members())
        assert len(readers) == 1, readers
        os.kill(readers[0], signal.SIGSTOP)
        reloads = 0
        try:
            while reloads < (FEW_RELOADS if os.environ.get("EVAPID_WRAPPER") else RELOADS):
                reloads += self._reload_many()
            self._pause(STOP_S)
        finally:
            os.kill(readers[0], signal.SIGCONT)
        until(lambda: sum(counted()) >= before + reloads, f"{reloads} lines of evapid's log are written or counted as missing")
        assert reloads < RELOADS or counted()[1], "evapid had room for all lines: there are too few to be dropped"

    @staticmethod
    def _delivers(kamailio):
        return kamailio["state"] == "attached" and kamailio["ring"]["state"] == "running"

    def _reload_many(self):
        """Returns how many reloads were answered. When strangers are many, the connection may be the idlest, and is closed."""
        answered = 0
        try:
            with Control(self.stage.evapid.control_socket) as control:
                control.send(b'{"command": "reload"}\n' * AT_ONCE)
                while answered < AT_ONCE:
                    if (answer := control.line()) is None:
                        break
                    assert "reload" in answer, answer
                    answered += 1
        except (ConnectionError, BlockingIOError):
            time.sleep(0.01)
        return answered

    # ---- the service manager

    def _stop_service_manager(self):
        """Its socket is filled: a reload is two notices."""
        self.stage.evapid.notifications.stops()
        reloads = 0
        while not os.environ.get("EVAPID_WRAPPER") and 2 * reloads <= BACKLOG:
            reloads += self._reload_many()

    def stop_service_manager(self):
        """Clients come whose notices its socket has no room for."""
        self._stop_service_manager()
        guests = Guests(self.addresses["guest"], GUESTS)
        self._guests_there(guests.ports)
        self._pause(STOP_S)
        self.stage.evapid.notifications.goes_on()
        guests.leave()
        self._guests_there(set())

    def restart_evapid_while_service_manager_is_slow(self):
        """It goes on before evapid gives up, so that nothing is lost."""
        evapid = self.stage.evapid

        def end():
            asked = self._ask_to_end()
            self._pause(STOP_S)
            in_time = time.monotonic() - asked < SETTLES_S
            evapid.notifications.goes_on()
            self._ended()
            assert not in_time or not evapid.lines(NOT_TAKEN), "evapid has not waited for the service manager"
        self._stop_service_manager()
        self._restart_beside_guests(end)

    def restart_evapid_while_service_manager_is_stuck(self):
        """It goes on when evapid has ended: what it has not taken is lost, and counted."""
        evapid = self.stage.evapid

        def end():
            self._ask_to_end()
            until(lambda: not running(evapid.pid), "evapid ends, whatever the service manager does")
            evapid.notifications.goes_on()
            self._ended()
        self._stop_service_manager()
        self._restart_beside_guests(end)

    # ---- places

    def restart_evapid_with_more_clients_than_places(self):
        """In good order, with a service manager that takes all that it has room for."""
        def end():
            self._ask_to_end()
            self._ended()
        kept = self._restart_beside_guests(end)
        assert 0 < kept < GUESTS, f"{kept} of {GUESTS} guests have a place"

    def _ask_to_end(self):
        self.stage.evapid.members()
        self.stage.evapid.expect_end = True
        self.stage.evapid.signal(signal.SIGTERM)
        return time.monotonic()

    def _ended(self):
        evapid = self.stage.evapid
        code = evapid.ended()
        assert code == 0, f"{evapid.name} ended with {code} on SIGTERM"

    def _restart_beside_guests(self, end):
        """Of more clients than can be kept, those that are not end with this evapid, and only they. Returns how many guests
        are kept."""
        evapid, began = self.stage.evapid, time.time()
        guests = Guests(self.addresses["guest"], GUESTS)
        index_of = self._guests_there(guests.ports)
        self.turns.look()
        self.evapid_squeezes = (*self.evapid_squeezes, time.time())
        end()
        if evapid.lines(NOT_TAKEN):
            self.evapid_losses.append(began)
        stored = evapid.stored()
        kept = {port for port, index in index_of.items() if f"client-{index}" in stored}
        evapid.start_again()
        self.evapid_starts.append((began, time.time()))
        self._guests_there(kept)
        until(lambda: len(guests.open) <= len(kept), "the guests beyond see their end")
        assert guests.open == kept, f"{len(kept - guests.open)} guests that had a place have ended, {len(guests.open - kept)} not"
        assert not guests.torn + guests.violations, f"torn {guests.torn}, {guests.violations}"
        guests.leave()
        self._guests_there(set())
        return len(kept)

    def _guests_there(self, ports):
        """Wait until those are the guests that evapid has. Returns their indices by port."""
        def look():
            there = {int(entry["address"].rpartition(":")[2]): entry["index"] for entry in self.stage.evapid.status()["clients"]
                     if entry["listener"] == self.addresses["guest"]}
            assert set(there) == set(ports), f"{len(there)} guests are there, not {len(ports)}"
            return there, True
        return until(look, f"{len(ports)} guests are there")[0]

    # ---- strangers

    def bring_or_send_away_strangers(self):
        """They stay beside what else happens, until it is this action's turn again."""
        if self.strangers is not None:
            self.send_strangers_away()
        else:
            self.strangers = StrangersProcess(self.stage.folder, self.given.seed, self.stage.evapid)
            self.stage.processes.append(self.strangers)

    def send_strangers_away(self):
        if self.strangers is not None:
            self.found += self.strangers.finish()
            self.stage.processes.remove(self.strangers)
            self.strangers = None
