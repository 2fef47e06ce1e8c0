"""The Debian packages, from installing to purging them: with apt, on hosts of their own (host.py)."""

import hashlib
import json
import re

import pytest

import commands
from client import Client
from host import completed
from packages import BUILD, empty, field, lintian, newer
from process import until

CONFIG = "/etc/evapid/evapid.json"
UNITS = ("/usr/lib/systemd/system/evapid.service", "/usr/lib/systemd/system/evapid@.service")
ENABLED = "/etc/systemd/system/multi-user.target.wants/evapid.service"
ACCOUNTS = {"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"}


def entry(host, book, name):
    """The fields of an account, or None: passwd or group."""
    for line in host.path(f"/etc/{book}").read_text().splitlines():
        if line.split(":")[0] == name:
            return line.split(":")
    return None


def is_there(host, client):
    return any(each["address"] == f"127.0.0.1:{client.port}" for each in host.status()["clients"])


def module_of(host):
    (module,) = [line for line in host.done("dpkg", "-L", "kamailio-evapid-module").split() if line.endswith("evapi.so")]
    return module


def write_kamailio_cfg(host, address, sip_port):
    """The installed example, with these addresses. Returns its name in the host."""
    text = host.path("/usr/share/doc/evapid/kamailio-evapi.cfg").read_text()
    for name, value in (("EVAPI_BIND", f'"{address}"'), ("SIP_LISTEN", f"udp:127.0.0.1:{sip_port}")):
        assert f"#!trydef {name} " in text
        text = text.replace("#!KAMAILIO\n", f"#!KAMAILIO\n#!define {name} {value}\n", 1)
    host.path("/etc/kamailio/evapi.cfg").write_text(text)
    return "/etc/kamailio/evapi.cfg"


@pytest.fixture
def client(installed, ports):
    """Connected to a listener of evapid's own, for which its configuration was edited."""
    address = f"127.0.0.1:{ports.tcp()}"
    installed.path(CONFIG).write_text(json.dumps({"listeners": [{"address": address}]}))
    installed.done("systemctl", "restart", "evapid")
    with_close = Client(address)
    until(lambda: is_there(installed, with_close), "evapid has the client")
    yield with_close
    with_close.close()


def instance(host, name, **keys):
    """The unit of one of several evapids, which is configured now."""
    sockets = {f"{kind}_socket": f"/run/evapid-{name}/{kind}.sock" for kind in ("kamailio", "control")}
    host.path(f"/etc/evapid/{name}.json").write_text(json.dumps({**sockets, **keys}))
    return f"evapid@{name}.service"


def instance_that_runs(host, name):
    unit = instance(host, name)
    host.done("systemctl", "start", unit)
    assert host.evapid(unit) > 0
    return unit


# ---- the packages themselves


def test_lintian_finds_nothing_that_is_not_explained(packages):
    assert len(packages.all()) == 4
    assert lintian(packages.all()) == []


def test_each_override_of_lintian_says_why(packages, own_folder):
    for package in (packages.evapid, packages.module):
        name = field(package, "Package")
        completed(["dpkg-deb", "-x", package, own_folder / name], "dpkg-deb")
        lines = (own_folder / name / f"usr/share/lintian/overrides/{name}").read_text().splitlines()
        assert lines[0].startswith("# ")
        assert all(line.startswith("# ") or above.startswith("# ") for above, line in zip(lines, lines[1:]))


def test_the_same_sources_make_the_same_packages(packages):
    def sums(files):
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    completed(["cmake", "--build", BUILD, "--target", "clean"], "cleaning")
    assert sums(packages.make(BUILD, umask=0o077)) == sums(packages.all())


def test_the_module_is_for_the_very_kamailio_that_it_was_built_for(packages):
    version = completed(["dpkg-query", "-W", "-f", "${Version}", "kamailio"], "dpkg-query")
    assert f"kamailio (= {version})" in field(packages.module, "Depends").split(", ")
    assert "+kamailio" + version.split(":")[-1].replace("-", ".") in field(packages.module, "Version")


# ---- installing


def test_installed_where_no_systemd_runs_nothing_is_started(bare_host, packages):
    host = bare_host
    assert "not running 'evapid.service'" not in host.install(packages.evapid)  # as policy-rc.d would have it
    user = entry(host, "passwd", "evapid")
    assert user[5:] == ["/", "/usr/sbin/nologin"] and 0 < int(user[2]) < 1000
    assert host.path(ENABLED).is_symlink()
    assert host.done("evapid", "-t", "-c", CONFIG) == f"{CONFIG}: good\n"
    # Nor did it take Kamailio's group away from Kamailio, which comes later.
    host.apt("install", "kamailio")
    assert entry(host, "passwd", "kamailio")[3] == entry(host, "group", "kamailio")[2]


def test_installed_it_is_enabled_and_runs(shared):
    pid = shared.evapid()
    assert shared.status()["pid"] == pid > 0
    assert shared.machine.show("evapid", "ActiveState") == "active"
    assert shared.path(ENABLED).is_symlink()
    assert shared.done("stat", "-c", "%U %G", f"/proc/{pid}") == "evapid kamailio\n"
    assert shared.done("dpkg-query", "-W", "-f", "${Conffiles}", "evapid").split()[0] == CONFIG
    assert shared.done("dpkg", "-V", "evapid", "kamailio-evapid-module") == ""


def test_the_document_s_commands_install_them(booted, packages):
    booted.offer(packages.evapid, packages.module)
    said = booted.done("sh", "-ec", "cd /srv/packages\n" + commands.text_of("docs/operations.md", "install the packages"))
    assert f"evapid     {field(packages.evapid, 'Version').split('-')[0]}, pid {booted.evapid()}, " in said


def test_systemd_finds_nothing_wrong_with_the_installed_units(shared):
    ran = shared.run("systemd-analyze", "verify", "--man=no", *UNITS)
    assert (ran.returncode, [line for line in ran.stderr.splitlines() if "evapid" in line]) == (0, [])


def test_kamailio_loads_the_module_and_attaches(shared, ports):
    module = module_of(shared)
    own = module.replace("/modules-evapid/", "/modules/")
    assert own != module and shared.done("dpkg", "-S", own).startswith("kamailio-extra-modules")  # which stays
    address, sip_port = f"127.0.0.1:{ports.tcp()}", ports.udp()
    cfg = write_kamailio_cfg(shared, address, sip_port)
    assert "config file ok" in shared.done("kamailio", "-c", "-f", cfg)

    shared.done("systemd-run", "--unit=as-kamailio", "-p", "User=kamailio", "-p", "Group=kamailio",
                "-p", "RuntimeDirectory=kamailio", "kamailio", "-DD", "-f", cfg, "-m", "64", "-M", "8")
    try:
        until(lambda: shared.status()["kamailio"]["state"] == "attached", "Kamailio attaches")
        until(lambda: [each["state"] for each in shared.status()["listeners"]] == ["listening"], "its listener is there")
        client = Client(address)
        assert b'"welcome"' in client.receive()
        client.close()
    finally:
        shared.done("systemctl", "kill", "--signal=SIGKILL", "as-kamailio")


def test_kamailio_s_user_reaches_the_sockets_and_others_do_not(shared):
    def asked_by(user):
        return shared.run("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "evapictl", "status").returncode
    shared.done("groupadd", "--system", "stranger")
    shared.done("useradd", "--system", "-g", "stranger", "stranger")
    assert (asked_by("kamailio"), asked_by("stranger")) == (0, 3)


def test_the_documents_name_the_module_where_it_is(shared):
    module = module_of(shared)
    for name in ("README.md", "docs/module.md", "docs/operations.md", "kamailio-evapi.cfg"):
        assert f'"{module}"' in shared.path(f"/usr/share/doc/evapid/{name}").read_text(), name


def test_the_documents_lead_to_one_another(shared):
    """But for those that a package has under Debian's names."""
    folder = shared.path("/usr/share/doc/evapid")
    assert (folder / "copyright").exists() and (folder / "changelog.gz").exists()
    documents = list(folder.rglob("*.md"))
    assert len(documents) > 12
    for document in documents:
        for target in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", document.read_text()):
            renamed = target.endswith(("LICENSE", "CHANGELOG.md"))
            assert renamed or (document.parent / target).exists(), f"{document.name}: {target}"


# ---- upgrading


def test_an_upgrade_keeps_the_edited_configuration_and_the_clients(installed, client, packages, own_folder):
    edited, pid = installed.path(CONFIG).read_text(), installed.evapid()
    east = instance_that_runs(installed, "east")
    before = installed.evapid(east)

    def another_default(files):
        (files / CONFIG.lstrip("/")).write_text("{}\n")
    installed.install(newer(packages.evapid, own_folder, another_default))
    assert installed.done("dpkg-query", "-W", "-f", "${Version}", "evapid").endswith("+newer")
    assert installed.path(CONFIG).read_text() == edited
    assert installed.path(CONFIG + ".dpkg-dist").read_text() == "{}\n"
    assert installed.evapid() not in (0, pid) and installed.evapid(east) not in (0, before)
    assert is_there(installed, client)


def test_an_upgrade_with_a_bad_configuration_leaves_the_evapid_that_runs(installed, client, packages, own_folder):
    pid = installed.evapid()
    installed.path(CONFIG).write_text('{ "listners": [] }')
    west = instance_that_runs(installed, "west")
    before = installed.evapid(west)
    instance(installed, "west", listners=[])
    said = installed.install(newer(packages.evapid, own_folder))
    assert f"{CONFIG}:1:15: listners: unknown key" in said and "systemctl restart evapid" in said
    assert f"evapid: {west} was left as it is: correct /etc/evapid/west.json, then restart it" in said
    assert installed.evapid() == pid and installed.evapid(west) == before
    assert is_there(installed, client)
    assert installed.done("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "evapid").endswith("+newer installed")


def test_what_was_disabled_stays_so_in_an_upgrade(installed, packages, own_folder):
    installed.done("systemctl", "disable", "--now", "evapid")
    installed.install(newer(packages.evapid, own_folder))
    assert not installed.path(ENABLED).is_symlink()
    assert installed.evapid() == 0


def test_another_kamailio_comes_only_with_a_module_for_it(shared, packages, own_folder):
    version = shared.done("dpkg-query", "-W", "-f", "${Version}", "kamailio")

    def for_that(files):
        control = files / "DEBIAN/control"
        control.write_text(control.read_text().replace(f"kamailio (= {version})", f"kamailio (= {version}+newer)"))
    kamailio = empty(own_folder, "kamailio", version + "+newer")
    module = newer(packages.module, own_folder, for_that)

    def actions(*files):
        said = shared.would_install(*files)
        return sorted(re.findall(r"^(Inst|Remv) (kamailio|kamailio-evapid-module) ", said, re.M))
    assert ("Remv", "kamailio-evapid-module") in actions(kamailio)  # who insists is told
    assert actions(kamailio, module) == [("Inst", "kamailio"), ("Inst", "kamailio-evapid-module")]


# ---- removing


def test_removed_it_is_stopped_and_its_configuration_stays(installed):
    edited = '{ "log": { "level": "debug" } }'
    installed.path(CONFIG).write_text(edited)
    drop_in = installed.path("/etc/systemd/system/evapid@.service.d/later.conf")
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nRestartSec=3600\n")
    installed.done("systemctl", "daemon-reload")
    east, west = instance_that_runs(installed, "east"), instance(installed, "west", listners=[])
    assert installed.run("systemctl", "start", west).returncode != 0
    assert installed.machine.show(west, "ActiveState") == "activating", "systemd will start it again"
    pids = [installed.evapid(), installed.evapid(east)]
    installed.apt("remove", "evapid", "kamailio-evapid-module")
    for pid in pids:
        assert pid > 0 and installed.run("test", "-e", f"/proc/{pid}").returncode == 1
    for folder in ("/run/evapid", "/run/evapid-east"):
        assert installed.run("test", "-e", folder).returncode == 1
    assert not installed.path("/usr/sbin/evapid").exists()
    assert installed.machine.show("evapid", "LoadState") == "not-found"
    assert installed.machine.show(west, "ActiveState") == "inactive"
    assert installed.path(CONFIG).read_text() == edited


def test_purged_nothing_is_left_but_the_user_and_it_can_come_again(booted, packages, own_folder):
    before = booted.tree()
    booted.install(packages.evapid, packages.module)
    assert len(booted.tree()) > len(before) + 30
    booted.install(newer(packages.evapid, own_folder))
    booted.path(CONFIG).write_text("{}")
    booted.apt("purge", "evapid", "kamailio-evapid-module")
    after = booted.tree()
    differing = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path for path in differing if path.rstrip("-") not in ACCOUNTS} == set()
    assert list(booted.path("/var/lib").rglob("*evapid*")) == []
    assert booted.run("test", "-e", "/run/evapid").returncode == 1

    booted.install(packages.evapid)
    assert booted.evapid() > 0 and booted.path(ENABLED).is_symlink()
    assert booted.done("dpkg", "-V", "evapid") == ""


def test_removed_and_installed_again_it_runs_with_the_configuration_that_stayed(installed, packages):
    edited = '{ "log": { "level": "debug" } }'
    installed.path(CONFIG).write_text(edited)
    installed.apt("remove", "evapid")
    installed.install(packages.evapid)
    assert installed.path(CONFIG).read_text() == edited
    assert installed.evapid() > 0 and installed.path(ENABLED).is_symlink()
