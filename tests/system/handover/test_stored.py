"""evapid with a service manager, when things go wrong: it is killed again and again, what was stored is incomplete or of no
use, Kamailio ends meanwhile, the configuration changes or is bad."""

import os
import random
import signal
import socket
import struct
import time

import pytest

from async_calls import NATIVE as ASYNC
from books import balanced, lost_by
from client import Client, netstring, refused
from handover import begin, restart, set_tag, stall
from process import until
from script import ask, events_of
from supervisor import stored_as

LAYOUT_NAME = 48  # bytes of a field's name in the description (daemon/client/layout.h)
ORDINARY = ["ledger", "listener-1", "ring", "ring-wake"]


def scribble(evapid, name, at, bytes_):
    """at: where, after which bytes, or in which field of the ledger's header."""
    with open(f"/proc/self/fd/{stored_as(evapid, name)}", "r+b") as memory:
        if isinstance(at, bytes):
            at = memory.read().index(at) + len(at)
        elif isinstance(at, str):
            described = memory.read().index(at.encode() + b"\0") + LAYOUT_NAME  # then part and kind of 2 bytes, and the offset
            at, = struct.unpack("=I", os.pread(memory.fileno(), 4, described + 4))
        os.pwrite(memory.fileno(), bytes_, at)


def works(stage, phone, client, word):
    """Events come to the client and its messages to the route."""
    assert ask(phone, "relay", word) == 1
    assert client.receive() == word
    client.send(word)
    stage.kamailio.logged(rf"GOT {client.index} {word.decode()};")


# ---- killed, at any time


def test_what_is_stored_for_a_restart_alone_is_let_go_afterwards(stage):
    begin(stage, restart, {"workers": 2})
    stage.connect()
    stage.evapid.restart()
    stage.evapid.attached(stage.kamailio.pid, 2)
    assert stage.evapid.stored() == ["client-1", *ORDINARY]


def test_killed_behind_a_restart(stage):
    phone = begin(stage, restart)
    client = stage.connect()
    for turn in range(3):
        stage.evapid.restart()
        stage.evapid.kill_and_restart()
        stage.evapid.attached(stage.kamailio.pid)
        stage.evapid.client(client)
        works(stage, phone, client, b"turn %d" % turn)
    assert lost_by(client, stage.evapid.status()) == 0
    assert stage.evapid.stored() == ["client-1", *ORDINARY]


def test_killed_twice_before_it_could_say_anything(stage):
    phone = begin(stage, restart)
    client = stage.connect()
    assert ask(phone, "relay", b"before") == 1
    assert client.receive() == b"before"
    for _ in range(2):
        stage.evapid.kill_and_restart()
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.client(client)
    works(stage, phone, client, b"behind")
    status = stage.evapid.status()
    assert balanced(status)["relayed"] == 2 and status["totals"]["events"]["relay"] == 2
    assert lost_by(client, status) == 0


def test_killed_at_any_moment_of_its_start(stage):
    """Wherever a start breaks off, the next one finds what it needs."""
    phone = begin(stage, restart)
    client = stage.connect()
    moments = random.Random(4711)
    for turn in range(6):
        stage.evapid.terminate() if turn % 3 == 0 else stage.evapid.kill()
        for _ in range(3):
            stage.evapid.start(stage.evapid.command, stage.evapid.environment)
            time.sleep(moments.uniform(0, 0.15))
            stage.evapid.kill()
    stage.evapid.start_again()
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.client(client)
    works(stage, phone, client, b"still here")
    assert balanced(stage.evapid.status())["relayed"] == 1
    assert stage.evapid.stored() == ["client-1", *ORDINARY]


def test_killed_while_it_leaves_everything(stage):
    """A part of what a restart needs has been stored, or all, or nothing."""
    phone = begin(stage, restart, {"workers": 2})
    client = stage.connect()
    moments = random.Random(1871)
    for turn in range(12):
        stage.evapid.expect_end = True
        stage.evapid.signal(signal.SIGTERM)
        time.sleep(moments.uniform(0, 0.003))
        stage.evapid.kill_and_restart()
        stage.evapid.attached(stage.kamailio.pid, 2)
        stage.evapid.client(client)
        works(stage, phone, client, b"turn %d" % turn)
    assert lost_by(client, stage.evapid.status()) == 0
    assert balanced(stage.evapid.status())["delivered"] == 12
    assert stage.evapid.stored() == ["client-1", *ORDINARY]


def test_a_second_sigterm_changes_nothing(stage):
    phone = begin(stage, restart)
    client = stage.connect()
    client.send_bytes(netstring(b"in two parts")[:7])
    client.wait_read()
    stage.evapid.stopped()
    stage.evapid.signal(signal.SIGTERM)
    stage.evapid.signal(signal.SIGTERM)
    stage.evapid.restart()
    stage.evapid.attached(stage.kamailio.pid)
    client.send_bytes(netstring(b"in two parts")[7:])
    stage.kamailio.logged(rf"GOT {client.index} in two parts;")
    works(stage, phone, client, b"on")


def test_events_in_the_ring_arrive_though_evapid_and_kamailio_were_killed(stage):
    phone = begin(stage, restart)
    clients = [stage.connect() for _ in range(2)]
    stage.evapid.stopped()
    events = [b"%d:" % number + b"x" * (number * 37) for number in range(100)]
    for event in events:
        assert ask(phone, "relay", event) == 1
    stage.evapid.expect_end = True
    stage.evapid.signal(signal.SIGKILL)
    stage.kamailio.kill()
    stage.evapid.kill_and_restart()
    for client in clients:
        assert client.receive_many(100) == events
        assert lost_by(client, stage.evapid.status()) == 0
    assert balanced(stage.evapid.status())["delivered"] == 200
    stage.restart_kamailio()
    for client in clients:
        stage.evapid.client(client)
    works(stage, phone, clients[0], b"back")


def test_messages_that_no_worker_had_yet_are_counted_as_dropped(stage):
    phone = begin(stage, restart, limits={"worker_window_frames": 65536, "worker_window_bytes": 1 << 28})
    client = stage.connect()
    ask(phone, "gate", gate="2")
    for number in range(400):
        client.send(b"%d" % number + b" " * 3000)
    stage.evapid.until_status(lambda s: s["clients"][0]["in"]["frames"] == 400, "evapid has read all")
    stage.evapid.kill_and_restart()
    ask(phone, "gate", gate="0")
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.client(client)
    client.send(b"end")
    stage.kamailio.logged(rf"GOT {client.index} end;")
    heard = [text.strip() for event, text in events_of(stage.kamailio, client.index) if event == "GOT"]
    assert heard == [str(number) for number in range(len(heard) - 1)] + ["end"]
    entry, totals = stage.evapid.client(client), stage.evapid.status()["totals"]
    assert entry["in"]["frames"] == 401 and 0 < entry["in"]["dropped"]["lost"] == 401 - len(heard)
    stage.evapid.until_status(lambda s: s["clients"][0]["in"]["delivered"] == len(heard), "what was heard counts as delivered")
    assert totals["in"]["dropped"]["lost"] == entry["in"]["dropped"]["lost"]


# ---- Kamailio ends meanwhile


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_kamailio_ends_while_evapid_is_away(stage, end):
    """Its links have hung up, and the state goes on all the same: a message that came in part, and what waits."""
    begin(stage, restart, {"workers": 2})
    client = stage.connect()
    client.send_bytes(netstring(b"in two parts")[:7])
    client.wait_read()
    stage.evapid.terminate()
    getattr(stage.kamailio, end)()
    stage.evapid.start_again()
    stage.evapid.detached()
    client.send_bytes(netstring(b"in two parts")[7:])
    stage.restart_kamailio()
    stage.kamailio.logged(rf"GOT {client.index} in two parts;")
    assert [event for event, _ in events_of(stage.kamailio, client.index)] == ["NEW", "GOT"]
    works(stage, stage.phone(), client, b"on")


def test_messages_at_a_worker_that_dies_while_evapid_is_away_are_heard_once(stage):
    """The one that had begun is not begun again, the others are for the next Kamailio."""
    phone = begin(stage, restart, limits={"worker_window_frames": 4})
    client = stage.connect()
    ask(phone, "gate", gate="2")
    for number in range(10):
        client.send(b"%d" % number)
    stage.kamailio.logged(rf"GOT {client.index} 0;")
    stage.evapid.until_status(lambda s: s["kamailio"]["workers"][0]["waiting"] == 1, "the window is full")
    stage.evapid.terminate()
    stage.kamailio.kill()
    assert [text for event, text in events_of(stage.kamailio, client.index) if event == "GOT"] == ["0"]
    stage.evapid.start_again()
    stage.evapid.detached()
    stage.restart_kamailio()
    stage.kamailio.logged(rf"GOT {client.index} 9;")
    assert events_of(stage.kamailio, client.index) == [("NEW", "[<null>]"), *(("GOT", str(n)) for n in range(1, 10))]


def test_another_kamailio_waits_when_evapid_comes_back(stage):
    begin(stage, restart)
    client = stage.connect()
    stage.evapid.terminate()
    stage.kamailio.kill()
    stage.restart_kamailio(attach=False)
    stage.evapid.start_again()
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.client(client)
    works(stage, stage.phone(), client, b"on")
    assert stage.evapid.stored() == ["client-1", *ORDINARY]


def test_what_a_client_said_before_it_reset_the_connection_is_heard(stage):
    begin(stage, restart)
    client = stage.connect()
    stage.evapid.terminate()
    client.send(b"last words")
    until(lambda: client._unacknowledged() == 0, "its kernel has them")
    client.reset()
    stage.evapid.start_again()
    stage.kamailio.logged(rf"CLOSED {client.index};")
    assert events_of(stage.kamailio, client.index)[1] == ("GOT", "last words")
    stage.evapid.clients(0)


# ---- what is stored is incomplete


def test_a_store_that_is_too_small_for_any_client(stage):
    stage.start_supervised(store=3)
    stage.start_kamailio()
    stage.evapid.logged("listener-1: not kept by the service manager, which has 3 of 3")
    client = stage.connect()
    stage.evapid.logged("client-1: not kept")
    assert stage.evapid.stored() == ["ledger", "ring", "ring-wake"] and stage.evapid.refused() == 0
    stage.evapid.restart()
    assert client.receive_ready() == [] and client.eof
    stage.evapid.attached(stage.kamailio.pid)
    assert stage.connect().index == 2
    totals = stage.evapid.status()["totals"]["clients"]
    assert (totals["accepted"], totals["closed"]) == (2, 1)


def test_clients_for_whom_there_is_no_room_in_the_store_are_closed_and_the_others_go_on(stage):
    phone = begin(stage, restart)
    stage.evapid.stop()
    stage.start_supervised(store=11)
    stage.evapid.attached(stage.kamailio.pid)
    clients = [stage.connect() for _ in range(5)]
    assert stage.evapid.stored() == ["client-1", "client-2", "client-3", *ORDINARY]
    assert ask(phone, "relay", b"before") == 1
    for client in clients:
        assert client.receive() == b"before"
    stage.evapid.restart()
    stage.evapid.logged("2 clients are closed: their connections were not kept")
    for client in clients[3:]:
        assert client.receive_ready() == [] and client.eof
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.clients(3)
    for number, client in enumerate(clients[:3]):
        works(stage, phone, client, b"%d" % number)
        clients[(number + 1) % 3].receive(), clients[(number + 2) % 3].receive()
    assert balanced(stage.evapid.status())["delivered"] == 5 + 3 * 3


def test_a_client_that_was_not_kept_beside_a_state_is_lost_and_missed_by_nobody(stage):
    """The store has room for what a restart needs, and for no client."""
    stage.start_supervised(store=8)
    stage.start_kamailio(ASYNC)
    phone = stage.phone()
    clients = [stage.connect() for _ in range(6)]
    stage.evapid.logged("client-6: not kept")
    set_tag(stage, clients[5], b"blue")
    for client in clients[:5]:
        client.close()
    stage.evapid.clients(1)
    stage.evapid.restart()
    stage.evapid.logged("1 clients are closed: their connections were not kept")
    assert clients[5].receive_ready() == [] and clients[5].eof
    status = stage.evapid.attached(stage.kamailio.pid)
    assert (status["totals"]["clients"]["accepted"], status["totals"]["clients"]["closed"]) == (6, 6)
    for user in ("relay", "multicast"):
        answer = phone.ask("INVITE", user, headers={"X-Word": "x"})
        assert answer.code == 480 and int(answer["X-Rc"]) < 0, "nobody is there to answer"
    client = stage.connect()
    call = phone.start("INVITE", "relay", headers={"X-Word": "y"})
    client.send(client.receive().replace(b":y", b":486:y"))
    assert phone.finish(call).code == 486


def test_room_in_the_store_is_used_again(stage):
    begin(stage, restart)
    stage.evapid.stop()
    stage.start_supervised(store=10)
    stage.evapid.attached(stage.kamailio.pid)
    clients = [stage.connect() for _ in range(4)]
    for leaving in (clients[3], clients[0]):  # one that is not kept, and one that is
        leaving.close()
        stage.kamailio.logged(rf"CLOSED {leaving.index};")
    stage.connect()
    stage.connect()
    assert stage.evapid.stored() == ["client-2", "client-3", *ORDINARY]
    assert len(stage.evapid.lines("client-[56]: not kept")) == 2 and stage.evapid.refused() == 0


# ---- what is stored is of no use


@pytest.mark.parametrize("at, bytes_", [(12, b"\xff"), (0, b"garbage!"), (b"\x06number\x08", b"\0" * 8),
                                        (b"\x09listeners\0", b"\xff" * 64)],
                         ids=["reader", "magic", "number", "listeners"])
def test_a_state_that_makes_no_sense_is_as_none(stage, at, bytes_):
    """It costs what is in it: a client in the middle of a frame is closed, the other one goes on."""
    phone = begin(stage, restart)
    clients = [stage.connect() for _ in range(2)]
    clients[0].send_bytes(b"100:half")
    clients[0].wait_read()
    stage.evapid.terminate()
    scribble(stage.evapid, "state", at, bytes_)
    if stage.evapid.start_in_vain(unless_ready=True) is not None:  # it was noticed late, as systemd starts it again
        stage.evapid.start_again()
    stage.evapid.attached(stage.kamailio.pid)
    assert clients[0].receive_ready() == [] and clients[0].eof
    stage.evapid.clients(1)
    works(stage, phone, clients[1], b"on")
    assert stage.evapid.stored() == ["client-2", *ORDINARY]


def test_no_scribble_on_the_state_crashes_evapid(stage):
    """It is refused, or read as if it were true; in any case evapid serves, and without it, it stands again on the ledger."""
    phone = begin(stage, restart, {"workers": 2}, limits={"worker_window_frames": 4})
    scribbles, refused_ = random.Random(1848), 0
    for turn in range(12):
        clients = [stage.connect(receive_buffer=4096) for _ in range(4)]
        set_tag(stage, clients[0], b"blue")
        for number in range(30):
            assert ask(phone, "relay", b"%d" % number + b"x" * 50000) == 1
        ask(phone, "gate", gate="2")
        clients[1].send_bytes(netstring(b"said") * 20 + b"9:part")
        clients[2].half_close()
        stage.kamailio.logged(rf"GOT {clients[1].index} said;")
        stage.evapid.terminate()
        size = os.fstat(stored_as(stage.evapid, "state")).st_size
        for _ in range(scribbles.randint(1, 3)):
            at = 160 + scribbles.randrange(600)  # behind what says which doors these are
            at = scribbles.choice([at, size - at])
            scribble(stage.evapid, "state", at, bytes([scribbles.choice([0, 1, 2, 127, 255, scribbles.randrange(256)])]))
        code = stage.evapid.start_in_vain(unless_ready=True)
        if code is not None:
            assert code == 1, stage.evapid.tail()
            refused_ += 1
            stage.evapid.start_again()
        ask(phone, "gate", gate="0")
        assert ask(phone, "relay", b"on") == 1
        stage.evapid.status()
        stage.evapid.kill_and_restart()
        stage.evapid.attached(stage.kamailio.pid)
        for client in clients:
            client.close()
        stage.evapid.clients(0)
    assert 0 < refused_ < 12


@pytest.mark.parametrize("at, bytes_", [(12, b"\xff"), (0, b"garbage!"), ("segments", b"\xff\xff\xff\xff")],
                         ids=["reader", "magic", "segments"])
def test_a_ledger_that_makes_no_sense_is_as_none(stage, at, bytes_):
    """All clients are closed, and evapid begins anew."""
    phone = begin(stage, restart)
    before = stage.connect()
    stage.evapid.terminate()
    scribble(stage.evapid, "ledger", at, bytes_)
    stage.evapid.start_again()
    stage.evapid.logged("the ledger can't be taken over: it .*; all clients are closed")
    assert before.receive_ready() == [] and before.eof
    stage.evapid.attached(stage.kamailio.pid)
    client = stage.connect()
    assert client.index == 1
    works(stage, phone, client, b"on")
    assert stage.evapid.stored() == ["client-1", *ORDINARY]


def test_a_ring_that_was_not_kept_is_that_of_the_next_attachment(stage):
    phone = begin(stage, restart)
    client = stage.connect()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"FDSTOREREMOVE=1\nFDNAME=ring-wake", str(stage.evapid.path))
    stage.evapid.notifications.sync()
    stage.evapid.kill_and_restart()
    stage.evapid.logged("the queue of the Kamailio before can't be read: it was not kept")
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.client(client)
    works(stage, phone, client, b"on")
    assert stage.evapid.stored() == ["client-1", *ORDINARY]


# ---- the configuration


def test_a_bad_configuration_costs_nothing_once_it_is_corrected(stage):
    phone = begin(stage, restart)
    client = stage.connect()
    client.send_bytes(netstring(b"in two parts")[:7])
    client.wait_read()
    good = dict(stage.evapid.settings)
    stage.evapid.terminate()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        for wrong, complaint in (({"limits": 1}, "evapid.json:7:[0-9]+: limits: expected an object"),
                                 ({"listeners": [{"address": taken}]}, f"listener {taken}: address in use"),
                                 ({"control_socket": "/nowhere/control.sock"}, "/nowhere/control.sock: the folder /nowhere is missing"),
                                 ({"kamailio_socket": "/nowhere/kamailio.sock"}, "/nowhere/kamailio.sock: the folder /nowhere is missing")):
            stage.evapid.configure(**wrong)
            assert stage.evapid.start_in_vain() == 1
            assert stage.evapid.lines(complaint)
            stage.evapid.configure(**{"limits": {}, "listeners": [], **good})
    stage.evapid.start_again()
    assert ask(phone, "relay", b"on") == 1
    assert client.receive() == b"on"
    client.send_bytes(netstring(b"in two parts")[7:])
    stage.kamailio.logged(rf"GOT {client.index} in two parts;")
    assert [event for event, _ in events_of(stage.kamailio, client.index)].count("NEW") == 1


def test_a_restart_with_another_configuration(stage):
    """Listeners come and go, sockets move; clients stay."""
    kept, left, new = (stage.new_address() for _ in range(3))
    phone = begin(stage, restart, listeners=[{"address": kept}, {"address": left}])
    clients = [stage.connect(kept), stage.connect(left), stage.connect()]
    stage.evapid.configure(listeners=[{"address": kept, "max_clients": 1}, {"address": new}],
                           kamailio_socket=str(stage.folder / "moved.sock"))
    stage.evapid.restart()
    stage.evapid.clients(3)
    assert refused(left)
    full = stage._keep(Client(kept))
    assert full.receive_rest() == []
    clients.append(stage.connect(new))
    assert ask(phone, "relay", b"to all") == 1
    for client in clients:
        assert client.receive() == b"to all"
    assert (stage.folder / "moved.sock").exists()
    until(lambda: not (stage.folder / "kamailio.sock").exists(), "the file that nobody listens at is removed")


def test_a_listener_that_the_module_may_not_have_any_more_is_closed(stage):
    begin(stage, restart)
    client = stage.connect()
    stage.evapid.configure(module_listener=False)
    stage.evapid.restart()
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.client(client)
    assert refused(stage.address)


# ---- the end


def test_stopped_and_not_started_again_ends_the_connections(stage):
    phone = begin(stage, restart)
    client = stage.connect()
    assert ask(phone, "relay", b"last") == 1
    assert client.receive() == b"last"
    assert stage.evapid.stop() == 0
    assert client.receive_ready() == [] and client.eof
    assert refused(stage.address)
    stage.evapid.start_again()
    stage.evapid.attached(stage.kamailio.pid)
    assert stage.connect().index == 1


def test_what_is_lost_by_a_stop_is_said(stage):
    phone = begin(stage, restart)
    slow, quick = stage.connect(receive_buffer=4096), stage.connect()
    stall(stage, phone, slow, [quick])
    ask(phone, "gate", gate="2")
    for _ in range(2):
        quick.send(b"not worked on")
    waits = stage.evapid.until_status(lambda s: s["totals"]["in"]["waiting"] == 2, "two messages wait")["totals"]["out"]
    assert stage.evapid.stop() == 0
    stage.evapid.logged(rf"2 clients are left to the service manager, and {waits['queued_frames']} events and 2 messages")


def test_an_ordinary_stop_leaves_nothing_in_the_store(stage):
    """SIGINT: clients get what waits for them, and who comes next doesn't take it for a kill."""
    phone = begin(stage, restart, shutdown_grace_ms=60000)
    slow = stage.connect(receive_buffer=4096)
    events = stall(stage, phone, slow)
    stage.evapid.signal(signal.SIGINT)
    assert slow.receive_rest() == events
    assert stage.evapid.ended() == 0
    assert stage.evapid.stored() == []
    stage.evapid.start_again()
    stage.evapid.attached(stage.kamailio.pid)
    assert not stage.evapid.lines("evapid was killed")
    client = stage.connect()
    assert client.index == 1
    works(stage, phone, client, b"on")


def test_nothing_grows_over_many_restarts(stage):
    phone = begin(stage, restart, {"workers": 2})
    client, slow = stage.connect(), stage.connect(receive_buffer=4096)
    opened, sizes = [], []
    for turn in range(30):
        assert ask(phone, "relay", b"%d" % turn + b"x" * 50000) == 1
        assert client.receive().startswith(b"%d" % turn)
        stage.evapid.kill_and_restart() if turn == 15 else stage.evapid.restart()
        stage.evapid.attached(stage.kamailio.pid, 2)
        if turn in (0, 22, 29):
            opened.append(len(stage.evapid.descriptors()))
        sizes.append(len(stage.evapid.stored()))
    assert opened[1] == opened[2] <= opened[0], f"{opened} {stage.evapid.descriptors()}"
    assert sizes[22] == sizes[29] <= sizes[0], stage.evapid.stored()
    balanced(stage.evapid.status())


def test_killed_while_clients_are_announced_again_nobody_gets_an_event_before_it_is_let_in(stage):
    phone = begin(stage, restart, evapi={"workers": 1}, attach_hold_ms=600000)
    client = stage.connect()
    stage.kamailio.terminate()
    stage.evapid.detached()
    stage.evapid.stopped()
    stage.restart_kamailio(attach=False)
    ask(phone, "gate", gate="1")
    stage.evapid.goes_on()
    stage.evapid.attached(stage.kamailio.pid)
    stage.kamailio.logged(rf"NEW {client.index}\b")
    assert ask(phone, "relay", b"held") == 1
    stage.evapid.kill_and_restart()
    assert stage.evapid.status()["kamailio"]["ring"]["held"]
    assert client.receive_ready() == []
    ask(phone, "gate", gate="0")
    assert client.receive() == b"held"
    assert stage.kamailio.text().count(f"NEW {client.index} ") == 2
