"""What the documents and manual pages show is used as it stands there: commands against a real evapid, and pieces of
configurations by the programs that read them. What belongs to one feature is with the tests of that."""

import re
import subprocess

import pytest

import commands
from evapid import ROOT, run_evapid
from kamailio import KAMAILIO
from process import DEADLINE_S
from scrape import promtool
from script import RELAY

MANUALS = ["docs/evapid.8", "docs/evapid.json.5", "docs/evapictl.1"]
ROUTES = RELAY + """
event_route[evapi:message-received] { evapi_set_tag("$evapi(msg)"); }
"""


@pytest.fixture
def shown(stage):
    """A stage as the documents have it in mind: with a client that has the tag billing, and a file of events."""
    stage.start_evapid()
    stage.start_kamailio(ROUTES)
    stage.connect().send(b"billing")
    stage.evapid.until_status(lambda status: [each["tag"] for each in status["clients"]] == ["billing"], "the tag is set")
    (stage.folder / "events.txt").write_text("an event\n" * 12000)
    return stage


def as_printed(stage, text):
    """Without what differs from one run to another: figures, and where it was."""
    text = commands.staged(stage, text)
    return re.sub(r"\d[\d.]*[KM]?", "N", text.replace(str(stage.folder), "FOLDER"))


def goes_on(command):
    """Whether it runs until somebody ends it."""
    return command.startswith("evapictl tail")


@pytest.mark.parametrize("manual, command, output", [(manual, *each) for manual in MANUALS for each in commands.examples(manual)])
def test_an_example_of_a_manual_page_prints_what_it_shows(shown, manual, command, output):
    if goes_on(command):
        seen = "while evapictl multicast billing seen; do sleep 0.1; done"
        command = f"({seen}) > /dev/null & ({command} || true) | head -n 1; kill $!"
    ran = commands.run_text(shown, command.replace("events.txt", f"{shown.folder}/events.txt") + "\n")
    assert ran.stdout != "" and ran.stderr == ""
    assert output == "" or as_printed(shown, ran.stdout) == as_printed(shown, output)


@pytest.mark.parametrize("path, name", [("docs/configuration.md", "check a file")])
def test_a_console_prints_what_the_document_shows(shown, path, name):
    for command, output in commands.dialogue(commands.text_of(path, name)):
        assert as_printed(shown, commands.run_text(shown, command).stdout) == as_printed(shown, output)


@pytest.mark.parametrize("path, name", [("docs/configuration.md", "a configuration"), ("docs/configuration.md", "users of the sockets"),
                                        ("docs/configuration.md", "a Unix socket for clients"),
                                        ("docs/metrics.md", "have metrics")])
def test_evapid_takes_a_configuration_that_a_document_shows(path, name, tmp_path):
    text = commands.text_of(path, name).replace('"ops"', '"root"')  # a group that this machine has
    (tmp_path / "evapid.json").write_text(text)
    ran = run_evapid("-t", "-c", tmp_path / "evapid.json")
    assert (ran.returncode, ran.stderr) == (0, "")


def test_evapid_takes_the_configuration_that_the_manual_page_shows(tmp_path):
    (tmp_path / "evapid.json").write_text(re.search(r"^\.Bd [^\n]*\n(\{\n.*?^\}\n)\.Ed", (ROOT / "docs/evapid.json.5").read_text(),
                                                    re.M | re.S)[1])
    ran = run_evapid("-t", "-c", tmp_path / "evapid.json")
    assert (ran.returncode, ran.stderr) == (0, "")


def test_prometheus_takes_the_configuration_that_the_document_shows(tmp_path):
    (tmp_path / "prometheus.yml").write_text(commands.text_of("docs/metrics.md", "scrape"))
    ran = promtool("check", "config", tmp_path / "prometheus.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def with_the_other_line(diff):
    """What a diff leads to."""
    return "".join(line[1:] + "\n" for line in diff.splitlines() if line[0] != "-")


@pytest.mark.parametrize("path, name", [("README.md", "another module"), ("docs/operations.md", "load the module"),
                                        ("docs/module.md", "a script"), ("docs/module.md", "a question")])
def test_kamailio_takes_a_piece_of_a_script_that_a_document_shows(stage, path, name):
    piece = commands.text_of(path, name)
    piece = with_the_other_line(piece) if piece.startswith(" ") else piece.replace("    ...\n", "")
    needed = ("tm", "tmx", "sl", "pv", "xlog", "textops")
    head = "".join(f'loadmodule "{each}.so"\n' for each in needed if f'"{each}.so"' not in piece)
    if commands.INSTALLED_MODULE not in piece:
        head += f'loadmodule "{commands.INSTALLED_MODULE}"\n'
    rest = "" if "request_route" in piece else "request_route { exit; }\n"
    (stage.folder / "kamailio.cfg").write_text(commands.staged(stage, f"#!KAMAILIO\n{head}{piece}{rest}"))
    ran = subprocess.run([*KAMAILIO, "-c", "-f", stage.folder / "kamailio.cfg"], capture_output=True, text=True, timeout=DEADLINE_S)
    assert ran.returncode == 0 and "config file ok" in ran.stdout + ran.stderr, ran.stdout + ran.stderr


# ---- commands within the text


def named_commands():
    """Those of evapictl that stand in a sentence or a table, ready to be typed."""
    found = set()
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        found |= set(re.findall(r"`(evapictl [^`]+)`", path.read_text()))
    return sorted(found)


ENDLESS = ("tail", "top")
NEEDS_MORE = {"evapictl relay", "evapictl close", "evapictl tag", "evapictl forget"}  # the command's name alone: what stands behind it is said there


@pytest.mark.parametrize("command", [each for each in named_commands()
                                     if each not in NEEDS_MORE and each.split()[1] not in ENDLESS])
def test_a_command_within_a_sentence_works(shown, command):
    index = str(shown.connections[0].index)
    more = [(" 12", f" {index}"), ("FILE", f"{shown.folder}/events.txt")]
    assert commands.run_text(shown, command, more).stderr == ""
