"""The HTTP endpoint: what /metrics says against what is so, /healthz and /readyz, and who can harm it."""

import itertools
import os
import re
import resource
import signal
import socket
import time
from threading import Thread

import pytest

import wire
from client import netstring, split_address
from evapid import ROOT, Evapid
from process import until
from ring import STARTS, WORKER, WORKERS, Ring, Wake, make_ring
from scrape import Answer, ask, connect, exchange, metrics, promtool, read_all

ROUTES = """
route[TEST] {
    if ($rU == "tagged") evapi_multicast("$rb", "blue");
    else if ($rU == "one") evapi_unicast("$rb", "blue");
    else evapi_relay("$rb");
    sl_send_reply("200", "OK");
}
event_route[evapi:connection-new] { evapi_set_tag("blue"); }
event_route[evapi:message-received] {
    if ($evapi(msg) == "wait") usleep("300000");
    evapi_unicast("$evapi(msg)", "blue");
}
"""


@pytest.fixture
def house(stage):
    """evapid with its endpoint, and a Kamailio."""
    stage.metrics = stage.new_address()
    stage.start_evapid(metrics={"address": stage.metrics})
    stage.start_kamailio(ROUTES)
    return stage


def until_metrics(stage, probe, what):
    def look():
        seen = metrics(stage.metrics)
        assert probe(seen), seen.text
        return seen
    return until(look, what)


def balanced(seen):
    """The books, in both directions."""
    out = seen.value("evapid_deliveries_done_total") + seen.value("evapid_deliveries_queued") + \
        seen.sum("evapid_deliveries_dropped_total")
    in_ = seen.value("evapid_messages_done_total") + seen.value("evapid_messages_waiting") + \
        seen.sum("evapid_messages_dropped_total")
    return seen.value("evapid_deliveries_begun_total") == out and seen.value("evapid_messages_total") == in_


# ---- what is there


def test_without_metrics_in_the_configuration_nobody_listens(stage):
    stage.start_evapid()
    inodes = {re.search(r"\d+", name)[0] for name in stage.evapid.descriptors().values() if name.startswith("socket:")}
    listening = [line for table in ("tcp", "tcp6") for line in open(f"/proc/net/{table}") if line.split()[9] in inodes]
    assert listening == []
    assert not stage.evapid.lines("metrics")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_paths_that_there_are(stage, host):
    at = stage.new_address(host)
    stage.start_evapid(metrics={"address": at})
    for path, type_ in (("/metrics", "text/plain; version=0.0.4; charset=utf-8"), ("/healthz", "text/plain; charset=utf-8")):
        answer = ask(at, path)
        assert (answer.status, answer.headers["content-type"]) == (200, type_)
        assert int(answer.headers["content-length"]) == len(answer.body) > 0
        head = ask(at, path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["content-length"]) > 0
    assert ask(at, "/metrics?name=all").status == 200
    for path in ("/", "/metric", "/metrics/", "/healthz/x", "/%2e%2e/etc/passwd"):
        assert ask(at, path).status == 404, path
    for method, more in (("POST", "Content-Length: 0\r\n"), ("PUT", ""), ("DELETE", ""), ("OPTIONS", ""), ("TRACE", "")):
        answer = ask(at, "/metrics", method, more)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD"), method
    assert ask(at, "/healthz").status == 200


def test_promtool_finds_nothing_to_complain_about(house):
    house.connect()
    checked = promtool("check", "metrics", text=ask(house.metrics).text())
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_ready_says_why_not(stage):
    at = stage.new_address()
    stage.start_evapid(metrics={"address": at}, shutdown_grace_ms=60000)

    def said(status, reason):
        def look():
            answer = ask(at, "/readyz")
            assert (answer.status, answer.text()) == (status, reason + "\n")
            return True
        until(look, f"/readyz says {status}, {reason}")
        assert metrics(at).value("evapid_ready") == (status == 200)
        assert ask(at, "/healthz").status == 200
    said(503, "no Kamailio is attached")
    stage.start_kamailio(ROUTES)
    said(200, "ready")
    client = stage.connect()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        stage.kamailio.terminate()
        said(503, "no Kamailio is attached")
        stage.start_kamailio(ROUTES, evapi={"bind_addr": address})
        said(503, f"listener {address} takes no clients")
    said(200, "ready")  # once its address is free
    stage.kamailio.signal(signal.SIGSTOP)
    for pid in stage.kamailio.members():
        os.kill(pid, signal.SIGSTOP)  # a worker that has something to do holds up the stop
    client.send(b"x")
    stage.evapid.client(client)
    stage.evapid.signal(signal.SIGINT)
    said(503, "evapid is stopping")
    for pid in stage.kamailio.members():
        os.kill(pid, signal.SIGCONT)
    stage.evapid.expect_end = True
    assert stage.evapid.ended() == 0


def test_ready_waits_for_the_end_of_a_hold(stage):
    at = stage.new_address()
    stage.start_evapid(metrics={"address": at}, attach_hold_ms=600000)
    stage.start_kamailio(ROUTES)
    client = stage.connect()
    stage.evapid.kill()
    client.receive_rest()
    stage.restart_evapid()
    stage.evapid.attached(stage.kamailio.pid)
    answer = ask(at, "/readyz")
    assert (answer.status, answer.text()) == (503, "events are held until the clients are there\n")
    assert metrics(at).value("evapid_ring_held") == 1
    stage.connect()
    until(lambda: ask(at, "/readyz").status == 200, "the hold ends")


# ---- what the figures say


def test_the_figures_are_those_of_the_status(house):
    clients = [house.connect() for _ in range(3)]
    phone = house.phone()
    for user, receivers in (("all", 3), ("tagged", 3), ("one", 1)):
        for _ in range(4):
            assert phone.ask("MESSAGE", user, body=b"event").code == 200
        for client in clients[:receivers]:
            client.receive_many(4)
    clients[0].send(b"hello")
    clients[0].receive()
    house.evapid.ask(command="send", client=clients[1].index, event="you")
    assert clients[1].receive() == b"you"
    clients[2].close()
    house.evapid.clients(2)
    refused = house.evapid.until_status(lambda s: s["totals"]["in"]["delivered"] == 1, "the message's route has ended")
    seen = metrics(house.metrics)
    status = house.evapid.status()
    totals, listener, worker = status["totals"], status["listeners"][0], status["kamailio"]["workers"][0]
    assert seen.labels("evapid_build_info") == [{"version": status["version"]}]
    assert seen.labels("evapid_kamailio_info") == [
        {"version": status["kamailio"]["version"], "module": status["kamailio"]["module"]}]
    for kind, events in (("relay", 4), ("multicast", 4), ("unicast", 5), ("send", 1)):
        assert seen.value("evapid_events_total", kind=kind) == totals["events"][kind] == events
    assert seen.value("evapid_deliveries_begun_total") == totals["out"]["relayed"] == 30
    assert seen.value("evapid_deliveries_done_total") == totals["out"]["delivered"]
    assert seen.value("evapid_delivered_bytes_total") == totals["out"]["bytes"]
    assert seen.value("evapid_queue_memory_bytes") == totals["out"]["queued_memory"]
    assert seen.value("evapid_messages_total") == totals["in"]["frames"] == 1
    assert seen.value("evapid_message_bytes_total") == totals["in"]["bytes"] == 5
    assert seen.value("evapid_messages_done_total") == 1
    assert seen.value("evapid_clients", listener=house.address, state="open") == listener["clients"] == 2
    assert seen.value("evapid_clients_listening") == 2
    assert seen.value("evapid_clients_accepted_total") == totals["clients"]["accepted"] == 3
    assert seen.value("evapid_clients_closed_total") == totals["clients"]["closed"] == 1
    assert seen.value("evapid_listener_accepted_total", listener=house.address) == 3
    assert seen.value("evapid_listener_max_clients", listener=house.address) == 100
    assert seen.value("evapid_listener_up", listener=house.address) == 1
    assert seen.value("evapid_kamailio_attached") == 1
    assert seen.value("evapid_workers") == seen.value("evapid_workers_declared") == 1
    assert seen.value("evapid_worker_clients", worker="0") == worker["clients"] == 2
    assert seen.value("evapid_ring_capacity_bytes") == status["kamailio"]["ring"]["capacity"]
    assert seen.value("evapid_ring_high_water_bytes") == refused["kamailio"]["ring"]["high_water"] > 0
    assert seen.value("evapid_queue_memory_limit_bytes") == 256 << 20
    assert seen.value("process_max_fds") == resource.prlimit(house.evapid.pid, resource.RLIMIT_NOFILE)[0]
    assert abs(seen.value("process_resident_memory_bytes") - house.evapid.rss_bytes()) < 16 << 20
    assert abs(time.time() - seen.value("process_start_time_seconds")) < 600
    until(lambda: 0 < seen.value("process_open_fds") - len(house.evapid.descriptors()) <= 8, "the scrape's are closed")
    assert balanced(seen)


def test_who_is_slow_and_what_is_dropped_shows(stage):
    stage.metrics = stage.new_address()
    raw = stage.new_address()
    stage.start_evapid(metrics={"address": stage.metrics}, limits={"max_queued_bytes": 65536, "slow_policy": "drop-newest"},
                       listeners=[{"address": raw, "max_clients": 1}])
    stage.start_kamailio(ROUTES)
    stalled = stage.connect(raw, receive_buffer=4096)
    stage.connect(raw, admitted=False).receive_rest()
    phone = stage.phone()

    def more():
        phone.ask("MESSAGE", body=b"x" * 30000)
        seen = metrics(stage.metrics)
        assert seen.value("evapid_deliveries_dropped_total", reason="slow") >= 3, seen.text
        return seen
    seen = until(more, "events are dropped")
    assert seen.value("evapid_clients_slow") == 1
    assert 0.4 < seen.value("evapid_fullest_queue_ratio") <= 1
    assert 25000 < seen.value("evapid_queued_bytes") <= 65536
    assert seen.value("evapid_deliveries_queued") > 0
    assert seen.value("evapid_listener_refused_total", listener=raw, reason="full") == 1
    assert seen.sum("evapid_listener_refused_total") == 1
    assert balanced(seen)
    assert stage.evapid.client(stalled)["slow"]


def test_a_full_queue_of_kamailio_counts_on_over_its_restart(stage):
    stage.metrics = stage.new_address()
    stage.start_evapid(metrics={"address": stage.metrics})
    stage.start_kamailio(ROUTES, evapi={"queue_size": 65536}, settings="maxbuffer=262144\n")
    phone, counted = stage.phone(), 0
    for _ in range(2):
        phone.ask("MESSAGE", body=b"x" * 40000)
        counted += 1
        seen = metrics(stage.metrics)
        assert seen.value("evapid_ring_refused_total", reason="large") == counted
        assert seen.value("evapid_ring_refused_total", reason="full") == 0
        stage.kamailio.terminate()
        stage.evapid.detached()
        stage.restart_kamailio()
    phone.ask("MESSAGE", body=b"x" * 40000)
    assert metrics(stage.metrics).value("evapid_ring_refused_total", reason="large") == counted + 1


def test_what_kamailio_says_of_itself_can_not_forge_a_line(stage):
    stage.metrics = stage.new_address()
    stage.start_evapid(metrics={"address": stage.metrics})
    version = b'5"} 1\nforged 1\n\\\xff\x00'
    hello = wire.hello()[:-7] + wire.text(version)
    link, memory, event = wire.Link(stage.evapid.kamailio_socket), make_ring(65536), Wake()
    link.send(wire.frame(wire.HELLO, hello[8:]), [memory, event.passed])
    stage.evapid.attached()
    seen = metrics(stage.metrics)
    assert seen.labels("evapid_kamailio_info") == [
        {"module": "0.0", "version": r'5\"} 1\\x0aforged 1\\x0a\\\\xff'}]
    assert promtool("check", "metrics", text=seen.text).returncode == 0
    link.close()
    os.close(memory)
    event.close()


# ---- the histograms


def of(seen, name):
    """Count, sum and the buckets of a histogram."""
    buckets = [(float(labels["le"]), seen.value(name + "_bucket", **labels)) for labels in seen.labels(name + "_bucket")]
    counts = [count for _, count in buckets]
    assert [le for le, _ in buckets] == sorted(le for le, _ in buckets) and buckets[-1][0] == float("inf")
    assert counts == sorted(counts) and counts[-1] == seen.value(name + "_count")
    return seen.value(name + "_count"), seen.value(name + "_sum"), dict(buckets)


def test_every_delivery_is_in_the_histogram_of_waits(house):
    clients = [house.connect() for _ in range(3)]
    phone = house.phone()
    for _ in range(20):
        phone.ask("MESSAGE", body=b"for all")
        phone.ask("MESSAGE", "one", body=b"for one")
    for client in clients:
        client.receive_many(20)
    seen = until_metrics(house, lambda seen: seen.value("evapid_deliveries_done_total") == 80, "all is delivered")
    count, total, _ = of(seen, "evapid_queue_wait_seconds")
    assert count == 80 and 0 < total < 80 * 30


@pytest.mark.parametrize("user", ["all", "tagged"])
def test_an_event_waits_until_its_client_reads(house, user):
    """What a client leaves lying for a time has waited at least that long; what the others took at once is not delayed."""
    stalled, other = house.connect(receive_buffer=4096), house.connect()
    phone, sent = house.phone(), 0
    while house.evapid.client(stalled)["out"]["queued_frames"] < 3:
        phone.ask("MESSAGE", user, body=b"x" * 50000)
        other.receive()
        sent += 1
    waiting = house.evapid.client(stalled)["out"]["queued_frames"]
    before = of(metrics(house.metrics), "evapid_queue_wait_seconds")
    assert before[0] == 2 * sent - waiting
    time.sleep(1.1)  # a wait that is to be measured
    stalled.receive_many(sent)
    seen = until_metrics(house, lambda seen: seen.value("evapid_deliveries_queued") == 0, "it has read all")
    count, total, buckets = of(seen, "evapid_queue_wait_seconds")
    assert count == 2 * sent
    assert total - before[1] >= 1.1 * waiting
    assert buckets[1.0] == before[2][1.0]


def test_an_admission_lasts_until_the_route_has_run(house):
    house.connect()
    first = of(metrics(house.metrics), "evapid_admission_seconds")
    assert first[0] == 1
    for pid in house.kamailio.members():
        os.kill(pid, signal.SIGSTOP)
    client = house.connect(admitted=False)
    house.evapid.client(client, "admitting")
    time.sleep(0.6)  # a wait that is to be measured
    assert of(metrics(house.metrics), "evapid_admission_seconds")[0] == 1
    for pid in house.kamailio.members():
        os.kill(pid, signal.SIGCONT)
    house.evapid.client(client)
    count, total, _ = of(metrics(house.metrics), "evapid_admission_seconds")
    assert count == 2 and 0.6 <= total - first[1] < 60
    house.kamailio.kill()  # those who have been let in once are not counted again
    house.evapid.detached()
    house.restart_kamailio()
    house.evapid.clients(2)
    assert of(metrics(house.metrics), "evapid_admission_seconds")[0] == 2


def test_a_message_waits_until_its_route_begins_also_over_a_restart_of_kamailio(house):
    client = house.connect()
    for _ in range(5):
        client.send(b"at once")
        client.receive()
    before = of(metrics(house.metrics), "evapid_route_start_seconds")
    assert before[0] == 5
    client.send_bytes(netstring(b"wait") + netstring(b"behind it"))  # which waits for 0.3 s
    assert client.receive_many(2) == [b"wait", b"behind it"]
    seen = until_metrics(house, lambda seen: seen.value("evapid_messages_waiting") == 0, "the routes end")
    count, total, _ = of(seen, "evapid_route_start_seconds")
    assert count == 7 and 0.25 <= total - before[1] < 2 * 30
    client.send(b"looked at by nobody")
    assert client.receive() == b"looked at by nobody"
    house.kamailio.kill()
    house.evapid.detached()
    client.send(b"to the next one")
    time.sleep(0.5)  # a wait that is to be measured
    house.restart_kamailio()
    assert client.receive() == b"to the next one"
    seen = until_metrics(house, lambda seen: seen.value("evapid_messages_waiting") == 0, "the route ends")
    assert of(seen, "evapid_route_start_seconds")[0] == 9
    assert 0 <= of(seen, "evapid_route_start_seconds")[1] - total < 2 * 30


def test_nonsense_in_the_ring_can_not_make_a_count_go_back_or_evapid_fail(house):
    client = house.connect()
    client.send(b"one")
    client.receive()
    ring, last = Ring(house.kamailio.pid), metrics(house.metrics).growing()
    slots = [WORKERS + WORKER * worker + STARTS + 8 * i for worker in (0, 127) for i in range(22)]
    for value in (5, 0, 1 << 40, 3, 1 << 62, (1 << 64) - 1):
        for slot in [*slots, 72, 80]:
            ring.set(slot, value)
        now = metrics(house.metrics).growing()
        assert {key for key in last if now[key] < last[key]} == set()
        last = now
    ring.close()
    client.send(b"still there")
    assert client.receive() == b"still there"


# ---- over replacements and kills


def grown(last, now):
    assert {key: (last[key], now.get(key)) for key in last if now.get(key, -1) < last[key]} == {}


OF_A_PROCESS = ("process_", "evapid_turn_")


def test_counts_go_on_when_evapid_is_replaced_and_nobody_finds_the_door_shut(house):
    client, phone = house.connect(), house.phone()
    last = metrics(house.metrics).growing()
    for _ in range(4):
        assert phone.ask("MESSAGE", body=b"event").code == 200
        client.receive()
        client.send(b"message")
        client.receive()
        early = connect(house.metrics)  # it has connected, and asks when another evapid is there
        house.replace_evapid()
        early.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        read_all(early)  # an answer, or its end if it had been taken already: nobody is left waiting
        early.close()
        seen = metrics(house.metrics)
        now = seen.growing()
        grown({key: value for key, value in last.items() if not key[0].startswith(OF_A_PROCESS)}, now)
        last = now
        assert balanced(seen)
    assert of(seen, "evapid_queue_wait_seconds")[0] == seen.value("evapid_deliveries_done_total") == 8
    assert of(seen, "evapid_route_start_seconds")[0] == 4


def test_a_scrape_loop_never_fails_to_connect_while_evapid_is_replaced(house):
    """Connections are taken by the one or the other, and what is answered is answered whole."""
    stop, refused, answered, torn = house.folder / "stop", [], [], []

    def scrape():
        while not stop.exists():
            try:
                bytes_ = exchange(house.metrics, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            except ConnectionRefusedError as error:
                refused.append(error)
            except (ConnectionResetError, BrokenPipeError):
                pass  # it had been taken by one who left
            else:
                (answered if bytes_.endswith(b"\n") and b"process_max_fds" in bytes_ else torn).append(bytes_)
    scraper = Thread(target=scrape)
    scraper.start()
    try:
        for _ in range(5):
            count = len(answered)
            until(lambda: len(answered) > count + 5, "it is scraped")
            house.replace_evapid()
    finally:
        stop.touch()
        scraper.join()
    assert refused == [] and [bytes_ for bytes_ in torn if bytes_] == []


def test_counts_and_the_door_stay_over_restarts_and_kills_by_a_service_manager(stage):
    stage.metrics = stage.new_address()
    stage.start_supervised(metrics={"address": stage.metrics})
    stage.start_kamailio(ROUTES)
    client, phone = stage.connect(), stage.phone()
    once = ("evapid_listener_", "evapid_ring_stale", "evapid_socket_", *OF_A_PROCESS)  # those marked in the document
    for again in (stage.evapid.restart, stage.evapid.kill_and_restart, stage.evapid.restart):
        assert "metrics" in stage.evapid.stored()  # whoever connects meanwhile waits in the kernel
        phone.ask("MESSAGE", body=b"event")
        client.receive()
        client.send(b"message")
        client.receive()
        stage.evapid.until_status(lambda s: s["totals"]["in"]["waiting"] == 0, "the route has ended")
        last = {key: value for key, value in metrics(stage.metrics).growing().items() if not key[0].startswith(once)}
        again()
        stage.evapid.attached(stage.kamailio.pid)
        stage.evapid.client(client)
        seen = metrics(stage.metrics)
        grown(last, seen.growing())
        assert balanced(seen)
    assert of(seen, "evapid_queue_wait_seconds")[0] == 6


def test_an_address_that_changes_with_a_replacement_is_left(house):
    before, house.metrics = house.metrics, house.new_address()
    house.replace_evapid(metrics={"address": house.metrics})
    assert ask(house.metrics).status == 200
    until(lambda: pytest.raises(ConnectionRefusedError, connect, before), "the other one is closed")


def test_an_address_that_is_taken_ends_the_start_and_says_so(stage):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        failing = Evapid(stage.folder, {"metrics": {"address": f"127.0.0.1:{taken.getsockname()[1]}"}})
        assert failing.ended() == 1
        assert failing.lines(r"error http 127\.0\.0\.1:\d+: address in use")


def test_a_public_address_starts_with_a_warning(stage):
    stage.start_evapid(metrics={"address": stage.new_address()})
    assert not stage.evapid.lines("reachable from public networks")
    stage.evapid.terminate()
    stage.start_evapid(metrics={"address": stage.new_address().replace("127.0.0.1", "0.0.0.0")})
    assert stage.evapid.lines(r"warning http 0\.0\.0\.0:\d+: reachable from public networks")


# ---- who can harm it


def works(house, client):
    """Events and messages pass, and the next scrape is answered."""
    client.send(b"still there")
    assert client.receive() == b"still there"
    assert metrics(house.metrics).value("evapid_clients_listening") == 1


def test_a_thousand_connections_keep_nobody_out(house):
    client, held = house.connect(), []
    try:
        for number in range(1000):
            held.append(connect(house.metrics))
            if number % 2:
                held[-1].sendall(b"GET /metrics HTTP/1.1\r\nX: ")  # and never the rest
            if number % 250 == 0:
                works(house, client)
        works(house, client)
        until_metrics(house, lambda seen: 64 < seen.value("process_open_fds") < 130, "as many are open as may be")
    finally:
        for connection in held:
            connection.close()
    works(house, client)
    until_metrics(house, lambda seen: seen.value("process_open_fds") < 40, "all of them are closed")


def test_one_that_sends_a_byte_now_and_then_is_closed_in_time(house):
    client = house.connect()
    slow, request = connect(house.metrics), b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 100000
    sent = iter(range(len(request)))

    def closed():
        try:
            at = next(sent)
            slow.send(request[at:at + 1])
            slow.setblocking(False)
            return slow.recv(1) == b""
        except BlockingIOError:
            return False
        except (ConnectionResetError, BrokenPipeError):
            return True
    until(closed, "it is closed")
    works(house, client)
    slow.close()


def test_who_never_reads_the_answer_holds_up_nobody(house):
    client, held = house.connect(), []
    for _ in range(40):
        held.append(socket.socket())
        held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        held[-1].connect(split_address(house.metrics))
        held[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    works(house, client)
    for connection in held:
        connection.close()


@pytest.mark.parametrize("bytes_", [
    b"\0" * 5000, b"\r\n" * 5000, b"GET " + b"/" * 60000 + b" HTTP/1.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n" + b"A: " + b"b" * 60000 + b"\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 60000,
    b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50, os.urandom(20000),
], ids=["zeros", "empty lines", "a long path", "a long header", "another version", "a long body", "a chunk", "many at once",
        "noise"])
def test_garbage_harms_nobody(house, bytes_):
    client = house.connect()
    with connect(house.metrics) as connection:
        try:
            connection.sendall(bytes_)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError):
            pass
        said = read_all(connection)
    assert said == b"" or Answer(said).status in (200, 400, 405, 413, 414, 431, 505), said[:100]
    assert said.count(b"HTTP/1.1 200") <= 1
    works(house, client)


def test_without_descriptors_the_endpoint_waits_and_nobody_else_notices(house):
    client = house.connect()
    works(house, client)
    client.send(b"x")
    client.receive()  # behind the turn in which the scrape's connection is closed
    taken = house.evapid.descriptors()
    free = next(fd for fd in itertools.count() if fd not in taken)
    soft, hard = resource.prlimit(house.evapid.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(house.evapid.pid, resource.RLIMIT_NOFILE, (free, hard))
    waiting = connect(house.metrics)
    waiting.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    house.evapid.logged(r"http \S+: cannot accept connections: Too many open files")
    before = of_cpu(house.evapid.pid)
    for _ in range(3):
        client.send(b"still there")
        assert client.receive() == b"still there"
    time.sleep(1)  # in which it would spin
    assert of_cpu(house.evapid.pid) - before < 0.5
    resource.prlimit(house.evapid.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert Answer(read_all(waiting)).status == 200
    waiting.close()
    works(house, client)


def of_cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- the document


def test_the_document_has_every_metric_with_its_type_and_labels(house):
    house.connect()
    seen = metrics(house.metrics)
    text = (ROOT / "docs/metrics.md").read_text().split("<!-- test: the metrics -->\n", 1)[1].split("\n\n", 1)[0]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    documented = {row[0].strip("`"): (row[1], set(re.findall(r"`(\w+)`", row[2]))) for row in table}
    exposed = {name: (kind, {label for labels in seen.labels(name) for label in labels})
               for name, kind in seen.kinds.items()}
    assert documented == exposed
    for row in table:  # the values of labels that are words of ours
        name = row[0].strip("`")
        for label in documented[name][1] & {"reason", "kind", "socket", "state"}:
            values = {labels[label] for labels in seen.labels(name)}
            assert {value for value in values if f"`{value}`" not in row[4]} == set(), name
