"""System tests of evapid: the packaged Kamailio with our module, real SIP on the loopback, evapid as it is built.

    python3 -m pytest tests/system                                    # build/release
    EVAPID_BUILD=build/asan python3 -m pytest -m 'not once' tests/system   # the sanitized daemon, the same module

EVAPID_MODULE names another evapi.so, EVAPID_KEEP=1 keeps the folders with configurations and logs."""

import os
import signal
import subprocess

import pytest

from evapid import EVAPICTL, EVAPID, MODULE
from namespace import ALONE
from process import until
from stage import Stage


def pytest_sessionstart(session):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as after ^C: every fixture cleans up
    missing = [str(path) for path in (EVAPID, EVAPICTL, MODULE) if not os.path.exists(path)]
    if missing:
        pytest.exit("not built: " + ", ".join(missing), returncode=3)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With a failure come the last lines of what every program logged."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for stage in Stage.playing:
            for process in stage.processes[-3:]:
                report.sections.append((f"log of {process.name}", process.tail()))


@pytest.fixture
def stage():
    with Stage() as own:
        yield own


@pytest.fixture(scope="module")
def shared_stage():
    """For the tests of one file that leave each other in peace."""
    with Stage() as shared:
        yield shared


@pytest.fixture
def calm(stage):
    """For a stage that tests share: after each, everybody has gone, and nothing has crashed."""
    yield
    stage.hang_up()
    assert not stage.problems()


@pytest.fixture
def alone():
    """The command that runs something in a network namespace of its own, another one each time."""
    if subprocess.run([*ALONE, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine allows no network namespace: " + " ".join(ALONE))
    return ALONE


@pytest.fixture
def house(stage):
    """A stage whose sockets any user can reach, if their mode lets them."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    stage.folder.chmod(0o711)
    return stage


@pytest.fixture
def apart():
    """The command that runs something in a network namespace of its own, the same one each time."""
    with subprocess.Popen(["unshare", "-n", "sleep", "300"]) as holder:
        def moved():
            return os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net")
        try:
            until(moved, "the namespace is there")
            yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        finally:
            holder.kill()
