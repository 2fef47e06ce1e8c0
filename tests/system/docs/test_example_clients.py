"""What the programs in docs/examples have in common: netstrings cut anywhere, and connections that come back. Here a
server of the test's own stands for evapid, so that it can say what evapid never would."""

import random
import re
import signal
import socket
import subprocess
import sys

import pytest

from client import netstring
from examples import EXAMPLES, Program
from process import DEADLINE_S, until

pytestmark = pytest.mark.once

# ---- netstrings

# Each reads lines of pieces in hexadecimal, one line for one stream, and prints the payloads that came out; and !
# where the stream was refused.
NODE = """
import { createInterface } from 'node:readline';
import { Decoder, FrameError, encode } from './netstring.mjs';
for await (const line of createInterface({ input: process.stdin })) {
  const decoder = new Decoder(1000);
  const out = [];
  try {
    for (const piece of line.split(' '))
      for (const payload of decoder.push(Buffer.from(piece, 'hex'))) out.push(encode(payload).toString('hex'));
  } catch (error) {
    if (!(error instanceof FrameError)) throw error;
    out.push('!');
  }
  console.log(out.join(' '));
}
"""
PYTHON = """
import sys
from netstring import Decoder, FrameError, encode
for line in sys.stdin:
    decoder, out = Decoder(1000), []
    try:
        for piece in line.split():
            for payload in decoder.push(bytes.fromhex(piece)):
                out.append(encode(payload).hex())
    except FrameError:
        out.append("!")
    print(*out)
"""
LUA = """
local netstring = require("netstring")
for line in io.lines() do
    local decoder, out, wrong = netstring.decoder(1000), {}, nil
    for piece in line:gmatch("%x+") do
        local bytes = piece:gsub("..", function(hex) return string.char(tonumber(hex, 16)) end)
        local payloads, reason = decoder:push(bytes)
        for _, payload in ipairs(payloads) do
            local hex = netstring.encode(payload):gsub(".", function(byte) return string.format("%02x", byte:byte()) end)
            table.insert(out, hex)
        end
        wrong = wrong or reason
        if wrong then break end
    end
    if wrong then table.insert(out, "!") end
    print(table.concat(out, " "))
end
"""
DECODERS = {"routing-node": ["node", "--input-type=module", "-e", NODE],
            "calllog-python": [sys.executable, "-B", "-c", PYTHON],
            "billing-lua": ["lua5.1", "-e", LUA]}


@pytest.fixture(params=DECODERS)
def decoded(request):
    """A function: streams, each a list of pieces, to what came out of each: the payloads, and None if it was refused."""
    def decode(streams):
        lines = "".join(" ".join(piece.hex() for piece in pieces if piece) + "\n" for pieces in streams)
        ran = subprocess.run(DECODERS[request.param], cwd=EXAMPLES / request.param, input=lines, capture_output=True,
                             text=True, timeout=DEADLINE_S)
        assert ran.returncode == 0, ran.stderr
        out = ran.stdout.split("\n")[:-1]
        assert len(out) == len(streams)
        return [[None if word == "!" else bytes.fromhex(word) for word in line.split()] for line in out]
    return decode


PAYLOADS = [b"hello", b"", b"0:,", b"a,b:c", bytes(range(256)), "größe".encode(), b"9" * 1000, b"x", b""]
FRAMES = [netstring(payload) for payload in PAYLOADS]
STREAM = b"".join(FRAMES)


def test_a_stream_may_be_cut_at_every_byte(decoded):
    cuts = range(1, len(STREAM))
    assert decoded([[STREAM[:cut], STREAM[cut:]] for cut in cuts]) == [FRAMES] * len(cuts)


def test_a_stream_may_come_in_any_pieces(decoded):
    streams = [[STREAM], [bytes([byte]) for byte in STREAM]]
    chance = random.Random(5)
    for _ in range(200):
        cuts = sorted(chance.sample(range(1, len(STREAM)), chance.randrange(1, 40)))
        streams.append([STREAM[start:end] for start, end in zip([0, *cuts], [*cuts, len(STREAM)])])
    assert decoded(streams) == [FRAMES] * len(streams)


def test_an_unfinished_frame_gives_nothing_and_is_no_error(decoded):
    streams = [[STREAM[:end]] for end in range(1, len(STREAM))]
    ends = [sum(map(len, FRAMES[:count])) for count in range(len(FRAMES) + 1)]
    assert decoded(streams) == [FRAMES[:sum(1 for each in ends[1:] if each <= len(stream[0]))] for stream in streams]


BAD = [b":", b"x", b" 3:abc,", b"-1:x,", b"+1:x,", b"03:abc,", b"00:,", b"3x:abc,", b"3:abcd", b"0:x", b"1001:",
       b"9999999999999999:", b"99999", b"3 :abc,", b"\0", b"\xff", b"1e2:", b"0x3:abc,"]


def test_what_is_no_netstring_is_refused_behind_what_was_one(decoded):
    for streams in ([[netstring(b"good") + bad] for bad in BAD],
                    [[bytes([byte]) for byte in netstring(b"good") + bad] for bad in BAD]):
        assert decoded(streams) == [[netstring(b"good"), None]] * len(BAD)


def test_a_payload_of_the_limit_is_taken(decoded):
    assert decoded([[netstring(b"x" * 1000)], [netstring(b"x" * 1001)[:10]]]) == [[netstring(b"x" * 1000)], [None]]


# ---- connections


class Server:
    """Where a program connects to, instead of evapid."""

    def __init__(self, ports):
        self.host, self.port = "127.0.0.1", ports.tcp()
        self.listener = socket.create_server((self.host, self.port))
        self.listener.settimeout(DEADLINE_S)
        self.connection = None

    def accept(self):
        """The next connection, in place of the one before."""
        if self.connection is not None:
            self.connection.close()
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(DEADLINE_S)
        return self.connection

    def receive(self, wanted):
        """Wait for just these bytes."""
        got = b""
        while len(got) < len(wanted):
            piece = self.connection.recv(65536)
            assert piece, f"closed behind {got!r}"
            got += piece
        assert got == wanted

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.listener.close()


def node(stage, server):
    routes = stage.folder / "routes.json"
    routes.write_text('{"blocked": [], "gateways": {"4": "192.0.2.1"}}')
    return Program(stage, EXAMPLES / "routing-node/engine.mjs", server.host, server.port, routes)


def python(stage, server):
    return Program(stage, EXAMPLES / "calllog-python/calllog.py", server.host, server.port, f"host={stage.folder}")


def lua(stage, server):
    accounts = stage.folder / "accounts"
    accounts.write_text("alice 1\n")
    ledger = stage.folder / "ledger"
    return Program(stage, EXAMPLES / "billing-lua/billing.lua", server.host, server.port, accounts, ledger)


def bash(stage, server):
    return Program(stage, EXAMPLES / "shell/tail.sh", server.host, server.port, "tag ö",
                   ends_with=(0, -signal.SIGTERM))


# The program, what it says first, an event that it answers or shows, and that.
PROGRAMS = {
    "node": (node, b'{"subscribe":"routing"}', b'{"ask": "route", "call": "1:2", "caller": "a", "callee": "49"}',
             b'{"call":"1:2","to":"sip:49@192.0.2.1"}'),
    "python": (python, b"pending", b'{"key": 1}', "not understood"),
    "lua": (lua, b"billing", b"ask 1 2 alice", b"allow 1 2"),
    "bash": (bash, "tag ö".encode(), "größer, größer".encode(), "^größer, größer$"),
}


@pytest.fixture(params=PROGRAMS)
def talk(request, stage):
    """A program, the server that it talks to, and a function that has it take an event."""
    start, hello, event, sign = PROGRAMS[request.param]
    server = Server(stage.ports)
    program = start(stage, server)

    def takes_an_event(pieces=1):
        count = len(program.lines(sign)) if isinstance(sign, str) else 0
        frame = netstring(event)
        for at in range(0, len(frame), -(-len(frame) // pieces)):
            server.connection.sendall(frame[at:at + -(-len(frame) // pieces)])
        if isinstance(sign, str):
            program.logged(sign, count + 1)
        else:
            server.receive(netstring(sign))
    server.accept()
    server.receive(netstring(hello))
    yield program, server, hello, takes_an_event
    server.close()


def test_a_program_comes_back_and_says_what_it_wants(talk):
    program, server, hello, takes_an_event = talk
    takes_an_event(pieces=100)
    for last in (b"", b"12:half of", b"4194305:", b"3:abcd", netstring(b"\xff\0") + b"05:"):
        server.connection.sendall(last)
        if not last:
            server.connection.shutdown(socket.SHUT_RDWR)
        elif last == b"12:half of":
            server.connection.close()
        server.accept()
        server.receive(netstring(hello))
        takes_an_event()
    assert program.alive()


def test_a_program_waits_longer_each_time_and_never_more_than_ten_seconds(talk):
    program, server, hello, _ = talk
    server.listener.close()
    server.connection.close()
    unit = {"s": 1000, "ms": 1}

    def pauses():
        found = [re.search(r"again in ([\d.]+) (ms|s)$", line) for line in program.lines("^.*no connection")]
        return [float(each[1]) * unit[each[2]] for each in found]
    until(lambda: len(pauses()) >= 5, "five failures")
    for failures, pause in enumerate(pauses()[:5]):
        longest = min(10_000, 100 * 2 ** failures)
        assert longest / 2 - 51 <= pause <= longest + 51, pauses()  # shown with one digit


def test_a_program_that_is_told_to_end_while_it_has_no_connection_ends(talk):
    program, server, _, _ = talk
    server.listener.close()
    server.connection.close()
    program.logged("no connection")
    assert program.terminate() in program.ends_with


# ---- the engine, asked more than it can answer


@pytest.fixture
def asked(stage):
    server = Server(stage.ports)
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    program = node(stage, server)
    server.accept()
    server.receive(netstring(PROGRAMS["node"][1]))
    yield program, server
    server.close()


def question(number, callee):
    return netstring(b'{"ask": "route", "call": "%d:1", "caller": "a", "callee": "%s"}' % (number, callee))


def test_the_engine_reads_no_more_while_its_answers_are_not_taken(asked):
    """Else they would fill its memory."""
    program, server = asked
    questions = b"".join(question(number, b"4" * 10000) for number in range(6400))
    sent = 0
    server.connection.settimeout(3)
    with pytest.raises(TimeoutError):
        while sent < len(questions):
            sent += server.connection.send(questions[sent:sent + 65536])
    assert sent < len(questions)
    assert program.alive() and not program.lines("no connection")


def test_the_engine_leaves_calls_to_others_when_it_has_too_many(asked):
    program, server = asked
    server.connection.sendall(b"".join(question(number, b"49") for number in range(4000)))
    server.connection.setblocking(False)
    received = bytearray()

    def all_dealt_with():
        try:
            received.extend(server.connection.recv(65536))
        except BlockingIOError:
            pass
        return received.count(b"call") + len(program.lines("not decided: 500 others are")) == 4000
    until(all_dealt_with, "each call is answered or left to others")
    assert received.count(b"call") >= 500
    assert program.lines("not decided: 500 others are")
