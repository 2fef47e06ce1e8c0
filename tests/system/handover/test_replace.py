"""evapid --replace when it can't be done, when it is tried by the wrong one or by a bad one, with another configuration, and
in the middle of everything. What it is when all goes well is in test_handover.py."""

import json
import os
import re
import resource
import socket
import struct
import subprocess
import threading
import time

import pytest

from async_calls import NATIVE as ASYNC
from client import Client, netstring, refused
from evapid import EVAPID, SANITIZER
from handover import ROUTES, begin, goes_on, replace, stall
from privilege import only_root
from process import DEADLINE_S, until
from ring import CLAIMED, SLOTS, Wake, make_ring
from script import ask, events_of
from successor import BATCH, NAME, Successor, try_replace
from wire import WELCOME, Link, hello

CLOSING = ROUTES.replace('else if ($evapi(msg) =~ "^say:")',
                         'else if ($evapi(msg) == "bye") evapi_close(); else if ($evapi(msg) =~ "^say:")')


# ---- it can't be done


def test_a_bad_configuration_is_refused_before_anybody_is_asked(stage):
    phone = begin(stage, replace)
    client = stage.connect()
    code, said = try_replace(stage, limits={"max_queued_bytes": 1})
    assert code == 1
    assert re.fullmatch(r".*/successor.json:\d+:\d+: limits.max_queued_bytes: 1 is out of range: .*\n", said)
    assert not stage.evapid.lines("replaced")
    goes_on(stage, phone, [client])


def test_a_listener_that_can_not_be_had_ends_the_successor_only(stage):
    phone = begin(stage, replace)
    client = stage.connect()
    before = sorted(os.listdir(stage.folder))
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        code, said = try_replace(stage, listeners=[{"address": taken}], kamailio_socket=str(stage.folder / "moved.sock"),
                                 control_access={"mode": "0600"})
    assert code == 1 and f"error listener {taken}: address in use" in said
    assert stage.evapid.control_socket.stat().st_mode & 0o777 == 0o660
    stage.evapid.logged("warning evapid: not replaced: the successor did not get ready; going on")
    goes_on(stage, phone, [client])
    assert sorted(os.listdir(stage.folder)) == sorted([*before, "successor.json"])
    stage.connect()


def test_a_door_that_is_anothers_ends_the_successor_only(stage):
    phone = begin(stage, replace)
    client = stage.connect()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(stage.folder / "other.sock"))
        other.listen()
        code, said = try_replace(stage, kamailio_socket=str(stage.folder / "other.sock"))
    assert code == 1 and "other.sock: another process listens there" in said
    goes_on(stage, phone, [client])


def test_nobody_is_there_to_be_replaced(stage):
    stage.start_evapid()
    stage.evapid.terminate()
    code, said = try_replace(stage)
    assert code == 1 and "control.sock: no evapid runs there: start without --replace" in said
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(stage.evapid.control_socket))
        code, said = try_replace(stage)
    assert code == 1 and "control.sock: no evapid runs there: start without --replace" in said


def test_who_answers_at_the_control_socket_is_no_evapid(stage):
    stage.start_evapid()
    stage.evapid.terminate()
    for answer, complaint in ((b"", "does not answer"), (b"hello\n", "refuses: it does not say why"),
                              (b'{"error":"x","detail":"not now"}\n', "refuses: not now"),
                              (b'{"replace":{"descriptors":-1}}\n', "refuses"), (b"x" * 5000, "does not answer"),
                              (b'{"replace":{"descriptors":3}}\n', "broke off"),
                              (b'{"replace":{"descriptors":1}}\n' + b"ledger".ljust(32, b"\0"), "not all descriptors")):
        path = stage.evapid.control_socket
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()

            def serve():
                connection, _ = other.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)
            thread = threading.Thread(target=serve)
            thread.start()
            code, said = try_replace(stage)
            thread.join()
        assert code == 1 and complaint in said, answer


@only_root("can become somebody else")
def test_another_user_may_not(stage):
    phone = begin(stage, replace)
    client = stage.connect()

    def run_as_nobody(*words):
        return subprocess.run([str(EVAPID), *map(str, words)], capture_output=True, text=True, timeout=DEADLINE_S,
                              env={**os.environ, **SANITIZER}, user=65534, group=65534, extra_groups=[])
    stage.folder.chmod(0o755)
    code, said = try_replace(stage, run=run_as_nobody)
    assert code == 1 and "control.sock: Permission denied" in said
    stage.evapid.control_socket.chmod(0o666)
    code, said = try_replace(stage, run=run_as_nobody)
    assert code == 1 and "refuses: only root and evapid's own user may take over" in said
    stage.evapid.logged("not replaced: only root and evapid's own user may take over")
    goes_on(stage, phone, [client])


@pytest.mark.parametrize("store", [4096, 0])
def test_a_service_is_restarted_instead(stage, store):
    stage.start_supervised(store)
    stage.start_kamailio(ROUTES)
    client = stage.connect()
    code, said = try_replace(stage)
    assert code == 1 and "refuses: it is run by a service manager: restart the service instead" in said
    goes_on(stage, stage.phone(), [client])


def test_one_that_is_stopping_is_not_replaced(stage):
    phone = begin(stage, replace, shutdown_grace_ms=600000)
    client = stage.connect()
    ask(phone, "gate", gate="2")
    client.send(b"a route that runs")
    stage.kamailio.logged(rf"GOT {client.index}")
    stage.evapid.signal(15)
    stage.evapid.logged("stopping: SIGTERM")
    code, said = try_replace(stage)
    assert code == 1 and "refuses: evapid is stopping" in said
    ask(phone, "gate", gate="0")
    assert stage.evapid.ended() == 0


# ---- the successor is a bad one


BAD = {
    "asks and leaves": lambda successor: None,
    "takes and leaves": lambda successor: successor.take(),
    "takes and says something else": lambda successor: (successor.take(), successor.say(b"steady\n")),
    "takes and says half of it": lambda successor: (successor.take(), successor.say(b"rea")),
    "takes and says much": lambda successor: (successor.take(), successor.say(b"x" * 5000)),
    "takes and asks again": lambda successor: (successor.take(), successor.ask()),
    "says it too soon": lambda successor: (successor.take(), successor.say(b"ready")),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_successor_that_breaks_off_costs_nothing(stage, bad):
    phone = begin(stage, replace, {"workers": 2})
    clients = [stage.connect() for _ in range(3)]
    clients[0].send_bytes(netstring(b"in two parts")[:7])
    clients[0].wait_read()
    opened = len(stage.evapid.descriptors())
    for _ in range(5):
        successor = Successor(stage.evapid).ask()
        BAD[bad](successor)
        successor.close()
    stage.evapid.logged("not replaced: .*; going on", 5)
    clients[0].send_bytes(netstring(b"in two parts")[7:])
    stage.kamailio.logged(rf"GOT {clients[0].index} in two parts;")
    goes_on(stage, phone, clients)
    until(lambda: len(stage.evapid.descriptors()) == opened, "no descriptor is left over")
    replace(stage)
    goes_on(stage, phone, clients, b"replaced")


def test_a_refused_successor_is_told_so_and_everything_is_offered(stage):
    begin(stage, replace, {"workers": 2})
    client = stage.connect()
    successor = Successor(stage.evapid).ask()
    names = successor.take()
    assert sorted(names) == sorted(["ledger", "state", "kamailio-socket", "control-socket", "listener-1", "worker-0",
                                    "worker-1", "ring", "ring-wake", f"client-{client.index}"])
    successor.say(b"no\n")
    assert json.loads(successor.rest()) == {"error": "not replaced", "detail": "the successor did not get ready"}
    successor.close()


@pytest.mark.parametrize("says", [b"", b"r"], ids=["nothing", "a byte now and again"])
def test_a_successor_that_does_not_get_ready_is_waited_for_ten_seconds_and_no_longer(stage, says):
    """SIP goes on meanwhile, and what was issued and said is delivered afterwards."""
    phone = begin(stage, replace)
    client = stage.connect()
    successor = Successor(stage.evapid).ask()
    successor.take()
    sent = [b"%d" % number for number in range(20)]
    for word in sent:
        assert ask(phone, "relay", word) == 1
        client.send(word)

    def dribble():
        if says:
            time.sleep(0.2)
            try:
                successor.say(says)
            except BrokenPipeError:
                pass  # it goes on
        return stage.evapid.lines("not replaced: the successor did not get ready; going on")
    until(dribble, "it goes on", 25)
    successor.close()
    assert client.receive_many(20) == sent
    stage.kamailio.logged(rf"GOT {client.index} 19;")
    goes_on(stage, phone, [client])


def test_a_successor_that_may_not_have_that_many_descriptors(stage):
    phone = begin(stage, replace)
    clients = [stage.connect() for _ in range(20)]

    def run_with_few(*words):
        without = {"ASAN_OPTIONS": SANITIZER["ASAN_OPTIONS"] + ":detect_leaks=0"}  # for which there are too few as well
        return subprocess.run([str(EVAPID), *map(str, words)], capture_output=True, text=True, timeout=DEADLINE_S,
                              env={**os.environ, **SANITIZER, **without},
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)))
    code, said = try_replace(stage, run=run_with_few)
    assert code == 1 and "not all descriptors have arrived: too few may be open (ulimit -n)" in said
    stage.evapid.logged("not replaced: the successor did not get ready; going on")
    goes_on(stage, phone, clients)


# ---- another configuration


def test_listeners_come_and_go_and_clients_stay(stage):
    kept, left, new = (stage.new_address() for _ in range(3))
    phone = begin(stage, replace, listeners=[{"address": kept}, {"address": left, "framing": "raw"}])
    clients = [stage.connect(kept), stage.connect(left), stage.connect()]
    stage.replace_evapid(listeners=[{"address": kept, "max_clients": 1, "framing": "raw"}, {"address": new}],
                         kamailio_socket=str(stage.folder / "moved.sock"), module_listener=False)
    assert refused(left) and refused(stage.address)
    states = {entry["address"]: (entry["state"], entry["source"], entry["clients"])
              for entry in stage.evapid.status()["listeners"]}
    assert states == {kept: ("listening", "config", 1), new: ("listening", "config", 0), left: ("closed", "config", 1),
                      stage.address: ("closed", "module", 1)}
    assert stage._keep(Client(kept)).receive_rest() == []  # max_clients
    clients.append(stage.connect(new))
    assert ask(phone, "relay", b"to all") == 1
    for client in (clients[0], clients[2], clients[3]):  # the framing is what it was when they came
        assert client.receive() == b"to all"
    assert clients[1].receive_bytes(6) == b"to all"
    clients[1].send_bytes(b"raw")
    stage.kamailio.logged(rf"GOT {clients[1].index} raw;")
    until(lambda: not (stage.folder / "kamailio.sock").exists(), "the file that nobody listens at is removed")
    stage.replace_evapid(listeners=[])
    for client in clients:
        client.close()
    stage.evapid.until_status(lambda s: s["listeners"] == [], "listeners without clients are forgotten")


def test_a_lower_limit_holds_for_what_waits_already(stage):
    """A client for which more waits than may now is the first to be disconnected; memory stays bounded."""
    phone = begin(stage, replace, limits={"max_queued_bytes": 1 << 26, "linger_ms": 600000})
    slow, quick = stage.connect(receive_buffer=4096), stage.connect()
    events = stall(stage, phone, slow, [quick], 1 << 20)
    relayed = len(events)
    stage.replace_evapid(limits={"max_queued_bytes": 1 << 18, "linger_ms": 600000})
    entry = stage.evapid.client(slow)
    assert entry["out"]["queued_bytes"] > 1 << 19
    assert ask(phone, "relay", b"one more") == 1
    assert quick.receive() == b"one more"
    stage.evapid.logged(rf"client {slow.index}: .* does not keep up: .* limit 262144")
    entry = next(entry for entry in stage.evapid.status()["clients"] if entry["index"] == slow.index)
    assert entry["out"]["relayed"] == relayed + 1
    assert entry["dropped"]["slow"] == relayed + 1 - entry["out"]["delivered"] - entry["out"]["queued_frames"]
    assert slow.receive_rest() == events[:entry["out"]["delivered"] + entry["out"]["queued_frames"]]


def test_a_lower_limit_of_messages_holds_behind_one_that_has_come_in_part(stage):
    begin(stage, replace)
    client = stage.connect()
    client.send(b"before")
    stage.kamailio.logged(rf"GOT {client.index} before;")
    client.send_bytes(netstring(b"x" * 3000)[:1500])
    client.wait_read()
    stage.replace_evapid(limits={"max_message_bytes": 1000})
    client.send_bytes(netstring(b"x" * 3000)[1500:])
    stage.kamailio.logged(rf"GOT {client.index} x+;")
    client.send(b"x" * 1001)
    assert client.receive_rest() == []
    stage.evapid.logged(rf"client {client.index}: .* byte 3015 of its stream .* the length is over the limit")


# ---- in the middle of everything


def test_many_clients(stage):
    """More descriptors than one message takes, of which some have come and gone."""
    phone = begin(stage, replace, {"max_clients": 1000})
    clients = [stage._keep(Client(stage.address)) for _ in range(400)]
    stage.evapid.clients(400)
    for client in clients[::4]:
        client.close()
    stage.evapid.clients(300)
    clients += [stage._keep(Client(stage.address)) for _ in range(50)]
    rest = [client for number, client in enumerate(clients) if number >= 400 or number % 4]
    stage.evapid.clients(350)
    before = stage.evapid.status()
    for turn in range(3):
        replace(stage)
        assert ask(phone, "relay", b"%d" % turn) == 1
        for client in rest:
            assert client.receive() == b"%d" % turn
    after = stage.evapid.status()
    assert [entry["index"] for entry in after["clients"]] == [entry["index"] for entry in before["clients"]]
    assert after["totals"]["out"]["delivered"] == 3 * 350


def test_ipv6_and_raw(stage):
    addresses = [stage.new_address("::1"), stage.new_address()]
    phone = begin(stage, replace, listeners=[{"address": addresses[0]}, {"address": addresses[1], "framing": "raw"}])
    six, raw = stage.connect(addresses[0]), stage.connect(addresses[1], receive_buffer=4096)
    expected = b""
    for turn in range(3):
        expected += b"".join(stall(stage, phone, raw, [six], (turn + 1) << 18))
        replace(stage)
    assert stage.evapid.client(raw)["out"]["queued_bytes"] > 0
    assert raw.receive_bytes(len(expected)) == expected
    raw.send_bytes(b"said raw")
    stage.kamailio.logged(rf"GOT {raw.index} said raw;")
    assert {entry["address"] for entry in stage.evapid.status()["clients"]} == {
        f"[::1]:{six.port}", f"127.0.0.1:{raw.port}"}
    again = stage.connect(addresses[0])
    assert ask(phone, "relay", b"end") == 1
    assert again.receive() == six.receive() == b"end"


def test_a_client_that_is_being_closed_gets_what_it_was_given(stage):
    stage.start_evapid(limits={"linger_ms": 600000})
    stage.start_kamailio(CLOSING)
    phone = stage.phone()
    client = stage.connect(receive_buffer=4096)
    events = stall(stage, phone, client)
    client.send(b"bye")
    stage.evapid.client(client, "flushing")
    for _ in range(2):
        replace(stage)
        stage.evapid.client(client, "flushing")
    assert client.receive_rest() == events
    stage.kamailio.logged(rf"CLOSED {client.index};")
    stage.evapid.clients(0)


def test_a_queue_that_is_held_is_held_by_the_successor(stage):
    """Kamailio has come back, and does not let the client in yet: what it has issued waits for that."""
    phone = begin(stage, replace, attach_hold_ms=600000)
    client = stage.connect()
    config = stage.kamailio.config
    stage.kamailio.terminate()
    config.params["pv"] = {"shvset": "gate=i:1"}
    stage.restart_kamailio()
    stage.evapid.until_status(lambda s: s["kamailio"]["ring"]["held"], "the queue is held")
    for word in (b"one", b"two"):
        assert ask(phone, "relay", word) == 1
    replace(stage)
    status = stage.evapid.status()
    assert status["kamailio"]["ring"]["held"] and status["totals"]["events"]["relay"] == 0
    assert ask(phone, "relay", b"three") == 1
    assert client.receive_ready() == []
    ask(phone, "gate", gate="0")
    assert client.receive_many(3) == [b"one", b"two", b"three"]
    assert [event for event, _ in events_of(stage.kamailio, client.index)] == ["NEW"]


def test_the_end_of_a_hold_comes_though_evapid_is_replaced(stage):
    phone = begin(stage, replace, attach_hold_ms=10000)
    clients = [stage.connect(), stage.connect()]
    clients[1].close()
    stage.evapid.clients(1)
    config = stage.kamailio.config
    stage.kamailio.terminate()
    config.params["pv"] = {"shvset": "gate=i:1"}
    stage.restart_kamailio()
    assert ask(phone, "relay", b"to nobody") == 1
    replace(stage)
    stage.evapid.logged(r"0 of \d clients are there after 10000 ms \(attach_hold_ms\)")
    assert stage.evapid.until_status(lambda s: not s["kamailio"]["ring"]["held"], "it is held no more")
    ask(phone, "gate", gate="0")
    stage.evapid.client(clients[0])
    assert ask(phone, "relay", b"on") == 1
    assert clients[0].receive() == b"on"


def test_a_kamailio_that_is_just_attaching(stage):
    """One of its two workers is there; the other one comes to the successor."""
    stage.start_evapid()
    wake = Wake()
    memory = make_ring(65536)
    links = []
    for worker in range(2):
        link = Link(stage.evapid.kamailio_socket)
        links.append(link)
        link.send(hello(instance=77, worker=worker, workers=2, pid=os.getpid()), [memory, wake.passed])
        assert link.frame()[0] == WELCOME
        replace(stage)
    stage.evapid.attached(os.getpid(), 2)
    replace(stage)
    assert stage.evapid.attached(os.getpid(), 2)["kamailio"]["workers_declared"] == 2
    for link in links:
        link.close()
    stage.evapid.detached()
    wake.close()
    os.close(memory)


def test_connections_that_have_said_nothing_yet_may_come_again(stage):
    """A worker without a HELLO and an inquiry without a request are not handed over: they end, and nobody else."""
    phone = begin(stage, replace)
    client = stage.connect()
    stranger, inquiry = Link(stage.evapid.kamailio_socket), Successor(stage.evapid)
    stage.evapid.status()
    replace(stage)
    assert stranger.read() == b"" and inquiry.rest() == b""
    stranger.close()
    inquiry.close()
    goes_on(stage, phone, [client])


def test_two_successors_at_once(stage):
    """One after the other, or one of them gives up: somebody serves."""
    phone = begin(stage, replace)
    client = stage.connect()
    path = stage.folder / "successor.json"
    path.write_text(json.dumps(stage.evapid.settings))
    command = [str(EVAPID), "--replace", "-c", str(path)]
    stage.evapid.expect_end = True
    logs = [open(stage.folder / f"successor-{number}.log", "wb") for number in range(2)]
    both = [subprocess.Popen(command, stderr=log, env={**os.environ, **SANITIZER}) for log in logs]
    try:
        assert stage.evapid.ended() == 0

        def settled():
            serving = stage.evapid.status()["pid"]
            others = [popen for popen in both if popen.pid != serving]
            return len(others) == 1 and others[0].poll() is not None
        until(settled, "one of them serves, and the other has ended")
        assert ask(phone, "relay", b"on") == 1
        assert client.receive() == b"on"
    finally:
        for popen, log in zip(both, logs):
            popen.terminate()
            popen.wait(DEADLINE_S)
            log.close()


def test_a_corrupt_queue_stays_refused(stage):
    phone = begin(stage, replace, {"workers": 2})
    client = stage.connect()
    names = Successor(stage.evapid).ask()
    left = json.loads(names.line())["replace"]["descriptors"]
    bytes_, descriptors, _, _ = socket.recv_fds(names.socket, left * NAME, BATCH)
    held = {bytes_[i * NAME:(i + 1) * NAME].rstrip(b"\0"): fd for i, fd in enumerate(descriptors)}
    stage.evapid.stopped()
    names.close()
    with open(f"/proc/self/fd/{held[b'ring']}", "r+b") as memory:
        os.pwrite(memory.fileno(), struct.pack("=Q", 1 << 62), SLOTS + CLAIMED)
    for fd in descriptors:
        os.close(fd)
    stage.evapid.goes_on()
    stage.evapid.logged(r"error .* is corrupt")
    stage.evapid.detached()
    for _ in range(2):
        replace(stage)
        assert stage.evapid.status()["kamailio"] == {"state": "detached", "workers": [], "ring": None}
        stage.evapid.logged("refused pid .*: your queue is corrupt: restart Kamailio")
    stage.kamailio.terminate()
    stage.restart_kamailio()
    assert ask(phone, "relay", b"again") == 1
    assert client.receive() == b"again"


def test_suspended_calls_are_resumed_by_whoever_serves_then(stage):
    """Calls wait for a client's answer while evapid is exchanged under them, again and again; each is answered once."""
    stage.start_evapid()
    stage.start_kamailio(ASYNC, evapi={"workers": 2})
    phone = stage.phone()
    client = stage.connect()
    ended = threading.Event()
    answered = []

    def answer():
        waiting = []
        while not ended.is_set() or waiting:
            for event in client.receive_ready():
                waiting.append(event)
            for event in waiting[:3]:  # the others wait over a replacement
                index, label, word = event.split(b":")[:3]
                client.send(b"%s:%s:486:%s" % (index, label, word))
                answered.append(word)
            del waiting[:3]
            time.sleep(0.001)

    thread = threading.Thread(target=answer)
    thread.start()
    calls = []
    try:
        for turn in range(12):
            calls += [phone.start("INVITE", "relay", headers={"X-Word": f"w{turn}-{number}"}) for number in range(15)]
            replace(stage)
        finals = phone.finish_all(calls)
    finally:
        ended.set()
        thread.join(DEADLINE_S)
    assert [final.code for final in finals] == [486] * len(calls)
    assert [final.reason for final in finals] == [f"w{turn}-{number}" for turn in range(12) for number in range(15)]
    assert len(answered) == len(set(answered)) == len(calls)
    assert not stage.kamailio.lines("lost evapid")


def test_nothing_grows_over_many_replacements(stage):
    phone = begin(stage, replace, {"workers": 2})
    client, slow = stage.connect(), stage.connect(receive_buffer=4096)
    opened, memory = [], []
    for turn in range(30):
        body = b"%d:" % turn + b"x" * 30000
        assert ask(phone, "relay", body) == 1
        assert client.receive() == body
        replace(stage)
        memory.append(stage.evapid.rss_bytes())
        opened.append(len(stage.evapid.descriptors()))
    assert len(set(opened)) == 1, opened
    assert memory[29] < memory[9] + (4 << 20), memory
    assert len(slow.receive_many(30)) == 30


def test_an_address_that_goes_from_the_configuration_stays_when_the_module_declares_it_too(stage):
    phone = begin(stage, replace, listeners=[{"address": stage.address, "max_clients": 7}])
    client = stage.connect()
    stage.replace_evapid(listeners=[])
    shown = stage.evapid.listening(stage.address)["listeners"]
    assert [(entry["source"], entry["max_clients"], entry["clients"]) for entry in shown] == [("module", 100, 1)]
    other = stage.connect()
    assert ask(phone, "relay", b"to both") == 1
    assert client.receive() == other.receive() == b"to both"
    stage.replace_evapid(module_listener=False)
    assert refused(stage.address)
    stage.evapid.clients(2)
