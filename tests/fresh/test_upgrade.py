"""From one Debian to the next with evapid and its module installed, as docs/operations.md describes it. It takes long:
`tests/fresh/run --upgrade`."""

import re
import shutil

import host

FROM, TO = "bookworm", "trixie"
CONFIG = "/etc/kamailio/kamailio.cfg"


def version(debian, package):
    return debian.done("dpkg-query", "-W", "-f", "${Version}", package)


def test_the_upgrade_to_the_next_debian_keeps_the_module(strangers):
    debian, other = strangers.packager(FROM), strangers.packager(TO)
    debian.finished()
    debian.shell_done(debian.lines("install", -1))
    debian.shell_done(f"cp /usr/share/doc/evapid/kamailio-evapi.cfg {CONFIG}")
    assert "config file ok" in debian.done("kamailio", "-c", "-f", CONFIG)
    before = {name: version(debian, name) for name in ("evapid", "kamailio-evapid-module", "kamailio")}

    other.finished()
    host.write_sources(debian.root, TO)
    debian.apt("update")
    said = debian.apt("dist-upgrade", "--simulate")
    assert re.search("^Remv kamailio-evapid-module ", said, re.M), said  # so the document warns of it

    shutil.rmtree(debian.path("/srv/packages"), ignore_errors=True)
    shutil.copytree(other.path("/srv/evapid/build/package"), debian.path("/srv/packages"), ignore=lambda folder, names: [
        name for name in names if not name.endswith(".deb")])
    said = debian.done("bash", "-ec", "cd /srv/packages\n" + debian.commands("upgrade Debian", "docs/operations.md"))
    assert "config file ok" in said
    for name, old in before.items():
        debian.done("dpkg", "--compare-versions", version(debian, name), "gt", old)
    assert debian.path("/etc/debian_version").read_text().startswith("13")
    assert debian.done("dpkg", "-V", "evapid", "kamailio-evapid-module") == ""
    debian.first_event(f"kamailio -c -f {CONFIG}\nkamailio -DD -E -f {CONFIG} -u kamailio -g kamailio")
