"""evapictl and what is not evapid: whatever answers at the socket, it says so plainly and shows nothing raw."""

import contextlib

import pytest

from fake import ask_a_fake


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fake")


def ask_for(folder, answer, *words):
    """What evapictl makes of this answer to a command."""
    def serve(connection):
        connection.recv(4096)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(answer)
    return ask_a_fake(folder, serve, *words)


def ask_status(folder, answer, *words):
    return ask_for(folder, answer, "status", *words)


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["for people", "json"])
@pytest.mark.parametrize("answer", [
    b"\n", b"x\n", b"\0\n", b"[]\n", b"{}\n", b"5\n", b'{"error": 5}\n', b'{"version": "1', b"\xff\xfe\n", b"[" * 100000,
    b'{"version": ' + b"1" * 400 + b"}\n", b'{"version": "1", "version": \n'])
def test_an_answer_that_is_none_of_evapid_s_is_said_to_be(folder, answer, words):
    ran = ask_status(folder, answer, *words)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr == f"evapictl: {folder}/fake.sock: the answer is not evapid's, or was cut off\n"


@pytest.mark.parametrize("status", [
    '"kamailio": 5, "listeners": {}, "clients": "many", "totals": null',
    '"kamailio": {"state": "attached", "since": "9999-99-99T99:99:99", "workers": [1, null, "x"], "ring": {"held": 1}}',
    '"kamailio": {"state": "attached", "since": "now", "ring": {"used": -1, "capacity": 9223372036854775807}}',
    '"clients": [5, null, [], {"in": [], "out": 1, "since": "0000-00-00T00:00:00", "tag": {}}], "listeners": [[]]',
    '"clients": [{"dropped": {"a\\u001b[31m": 1, "%s": 5}}]' % ("\u00e4" * 50),
    '"clients": [{"dropped": {%s}}]' % ", ".join(f'"{"r" * 30}{n}": 9223372036854775807' for n in range(20)),
    '"totals": {"out": {"bytes": -9223372036854775808, "dropped": {"a": 1.5}}, "in": {"bytes": 1e300}}',
    '"clients": [{"address": "%s", "tag": "%s"}]' % ("a" * 10000, "\u00e4" * 5000),
], ids=range(8))
def test_a_status_of_another_shape_is_shown_as_well_as_it_can_be(folder, status):
    ran = ask_status(folder, ('{"version": "1", ' + status + "}\n").encode())
    assert ran.returncode == 0 and ran.stdout.startswith("evapid     1, pid 0") and ran.stderr == ""
    assert "\x1b" not in ran.stdout


@pytest.mark.parametrize("text, shown", [
    ("\\u001b[31m", "\\x1b[31m"), ("a\\u0000b", "a\\x00b"), ("a\\nclient 99", "a\\x0aclient 99"),
    ("\\u009b31m", "\\xc2\\x9b31m"), ("\\u007f", "\\x7f"), ("gr\\u00fcn \\u20ac", "gr\u00fcn \u20ac")])
def test_a_text_in_an_answer_forges_no_line_and_drives_no_terminal(folder, text, shown):
    ran = ask_status(folder, b'{"version": "%s"}\n' % text.encode())
    assert ran.returncode == 0 and ran.stdout.startswith(f"evapid     {shown}, pid 0")
    ran = ask_status(folder, b'{"error": "%s", "detail": "%s"}\n' % (text.encode(), text.encode()))
    assert ran.returncode == 1 and ran.stderr == f"evapictl: {shown}: {shown}\n"


def test_what_a_reload_has_changed_is_said(folder):
    answer = b'{"reload": {"listeners_added": 2, "listeners_removed": 1, "clients_closed": 7}}\n'
    assert ask_for(folder, answer, "reload").stdout == "reloaded: listeners added 2, removed 1; clients closed 7\n"
    for changed, said in (("[]", "no key"), ('["log.level", "listeners[0].max_clients"]', "log.level, listeners[0].max_clients"),
                          ('["a\\u001bb", 5]', "a\\x1bb, -")):
        answer = b'{"reload": {"changed": %s}}\n' % changed.encode()
        assert ask_for(folder, answer, "reload").stdout.splitlines()[1] == f"changed: {said}"
    ran = ask_for(folder, b'{"error": "not reloaded", "detail": "/etc/evapid/evapid.json:3:5: unknown key"}\n', "reload")
    assert (ran.returncode, ran.stderr) == (1, "evapictl: not reloaded: /etc/evapid/evapid.json:3:5: unknown key\n")
