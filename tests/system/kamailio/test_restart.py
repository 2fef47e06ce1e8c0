"""Either side ends and comes back, under traffic; a second Kamailio; strangers at Kamailio's door."""

import json
import os
import signal
import socket

import pytest

import wire
from evapid import run_evapid
from process import until
from script import events_of, relay

ROUTES = """
route[TEST] {
    if ($rU == "multicast") {
        evapi_multicast("$rb", "blue");
    } else {
        evapi_relay("$rb");
    }
    $var(rc) = $rc;
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    sl_send_reply("200", "OK");
}
event_route[evapi:connection-new] { xlog("L_NOTICE", "NEW $evapi(conidx) [$evapi(tag)];\\n"); }
event_route[evapi:message-received] {
    xlog("L_NOTICE", "GOT $evapi(conidx) $evapi(msg);\\n");
    if ($evapi(msg) == "blue") {
        evapi_set_tag("blue");
        evapi_relay("tagged");
    }
}
event_route[evapi:connection-closed] { xlog("L_NOTICE", "CLOSED $evapi(conidx);\\n"); }
"""


def begin(stage, evapi=None, **settings):
    stage.start_evapid(**settings)
    stage.start_kamailio(ROUTES, evapi=evapi)
    return stage.phone()


# ---- Kamailio goes and comes


def test_clients_stay_when_kamailio_restarts_and_are_announced_again_with_their_tag(stage):
    phone = begin(stage)
    client, other = stage.connect(), stage.connect()
    client.send(b"blue")
    assert client.receive() == other.receive() == b"tagged"
    stage.kamailio.terminate()
    stage.evapid.detached()
    stage.restart_kamailio()
    assert stage.evapid.client(client)["index"] == client.index
    stage.evapid.client(other)
    assert events_of(stage.kamailio, client.index) == [("NEW", "[blue]")]
    assert events_of(stage.kamailio, other.index) == [("NEW", "[<null>]")]
    assert int(phone.ask("MESSAGE", "multicast", body=b"to blue")["X-Rc"]) == 1
    assert relay(phone, b"to all") == 1
    assert client.receive_many(2) == [b"to blue", b"to all"]
    assert other.receive() == b"to all"


def test_messages_wait_while_kamailio_is_away(stage):
    begin(stage)
    client = stage.connect()
    stage.kamailio.terminate()
    stage.evapid.detached()
    for number in range(200):
        client.send(b"%d" % number)
    stage.restart_kamailio()
    stage.kamailio.logged(rf"GOT {client.index} 199;")
    assert events_of(stage.kamailio, client.index) == [("NEW", "[<null>]")] + [
        ("GOT", str(number)) for number in range(200)]


def test_a_client_that_comes_while_kamailio_is_away_is_let_in_by_the_next(stage):
    phone = begin(stage)
    stage.kamailio.terminate()
    stage.evapid.detached()
    client = stage.connect(admitted=False)
    client.send(b"early")
    index = stage.evapid.client(client, "admitting")["index"]
    stage.restart_kamailio()
    stage.evapid.client(client)
    stage.kamailio.logged(rf"GOT {index} early;")
    assert events_of(stage.kamailio, index) == [("NEW", "[<null>]"), ("GOT", "early")]
    assert relay(phone, b"welcome") == 1
    assert client.receive() == b"welcome"


def test_what_a_client_said_before_it_left_is_heard_by_the_next_kamailio(stage):
    begin(stage)
    client = stage.connect()
    stage.kamailio.terminate()
    stage.evapid.detached()
    client.send(b"last words")
    client.close()
    stage.restart_kamailio()
    stage.kamailio.logged(rf"CLOSED {client.index};")
    assert events_of(stage.kamailio, client.index) == [("NEW", "[<null>]"), ("GOT", "last words"), ("CLOSED", "")]
    stage.evapid.clients(0)


def test_events_that_kamailio_issued_just_before_it_ended_still_arrive(stage):
    phone = begin(stage)
    client = stage.connect()
    stage.evapid.stopped()
    for number in range(50):
        assert relay(phone, b"%d" % number) == 1
    stage.kamailio.kill()
    stage.evapid.goes_on()
    assert client.receive_many(50) == [b"%d" % number for number in range(50)]
    stage.restart_kamailio()
    stage.evapid.client(client)
    assert relay(phone, b"again") == 1
    assert client.receive() == b"again"


def test_many_clients_are_each_announced_once_to_the_workers_of_the_next_kamailio(stage):
    begin(stage, evapi={"workers": 3})
    clients = [stage.connect() for _ in range(12)]
    stage.kamailio.terminate()
    stage.evapid.detached()
    stage.restart_kamailio()
    stage.evapid.clients(12)
    for client in clients:
        assert events_of(stage.kamailio, client.index) == [("NEW", "[<null>]")]
    workers = stage.evapid.status()["kamailio"]["workers"]
    assert sum(worker["clients"] for worker in workers) == 12


def test_an_event_worker_of_a_killed_kamailio_does_not_stay_attached(stage):
    """SIGKILL to the main process alone leaves its children as orphans."""
    begin(stage)
    kamailio = stage.kamailio
    kamailio.members()
    kamailio.expect_end = True
    os.kill(kamailio.pid, signal.SIGKILL)
    stage.evapid.detached()
    kamailio.kill()
    stage.restart_kamailio()


# ---- evapid goes and comes


def reconnect(stage):
    """A client again, once the listener of the module is back."""
    stage.evapid.listening(stage.address)
    return stage.connect(admitted=False)


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_events_wait_while_evapid_is_away_and_reach_the_client_that_comes_back(stage, end):
    phone = begin(stage, attach_hold_ms=60000)
    client = stage.connect()
    for number in range(20):
        assert relay(phone, b"%d" % number) == 1
        assert client.receive() == b"%d" % number
    getattr(stage.evapid, end)()
    assert client.receive_rest() == []
    for number in range(20, 200):
        assert relay(phone, b"%d" % number) == 1
    stage.restart_evapid()
    client = reconnect(stage)
    assert client.receive_many(180) == [b"%d" % number for number in range(20, 200)]
    assert relay(phone, b"and on") == 1
    assert client.receive() == b"and on"
    stage.evapid.attached(stage.kamailio.pid, 1)


def test_queued_events_wait_for_as_many_clients_as_there_were(stage):
    phone = begin(stage, attach_hold_ms=60000)
    for _ in range(3):
        stage.connect()
    stage.evapid.kill()
    assert relay(phone, b"waited for all") == 1
    stage.restart_evapid()
    first = reconnect(stage)
    stage.evapid.client(first)
    second = reconnect(stage)
    stage.evapid.client(second)
    ring = stage.evapid.status()["kamailio"]["ring"]
    assert ring["held"] is True and ring["used"] > 0
    third = reconnect(stage)
    assert [client.receive() for client in (first, second, third)] == [b"waited for all"] * 3
    assert stage.evapid.status()["kamailio"]["ring"]["held"] is False


def test_queued_events_do_not_wait_for_ever(stage):
    phone = begin(stage, attach_hold_ms=500)
    stage.connect()
    stage.evapid.kill()
    assert relay(phone, b"for nobody") == 1
    stage.restart_evapid()
    stage.evapid.until_status(lambda s: (s["kamailio"].get("ring") or {}).get("used") == 0 and
                              s["totals"]["events"]["relay"] == 1, "the queued event is let go")
    assert stage.evapid.logged(r" warning kamailio: 0 of 1 clients are there after 500 ms ")
    client = stage.connect()
    assert relay(phone, b"for the one who came") == 1
    assert client.receive() == b"for the one who came"
    stage.evapid.kill()
    stage.restart_evapid()
    assert stage.evapid.logged(r" notice kamailio: 0 of 1 clients are there after 500 ms "), "without an event nobody need act"


def test_messages_and_tags_work_again_after_evapid_was_killed(stage):
    phone = begin(stage, evapi={"workers": 2})
    stage.connect()
    stage.evapid.kill()
    stage.restart_evapid()
    stage.evapid.attached(stage.kamailio.pid, 2)
    client = stage.connect()
    client.send(b"blue")
    while client.receive() != b"tagged":
        pass
    assert int(phone.ask("MESSAGE", "multicast", body=b"to blue")["X-Rc"]) == 1
    assert client.receive() == b"to blue"


def test_evapid_killed_again_and_again_under_traffic(stage):
    """Of what was relayed while no evapid ran nothing is lost, nor does anything arrive out of order or twice."""
    phone = begin(stage, attach_hold_ms=60000)
    client, number, must = stage.connect(), 0, []
    seen = []
    for _ in range(4):
        for _ in range(50):
            assert relay(phone, b"%d" % number) == 1
            number += 1
        stage.evapid.kill()
        seen += client.receive_rest()
        for _ in range(50):
            assert relay(phone, b"%d" % number) == 1
            must.append(b"%d" % number)
            number += 1
        stage.restart_evapid()
        client = reconnect(stage)
        stage.evapid.client(client)
    assert relay(phone, b"end") == 1
    seen += client.receive_until(b"end")
    numbers = [int(event) for event in seen]
    assert numbers == sorted(set(numbers))
    assert set(must) <= set(seen)
    lines = len(stage.kamailio.lines(r"evapi .*evapid"))
    assert lines < 40, "a few lines for each time, none in a loop"


def test_kamailio_starts_before_evapid_and_waits_for_nothing(stage):
    stage.start_kamailio(ROUTES, attach=False)
    phone = stage.phone()
    for number in range(20):
        assert relay(phone, b"%d" % number) == 1
    assert len(stage.kamailio.logged(r"ERROR: evapi .*kamailio\.sock")) == 1
    stage.start_evapid(attach_hold_ms=60000)
    stage.evapid.attached(stage.kamailio.pid, 1)
    client = stage.connect(admitted=False)
    assert client.receive_many(20) == [b"%d" % number for number in range(20)], "what was queued waits for somebody"
    assert relay(phone, b"hello") == 1
    assert client.receive() == b"hello"
    assert len(stage.kamailio.lines(r"ERROR: evapi .*kamailio\.sock: No such file.*trying")) == 1


def test_both_restart_and_meet_again(stage):
    phone = begin(stage)
    for first, second in (("kamailio", "evapid"), ("evapid", "kamailio")):
        getattr(stage, first).kill()
        getattr(stage, second).kill()
        if first == "kamailio":
            stage.restart_kamailio(attach=False)
            stage.restart_evapid()
        else:
            stage.restart_evapid()
            stage.restart_kamailio()
        stage.evapid.attached(stage.kamailio.pid, 1)
        client = stage.connect()
        assert relay(phone, b"hello") == 1
        assert client.receive() == b"hello"
        stage.hang_up()
        phone = stage.phone()


# ---- a second Kamailio


def test_a_second_kamailio_is_refused_with_the_pid_of_the_first_until_that_has_gone(stage):
    phone = begin(stage)
    first, client = stage.kamailio, stage.connect()
    second = stage.run_kamailio(stage.kamailio_config(ROUTES, evapi={"bind_addr": ""}), stage.ports.udp(), attach=False)
    refusals = second.logged(rf"evapi .*\b{first.pid}\b")
    assert stage.evapid.status()["kamailio"]["pid"] == first.pid
    assert relay(phone, b"still with the first") == 1
    assert client.receive() == b"still with the first"
    stage.evapid.logged(rf"warning .*\b{second.pid}\b.*\b{first.pid}\b|warning .*\b{first.pid}\b.*\b{second.pid}\b")
    first.terminate()
    stage.evapid.attached(second.pid, 1)
    assert len(second.lines(rf"evapi .*\b{first.pid}\b")) == len(refusals) == 1, "said once, not in a loop"
    second.logged(rf"NEW {client.index} ")


# ---- strangers at Kamailio's door


@pytest.fixture
def door(stage):
    stage.start_evapid()
    yield stage.evapid.kamailio_socket
    assert stage.evapid.status()["kamailio"]["state"] == "detached"


@pytest.mark.parametrize("version", [1, 2, 4, 99, 0xffffffff])
def test_another_version_of_the_protocol_is_refused_with_both_versions(stage, door, version):
    link = wire.Link(door)
    link.send(wire.hello(version=version))
    said, reason = link.refused()
    assert said == wire.VERSION
    assert str(version) in reason and str(wire.VERSION) in reason
    stage.evapid.logged(rf"(warning|error) .*\b{version}\b")
    link.close()


def test_a_hello_of_a_later_version_may_go_on_with_anything(stage, door):
    link = wire.Link(door)
    link.send(wire.frame(wire.HELLO, b"evapid\0\0" + (99).to_bytes(4, "little") + b"\xff" * 500))
    assert link.refused()[0] == wire.VERSION
    link.close()


CUT_SHORT = wire.hello(bind_addr=b"nonsense")[:-3]  # as from a Kamailio that has died over it: no line is owed


@pytest.mark.parametrize("bytes_", [
    b"hello evapid\r\n\r\n", b"\0" * 100, wire.frame(99, b""), wire.frame(wire.WELCOME, b"\0" * 20),
    wire.hello(magic=b"evapix\0\0"), wire.hello(workers=0), wire.hello(worker=5, workers=2), wire.hello(workers=1000),
    wire.hello(framing=7), wire.hello(keep_clients=2), CUT_SHORT, wire.hello(), wire.frame(wire.HELLO, b""),
    (0xffffffff).to_bytes(4, "little") + (wire.HELLO).to_bytes(4, "little"),
], ids=["text", "zeros", "unknown frame", "not a hello", "magic", "no workers", "worker beyond workers", "many workers",
        "framing", "keep clients", "cut short", "without descriptors", "empty hello", "huge frame"])
def test_garbage_at_the_door_is_closed_and_harms_nobody(stage, door, bytes_):
    link = wire.Link(door)
    link.send(bytes_)
    link.socket.shutdown(socket.SHUT_WR)
    link.read()
    link.close()
    if bytes_ != CUT_SHORT:
        stage.evapid.logged(r"(warning|error) ")


def test_descriptors_that_are_no_ring_are_refused(stage, door):
    with open("/dev/null", "r+b") as null:
        for descriptors in ([null.fileno()], [null.fileno()] * 2, [null.fileno()] * 10):
            link = wire.Link(door)
            link.send(wire.hello(), descriptors)
            assert link.refused()[1]
            link.close()
    held = len(stage.evapid.descriptors())
    for _ in range(20):
        with open("/dev/null", "r+b") as null:
            link = wire.Link(door)
            link.send(wire.hello(), [null.fileno()] * 2)
            link.refused()
            link.close()
    until(lambda: len(stage.evapid.descriptors()) <= held, "descriptors that strangers sent are closed")


def test_strangers_do_not_disturb_the_one_who_is_attached(stage):
    phone = begin(stage)
    client = stage.connect()
    for bytes_ in (b"garbage" * 10, wire.hello(version=99), wire.hello()):
        link = wire.Link(stage.evapid.kamailio_socket)
        link.send(bytes_)
        link.socket.shutdown(socket.SHUT_WR)
        link.read()
        link.close()
    silent = wire.Link(stage.evapid.kamailio_socket)
    assert relay(phone, b"undisturbed") == 1
    assert client.receive() == b"undisturbed"
    silent.close()


# ---- socket files


def stale_socket(path):
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    holder.bind(str(path))
    holder.close()


@pytest.mark.parametrize("name", ["kamailio.sock", "control.sock"])
def test_a_stale_socket_file_is_replaced(stage, name):
    stale_socket(stage.folder / name)
    stage.start_evapid()
    stage.start_kamailio(ROUTES)


@pytest.mark.parametrize("name", ["kamailio_socket", "control_socket"])
def test_a_live_socket_is_left_alone(stage, name):
    first = stage.start_evapid()
    stage.start_kamailio(ROUTES)
    config = stage.folder / "second.json"
    config.write_text(json.dumps({
        key: str(getattr(first, key) if key == name else stage.folder / f"second-{key}")
        for key in ("kamailio_socket", "control_socket")}))
    ran = run_evapid("-c", config)
    assert ran.returncode == 1
    assert str(getattr(first, name)) in ran.stderr
    assert first.status()["kamailio"]["state"] == "attached"
    client = stage.connect()
    assert relay(stage.phone(), b"undisturbed") == 1
    assert client.receive() == b"undisturbed"


@pytest.mark.parametrize("name", ["kamailio_socket", "control_socket"])
def test_a_file_that_is_no_socket_is_left_alone(stage, name):
    precious = stage.folder / "precious"
    precious.write_text("not yours")
    config = stage.folder / "evapid.json"
    other = "control_socket" if name == "kamailio_socket" else "kamailio_socket"
    config.write_text(f'{{"{name}": "{precious}", "{other}": "{stage.folder}/other.sock"}}')
    ran = run_evapid("-c", config)
    assert ran.returncode == 1 and str(precious) in ran.stderr
    assert precious.read_text() == "not yours"


def test_the_socket_files_are_gone_after_the_end(stage):
    evapid = stage.start_evapid()
    assert evapid.kamailio_socket.exists() and evapid.control_socket.exists()
    assert evapid.terminate() == 0
    assert not evapid.kamailio_socket.exists() and not evapid.control_socket.exists()


def test_a_normal_stop_of_a_client_of_kamailio_and_of_evapid_is_no_warning(stage):
    """Three workers end one after the other; and those that are attached end with evapid. It waits for their routes as long as a slow
    machine takes for them."""
    stage.start_evapid(attach_hold_ms=600000, shutdown_grace_ms=600000)
    for _ in range(2):
        stage.start_kamailio('route[TEST] { exit; }', evapi={"workers": 3})
        stage.evapid.attached(stage.kamailio.pid, 3)
        leaving, staying = stage.connect(), stage.connect()
        leaving.close()
        stage.evapid.client(staying)
        assert stage.kamailio.terminate() == 0
        stage.evapid.detached()
        staying.close()
    stage.start_kamailio('route[TEST] { exit; }', evapi={"workers": 3})
    stage.evapid.attached(stage.kamailio.pid, 3)
    assert stage.evapid.terminate() == 0
    assert stage.evapid.lines(r"^\S+ (warning|error) (?!.*turn of the loop)") == []
    stage.kamailio.terminate()
