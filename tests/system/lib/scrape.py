"""evapid's HTTP endpoint as somebody sees it who speaks no HTTP library: what exactly comes is what is tested."""

import re
import socket
import subprocess

from client import split_address
from process import DEADLINE_S

SAMPLE = re.compile(r'^([a-z_]+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\.)*)"(?:,|$)')


class Answer:
    def __init__(self, bytes_):
        head, _, self.body = bytes_.partition(b"\r\n\r\n")
        first, *rest = head.decode("ascii").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)
        assert found, bytes_[:200]
        self.status = int(found[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}

    def text(self):
        return self.body.decode("ascii")


def connect(address):
    connection = socket.create_connection(split_address(address), timeout=DEADLINE_S)
    connection.settimeout(DEADLINE_S)
    return connection


def read_all(connection):
    """All bytes until the other side closes, in order or not."""
    all_ = b""
    try:
        while more := connection.recv(1 << 16):
            all_ += more
    except ConnectionResetError:
        pass
    return all_


def exchange(address, bytes_):
    """Send that, and read what comes until the end."""
    with connect(address) as connection:
        connection.sendall(bytes_)
        return read_all(connection)


def ask(address, path="/metrics", method="GET", more=""):
    return Answer(exchange(address, f"{method} {path} HTTP/1.1\r\nHost: evapid\r\n{more}\r\n".encode()))


class Metrics:
    """An exposition, read strictly: each family has HELP and TYPE before its samples, and stands in one piece."""

    def __init__(self, text):
        self.text, self.kinds, self.helps, self.samples = text, {}, {}, {}
        family = None
        assert text.endswith("\n")
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family, help_ = line[7:].split(" ", 1)
                assert family not in self.helps and help_, line
                self.helps[family] = help_
            elif line.startswith("# TYPE "):
                name, self.kinds[family] = line[7:].split(" ", 1)
                assert name == family, line
            else:
                self._take(family, line)

    def _take(self, family, line):
        found = SAMPLE.match(line)
        assert found, line
        name, labels, value = found.groups()
        part = self.kinds[family] == "histogram" and re.fullmatch(family + "_(bucket|sum|count)", name)
        assert name == family or part, line
        pairs = LABEL.findall(labels or "")
        assert len("".join(f'{key}="{text}",' for key, text in pairs)) == len(labels or "") + bool(pairs), line
        key = (name, tuple(sorted(pairs)))
        assert key not in self.samples, line
        self.samples[key] = float(value)

    def value(self, name, **labels):
        return self.samples[name, tuple(sorted(labels.items()))]

    def sum(self, name):
        return sum(value for (of, _), value in self.samples.items() if of == name)

    def labels(self, name):
        """The label sets of a metric, as dictionaries."""
        return [dict(pairs) for of, pairs in self.samples if of == name]

    def growing(self):
        """All samples that must never decrease."""
        return {key: value for key, value in self.samples.items()
                if any(key[0] in (name, *(name + end for end in ("_bucket", "_count", "_sum")))
                       for name, kind in self.kinds.items() if kind in ("counter", "histogram"))}


def metrics(address):
    answer = ask(address)
    assert answer.status == 200, answer.text()
    return Metrics(answer.text())


def promtool(*words, text=None):
    return subprocess.run(["promtool", *map(str, words)], input=text, capture_output=True, text=True, timeout=DEADLINE_S)
