"""A SIP worker is stopped or killed in the middle of its push: it has claimed its place in the queue and has not published its record.

A debugger takes the worker there, by the words of the shared memory that docs/protocol.md names; neither the module nor evapid knows of
it. The worker is one of the packaged Kamailio's that has just got a SIP request."""

import os
import signal

import pytest

from process import stat_fields, until
from ring import CLAIMED, END, KEY, NOTED, RECORDS, SLOT, SLOTS, SLOTS_USED, Ring
from scrape import metrics
from script import RELAY
from tracer import Traced

# A request for sip:marked@ says so in the log just before it pushes. Every answer names the worker.
ROUTES = """
route[TEST] {
    append_to_reply("X-Pid: $pp\\r\\n");
    if ($rU == "who") {
        sl_send_reply("200", "OK");
        exit;
    }
    if ($rU == "marked") xlog("L_NOTICE", "PUSHES NOW\\n");
    $var(rc) = evapi_relay("$rb");
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    sl_send_reply("200", "OK");
}
"""


class Floor:
    """Kamailio's SIP workers, of which one is in the middle of its push."""

    def __init__(self, stage, workers=3, **evapi):
        self.stage = stage
        stage.start_kamailio(ROUTES, children=workers, evapi=evapi)
        self.phone, self.client, self.ring = stage.phone(), stage.connect(), Ring(stage.kamailio.pid)
        self.workers = self._find(workers)
        self.victim = min(self.workers)

    def _find(self, count):
        """Who has taken a request is stopped until all have had one."""
        seen = []
        try:
            while len(seen) < count:
                pid = int(self.phone.ask("MESSAGE", "who")["X-Pid"])
                seen.append(pid)
                self._stop(pid)
        finally:
            for pid in seen:
                os.kill(pid, signal.SIGCONT)
        return seen

    @staticmethod
    def _stop(pid):
        """A request that comes from now on is another worker's."""
        os.kill(pid, signal.SIGSTOP)
        until(lambda: stat_fields(pid)[0] == "T", "the worker is stopped")

    def others(self):
        return [pid for pid in self.workers if pid != self.victim]

    def relay(self, body):
        """An event by a worker that is not stopped; returns what the function has returned."""
        return int(self.phone.ask("MESSAGE", "relay", body=body)["X-Rc"])

    def stop_in_the_middle(self, body):
        """The victim gets a request, and stops in the push of its body."""
        try:
            for pid in self.others():
                self._stop(pid)
            traced, kamailio = Traced(self.victim), self.stage.kamailio
            before, head = len(kamailio.lines("PUSHES NOW")), self.ring.head()
            self.request = self.phone.start("MESSAGE", "marked", body=body)
            self.request.next_s = float("inf")  # it is never sent again: another worker would push it, too
            traced.by_calls(lambda: len(kamailio.lines("PUSHES NOW")) > before)
            traced.by_instructions(lambda: self.ring.head() != head)
            traced.leave_stopped()
        finally:
            for pid in self.others():
                os.kill(pid, signal.SIGCONT)
        until(lambda: stat_fields(self.victim)[0] == "T", "the worker is stopped")
        self._check_hole(head)

    def _check_hole(self, at):
        slots = [SLOTS + SLOT * slot for slot in range(self.ring.get(SLOTS_USED))]
        (slot,) = [slot for slot in slots if self.ring.get(slot + NOTED) == at + 1]
        assert self.ring.get(slot + CLAIMED) == self.ring.get(slot + END) > at
        assert self.ring.get(RECORDS + at % self.ring.capacity) != at ^ self.ring.get(KEY), "it is published already"

    def goes_on(self):
        os.kill(self.victim, signal.SIGCONT)

    def shown(self):
        return self.stage.evapid.status()["kamailio"]["ring"]

    def until_stuck(self):
        return self.stage.evapid.until_status(lambda s: s["kamailio"]["ring"]["stuck"], "evapid says that the queue is stuck")

    def until_not_stuck(self):
        return self.stage.evapid.until_status(lambda s: not s["kamailio"]["ring"]["stuck"], "it is not stuck any more")

    def ends(self):
        """Kamailio ends as it should not: a process of its own has been killed."""
        kamailio = self.stage.kamailio
        kamailio.ended()
        self.stage.processes.remove(kamailio)


    def close(self):
        self.ring.close()
        if stat_fields(self.victim) is not None:
            self.goes_on()  # or Kamailio could not end


@pytest.fixture
def floors(stage):
    made = []

    def begin(**evapi):
        made.append(Floor(stage, **evapi))
        return made[-1]
    yield begin
    for floor_ in made:
        floor_.close()


@pytest.fixture
def floor(stage, floors):
    stage.metrics = stage.new_address()
    stage.start_evapid(metrics={"address": stage.metrics})
    return floors()


def events(*numbers):
    return [b"event %d" % number for number in numbers]


def test_promise_1_a_sip_worker_stopped_in_its_push_stops_no_other_one(floor):
    """What was issued before it arrives at once, the rest when it goes on; nothing is lost."""
    assert floor.relay(b"before") == 1
    floor.stop_in_the_middle(b"in the middle")
    for event in events(*range(10)):
        assert floor.relay(event) == 1
    assert floor.client.receive() == b"before"
    floor.until_stuck()
    floor.stage.evapid.logged(r"warning kamailio: the queue is stuck: a process of pid \d+ was stopped while it wrote there; \d+ bytes wait")
    assert metrics(floor.stage.metrics).value("evapid_ring_stuck") == 1
    assert "STUCK" in floor.stage.evapid.ctl("status").stdout
    assert floor.request.final is None and floor.shown()["lost"] == 0
    floor.goes_on()
    assert floor.client.receive_many(11) == [b"in the middle", *events(*range(10))]
    assert floor.phone.finish(floor.request)["X-Rc"] == "1"
    assert floor.until_not_stuck()["kamailio"]["ring"]["lost"] == 0
    floor.stage.evapid.logged(r"notice kamailio: the queue of pid \d+ is not stuck any more")


def test_a_sip_worker_killed_in_its_push_loses_its_own_record_only(floor):
    """Kamailio's main process would end all others: it is stopped, so that they go on for longer than they do by themselves."""
    kamailio = floor.stage.kamailio
    kamailio.members()
    floor.stop_in_the_middle(b"lost")
    assert floor.relay(b"event 0") == 1
    kamailio.expect_end = True
    kamailio.signal(signal.SIGSTOP)
    os.kill(floor.victim, signal.SIGKILL)
    assert floor.relay(b"event 1") == 1
    assert floor.client.receive_many(2) == events(0, 1)
    assert floor.relay(b"event 2") == 1
    assert floor.client.receive() == b"event 2"
    assert floor.shown()["lost"] == 1 and not floor.shown()["stuck"]
    floor.stage.evapid.logged(r"warning kamailio: 1 events or commands are lost: processes of pid \d+ did not finish writing them")
    kamailio.signal(signal.SIGCONT)
    floor.ends()
    floor.stage.restart_kamailio()
    assert floor.shown()["lost"] == 0
    assert metrics(floor.stage.metrics).value("evapid_ring_lost_total") == 1, "it goes on over Kamailio's restart"


def test_what_a_killed_kamailio_has_left_after_an_unfinished_push_arrives(floor):
    kamailio = floor.stage.kamailio
    assert floor.relay(b"before") == 1
    floor.stop_in_the_middle(b"lost")
    for event in events(0, 1):
        assert floor.relay(event) == 1
    kamailio.expect_end = True
    for pid in kamailio.members():
        os.kill(pid, signal.SIGKILL)
    assert floor.client.receive_many(3) == [b"before", *events(0, 1)]
    floor.ends()
    floor.stage.evapid.detached()
    assert floor.shown()["lost"] == 1
    floor.stage.restart_kamailio()
    assert floor.phone.ask("MESSAGE", "relay", body=b"of the next one")["X-Rc"] == "1"
    assert floor.client.receive() == b"of the next one"


def test_the_next_kamailio_does_not_wait_for_a_process_of_the_last_one_that_stays_stopped(floor):
    kamailio = floor.stage.kamailio
    floor.stop_in_the_middle(b"lost")
    assert floor.relay(b"event 0") == 1
    kamailio.expect_end = True
    for pid in kamailio.members():
        if pid != floor.victim:
            os.kill(pid, signal.SIGKILL)
    floor.stage.evapid.detached()
    floor.stage.sip_port = floor.stage.ports.udp()  # the stopped one has the other
    floor.stage.start_kamailio(ROUTES)
    assert floor.client.receive() == b"event 0"
    assert metrics(floor.stage.metrics).value("evapid_ring_lost_total") == 1
    floor.stage.evapid.logged(r"warning kamailio: 1 events or commands are lost: processes of pid \d+ did not finish writing them")
    assert floor.stage.phone().ask("MESSAGE", "relay", body=b"of the next one")["X-Rc"] == "1"
    assert floor.client.receive() == b"of the next one"
    os.kill(floor.victim, signal.SIGKILL)
    kamailio.ended()
    floor.stage.processes.remove(kamailio)


@pytest.mark.parametrize("again", ["replace", "restart", "kill_and_restart"])
def test_an_unfinished_push_is_waited_for_by_the_next_evapid_too(stage, floors, again):
    stage.start_supervised() if again != "replace" else stage.start_evapid()
    floor = floors()
    floor.stop_in_the_middle(b"in the middle")
    assert floor.relay(b"event 0") == 1
    stage.replace_evapid() if again == "replace" else getattr(stage.evapid, again)()
    assert floor.relay(b"event 1") == 1
    floor.until_stuck()
    floor.goes_on()
    assert floor.client.receive_many(3) == [b"in the middle", *events(0, 1)]
    assert floor.until_not_stuck()["kamailio"]["ring"]["lost"] == 0


def test_a_full_queue_refuses_each_event_once_while_a_push_is_unfinished(stage, floors):
    """And the end of a route goes into the reserve, which events leave free."""
    stage.start_evapid()
    floor = floors(queue_size=65536)
    floor.stop_in_the_middle(b"in the middle")
    sizes, taken = (4000, 1000, 200, 40, 1), []
    for size in sizes:
        while floor.relay(b"x" * size) == 1:
            taken.append(size)
    assert taken[0] == 4000 and floor.shown()["refused_full"] == len(sizes)
    head = floor.ring.head()
    floor.client.send(b"a message")
    until(lambda: floor.ring.head() != head, "its worker has said that its route has ended")
    floor.goes_on()
    assert floor.client.receive_many(len(taken) + 1) == [b"in the middle"] + [b"x" * size for size in taken]
    stage.evapid.until_status(lambda s: s["totals"]["in"]["delivered"] == 1, "the message's route has ended")
    assert floor.shown()["refused_full"] == len(sizes) and floor.shown()["lost"] == 0
