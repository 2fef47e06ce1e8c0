"""Bad input and hard times: a real Kamailio's ring that is scribbled on while it drains, no descriptors, no memory."""

import itertools
import os
import random
import resource
import subprocess
import time
import zlib

import pytest

from background import Background
from client import Client
from evapid import EVAPICTL, EVAPID, SANITIZER
from process import DEADLINE_S, until
from ring import PRESENCE, RECORDS, SLEEPING, SLOT, SLOTS, SLOTS_USED, TAG_SLOTS, TAIL, WORKER, WORKERS, Ring, Wake, make_ring
from script import relay
from wire import WELCOME, Link, hello

ROUTES = """
route[TEST] {
    if ($rU == "async") {
        evapi_async_relay("$rb");
        if ($rc > 0) exit;
        t_reply("480", "Nobody answers");
        exit;
    }
    evapi_relay("$rb");
    append_to_reply("X-Rc: $rc\\r\\n");
    sl_send_reply("200", "OK");
}
event_route[evapi:connection-new] { xlog("L_NOTICE", "NEW $evapi(conidx);\\n"); }
event_route[evapi:message-received] { xlog("L_NOTICE", "GOT $evapi(conidx) $evapi(msg);\\n"); }
"""


def begin(stage, evapi=None, **settings):
    stage.start_evapid(**settings)
    stage.start_kamailio(ROUTES, evapi=evapi, children=4, params={"tm": {"fr_timer": 1000}})
    return stage.phone()


def numbered(number, size):
    """An event that shows whether it is whole: its number, filling, and a checksum of both."""
    bytes_ = b"%d:" % number + bytes([33 + number % 90]) * size
    return b"%s:%08x" % (bytes_, zlib.crc32(bytes_))


def number_of(event):
    bytes_, checksum = event.rsplit(b":", 1)
    assert zlib.crc32(bytes_) == int(checksum, 16), event[:80]
    return int(bytes_.split(b":", 1)[0])


# ---- a ring that is scribbled on while it drains


def somewhere(*spans):
    """A place in one of the spans of bytes, (first, length)."""
    def choose(chance):
        first, length = chance.choice(spans)
        return first + chance.randrange(length)
    return choose


class Scribbler(Background):
    """Writes random bytes to a Kamailio's ring, wherever choose(chance) says, until it is stopped."""

    def __init__(self, ring, choose, chance):
        super().__init__()
        self.ring, self.choose, self.chance, self.written = ring, choose, chance, 0

    def run(self):
        while not self.over.is_set():
            for _ in range(self.chance.randrange(1, 9)):
                self.ring.map[self.choose(self.chance)] = self.chance.randrange(256)
                self.written += 1
            time.sleep(self.chance.random() / 1000)


PLACES = {
    "records": somewhere((RECORDS, 65536)),
    "positions": somewhere((SLOTS_USED, 24), (TAIL, 8), (SLOTS, 24), (SLOTS + SLOT, 24)),
    "sleep": somewhere((SLEEPING, 24)),
    "workers": somewhere((WORKERS, 32), (WORKERS + WORKER, 32)),
    "presence": somewhere((PRESENCE, 24), (PRESENCE + 64, 8 * TAG_SLOTS)),
    "shape": somewhere((0, 32)),
    "everything": somewhere((0, 320), (PRESENCE, 64), (RECORDS, 4096)),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_real_ring_is_scribbled_on_while_it_drains(stage, place):
    """SIP is answered, Kamailio and evapid live on, a client gets whole events; and a new Kamailio finds all as it was."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    phone = begin(stage, evapi={"queue_size": 65536, "workers": 2})
    client, talker = stage.connect(), stage.connect()
    ring = Ring(stage.kamailio.pid)
    events = []
    with Scribbler(ring, PLACES[place], chance) as scribbler:
        for number in itertools.count():
            if number >= 150 and scribbler.written > 100:
                break
            assert phone.ask("MESSAGE", "relay", body=numbered(number, chance.randrange(3000))).code == 200
            if number % 10 == 0:
                phone.start("MESSAGE", "async", body=numbered(number + 1000000, 10))
                talker.send(b"%d" % number)
            events += client.receive_ready()
    ring.close()
    assert stage.evapid.status()["version"]
    if place in ("sleep", "workers", "presence", "shape"):  # what events consist of was left alone
        assert sorted(set(map(number_of, events))) == sorted(map(number_of, events)), "each event once"
    stage.kamailio.terminate()
    stage.restart_kamailio()
    fresh = stage.connect()
    assert relay(stage.phone(), b"again") == 1  # the other one still asks for answers
    assert fresh.receive() == b"again"
    if not client.eof:
        client.receive_until(b"again")


# ---- out of descriptors


def leave_descriptors(evapid, free):
    """Let evapid open just so many more."""
    taken = evapid.descriptors()
    limit = 0
    while free > 0 or limit in taken:
        free -= limit not in taken
        limit += 1
    hard = resource.prlimit(evapid.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(evapid.pid, resource.RLIMIT_NOFILE, (limit, hard))


def leave_all_descriptors(evapid):
    hard = resource.prlimit(evapid.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(evapid.pid, resource.RLIMIT_NOFILE, (hard, hard))


def some_ticks():
    """Time enough for evapid to try again: it does so every second. Should it take longer, less is tested."""
    end = time.monotonic() + 1.5
    until(lambda: time.monotonic() > end, "more than a second passes")


def test_a_listener_without_descriptors_waits_and_nobody_else_notices(stage):
    phone = begin(stage)
    healthy = stage.connect()
    leave_descriptors(stage.evapid, 2)
    waiting = [Client(stage.address) for _ in range(6)]
    stage.connections += waiting
    stage.evapid.logged(rf"error listener {stage.address}: cannot accept clients: Too many open files")
    stage.kamailio.logged("NEW ", 3)
    some_ticks()
    assert len(stage.evapid.lines("cannot accept clients")) == 1, "it is said once"
    assert relay(phone, b"one") == 1
    assert [client.receive() for client in (healthy, *waiting[:2])] == [b"one"] * 3
    healthy.send(b"a message")
    stage.kamailio.logged(rf"GOT {healthy.index} a message;")
    for client in waiting[:2]:
        client.close()
    stage.evapid.logged("accepts clients again")
    stage.kamailio.logged("NEW ", 5)
    leave_all_descriptors(stage.evapid)
    stage.evapid.clients(5)
    assert relay(phone, b"two") == 1
    assert [client.receive() for client in (healthy, *waiting[2:])] == [b"two"] * 5
    assert stage.evapid.status()["totals"]["clients"]["refused"] == 0


def test_the_doors_without_descriptors_wait(stage):
    stage.start_evapid()
    memory, wake = make_ring(65536), Wake()
    leave_descriptors(stage.evapid, 0)
    link = Link(stage.evapid.kamailio_socket)
    link.send(hello(), [memory, wake.passed])
    asking = subprocess.Popen([EVAPICTL, "-s", stage.evapid.control_socket, "status"], stdout=subprocess.PIPE,
                              text=True)
    for door in ("kamailio", "control"):
        stage.evapid.logged(rf"error \S*{door}\.sock: cannot accept: Too many open files")
    some_ticks()
    assert len(stage.evapid.lines("cannot accept")) == 2, "it is said once for each"
    leave_all_descriptors(stage.evapid)
    assert link.frame()[0] == WELCOME
    assert "pid" in asking.communicate(timeout=DEADLINE_S)[0] and asking.returncode == 0
    link.close()
    os.close(memory)
    wake.close()


@pytest.mark.parametrize("free", [1, 2])
def test_a_worker_whose_descriptors_find_no_room_is_told_so(stage, free):
    """free: one for its connection, and perhaps one of the two that it passes."""
    stage.start_evapid()
    memory, wake = make_ring(65536), Wake()
    leave_descriptors(stage.evapid, free)
    link = Link(stage.evapid.kamailio_socket)
    link.send(hello(), [memory, wake.passed])
    assert "no more files" in link.refused()[1]
    link.close()
    leave_all_descriptors(stage.evapid)
    before = len(stage.evapid.descriptors())
    again = Link(stage.evapid.kamailio_socket)
    again.send(hello(), [memory, wake.passed])
    assert again.frame()[0] == WELCOME
    again.close()
    stage.evapid.detached()
    # Of the second attempt what is left is the wake and the timer of the queue; of the first, nothing.
    assert len(stage.evapid.descriptors()) <= before + 3
    os.close(memory)
    wake.close()


def test_kamailio_attaches_as_soon_as_there_are_descriptors(stage):
    stage.start_evapid()
    leave_descriptors(stage.evapid, 2)
    stage.start_kamailio(ROUTES, attach=False)
    stage.kamailio.logged("refuses this Kamailio: evapid may open no more files")
    leave_all_descriptors(stage.evapid)
    stage.evapid.attached(stage.kamailio.pid)
    client = stage.connect()
    assert relay(stage.phone(), b"event") == 1
    assert client.receive() == b"event"


def start_with_descriptors(stage, count):
    """Run evapid with so few that it ends by itself; what subprocess.run returns."""
    config = stage.folder / "few.json"
    config.write_text('{"kamailio_socket": "%s/few-k.sock", "control_socket": "%s/few-c.sock"}' %
                      (stage.folder, stage.folder))
    return subprocess.run([EVAPID, "-c", config], capture_output=True, text=True, timeout=DEADLINE_S,
                          env={**os.environ, **SANITIZER},
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count)))


@pytest.mark.parametrize("count", [5, 8, 12, 15])
def test_evapid_does_not_start_with_too_few_descriptors_and_says_why(stage, count):
    ran = start_with_descriptors(stage, count)
    assert ran.returncode == 1 and f"only {count} descriptors may be open: at least 16 are needed" in ran.stderr


# ---- out of memory

SANITIZED = b"__asan_init" in EVAPID.read_bytes()  # its shadow memory knows no limit
KIB = 1024


def leave_memory(evapid, bytes_):
    """Let evapid take just so many more bytes of address space; None: any number."""
    limit = resource.RLIM_INFINITY
    if bytes_ is not None and not SANITIZED:
        with open(f"/proc/{evapid.pid}/statm") as statm:
            limit = int(statm.read().split()[0]) * resource.getpagesize() + bytes_
    resource.prlimit(evapid.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def counted(totals):
    """Do the books balance, once nothing is queued any more?"""
    out = totals["out"]
    return out["relayed"] == out["delivered"] + sum(out["dropped"].values())


@pytest.mark.parametrize("free, begun", [(0, 100), (64 * KIB, 3000), (512 * KIB, 30), (1920 * KIB, 60000), (2048 * KIB, 60000)])
def test_without_memory_evapid_drops_refuses_counts_and_recovers(stage, free, begun):
    """Many clients that begin a message and never end it take what memory there is, while events pass."""
    own = stage.new_address()
    phone = begin(stage, listeners=[{"address": own, "max_clients": 2000}], limits={"max_queued_bytes": 1 << 30})
    healthy = stage.connect()
    leave_memory(stage.evapid, free)
    crowd = []
    for number in range(400):
        client = stage.connect(own, admitted=False) if number == 0 else Client(own)
        crowd.append(client)
        try:
            client.socket.settimeout(0.2)
            client.send_bytes(b"4000000:" + b"z" * begun)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass  # there was no memory for it
        if number % 20 == 0:
            assert relay(phone, numbered(number, 5000)) in (1, -1)
    if not SANITIZED:
        stage.evapid.logged("no memory")
    for client in crowd:
        client.close()
    leave_memory(stage.evapid, None)
    stage.evapid.until_status(lambda s: s["kamailio"]["state"] == "attached" and s["kamailio"]["ring"]["used"] == 0,
                              "Kamailio is attached, and its queue empty")
    fresh = stage.connect()
    assert relay(phone, b"end") == 1
    assert fresh.receive() == b"end"
    numbers = list(map(number_of, healthy.receive_until(b"end")))
    assert numbers == sorted(set(numbers)), "what it got is whole and in order"
    status = stage.evapid.clients(2)
    assert counted(status["totals"])
    mine = next(entry for entry in status["clients"] if entry["index"] == healthy.index)
    assert mine["out"]["delivered"] == len(numbers) + 1
    assert mine["dropped"]["memory"] == mine["out"]["relayed"] - mine["out"]["delivered"]
