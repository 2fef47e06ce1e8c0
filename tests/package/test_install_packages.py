"""What ./quickstart and ./check install for themselves: programs, and no service that runs or starts at the next boot. Under a
running systemd, and where none runs."""

import shutil

import pytest

from host import completed
from packages import ROOT

POLICY = "/usr/sbin/policy-rc.d"
SERVER = "redis-server"
OWN_UNIT = """[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""


def bring(host):
    """The scripts, into the host."""
    host.path("/srv/cmake").mkdir()
    for name in ("packages.sh", "install-packages"):
        shutil.copy(ROOT / "cmake" / name, host.path("/srv/cmake"))
    return host


def install(host, *packages):
    return host.run("bash", "-ec", f"cd /srv && . cmake/packages.sh && install_packages {' '.join(packages)}")


def broken(host, own_folder):
    """A package that can't be configured. Returns its name in the host."""
    files = own_folder / "broken"
    (files / "DEBIAN").mkdir(parents=True)
    (files / "DEBIAN/control").write_text(f"Package: broken\nVersion: 1\nArchitecture: all\nDepends: {SERVER}\n"
                                          "Maintainer: evapid's tests <tests@evapid.invalid>\nDescription: a broken package\n")
    (files / "DEBIAN/postinst").write_text("#!/bin/sh\nexit 1\n")
    (files / "DEBIAN/postinst").chmod(0o755)
    completed(["dpkg-deb", "--root-owner-group", "-b", files, host.path("/srv/broken.deb")], "dpkg-deb")
    return "/srv/broken.deb"


def links(host):
    """Those by which a service starts at the next boot."""
    folders = (host.path("/etc/systemd/system"), *host.root.glob("etc/rc[2345].d"))
    return {str(path) for folder in folders for path in folder.rglob("*")
            if path.is_symlink() and (path.name.startswith("S") or path.name.endswith(".service"))}


def state(host, unit=SERVER):
    return host.machine.show(unit, "ActiveState"), host.run("systemctl", "is-enabled", unit).stdout.strip()


@pytest.fixture
def system(booted):
    return bring(booted)


@pytest.fixture
def chroot(bare_host):
    """Without a systemd that runs, and without a policy."""
    bare_host.path(POLICY).unlink()
    return bring(bare_host)


def test_a_server_neither_runs_nor_starts_at_the_next_boot(system):
    before = links(system)
    ran = install(system, SERVER)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert system.done("dpkg-query", "-W", "-f", "${db:Status-Status}", SERVER) == "installed"
    assert state(system) == ("inactive", "disabled")
    assert links(system) == before and not system.path(POLICY).exists()
    # It is the user's to enable.
    system.done("systemctl", "enable", SERVER)
    assert state(system)[1] == "enabled"


def test_nor_does_it_when_the_installation_fails_in_the_middle(system, own_folder):
    before = links(system)
    ran = install(system, SERVER, broken(system, own_folder))
    assert ran.returncode == 1 and "apt-get could not install: " in ran.stderr
    assert system.done("dpkg-query", "-W", "-f", "${db:Status-Status}", SERVER) == "installed"
    assert state(system) == ("inactive", "disabled")
    assert links(system) == before and not system.path(POLICY).exists()


def test_a_unit_that_the_user_has_enabled_goes_on(system):
    system.path(f"/etc/systemd/system/{SERVER}.service").write_text(OWN_UNIT)
    system.done("systemctl", "enable", "--now", SERVER)
    pid = system.machine.show(SERVER, "MainPID")
    ran = install(system, SERVER)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert state(system) == ("active", "enabled") and system.machine.show(SERVER, "MainPID") == pid != "0"


def test_where_no_systemd_runs_it_starts_at_no_boot_either(chroot, own_folder):
    before = links(chroot)
    ran = install(chroot, SERVER, broken(chroot, own_folder))
    assert ran.returncode == 1 and links(chroot) == before
    chroot.run("dpkg", "--purge", "broken")
    assert install(chroot, SERVER, "openssh-server").returncode == 0
    assert links(chroot) == before and not chroot.path(POLICY).exists()
    # The scripts of System V's init are there, and off.
    assert chroot.path("/etc/init.d/ssh").exists() and list(chroot.root.glob("etc/rc2.d/K*ssh"))


def test_a_policy_of_the_machine_s_own_stays(bare_host):
    bring(bare_host)
    before = bare_host.path(POLICY).read_text()
    assert install(bare_host, SERVER).returncode == 0
    assert bare_host.path(POLICY).read_text() == before


def test_a_policy_that_a_kill_left_behind_forbids_nothing(chroot):
    """apt-get's part is played by a script that asks the policy, and then kills who has called it."""
    fake = chroot.path("/srv/fake/apt-get")
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\ncase $2 in update) exit ;; esac\n{POLICY} redis-server start; echo $? > /srv/during\nkill -9 $PPID\n')
    fake.chmod(0o755)
    chroot.run("bash", "-c", f"cd /srv && PATH=/srv/fake:$PATH cmake/install-packages {SERVER}; {POLICY} redis-server start; "
               "echo $? > /srv/after")
    assert (chroot.path("/srv/during").read_text(), chroot.path("/srv/after").read_text()) == ("101\n", "0\n")
