"""Events of several megabytes, with the sizes that nothing configures: what the queue takes at once reaches who reads."""

import pytest

from books import balanced

COUNT, SIZE = 5, 4000000

# A request asks for all of them at once, and hears how many were taken.
LUA = """
function test_route()
    local count = 0
    for number = 1, COUNT do
        if KSR.evapi.relay(tostring(number) .. string.rep("x", SIZE - 1)) == 1 then count = count + 1 end
    end
    KSR.hdr.append_to_reply("X-Taken: " .. tostring(count) .. "\\r\\n")
    KSR.sl.sl_send_reply(200, "OK")
end
""".replace("COUNT", str(COUNT)).replace("SIZE", str(SIZE))

# A native script makes such a text by adding it to itself: transformations end at 64 KiB, variables do not.
NATIVE = """
route[TEST] {
    $var(text) = "START";
    $var(doubled) = 0;
    while ($var(doubled) < 15) {
        $var(text) = $var(text) + $var(text);
        $var(doubled) = $var(doubled) + 1;
    }
    $var(taken) = 0;
    $var(number) = 1;
    while ($var(number) <= COUNT) {
        if (evapi_relay("$var(number)$var(text)")) $var(taken) = $var(taken) + 1;
        $var(number) = $var(number) + 1;
    }
    append_to_reply("X-Taken: $var(taken)\\r\\n");
    sl_send_reply("200", "OK");
}
""".replace("COUNT", str(COUNT)).replace("START", "x" * 125)


def events(bytes_):
    return [b"%d" % number + b"x" * bytes_ for number in range(1, COUNT + 1)]


@pytest.mark.parametrize("script, bytes_", [({"lua": LUA}, SIZE - 1), ({"routes": NATIVE}, 125 << 15)], ids=["lua", "native"])
def test_five_events_of_4_mb_at_once_reach_a_client_that_reads(stage, script, bytes_):
    stage.start_evapid()
    stage.start_kamailio(**script)
    client = stage.connect()
    assert stage.phone().ask("MESSAGE")["X-Taken"] == "5"
    assert client.receive_many(COUNT) == events(bytes_)
    assert balanced(stage.evapid.status())


def test_five_events_of_4_mb_wait_for_a_client_that_reads_late(stage):
    """What the queue takes at once, a client's queue holds: whoever was up to date before is not cut off by it."""
    stage.start_evapid()
    stage.start_kamailio(lua=LUA)
    client = stage.connect(receive_buffer=4096)
    assert stage.phone().ask("MESSAGE")["X-Taken"] == "5"
    stage.evapid.until_status(lambda s: s["totals"]["events"]["relay"] == COUNT, "evapid has read all")
    assert client.receive_many(COUNT) == events(SIZE - 1)


def test_five_events_of_4_mb_wait_for_evapid(stage):
    stage.start_evapid(attach_hold_ms=60000)
    stage.start_kamailio(lua=LUA)
    client = stage.connect()
    stage.evapid.kill()
    client.close()
    assert stage.phone().ask("MESSAGE")["X-Taken"] == "5"
    stage.restart_evapid()
    stage.evapid.listening(stage.address)
    client = stage.connect(admitted=False)
    assert client.receive_many(COUNT) == events(SIZE - 1)
