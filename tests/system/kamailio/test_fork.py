"""Who is attached is who lives, not who holds the socket: a child that a script has forked without becoming another program
inherits its evapi worker's link, and may outlive Kamailio."""

import ctypes
import os
import re
import signal

import pytest

from evapid import open_by
from process import running, until
from script import RELAY

MODULES = os.environ.get("EVAPID_KAMAILIO_MODULES")  # of another Kamailio than the packaged one
PIDFD_GETFD = 438  # all architectures
syscall = ctypes.CDLL(None, use_errno=True).syscall

ROUTES = RELAY + """
event_route[evapi:connection-new] { xlog("L_NOTICE", "NEW $evapi(conidx) again $evapi(again);\\n"); }
event_route[evapi:message-received] { FORK evapi_relay("heard $evapi(msg)"); }
"""

# They are in sessions of their own, and so no part of the Kamailio that ends. "fork" waits until its child is.
SCRIPT = """
import os, signal, subprocess, sys

def stay(ready):
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(ready, b"!")
    while True:
        signal.pause()

class Script:
    def child_init(self, rank):
        return 0

    def fork(self, msg):
        hears, ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            stay(ready)
        os.close(ready)
        os.read(hears, 1)
        os.close(hears)
        with open(FILE, "a") as file:
            file.write(f"{pid}\\n")
        return 1

    def run(self, msg):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        with open(FILE, "a") as file:
            file.write(f"{child.pid}\\n")
        return 1

def mod_init():
    return Script()
"""


@pytest.fixture
def children(stage):
    """The file in which a script names the children that it has forked; they are ended with the test."""
    path = stage.folder / "children"
    path.touch()
    yield path
    for pid in map(int, path.read_text().split()):
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not running(pid), "a child of the script ends")


def start_with_python(stage, children, method):
    script = stage.folder / "script.py"
    script.write_text(SCRIPT.replace("FILE", repr(str(children))))
    return stage.start_kamailio(ROUTES.replace("FORK", f'python_exec("{method}");'), modules=("app_python3",),
                                params={"app_python3": {"load": str(script)}})


def names_of_sockets(pid):
    return {name for name in open_by(pid).values() if name.startswith("socket:")}


@pytest.mark.skipif(MODULES is not None and not os.path.exists(f"{MODULES}/app_python3.so"),
                    reason="this Kamailio was built without app_python3")
@pytest.mark.parametrize("end", ["terminate", "kill"])
@pytest.mark.parametrize("method", ["fork", "run"])
def test_a_child_of_a_python_script_does_not_keep_its_kamailio_attached(stage, children, end, method):
    stage.start_evapid()
    start_with_python(stage, children, method)
    client = stage.connect()
    client.send(b"word")
    assert client.receive() == b"heard word"
    child = int(children.read_text())
    worker = stage.evapid.status()["kamailio"]["workers"][0]["pid"]
    inherited = until(lambda: "sleep" in os.readlink(f"/proc/{child}/exe") or method == "fork", "the child is there") and \
        names_of_sockets(worker) & names_of_sockets(child)
    assert bool(inherited) == (method == "fork"), "what becomes another program has nothing of Kamailio's"
    getattr(stage.kamailio, end)()
    stage.evapid.detached()
    assert running(child)
    stage.restart_kamailio()
    stage.evapid.client(client)
    assert stage.kamailio.lines(rf"NEW {client.index} again 1;")
    assert not stage.kamailio.lines("refuses this Kamailio")


def hold_link(stage):
    """Have the descriptors of the evapi worker's sockets, as a child that it has forked."""
    worker = stage.evapid.status()["kamailio"]["workers"][0]["pid"]
    pidfd = os.pidfd_open(worker)
    held = [syscall(PIDFD_GETFD, pidfd, fd, 0) for fd, name in open_by(worker).items() if name.startswith("socket:")]
    os.close(pidfd)
    assert held and min(held) >= 0, os.strerror(ctypes.get_errno())
    return held


@pytest.fixture
def held(stage):
    """Descriptors that are closed with the test."""
    all_ = []
    yield all_
    for fd in all_:
        os.close(fd)


@pytest.mark.parametrize("workers", [1, 3])
def test_who_holds_a_dead_worker_s_socket_is_not_attached(stage, held, workers):
    stage.start_evapid()
    stage.start_kamailio(ROUTES.replace("FORK", ""), evapi={"workers": workers})
    client = stage.connect()
    held += hold_link(stage)
    stage.kamailio.kill()
    stage.evapid.detached()
    stage.restart_kamailio()
    stage.evapid.client(client)
    stage.evapid.attached(stage.kamailio.pid, workers)


def test_a_worker_that_is_killed_alone_is_gone_though_somebody_holds_its_socket(stage, held):
    """Its Kamailio, stopped, can't end the others: they go on."""
    stage.start_evapid()
    stage.start_kamailio(ROUTES.replace("FORK", ""), evapi={"workers": 2})
    held += hold_link(stage)
    stage.kamailio.signal(signal.SIGSTOP)
    os.kill(stage.evapid.status()["kamailio"]["workers"][0]["pid"], signal.SIGKILL)
    stage.evapid.until_status(lambda s: len(s["kamailio"]["workers"]) == 1, "one worker is left")
    client = stage.connect()
    client.send(b"word")
    assert client.receive() == b"heard word"
    assert stage.evapid.logged(r"info kamailio: worker 0 \(pid \d+\): its process has ended")
    stage.kamailio.kill()


@pytest.mark.parametrize("how", ["replace", "restart"])
@pytest.mark.parametrize("gone", ["before", "while nobody looked"])
def test_an_evapid_that_takes_over_a_link_sees_the_end_of_its_process(stage, held, how, gone):
    if how == "replace":
        stage.start_evapid()
    else:
        stage.start_supervised()
    stage.start_kamailio(ROUTES.replace("FORK", ""))
    client = stage.connect()
    held += hold_link(stage)
    if how == "replace" and gone == "while nobody looked":
        stage.evapid.stopped()  # it takes part in the hand-over, and has not looked at anything else before
        stage.kamailio.kill()
        stage.evapid.goes_on()
        stage.replace_evapid()
    elif how == "replace":
        stage.replace_evapid()
        stage.kamailio.kill()
    elif gone == "while nobody looked":
        stage.evapid.terminate()
        stage.kamailio.kill()
        stage.evapid.start_again()
    else:
        stage.evapid.restart()
        stage.kamailio.kill()
    stage.evapid.detached()
    stage.restart_kamailio()
    stage.evapid.client(client)
    assert re.findall(rf"NEW {client.index} again (\d)", stage.kamailio.text()) == ["1"]
