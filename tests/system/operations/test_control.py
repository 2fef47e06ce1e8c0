"""evapictl, the log, systemd's protocols and the end of evapid: what an operator has to do with."""

import ctypes
import json
import os
import re
import socket
import subprocess

import pytest

from client import Client
from evapid import EVAPICTL, EVAPID, evapictl
from process import until
from script import RELAY
from stage import Stage

ROUTES = RELAY + """
event_route[evapi:message-received] { evapi_set_tag("$evapi(msg)"); }
"""

SHAPE = {
    "version": str, "pid": int, "uptime_s": int, "session": int,
    "kamailio": {"state": str, "pid": int, "version": str, "module": str, "since": str,
                 "workers": [{"index": int, "clients": int, "in_flight": int, "waiting": int}],
                 "ring": {"capacity": int, "used": int, "high_water": int, "refused_full": int, "refused_large": int,
                          "lost": int, "held": bool, "stuck": bool}},
    "listeners": [{"address": str, "framing": str, "source": str, "state": str, "clients": int, "max_clients": int,
                   "accepted": int, "refused": int}],
    "clients": [{"index": int, "listener": str, "address": str, "tag": str, "state": str, "since": str,
                 "slow": bool, "slow_since": type(None),
                 "in": {"frames": int, "bytes": int, "delivered": int, "waiting": int,
                        "dropped": {"closed": int, "memory": int, "lost": int}},
                 "out": {"relayed": int, "delivered": int, "bytes": int, "queued_frames": int, "queued_bytes": int},
                 "dropped": {"slow": int, "closed": int}}],
    "totals": {"clients": {"accepted": int, "refused": int, "closed": int},
               "events": {"relay": int, "multicast": int, "unicast": int, "send": int, "no_receiver": int},
               "out": {"relayed": int, "delivered": int, "bytes": int, "queued_frames": int, "queued_bytes": int,
                       "queued_memory": int, "dropped": {"slow": int, "closed": int}},
               "in": {"frames": int, "bytes": int, "delivered": int, "waiting": int,
                      "dropped": {"closed": int, "memory": int, "lost": int}}},
}


def has_shape(value, shape, where="status"):
    """The value has at least the keys of the shape, with those types."""
    if isinstance(shape, dict):
        for key, inner in shape.items():
            assert key in value, f"{where} has no {key}: {value}"
            has_shape(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        assert value, f"{where} is empty"
        for each in value:
            has_shape(each, shape[0], where + "[]")
    else:
        assert type(value) is shape, f"{where} is {value!r}"


@pytest.fixture(scope="module")
def stage(shared_stage):
    shared_stage.start_evapid(log={"level": "info"})
    shared_stage.start_kamailio(ROUTES, evapi={"max_clients": 10})
    return shared_stage


pytestmark = pytest.mark.usefixtures("calm")


# ---- evapictl


def test_status_in_json_has_everything(stage):
    client = stage.connect()
    client.send(b"blue")
    stage.phone().ask("MESSAGE", body=b"event")
    assert client.receive() == b"event"
    status = stage.evapid.until_status(lambda s: s["clients"][0]["tag"] == "blue", "the tag is set")
    has_shape(status, SHAPE)
    kamailio, (shown,), (listener,) = status["kamailio"], status["clients"], status["listeners"]
    assert status["pid"] == stage.evapid.pid
    assert (kamailio["state"], kamailio["pid"]) == ("attached", stage.kamailio.pid)
    assert "5." in kamailio["version"] or "6." in kamailio["version"]
    assert kamailio["workers"][0]["clients"] == 1
    assert kamailio["ring"]["high_water"] > 0 and not kamailio["ring"]["held"]
    assert shown["address"] == f"127.0.0.1:{client.port}" and shown["listener"] == stage.address
    assert shown["in"]["frames"] == 1 and shown["in"]["bytes"] == 4
    assert (shown["out"]["relayed"], shown["out"]["delivered"], shown["out"]["bytes"]) == (1, 1, 8)
    assert (listener["address"], listener["clients"], listener["max_clients"]) == (stage.address, 1, 10)
    for since in (shown["since"], kamailio["since"]):
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", since)


def test_status_for_people_shows_the_same_in_columns(stage):
    client = stage.connect()
    client.send(b"blue")
    stage.evapid.until_status(lambda s: s["clients"][0]["tag"] == "blue", "the tag is set")
    ran = stage.evapid.ctl("status")
    assert ran.returncode == 0 and ran.stderr == ""
    for word in ("attached", str(stage.kamailio.pid), stage.address, f"127.0.0.1:{client.port}", "blue", "netstring"):
        assert word in ran.stdout, ran.stdout
    with pytest.raises(json.JSONDecodeError):
        json.loads(ran.stdout)
    assert all(line == line.rstrip() for line in ran.stdout.splitlines()), "no blanks at the ends of lines"


@pytest.mark.parametrize("tag", [b"\x1b[31m\nclient 99\0\xff", b"\x1b[31m\nclient 99", b"\0", b"a\0b",
                                 "\u009b31m".encode(), b"\r\x7f\b"])
def test_a_tag_cannot_forge_the_text_of_the_status(stage, tag):
    client = stage.connect()
    client.send(tag)
    stage.evapid.until_status(lambda s: s["clients"][0]["tag"], "the tag is set")
    ran = stage.evapid.ctl("status")
    assert ran.returncode == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", ran.stdout), ran.stdout
    assert not [line for line in ran.stdout.splitlines() if line.startswith("client 99")]


def test_status_works_while_clients_stall(stage):
    stalled = [stage.connect(receive_buffer=4096) for _ in range(3)]
    for _ in range(200):
        stage.phone().ask("MESSAGE", body=b"x" * 20000)
    status = stage.evapid.until_status(
        lambda s: all(entry["out"]["queued_frames"] > 0 for entry in s["clients"]), "events wait for the clients")
    assert len(status["clients"]) == len(stalled)
    assert stage.evapid.ctl("status").returncode == 0


def test_status_answers_many_at_once(stage):
    asking = [subprocess.Popen([EVAPICTL, "-s", stage.evapid.control_socket, "status", "--json"],
                               stdout=subprocess.PIPE) for _ in range(20)]
    for each in asking:
        output = each.communicate(timeout=30)[0]
        assert each.returncode == 0 and json.loads(output)["pid"] == stage.evapid.pid


@pytest.mark.parametrize("words", [[], ["nonsense"], ["status", "nonsense"], ["status", "--nonsense"], ["-x"]])
def test_a_wrong_command_line_of_evapictl_ends_with_2(stage, words):
    ran = evapictl(stage.evapid.control_socket, *words)
    assert ran.returncode == 2 and ran.stdout == "" and ran.stderr.startswith("evapictl: ")


def test_version_and_help_of_evapictl():
    for word, pattern in (("-V", r"evapictl \d+\.\d+\.\d+\n"), ("--version", r"evapictl \d+\.\d+\.\d+\n"),
                          ("-h", r"(?s).*status.*-s.*"), ("--help", r"(?s).*status.*-s.*")):
        ran = subprocess.run([EVAPICTL, word], capture_output=True, text=True)
        assert ran.returncode == 0 and ran.stderr == "" and re.fullmatch(pattern, ran.stdout), ran


def test_evapictl_takes_the_socket_as_a_long_option_too(stage):
    ran = subprocess.run([EVAPICTL, "--socket", stage.evapid.control_socket, "status", "--json"], capture_output=True)
    assert ran.returncode == 0 and json.loads(ran.stdout)["pid"] == stage.evapid.pid


def test_that_evapid_is_down_is_said_plainly(tmp_path):
    missing = tmp_path / "control.sock"
    ran = evapictl(missing, "status")
    assert ran.returncode == 3 and ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1 and str(missing) in ran.stderr and "evapid" in ran.stderr
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(missing))
    stale.close()
    assert evapictl(missing, "status", "--json").returncode == 3


class TestAlone:
    """Each with an evapid of its own."""

    @pytest.fixture
    def stage(self):
        with Stage() as own:
            yield own

    def test_status_works_while_kamailio_is_down(self, stage):
        mine = stage.new_address()
        stage.start_evapid(listeners=[{"address": mine}])
        client = stage.connect(mine, admitted=False)
        status = stage.evapid.until_status(lambda s: s["clients"], "the client is shown")
        assert status["kamailio"]["state"] == "detached" and status["kamailio"]["workers"] == []
        assert status["clients"][0]["state"] == "admitting"
        assert (status["listeners"][0]["source"], status["listeners"][0]["clients"]) == ("config", 1)
        ran = stage.evapid.ctl("status")
        assert ran.returncode == 0 and f"127.0.0.1:{client.port}" in ran.stdout
        assert re.search(r"(?i)kamailio +(not attached|detached)", ran.stdout), ran.stdout
        client.close()

    def test_what_has_gone_with_kamailio_is_not_shown_as_attached(self, stage):
        stage.start_evapid()
        stage.start_kamailio(ROUTES)
        stage.connect()
        stage.kamailio.terminate()
        assert stage.evapid.detached()["clients"][0]["address"]
        assert re.search(r"(?i)kamailio +(not attached|detached)", stage.evapid.ctl("status").stdout)

    def test_lines_of_the_log_have_time_level_and_subject(self, stage):
        stage.start_evapid(log={"level": "debug"}, limits={"max_message_bytes": 100})
        stage.start_kamailio(ROUTES, evapi={"max_clients": 1})
        client = stage.connect()
        assert stage.connect(admitted=False).receive_rest() == []
        client.send_bytes(b"1000:")
        assert client.receive_rest() == []
        stage.kamailio.terminate()
        stage.evapid.detached()
        stage.evapid.terminate()
        lines = stage.evapid.text().splitlines()
        assert len(lines) >= 6
        for line in lines:
            assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warning|notice|info|debug) [^:]\S*.*: \S", line)

    def test_the_log_tells_the_story_of_an_attachment(self, stage):
        stage.start_evapid(log={"level": "info"})
        stage.start_kamailio(ROUTES)
        stage.evapid.logged(rf"\b{stage.kamailio.pid}\b.*attached|attached.*\b{stage.kamailio.pid}\b")
        stage.kamailio.logged(rf"evapi .*attached.*\b{stage.evapid.pid}\b")
        stage.kamailio.terminate()
        stage.evapid.detached()
        stage.evapid.logged(r"detached|has gone|went away")

    @pytest.mark.parametrize("level, there, absent", [
        ("error", [], ["warning", "notice", "info", "debug"]), ("warning", ["warning"], ["notice", "info", "debug"]),
        ("notice", ["warning", "notice"], ["info", "debug"])])
    def test_the_level_says_which_lines_are_written(self, stage, level, there, absent):
        stage.start_evapid(log={"level": level})
        stage.start_kamailio(ROUTES, evapi={"max_clients": 1})
        stage.connect()
        assert stage.connect(admitted=False).receive_rest() == []
        stage.evapid.terminate()
        for each in there:
            assert stage.evapid.lines(rf"Z {each} "), stage.evapid.text()
        for each in absent:
            assert not stage.evapid.lines(rf"Z {each} "), stage.evapid.text()

    def test_a_flood_of_connections_writes_few_lines_and_a_count(self, stage):
        stage.start_evapid(log={"level": "debug"})
        stage.start_kamailio(ROUTES, evapi={"max_clients": 1})
        stage.connect()
        for _ in range(500):
            Client(stage.address).close()
        stage.evapid.until_status(lambda s: s["totals"]["clients"]["refused"] == 500, "500 were refused")
        stage.evapid.terminate()
        assert len(stage.evapid.text().splitlines()) < 100
        shown = len(stage.evapid.lines(r"refused 127\.0\.0\.1"))
        withheld = [int(re.search(r"(\d+) more", line).group(1)) for line in stage.evapid.lines(r"refused.* \d+ more")]
        assert shown + sum(withheld) == 500

    def test_a_flood_of_bad_clients_writes_few_lines_and_a_count(self, stage):
        stage.start_evapid(log={"level": "info"})
        stage.start_kamailio(ROUTES)
        for _ in range(100):
            client = Client(stage.address)
            client.send_bytes(b"nonsense\n")
            assert client.receive_rest() == []
            client.close()
        stage.evapid.terminate()
        shown = len(stage.evapid.lines(r"malformed netstring at"))
        withheld = [int(re.search(r"(\d+) more", line).group(1)) for line in stage.evapid.lines(r"malformed.* \d+ more")]
        assert shown < 50 and shown + sum(withheld) == 100

    def test_systemd_is_told_ready_watchdog_and_stopping(self, stage):
        path = stage.folder / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.settimeout(30)
            told = []

            def hear(word, count=1):
                while sum(word in each for each in told) < count:
                    told.extend(notify.recv(4096).decode().splitlines())
            stage.start_evapid({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"})
            hear("READY=1")
            assert "WATCHDOG=1" not in told or told.index("READY=1") < told.index("WATCHDOG=1")
            hear("WATCHDOG=1", 3)
            assert "STOPPING=1" not in told
            assert stage.evapid.terminate() == 0
            hear("STOPPING=1")

    def test_the_journal_gets_priorities_and_no_times(self, stage):
        log = stage.folder / "journal.log"
        log.touch()
        command = json.dumps({"kamailio_socket": str(stage.folder / "k.sock"),
                              "control_socket": str(stage.folder / "c.sock")})
        (stage.folder / "own.json").write_text(command)
        with open(log, "wb") as stream:
            identity = os.fstat(stream.fileno())
            environment = {**os.environ, "JOURNAL_STREAM": f"{identity.st_dev}:{identity.st_ino}"}
            started = subprocess.Popen([EVAPID, "-c", stage.folder / "own.json"], stderr=stream, env=environment)
            try:
                until(lambda: evapictl(stage.folder / "c.sock", "status").returncode == 0, "evapid answers evapictl")
            finally:
                started.terminate()
                assert started.wait(30) == 0
        lines = log.read_text().splitlines()
        assert lines
        for line in lines:
            assert re.match(r"<[3-7]>\S.*: ", line) and not re.search(r"\d\d:\d\d:\d\d", line), line

    def test_another_journal_stream_is_not_ours(self, stage):
        stage.start_evapid({"JOURNAL_STREAM": "1:1"})
        stage.evapid.terminate()
        assert not stage.evapid.lines(r"^<")

    def test_sigterm_flushes_what_clients_take_and_ends_with_0(self, stage):
        stage.start_evapid(shutdown_grace_ms=60000)
        stage.start_kamailio(ROUTES)
        client, phone = stage.connect(receive_buffer=4096), stage.phone()
        events = [b"%d" % number + b"x" * 20000 for number in range(200)]
        for event in events:
            phone.ask("MESSAGE", body=event)
        stage.evapid.until_status(lambda s: s["clients"][0]["out"]["relayed"] == 200 and
                                  s["clients"][0]["out"]["queued_frames"] > 0, "events wait for the client")
        stage.evapid.signal(15)
        stage.evapid.logged(r"stopping")
        assert client.receive_rest() == events
        assert stage.evapid.ended() == 0

    def test_sigterm_takes_no_new_client(self, stage):
        stage.start_evapid(shutdown_grace_ms=60000)
        stage.start_kamailio(ROUTES)
        client, phone = stage.connect(receive_buffer=4096), stage.phone()
        for _ in range(200):
            phone.ask("MESSAGE", body=b"x" * 20000)
        stage.evapid.until_status(lambda s: s["clients"][0]["out"]["queued_frames"] > 0, "events wait for the client")
        stage.evapid.signal(15)
        stage.evapid.logged(r"stopping")
        with pytest.raises((ConnectionError, AssertionError)):
            Client(stage.address).receive()
        assert len(client.receive_rest()) == 200
        assert stage.evapid.ended() == 0

    def test_a_client_that_reads_nothing_holds_the_end_up_no_longer_than_the_grace(self, stage):
        stage.start_evapid(shutdown_grace_ms=100)
        stage.start_kamailio(ROUTES)
        stage.connect(receive_buffer=4096)
        phone = stage.phone()
        for _ in range(200):
            phone.ask("MESSAGE", body=b"x" * 20000)
        stage.evapid.until_status(lambda s: s["clients"][0]["out"]["queued_frames"] > 0, "events wait for the client")
        assert stage.evapid.terminate() == 0
        assert stage.evapid.lines(r"warning .*shutdown_grace_ms")

    def test_sigint_ends_evapid_as_sigterm_does(self, stage):
        stage.start_evapid()
        stage.evapid.expect_end = True
        stage.evapid.signal(2)
        assert stage.evapid.ended() == 0

    def test_a_client_s_connection_gets_keepalive_as_configured_and_no_delay(self, stage):
        stage.start_evapid(keepalive={"idle_s": 77, "interval_s": 5, "probes": 3})
        stage.start_kamailio(ROUTES)
        with borrowed_socket(stage.evapid, stage.connect()) as end:
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            shown = [end.getsockopt(socket.IPPROTO_TCP, option) for option in (
                socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_NODELAY)]
        assert shown == [77, 5, 3, 1]

    def test_keepalive_can_be_off(self, stage):
        stage.start_evapid(keepalive={"idle_s": 0})
        stage.start_kamailio(ROUTES)
        with borrowed_socket(stage.evapid, stage.connect()) as end:
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


PIDFD_GETFD = 438  # pidfd_getfd(2): Python has no function for it


def borrowed_socket(evapid, client):
    """evapid's own end of the client's connection, as a socket of ours."""
    pidfd = os.pidfd_open(evapid.pid)
    try:
        for fd, what in evapid.descriptors().items():
            if "socket:" not in what:
                continue
            number = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, fd, 0)
            assert number >= 0, os.strerror(ctypes.get_errno())
            end = socket.socket(fileno=number)
            try:
                if end.family == socket.AF_INET and end.getpeername()[1] == client.port:
                    return end
            except OSError:
                pass  # a listening socket has no peer
            end.close()
    finally:
        os.close(pidfd)
    raise AssertionError(f"process {evapid.pid} has no connection to port {client.port}")
