"""A Kamailio that logs errors alone (debug=-1), or warnings besides (debug=0, its default), says what is wrong with the bus."""

import re

import pytest

from privilege import only_root
from process import until

ROUTES = 'route[TEST] { evapi_relay("$rb"); append_to_reply("X-Rc: $rc\\r\\n"); sl_send_reply("200", "OK"); }'

quiet = pytest.mark.parametrize("debug", [0, -1])


def start(stage, debug, more="", **pieces):
    return stage.start_kamailio(ROUTES, attach=False, settings=f"debug={debug}\n{more}", **pieces)


ABSENT = r"ERROR: evapi .*evapid is not there \(\S+: ([^)]+)\); (.*); trying on"
LOST = "ERROR: evapi .*lost evapid"


def absences(kamailio):
    """Why evapid was not there, and what is to be done: of each time between two attachments, each line."""
    times = re.split(LOST, "\n".join(kamailio.lines(f"{ABSENT}|{LOST}")))
    return [re.findall(ABSENT, time) for time in times]


@quiet
def test_that_evapid_is_not_there_is_said_once_with_what_to_do(stage, debug):
    kamailio = start(stage, debug)
    kamailio.logged(ABSENT)
    why, advice = absences(kamailio)[0][0]
    assert why == "No such file or directory" and advice.startswith("start evapid")
    stage.start_evapid()
    stage.evapid.attached(kamailio.pid)
    stage.evapid.kill()
    why, advice = until(lambda: absences(kamailio)[1:] and absences(kamailio)[1], "it says that evapid is not there again")[0]
    assert why == "Connection refused" and advice.startswith("start evapid")
    stage.restart_evapid()
    stage.evapid.attached(kamailio.pid)
    # An evapid that is starting may be found without its socket's file, or not listening yet: that is said once as well.
    for said in absences(kamailio):
        assert said and all(one != other for one, other in zip(said, said[1:])), said


@quiet
@only_root("can start a Kamailio of another user")
def test_that_evapid_may_not_be_reached_is_said_with_what_to_do(stage, debug):
    """The folder is this user's alone."""
    stage.start_evapid()
    kamailio = start(stage, debug, 'user="nobody"\ngroup="nogroup"\n')
    line = kamailio.logged(r"ERROR: evapi .*evapid is not there")[0]
    assert "Permission denied); have Kamailio run in the group of the socket" in line and "kamailio_access" in line


@quiet
def test_that_evapid_refuses_is_said(stage, debug):
    stage.start_evapid()
    stage.start_kamailio(ROUTES)
    other = stage.start_kamailio(ROUTES, port=stage.ports.udp(), attach=False, settings=f"debug={debug}")
    other.logged(r"ERROR: evapi .*refuses this Kamailio: ")


@quiet
def test_that_the_queue_is_full_is_said(stage, debug):
    kamailio, phone = start(stage, debug, evapi={"queue_size": 65536}), stage.phone()
    for _ in range(40):
        if int(phone.ask("MESSAGE", "x", body=b"x" * 4000)["X-Rc"]) < 0:
            break
    kamailio.logged(r"ERROR: evapi .*the queue is full")
