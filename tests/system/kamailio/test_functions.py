"""Every function of the manual, called from the native script, by what its caller and the clients see.

The user part of the request names the call; the answer brings its return value in X-Rc. A client gives orders with its
messages, and hears of their return values in an event."""

import pytest

from stage import Stage

CALLS = """
route[TEST] {
    $var(rc) = 0;
    $var(event) = $hdr(X-Event);
    $var(tag) = $hdr(X-Tag);
    $var(number) = 42;
    switch ($rU) {
        case "relay-literal": evapi_relay("a literal event"); $var(rc) = $rc; break;
        case "relay-variable": evapi_relay("$var(event)"); $var(rc) = $rc; break;
        case "relay-mixed":
            evapi_relay("{ \\"event\\": \\"test\\",\\n \\"data\\": { \\"fU\\": \\"$fU\\" }\\n}"); $var(rc) = $rc; break;
        case "relay-number": evapi_relay("n=$var(number);$var(number)"); $var(rc) = $rc; break;
        case "relay-null": evapi_relay("a $avp(unset) b"); $var(rc) = $rc; break;
        case "relay-body": evapi_relay("$rb"); $var(rc) = $rc; break;
        case "relay-expression": evapi_relay($var(event) + "+" + $hdr(X-Tag)); $var(rc) = $rc; break;
        case "relay-bare": evapi_relay($var(event)); $var(rc) = $rc; break;
        case "relay-empty": $var(event) = ""; evapi_relay("$var(event)"); $var(rc) = $rc; break;
        case "multicast-literal": evapi_multicast("to all of blue", "blue"); $var(rc) = $rc; break;
        case "multicast-variable": evapi_multicast("$var(event)", "$var(tag)"); $var(rc) = $rc; break;
        case "multicast-mixed": evapi_multicast("<$var(event)>", "$var(tag)-$fU"); $var(rc) = $rc; break;
        case "unicast-literal": evapi_unicast("to one of blue", "blue"); $var(rc) = $rc; break;
        case "unicast-variable": evapi_unicast("$var(event)", "$var(tag)"); $var(rc) = $rc; break;
        case "unicast-mixed": evapi_unicast("<$var(event)>", "$var(tag)-$fU"); $var(rc) = $rc; break;
        case "close": evapi_close(); $var(rc) = $rc; break;
        case "close-index": evapi_close("$hdr(X-Index)"); $var(rc) = $rc; break;
        case "close-unknown": evapi_close(4000000000); $var(rc) = $rc; break;
        case "set-tag": evapi_set_tag("blue"); $var(rc) = $rc; break;
        case "doubled": route(DOUBLED); break;
    }
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    sl_send_reply("200", "OK");
}

# An event of X-Times doublings of X-Event, and X-Rest behind it.
route[DOUBLED] {
    $var(i) = 0;
    while ($var(i) < $(hdr(X-Times){s.int})) {
        $var(event) = $var(event) + $var(event);
        $var(i) = $var(i) + 1;
    }
    switch ($hdr(X-Call)) {
        case "relay": evapi_relay("$var(event)$hdr(X-Rest)"); $var(rc) = $rc; break;
        case "variable": $var(event) = $var(event) + $hdr(X-Rest); evapi_relay("$var(event)"); $var(rc) = $rc; break;
        case "multicast": evapi_multicast("$var(event)$hdr(X-Rest)", "blue"); $var(rc) = $rc; break;
        case "unicast": evapi_unicast("$var(event)$hdr(X-Rest)", "blue"); $var(rc) = $rc; break;
    }
    $var(event) = "";
}

event_route[evapi:message-received] {
    $var(order) = $(evapi(msg){s.select,0,:});
    $var(word) = $(evapi(msg){s.select,1,:});
    $var(rc) = 0;
    switch ($var(order)) {
        case "tag": evapi_set_tag("$var(word)"); $var(rc) = $rc; break;
        case "literal-tag": evapi_set_tag("blue"); $var(rc) = $rc; break;
        case "mixed-tag": evapi_set_tag("$var(word)-$evapi(conidx)"); $var(rc) = $rc; break;
        case "untag": evapi_set_tag(""); $var(rc) = $rc; break;
        case "close": evapi_close(); $var(rc) = $rc; break;
        case "close-index": evapi_close("$var(word)"); $var(rc) = $rc; break;
        case "last-words": evapi_relay("last words"); evapi_close(); evapi_relay("unheard"); break;
        case "relay": evapi_relay("$var(word)"); $var(rc) = $rc; break;
    }
    xlog("L_NOTICE", "ORDER $evapi(conidx) [$evapi(msg)] rc=$var(rc) tag=[$evapi(tag)]\\n");
}

event_route[evapi:connection-closed] {
    xlog("L_NOTICE", "CLOSED $evapi(conidx)\\n");
}
"""


@pytest.fixture(scope="module")
def stage(shared_stage):
    shared_stage.start_evapid()
    # Half of the ring is the largest record: events of 1 MiB fit, those of 2 MiB don't.
    shared_stage.start_kamailio(CALLS, evapi={"queue_size": 4 << 20}, settings="pv_buffer_size=8192")
    return shared_stage


pytestmark = pytest.mark.usefixtures("calm")


def call(stage, user, **headers):
    """The return value of a call from a request route."""
    named = {"X-" + name.title(): value for name, value in headers.items()}
    return int(stage.phone().ask("MESSAGE", user, named)["X-Rc"])


def order(stage, client, text):
    """What came of an order that a client gave: return value and tag then."""
    client.send(text.encode())
    line = stage.kamailio.logged(rf"ORDER {client.index} \[{text}\] ")[-1]
    rc, tag = line.split("rc=")[1].split(" tag=")
    return int(rc), tag.strip("[]")


def tagged(stage, tag, **more):
    client = stage.connect(**more)
    assert order(stage, client, f"tag:{tag}")[0] == 1
    return client


# ---- relay


@pytest.mark.parametrize("user, headers, event", [
    ("relay-literal", {}, b"a literal event"),
    ("relay-variable", {"event": "from a header"}, b"from a header"),
    ("relay-mixed", {}, b'{ "event": "test",\n "data": { "fU": "test" }\n}'),  # the manual's own, 47 bytes
    ("relay-number", {}, b"n=42;42"),
    ("relay-null", {}, b"a <null> b"),
    ("relay-expression", {"event": "one", "tag": "two"}, b"one+two"),
    ("relay-bare", {"event": "no quotes"}, b"no quotes"),
])
def test_relay_gives_every_client_the_event_with_its_variables(stage, user, headers, event):
    clients = [stage.connect() for _ in range(3)]
    assert call(stage, user, **headers) == 1
    assert [client.receive() for client in clients] == [event] * 3


def test_relay_takes_any_bytes_of_a_sip_body(stage):
    client = stage.connect()
    body = bytes(range(256)) * 3
    assert int(stage.phone().ask("MESSAGE", "relay-body", body=body)["X-Rc"]) == 1
    assert client.receive() == body


def test_relay_returns_1_when_nobody_is_connected(stage):
    assert call(stage, "relay-literal") == 1


def test_an_empty_event_is_refused(stage):
    client = stage.connect()
    assert call(stage, "relay-empty") < 0
    assert call(stage, "relay-literal") == 1
    assert client.receive() == b"a literal event"


def test_relay_from_an_event_route(stage):
    asking, listening = stage.connect(), stage.connect()
    asking.send(b"relay:word")
    assert asking.receive() == listening.receive() == b"word"


# ---- multicast and unicast


@pytest.mark.parametrize("user, headers, tag, event", [
    ("multicast-literal", {}, "blue", b"to all of blue"),
    ("multicast-variable", {"event": "e", "tag": "red"}, "red", b"e"),
    ("multicast-mixed", {"event": "e", "tag": "red"}, "red-test", b"<e>"),
])
def test_multicast_reaches_all_with_the_tag_and_no_one_else(stage, user, headers, tag, event):
    with_tag = [tagged(stage, tag) for _ in range(3)]
    others = [stage.connect(), tagged(stage, tag + "x"), tagged(stage, tag[:-1])]
    assert call(stage, user, **headers) == 1
    assert call(stage, "relay-literal") == 1
    for client in with_tag:
        assert client.receive_many(2) == [event, b"a literal event"]
    for client in others:
        assert client.receive() == b"a literal event"


@pytest.mark.parametrize("user, headers, tag, event", [
    ("unicast-literal", {}, "blue", b"to one of blue"),
    ("unicast-variable", {"event": "e", "tag": "red"}, "red", b"e"),
    ("unicast-mixed", {"event": "e", "tag": "red"}, "red-test", b"<e>"),
])
def test_unicast_reaches_the_first_with_the_tag_only(stage, user, headers, tag, event):
    first, second, third = [tagged(stage, tag) for _ in range(3)]
    for _ in range(5):
        assert call(stage, user, **headers) == 1
    assert call(stage, "relay-literal") == 1
    assert first.receive_until(b"a literal event") == [event] * 5
    assert second.receive() == third.receive() == b"a literal event"


def test_unicast_goes_to_the_next_when_the_first_has_gone(stage):
    first, second = tagged(stage, "blue"), tagged(stage, "blue")
    first.close()
    stage.evapid.clients(1)
    assert call(stage, "unicast-literal") == 1
    assert second.receive() == b"to one of blue"


def test_an_event_for_a_tag_that_nobody_has_is_counted_and_not_an_error(stage):
    client = tagged(stage, "red")
    before = stage.evapid.status()["totals"]["events"]
    assert call(stage, "multicast-literal") == 1
    assert call(stage, "unicast-literal") == 1
    assert call(stage, "relay-literal") == 1
    assert client.receive() == b"a literal event"
    after = stage.evapid.status()["totals"]["events"]
    counted = {"relay": 1, "multicast": 1, "unicast": 1, "no_receiver": 2}
    assert {name: after[name] - before[name] for name in counted} == counted


@pytest.mark.parametrize("user", ["multicast-variable", "unicast-variable"])
def test_an_empty_tag_and_one_over_64_characters_are_refused(stage, user):
    client = stage.connect()
    assert call(stage, user, event="e", tag="") < 0
    assert call(stage, user, event="e", tag="t" * 65) < 0
    assert call(stage, user, event="e", tag="t" * 5000) < 0
    assert call(stage, "relay-literal") == 1
    assert client.receive() == b"a literal event"


# ---- set_tag


def test_a_tag_of_64_characters_is_accepted_and_used_whole(stage):
    client, near = stage.connect(), tagged(stage, "t" * 63)
    assert order(stage, client, "tag:" + "t" * 64) == (1, "t" * 64)
    assert call(stage, "multicast-variable", event="long", tag="t" * 64) == 1
    assert call(stage, "relay-literal") == 1
    assert client.receive_many(2) == [b"long", b"a literal event"]
    assert near.receive() == b"a literal event"


@pytest.mark.parametrize("length", [65, 256, 1500])
def test_a_tag_of_65_characters_is_refused_and_the_old_one_stays(stage, length):
    client = tagged(stage, "blue")
    rc, tag = order(stage, client, "tag:" + "t" * length)
    assert rc < 0 and tag == "blue"
    assert call(stage, "multicast-literal") == 1
    assert client.receive() == b"to all of blue"


@pytest.mark.parametrize("text, tag", [("literal-tag", "blue"), ("tag:word", "word"), ("mixed-tag:word", "word-{}")])
def test_set_tag_takes_literals_and_variables(stage, text, tag):
    client = stage.connect()
    tag = tag.format(client.index)
    assert order(stage, client, text) == (1, tag)
    assert stage.evapid.client(client)["tag"] == tag
    assert call(stage, "multicast-variable", event="e", tag=tag) == 1
    assert client.receive() == b"e"


def test_a_new_tag_replaces_the_old_one(stage):
    client = tagged(stage, "blue")
    assert order(stage, client, "tag:red") == (1, "red")
    assert call(stage, "multicast-literal") == 1
    assert call(stage, "multicast-variable", event="e", tag="red") == 1
    assert client.receive() == b"e"


def test_an_empty_tag_takes_the_tag_away(stage):
    client = tagged(stage, "blue")
    assert order(stage, client, "untag")[0] == 1
    assert call(stage, "multicast-literal") == 1
    assert call(stage, "relay-literal") == 1
    assert client.receive() == b"a literal event"


def test_set_tag_and_close_outside_of_an_event_are_negative(stage):
    client = stage.connect()
    assert call(stage, "set-tag") < 0
    assert call(stage, "close") < 0
    assert call(stage, "multicast-literal") == 1
    assert call(stage, "relay-literal") == 1
    assert client.receive() == b"a literal event"


# ---- close


def test_close_ends_the_client_of_the_event_and_its_closed_route_runs(stage):
    client, other = stage.connect(), stage.connect()
    assert order(stage, client, "close")[0] == 1
    assert client.receive_rest() == []
    stage.kamailio.logged(rf"CLOSED {client.index}\b")
    assert call(stage, "relay-literal") == 1
    assert other.receive() == b"a literal event"


def test_what_was_relayed_before_close_still_arrives_and_nothing_behind_it(stage):
    client, other = stage.connect(), stage.connect()
    client.send(b"last-words")
    assert client.receive_rest() == [b"last words"]
    assert other.receive_many(2) == [b"last words", b"unheard"]


def test_close_of_an_index_from_a_request_route(stage):
    client, other = stage.connect(), stage.connect()
    assert call(stage, "close-index", index=client.index) == 1
    assert client.receive_rest() == []
    stage.kamailio.logged(rf"CLOSED {client.index}\b")
    assert call(stage, "relay-literal") == 1
    assert other.receive() == b"a literal event"


def test_close_of_another_client_from_an_event_route(stage):
    client, other = stage.connect(), stage.connect()
    assert order(stage, other, f"close-index:{client.index}")[0] == 1
    assert client.receive_rest() == []
    assert call(stage, "relay-literal") == 1
    assert other.receive() == b"a literal event"


@pytest.mark.parametrize("index", ["", "word", "-1", "0", "12x", "99999999999999999999"])
def test_close_of_what_is_no_index_is_negative_and_closes_nobody(stage, index):
    client = stage.connect()
    assert call(stage, "close-index", index=index) < 0
    assert call(stage, "relay-literal") == 1
    assert client.receive() == b"a literal event"


def test_close_of_an_index_that_nobody_has_closes_nobody(stage):
    client = stage.connect()
    call(stage, "close-unknown")
    gone = stage.connect()
    gone.close()
    stage.evapid.clients(1)
    call(stage, "close-index", index=gone.index)
    assert call(stage, "relay-literal") == 1
    assert client.receive() == b"a literal event"


# ---- sizes


def doubled(stage, how, size):
    """Have Kamailio relay an event of size bytes, made by doubling; returns its return value and the event."""
    times = max(size.bit_length() - 7, 0)
    seed = ("abcdefghi" * 15)[:size >> times]
    event = seed * (1 << times)
    rest = "z" * (size - len(event))
    rc = call(stage, "doubled", event=seed, times=times, rest=rest, call=how)
    return rc, (event + rest).encode()


@pytest.mark.parametrize("size", [1, 2, 9, 10, 99, 100, 1023, 4096, 8191, 8192, 8193, 65535, 65536, 100000, 262145,
                                  1 << 20])
def test_an_event_arrives_whole_whatever_its_size(stage, size):
    client = stage.connect()
    for how in ("relay", "variable"):
        rc, event = doubled(stage, how, size)
        assert rc == 1 and len(event) == size
        assert client.receive() == event


@pytest.mark.parametrize("how", ["multicast", "unicast"])
def test_an_event_of_1_mib_for_a_tag(stage, how):
    client, other = tagged(stage, "blue"), stage.connect()
    rc, event = doubled(stage, how, 1 << 20)
    assert rc == 1
    assert client.receive() == event
    assert call(stage, "relay-literal") == 1
    assert other.receive() == b"a literal event"


@pytest.mark.parametrize("how", ["relay", "variable", "multicast", "unicast"])
def test_an_event_over_the_limit_is_negative_and_breaks_nothing(stage, how):
    client = tagged(stage, "blue")
    before = stage.evapid.status()["kamailio"]["ring"]["refused_large"]
    assert doubled(stage, how, 2 << 20)[0] < 0
    assert stage.evapid.status()["kamailio"]["ring"]["refused_large"] == before + 1
    stage.kamailio.logged(r"ERROR: evapi .*2097152")
    assert call(stage, "relay-literal") == 1
    assert client.receive() == b"a literal event"


# ---- event routes are optional


NEW = 'event_route[evapi:connection-new] { xlog("L_NOTICE", "ROUTE new\\n"); }\n'
CLOSED = 'event_route[evapi:connection-closed] { xlog("L_NOTICE", "ROUTE closed\\n"); }\n'
MESSAGE = 'event_route[evapi:message-received] { xlog("L_NOTICE", "ROUTE message\\n"); }\n'
ONLY_RELAY = 'route[TEST] { evapi_relay("event"); sl_send_reply("200", "OK"); }\n'


class TestRoutes:
    """On stages of their own: Kamailio is started anew with other routes."""

    @pytest.fixture(scope="class")
    def evapid_alone(self):
        with Stage() as own:
            own.start_evapid()
            yield own

    @pytest.mark.parametrize("routes", ["", NEW, CLOSED, MESSAGE, NEW + CLOSED + MESSAGE],
                             ids=["none", "new", "closed", "message", "all"])
    def test_each_event_route_is_optional(self, evapid_alone, routes):
        stage = evapid_alone
        stage.start_kamailio(ONLY_RELAY + routes)
        client = stage.connect()
        client.send(b"a message")
        stage.phone().ask("MESSAGE")
        assert client.receive() == b"event"
        assert stage.evapid.until_status(
            lambda s: s["clients"] and s["clients"][0]["in"]["frames"] == 1, "the message was taken")
        stage.hang_up()
        for name, there in (("new", NEW in routes), ("message", MESSAGE in routes), ("closed", CLOSED in routes)):
            if there:
                stage.kamailio.logged(f"ROUTE {name}")
        assert not stage.kamailio.lines(r"ERROR: evapi")
        assert len(stage.kamailio.lines("ROUTE ")) == (NEW in routes) + (CLOSED in routes) + (MESSAGE in routes)
        stage.kamailio.terminate()
        stage.evapid.detached()
