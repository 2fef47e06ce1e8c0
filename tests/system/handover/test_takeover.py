"""The moment at which one evapid becomes the next: whatever is killed, stopped or told to end around it, one of the two goes on
with clients and Kamailio, and one only."""

import random
import signal
import socket
import time

import pytest

from books import balanced
from evapid import Evapid
from handover import begin, goes_on, replace
from process import until
from script import ask
from successor import Successor, succeed

STEP_S = 10  # that each gives the other


# ---- a successor that does not begin


def let_down_after_go(says):
    def successor(evapid):
        successor = Successor(evapid).ask()
        successor.take()
        successor.say(b"ready\n")
        assert successor.line() == b"go\n"
        successor.say(says)
        return successor
    return successor


@pytest.mark.parametrize("says", [b"", b"runn", b"walking\n"], ids=["nothing", "half of it", "something else"])
def test_a_successor_that_ends_after_go_costs_nothing(stage, says):
    phone = begin(stage, replace, {"workers": 2})
    clients = [stage.connect() for _ in range(3)]
    for turn in range(3):
        let_down_after_go(says)(stage.evapid).close()
        stage.evapid.logged("not replaced: the successor (died before it ran|did not begin to run); going on", turn + 1)
    goes_on(stage, phone, clients)
    replace(stage)
    goes_on(stage, phone, clients, b"replaced")
    assert balanced(stage.evapid.status())["delivered"] == 6


def test_a_successor_that_says_nothing_after_go_is_waited_for_ten_seconds_and_no_longer(stage):
    phone = begin(stage, replace)
    client = stage.connect()
    successor = let_down_after_go(b"")(stage.evapid)
    for number in range(20):
        assert ask(phone, "relay", b"%d" % number) == 1
    until(lambda: stage.evapid.lines("not replaced: the successor did not begin to run; going on"), "it goes on", 2 * STEP_S + 10)
    assert client.receive_many(20) == [b"%d" % number for number in range(20)]
    successor.close()
    goes_on(stage, phone, [client])


# ---- a real one, with somebody between the two


def test_a_successor_that_is_killed_when_it_was_told_to_go_costs_nothing(stage):
    phone = begin(stage, replace, {"workers": 2})
    clients = [stage.connect() for _ in range(3)]

    def kill(successor, step):
        if step == "go":
            successor.kill()
        return step != "go"
    between, _ = succeed(stage, kill)
    between.ended()
    goes_on(stage, phone, clients)
    assert balanced(stage.evapid.status())["delivered"] == 3


def test_a_successor_that_was_stopped_finds_that_the_other_one_has_gone_on(stage):
    phone = begin(stage, replace)
    client = stage.connect()

    def stop(successor, step):
        if step == "go":
            successor.stopped()
        return True
    between, successor = succeed(stage, stop)
    until(lambda: stage.evapid.lines("not replaced: the successor did not begin to run; going on"), "it goes on", 2 * STEP_S + 10)
    successor.goes_on()
    assert successor.ended() == 1
    assert successor.lines("error .*: the running evapid goes on$")
    between.ended()
    goes_on(stage, phone, [client])


def test_the_successor_goes_on_when_the_one_that_runs_is_killed_while_it_waits(stage):
    phone = begin(stage, replace, {"workers": 2})
    clients = [stage.connect() for _ in range(3)]
    clients[0].send_bytes(b"12:in two ")
    clients[0].wait_read()

    def kill(_, step):
        if step == "ready":
            stage.evapid.kill()
        return step != "ready"
    between, successor = succeed(stage, kill)
    between.ended()
    stage.evapid = successor.ready()
    stage.evapid.attached(stage.kamailio.pid, 2)
    clients[0].send_bytes(b"parts,")
    stage.kamailio.logged(rf"GOT {clients[0].index} in two parts;")
    goes_on(stage, phone, clients)


# ---- killed at any moment


@pytest.mark.parametrize("victim", ["successor", "predecessor"])
def test_one_of_the_two_is_killed_at_any_moment(stage, victim):
    """The other one goes on with all clients; unless it had ended, for it had been replaced, when its successor was killed."""
    phone = begin(stage, replace, {"workers": 2})
    clients = [stage.connect() for _ in range(4)]
    moments, sent = random.Random(1234), 0
    for turn in range(12):
        last = stage.evapid
        unborn = ["sh", "-c", "kill -STOP $$; exec \"$@\"", "sh"] if turn == 0 else []  # the first is killed before it begins
        successor = Evapid(stage.folder, last.settings, options=["--replace"], before=unborn if victim == "successor" else [])
        last.expect_end = successor.expect_end = True
        stage.processes.append(successor)
        time.sleep(moments.uniform(0, 0.12))
        (successor if victim == "successor" else last).kill()
        if victim == "successor":
            until(lambda: not last.alive() or last.status(), "it goes on, or has ended")
            assert last.alive() or turn > 0, "its successor had not begun"
            other = last
        else:
            until(lambda: not successor.alive() or successor.lines("version .* ready"), "it goes on, or gives up")
            other = successor
        if other.alive():
            sent += 1
            stage.evapid = other
            other.expect_end = False
            other.attached(stage.kamailio.pid, 2)
            word = b"%d" % turn
            assert ask(phone, "relay", word) == 1
            for client in clients:
                assert client.receive() == word
            assert balanced(other.status())["delivered"] == sent * len(clients)
            continue
        assert all(client.receive_rest() == [] for client in clients)
        stage.start_evapid(**last.settings)
        stage.evapid.attached(stage.kamailio.pid, 2)
        clients, sent = [stage.connect() for _ in range(4)], 0


# ---- told to end, at any moment


def test_a_successor_that_is_told_to_end_between_ready_and_its_loop_ends_in_order(stage):
    begin(stage, replace)
    client = stage.connect()

    def terminate(successor, step):
        if step == "go":
            successor.expect_end = stage.evapid.expect_end = True
            successor.stopped()
            successor.signal(signal.SIGTERM)
            successor.goes_on()
        return True
    between, successor = succeed(stage, terminate)
    between.ended()
    assert successor.ended() == 0 and stage.evapid.ended() == 0
    assert successor.lines("taken over: 1 clients") and successor.lines("stopping: SIGTERM") and successor.lines("stopped: ")
    assert client.receive_rest() == []


def test_a_successor_that_nobody_answers_can_be_told_to_end(stage):
    path = stage.folder / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        successor = Evapid(stage.folder, {"control_socket": str(path)}, options=["--replace"])
        with silent.accept()[0]:
            assert successor.terminate() == -signal.SIGTERM


def blocked(evapid, number):
    """Does the process block that signal?"""
    with open(f"/proc/{evapid.pid}/status") as status:
        mask = next(line for line in status if line.startswith("SigBlk:"))
    return int(mask.split()[1], 16) >> (number - 1) & 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("supervised", [False, True], ids=["alone", "as a service"])
def test_an_evapid_that_is_told_to_end_while_it_starts_ends_in_order(stage, supervised, number):
    (stage.start_supervised if supervised else stage.start_evapid)()
    assert stage.evapid.terminate() == 0
    for _ in range(15):
        evapid = stage.evapid
        if supervised:
            evapid.start(evapid.command, evapid.environment)
        else:
            evapid = Evapid(stage.folder, evapid.settings)
        until(lambda: not evapid.alive() or blocked(evapid, signal.SIGHUP) or evapid.lines("ready"), "it has begun")
        evapid.expect_end = True
        evapid.signal(number)
        assert evapid.ended() == 0, evapid.tail(5)
