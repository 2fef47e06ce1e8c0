"""Frames on the wire: netstrings in any fragmentation and size, what is malformed, and raw bytes.

Each client is sent back what it sends, and no other client sees it."""

import random
import re

import pytest

from client import netstring
from stage import Stage

ECHO = """
route[TEST] { evapi_relay("event"); sl_send_reply("200", "OK"); }
event_route[evapi:connection-new] { evapi_set_tag("c$evapi(conidx)"); }
event_route[evapi:message-received] {
    $var(answer) = $evapi(msg);
    if ($var(answer) == "") $var(answer) = "(empty)"; # an empty event is refused
    evapi_unicast("$var(answer)", "c$evapi(conidx)");
}
event_route[evapi:connection-closed] { xlog("L_NOTICE", "CLOSED $evapi(conidx)\\n"); }
"""

LIMIT = 2 << 20  # max_message_bytes


def answers(messages):
    return [message or b"(empty)" for message in messages]


@pytest.fixture(scope="module")
def stage(shared_stage):
    shared_stage.raw = shared_stage.new_address()
    shared_stage.small = shared_stage.new_address()
    shared_stage.start_evapid(limits={"max_message_bytes": LIMIT, "max_queued_bytes": 16 << 20}, listeners=[
        {"address": shared_stage.raw, "framing": "raw"},
        {"address": shared_stage.small, "max_message_bytes": 100}])
    shared_stage.start_kamailio(ECHO, evapi={"queue_size": 8 << 20})
    return shared_stage


pytestmark = pytest.mark.usefixtures("calm")


# ---- what is whole is understood


def test_a_stream_sent_byte_by_byte(stage):
    client = stage.connect()
    messages = [b"", b"a", b"hello", b"5:hello,", b"x" * 12]
    client.send_apart(bytes([byte]) for byte in b"".join(map(netstring, messages)))
    assert client.receive_many(len(messages)) == answers(messages)


def test_a_stream_split_at_every_place(stage):
    client = stage.connect()
    messages = [b"hello", b"", b"0123456789ab"]
    stream = b"".join(map(netstring, messages))
    for at in range(1, len(stream)):
        client.send_apart([stream[:at], stream[at:]])
        assert client.receive_many(3) == answers(messages)


def test_a_stream_in_random_pieces(stage):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    client = stage.connect()
    messages = [chance.randbytes(chance.choice([0, 1, 9, 10, 99, 1000, 5000])) for _ in range(60)]
    stream, parts = b"".join(map(netstring, messages)), []
    while stream:
        size = chance.choice([1, 2, 3, 50, 4000, 20000])
        parts.append(stream[:size])
        stream = stream[size:]
    client.send_apart(parts)
    assert client.receive_many(len(messages)) == answers(messages)


def test_many_frames_in_one_piece(stage):
    client = stage.connect()
    messages = [b"%d" % number for number in range(1000)]
    assert client.exchange(b"".join(map(netstring, messages)), 1000) == messages


def test_white_space_between_frames_is_passed_over(stage):
    client = stage.connect()
    client.send_bytes(b"\r\n 5:hello,\n5:world,\t \r\n\r\n0:,   3: , ,  1:\n,\n")
    assert client.receive_many(5) == [b"hello", b"world", b"(empty)", b" , ", b"\n"]


def test_white_space_split_from_its_frame(stage):
    client = stage.connect()
    client.send_apart([b" ", b"\r\n", b"5", b":hello,", b"\n", b"\n", b"1:x", b","])
    assert client.receive_many(2) == [b"hello", b"x"]


def test_50000_pipelined_messages_are_each_answered_in_order(stage):
    client = stage.connect()
    messages = [b"message %d" % number for number in range(50000)]
    assert client.exchange(b"".join(map(netstring, messages)), 50000) == messages


def test_50000_pipelined_messages_of_five_clients_at_once(stage):
    clients = [stage.connect() for _ in range(5)]
    for client in clients:
        client.send_bytes(b"".join(netstring(b"%d" % number) for number in range(10000)))
    for client in clients:
        assert client.receive_many(10000) == [b"%d" % number for number in range(10000)]


def test_a_message_of_1_mb_both_ways(stage):
    client = stage.connect()
    message = random.Random(1).randbytes(1 << 20)
    assert client.exchange(netstring(message) + netstring(b"after"), 2) == [message, b"after"]


def test_messages_of_1_mb_one_behind_the_other(stage):
    client = stage.connect()
    messages = [random.Random(number).randbytes(1 << 20) for number in range(8)]
    assert client.exchange(b"".join(map(netstring, messages)), 8) == messages


@pytest.mark.parametrize("size", [4095, 4096, 4097, 65534, 65535, 65536, 65537, LIMIT - 1, LIMIT])
def test_a_message_at_the_edges_of_buffers_and_of_the_limit(stage, size):
    client = stage.connect()
    message = b"%d" % size + b"x" * (size - len(str(size)))
    assert client.exchange(netstring(message) + netstring(b"after"), 2) == [message, b"after"]


def test_answers_reach_a_client_that_has_ended_its_own_side(stage):
    client = stage.connect()
    client.send_bytes(b"".join(netstring(b"%d" % number) for number in range(1000)))
    client.half_close()
    assert client.receive_rest() == [b"%d" % number for number in range(1000)]


# ---- what is malformed


def closed_with_a_reason(stage, client, offset, reason):
    """The client is closed, and one line of the log names it, the offset and the reason."""
    rest = client.receive_rest()
    stage.kamailio.logged(rf"CLOSED {client.index}\b")
    lines = stage.evapid.lines(rf"warning client {client.index}: .*\b{client.port}\b")
    assert len(lines) == 1, stage.evapid.tail()
    assert f"byte {offset} " in lines[0] and reason in lines[0], lines[0]
    return rest


@pytest.mark.parametrize("bytes_, offset, reason, beginning", [
    (b"a line of text\n", 0, "a length in decimal digits", r"a line of text\x0a"),
    (b"5hello,", 1, "a length in decimal digits", "5hello,"),
    (b"+5:hello,", 0, "a length in decimal digits", "+5:hello,"),
    (b"{\"event\": \"x\"}", 0, "a length in decimal digits", '{"event": "x"}'),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0, "a length in decimal digits", r"GET / HTTP/1.1\x0d\x0a"),
    (b"\x16\x03\x01\0\xff", 0, "a length in decimal digits", r"\x16\x03\x01\x00\xff"),
    (b"\0\n \x01", 3, "a length in decimal digits", r"\x01"),
    (b"0" * 21 + b"5:hello,", 20, "over 20 digits", "0" * 16),
    (b"3:abcd", 5, "no comma", "3:abcd"),
    (b"99999999999:", 0, "over the limit", "99999999999:"),
], ids=["a line of text", "no colon", "a sign", "JSON", "HTTP", "TLS", "control characters", "many zeros", "no comma",
        "a large number"])
class TestMalformed:
    """evapid writes ten such lines in ten seconds and then only counts them: so these, not more than ten, have an evapid of their own."""

    @pytest.fixture(scope="class")
    def stage(self):
        with Stage() as own:
            own.start_evapid(limits={"max_message_bytes": LIMIT})
            own.start_kamailio(ECHO)
            yield own

    def test_that_client_alone_is_closed_and_the_log_says_where_why_and_what_came(self, stage, bytes_, offset, reason,
                                                                                 beginning):
        client, other = stage.connect(), stage.connect()
        good = netstring(b"good") * 3
        client.send_bytes(good + bytes_)
        assert closed_with_a_reason(stage, client, len(good) + offset, reason) == [b"good"] * 3
        assert len(stage.evapid.lines(re.escape(f'it began with "{beginning}"; closing it'))) == 1, stage.evapid.tail()
        other.send(b"still here")
        assert other.receive() == b"still here"


@pytest.mark.parametrize("parts, offset, reason", [
    ([b"5:hello,", b"5:hell", b"ox"], 15, "no comma"), ([b"5:hello,\n\n1", b"x"], 11, "a length in decimal digits")])
def test_the_offset_counts_the_whole_stream_of_the_connection(stage, parts, offset, reason):
    client = stage.connect()
    client.send_apart(parts[:-1])
    client.send_bytes(parts[-1])
    assert closed_with_a_reason(stage, client, offset, reason) == [b"hello"]


@pytest.mark.parametrize("over", [1, 1000])
def test_a_length_over_the_limit_closes_before_any_of_it_is_kept(stage, over):
    client, other = stage.connect(), stage.connect()
    client.send_bytes(b"%d:" % (LIMIT + over))
    closed_with_a_reason(stage, client, 0, "over the limit")
    other.send(b"still here")
    assert other.receive() == b"still here"


def test_a_listener_may_have_its_own_limit(stage):
    client = stage.connect(stage.small)
    client.send(b"x" * 100)
    assert client.receive() == b"x" * 100
    client.send(b"x" * 101)
    closed_with_a_reason(stage, client, 105, "over the limit")


def test_a_stream_that_ends_in_a_frame_closes_and_nothing_of_it_is_run(stage):
    client, other = stage.connect(), stage.connect()
    client.send_bytes(netstring(b"whole") + b"10:half")
    client.half_close()
    assert client.receive_rest() == [b"whole"]
    stage.kamailio.logged(rf"CLOSED {client.index}\b")
    other.send(b"still here")
    assert other.receive() == b"still here"


# ---- raw


def test_raw_bytes_come_as_they_were_sent_and_go_bare(stage):
    client = stage.connect(stage.raw)
    sent = bytes(range(256)) * 4
    client.send_bytes(sent)
    assert client.receive_bytes(len(sent)) == sent
    stage.phone().ask("MESSAGE")
    assert client.receive_bytes(5) == b"event"


def test_each_raw_read_is_a_message(stage):
    client = stage.connect(stage.raw)
    before = stage.evapid.client(client)["in"]["frames"]
    client.send_apart([b"one", b"5:two,,", b"\0\xff"])
    assert client.receive_bytes(12) == b"one5:two,,\0\xff"
    assert stage.evapid.client(client)["in"]["frames"] == before + 3


def test_a_raw_stream_of_some_megabytes_loses_nothing(stage):
    client = stage.connect(stage.raw)
    sent = random.Random(2).randbytes(3 << 20)
    half = len(sent) // 2
    for part in (sent[:half], sent[half:]):
        client.send_bytes(part)
        assert client.receive_bytes(len(part)) == part


def test_netstring_and_raw_clients_get_the_same_event(stage):
    net, raw = stage.connect(), stage.connect(stage.raw)
    stage.phone().ask("MESSAGE")
    assert net.receive_bytes(8) == b"5:event,"
    assert raw.receive_bytes(5) == b"event"
