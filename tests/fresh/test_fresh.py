"""./quickstart, the packages, and evapid installed from them: on minimal Debians to which nothing was added."""

import re

REVISION = {"bookworm": "-1~deb12u1", "trixie": "-1~deb13u1"}
OURS = r"^(evapid|kamailio-evapid-module)(-dbgsym)?_"
SEVERAL = "redis-server prometheus postgresql"


# ---- ./quickstart


def test_quickstart_shows_an_event_on_its_way(newcomer):
    lines = newcomer.finished().splitlines()
    said = newcomer.begun.result().stderr.splitlines()
    assert [line for line in said if not line.startswith(("W: ", "E: "))] == []  # of apt, when the archive is not well
    assert lines[-1] == "Done: an event went from SIP to the application, and its answer came back. Nothing is left running."
    assert any(line.startswith("  phone       | <- SIP/2.0 486 Busy") for line in lines)


def test_quickstart_lets_nothing_start_at_boot_that_did_not_before(newcomer):
    assert newcomer.starts_at_boot() == newcomer.before
    assert not newcomer.path("/usr/sbin/policy-rc.d").exists()


def test_the_packages_say_that_they_need_file_before_anything_is_built(newcomer):
    ran = newcomer.shell("cmake --preset package && cmake --build --preset package")
    said = ran.stdout + ran.stderr
    assert ran.returncode != 0 and "No packages: file was not found" in said and "Building C object" not in said


def test_without_packages_and_systemd_it_runs_as_the_readme_says(newcomer):
    newcomer.shell_done(newcomer.lines("install without packages"))
    # Without the folder for its sockets evapid names the command that makes it: README.md's.
    *user, folder, start = newcomer.lines("run without systemd").splitlines()
    ran = newcomer.shell("\n".join([*user, start]))
    assert ran.returncode == 1 and ran.stderr.endswith(f"the folder /run/evapid is missing; make it as root: {folder}\n"), ran
    newcomer.first_event()


def test_what_was_enabled_before_stays_and_nothing_else_comes(newcomer):
    newcomer.start_nothing()  # of what the user installs
    newcomer.shell_done("apt-get -q install --no-install-recommends redis-server")
    newcomer.path("/usr/sbin/policy-rc.d").unlink()
    before = newcomer.starts_at_boot()
    assert "redis-server.service" in before
    newcomer.shell_done(f". cmake/packages.sh\ninstall_packages {SEVERAL}")
    assert newcomer.starts_at_boot() == before
    for name in SEVERAL.split():
        newcomer.done("dpkg", "-s", name)
    assert not newcomer.path("/usr/sbin/policy-rc.d").exists()


# ---- the packages


def test_the_readme_s_packages_make_the_packages(packager, suite):
    names = [package.name for package in packager.packages()]
    assert len(names) == 4 and all(re.search(OURS, name) and f"{REVISION[suite]}_" in name for name in names), names


def test_installed_from_the_packages_it_runs_and_kamailio_attaches(packager):
    packager.shell_done(packager.lines("install", -1))
    assert packager.done("dpkg", "-V", "evapid", "kamailio-evapid-module") == ""
    assert packager.done("evapid", "-t", "-c", "/etc/evapid/evapid.json") == "/etc/evapid/evapid.json: good\n"
    packager.first_event()


def test_the_module_for_the_kamailio_that_apt_has_is_built(packager):
    """As docs/operations.md has it; without deb-src lines, and the tree is not in the cache."""
    before = {package.name for package in packager.packages()}
    for package in packager.packages():
        package.unlink()
    packager.shell_done("rm -r ~/.cache/evapid\n" + packager.commands("build the module for another Kamailio", "docs/operations.md"))
    assert {package.name for package in packager.packages()} == before
