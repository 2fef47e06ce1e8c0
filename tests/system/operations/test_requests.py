"""The requests of the control socket, as docs/protocol.md has them: with a real Kamailio, and real clients."""

import base64
import json
import os
import time

import pytest

from client import netstring
from control import ROUTES, Control, stage, tagged  # noqa: F401: a fixture
from process import until
from stage import Stage

pytestmark = pytest.mark.usefixtures("calm")


@pytest.fixture
def control(stage):
    with Control(stage.evapid.control_socket) as own:
        yield own


def error_of(answer):
    assert set(answer) == {"error", "detail"}, answer
    return answer["error"]


# ---- requests


@pytest.mark.parametrize("line, error, detail", [
    (b"nonsense", "not JSON", "nonsense"), (b"[]", "no command", "expected"), (b"{}", "no command", "expected"),
    (b'{"command": 5}', "no command", "expected"), (b'{"command": "staus"}', "unknown command", "staus"),
    (b'{"command": "status\\u0000"}', "unknown command", "status"),
    (b'{"command": "status", "command": "status"}', "not JSON", "duplicate"),
    (b'{"command":"a\\u000\xd0\x9d\xdd\x8a', "not JSON", "?"), (b'{"command": "%s"}' % ("\u00e4" * 1100).encode(), "unknown command", "?"),
    (b'{"command": "status", "tag": "x"}', "bad request", "tag"),
    (b'{"command": "clients", "limit": -2}', "bad request", "limit"),
    (b'{"command": "clients", "idle_s": -1}', "bad request", "idle_s"),
    (b'{"command": "clients", "idle_s": 1.5}', "bad request", "integer"),
    (b'{"command": "clients", "limit": "2"}', "bad request", "integer"),
    (b'{"command": "clients", "sort": "size"}', "bad request", "sort"),
    (b'{"command": "clients", "state": "shut"}', "bad request", "state"),
    (b'{"command": "clients", "address": "localhost"}', "bad request", "address"),
    (b'{"command": "client"}', "bad request", "client"), (b'{"command": "client", "client": 0}', "no such client", "0"),
    (b'{"command": "client", "client": 4294967297}', "no such client", "4294967297"),
    (b'{"command": "tag", "client": 1}', "bad request", "tag"),
    (b'{"command": "tag", "client": 999999, "tag": "x"}', "no such client", "999999"),
    (b'{"command": "tag", "client": 1, "tag": "%s"}' % (b"x" * 65), "bad request", "64 bytes"),
    (b'{"command": "close", "client": 999999}', "no such client", "999999"),
    (b'{"command": "log", "level": "loud"}', "bad request", "level"),
    (b'{"command": "relay"}', "bad request", "event or stream"),
    (b'{"command": "relay", "event": "x", "stream": true}', "bad request", "event or stream"),
    (b'{"command": "relay", "event": "x", "tag": "y"}', "bad request", "tag"),
    (b'{"command": "multicast", "event": "x"}', "bad request", "tag"),
    (b'{"command": "unicast", "event": "x", "tag": "%s"}' % (b"x" * 65), "bad request", "64 bytes"),
    (b'{"command": "send", "event": "x"}', "bad request", "client"),
    (b'{"command": "send", "client": 1, "tag": "x", "event": "x"}', "bad request", "tag"),
    (b'{"command": "send", "client": 999999, "event": "x"}', "no such client", "999999"),
    (b'{"command": "send", "client": 0, "stream": true}', "no such client", "0"),
    (b'{"command": "send", "client": 4294967297, "event": "x"}', "no such client", "4294967297"),
    (b'{"command": "tail", "direction": "up"}', "bad request", "direction")], ids=lambda value: repr(value)[:60])
def test_what_is_wrong_with_a_request_is_said_and_the_connection_goes_on(control, line, error, detail):
    control.send(line + b"\n")
    answer = control.line()
    assert error_of(answer) == error and detail in answer["detail"]
    assert control.ask(command="log") == {"log": {"level": "info"}}


def test_a_request_that_is_too_long_ends_the_connection(control):
    control.send(b'{"command": "log", "level": "'.ljust(4096, b"x"))
    assert error_of(control.line()) == "too long"
    assert control.line() is None


def test_requests_sent_together_are_answered_one_after_another(control):
    names = ["log", "stats", "nonsense", "tags", "kamailio", "log"]
    control.send(b"".join(json.dumps({"command": name}).encode() + b"\n" for name in names))
    keys = [next(iter(control.line())) for _ in names]
    assert keys == ["log", "version", "error", "tags", "kamailio", "log"]


def test_parts_of_the_status_are_what_the_status_has(stage, control):
    tagged(stage, b"blue")
    status = control.ask(command="status")
    assert control.ask(command="kamailio") == {"kamailio": status["kamailio"]}
    assert control.ask(command="listeners") == {"listeners": status["listeners"]}
    assert control.ask(command="clients") == {"clients": status["clients"], "matching": 1, "total": 1}
    assert control.ask(command="client", client=status["clients"][0]["index"]) == {"client": status["clients"][0]}
    assert control.ask(command="stats")["totals"] == status["totals"]


def test_clients_are_chosen_sorted_and_cut(stage, control):
    red, blue, bare, other = (tagged(stage, b"red"), tagged(stage, b"blue"), stage.connect(),
                              tagged(stage, b"blue", source="127.0.0.2"))

    def chosen(**filters):
        answer = control.ask(command="clients", **filters)
        assert answer["total"] == 4
        return [entry["index"] for entry in answer["clients"]], answer["matching"]
    assert chosen() == ([red.index, blue.index, bare.index, other.index], 4)
    assert chosen(limit=2) == ([red.index, blue.index], 4)
    assert chosen(limit=0) == ([], 4)
    assert chosen(tag="blue") == ([blue.index, other.index], 2)
    assert chosen(tag="") == ([bare.index], 1)
    assert chosen(tag="blu") == ([], 0)
    assert chosen(address="127.0.0.2") == ([other.index], 1)
    assert chosen(address="127.0.0.0/8", tag="red") == ([red.index], 1)
    assert chosen(address="::1") == ([], 0)
    assert chosen(state="open") == ([red.index, blue.index, bare.index, other.index], 4)
    assert chosen(state="flushing", slow=False) == ([], 0)
    assert chosen(slow=True) == ([], 0)
    assert chosen(sort="tag") == ([blue.index, other.index, red.index, bare.index], 4)
    assert chosen(sort="address", limit=3) == ([red.index, blue.index, bare.index], 4)
    assert chosen(sort="messages") == ([red.index, blue.index, other.index, bare.index], 4)
    assert chosen(sort="received") == ([blue.index, other.index, red.index, bare.index], 4)
    control.ask(command="multicast", tag="red", event="x")
    stage.evapid.until_status(lambda s: s["totals"]["out"]["queued_frames"] == 0, "it has been sent")
    assert chosen(sort="sent", limit=1) == chosen(sort="delivered", limit=1) == ([red.index], 4)


def test_those_for_whom_most_waits_come_first(stage, control):
    quick, stalled = stage.connect(), tagged(stage, b"blue", receive_buffer=4096)
    for _ in range(60):
        control.ask(command="multicast", tag="blue", event="x" * 3000)
    with Control(stage.evapid.control_socket) as stream:
        stream.ask(command="multicast", tag="blue", stream=True)
        stream.send(netstring(b"y" * 100000) * 60)
        stream.end()
        assert stream.rest()[-1]["end"]
    answer = control.ask(command="clients", sort="queued")
    assert [entry["index"] for entry in answer["clients"]] == [stalled.index, quick.index]
    assert answer["clients"][0]["out"]["queued_bytes"] > 0


def test_tags_are_listed_by_use(stage, control):
    tagged(stage, b"red"), tagged(stage, b"blue"), tagged(stage, b"blue")
    assert control.ask(command="tags") == {"tags": [{"tag": "blue", "clients": 2, "receivers": 2, "kept": None},
                                                    {"tag": "red", "clients": 1, "receivers": 1, "kept": None}], "total": 2}
    assert control.ask(command="tags", limit=1)["tags"] == [{"tag": "blue", "clients": 2, "receivers": 2, "kept": None}]


# ---- changing


def test_a_client_gets_a_tag_and_loses_it(stage, control):
    client = stage.connect()
    assert control.ask(command="tag", client=client.index, tag="gr\u00fcn") == {
        "tagged": {"client": client.index, "tag": "gr\u00fcn"}}
    assert control.ask(command="unicast", tag="gr\u00fcn", event="to you")["published"]["received"] == 1
    assert client.receive() == b"to you"
    assert control.ask(command="tag", client=client.index, tag="") == {"tagged": {"client": client.index, "tag": None}}
    assert control.ask(command="unicast", tag="gr\u00fcn", event="to nobody")["published"]["received"] == 0
    assert stage.evapid.client(client)["tag"] is None
    stage.evapid.logged(f"control: the tag of client {client.index} has been set")


def test_kamailio_can_address_a_tag_that_was_given_here(stage, control):
    client = stage.connect()
    control.ask(command="tag", client=client.index, tag="blue")
    stage.phone().ask("INFO", body=b"from a route")
    assert client.receive() == b"from a route"


def test_a_closed_client_gets_what_waits_for_it_and_its_route_runs(stage, control):
    client = stage.connect()
    control.ask(command="relay", event="the last")
    assert control.ask(command="close", client=client.index) == {"closed": {"client": client.index}}
    assert client.receive_rest() == [b"the last"]
    stage.kamailio.logged(rf"closed {client.index}\b")
    stage.evapid.until_status(lambda s: not s["clients"], "it has gone")
    assert error_of(control.ask(command="close", client=client.index)) == "no such client"


def test_counts_begin_anew_and_the_totals_go_on(stage, control):
    client = stage.connect()
    control.ask(command="stats", reset=True)
    for _ in range(3):
        control.ask(command="relay", event="x")
    client.send(b"blue")
    stage.evapid.until_status(lambda s: s["clients"][0]["tag"] == "blue", "the message has been worked on")
    client.receive_many(3)
    stats = control.ask(command="stats", reset=True)
    since = stats["since_reset"]
    assert stats["reset"] and since["since"] is not None
    assert (since["events"]["relay"], since["out"]["relayed"], since["out"]["delivered"]) == (3, 3, 3)
    assert (since["in"]["frames"], since["in"]["bytes"], since["clients"]["accepted"]) == (1, 4, 0)
    assert "waiting" not in since["in"] and "queued_frames" not in since["out"]
    again = control.ask(command="stats")
    assert not again["reset"] and again["since_reset"]["events"]["relay"] == 0
    assert again["totals"]["events"]["relay"] == stats["totals"]["events"]["relay"] >= 3


# ---- publishing


def books(stage):
    totals = stage.evapid.until_status(lambda s: s["totals"]["out"]["queued_frames"] == 0, "all is sent")["totals"]
    out = totals["out"]
    assert out["relayed"] == out["delivered"] + sum(out["dropped"].values())
    return totals


def test_events_reach_those_they_are_for_and_are_in_the_books(stage, control):
    red, blue, also = tagged(stage, b"red"), tagged(stage, b"blue"), tagged(stage, b"blue")
    before = books(stage)
    assert control.ask(command="relay", event="all") == {"published": {"events": 1, "bytes": 3, "received": 1, "receivers": 3}}
    assert control.ask(command="multicast", tag="blue", event="both") == {"published": {"events": 1, "bytes": 4, "received": 1, "receivers": 2}}
    assert control.ask(command="unicast", tag="blue", event="a\u0000b")["published"]["received"] == 1
    assert control.ask(command="unicast", tag="green", event="x")["published"]["received"] == 0
    assert control.ask(command="send", client=red.index, event="you") == {"published": {"events": 1, "bytes": 3, "received": 1, "receivers": 1}}
    assert red.receive_many(2) == [b"all", b"you"]
    assert blue.receive_many(3) == [b"all", b"both", b"a\0b"] and also.receive_many(2) == [b"all", b"both"]
    after = books(stage)
    counted = {kind: after["events"][kind] - before["events"][kind] for kind in after["events"]}
    assert counted == {"relay": 1, "multicast": 1, "unicast": 2, "send": 1, "no_receiver": 1}
    assert after["out"]["delivered"] - before["out"]["delivered"] == 7


def test_a_stream_for_a_client_that_goes_ends_well_and_the_rest_has_no_receiver(stage, control):
    client, other = stage.connect(), stage.connect()
    assert control.ask(command="send", client=client.index, stream=True)["published"]["received"] == 0
    control.send(netstring(b"first"))
    assert client.receive() == b"first"
    client.close()
    stage.evapid.clients(1)
    control.send(netstring(b"second"))
    control.end()
    while "end" not in (answer := control.line()):
        pass
    assert answer == {"published": {"events": 2, "bytes": 11, "received": 1, "receivers": 1}, "end": True}
    assert not other.receive_ready()
    assert error_of(stage.evapid.ask(command="send", client=client.index, event="third")) == "no such client"


def test_a_send_is_shown_with_the_client_that_it_is_for(stage, control):
    client = stage.connect()
    assert control.ask(command="tail") == {"tail": True}
    assert stage.evapid.ask(command="send", client=client.index, event="you")["published"]["received"] == 1
    assert {**control.line(), "time": ""} == {"time": "", "direction": "out", "kind": "send", "tag": None, "client": client.index,
                                             "receivers": 1, "bytes": 3, "cut": False, "payload": "you"}


def test_a_stream_of_events_may_hold_any_bytes_and_arrives_in_order(stage, control):
    client = stage.connect()
    events = [bytes([i % 256]) * (i % 700) for i in range(3000)] + [os.urandom(1 << 20)]
    assert control.ask(command="relay", stream=True) == {"published": {"events": 0, "bytes": 0, "received": 0, "receivers": 0}}
    control.send(b"\n".join(map(netstring, events[:100])) + b"".join(map(netstring, events[100:])))
    control.end()
    assert client.receive_many(len(events)) == events
    answers = control.rest()
    assert answers[-1] == {"published": {"events": 3001, "bytes": sum(map(len, events)), "received": 3001, "receivers": 3001}, "end": True}
    counts = [answer["published"]["events"] for answer in answers]
    assert counts == sorted(counts) and not any("end" in answer for answer in answers[:-1])


def test_a_stream_that_begins_with_its_request_is_taken_whole(stage, control):
    client = stage.connect()
    control.send(b'{"command": "relay", "stream": true}\n3:one,3:t')
    assert client.receive() == b"one"
    control.send(b"wo,")
    assert client.receive() == b"two"
    control.end()
    assert control.rest()[-1]["published"]["events"] == 2


@pytest.mark.parametrize("bytes_, detail", [
    (b"1:a,x", "a length"), (b"1:a,1:bb", "no comma"), (b"1:a," + b"0" * 20 + b"1:b,", "over 20 digits"),
    (b"1:a,1048577:", "over the limit"), (b"1:a,5:b", "in the middle")])
def test_a_stream_that_makes_no_sense_says_how_far_it_came(stage, control, bytes_, detail):
    client = stage.connect()
    control.ask(command="relay", stream=True)
    control.send(bytes_)
    control.end()
    assert client.receive() == b"a"
    answer = control.rest()[-1]
    assert answer["error"] == "bad stream" and detail in answer["detail"]
    assert answer["published"] == {"events": 1, "bytes": 1, "received": 1, "receivers": 1}
    assert not client.receive_ready()


def test_what_kamailio_issued_before_goes_before(stage, control):
    """Both wait for evapid when it goes on, the route's event first."""
    client = stage.connect()
    phone = stage.phone()
    for number in range(10):
        stage.evapid.stopped()
        try:
            phone.ask("MESSAGE", body=b"route %d" % number)
            control.send(b'{"command": "relay", "event": "control %d"}\n' % number)
        finally:
            stage.evapid.goes_on()
        control.line()
    expected = [event for number in range(10) for event in (b"route %d" % number, b"control %d" % number)]
    assert client.receive_many(20) == expected


def test_all_that_kamailio_issued_before_goes_before_though_it_is_more_than_a_turn_takes(stage, control):
    client = stage.connect()
    phone = stage.phone()
    stage.evapid.stopped()
    try:
        phone.ask("MESSAGE", "many")
        control.send(b'{"command": "relay", "event": "last"}\n')
    finally:
        stage.evapid.goes_on()
    assert control.line()["published"]["received"] == 1
    assert client.receive_many(3001) == [b"%d" % number for number in range(3000)] + [b"last"]


def test_at_most_eight_publish_at_a_time_and_the_others_are_told(stage):
    publishers = [Control(stage.evapid.control_socket) for _ in range(9)]
    answers = [publisher.ask(command="relay", stream=True) for publisher in publishers]
    assert all("published" in answer for answer in answers[:8]) and error_of(answers[8]) == "too many"
    for publisher in publishers[:8]:
        publisher.end()
        assert publisher.rest()[-1]["end"]
    assert "published" in publishers[8].ask(command="relay", stream=True)
    for publisher in publishers:
        publisher.close()


# ---- looking on


def test_what_passes_is_shown(stage, control):
    client = tagged(stage, b"blue")
    assert control.ask(command="tail") == {"tail": True}
    stage.phone().ask("MESSAGE", body=b"to all")
    shown = control.line()
    assert shown.pop("time").endswith("Z")
    assert shown == {"direction": "out", "kind": "relay", "tag": None, "receivers": 1, "bytes": 6, "cut": False, "payload": "to all"}
    stage.phone().ask("INFO", body=b"to blue")
    assert {**control.line(), "time": ""} == {"time": "", "direction": "out", "kind": "multicast", "tag": "blue", "receivers": 1,
                                             "bytes": 7, "cut": False, "payload": "to blue"}
    client.send(b"\xff\0" * 100)
    assert {**control.line(), "time": ""} == {
        "time": "", "direction": "in", "kind": "message", "client": client.index, "tag": "blue", "bytes": 200, "cut": False,
        "base64": base64.b64encode(b"\xff\0" * 100).decode()}
    with Control(stage.evapid.control_socket) as other:
        other.ask(command="unicast", tag="green", event="")
    assert {**control.line(), "time": ""} == {"time": "", "direction": "out", "kind": "unicast", "tag": "green", "receivers": 0,
                                             "bytes": 0, "cut": False, "payload": ""}


@pytest.mark.parametrize("length", range(4))
def test_bytes_are_shown_in_base64(stage, control, length):
    stage.connect().send(b"")
    control.ask(command="tail", direction="in")
    client = stage.connect()
    client.send(b"\xff" + b"x" * (20 + length))
    assert base64.b64decode(control.line()["base64"], validate=True) == b"\xff" + b"x" * (20 + length)


@pytest.mark.parametrize("filters, seen", [
    ({"direction": "out"}, ["all", "blue", "red"]), ({"direction": "in"}, ["in blue----------------", "in red-----------------"]),
    ({"tag": "blue"}, ["blue", "in blue----------------"]), ({"tag": "blue", "direction": "out"}, ["blue"])],
    ids=["out", "in", "tag", "both"])
def test_only_what_was_asked_for_is_shown(stage, control, filters, seen):
    blue, red = tagged(stage, b"blue"), tagged(stage, b"red")
    control.ask(command="tail", **filters)
    with Control(stage.evapid.control_socket) as other:
        other.ask(command="relay", event="all")
        for client, tag in ((blue, "blue"), (red, "red")):
            other.ask(command="multicast", tag=tag, event=tag)
        for client, tag in ((blue, "blue"), (red, "red")):
            before = stage.evapid.status()["totals"]["in"]["delivered"]
            client.send(b"in " + tag.encode().ljust(20, b"-"))
            stage.evapid.until_status(lambda s: s["totals"]["in"]["delivered"] > before, "it has been worked on")
    shown = [control.line()["payload"] for _ in seen]
    assert [text.rstrip() for text in sorted(shown)] == sorted(seen)


def test_a_long_payload_is_cut_between_characters(stage, control):
    control.ask(command="tail")
    with Control(stage.evapid.control_socket) as other:
        other.ask(command="relay", stream=True)
        for text in ("x" * begin + "\u20ac" * 30000 for begin in range(3)):
            other.send(netstring(text.encode()))
            shown = control.line()
            assert shown["cut"] and shown["bytes"] == len(text.encode())
            assert shown["payload"] == text.encode()[:65536].decode(errors="ignore")
        other.send(netstring(b"\xff" * 70000))
        raw = control.line()
    assert raw["cut"] and raw["bytes"] == 70000 and base64.b64decode(raw["base64"]) == b"\xff" * 65536


def test_a_tailer_that_does_not_read_costs_nobody_anything(stage):
    client = stage.connect()
    with Control(stage.evapid.control_socket, receive_buffer=4096) as stalled, Control(stage.evapid.control_socket) as publisher:
        assert stalled.ask(command="tail", direction="out") == {"tail": True}
        before = stage.evapid.own_bytes()
        publisher.ask(command="relay", stream=True)
        count, size = 100, 200000
        for number in range(count):
            publisher.send(netstring(b"%d " % number + b"x" * size))
            assert client.receive().startswith(b"%d " % number)
        assert stage.evapid.own_bytes() - before < 8 << 20
        shown, dropped = 0, 0
        while shown + dropped < count:
            line = stalled.line()
            dropped += line.get("dropped", 0)
            shown += "payload" in line
        assert dropped > count / 2 and shown + dropped == count
        publisher.send(netstring(b"again"))
        assert stalled.line()["payload"] == "again"


def test_at_most_eight_look_on_and_who_has_gone_leaves_room(stage, control):
    tails = [Control(stage.evapid.control_socket) for _ in range(8)]
    assert all(tail.ask(command="tail") == {"tail": True} for tail in tails)
    assert error_of(control.ask(command="tail")) == "too many"
    tails[0].close()
    until(lambda: control.ask(command="tail").get("tail"), "there is room for another")
    with Control(stage.evapid.control_socket) as other:
        other.ask(command="relay", event="x")
    assert all(tail.line()["payload"] == "x" for tail in [*tails[1:], control])
    for tail in tails[1:]:
        tail.close()


# ---- with an evapid of its own


class TestAlone:
    @pytest.fixture
    def stage(self):
        with Stage() as own:
            yield own

    def test_the_level_of_the_log_is_shown_and_set(self, stage):
        stage.start_evapid(log={"level": "warning"})
        stage.start_kamailio(ROUTES)
        with Control(stage.evapid.control_socket) as control:
            assert control.ask(command="log") == {"log": {"level": "warning"}}
            stage.connect()
            assert not stage.evapid.lines(" connected to ")
            assert control.ask(command="log", level="info") == {"log": {"level": "info"}}
            stage.evapid.logged("control: the log level is info now")
            stage.evapid.logged(f"client {stage.connect().index}: .* connected to ")
            assert control.ask(command="log", level="error") == {"log": {"level": "error"}} == control.ask(command="log")
            stage.connect()
            assert len(stage.evapid.lines(" connected to ")) == 1

    def test_a_client_that_never_reads_holds_a_publisher_up_for_a_moment_only(self, stage):
        stage.start_evapid(limits={"max_queued_bytes": 1 << 20})
        stage.start_kamailio(ROUTES)
        reads, never = stage.connect(), stage.connect(receive_buffer=4096)
        with Control(stage.evapid.control_socket) as publisher:
            publisher.ask(command="relay", stream=True)
            event = netstring(b"x" * 50000)
            for _ in range(200):
                publisher.send(event)
                reads.receive()
            publisher.end()
            assert publisher.rest()[-1]["published"]["events"] == 200
        assert [e["index"] for e in stage.evapid.status()["clients"] if e["state"] == "open"] == [reads.index]
        assert stage.evapid.lines(rf"client {never.index}: .* does not keep up")

    def test_a_publisher_waits_for_a_client_that_reads_slowly(self, stage):
        """Thirty times what fits into its queue, offered faster than it reads, and it loses nothing."""
        stage.start_evapid(limits={"max_queued_bytes": 1 << 20})
        stage.start_kamailio(ROUTES)
        client, control = stage.connect(receive_buffer=65536), Control(stage.evapid.control_socket)
        event = netstring(b"x" * 8000)
        count = (30 << 20) // len(event)
        control.ask(command="relay", stream=True)
        control.socket.setblocking(False)
        client.socket.setblocking(False)
        left, received = memoryview(event * count), 0
        lags, seen = False, time.monotonic()
        while received < count * len(event):
            now = time.monotonic()
            lags, seen = lags or now - seen > 0.3, now  # we were not run: evapid waits a second only for who doesn't read
            try:
                left = left[control.socket.send(left[:1 << 20]):] if left and not lags else left
            except BlockingIOError:
                pass
            try:
                more = client.socket.recv(8192)
                assert more, "it has been disconnected"
                received += len(more)
            except BlockingIOError:
                lags = False
                time.sleep(0.0001)
        control.socket.settimeout(30)
        control.end()
        assert control.rest()[-1]["published"]["received"] == count
        assert stage.evapid.client(client)["dropped"]["slow"] == 0
        control.close()

    def test_who_publishes_without_end_does_not_keep_evapid_from_its_own(self, stage):
        stage.start_evapid(shutdown_grace_ms=60000)
        stage.start_kamailio(ROUTES)
        client = stage.connect(receive_buffer=4096)
        with Control(stage.evapid.control_socket) as stream, Control(stage.evapid.control_socket) as other:
            stream.ask(command="relay", stream=True)
            stream.send(netstring(b"x" * 100000) * 60)
            stage.evapid.until_status(lambda s: s["clients"][0]["out"]["queued_frames"] > 0, "events wait for the client")
            stage.evapid.signal(15)
            stage.evapid.logged("stopping: SIGTERM")
            while "error" not in (last := stream.line()):
                pass
            assert (last["error"], last["detail"]) == ("stopping", "evapid is ending")
            assert error_of(other.ask(command="relay", event="x")) == error_of(other.ask(command="relay", stream=True)) == "stopping"
            assert client.receive_rest() == [b"x" * 100000] * last["published"]["events"]
        assert stage.evapid.ended() == 0

    def test_nobody_s_memory_grows_for_a_publisher_who_is_not_waited_for(self, stage):
        """Eight publish as fast as they can to clients that do not read, by a policy that keeps them connected."""
        stage.start_evapid(limits={"max_queued_bytes": 1 << 20, "max_total_queued_bytes": 4 << 20, "slow_policy": "drop-oldest"})
        stage.start_kamailio(ROUTES)
        for _ in range(4):
            stage.connect(receive_buffer=4096)
        before = stage.evapid.own_bytes()
        with Control(stage.evapid.control_socket) as publisher:
            publisher.ask(command="relay", stream=True)
            for _ in range(300):
                publisher.send(netstring(b"x" * 200000))
            publisher.end()
            assert publisher.rest()[-1]["published"]["events"] == 300
        assert stage.evapid.own_bytes() - before < 16 << 20
        out = stage.evapid.status()["totals"]["out"]
        assert out["relayed"] == 1200 == out["delivered"] + out["queued_frames"] + sum(out["dropped"].values())

    def test_counts_since_a_reset_go_on_in_a_successor(self, stage):
        stage.start_evapid()
        stage.start_kamailio(ROUTES)
        stage.connect()
        with Control(stage.evapid.control_socket) as control:
            control.ask(command="relay", event="before")
            control.ask(command="stats", reset=True)
            control.ask(command="relay", event="behind")
            since = control.ask(command="stats")["since_reset"]["since"]
        stage.replace_evapid()
        with Control(stage.evapid.control_socket) as control:
            control.ask(command="relay", event="later")
            stats = control.ask(command="stats")
        assert stats["since_reset"]["since"] == since
        assert (stats["totals"]["events"]["relay"], stats["since_reset"]["events"]["relay"]) == (3, 2)

    @pytest.mark.parametrize("stream", [True, False], ids=["stream", "one by one"])
    @pytest.mark.parametrize("kamailio", [True, False], ids=["with Kamailio", "before any Kamailio"])
    def test_what_was_published_is_in_the_books_after_a_kill(self, stage, kamailio, stream):
        """Nothing is asked before the kill: any request brings the books up to date."""
        stage.start_supervised(listeners=[{"address": stage.address}])
        if kamailio:
            stage.start_kamailio(ROUTES, evapi={"bind_addr": ""})
            client = stage.connect()
        with Control(stage.evapid.control_socket) as control:
            if stream:
                control.ask(command="relay", stream=True)
                control.send(netstring(b"x") * 100)
                while control.line()["published"]["events"] < 100:
                    pass
            else:
                for _ in range(100):
                    control.ask(command="relay", event="x")
            if kamailio:
                client.receive_many(100)
            stage.evapid.kill_and_restart()
        totals = stage.evapid.status()["totals"]
        assert (totals["events"]["relay"], totals["events"]["no_receiver"]) == (100, 0 if kamailio else 100)
        assert totals["out"]["relayed"] == totals["out"]["delivered"] == (100 if kamailio else 0)
