"""A Kamailio that logs errors alone (debug=-1), or warnings besides (debug=0, its default), says what is wrong with the bus."""

import os

import pytest

ROUTES = 'route[TEST] { evapi_relay("$rb"); append_to_reply("X-Rc: $rc\\r\\n"); sl_send_reply("200", "OK"); }'

quiet = pytest.mark.parametrize("debug", [0, -1])


def start(stage, debug, more="", **pieces):
    return stage.start_kamailio(ROUTES, attach=False, settings=f"debug={debug}\n{more}", **pieces)


@quiet
def test_that_evapid_is_not_there_is_said_once_with_what_to_do(stage, debug):
    kamailio = start(stage, debug)
    line = kamailio.logged(r"ERROR: evapi .*evapid is not there")[0]
    assert "No such file or directory); start evapid" in line
    stage.start_evapid()
    stage.evapid.attached(kamailio.pid)
    stage.evapid.kill()
    kamailio.logged(r"ERROR: evapi .*lost evapid")
    line = kamailio.logged(r"ERROR: evapi .*evapid is not there", 2)[1]
    assert "Connection refused); start evapid" in line
    stage.restart_evapid()
    stage.evapid.attached(kamailio.pid)
    assert len(kamailio.lines("evapid is not there")) == 2


@quiet
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a Kamailio of another user")
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
