"""What evapid needs of its machine runs out, or may not be had: room on a disk, a folder to write to, memory, ports."""

import errno
import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from books import balanced
from client import Client
from evapid import EVAPID, WRAPPER
from namespace import within
from privilege import only_root
from process import until
from ring import TAIL, Ring

as_root = only_root("can have mounts, control groups and a network of its own")
SLOWED = bool(WRAPPER) or b"__asan_init" in EVAPID.read_bytes()
RELAY = """
route[TEST] {
    if ($rU == "blue") evapi_multicast("$rb", "blue");
    else evapi_relay("$rb");
    sl_send_reply("200", "OK");
}
event_route[evapi:message-received] {
    if ($evapi(msg) == "blue") evapi_set_tag("blue");
    else evapi_relay("heard $evapi(msg)");
}
"""


def goes_on(stage, clients):
    """Both directions work, and the books balance."""
    stage.phone().ask("MESSAGE", "relay", body=b"event")
    assert [client.receive() for client in clients] == [b"event"] * len(clients)
    for number, sender in enumerate(clients):
        sender.send(b"%d" % number)
        assert [client.receive() for client in clients] == [b"heard %d" % number] * len(clients)
    assert balanced(stage.evapid.status())


# ---- a disk

MOUNT = 'mount -t tmpfs -o "$1" tmpfs "$2" && %s && shift 2 && exec "$@"'


def on_small_disk(folder, options, then="true"):
    """What becomes a program that has a disk of its own at folder, which nobody else sees."""
    folder.mkdir()
    return ["unshare", "--mount", "sh", "-c", MOUNT % then, "sh", options, folder]


def seen_from_outside(evapid, path):
    return Path(f"/proc/{evapid.pid}/root{path}")


@as_root
def test_evapid_goes_on_when_the_disk_of_its_log_is_full_and_counts_the_lines(stage):
    """Lines are whole, also those in front of and behind the ones that are missing."""
    small = stage.folder / "small"
    then = 'head -c 20000 /dev/zero >"$2/fill" && exec 2>>"$2/log"'
    stage.start_evapid(before=on_small_disk(small, "size=64k", then), log={"level": "notice"})
    stage.start_kamailio(RELAY)
    client, log = stage.connect(), seen_from_outside(stage.evapid, small / "log")
    reloads = 1200
    for _ in range(reloads):
        assert "reload" in stage.evapid.ask(command="reload")
    full = log.stat().st_size
    assert "reload" in stage.evapid.ask(command="reload")
    assert log.stat().st_size == full, "the disk is full"
    goes_on(stage, [client])
    seen_from_outside(stage.evapid, small / "fill").unlink()

    def told():
        return list(map(int, re.findall(r"log: (\d+) lines were not written", log.read_text())))
    until(told, "evapid says how many lines are missing")
    lines = log.read_text().splitlines()
    assert not [line for line in lines if len(re.findall(r"\d{4}-\d\d-\d\dT", line)) > 1], "each line stands by itself"
    whole = next(line for line in lines if "reloaded:" in line).partition(" ")[2]
    assert [line.partition(" ")[2] for line in lines].count(whole) + sum(told()) == reloads + 1, "written, or counted"
    goes_on(stage, [client])


def test_a_log_that_has_reached_the_size_that_files_may_have_is_as_one_on_a_full_disk(stage):
    """The kernel would end who takes no notice of that."""
    stage.start_evapid(log={"level": "notice"})
    stage.start_kamailio(RELAY)
    client = stage.connect()
    _, hard = resource.prlimit(stage.evapid.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(stage.evapid.pid, resource.RLIMIT_FSIZE, (stage.evapid.log.stat().st_size + 10, hard))
    for _ in range(5):
        assert "reload" in stage.evapid.ask(command="reload")
    goes_on(stage, [client])
    resource.prlimit(stage.evapid.pid, resource.RLIMIT_FSIZE, (hard, hard))
    stage.evapid.logged("^[^Z]*Z warning log: [5-9] lines were not written")
    goes_on(stage, [client])


# Of a file system that has no room for one more file, or takes none.
DISKS = {"full": ("size=64k,nr_inodes=8", 'for i in 1 2 3 4 5 6 7; do : >"$2/$i"; done', "no space is left in the folder {folder}"),
         "read-only": ("size=64k,ro", "true", "the folder {folder} is on a file system that is read-only")}


@as_root
@pytest.mark.parametrize("disk", DISKS)
def test_sockets_that_a_disk_does_not_take_are_said_in_words_and_cost_nothing(stage, disk):
    """At a reload, which leaves everything as it was, and at a start."""
    options, then, words = DISKS[disk]
    small = stage.folder / "small"
    before = on_small_disk(small, options, then)
    stage.start_evapid(before=before)
    stage.start_kamailio(RELAY)
    client = stage.connect()
    for key in ("kamailio_socket", "control_socket"):
        why = stage.evapid.reload_in_vain(**{key: str(small / "moved.sock")})
        assert why == f"{small}/moved.sock: " + words.format(folder=small)
    goes_on(stage, [client])
    stage.restart_kamailio() if stage.kamailio.terminate() == 0 else pytest.fail("Kamailio did not end well")
    stage.evapid.terminate()
    stage.evapid.configure(control_socket=str(small / "control.sock"))
    ran = subprocess.run([*before[:-1], small, EVAPID, "-c", stage.evapid.config], capture_output=True, text=True)
    assert ran.returncode == 1 and f"{small}/control.sock: " + words.format(folder=small) in ran.stderr


# ---- memory

GROUPS = Path("/sys/fs/cgroup/memory")


def memory_groups():
    """Where groups that limit memory can be made: the folder, and the names of the limit and the members."""
    for folder, limit in ((GROUPS, "memory.limit_in_bytes"), (GROUPS.parent, "memory.max")):
        own = folder / f"evapid-test-{os.getpid()}"
        try:
            own.mkdir()
            found = (own / limit).exists()
            own.rmdir()
        except OSError:
            continue
        if found:
            return folder, limit
    return None


@pytest.fixture
def group():
    found = memory_groups()
    if found is None:
        pytest.skip("no control group that limits memory can be made here")
    folder, limit = found
    own = folder / f"evapid-test-{os.getpid()}"
    own.mkdir()
    yield own, own / limit

    def removed():
        try:
            own.rmdir()
        except OSError as error:
            raise AssertionError from error
        return True
    until(removed, "the group is empty")


def begin_unread(stage, start):
    """Clients that do not read, whose queues may take more than there is, and one beside them. Returns that one, and a phone."""
    start(limits={"max_queued_bytes": 256 << 20, "max_total_queued_bytes": 1 << 30})
    stage.start_kamailio(RELAY)
    for _ in range(4):
        stage.connect(receive_buffer=4096).send(b"blue")
    stage.evapid.until_status(lambda s: sum(e["tag"] == "blue" for e in s["clients"]) == 4, "all have the tag")
    return stage.connect(), stage.phone()


@as_root
def test_an_evapid_that_the_kernel_kills_for_its_memory_comes_back_and_counts_what_is_lost(group, stage):
    """The limit of its control group is below what its configuration lets queues take. A client that is in the middle of an event
    can't go on; one that is not does."""
    folder, limit = group
    join = ["sh", "-c", f'echo $$ >{folder}/cgroup.procs && exec "$@"', "sh"]
    client, phone = begin_unread(stage, lambda **settings: stage.start_supervised(before=join, **settings))
    limit.write_text(str(stage.evapid.rss_bytes() + (24 << 20)))
    stage.evapid.expect_end = True
    while stage.evapid.popen.poll() is None:
        phone.ask("MESSAGE", "blue", body=b"x" * 50000)
    assert stage.evapid.ended() == -signal.SIGKILL
    limit.write_text("max" if limit.name == "memory.max" else "-1")
    stage.evapid.start_again()
    stage.evapid.attached(stage.kamailio.pid)
    assert stage.evapid.clients(1)["totals"]["out"]["dropped"]["lost"] > 0
    goes_on(stage, [client])


@pytest.mark.once
@pytest.mark.skipif(SLOWED, reason="a sanitizer's own memory is far beyond any limit")
def test_evapid_goes_on_when_it_gets_no_more_memory(stage):
    """Its address space ends soon: events that can't be kept are dropped and counted, and it goes on."""
    client, phone = begin_unread(stage, stage.start_evapid)
    with open(f"/proc/{stage.evapid.pid}/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    resource.prlimit(stage.evapid.pid, resource.RLIMIT_AS, (size + (8 << 20), resource.RLIM_INFINITY))
    for _ in range(600):
        phone.ask("MESSAGE", "blue", body=b"x" * 50000)
    ring = Ring(stage.kamailio.pid)
    until(lambda: ring.get(TAIL) == ring.head(), "evapid has read all")
    ring.close()
    stage.evapid.ctl("status", "--json")  # there may be memory for the answer, or none
    assert stage.evapid.alive()
    resource.prlimit(stage.evapid.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    status = stage.evapid.clients(5)
    assert all((entry["dropped"]["memory"] > 0) == (entry["tag"] == "blue") for entry in status["clients"])
    goes_on(stage, [client])


# ---- ports

PORTS = 20


@as_root
def test_clients_that_have_taken_all_ports_cost_evapid_nothing(stage, apart):  # noqa: F811
    """A host has 20 ports for its connections, and all are used. Ports of clients that evapid has closed are used anew."""
    places = ["127.0.0.1:8448", "127.0.0.1:8449"]
    stage.start_evapid(before=apart, listeners=[{"address": places[0]}])
    stage.start_kamailio(RELAY)

    def few_ports():
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"40000 {40000 + PORTS - 1}")
        return True

    def take_all(address):
        taken = []
        while True:
            try:
                taken.append(Client(address))
            except OSError as error:
                assert error.errno == errno.EADDRNOTAVAIL
                return taken
    within(stage.evapid.pid, few_ports)

    def all_taken(address, before=0):
        taken = within(stage.evapid.pid, lambda: take_all(address))
        stage.connections += taken
        assert len(taken) == PORTS
        stage.evapid.clients(before + PORTS)
        return taken
    first = all_taken(places[0])
    goes_on(stage, first)
    assert within(stage.evapid.pid, lambda: take_all(places[0])) == []
    stage.evapid.reload(listeners=[{"address": places[1]}])
    second = all_taken(places[1], PORTS)
    goes_on(stage, first + second)
    for entry in stage.evapid.status()["clients"]:
        if entry["listener"] == places[0]:
            assert stage.evapid.ctl("close", str(entry["index"])).returncode == 0
    assert [client.receive_rest() for client in first] == [[]] * PORTS
    for client in first:
        client.close()
    stage.evapid.reload(listeners=[{"address": places[0]}])
    third = all_taken(places[0], PORTS)
    assert {client.port for client in third} == {client.port for client in first}
    goes_on(stage, second + third)
