"""Least privilege: evapid as a user of its own without any capability, under the system calls that its unit allows, in a file
system where it can write to its runtime directory only. What runs there is a whole session with Kamailio."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

import evapid
import sandbox
from access import NOBODY
from client import netstring
from evapid import EVAPID, ROOT
from privilege import only_root
from process import until
from scrape import metrics

UNIT = ROOT / "conf/evapid.service"
SANITIZED = b"__asan_init" in EVAPID.read_bytes() if EVAPID.exists() else False
# The sanitizer's own: it looks at its stack and its threads. Its search for leaks at the end would trace the process.
SANITIZER_CALLS = ["@process", "@resources", "personality", "sysinfo", "sched_getparam", "sched_getscheduler"] * SANITIZED
LEAKS_ALLOWED = {"ASAN_OPTIONS": evapid.SANITIZER["ASAN_OPTIONS"] + ":detect_leaks=0"}

ROUTES = """
route[TEST] {
    if (is_method("INVITE")) {
        if (!evapi_async_relay("ask $T(id_index) $T(id_label)")) t_reply("503", "Nobody");
        exit;
    }
    evapi_relay("$rb");
    sl_send_reply("200", "OK");
}
route[RESUME] { t_reply("486", "Busy"); exit; }
event_route[evapi:connection-new] { evapi_set_tag("c$evapi(conidx)"); }
event_route[evapi:message-received] {
    if ($(evapi(msg){s.select,0, }) == "resume") {
        $var(index) = $(evapi(msg){s.select,1, }{s.int});
        $var(label) = $(evapi(msg){s.select,2, }{s.int});
        t_continue("$var(index)", "$var(label)", "RESUME");
        exit;
    }
    evapi_unicast("$evapi(msg)", "c$evapi(conidx)");
}
"""

pytestmark = only_root("can start a process of another user")

UNPRIVILEGED = ["setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups",
                "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"]
# $1, the runtime directory, stays as it is, and the file system around it becomes read-only.
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro / && shift && exec "$@"'


@pytest.fixture
def house(stage, monkeypatch):
    """A stage whose folder belongs to nobody, with all that evapid is started by where that user can read it."""
    for path, name in ((EVAPID, "evapid"), (sandbox.__file__, "sandbox.py")):
        shutil.copy(path, stage.folder / name)
        (stage.folder / name).chmod(0o755)
    monkeypatch.setattr(evapid, "EVAPID", stage.folder / "evapid")
    sandbox.write_rules(UNIT, stage.folder / "rules.json", SANITIZER_CALLS)
    os.chown(stage.folder, NOBODY.pw_uid, NOBODY.pw_gid)
    return stage


def read_only(folder):
    return ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", folder]


def filtered(folder):
    return [sys.executable, folder / "sandbox.py", folder / "rules.json"]


def start(house, before):
    """Start evapid by that command, and a Kamailio."""
    house.start_evapid(LEAKS_ALLOWED, before, kamailio_access={"users": []}, control_access={"group": "nogroup", "mode": "0600"},
                       metrics={"address": house.new_address()},
                       listeners=[{"address": house.new_address(), "framing": "raw",
                                   "access": {"allow": ["127.0.0.0/8"], "max_clients_per_address": 10}}])
    house.start_kamailio(ROUTES)


def status_of(pid):
    return dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)


def play(house):
    """What evapid is for: both directions, a transaction that waits, evapictl, restarts, an end in peace."""
    raw = house.evapid.settings["listeners"][0]["address"]
    client, other = house.connect(), house.connect(raw)
    phone = house.phone()
    assert phone.ask("MESSAGE", body=b"event").code == 200
    assert client.receive() == b"event" and other.receive_bytes(5) == b"event"
    client.send(b"to a route and back")
    assert client.receive() == b"to a route and back"
    assert client.exchange(netstring(b"x" * 10000) * 50, 50) == [b"x" * 10000] * 50
    invite = phone.start("INVITE")
    phone.turn()
    asked = until(lambda: (phone.turn(), client.receive())[1], "the application is asked")
    client.send(asked.replace(b"ask", b"resume"))
    assert phone.finish(invite).code == 486
    client.send_bytes(b"nonsense\n")
    assert client.receive_rest() == []
    assert metrics(house.evapid.settings["metrics"]["address"]).value("process_open_fds") > 0
    assert house.evapid.ctl("status").returncode == 0


def play_restarts(house):
    house.kamailio.kill()
    house.evapid.detached()
    house.restart_kamailio()
    client = house.connect()
    client.send(b"after a restart")
    assert client.receive() == b"after a restart"


# ---- evapid


def test_evapid_needs_no_rights(house):
    start(house, UNPRIVILEGED)
    seen = status_of(house.evapid.pid)
    assert seen["Uid"].split() == [str(NOBODY.pw_uid)] * 4 and seen["Groups"].strip() == ""
    for each in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(seen[each], 16) == 0, each
    assert seen["NoNewPrivs"] == "1" and seen["Threads"] == "1"
    play(house)
    play_restarts(house)
    assert house.evapid.terminate() == 0


def test_evapid_needs_no_system_call_that_its_unit_forbids(house):
    start(house, [*UNPRIVILEGED, *filtered(house.folder)])
    assert status_of(house.evapid.pid)["Seccomp"] == "2"
    play(house)
    play_restarts(house)
    stalled = house.connect(receive_buffer=4096)
    phone = house.phone()
    for _ in range(200):
        phone.ask("MESSAGE", body=b"x" * 20000)
    assert house.evapid.client(stalled)["out"]["queued_frames"] > 0
    house.evapid.reload(listeners=[{"address": house.new_address()}], keepalive={"idle_s": 7}, access={"deny": ["192.0.2.1"]},
                        control_access={"mode": "0600"}, kamailio_socket=str(house.evapid.kamailio_socket) + "2")
    house.evapid.signal(signal.SIGHUP)
    house.evapid.logged("evapid: reloaded: ", 2)
    house.evapid.signal(signal.SIGTERM)
    house.evapid.expect_end = True
    assert len(stalled.receive_rest()) == 200
    assert house.evapid.ended() == 0


def test_evapid_is_restarted_and_killed_within_what_its_unit_allows(house):
    """The hand-over by the service manager's store, and what is left after a kill."""
    before = [*UNPRIVILEGED, *filtered(house.folder)]
    house.start_supervised(environment=LEAKS_ALLOWED, before=before)
    house.start_kamailio(ROUTES)
    client = house.connect()
    for again in (house.evapid.restart, house.evapid.kill_and_restart, house.evapid.restart):
        again()
        assert status_of(house.evapid.pid)["Seccomp"] == "2"
        house.evapid.attached(house.kamailio.pid)
        house.evapid.client(client)
        client.send(b"still there")
        assert client.receive() == b"still there"


def test_evapid_is_replaced_within_what_its_unit_allows(house):
    start(house, [*UNPRIVILEGED, *filtered(house.folder)])
    client = house.connect()
    house.replace_evapid([*UNPRIVILEGED, *filtered(house.folder)], LEAKS_ALLOWED)
    assert status_of(house.evapid.pid)["Seccomp"] == "2"
    client.send(b"still there")
    assert client.receive() == b"still there"


def test_evapid_needs_no_other_directory_to_write_to(house):
    start(house, [*read_only(house.folder), *UNPRIVILEGED, *filtered(house.folder)])
    mounts = open(f"/proc/{house.evapid.pid}/mounts").read().splitlines()
    assert [line for line in mounts if line.split()[1] == "/"][-1].split()[3].startswith("ro")
    play(house)
    assert house.evapid.terminate() == 0


def test_evapid_gives_a_socket_only_to_a_group_that_it_may(house):
    failing = evapid.Evapid(house.folder, {"control_access": {"group": "root"}}, before=UNPRIVILEGED)
    assert failing.ended() == 1
    assert re.search(rf"error {failing.control_socket}: cannot give it to group 0 \(group\): Operation not permitted",
                     failing.text())
    assert not failing.control_socket.exists() and not failing.kamailio_socket.exists()


# ---- the unit


FORBIDDEN = {
    "a fork": "os.fork()",
    "a signal to another": "os.kill(os.getppid(), 0)",
    "another user": "os.setuid(os.getuid())",
    "a packet socket": "socket.socket(17, socket.SOCK_RAW)",
    "netlink": "socket.socket(16, socket.SOCK_RAW)",
    "memory to write and execute": "mmap.mmap(-1, 4096, prot=7)",
    "a set-user-ID file": "os.chmod('/', 0o4755)",
    "another root directory": "os.chroot('/')",
    "the host's name": "socket.sethostname('x')",
    "the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "a priority": "os.nice(1)",
    "a real-time priority": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
}


@pytest.mark.parametrize("code", ["pass", *FORBIDDEN.values()], ids=["nothing", *FORBIDDEN])
def test_the_unit_forbids_what_evapid_does_not_need(house, code):
    """And so the tests above would notice it. Python itself begins and ends under the same rules."""
    sandbox.write_rules(UNIT, house.folder / "rules.json")
    program = f"import mmap, os, socket, sys, time; {code}; os._exit(7)"
    ran = subprocess.run([*filtered(house.folder), sys.executable, "-c", program], user=NOBODY.pw_uid, cwd="/",
                         capture_output=True, text=True, timeout=30)
    assert ran.returncode == (7 if code == "pass" else -signal.SIGSYS), ran.stderr


def test_the_unit_answers_libuv_that_it_may_not_make_an_io_uring(house):
    """What an io_uring does passes by every filter: the unit allows none. libuv tries, is told so, and does without."""
    sandbox.write_rules(UNIT, house.folder / "rules.json")
    assert not {"io_uring_setup", "io_uring_enter", "io_uring_register"} & sandbox.allowed_calls(UNIT)
    program = ("import ctypes, errno, os; call = ctypes.CDLL(None, use_errno=True).syscall; "
               "os._exit(7 if call(425, 1, None) == -1 and ctypes.get_errno() == errno.EPERM else 1)")
    ran = subprocess.run([*filtered(house.folder), sys.executable, "-c", program], user=NOBODY.pw_uid, cwd="/",
                         capture_output=True, text=True, timeout=30)
    assert ran.returncode == 7, ran.stderr


def test_systemd_understands_the_unit(tmp_path):
    copy = tmp_path / "evapid.service"
    copy.write_text(UNIT.read_text().replace("/usr/sbin/evapid", "/bin/true").replace("/usr/bin/evapictl", "/bin/true"))
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_unit_s_rating_is_what_the_document_says():
    ran = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT], capture_output=True,
                         text=True, timeout=60)
    rating = re.search(r"Overall exposure level for evapid.service: ([\d.]+) OK", ran.stdout).group(1)
    for path in ("docs/configuration.md", "docs/security.md"):
        said = re.search(r"rates it ([\d.]+) \(OK\) on\s+Debian\s+12", (ROOT / path).read_text()).group(1)
        assert float(rating) <= float(said), path
