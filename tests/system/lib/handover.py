"""evapid goes from one process to the next with its clients: by --replace, or through the service manager. What a test of that
begins with, asks for meanwhile, and finds afterwards."""

from process import until
from script import ask, events_of

ROUTES = """
route[TEST] {
    if ($rU == "multicast") {
        evapi_multicast("$rb", "$hdr(X-Tag)");
    } else if ($rU == "unicast") {
        evapi_unicast("$rb", "$hdr(X-Tag)");
    } else if ($rU == "gate") {
        $shv(gate) = $(hdr(X-Gate){s.int});
    } else {
        evapi_relay("$rb");
    }
    $var(rc) = $rc;
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    sl_send_reply("200", "OK");
}
event_route[evapi:connection-new] {
    xlog("L_NOTICE", "NEW $evapi(conidx) [$evapi(tag)];\\n");
    while ($shv(gate) == 1) usleep("1000");
}
event_route[evapi:message-received] {
    xlog("L_NOTICE", "GOT $evapi(conidx) $(evapi(msg){s.rtrim});\\n");
    while ($shv(gate) == 2) usleep("1000");
    if ($evapi(msg) =~ "^tag:")
        evapi_set_tag("$(evapi(msg){s.select,1,:})");
    else if ($evapi(msg) =~ "^say:")
        evapi_relay("$(evapi(msg){s.select,1,:})");
}
event_route[evapi:connection-closed] { xlog("L_NOTICE", "CLOSED $evapi(conidx);\\n"); }
"""


def replace(stage):
    stage.replace_evapid()


def restart(stage):
    stage.evapid.restart()


def begin(stage, how, evapi=None, **settings):
    """evapid as that kind of hand-over needs it, and Kamailio."""
    (stage.start_evapid if how is replace else stage.start_supervised)(**settings)
    stage.start_kamailio(ROUTES, evapi=evapi)
    return stage.phone()


def set_tag(stage, client, tag):
    """The client asks for the tag, and has it."""
    client.send(b"tag:" + tag)
    until(lambda: stage.evapid.client(client)["tag"] == tag.decode(), "it has its tag")


def goes_on(stage, phone, clients, word=b"on"):
    """They are served, and nothing has happened to them."""
    assert ask(phone, "relay", word) == 1
    for client in clients:
        assert client.receive() == word
        client.send(word)
        stage.kamailio.logged(rf"GOT {client.index} {word.decode()};")
        assert [event for event, _ in events_of(stage.kamailio, client.index)].count("NEW") == 1
    assert not stage.kamailio.lines("lost evapid")


def stall(stage, phone, slow, others=(), waiting=1 << 18):
    """Relay until so many bytes wait for a client that does not read; the others do. Returns the events."""
    events = []
    while stage.evapid.client(slow)["out"]["queued_bytes"] < waiting:
        events.append(b"%d:" % len(events) + b"x" * 50000)
        assert ask(phone, "relay", events[-1]) == 1
        for client in others:
            assert client.receive() == events[-1]
    return events
