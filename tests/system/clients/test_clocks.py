"""Clocks that jump. The wall clock is one that the test sets, for evapid, evapictl and Kamailio together; a successor may even have
another monotonic clock, as after a move into another container."""

import os
import struct
import subprocess

import pytest

import evapid as evapid_
from async_calls import NATIVE as ASYNC
from books import balanced
from evapid import WRAPPER
from process import until
from scrape import metrics

# What a program is told that asks for the time of day: so many seconds more than it is. The number lies in a file that all share.
WALL = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *ahead;

__attribute__((constructor)) static void begin(void)
{
    const int fd = open(getenv("WALL_CLOCK"), O_RDONLY | O_CLOEXEC);
    ahead = mmap(NULL, sizeof(*ahead), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    const int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && ahead != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *ahead;
    return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec time;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    if (now != NULL)
        *now = time.tv_sec;
    return time.tv_sec;
}
"""
YEAR_S = 365 * 86400
YEARS_BACK = 50  # 1976, if now is 2026: a machine whose clock has no battery
JUMPS_S = [60, -60, YEAR_S, -YEAR_S, 80 * YEAR_S, -YEARS_BACK * YEAR_S, 0]


class Wall:
    """The wall clock of the programs that are started from now on."""

    def __init__(self, folder, monkeypatch):
        self.path = folder / "wall-clock"
        self.set(0)
        library = folder / "wall.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", library], input=WALL, text=True, check=True)
        monkeypatch.setenv("WALL_CLOCK", str(self.path))
        monkeypatch.setenv("LD_PRELOAD", str(library))
        monkeypatch.setitem(evapid_.SANITIZER, "ASAN_OPTIONS", evapid_.SANITIZER["ASAN_OPTIONS"] + ":verify_asan_link_order=0")

    def set(self, ahead_s):
        with open(self.path, "r+b" if self.path.exists() else "wb") as file:
            file.write(struct.pack("l", ahead_s))


@pytest.fixture
def wall(stage, monkeypatch):
    return Wall(stage.folder, monkeypatch)


def counted_s(stage):
    """All that has been measured, in seconds."""
    seen = metrics(stage.metrics)
    return sum(seen.sum(f"{name}_sum") for name, kind in seen.kinds.items()
               if kind == "histogram" and name.endswith("_seconds"))


def begin(stage, start, **more):
    stage.metrics = stage.new_address()
    start(metrics={"address": stage.metrics}, limits={"max_queued_bytes": 4 << 20}, **more)
    stage.start_kamailio(ASYNC, children=2)
    return stage.connect(), stage.phone()


def event(phone, text):
    assert int(phone.ask("MESSAGE", "fill", headers={"X-Word": text})["X-Rc"]) == 1


def wait_for_answer(phone, client, number):
    """A transaction that is suspended, and its event at the client."""
    invite = phone.start("INVITE", "relay", headers={"X-Word": f"call-{number}"})
    phone.turn()
    return invite, until(lambda: (phone.turn(), client.receive())[1], "the application is asked")


@pytest.mark.skipif(bool(WRAPPER), reason="the wrapper's own clock would be another")
def test_the_wall_clock_may_jump_while_evapid_kamailio_and_clients_work(stage, wall):
    """Forward and back, with a transaction that waits meanwhile, a client that is slow, and a Kamailio that comes back."""
    client, phone = begin(stage, stage.start_evapid)
    slow, years = stage.connect(receive_buffer=4096), set()
    for number, ahead_s in enumerate(JUMPS_S):
        invite, asked = wait_for_answer(phone, client, number)
        early = stage.connect()
        wall.set(ahead_s)
        early.close()
        stage.evapid.clients(2)
        late = stage.connect()
        index, label, word = asked.decode().split(":")
        client.send(f"{index}:{label}:486:{word}".encode())
        assert phone.finish(invite).reason == f"call-{number}"
        event(phone, f"event-{number}")
        assert client.receive() == late.receive() == b"event-%d" % number
        years.add(stage.evapid.client(late)["since"][:4])
        late.close()
        status = stage.evapid.clients(2)
        assert balanced(status)
        assert stage.evapid.ctl("status").returncode == stage.evapid.ctl("clients").returncode == 0
    stage.kamailio.terminate()
    wall.set(-YEARS_BACK * YEAR_S)
    stage.restart_kamailio()
    event(phone, "last")
    assert client.receive() == b"last"
    assert [e for e in slow.receive_until(b"last") if e.startswith(b"event-")] == [
        b"event-%d" % number for number in range(len(JUMPS_S))]
    assert counted_s(stage) < YEAR_S / 2, "durations are not measured by the wall clock"
    assert len(years) >= 5, "the clock did jump"


# ---- another monotonic clock


def shifted(seconds):
    """What becomes a program whose monotonic clock is that much ahead."""
    return ["unshare", "--time", "--monotonic", str(seconds), "--boottime", str(seconds)]


def can_shift():
    if os.geteuid() != 0:
        return False
    ran = subprocess.run([*shifted(1000000), "cut", "-d.", "-f1", "/proc/uptime"], capture_output=True, text=True)
    return ran.returncode == 0 and int(ran.stdout) > 1000000


def back_s():
    with open("/proc/uptime") as uptime:
        return 30 - int(float(uptime.read().split()[0]))


@pytest.mark.skipif(not can_shift(), reason="only root, and before Linux 6 a program only by a fork, enters a time namespace")
@pytest.mark.parametrize("how", ["restart", "kill", "replace"])
@pytest.mark.parametrize("seconds", [10 * YEAR_S, None], ids=["ahead", "back"])
def test_a_successor_may_have_another_monotonic_clock(stage, seconds, how):
    """Times in what it takes over, and in the ring, are then of another clock: they are wrong, and no more than that."""
    before = shifted(back_s() if seconds is None else seconds)
    start = stage.start_evapid if how == "replace" else stage.start_supervised
    client, phone = begin(stage, start)
    slow = stage.connect(receive_buffer=4096)
    invite, asked = wait_for_answer(phone, client, 0)
    for number in range(100):
        event(phone, f"event-{number}")
    if how == "replace":
        stage.replace_evapid(before=before)
    else:
        stage.evapid.command = [*before, *stage.evapid.command]
        stage.evapid.restart() if how == "restart" else stage.evapid.kill_and_restart()
    assert os.readlink(f"/proc/{stage.evapid.pid}/ns/time") != os.readlink(
        "/proc/self/ns/time")
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.clients(2)
    index, label, word = asked.decode().split(":")
    client.send(f"{index}:{label}:486:{word}".encode())
    assert phone.finish(invite).code == 486
    event(phone, "last")
    for each in (client, slow):
        events = each.receive_until(b"last")
        assert [e for e in events if e.startswith(b"event-")] == [b"event-%d" % number for number in range(100)]
    newcomer = stage.connect()
    event(phone, "for all")
    assert newcomer.receive() == client.receive() == b"for all"
    assert balanced(stage.evapid.status())
