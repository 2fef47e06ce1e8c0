"""evapid waits for nobody: not for who reads its log, not for the service manager, not for a descriptor that somebody passes."""

import socket
import subprocess

import pytest

from evapid import EVAPICTL
from process import DEADLINE_S

SHELL = ["/bin/sh", "-c"]


# ---- standard descriptors that are closed


@pytest.mark.parametrize("closed", [[0], [2], [0, 1, 2]], ids=str)
def test_evapid_starts_serves_and_ends_without_standard_descriptors(stage, closed):
    """A socket that gets the number of one of these would be sent lines of the log, and libuv aborts when it closes it."""
    stage.start_evapid(before=[*SHELL, f'exec "$@" {" ".join(f"{number}>&-" for number in closed)}', "sh"])
    opened = stage.evapid.descriptors()
    assert [opened[number] for number in closed] == ["/dev/null"] * len(closed)
    stage.start_kamailio()
    stage.connect()
    assert stage.evapid.terminate() == 0


def test_evapictl_sends_evapid_nothing_that_is_meant_for_standard_output(tmp_path):
    with socket.socket(socket.AF_UNIX) as evapid:
        evapid.bind(str(tmp_path / "control.sock"))
        evapid.listen()
        asking = subprocess.Popen([*SHELL, 'exec "$@" >&-', "sh", EVAPICTL, "-s", tmp_path / "control.sock", "tail"])
        connection, _ = evapid.accept()
        with connection:
            connection.settimeout(DEADLINE_S)
            sent = connection.makefile("rwb")
            assert b"tail" in sent.readline()
            sent.write(b'{"tail":true}\n{"out":"event","kind":"relay","receivers":1,"size":5,"time":0}\n')
            sent.flush()
            connection.shutdown(socket.SHUT_WR)
            assert sent.read() == b""
        asking.wait(DEADLINE_S)
