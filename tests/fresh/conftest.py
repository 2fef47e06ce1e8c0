"""Tests of the first minute on a clean machine. tests/fresh/run starts them; EVAPID_HOSTS is a folder of its own, EVAPID_SUITES the
suites of Debian that are tried. EVAPID_KEEP=1 keeps what they make."""

import os
import signal
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "package"), str(HERE.parent / "service"), str(HERE.parent / "system/lib")]
sys.dont_write_bytecode = True

from stranger import Strangers  # noqa: E402

SUITES = os.environ["EVAPID_SUITES"].split()


def pytest_sessionstart(session):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as after ^C: every fixture cleans up


@pytest.fixture(scope="session")
def strangers():
    with Strangers(Path(os.environ["EVAPID_HOSTS"])) as all_of_them:
        yield all_of_them


def pytest_generate_tests(metafunc):
    if "suite" in metafunc.fixturenames:
        metafunc.parametrize("suite", SUITES, scope="session")


@pytest.fixture(scope="session")
def at_work(strangers, suite):
    """Both who try this tree on a minimal Debian of that suite. Those of all suites work side by side: each waits for the disk and for
    archives at times."""
    for each in SUITES:
        strangers.newcomer(each), strangers.packager(each)
    return strangers.newcomer(suite), strangers.packager(suite)


@pytest.fixture
def newcomer(at_work):
    at_work[0].finished()
    return at_work[0]


@pytest.fixture
def packager(at_work):
    at_work[1].finished()
    return at_work[1]
