"""While somebody tries to hold evapid up, its watchdog is served, a successor can take over by --replace, and SIGTERM ends it in
peace, after which the next one goes on with its clients."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

import wire
from books import balanced
from client import Client
from control import Control
from door import LINGERS_S, PASS, Silent
from process import DEADLINE_S, until
from standard_error import LogReader
from supervisor import BACKLOG

EVENTS = 60000
ROUTES = """
route[TEST] {
    if ($rU == "go") $shv(go) = 1;
    else if ($rU == "many") {
        $var(i) = 0;
        while ($var(i) < EVENTS) { evapi_relay("$var(i) $rb"); $var(i) = $var(i) + 1; }
    }
    else evapi_relay("$rb");
    sl_send_reply("200", "OK");
}
""".replace("EVENTS", str(EVENTS))
HANG = """
event_route[evapi:connection-new] {
    while ($evapi(conidx) > 1 && $shv(go) != 1) usleep("10000");
}
"""
WATCHED = ["env", "WATCHDOG_USEC=1000000"]  # of a second: evapid says twice as often that it lives


class Held:
    """The states, each of which is a context that ends it. sent: what a client is going to be sent because of it."""

    def __init__(self, stage):
        self.stage, self.sent = stage, []

    @contextlib.contextmanager
    def nothing(self):
        yield

    @contextlib.contextmanager
    def log_reader_stopped(self):
        for _ in range(1200):
            assert "reload" in self.stage.evapid.ask(command="reload")
        yield

    @contextlib.contextmanager
    def service_manager_stopped(self):
        notifications = self.stage.evapid.notifications
        notifications.sync()
        notifications.stops()
        for _ in range(BACKLOG + 30):
            Client(self.stage.address).close()
        try:
            yield
        finally:
            notifications.goes_on()

    @contextlib.contextmanager
    def strangers_at_the_door(self):
        with Silent(self.stage.evapid.kamailio_socket, 300) as silent:
            until(lambda: silent.renewed > 0, "evapid closes some of them")
            yield

    @contextlib.contextmanager
    def long_queue(self):
        """evapid goes on with it when what is to be done has been asked for."""
        evapid = self.stage.evapid
        evapid.stopped()
        self.stage.phone().ask("MESSAGE", "many", body=b"x" * 400)
        self.sent = [b"%d " % number + b"x" * 400 for number in range(EVENTS)]
        evapid.goes_on()
        yield

    @contextlib.contextmanager
    def askers(self):
        """30 of them, who ask for the status of 300 clients again and again, and come again when they are closed."""
        crowd = [Client(self.stage.address) for _ in range(300)]
        self.stage.evapid.clients(301)
        over, answered = threading.Event(), []

        def ask():
            while not over.is_set():
                try:
                    with Control(self.stage.evapid.control_socket) as control:
                        while not over.is_set() and control.ask(command="status"):
                            answered.append(1)
                except (OSError, AssertionError):
                    over.wait(0.01)  # evapid is just being restarted
        threads = [threading.Thread(target=ask, daemon=True) for _ in range(30)]
        for thread in threads:
            thread.start()
        until(lambda: len(answered) >= 60, "they are answered")
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()
            for client in crowd:
                client.close()

    @contextlib.contextmanager
    def seats_full(self):
        """connection-new hangs, and all but one place are taken by clients that have been closed for that."""
        self.stage.evapid.reload(access={"admission_timeout_ms": 1000})
        for _ in range(19):
            Client(self.stage.address)
        self.stage.evapid.until_status(lambda s: [e["state"] for e in s["clients"]].count("gone") == 19, "19 have gone")
        yield
        self.stage.phone().ask("MESSAGE", "go")
        self.stage.evapid.clients(1)

    @contextlib.contextmanager
    def lingering_descriptor(self):
        path, messages = str(self.stage.evapid.kamailio_socket), repr([(wire.hello(pid=os.getpid()), 2)])
        with subprocess.Popen([sys.executable, "-c", PASS, path, str(LINGERS_S), "False", messages], cwd="/",
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as passing:
            passing.stdout.readline()
            try:
                yield
            finally:
                passing.stdin.close()
                passing.wait(DEADLINE_S)


STATES = [name for name in vars(Held) if not name.startswith("_")]


def begin(stage, state, start):
    held = Held(stage)
    before = WATCHED
    if state == "log_reader_stopped":
        reader = LogReader("pipe", stage.folder)
        before = [*reader.before, *WATCHED]
    start(before=before, log={"level": "notice"}, limits={"max_queued_bytes": 64 << 20},
          access={"admission_timeout_ms": 600000})
    stage.start_kamailio(ROUTES + (HANG if state == "seats_full" else ""),
                         evapi={"max_clients": 20 if state == "seats_full" else 1000, "queue_size": 64 << 20})
    return held, stage.connect()


def heard_again(stage):
    """evapid says once more that it lives."""
    notifications = stage.evapid.notifications
    with notifications.lock:
        notifications.heard.pop("WATCHDOG", None)
    until(lambda: stage.evapid.heard("WATCHDOG") == "1", "evapid says that it lives")


def goes_on(stage, held, client):
    """The client gets all that was sent for it, and what comes now, and the books balance."""
    stage.evapid.attached(stage.kamailio.pid)
    stage.phone().ask("MESSAGE", "relay", body=b"event")
    assert client.receive_until(b"event") == held.sent
    assert balanced(stage.evapid.status())


@pytest.mark.parametrize("state", STATES)
def test_the_watchdog_is_served_whatever_holds_evapid_up(stage, state):
    held, client = begin(stage, state, stage.start_supervised)
    with getattr(held, state)():
        if state == "service_manager_stopped":
            stage.evapid.notifications.goes_on()  # nobody hears it before
        for _ in range(3):
            heard_again(stage)
    goes_on(stage, held, client)


# A service manager starts the successor itself: evapid refuses another one.
@pytest.mark.parametrize("state", [state for state in STATES if state != "service_manager_stopped"])
def test_a_successor_takes_over_whatever_holds_evapid_up(stage, state):
    held, client = begin(stage, state, stage.start_evapid)
    with getattr(held, state)():
        stage.replace_evapid()
    goes_on(stage, held, client)


@pytest.mark.parametrize("state", STATES)
def test_sigterm_ends_evapid_in_peace_whatever_holds_it_up(stage, state):
    """Also while the service manager does not listen, which then knows of the client: that has been stored before."""
    held, client = begin(stage, state, stage.start_supervised)
    evapid = stage.evapid
    with getattr(held, state)():
        evapid.expect_end = True
        evapid.signal(signal.SIGTERM)
        until(lambda: evapid.popen.poll() is not None, "evapid ends")
        evapid.notifications.goes_on()
        assert evapid.ended() == 0
        evapid.start_again()
    goes_on(stage, held, client)
