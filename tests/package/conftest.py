"""Tests of the Debian packages, from installing to purging, in Debians of their own. tests/package/run makes those, and starts
the tests; EVAPID_HOSTS is the folder that it made. EVAPID_KEEP=1 keeps what the tests make in it."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "service"), str(HERE.parent / "system/lib")]
sys.dont_write_bytecode = True

from host import CACHE, Booted, Host  # noqa: E402
from packages import Packages  # noqa: E402
from ports import Ports  # noqa: E402


def pytest_sessionstart(session):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as after ^C: every fixture cleans up


@pytest.fixture(scope="session")
def hosts():
    return Path(os.environ["EVAPID_HOSTS"])


@pytest.fixture(scope="session")
def packages(hosts):
    return Packages(hosts / "packages")


@pytest.fixture(scope="session")
def kamailio_host(hosts):
    """With Kamailio, its own evapi.so, and systemd. Not for installing in: copy it."""
    return Host(hosts / "kamailio", CACHE / "archives")


@contextlib.contextmanager
def folder_in(folder):
    made = Path(tempfile.mkdtemp(prefix="test-", dir=folder))
    made.chmod(0o755)  # users of the host go through it
    try:
        yield made
    finally:
        if not os.environ.get("EVAPID_KEEP"):
            shutil.rmtree(made)


@pytest.fixture
def own_folder(hosts):
    with folder_in(hosts) as made:
        yield made


@pytest.fixture
def bare_host(hosts, own_folder):
    """A minimal Debian, without systemd."""
    return Host(hosts / "bare", CACHE / "archives").copy(own_folder / "host")


@pytest.fixture
def booted(kamailio_host, own_folder):
    with Booted(kamailio_host, own_folder / "host") as host:
        yield host


@pytest.fixture
def installed(booted, packages):
    """A booted host with both packages."""
    booted.install(packages.evapid, packages.module)
    return booted


@pytest.fixture(scope="module")
def shared(kamailio_host, packages, hosts):
    """One for the tests that change nothing about it."""
    with folder_in(hosts) as folder, Booted(kamailio_host, folder / "host") as host:
        host.install(packages.evapid, packages.module)
        yield host


@pytest.fixture
def ports():
    held = Ports()
    yield held
    held.close()
