"""The commands, and the pieces of configurations, that documents show, as they stand there.

A fenced block in a document says what it is in. `text` and `diff` are to look at; any other is either used by a test, which
names it, or says why not:

    <!-- test: NAME -->      <!-- not run: it needs systemd -->
    ```sh                    ```sh
    evapictl status          systemctl restart evapid
    ```                      ```

`console` is commands behind "$ ", and what they print. A manual page has these in its EXAMPLES.

Paths and addresses of an installed system stand in documents; run() puts those of a stage in their place."""

import os
import re
import shlex
import subprocess

from evapid import EVAPICTL, EVAPID, MODULE, ROOT, SANITIZER
from process import DEADLINE_S

BLOCK = re.compile(r"^(?:<!-- (?P<kind>test|not run): (?P<mark>[^\n]*) -->\n)?[ ]*```(?P<language>\w*)\n(?P<text>.*?)^[ ]*```$",
                   re.M | re.S)
TO_LOOK_AT = ("text", "diff")
INSTALLED_MODULE = "/usr/lib/x86_64-linux-gnu/kamailio/modules-evapid/evapi.so"


class Block:
    def __init__(self, path, text, found):
        self.where = f"{path}:{text.count(chr(10), 0, found.start('text'))}"
        self.name = found["mark"] if found["kind"] == "test" else None
        self.excuse = found["mark"] if found["kind"] == "not run" else None
        self.language, self.text = found["language"], found["text"]


def blocks(path, tree=ROOT):
    path = tree / path
    text = path.read_text()
    return [Block(path.relative_to(tree), text, found) for found in BLOCK.finditer(text)]


def text_of(path, name, tree=ROOT):
    """The commands of the block with that name, as the document of that tree has them."""
    found = [block.text for block in blocks(path, tree) if block.name == name]
    assert len(found) == 1, f"{path} has {len(found)} blocks that are named {name}"
    return found[0]


def tools(stage):
    """A folder with evapictl and evapid as they are built; evapictl asks the stage's evapid."""
    folder = stage.folder / "bin"
    folder.mkdir(exist_ok=True)
    for name, command in (("evapictl", [EVAPICTL, "-s", stage.folder / "control.sock"]), ("evapid", [EVAPID])):
        tool = folder / name
        tool.write_text("#!/bin/sh\nexec " + " ".join(shlex.quote(str(word)) for word in command) + ' "$@"\n')
        tool.chmod(0o755)
    return folder


def staged(stage, text, more=()):
    """text with what it names put in the stage. more: further pairs of what stands there and what it shall be."""
    host, port = stage.address.rsplit(":", 1)
    pairs = [(INSTALLED_MODULE, str(MODULE)), ("/etc/evapid/evapid.json", str(stage.folder / "evapid.json")),
             ("/run/evapid/", f"{stage.folder}/"), ("127.0.0.1:8448", stage.address),
             ("127.0.0.1 8448", f"{host} {port}"), ("127.0.0.1/8448", f"{host}/{port}"), *more]
    for shown, meant in pairs:
        text = text.replace(shown, str(meant))
    return text


def environment(stage):
    return {**os.environ, **SANITIZER, "PATH": f"{tools(stage)}:{os.environ['PATH']}:/usr/sbin:/sbin"}


def dialogue(text):
    """The commands of a console, each with what it shows that it prints."""
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.M)


def examples(manual):
    """Likewise of a manual page: what stands under EXAMPLES."""
    section = (ROOT / manual).read_text().split(".Sh EXAMPLES\n", 1)[1].split("\n.Sh ", 1)[0]
    return [each for shown in re.findall(r"^\.Bd [^\n]*\n(.*?)^\.Ed", section, re.M | re.S) for each in dialogue(shown)]


def run(stage, path, name, more=(), folder=None, timeout_s=2 * DEADLINE_S):
    """Run the block of the document as it stands there, but for its paths and addresses; returns what subprocess.run
    does. Any command that fails is a failure."""
    return run_text(stage, text_of(path, name), more, folder, timeout_s)


def run_text(stage, text, more=(), folder=None, timeout_s=2 * DEADLINE_S):
    """Likewise that text."""
    script = staged(stage, text, more)
    ran = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder or stage.folder, env=environment(stage),
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
    assert ran.returncode == 0, f"{script}\nended with {ran.returncode}:\n{ran.stdout}{ran.stderr}"
    return ran
