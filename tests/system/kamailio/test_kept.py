"""Kept tags: an application that goes away and comes back finds what it has missed, and calls wait for it meanwhile."""

import re
import select
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from books import balanced
from client import netstring
from handover import replace, restart
from process import DEADLINE_S, until
from scrape import metrics
from script import ask

# The application answers each call that it is told of, "INDEX:LABEL:NUMBER:WORD", with the same text.
ROUTES = """
route[TEST] {
    if (is_method("INVITE")) {
        t_set_fr(ASKED_MS, ASKED_MS);
        t_on_failure("AGAIN");
        $var(word) = "first";
        route(ASK);
        t_newtran();
        t_reply("480", "Nobody is there");
        exit;
    }
    if ($rU == "multicast") {
        evapi_multicast("$rb", "$hdr(X-Tag)");
    } else if ($rU == "unicast") {
        evapi_unicast("$rb", "$hdr(X-Tag)");
    } else if ($rU == "close") {
        evapi_close("$hdr(X-Index)");
    } else {
        evapi_relay("$rb");
    }
    $var(rc) = $rc;
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    sl_send_reply("200", "OK");
}
route[ASK] {
    if (evapi_async_multicast("$T(id_index):$T(id_label):$rU:$var(word)", "app")) exit;
}
failure_route[AGAIN] {
    if (t_is_canceled()) exit;
    t_on_failure("AGAIN");
    $var(word) = "again";
    route(ASK);
    t_reply("480", "Nobody is there any more");
}
route[ANSWERED] { t_reply("200", "OK"); }
event_route[evapi:connection-new] {
    if ($evapi(srcaddr) == "127.0.0.1") evapi_set_tag("app");
    xlog("L_NOTICE", "NEW $evapi(conidx) tag $evapi(tag) kept $evapi(kept);\\n");
}
event_route[evapi:message-received] {
    xlog("L_NOTICE", "GOT $evapi(conidx) kept $evapi(kept);\\n");
    $var(index) = $(evapi(msg){s.select,0,:}{s.int});
    $var(label) = $(evapi(msg){s.select,1,:}{s.int});
    t_continue("$var(index)", "$var(label)", "ANSWERED");
}
event_route[evapi:connection-closed] { xlog("L_NOTICE", "CLOSED $evapi(conidx);\\n"); }
"""
PATIENT = ROUTES.replace("ASKED_MS", "60000")
KEEP_MS = 3600 * 1000  # no machine is so slow


def begin(stage, how=replace, routes=PATIENT, **limits):
    settings = {"limits": {"keep_absent_ms": KEEP_MS, **limits}}
    (stage.start_evapid if how is replace else stage.start_supervised)(**settings)
    stage.start_kamailio(routes)
    return stage.phone()


def send(phone, *events):
    for event in events:
        assert ask(phone, "multicast", event, tag="app") == 1


def leave(stage, client):
    """It ends its connection, and evapid has noticed."""
    client.close()
    stage.kamailio.logged(rf"CLOSED {client.index};")
    assert stage.evapid.status()["kept"]["tags"] == 1


def kept_by_its_route(stage, client):
    return re.search(rf"NEW {client.index} tag app kept (\S+);", stage.kamailio.text())[1]


def kept(stage):
    return stage.evapid.status()["kept"]


def nothing_is_lost(stage):
    assert sum(balanced(stage.evapid.status())["dropped"].values()) == 0
    assert stage.evapid.status()["totals"]["events"]["no_receiver"] == 0


def nothing(stage):
    pass


def restart_kamailio(stage):
    stage.kamailio.terminate()
    stage.evapid.detached()
    stage.restart_kamailio()


def reload(stage):
    stage.evapid.reload(limits={"keep_absent_ms": KEEP_MS + 1})


@pytest.mark.parametrize("meanwhile", [nothing, replace, restart, restart_kamailio, reload])
def test_an_application_that_comes_back_gets_what_it_missed(stage, meanwhile):
    phone = begin(stage, restart if meanwhile is restart else replace)
    app = stage.connect()
    send(phone, b"seen")
    assert app.receive() == b"seen"
    leave(stage, app)
    send(phone, b"one", b"two")
    assert ask(phone, "unicast", b"three", tag="app") == 1
    assert ask(phone, "relay", b"four") == 1
    meanwhile(stage)
    calls = [] if meanwhile is restart_kamailio else [stage.phone().start("INVITE", "five")]
    if calls:
        until(lambda: kept(stage)["events"] == 5, "the call waits, too")
    assert balanced(stage.evapid.status())["queued_frames"] == 4 + len(calls)
    app = stage.connect()
    assert kept_by_its_route(stage, app) == str(4 + len(calls))
    send(phone, b"live")
    events = app.receive_many(5 + len(calls))
    assert events[:4] + events[-1:] == [b"one", b"two", b"three", b"four", b"live"]
    if calls:
        app.send(events[4])
        assert stage.connections[-2].finish(calls[0]).code == 200
    assert kept(stage) == {"tags": 0, "events": 0, "bytes": 0}
    nothing_is_lost(stage)


def test_after_a_kill_the_tag_is_kept_and_what_waited_is_counted_as_lost(stage):
    phone = begin(stage, restart)
    leave(stage, stage.connect())
    send(phone, b"one", b"two")
    assert kept(stage)["events"] == 2, "evapid has read them: Kamailio's queue would keep them over the kill"
    stage.evapid.kill_and_restart()
    stage.evapid.attached(stage.kamailio.pid)
    assert kept(stage)["tags"] == 1
    assert balanced(stage.evapid.status())["dropped"]["lost"] == 2
    call = phone.start("INVITE", "1")
    until(lambda: kept(stage)["events"] == 1, "the call waits")
    app = stage.connect()
    app.send(app.receive())
    assert phone.finish(call).code == 200
    balanced(stage.evapid.status())


def test_what_an_operator_sees_and_may_forget(stage):
    address = stage.new_address()
    stage.start_evapid(limits={"keep_absent_ms": KEEP_MS}, metrics={"address": address})
    stage.start_kamailio(PATIENT)
    phone = stage.phone()
    assert "kept" not in stage.evapid.ctl("status").stdout
    leave(stage, stage.connect())
    send(phone, b"one", b"three")
    assert kept(stage) == {"tags": 1, "events": 2, "bytes": len(netstring(b"one") + netstring(b"three"))}
    (tag,) = stage.evapid.ask(command="tags")["tags"]
    assert (tag["tag"], tag["clients"], tag["kept"]["events"], tag["kept"]["full"]) == ("app", 0, 2, False)
    assert "1 tags without clients, 2 events (14) wait for them" in stage.evapid.ctl("status").stdout
    assert re.search(r"app +0 +0 .*\b2 +14\n", stage.evapid.ctl("tags").stdout)
    shown = metrics(address)
    assert [shown.value(f"evapid_kept_{name}") for name in ("tags", "events", "bytes", "tags_full")] == [1, 2, 14, 0]
    assert 0 <= time.time() - shown.value("evapid_kept_since_seconds") < 2 * DEADLINE_S
    assert stage.evapid.ctl("forget", "other").returncode == 1
    assert stage.evapid.ctl("forget", "app").returncode == 0
    assert kept(stage)["tags"] == 0
    assert balanced(stage.evapid.status())["dropped"]["absent"] == 2
    stage.evapid.logged("tag app is kept no more, for it was asked to be forgotten: 2 events")
    assert phone.ask("INVITE", "1").code == 480
    app = stage.connect()
    assert kept_by_its_route(stage, app) == "0"
    send(phone, b"live")
    assert app.receive() == b"live"
    app.send(b"0:0")
    stage.kamailio.logged(rf"GOT {app.index} kept <null>;")


def test_when_the_time_is_over_what_waits_is_dropped_as_absent_and_said_once(stage):
    phone = begin(stage)
    leave(stage, stage.connect())
    send(phone, b"one", b"two", b"three")
    call = phone.start("INVITE", "1")
    until(lambda: kept(stage)["events"] == 4, "the call waits, too")
    stage.evapid.reload(limits={"keep_absent_ms": 1})
    stage.evapid.logged("tag app is kept no more, nobody came in time: 4 events")
    assert balanced(stage.evapid.status())["dropped"]["absent"] == 4
    assert stage.phone().ask("INVITE", "2").code == 480, "nobody is there any more"
    phone.cancel(call)


def test_a_close_is_no_absence(stage):
    phone = begin(stage)
    app = stage.connect()
    assert ask(phone, "close", index=str(app.index)) == 1
    assert app.receive_rest() == []
    stage.evapid.clients(0)
    other = stage.connect()
    assert stage.evapid.ctl("close", str(other.index)).returncode == 0
    assert other.receive_rest() == []
    stage.evapid.clients(0)
    assert kept(stage)["tags"] == 0
    assert phone.ask("INVITE", "1").code == 480


# ---- an application that is killed again and again

APP = """
import os, socket, sys
log = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
bus = socket.create_connection((sys.argv[1], int(sys.argv[2])))
buffer = b""
while more := bus.recv(65536):
    buffer += more
    while b":" in buffer:
        length, _, rest = buffer.partition(b":")
        if len(rest) <= int(length):
            break
        event, buffer = rest[:int(length)], rest[int(length) + 1:]
        os.write(log, event + b"\\n")
        bus.sendall(b"%d:%s," % (len(event), event))
"""
KILLS, CALLS_A_SECOND = 50, 200
CALLS_OPEN = 80  # the questions of so many, asked three times, fit into a worker's window


class Caller(threading.Thread):
    """Calls so many times a second until it is told to end, and then waits for what its calls are answered."""

    def __init__(self, phone):
        super().__init__()
        self.phone, self.calls, self.enough, self.failure = phone, [], threading.Event(), None

    def run(self):
        try:
            start, open_ = time.monotonic(), []
            while not self.enough.is_set():
                open_ = [call for call in open_ if call.final is None]
                if len(open_) == CALLS_OPEN:
                    self.phone.turn(0.01)  # sends again what was lost
                elif len(self.calls) < (time.monotonic() - start) * CALLS_A_SECOND:
                    self.calls.append(self.phone.start("INVITE", str(len(self.calls))))
                    open_.append(self.calls[-1])
                if select.select([self.phone.socket], [], [], 0.002)[0]:
                    self.phone.read()
            self.phone.finish_all(self.calls)
        except Exception as error:  # noqa: BLE001: whatever it is, the test says it
            self.failure = error


def test_an_application_killed_fifty_times_under_calls_misses_none(stage):
    """Each call has a number. The script asks again if nobody answers: that the killed one's kernel had taken what the first
    question was is all that may happen to it."""
    begin(stage, routes=ROUTES.replace("ASKED_MS", "4000"))
    seen = stage.folder / "seen"
    host, port = stage.address.rsplit(":", 1)

    def start():
        return subprocess.Popen([sys.executable, "-S", "-c", APP, host, port, str(seen)])
    seen.touch()
    app = start()
    stage.evapid.until_status(lambda s: [client["state"] for client in s["clients"]] == ["open"], "the application is let in")
    caller = Caller(stage.phone())
    caller.start()
    try:
        size = 0
        for _ in range(KILLS):
            calls = len(caller.calls) + CALLS_A_SECOND // 20
            until(lambda: len(caller.calls) > calls and seen.stat().st_size > size or not caller.is_alive(), "calls are answered")
            app.kill()
            app.wait()
            size = seen.stat().st_size
            app = start()
        caller.enough.set()
        caller.join()
        assert caller.failure is None
        events = [tuple(line.split(":")[2:]) for line in seen.read_text().splitlines()]
        assert Counter(call.final.code for call in caller.calls) == {200: len(caller.calls)}
        counted = Counter(events)
        assert max(count for (_, word), count in counted.items() if word == "first") == 1, "nothing comes twice"
        missed = len(caller.calls) - sum(word == "first" for _, word in events)
        assert missed <= KILLS * 1000, "no more than sockets hold"
        totals = stage.evapid.until_status(lambda s: s["totals"]["out"]["queued_frames"] == 0, "all is delivered")["totals"]
        assert sum(totals["out"]["dropped"].values()) == totals["events"]["no_receiver"] == 0
        assert totals["out"]["delivered"] == totals["events"]["multicast"] >= len(caller.calls)
        print(f"{len(caller.calls)} calls, {missed} questions with the killed ones, {len(events) - len(caller.calls) + missed} again")
    finally:
        caller.enough.set()
        app.kill()
        app.wait()
        caller.join()
