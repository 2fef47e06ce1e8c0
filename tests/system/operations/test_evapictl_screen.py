"""evapictl at a terminal: top, the colours of tail, and what the Tab key does in bash and zsh."""

import os
import re
import subprocess

import pytest

from control import Control, stage, tagged  # noqa: F401: a fixture
from evapid import BUILD, EVAPICTL
from process import until
from stage import Stage
from terminal import Screen, Typescript

pytestmark = pytest.mark.usefixtures("calm")


@pytest.fixture
def screen(stage):
    with Screen(stage.folder) as own:
        yield own


def top(stage, screen, *words):
    screen.runs(EVAPICTL, "-s", stage.evapid.control_socket, "top", *words)
    return screen.shows("evapid 0.1.0", "q quit")


# ---- top


def test_top_shows_rates_queues_and_clients_and_quits_with_q(stage, screen):
    blue = tagged(stage, "gr\u00fcn".encode())
    top(stage, screen, "--watch", "0.2")
    with Control(stage.evapid.control_socket) as control:
        for _ in range(500):
            control.ask(command="relay", event="x")
    lines = screen.shows(f"127.0.0.1:{blue.port}")
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    assert lines[0].startswith("evapid 0.1.0, up ") and "kamailio attached (1 workers)" in lines[0]
    assert lines[1].startswith("clients  1, 0 slow") and lines[-1].startswith("q quit")
    assert lines[8].split()[:4] == ["client", "address", "tag", "state"]
    assert lines[9].split()[:4] == [str(blue.index), f"127.0.0.1:{blue.port}", "gr\u00fcn", "open"]
    assert screen.mode() == ["1", "0"]
    screen.keys("q")
    until(lambda: screen.mode() == ["0", "1"], "the terminal is as it was")
    screen.types("echo echoed")
    screen.shows("$ echo echoed")


def test_top_shows_what_happens(stage, screen):
    client = tagged(stage, b"blue")
    top(stage, screen, "--watch", "0.3")
    with Control(stage.evapid.control_socket) as control:
        def rate():
            for _ in range(20):
                control.ask(command="relay", event="x")
            shown = re.search(r"relay ([\d.]+)/s", "\n".join(screen.lines()))
            return shown and float(shown[1]) > 0
        until(rate, "a rate is shown")
    client.receive_ready()
    screen.keys("q")
    until(lambda: screen.mode()[0] == "0", "top has ended")


@pytest.mark.parametrize("columns, lines", [(120, 40), (40, 10), (12, 4), (5, 2), (300, 80)])
def test_top_fits_into_a_terminal_of_any_size(stage, screen, columns, lines):
    for _ in range(3):
        stage.connect()
    top(stage, screen)
    screen.resize(columns, lines)
    until(lambda: len(screen.lines()) <= lines and screen.lines()[-1] == "q quit   s/S sort: queued   p pause   +/- interval"[:columns].rstrip(),
          "the last line is the screen's")
    screen.resize(80, 24)
    assert screen.shows("evapid 0.1.0", "queued bytes", "+/- interval")[8].endswith("in/s")
    screen.keys("q")
    until(lambda: screen.mode()[0] == "0", "top has ended")


def test_top_goes_by_the_size_of_the_terminal_whatever_lines_and_columns_say(stage):
    """As where somebody has exported them: they keep the size that there was once."""
    with Screen(stage.folder, 100, 30, environment={"LINES": 24, "COLUMNS": 80}) as screen:
        for columns, lines in ((100, 30), (120, 40), (60, 20)):
            screen.resize(columns, lines)
            if columns == 100:
                top(stage, screen)
            until(lambda: (len(screen.lines()), screen.lines()[-1][:6]) == (lines, "q quit"), "the last line is the screen's")
        screen.keys("q")
        until(lambda: screen.mode()[0] == "0", "top has ended")


def test_top_sorts_as_it_is_told(stage, screen):
    first, second = tagged(stage, b"zebra"), tagged(stage, b"ant")
    top(stage, screen)
    screen.keys("S")
    screen.shows("sort: tag")
    until(lambda: [line.split()[2] for line in screen.lines()[9:11]] == ["ant", "zebra"], "they are sorted by their tags")
    screen.keys("S", "S")
    screen.shows("sort: index")
    until(lambda: [line.split()[0] for line in screen.lines()[9:11]] == [str(first.index), str(second.index)], "by index")
    screen.keys("p")
    screen.shows("PAUSED")
    screen.keys("q")
    until(lambda: screen.mode()[0] == "0", "top has ended")


@pytest.mark.parametrize("how", ["C-c", "TERM", "HUP"])
def test_top_leaves_the_terminal_as_it_was_when_it_is_ended(stage, screen, how):
    top(stage, screen)
    if how == "C-c":
        screen.keys("C-c")
    else:
        children = until(lambda: [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if is_top(pid, stage)],
                         "top runs")
        os.kill(children[0], {"TERM": 15, "HUP": 1}[how])
    until(lambda: screen.mode() == ["0", "1"], "the terminal is as it was")
    screen.types("echo echoed")
    screen.shows("$ echo echoed")


def is_top(pid, stage):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return words[0] == str(EVAPICTL).encode() and str(stage.evapid.control_socket).encode() in words and b"top" in words


def test_top_goes_on_when_evapid_is_back():
    with Stage() as own:
        own.start_evapid()
        with Screen(own.folder) as screen:
            top(own, screen, "--watch", "0.2")
            own.evapid.terminate()
            screen.shows("NO ANSWER", "evapid is not running")
            own.restart_evapid()
            until(lambda: not any("NO ANSWER" in line for line in screen.lines()), "it is answered again")
            screen.keys("q")
            until(lambda: screen.mode()[0] == "0", "top has ended")


def test_top_needs_a_terminal_that_is_known(stage, screen):
    screen.types("TERM=unheard-of ")
    screen.runs(EVAPICTL, "-s", stage.evapid.control_socket, "top")
    screen.shows("set TERM")


def test_a_relay_at_a_terminal_says_that_it_reads_from_it(stage):
    client = stage.connect()
    relay = Typescript([EVAPICTL, "-s", stage.evapid.control_socket, "relay"])
    try:
        relay.reads(b"each line that you type is an event; Ctrl-D ends the input\r\n")
        os.write(relay.fd, b"typed\n")
        assert client.receive() == b"typed"
        os.write(relay.fd, b"\x04")
        relay.reads(b"1 event, 5 bytes, ")
    finally:
        relay.close()


# ---- tail


@pytest.mark.parametrize("environment, colours", [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)],
                         ids=["colours", "empty", "none"])
def test_json_is_set_out_on_a_terminal_and_coloured(stage, environment, colours):
    event = '{"a":[1,{"b":null}],"c":"x\\u001b","a":1.50,"e":{},"f":[ ]}'
    shown = ('{\n      "a": [\n        1,\n        {\n          "b": null\n        }\n      ],\n      "c": "x\\u001b",\n'
             '      "a": 1.50,\n      "e": {},\n      "f": []\n    }\n')
    tail = Typescript([EVAPICTL, "-s", stage.evapid.control_socket, "tail", "--direction", "out"], environment)
    try:
        begin(stage, tail)
        stage.evapid.ctl("relay", event)
        written = tail.reads(b"\n    }\r\n").decode().replace("\r", "").rsplit("relay to 0", 1)[1]
        plain = re.sub(r"\x1b\[[\d;]*m", "", written)
        assert plain.lstrip() == shown
        assert ("\x1b[32m\"x\\u001b\"\x1b[0m" in written) == colours and ("\x1b" in written) == colours
    finally:
        tail.close()


def begin(stage, tail):
    """Wait until the tail shows what passes."""
    def look():
        stage.evapid.ctl("unicast", "nobody", "begin")
        return tail.reads(b"begin", 0.1)
    until(look, "it is shown")
    stage.evapid.ctl("unicast", "nobody", "now")
    tail.reads(b"  now\r\n")


def test_what_a_client_says_drives_no_terminal(stage):
    client = stage.connect()
    tail = Typescript([EVAPICTL, "-s", stage.evapid.control_socket, "tail"], {"NO_COLOR": "1"})
    try:
        begin(stage, tail)
        for hostile in (b"\x1b[2J\x07 one", "\u009b2J two".encode(), b"\xff\x9b\r\n three", b'{"k\x7f": "\xc2\x9b31m four"}'):
            client.send(hostile)
        written = tail.reads(b"four")
        tail.reads(b"}\r\n")
        assert not re.search(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f\x9b\xff]", written.replace(b"\r\n", b""))
        for shown in (b"\\x1b[2J\\x07 one", b"\\xc2\\x9b2J two", b"\\xff\\x9b\\x0d\\x0a three", b"k\\x7f", b"\\xc2\\x9b31m four"):
            assert shown in tail.written
    finally:
        tail.close()
        stage.evapid.ctl("tag", str(client.index), "")


# ---- the Tab key


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What cmake installs below /usr."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(["cmake", "--install", BUILD, "--prefix", "/usr"], check=True, capture_output=True,
                   env={**os.environ, "DESTDIR": str(folder)})
    return folder / "usr"


@pytest.fixture(params=["bash", "zsh"])
def shell(request, stage, installed):
    """A shell that finds evapictl by its name, and our completion where packages have theirs."""
    folder = stage.folder / f"home-{request.param}"
    folder.mkdir(exist_ok=True)
    environment = {"PATH": f"{EVAPICTL.parent}:{os.environ['PATH']}", "HOME": folder, "ZDOTDIR": folder,
                   "XDG_DATA_DIRS": installed / "share"}
    (folder / ".zshrc").write_text(f"PS1='$ '\nfpath=({installed}/share/zsh/vendor-completions $fpath)\n"
                                   "autoload -Uz compinit\ncompinit -u\nsetopt no_list_beep\n")
    (folder / "bashrc").write_text("PS1='$ '\n. /usr/share/bash-completion/bash_completion\n")
    command = f"bash --noprofile --rcfile {folder}/bashrc -i" if request.param == "bash" else "zsh -i"
    with Screen(stage.folder, 200, 24, command, environment) as screen:
        yield screen


@pytest.mark.parametrize("typed, completed", [
    ("mult", "multicast "), ("listen", "listeners "), ("clients --sor", "clients --sort "),
    ("clients --state fl", "clients --state flushing "), ("clients --sort deli", "clients --sort delivered "),
    ("multicast bl", "multicast blue "), ("close --tag bl", "close --tag blue "), ("close --id", "close --idle "), ("tag {index} bl", "tag {index} blue "), ("close {digits}", "close {index} "),
    ("send {digits}", "send {index} "),
    ("tail --tag bl", "tail --tag blue "), ("tail --direction o", "tail --direction out "), ("log warn", "log warning ")],
    ids=lambda text: text)
def test_tab_completes(stage, shell, typed, completed):
    client = tagged(stage, b"blue")
    index = str(client.index)
    names = {"index": index, "digits": index[:-1]}
    shell.types(f"evapictl -s {stage.evapid.control_socket} " + typed.format(**names))
    shell.keys("Tab")
    wanted = f"{stage.evapid.control_socket} {completed.format(**names)}".rstrip()
    until(lambda: any(line.endswith(wanted) for line in shell.lines()), f"the line ends with {wanted!r}: {shell.lines()}")


def test_a_tag_that_looks_like_a_command_is_completed_as_a_word_and_run_by_no_shell(stage, shell):
    client, made = stage.connect(), stage.folder / "made"
    tag = f"$(>{made})`>{made}`;"
    assert stage.evapid.ctl("tag", str(client.index), tag).returncode == 0
    shell.types(f"evapictl -s {stage.evapid.control_socket} multicast ")
    shell.keys("Tab")
    until(lambda: any(str(made) in line for line in shell.lines()), f"the tag is there: {shell.lines()}")
    shell.types("hello")
    shell.keys("Enter")
    assert client.receive() == b"hello"
    assert not made.exists()
    stage.evapid.ctl("tag", str(client.index), "")


@pytest.mark.parametrize("tag", ["sip:billing@example.org", "node=1:blue"])
def test_a_tag_of_what_bash_takes_for_several_words_is_completed_from_any_part_of_it(stage, shell, tag):
    client, other = stage.connect(), stage.connect()
    for who, text in ((client, tag), (other, tag + "2")):
        assert stage.evapid.ctl("tag", str(who.index), text).returncode == 0
    shell.types(f"evapictl -s {stage.evapid.control_socket} multicast {tag[0]}")
    shell.keys("Tab")  # as far as both have it in common
    until(lambda: any(line.replace("\\", "").endswith(tag) for line in shell.lines()), f"the tag is there: {shell.lines()}")
    shell.types("2")
    shell.keys("Tab")
    shell.types("hello")
    shell.keys("Enter")
    assert other.receive() == b"hello"
    for who in (client, other):
        stage.evapid.ctl("tag", str(who.index), "")
