"""An evapi worker is killed in the middle of what a client's message has begun: Kamailio ends itself then, as it does whenever one of
its processes is killed."""

import os
import re
import signal

import pytest

from async_calls import RESUME
from books import balanced

ROUTES = """
route[TEST] {
    if ($rU == "event") {
        evapi_relay("$hdr(X-Word)");
        sl_send_reply("200", "OK");
        exit;
    }
    evapi_async_relay("$T(id_index):$T(id_label):$hdr(X-Word)");
    exit;
}
""" + RESUME.replace('event_route[evapi:message-received] {', """event_route[evapi:message-received] {
    xlog("L_NOTICE", "GOT $evapi(msg);\\n");
    if ($evapi(msg) =~ "^plain") exit;""").replace("route[RESUMED] {", """route[RESUMED] {
    xlog("L_NOTICE", "RESUMED $var(word);\\n");
    sleep("600");""")


def resumes(asked):
    index, label, word = asked.decode().split(":")
    return f"{index}:{label}:486:{word}".encode()


def kill_within_resumed(stage, phone, client):
    """Two calls wait; the worker is killed while it goes on with the first one. Returns what the client has sent."""
    calls = [phone.start("INVITE", "async", headers={"X-Word": f"call-{number}"}) for number in range(2)]
    while any(not call.answers for call in calls):
        phone.turn()
    sent = [resumes(asked) for asked in client.receive_many(2)] + [b"plain-1", b"plain-2"]
    for message in sent:
        client.send(message)
    stage.kamailio.logged(r"RESUMED call-\d;")
    kamailio = stage.kamailio
    kamailio.members()
    kamailio.expect_end = True
    os.kill(stage.evapid.status()["kamailio"]["workers"][0]["pid"], signal.SIGKILL)
    kamailio.ended()
    assert kamailio.lines("exited by a signal")
    stage.processes.remove(kamailio)  # it has not ended well, as it should
    return calls, sent, kamailio


def got(kamailio):
    return [text.encode() for text in re.findall(r"GOT ([^;\n]*);", kamailio.text())]


@pytest.mark.parametrize("workers", [1, 2])
def test_promise_5_a_message_whose_worker_is_killed_inside_t_continue_is_not_begun_again(stage, workers):
    """The call that it has resumed ends with Kamailio, and so does the one that waits; the messages behind it are for the other
    worker, which ends as well, and for the next Kamailio: the client stays."""
    stage.start_evapid()
    stage.start_kamailio(ROUTES, evapi={"workers": workers})
    client, phone = stage.connect(), stage.phone()
    calls, sent, first = kill_within_resumed(stage, phone, client)
    stage.evapid.detached()
    entry = stage.evapid.client(client)["in"]
    assert entry["frames"] == 4 and entry["waiting"] in (2, 3)
    begun = got(first)
    assert begun == sent[:len(begun)] and 1 <= len(first.lines("RESUMED")) <= len(begun) <= workers
    stage.restart_kamailio()
    stage.kamailio.logged("GOT plain-2;")
    heard = begun + got(stage.kamailio)
    assert heard == [message for message in sent if message in heard], "each at most once, in order"
    assert len(heard) > len(sent) - workers, "a route of the other worker may have begun without a word"
    assert not stage.kamailio.lines("RESUMED"), "a call of the first Kamailio is none of the second one's"
    status = stage.evapid.until_status(lambda s: s["totals"]["in"]["waiting"] == 0, "no message waits")
    assert balanced(status) and status["totals"]["in"]["frames"] == 4
    assert all(call.final is None for call in calls)
    assert phone.ask("MESSAGE", "event", headers={"X-Word": "on"}).code == 200
    assert client.receive() == b"on"
