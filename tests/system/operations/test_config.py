"""evapid's configuration file and command line: what is read, and how an error is shown."""

import json
import re
import socket

import pytest

from evapid import ROOT, run_evapid


@pytest.fixture
def check(tmp_path):
    """Run evapid on a text as its configuration file, by default to check it only."""
    path = tmp_path / "evapid.json"

    def run(text, *words):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return run_evapid(*(words or ["-t"]), "-c", path)
    run.path = path
    return run


def error_of(ran, path):
    """LINE, COLUMN and the rest of the one line that says what is wrong."""
    assert ran.returncode == 1, ran
    lines = ran.stderr.splitlines()
    assert len(lines) == 1, ran.stderr
    found = re.search(rf"{re.escape(str(path))}:(\d+):(\d+): (.*)$", lines[0])
    assert found, lines[0]
    return int(found.group(1)), int(found.group(2)), found.group(3)


# Where the error is marked with ^: that mark is taken out before the file is written.
ERRORS = {
    "unknown key": ('{ "log": { "level": "info" },\n  "colour": ^"red" }', "colour: unknown key"),
    "unknown key in limits": ('{ "limits": { "max_size": ^1 } }', "limits.max_size: unknown key"),
    "unknown key in a listener": (
        '{ "listeners": [ { "address": "127.0.0.1:1" },\n { "address": "127.0.0.1:2",\n   "max": ^1 } ] }',
        "listeners[1].max: unknown key"),
    "unknown key in log": ('{ "log": {\n"file": ^"x" } }', "log.file: unknown key"),
    "unknown key in keepalive": ('{ "keepalive": { "idle": ^1 } }', "keepalive.idle: unknown key"),
    "wrong type of a path": ('{ "kamailio_socket": ^12 }', "kamailio_socket: "),
    "wrong type of a boolean": ('{ "module_listener": ^"yes" }', "module_listener: "),
    "wrong type of a number": ('{\n\n  "shutdown_grace_ms": ^"2s" }', "shutdown_grace_ms: "),
    "a fraction": ('{ "attach_hold_ms": ^1.5 }', "attach_hold_ms: "),
    "wrong type of an object": ('{ "limits": ^[] }', "limits: "),
    "wrong type of a list": ('{ "listeners": ^{} }', "listeners: "),
    "wrong type of a listener": ('{ "listeners": [ ^"127.0.0.1:8448" ] }', "listeners[0]: "),
    "wrong type of an address": ('{ "listeners": [ { "address": ^8448 } ] }', "listeners[0].address: "),
    "wrong type of max_clients": (
        '{ "listeners": [ { "address": "127.0.0.1:1", "max_clients": ^"many" } ] }', "listeners[0].max_clients: "),
    "null": ('{ "control_socket": ^null }', "control_socket: "),
    "not an object": ("^[]", ""),
    "too small": (
        '{ "listeners": [ { "address": "127.0.0.1:1", "max_clients": ^0 } ] }', "listeners[0].max_clients: 0 "),
    "negative": ('{ "limits": { "max_message_bytes": ^-1 } }', "limits.max_message_bytes: -1 "),
    "too large": ('{ "limits": { "max_message_bytes": ^67108865 } }', "limits.max_message_bytes: 67108865 "),
    "a window of nothing": ('{ "limits": { "worker_window_frames": ^0 } }', "limits.worker_window_frames: 0 "),
    "probes": ('{ "keepalive": { "probes": ^1000 } }', "keepalive.probes: 1000 "),
    "a long path": ('{ "control_socket": ^"/' + "x" * 120 + '" }', "control_socket: "),
    "an empty path": ('{ "kamailio_socket": ^"" }', "kamailio_socket: "),
    "one path twice": ('{ "kamailio_socket": "/a", "control_socket": ^"/a" }', "control_socket: "),
    "an unknown level": ('{ "log": { "level": ^"loud" } }', "log.level: "),
    "an unknown framing": (
        '{ "listeners": [ { "address": "127.0.0.1:1", "framing": ^"json" } ] }', "listeners[0].framing: "),
    "no address": ('{ "listeners": [ ^{ "framing": "raw" } ] }', "listeners[0]: "),
    "no port": ('{ "listeners": [ { "address": ^"127.0.0.1" } ] }', "listeners[0].address: "),
    "a port that is none": ('{ "listeners": [ { "address": ^"127.0.0.1:70000" } ] }', "listeners[0].address: "),
    "port 0": ('{ "listeners": [ { "address": ^"127.0.0.1:0" } ] }', "listeners[0].address: "),
    "a host that is none": ('{ "listeners": [ { "address": ^"300.0.0.1:80" } ] }', "listeners[0].address: "),
    "a name": ('{ "listeners": [ { "address": ^"localhost:80" } ] }', "listeners[0].address: "),
    "IPv6 without brackets": ('{ "listeners": [ { "address": ^"::1:80" } ] }', "listeners[0].address: "),
    "the same address twice": (
        '{ "listeners": [ { "address": "127.0.0.1:8448" },\n  { "address": ^"127.0.0.1:8448" } ] }',
        "listeners[1].address: "),
    "the same address in another spelling": (
        '{ "listeners": [ { "address": "[::1]:8448" },\n  { "address": ^"[0:0:0:0:0:0:0:1]:8448" } ] }',
        "listeners[1].address: "),
    "behind comments": (
        '# one\n// two\n/* three\n   four */ { /* five */ "limits": { // six\n "max_message_bytes": ^0 } }',
        "limits.max_message_bytes: 0 "),
    "behind a key of the same name in a string": (
        '{ "kamailio_socket": "/\\"colour\\": 1", "colour": ^1 }', "colour: unknown key"),
}


@pytest.mark.parametrize("text, message", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_is_shown_as_file_line_column_path_message(check, text, message):
    before, after = text.split("^")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    assert error_of(check(before + after), check.path)[:2] == (line, column)
    shown = error_of(check(before + after), check.path)[2]
    assert shown == message or message[-1:] in " " and shown.startswith(message) and len(shown) > len(message)


@pytest.mark.parametrize("text, line", [
    ("", 1), ("{", 1), ('{ "log": }', 1), ('{\n"log": {},\n}', 3), ('{\n\n "log" {} }', 3), ("{} {}", 1), ("{'log': {}}", 1),
    ('{ "a": "unfinished }', 1), ("{ /* unfinished }", 1), ('{ "kamailio_socket": "\\u0000" }', 1),
    (b'{ "kamailio_socket": "\xff" }', 1), ('{\n "shutdown_grace_ms": 1,\n "shutdown_grace_ms": 2 }', 3),
    ('{ "limits": {\n "max_message_bytes": 1,\n "max_message_bytes": 2 } }', 3),
    ('{ "shutdown_grace_ms": 99999999999999999999 }', 1),
], ids=["empty", "open", "no value", "comma at the end", "no colon", "two values", "apostrophes", "open string",
        "open comment", "NUL", "not UTF-8", "duplicate key", "duplicate key inside", "a number beyond all"])
def test_a_text_that_is_no_json_is_shown_with_its_line(check, text, line):
    assert error_of(check(text), check.path)[0] == line


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    path = tmp_path / "missing.json"
    for words in (["-t", "-c", path], ["-c", path], ["--config", path]):
        ran = run_evapid(*words)
        assert ran.returncode == 1
        assert f"{path}: No such file" in ran.stderr and len(ran.stderr.splitlines()) == 1
    assert run_evapid("-c", tmp_path).returncode == 1


def test_an_error_in_the_file_starts_nothing(check, tmp_path):
    sockets = [str(tmp_path / "kamailio.sock"), str(tmp_path / "control.sock")]
    check.path.write_text(json.dumps({"kamailio_socket": sockets[0], "control_socket": sockets[1], "colour": 1}))
    ran = run_evapid("-c", check.path)
    assert ran.returncode == 1 and "colour: unknown key" in ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evapid.json"]


GOOD = """# A file with every key and every kind of comment
{
    // sockets
    "kamailio_socket": "/run/x//y#z/*w*/.sock", /* a path may look like a comment */
    "control_socket": "/run/x/control.sock", # the end
    "module_listener": false,
    "listeners": [
        { "address": "127.0.0.1:8449", "framing": "netstring", "max_clients": 100, /* more
          lines */ "max_message_bytes": 4194304, "max_queued_bytes": 8388608 },
        { "address": "[::1]:8449", "framing": "raw" },
        { "address": "0.0.0.0:8450" }
    ],
    "limits": { "max_message_bytes": 4194304, "max_queued_bytes": 8388608, "worker_window_frames": 256,
                "worker_window_bytes": 1048576 },
    "keepalive": { "idle_s": 60, "interval_s": 10, "probes": 6 },
    "shutdown_grace_ms": 2000,
    "attach_hold_ms": 5000,
    "log": { "level": "warning" }
}
// and behind it"""


@pytest.mark.parametrize("text", [GOOD, "{}", "{} # nothing", GOOD.replace("\n", "\r\n")],
                         ids=["every key", "none", "a comment at the end", "CRLF"])
def test_a_good_file_passes_the_check(check, text):
    for words in (["-t"], ["--test"]):
        ran = check(text, *words)
        assert (ran.returncode, ran.stderr) == (0, "")


def test_the_file_in_conf_passes_the_check(check):
    ran = run_evapid("-t", "-c", ROOT / "conf" / "evapid.json")
    assert (ran.returncode, ran.stderr) == (0, "")


def test_version_and_help():
    for word in ("-V", "--version"):
        ran = run_evapid(word)
        assert ran.returncode == 0 and re.fullmatch(r"evapid \d+\.\d+\.\d+\n", ran.stdout)
    for word in ("-h", "--help"):
        ran = run_evapid(word)
        assert ran.returncode == 0 and ran.stderr == ""
        for option in ("-c", "--config", "-t", "--test", "-V", "--version", "-h", "--help"):
            assert option in ran.stdout


@pytest.mark.parametrize("words", [[], ["-t"], ["-x"], ["-c"], ["--nonsense"], ["-c", "/dev/null", "more"]])
def test_a_wrong_command_line_ends_with_2(words):
    ran = run_evapid(*words)
    assert ran.returncode == 2 and ran.stdout == "" and "-c" in ran.stderr


def test_an_address_in_use_is_said_and_nothing_stays(check, tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = "127.0.0.1:%d" % holder.getsockname()[1]
        settings = {"kamailio_socket": str(tmp_path / "k.sock"), "control_socket": str(tmp_path / "c.sock"),
                    "listeners": [{"address": address}]}
        check.path.write_text(json.dumps(settings))
        ran = run_evapid("-c", check.path)
        assert ran.returncode == 1
        assert re.search(rf"error .*{address}: address in use", ran.stderr, re.IGNORECASE), ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evapid.json"]


def test_a_socket_in_a_folder_that_is_not_there_is_said(check, tmp_path):
    path = tmp_path / "nowhere" / "kamailio.sock"
    check.path.write_text(json.dumps({"kamailio_socket": str(path), "control_socket": str(tmp_path / "c.sock")}))
    ran = run_evapid("-c", check.path)
    assert ran.returncode == 1
    assert re.search(rf"error .*{path}: the folder {path.parent} is missing; make it", ran.stderr), ran.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["evapid.json"]
