"""evapid as a service, under the tests' own service manager."""

import socket

from process import until


def test_a_supervised_evapid_says_when_it_is_ready_and_comes_back(stage):
    evapid = stage.start_supervised()
    stage.start_kamailio()
    assert evapid.heard("READY") == "1"
    for again in (evapid.restart, evapid.kill_and_restart):
        before = evapid.pid
        again()
        assert evapid.pid != before
        assert stage.evapid.attached(stage.kamailio.pid)["pid"] == evapid.pid
        stage.connect()


def test_the_supervisor_keeps_what_it_is_given_and_lets_go_what_hangs_up(stage):
    evapid = stage.start_supervised(store=3)
    one, other = socket.socketpair()
    third = socket.socket()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(str(evapid.path))
        for name, kept in (("b", one), ("again", one), ("a", third), ("too-many", notify)):
            socket.send_fds(notify, [b"FDSTORE=1\nFDPOLL=%d\nFDNAME=%s" % (kept is one, name.encode())], [kept.fileno()])
        assert evapid.stored() == ["a", "b", "ledger"] and evapid.refused() == 1
        one.close()
        other.close()
        until(lambda: evapid.stored() == ["a", "ledger"], "what hung up is let go")
        notify.send(b"FDSTOREREMOVE=1\nFDNAME=a")
        assert evapid.stored() == ["ledger"]
    third.close()
