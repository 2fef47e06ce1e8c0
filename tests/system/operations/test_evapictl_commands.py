"""Each command of evapictl, with a real evapid and Kamailio."""

import json
import os
import re
import select
import signal
import subprocess

import pytest

from client import netstring
from control import Control, stage, tagged  # noqa: F401: a fixture
from evapid import EVAPICTL, SANITIZER, evapictl, run_evapid
from fake import ask_a_fake
from process import DEADLINE_S, until
from stage import Stage

pytestmark = pytest.mark.usefixtures("calm")


def said(stage, *words):
    """What evapictl prints when all is well."""
    ran = stage.evapid.ctl(*map(str, words))
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    assert all(line == line.rstrip() for line in ran.stdout.splitlines()), "no blanks at the ends of lines"
    return ran.stdout


def refused(stage, code, *words):
    ran = stage.evapid.ctl(*map(str, words))
    assert (ran.returncode, ran.stdout) == (code, ""), ran
    assert ran.stderr.startswith("evapictl: ")
    return ran.stderr


def rows(text):
    """The rows of the table in text, with its first cells as keys."""
    return {line.split()[0]: re.split("  +", line.strip()) for line in text.splitlines() if line.startswith("  ")}


@pytest.fixture
def fake_evapid(tmp_path):
    """Runs evapictl with what is no evapid but has these answers, one for each request; returns what it printed, and the requests."""
    def ask(answers, *words):
        requests = []

        def serve(connection):
            with connection.makefile("rb") as lines:
                for answer in answers:
                    requests.append(json.loads(lines.readline()))
                    connection.sendall(json.dumps(answer).encode() + b"\n")
        return ask_a_fake(tmp_path, serve, *words), requests
    return ask


# ---- views


def test_clients_are_shown_sorted_and_chosen(stage):
    red, blue = tagged(stage, b"red"), tagged(stage, b"blue", source="127.0.0.2")

    def shown(*words):
        first, *lines = said(stage, "clients", *words).splitlines()
        return first.split(), [int(line.split()[0]) for line in lines[1:]]
    assert shown() == (["clients", "2"], [red.index, blue.index])
    assert shown("--sort", "tag") == (["clients", "2"], [blue.index, red.index])
    assert shown("--tag", "red") == (["clients", "1", "of", "2"], [red.index])
    assert shown("--address", "127.0.0.2/32") == (["clients", "1", "of", "2"], [blue.index])
    assert shown("--state", "open", "--limit", "1") == (["clients", "1", "of", "2"], [red.index])
    assert shown("--slow") == (["clients", "0", "of", "2"], [])
    assert json.loads(said(stage, "clients", "--tag", "red", "--json"))["matching"] == 1
    assert "bits after the prefix" in refused(stage, 1, "clients", "--address", "10.0.0.1/8")
    assert "sort must be one of" in refused(stage, 1, "clients", "--sort", "size")


def test_a_client_is_shown_with_what_it_sent_and_was_sent(stage):
    client = tagged(stage, b"blue")
    said(stage, "relay", "x")
    client.receive()
    shown = said(stage, "client", client.index)
    assert re.search(rf"client +{client.index}, 127.0.0.1:{client.port} at {stage.address}, open\n", shown)
    assert "\ntag        blue\n" in shown and "in         messages 1 (4), worked on 1, waiting 0, dropped -" in shown
    assert "out        relayed 1, delivered 1 (4), queued 0 (0), dropped -" in shown
    assert json.loads(said(stage, "client", client.index, "-j"))["client"]["tag"] == "blue"
    assert "evapictl clients" in refused(stage, 1, "client", 999999)


def test_tags_listeners_and_kamailio_are_shown(stage):
    tagged(stage, b"red"), tagged(stage, b"blue"), tagged(stage, b"blue")
    assert said(stage, "tags") == ("tags       2\n  tag   clients  receivers\n  blue        2          2\n"
                                   "  red         1          1\n")
    assert said(stage, "tags", "--limit", "1").startswith("tags       1 of 2\n")
    assert rows(said(stage, "listeners"))[stage.address][1:5] == ["netstring", "module", "listening", "3"]
    shown = said(stage, "kamailio")
    assert f"pid {stage.kamailio.pid}," in shown and "\nqueue  " in shown
    for name in ("tags", "listeners", "kamailio"):
        assert name in json.loads(said(stage, name, "--json"))


def test_the_text_of_the_status_shows_what_waits_both_ways(stage):
    client = tagged(stage, b"blue", receive_buffer=4096)
    with Control(stage.evapid.control_socket) as control:
        control.ask(command="unicast", tag="blue", stream=True)
        control.send(netstring(b"x" * 100000) * 60)
        control.end()
        control.rest()
    status = json.loads(said(stage, "status", "--json"))
    shown = said(stage, "status")
    waiting = status["totals"]["out"]["queued_frames"]
    assert waiting > 0
    queued = re.search(r"\n  queued   (\d+) \(([\d.]+M)\), in ([\d.]+M) of memory\n", shown)
    assert queued and int(queued[1]) == waiting
    assert re.search(r"\n  in       messages \d+ \(.*\), waiting 0, dropped -\n", shown)
    assert rows(shown)[str(client.index)][11] == str(waiting)


def test_a_long_cell_is_shown_whole(stage):
    tag = ("\u20ac" * 21).encode()
    client = stage.connect()
    said(stage, "tag", client.index, tag.decode())
    assert tag.decode() in said(stage, "clients")
    lines = said(stage, "tags").splitlines()
    assert len(lines[1]) == len(lines[2]), "columns of characters, not of bytes"


def test_counts_are_shown_and_begin_anew(stage):
    def relayed(*words):
        return [int(word) for word in re.search(r"\n  events relay +(\d+) +(\d+)\n", said(stage, "stats", *words)).groups()]
    stage.connect()
    said(stage, "stats", "--reset")
    said(stage, "relay", "x")
    total, since = relayed("--reset")
    assert since == 1 and total >= 1
    assert relayed() == [total, 0]


def test_a_view_is_shown_again_and_again(stage):
    command = [EVAPICTL, "-s", stage.evapid.control_socket, "stats", "--json", "--watch", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert [json.loads(watching.stdout.readline())["reset"] for _ in range(3)] == [False] * 3
        watching.terminate()
        assert watching.wait(DEADLINE_S) == -signal.SIGTERM
    command = [EVAPICTL, "-s", stage.evapid.control_socket, "tags", "-w", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert [watching.stdout.readline() for _ in range(4)] == ["tags       0\n", "\n"] * 2
        watching.terminate()


# ---- publishing


def publish(stage, words, lines):
    command = [EVAPICTL, "-s", stage.evapid.control_socket, *words]
    return subprocess.run(command, input=lines, capture_output=True, timeout=2 * DEADLINE_S, env={**os.environ, **SANITIZER})


def test_a_text_is_one_event(stage):
    blue, bare = tagged(stage, b"blue"), stage.connect()
    assert said(stage, "relay", "hello", "world") == "2 clients got it\n"
    assert said(stage, "multicast", "blue", "--", "-x", "\u20ac") == "1 client got it\n"
    answer = json.loads(said(stage, "unicast", "blue", '{"a": 1}', "--json"))
    assert [answer["published"][key] for key in ("events", "bytes", "received", "receivers")] == [1, 8, 1, 1]
    assert said(stage, "send", str(blue.index), "to", "you") == "1 client got it\n"
    assert blue.receive_many(4) == [b"hello world", "-x \u20ac".encode(), b'{"a": 1}', b"to you"]
    assert bare.receive() == b"hello world" and not bare.receive_ready()


def test_lines_go_to_one_client_and_one_that_has_gone_is_an_error(stage):
    client, other = stage.connect(), stage.connect()
    ran = publish(stage, ["send", str(client.index)], b"one\ntwo\nthree")
    assert ran.returncode == 0 and ran.stdout.endswith(b"; 3 had a receiver\n")
    assert client.receive_many(3) == [b"one", b"two", b"three"] and not other.receive_ready()
    client.close()
    stage.evapid.clients(1)
    ran = publish(stage, ["send", str(client.index), "four"], b"")
    assert ran.returncode == 1 and b"no such client" in ran.stderr
    ran = publish(stage, ["send", "blue", "four"], b"")
    assert ran.returncode == 2 and b"a client's number was expected" in ran.stderr
    assert not other.receive_ready()


def test_an_event_that_nobody_gets_ends_with_4_unless_that_is_allowed(stage):
    tagged(stage, b"blue")
    ran = stage.evapid.ctl("unicast", "green", "x")
    assert (ran.returncode, ran.stdout, ran.stderr) == (4, "nobody got it\n", "")
    assert said(stage, "unicast", "green", "x", "--allow-none") == "nobody got it\n"
    for lines, tag, code in ((b"one\ntwo\n", "green", 4), (b"", "green", 0), (b"one\ntwo\n", "blue", 0)):
        ran = publish(stage, ["multicast", tag], lines)
        assert ran.returncode == code and b"had a receiver\n" in ran.stdout
        assert publish(stage, ["multicast", tag, "--allow-none"], lines).returncode == 0


def test_a_hundred_thousand_lines_arrive_each_once_and_in_order(stage):
    clients = [stage.connect() for _ in range(2)]
    lines = [b"%d" % number for number in range(100000)]
    command = [EVAPICTL, "-s", stage.evapid.control_socket, "relay"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as publishing:
        publishing.stdin.write(b"\n".join(lines) + b"\n")
        publishing.stdin.close()
        for client in clients:
            assert client.receive_many(100000) == lines
        printed = publishing.stdout.read().decode()
        assert publishing.wait(DEADLINE_S) == 0
    assert re.fullmatch(r"100000 events, 477K bytes, \d+ events/s; 100000 had a receiver\n", printed)


@pytest.mark.parametrize("lines, events", [
    (b"", []), (b"\n", [b""]), (b"a", [b"a"]), (b"a\n\nb", [b"a", b"", b"b"]),
    (bytes(set(range(256)) - {10}) + b"\n", [bytes(sorted(set(range(256)) - {10}))]),
    (b"x" * 1000000 + b"\n" + b"y\r\n", [b"x" * 1000000, b"y\r"])], ids=["none", "empty", "no newline", "three", "binary", "long"])
def test_each_line_is_an_event_of_any_bytes(stage, lines, events):
    client = stage.connect()
    ran = publish(stage, ["relay"], lines)
    assert ran.returncode == 0, ran
    assert ran.stdout.decode().startswith(f"{len(events)} event")
    assert client.receive_many(len(events)) == events


def test_an_input_that_can_not_be_read_is_said_to_be(stage):
    folder = os.open("/", os.O_RDONLY)
    try:
        ran = subprocess.run([EVAPICTL, "-s", stage.evapid.control_socket, "relay"], stdin=folder, capture_output=True, text=True,
                             timeout=DEADLINE_S, env={**os.environ, **SANITIZER})
    finally:
        os.close(folder)
    assert ran.returncode == 1 and ran.stdout.startswith("0 events, ")
    assert ran.stderr == "evapictl: standard input: Is a directory\n"


def test_lines_are_sent_as_they_come_and_interrupting_ends_the_input(stage):
    client = tagged(stage, b"blue")
    command = [EVAPICTL, "-s", stage.evapid.control_socket, "multicast", "blue"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as publishing:
        for event in (b"one", b"two"):
            publishing.stdin.write(event + b"\n")
            publishing.stdin.flush()
            assert client.receive() == event
        publishing.send_signal(signal.SIGINT)
        assert publishing.stdout.read().startswith(b"2 events, 6 bytes, ")
        assert publishing.wait(DEADLINE_S) == 0


def test_a_publisher_whose_evapid_is_replaced_says_how_far_it_was():
    with Stage() as own:
        own.start_evapid()
        command = [EVAPICTL, "-s", own.evapid.control_socket, "relay"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as publishing:
            publishing.stdin.write(b"one\ntwo\n")
            publishing.stdin.flush()
            own.evapid.until_status(lambda s: s["totals"]["events"]["relay"] == 2, "they have come")
            own.replace_evapid()
            said = publishing.stderr.read().decode()
            assert publishing.wait(DEADLINE_S) == 3
        assert "has closed the connection\n" in said and "it has acknowledged 2 events" in said
        assert own.evapid.status()["totals"]["events"]["relay"] == 2


def test_an_event_that_is_too_large_is_said_to_be(stage):
    client = stage.connect()
    ran = publish(stage, ["relay"], b"good\n" + b"x" * ((1 << 20) + 1) + b"\nnever\n")
    assert ran.returncode == 1 and b"bad stream: the length is over the limit" in ran.stderr
    assert client.receive() == b"good" and not client.receive_ready()


# ---- changing


def test_a_client_is_tagged_and_closed(stage):
    client = stage.connect()
    assert said(stage, "tag", client.index, "blue") == f"client {client.index} has the tag\n"
    assert stage.evapid.client(client)["tag"] == "blue"
    assert said(stage, "tag", client.index, "") == f"client {client.index} has no tag\n"
    assert stage.evapid.client(client)["tag"] is None
    assert said(stage, "close", client.index).startswith(f"client {client.index} ")
    assert client.receive_rest() == []
    stage.evapid.clients(0)
    assert "no such client" in refused(stage, 1, "close", client.index)
    assert "64 bytes" in refused(stage, 1, "tag", 1, "x" * 65)


def test_the_level_of_the_log_is_shown_and_set(stage):
    assert said(stage, "log") == "info\n"
    assert said(stage, "log", "debug") == "debug\n" == said(stage, "log")
    assert json.loads(said(stage, "log", "info", "-j")) == {"log": {"level": "info"}}
    assert "level must be one of error, warning" in refused(stage, 1, "log", "loud")
    for level in ("error", "info"):
        said(stage, "log", level)
        stage.evapid.logged(f"control: the log level is {level} now")


def test_clients_that_options_choose_are_tagged_and_closed(stage):
    red, blue, other = tagged(stage, b"red"), tagged(stage, b"blue"), tagged(stage, b"blue", source="127.0.0.2")
    assert refused(stage, 2, "close", "--tag", "blue") == "evapictl: 2 clients would be closed: add --yes to do it\n"
    assert refused(stage, 2, "tag", "--address", "127.0.0.2", "x") == "evapictl: 1 client would get the tag: add --yes to do it\n"
    assert [stage.evapid.client(each)["tag"] for each in (red, blue, other)] == ["red", "blue", "blue"], "nothing was done"
    assert said(stage, "tag", "--tag", "blue", "--address", "127.0.0.0/8", "green", "--yes") == "2 clients now with the tag\n"
    assert [stage.evapid.client(each)["tag"] for each in (red, blue, other)] == ["red", "green", "green"]
    assert said(stage, "tag", "--address", "127.0.0.2", "", "--yes") == "1 client now without a tag\n"
    assert said(stage, "close", "--slow", "--yes") == said(stage, "close", "--idle", "86400", "--yes") == (
        "0 clients closed after receiving what is queued\n")
    said(stage, "relay", "the last")
    assert json.loads(said(stage, "close", "--tag", "green", "--yes", "--json")) == {"closed": {"clients": 1}}
    assert blue.receive_rest() == [b"the last"]
    assert said(stage, "close", "--idle", "0", "--yes").startswith("2 clients closed ")
    assert red.receive_rest() == other.receive_rest() == [b"the last"]


def test_a_chosen_client_that_has_gone_is_no_error(fake_evapid):
    """It was in the list, and ends before its turn. An evapid that is a fake can have it so."""
    answers = [{"clients": [{"index": 1, "state": "open"}, {"index": 2, "state": "gone"}, {"index": 3, "state": "open"}]},
               {"error": "no such client", "detail": "1 has gone"}, {"closed": {"client": 3}}]
    ran, requests = fake_evapid(answers, "close", "--state", "open", "--yes")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1 client closed after receiving what is queued\n", "")
    assert requests == [{"command": "clients", "state": "open"}, {"command": "close", "client": 1}, {"command": "close", "client": 3}]
    answers[1:] = [{"closed": {"client": 1}}, {"error": "no memory", "detail": "try again"}]
    ran, _ = fake_evapid(answers, "close", "--idle", "5", "--yes")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == ("evapictl: no memory: try again\n"
                          "evapictl: before that, 1 client closed after receiving what is queued\n")


def test_it_is_shown_for_how_long_a_client_has_been_idle(stage):
    quiet, talking = stage.connect(), stage.connect()

    def idle():
        return [client["idle_s"] for client in stage.evapid.status()["clients"]]
    until(lambda: min(idle()) >= 1, "nothing has passed for a second")
    talking.send(b"I do")
    until(lambda: (lambda quiet, talking: quiet > talking)(*idle()), "the one that talks is less idle")
    assert re.search(r"\nidle       for \d+ (s|min)\n", said(stage, "client", quiet.index))
    assert rows(said(stage, "clients"))[str(quiet.index)][5].endswith((" s", " min"))
    said(stage, "relay", "to both")
    quiet.receive(), talking.receive()
    until(lambda: stage.evapid.client(quiet)["out"]["delivered"] == 1, "it is sent")
    assert said(stage, "clients", "--idle", "86400").startswith("clients    0 of 2\n")
    assert said(stage, "clients", "--idle", "0").startswith("clients    2\n")


def test_a_configuration_is_checked_as_evapid_does(stage, tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text("{}")
    bad.write_text('{\n    "listners": [] }')
    assert said(stage, "check", good) == run_evapid("-t", "-c", good).stdout == f"{good}: good\n"
    ran, own = evapictl("/nowhere", "check", str(bad)), run_evapid("-t", "-c", bad)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", own.stderr) and ":2:" in ran.stderr
    answer = json.loads(evapictl("/nowhere", "check", str(bad), "--json").stdout)
    assert answer == {"file": str(bad), "good": False, "error": own.stderr.strip()}
    assert evapictl("/nowhere", "check", str(tmp_path / "missing")).returncode == 1


def test_what_is_configured_is_shown_and_a_reload_names_what_it_changes():
    with Stage() as own:
        own.start_evapid(log={"level": "info"}, limits={"linger_ms": 7000})
        address = own.new_address()

        def shown():
            return {cells[0]: cells[1:] for cells in (line.split() for line in said(own, "config").splitlines()[2:])}
        before = shown()
        assert said(own, "config").startswith(f"file       {own.evapid.config}\n")
        assert before["limits.linger_ms"] == ["7000", "no", "file"]
        assert before["attach_hold_ms"] == ["5000", "yes", "default"]
        assert before["access.allow"] == ["-", "yes", "default"]
        own.evapid.configure(limits={"linger_ms": 8000}, listeners=[{"address": address}])
        assert shown() == before, "nothing holds before the reload"
        assert said(own, "reload") == ("reloaded: listeners added 1, removed 0; clients closed 0\n"
                                       "changed: listeners, limits.linger_ms\n")
        assert said(own, "reload").endswith("\nchanged: no key\n")
        now = shown()
        assert now["limits.linger_ms"] == ["8000", "no", "file"]
        assert now["listeners[0].slow_policy"] == ['"disconnect"', "yes", "limits.slow_policy"]
        said(own, "log", "debug")
        assert shown()["log.level"] == ['"debug"', "no", "evapictl"]
        keys = json.loads(said(own, "config", "--json"))["config"]
        assert {"key": "limits.linger_ms", "value": 8000, "default": False, "from": "file"} in keys


def test_ready_says_by_its_exit_status_whether_clients_can_work_with_it(stage):
    until(lambda: stage.evapid.ctl("ready").returncode == 0, "it is ready")
    assert said(stage, "ready") == "ready\n"
    assert json.loads(said(stage, "ready", "--json")) == {"ready": True, "reason": None}
    with Stage() as own:
        own.start_evapid(listeners=[{"address": own.new_address()}])
        ran = own.evapid.ctl("ready")
        assert (ran.returncode, ran.stdout, ran.stderr) == (1, "not ready: no Kamailio is attached\n", "")
        ran = own.evapid.ctl("ready", "--json")
        assert (ran.returncode, json.loads(ran.stdout)) == (1, {"ready": False, "reason": "no Kamailio is attached"})
        own.evapid.terminate()
        assert own.evapid.ctl("ready").returncode == 3


# ---- the command line


@pytest.mark.parametrize("words, hint", [
    (["statsu"], "did you mean status?"), (["clint"], "did you mean client?"), (["kama"], "did you mean kamailio?"),
    (["uicast"], "did you mean unicast?"), (["xyzzy"], "evapictl -h"), (["foo"], "evapictl -h"),
    (["status", "--sokcet", "x"], "did you mean --socket?"),
    (["--sokcet=x", "status"], "--sokcet=x; did you mean --socket?"), (["--foo"], "unknown option: --foo; evapictl -h lists all"),
    (["-x"], "unknown option: -x; evapictl -h"), (["-jx", "status"], "unknown option: -x;"), (["--s"], "unknown option: --s;"),
    (["--json=5", "status"], "takes no value"), (["clients", "--sort"], "--sort: a value must follow it"), (["client"], "usage: evapictl client N"),
    (["client", "x"], "evapictl clients"), (["client", "0"], "evapictl clients"), (["client", "1e2"], "evapictl clients"),
    (["tag", "1"], "usage: evapictl tag N TAG"), (["close"], "usage: evapictl close N; in place of N, --tag"),
    (["close", "1", "--slow"], "either a client's number or options"), (["tag", "1", "x", "--tag", "y"], "either a client's number"),
    (["tag", "--tag", "y"], "usage: evapictl tag N TAG"), (["clients", "--idle", "-1"], "whole seconds"),
    (["clients", "--yes"], "evapictl -h"), (["tail", "--count", "0"], "from 1 on"), (["tail", "--client", "x"], "client's number"),
    (["status", "--match", "x"], "evapictl -h"), (["tag", "1", "x", "--allow-none"], "evapictl -h"), (["multicast"], "usage: evapictl multicast TAG [TEXT...]"),
    (["status", "--sort", "tag"], "evapictl -h"), (["relay", "--watch", "1", "x"], "evapictl -h"),
    (["status", "--watch", "0"], "seconds"), (["status", "--watch", "soon"], "seconds"), (["tags", "--limit", "x"], "number"),
    (["tags", "--limit", "1.5"], "number"), (["names", "cities"], "commands, tags or clients"), (["top"], "terminal")])
def test_a_wrong_command_line_is_answered_with_what_to_do(stage, words, hint):
    error = refused(stage, 2, *words)
    assert hint in error and error.count("\n") == 1


@pytest.mark.parametrize("words", [["status"], ["clients"], ["tail"], ["relay", "x"], ["tag", "1", "x"], ["log"], ["reload"],
                                   ["stats"], ["names", "tags"]], ids=lambda words: words[0])
def test_without_an_evapid_each_command_says_so(tmp_path, words):
    ran = evapictl(tmp_path / "control.sock", *words)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr == f"evapictl: {tmp_path}/control.sock: evapid is not running (there is no such socket)\n"


def test_a_path_that_is_no_socket_is_said_to_be_none(tmp_path):
    file = tmp_path / "evapid.json"
    file.write_text("{}")
    for path, why in ((file, "this is no socket: "), (tmp_path, "this is no socket: "), (file / "x", "evapid is not running (there is no")):
        ran = evapictl(path, "status")
        assert (ran.returncode, ran.stdout) == (3, "") and ran.stderr.startswith(f"evapictl: {path}: {why}")


def test_the_socket_is_that_of_an_instance_or_of_the_environment(stage):
    def asked(*words, **environment):
        return subprocess.run([EVAPICTL, *words, "log"], capture_output=True, text=True, timeout=DEADLINE_S,
                              env={**os.environ, **SANITIZER, **environment})
    assert asked(EVAPICTL_SOCKET=str(stage.evapid.control_socket)).stdout == "info\n"
    assert asked("-s", str(stage.evapid.control_socket), EVAPICTL_SOCKET="/nowhere").stdout == "info\n"
    assert asked(EVAPICTL_SOCKET="/nowhere").stderr.startswith("evapictl: /nowhere: evapid is not running")
    for words in (("-i", "no-such"), ("--instance=no-such",)):
        ran = asked(*words, EVAPICTL_SOCKET=str(stage.evapid.control_socket))
        assert (ran.returncode, ran.stdout) == (3, "") and ran.stderr.startswith("evapictl: /run/evapid-no-such/control.sock: ")
    for name in ("", "a/b", "x" * 65):
        ran = asked("-i", name)
        assert ran.returncode == 2 and "the name of an instance has" in ran.stderr


def test_names_for_shells_are_printed_a_line_each(stage):
    one, other = tagged(stage, b"blue"), stage.connect()
    said(stage, "tag", other.index, "two words")
    assert said(stage, "names", "tags") == "blue\n"
    assert said(stage, "names", "clients") == f"{one.index}\n{other.index}\n"
    assert "multicast\n" in said(stage, "names", "commands")


# ---- tail, where it is no terminal


def start_tail(evapid, *words):
    """It looks on when this returns: it has shown something."""
    command = [EVAPICTL, "-s", evapid.control_socket, "tail", *words]
    tailing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not select.select([tailing.stdout], [], [], 0.1)[0]:
        assert tailing.poll() is None
        evapid.ctl("unicast", "nobody", "are you there")
    evapid.ctl("unicast", "nobody", "begin")
    while b"begin" not in tailing.stdout.readline():
        pass
    return tailing


@pytest.fixture
def tail(stage):
    started = []

    def start(*words):
        started.append(start_tail(stage.evapid, *words))
        return started[-1]
    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_passes_is_printed_a_line_each(stage, tail):
    client = tagged(stage, b"blue")
    tailing = tail()
    stage.phone().ask("INFO", body=b'{"a": [1,\n2]}')
    line = tailing.stdout.readline()
    assert re.fullmatch(rb'[\d:.]+Z out  multicast \[blue\] to 1  \{"a": \[1,\\x0a2\]\}\n', line), line
    said(stage, "send", str(client.index), "you")
    line = tailing.stdout.readline()
    assert re.fullmatch(rb"[\d:.]+Z out  send client %d to 1  you\n" % client.index, line), line
    client.send(b"\xff\0 back to you, and more")
    line = tailing.stdout.readline()
    assert re.fullmatch(rb"[\d:.]+Z in   client %d \[blue\]  \\xff\\x00 back to you, and more\n" % client.index, line), line


def test_what_passes_is_printed_as_json(stage, tail):
    stage.connect()
    tailing = tail("--json", "--direction", "out")
    said(stage, "relay", "x")
    line = json.loads(tailing.stdout.readline())
    assert (line["kind"], line["receivers"], line["payload"]) == ("relay", 1, "x")


def tail_to_its_end(evapid, *words, act):
    """What a tail prints that ends by itself. act: makes something pass; called until the tail has ended."""
    command = [EVAPICTL, "-s", evapid.control_socket, "tail", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tailing:
        def ended():
            act()
            assert tailing.poll() is not None
            return True
        try:
            until(ended, "the tail has ended")
        finally:
            tailing.kill()
        printed, errors = tailing.communicate()
        assert (tailing.returncode, errors) == (0, "")
        return printed.splitlines()


def test_tail_ends_after_so_many_of_what_matches(stage):
    tagged(stage, b"blue")
    def act():
        for event in ("relay", "no"), ("relay", "a needle here"), ("relay", "none"), ("multicast", "blue", "needle two"):
            stage.evapid.ctl(*event)
    lines = tail_to_its_end(stage.evapid, "--match", "needle", "--count", 5, act=act)
    assert len(lines) == 5 and all("needle" in line for line in lines)
    assert {line.split("  ")[-1] for line in lines} == {"a needle here", "needle two"}
    lines = tail_to_its_end(stage.evapid, "--count", 1, "--json", act=act)
    assert len(lines) == 1 and json.loads(lines[0])["direction"] == "out"


def test_tail_finds_a_text_between_any_bytes(stage):
    client = stage.connect()

    def act():
        for message in (b"\xff\0 no, and that is long enough", b"\xff\0 needle \xfe, and that too"):
            client.send(message)
    line, = tail_to_its_end(stage.evapid, "--match", "needle", "--direction", "in", "--count", 1, act=act)
    assert line.endswith("\\xff\\x00 needle \\xfe, and that too")


def test_tail_shows_what_one_client_says_and_gets(stage):
    """Whatever the kind of an event, also when one of several gets it."""
    one, other = tagged(stage, b"blue"), tagged(stage, b"blue")
    with Control(stage.evapid.control_socket) as looking, Control(stage.evapid.control_socket) as control:
        assert looking.ask(command="tail", client=other.index) == {"tail": True}
        for index in (999999, 0, -1):
            assert control.ask(command="tail", client=index)["error"] == "no such client"
        control.ask(command="unicast", tag="blue", event="to the first")
        control.ask(command="multicast", tag="blue", event="to both")
        control.ask(command="tag", client=one.index, tag="red")
        control.ask(command="multicast", tag="red", event="to the first")
        control.ask(command="unicast", tag="blue", event="to the second")
        one.send(b"from the first, which is none of it")
        assert one.receive_many(3) == [b"to the first", b"to both", b"to the first"]
        stage.evapid.until_status(lambda s: s["clients"][0]["in"]["frames"] == 2, "it has been passed on")
        other.send(b"from the second one, as it should")
        control.ask(command="relay", event="to all")
        shown = [looking.line() for _ in range(4)]
        assert [line["payload"] for line in shown if line["direction"] == "out"] == ["to both", "to the second", "to all"]
        assert [line["payload"] for line in shown if line["direction"] == "in"] == ["from the second one, as it should"]


def test_tail_ends_with_evapid_s_end_and_says_so():
    with Stage() as own:
        own.start_evapid()
        tailing = start_tail(own.evapid)
        own.evapid.terminate()
        errors = tailing.communicate(timeout=DEADLINE_S)[1].decode()
        assert (tailing.returncode, errors) == (
            3, f"evapictl: {own.evapid.control_socket}: evapid has closed the connection\n")
