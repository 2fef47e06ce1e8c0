"""evapid goes from one process to the next, and clients and Kamailio notice nothing: by --replace, and through the service
manager. And when it is killed: the connections stay, and what was in memory is counted as lost."""

import re
import threading

import pytest

from books import lost_by
from client import netstring
from handover import begin, replace, restart, set_tag
from process import until
from script import ask, events_of


def tagged(client, tag):
    client.send(b"tag:" + tag)
    client.send(b"say:tagged")


both = pytest.mark.parametrize("how", [replace, restart])


@both
def test_clients_tags_and_links_go_over(stage, how):
    phone = begin(stage, how, {"workers": 2})
    clients = [stage.connect() for _ in range(4)]
    for client in clients[:2]:
        set_tag(stage, client, b"blue")
    before = stage.evapid.status()
    how(stage)
    status = stage.evapid.attached(stage.kamailio.pid, 2)
    assert status["session"] == before["session"] and status["pid"] != before["pid"]
    assert [entry["index"] for entry in status["clients"]] == [client.index for client in clients]
    assert [entry["tag"] for entry in status["clients"]] == ["blue", "blue", None, None]
    for key in ("since", "listener", "address", "state"):
        assert [entry[key] for entry in status["clients"]] == [entry[key] for entry in before["clients"]]
    assert ask(phone, "unicast", b"to the first", tag="blue") == 1
    assert ask(phone, "multicast", b"to both", tag="blue") == 1
    assert ask(phone, "relay", b"to all") == 1
    assert clients[0].receive_many(3) == [b"to the first", b"to both", b"to all"]
    assert clients[1].receive_many(2) == [b"to both", b"to all"]
    assert clients[2].receive() == clients[3].receive() == b"to all"
    for client in clients:
        client.send(b"hello")
        stage.kamailio.logged(rf"GOT {client.index} hello;")
        assert [event for event, _ in events_of(stage.kamailio, client.index)].count("NEW") == 1
    assert not stage.kamailio.lines("lost evapid")


@both
def test_a_client_that_has_been_tagged_again_and_again_has_its_last_tag(stage, how):
    phone = begin(stage, how)
    client = stage.connect()
    for number in range(30):  # sooner or later a new tag lies in memory where the one before has been
        tagged(client, b"%d" % number)
        assert client.receive() == b"tagged"
        if number >= 25:
            how(stage)
            assert stage.evapid.client(client)["tag"] == str(number)
    assert ask(phone, "unicast", b"to the last", tag="29") == 1
    assert client.receive() == b"to the last"


@both
def test_new_clients_find_the_listener_and_get_the_next_index(stage, how):
    begin(stage, how)
    first = stage.connect()
    how(stage)
    second = stage.connect()
    assert second.index == first.index + 1
    listener = stage.evapid.status()["listeners"][0]
    assert (listener["clients"], listener["accepted"]) == (2, 2)
    first.close()
    stage.kamailio.logged(rf"CLOSED {first.index};")
    stage.evapid.clients(1)


@both
def test_a_message_that_has_come_in_part_is_gone_on_with(stage, how):
    begin(stage, how)
    client = stage.connect()
    message = netstring(b"x" * 3000 + b"end")
    client.send_bytes(netstring(b"before") + message[:1500])
    client.wait_read()
    how(stage)
    client.send_bytes(message[1500:] + netstring(b"behind"))
    stage.kamailio.logged(rf"GOT {client.index} behind;")
    assert [text[-6:] for event, text in events_of(stage.kamailio, client.index) if event == "GOT"] == [
        "before", "xxxend", "behind"]


@both
def test_what_waits_for_a_slow_client_goes_over_whole(stage, how):
    phone = begin(stage, how)
    slow, quick = stage.connect(receive_buffer=4096), stage.connect()
    set_tag(stage, slow, b"slow")
    expected = []
    for number in range(300):
        body = b"%d:" % number + bytes([65 + number % 26]) * 20000
        if number % 7 == 0:
            assert ask(phone, "multicast", body, tag="slow") == 1
        else:
            assert ask(phone, "relay", body) == 1
            assert quick.receive() == body
        expected.append(body)
        if number == 250:
            assert stage.evapid.client(slow)["out"]["queued_bytes"] > 100000
            how(stage)
    before = stage.evapid.client(slow)["out"]
    assert before["relayed"] == 300
    assert slow.receive_many(300) == expected
    entry = stage.evapid.until_status(lambda s: s["clients"][0]["out"]["queued_bytes"] == 0, "all is sent")["clients"][0]
    assert (entry["out"]["relayed"], entry["out"]["delivered"]) == (300, 300)
    assert entry["out"]["bytes"] == sum(len(netstring(body)) for body in expected)
    assert set(entry["dropped"].values()) == {0}


@both
def test_messages_at_a_busy_worker_go_over_in_order_and_once(stage, how):
    phone = begin(stage, how, limits={"worker_window_frames": 4})
    clients = [stage.connect() for _ in range(3)]
    ask(phone, "gate", gate="2")
    for client in clients:
        for number in range(50):
            client.send(b"%d" % number)
    stage.evapid.until_status(lambda s: s["kamailio"]["workers"][0]["waiting"] == 3, "the window is full")
    how(stage)
    ask(phone, "gate", gate="0")
    for client in clients:
        stage.kamailio.logged(rf"GOT {client.index} 49;")
        assert [text for event, text in events_of(stage.kamailio, client.index) if event == "GOT"] == [
            str(number) for number in range(50)]


@both
def test_a_client_whose_admission_runs_is_let_in_by_the_successor(stage, how):
    phone = begin(stage, how)
    ask(phone, "gate", gate="1")
    client = stage.connect(admitted=False)
    client.index = stage.evapid.client(client, "admitting")["index"]
    stage.kamailio.logged(rf"NEW {client.index}")
    client.send(b"hello")
    how(stage)
    assert stage.evapid.client(client, "admitting")["index"] == client.index
    ask(phone, "gate", gate="0")
    stage.kamailio.logged(rf"GOT {client.index} hello;")
    assert events_of(stage.kamailio, client.index) == [("NEW", "[<null>]"), ("GOT", "hello")]


@both
def test_a_client_that_has_gone_is_heard_to_the_end(stage, how):
    phone = begin(stage, how)
    client = stage.connect()
    ask(phone, "gate", gate="2")
    for number in range(3):
        client.send(b"%d" % number)
    stage.kamailio.logged(rf"GOT {client.index} 0;")
    client.reset()
    stage.evapid.until_status(lambda s: s["clients"][0]["state"] in ("finishing", "gone"), "evapid has noticed")
    how(stage)
    ask(phone, "gate", gate="0")
    stage.kamailio.logged(rf"CLOSED {client.index};")
    assert [event for event, _ in events_of(stage.kamailio, client.index)] == ["NEW", "GOT", "GOT", "GOT", "CLOSED"]
    stage.evapid.clients(0)


@both
def test_a_half_closed_client_still_gets_its_answers(stage, how):
    phone = begin(stage, how)
    client = stage.connect()
    ask(phone, "gate", gate="2")
    client.send(b"say:first")
    client.send(b"say:second")
    client.half_close()
    stage.kamailio.logged(rf"GOT {client.index}")
    how(stage)
    ask(phone, "gate", gate="0")
    assert client.receive_rest() == [b"first", b"second"]


@both
def test_clients_wait_for_a_kamailio_that_is_away(stage, how):
    phone = begin(stage, how)
    client = stage.connect()
    set_tag(stage, client, b"blue")
    stage.kamailio.terminate()
    stage.evapid.detached()
    client.send(b"are you there")
    how(stage)
    stage.restart_kamailio()
    stage.kamailio.logged(rf"GOT {client.index} are you there;")
    assert events_of(stage.kamailio, client.index)[0] == ("NEW", "[blue]")
    assert ask(phone, "relay", b"back") == 1
    assert client.receive() == b"back"


@both
def test_again_and_again_under_traffic_both_ways(stage, how):
    """Nothing is lost, doubled or torn while evapid is exchanged ten times."""
    phone = begin(stage, how, {"workers": 2}, limits={"max_queued_bytes": 1 << 28})
    readers = [stage.connect() for _ in range(6)]
    talkers = [stage.connect() for _ in range(3)]
    got, ended = {reader: [] for reader in readers}, threading.Event()
    sent = dict.fromkeys(talkers, 0)

    def read(reader):
        for event in iter(reader.receive, b"the end"):
            got[reader].append(event)

    def talk(talker):
        while not ended.is_set():
            talker.send(b"%d" % sent[talker] + b" " * (sent[talker] % 3000))
            sent[talker] += 1
            talker.receive_ready()
            if sent[talker] % 50 == 0:
                talker.wait_read()  # not faster than evapid and Kamailio go, or the end takes long

    threads = [threading.Thread(target=read, args=[reader]) for reader in readers]
    threads += [threading.Thread(target=talk, args=[talker]) for talker in talkers]
    for thread in threads:
        thread.start()
    relayed = []
    try:
        for turn in range(10):
            for number in range(40):
                relayed.append(b"%d.%d:" % (turn, number) + b"x" * (number * 61 % 9000))
                assert ask(phone, "relay", relayed[-1]) == 1
            how(stage)
    finally:
        ended.set()
        assert ask(phone, "relay", b"the end") == 1
        for thread in threads:
            thread.join(60)
    for reader in readers:
        assert got[reader] == relayed
    for talker in talkers:
        last = sent[talker] - 1
        stage.kamailio.logged(rf"GOT {talker.index} {last}\b")
        heard = [int(text) for event, text in events_of(stage.kamailio, talker.index) if event == "GOT"]
        assert heard == list(range(sent[talker]))
    assert not stage.kamailio.lines("lost evapid")
    status = stage.evapid.status()
    assert status["totals"]["clients"]["accepted"] == 9
    assert status["totals"]["events"]["relay"] == len(relayed) + 1
    for entry in status["clients"]:
        out = entry["out"]
        assert out["relayed"] == out["delivered"] + out["queued_frames"] + sum(entry["dropped"].values())


# ---- killed


def test_a_killed_evapid_comes_back_with_its_clients(stage):
    phone = begin(stage, restart, {"workers": 2})
    clients = [stage.connect() for _ in range(3)]
    set_tag(stage, clients[1], b"blue")
    assert ask(phone, "relay", b"before") == 1
    for client in clients:
        assert client.receive() == b"before"
    before = stage.evapid.status()
    stage.evapid.kill_and_restart()
    status = stage.evapid.attached(stage.kamailio.pid, 2)
    assert status["session"] != before["session"]
    assert [entry["index"] for entry in status["clients"]] == [client.index for client in clients]
    for client in clients:
        stage.evapid.client(client)
        stage.kamailio.logged(rf"NEW {client.index}\b", 2)
    assert stage.kamailio.lines(rf"NEW {clients[1].index} \[blue\]")
    assert ask(phone, "multicast", b"to blue", tag="blue") == 1
    assert ask(phone, "relay", b"behind") == 1
    assert clients[1].receive() == b"to blue"
    for client in clients:
        assert client.receive() == b"behind"
        client.send(b"hello")
        stage.kamailio.logged(rf"GOT {client.index} hello;")
        assert lost_by(client, stage.evapid.status()) == 0
    assert stage.evapid.status()["totals"]["events"]["relay"] == 2
    assert stage.connect().index == 4


def test_a_killed_evapid_that_was_handed_everything_comes_back_too(stage):
    """What is stored for the time of a hand-over only, the Unix sockets and the links, is gone when that is over."""
    phone = begin(stage, restart, {"workers": 2})
    client = stage.connect()
    stage.evapid.restart()
    assert not [name for name in stage.evapid.stored() if name == "state" or re.match("worker|.*-socket", name)]
    stage.evapid.kill_and_restart()
    stage.evapid.attached(stage.kamailio.pid, 2)
    assert stage.evapid.client(client)["index"] == client.index
    assert ask(phone, "relay", b"to all") == 1
    assert client.receive() == b"to all"


def test_an_evapid_that_is_killed_before_it_has_begun_leaves_the_way_free(stage):
    """Its Unix sockets are still with the service manager when the next one starts."""
    begin(stage, restart)
    client = stage.connect()
    stage.evapid.terminate()
    with_doors = stage.evapid.stored()
    assert {"state", "kamailio-socket", "control-socket"} <= set(with_doors)
    stage.evapid.notifications.store.drop(lambda stored: stored.name == "state")
    stage.evapid.start(stage.evapid.command, stage.evapid.environment)
    stage.evapid.ready().attached(stage.kamailio.pid)
    assert stage.evapid.client(client)["index"] == client.index


def test_a_client_in_the_middle_of_a_frame_is_closed_when_evapid_was_killed(stage):
    phone = begin(stage, restart)
    speaking, slow, idle = stage.connect(), stage.connect(receive_buffer=4096), stage.connect()
    speaking.send_bytes(netstring(b"x" * 100)[:50])
    speaking.wait_read()
    body, sent = b"x" * 20000, 0
    while stage.evapid.client(slow)["out"]["queued_bytes"] < 100000:
        assert ask(phone, "relay", body) == 1
        assert idle.receive() == speaking.receive() == body
        sent += 1
    before = stage.evapid.status()["totals"]["out"]
    queued = before["relayed"] - before["delivered"]
    stage.evapid.kill_and_restart()
    stage.evapid.logged(rf"client {speaking.index}: its stream may stand in the middle of a frame")
    stage.evapid.logged(rf"client {slow.index}: its stream may stand in the middle of a frame")
    assert speaking.receive_ready() == [] and speaking.eof
    got = 0
    while slow._fill():
        while slow._take() is not None:
            got += 1
    assert got == sent - queued and slow.buffer
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.clients(1)
    totals = stage.evapid.status()["totals"]
    assert totals["out"]["dropped"]["lost"] == queued
    assert totals["out"]["relayed"] == totals["out"]["delivered"] + queued == 3 * sent
    assert totals["clients"]["closed"] == 2
    assert ask(phone, "relay", b"on we go") == 1
    assert idle.receive() == b"on we go"


def test_what_a_client_misses_after_kills_under_traffic_is_what_is_counted_as_lost(stage):
    """By the numbers that the clients saw: nothing doubled, nothing torn, and each gap is in the books."""
    phone = begin(stage, restart, {"workers": 2, "queue_size": 1 << 26}, limits={"max_queued_bytes": 1 << 28})
    readers = [stage.connect() for _ in range(8)]
    got = {reader: [] for reader in readers}
    relayed, ended, failures = 0, threading.Event(), {}

    def said(work, *arguments):
        """What goes wrong in a thread is for the test to judge."""
        try:
            work(*arguments)
        except (AssertionError, OSError) as error:
            failures[arguments] = error

    def read(reader):
        for event in iter(reader.receive, b"the end"):
            got[reader].append(int(event.split(b":")[0]))

    def publish():
        nonlocal relayed
        while not ended.is_set():
            batch = [phone.start("MESSAGE", "relay", body=b"%d:" % (relayed + i) + b"x" * (i * 97 % 5000)) for i in range(50)]
            relayed += len(batch)
            assert [int(answer["X-Rc"]) for answer in phone.finish_all(batch)] == [1] * len(batch)

    threads = [threading.Thread(target=said, args=[read, reader]) for reader in readers]
    threads.append(threading.Thread(target=said, args=[publish]))
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            seen = relayed + 200
            until(lambda: relayed > seen or not threads[-1].is_alive(), "events pass")
            stage.evapid.kill_and_restart()
    finally:
        ended.set()
        threads[-1].join(60)
        stage.evapid.attached(stage.kamailio.pid, 2)
        stage.evapid.until_status(lambda s: all(entry["state"] == "open" for entry in s["clients"]), "all are let in")
        assert ask(phone, "relay", b"the end") == 1
        for thread in threads[:-1]:
            thread.join(60)
    assert () not in failures, f"publishing: {failures[()]}"
    status = stage.evapid.status()
    assert status["totals"]["events"]["relay"] == relayed + 1
    there = {entry["index"] for entry in status["clients"]}
    for reader in readers:
        if reader.index not in there:
            continue  # it was closed in the middle of a frame, which its own log line says
        assert (reader,) not in failures, f"client {reader.index}: {failures[(reader,)]}"
        assert len(set(got[reader])) == len(got[reader])
        missing = sorted(set(range(relayed)) - set(got[reader]))
        assert len(missing) == lost_by(reader, status), f"{missing} {status['totals']}"
    totals = status["totals"]["out"]
    assert totals["relayed"] == totals["delivered"] + sum(totals["dropped"].values())
    assert len(there) > 0
