"""Where the module's flags come from: Kamailio's source in the cache, which fits the packaged Kamailio or is made to; and which
packages building needs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import commands
import kamailio
from evapid import ROOT

pytestmark = pytest.mark.once

MUTEX = "-DKSR_PTHREAD_MUTEX_SHARED"
# What a Kamailio has that was made where libssl is, and what its makefile gives where it is not.
LACKING = "TLS_PTHREAD_MUTEX_SHARED"
KAMAILIO = "/usr/sbin/kamailio"


def cached_tree():
    version = subprocess.run(["dpkg-query", "-W", "-f", "${source:Version}", "kamailio"], capture_output=True, text=True,
                             check=True).stdout
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "evapid" / f"kamailio-{version.replace(':', '_')}"


def edit(path, change):
    """Write a changed file of that name, not into one that other names have, too."""
    text = change(path.read_text())
    path.unlink()
    path.write_text(text)


def without_mutex(text):
    changed = re.sub(rf"(?m)^(CC_PMUTEX_OPTS=).*{MUTEX}.*", r"\1", text)
    assert changed != text
    return changed


@pytest.fixture
def cache(tmp_path):
    """A cache of its own with the tree in it: links to the files, that are not to be written to."""
    (tmp_path / "cache/evapid").mkdir(parents=True)
    tree = tmp_path / "cache/evapid" / cached_tree().name
    subprocess.run(["cp", "-al", cached_tree(), tree], check=True)
    return tree


def configure(tmp_path, *options, environment=None):
    """What cmake says, and how it ends."""
    ran = subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path / "build", "-G", "Ninja", "-DEVAPID_BUILD_TESTS=OFF", *options],
                         capture_output=True, text=True, timeout=600,
                         env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **(environment or {})})
    return ran.returncode, ran.stdout + " ".join(ran.stderr.split())


def compare(source, config):
    ran = subprocess.run([ROOT / "cmake/compare-flags", source, config, KAMAILIO], capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout.strip()


@pytest.fixture
def without_libssl(tmp_path):
    """An environment in which pkg-config finds no libssl."""
    fake = tmp_path / "bin/pkg-config"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\ncase "$*" in *libssl*) exit 1 ;; esac\nexec {shutil.which("pkg-config")} "$@"\n')
    fake.chmod(0o755)
    return {"PATH": f"{fake.parent}:{os.environ['PATH']}"}


def flags_of(tmp_path):
    return (tmp_path / "build/kamailio-flags.rsp").read_text()


# ---- the flags that differ are named


def test_the_tree_of_the_packaged_kamailio_fits_it():
    source = cached_tree() / "src"
    assert compare(source, source / "config.mak") == (0, "")


@pytest.mark.parametrize("change, lacking, added", [
    (without_mutex, LACKING, "nothing"),
    (lambda text: text.replace("-DUSE_FUTEX", "").replace(MUTEX, ""), f"{LACKING} USE_FUTEX", "nothing"),
    (lambda text: text.replace("-DUSE_TCP", "-DUSE_TCP -DDBG_QM_MALLOC"), "nothing", "DBG_QM_MALLOC"),
    (lambda text: text.replace("-DUSE_SCTP", "-DUSE_PTHREAD_MUTEX"), "USE_SCTP", "USE_PTHREAD_MUTEX"),
], ids=["libssl", "several", "one more", "another"])
def test_flags_that_differ_are_named(tmp_path, change, lacking, added):
    source, config = cached_tree() / "src", tmp_path / "config.mak"
    config.write_text(change((source / "config.mak").read_text()))
    assert compare(source, config) == (
        1, f"{KAMAILIO} has {lacking} that {config} does not give, and {config} gives {added} that it has not")


def test_another_version_and_what_is_no_source_are_named(tmp_path):
    source, config = cached_tree() / "src", tmp_path / "config.mak"
    config.write_text(re.sub(r"-DVERSION='\"[^\"]+", "-DVERSION='\"1.2.3", (source / "config.mak").read_text()))
    status, said = compare(source, config)
    assert status == 2 and said.startswith(f"{source} is kamailio 1.2.3 (")
    status, said = compare(tmp_path, config)
    assert status == 2 and said.startswith(f"{tmp_path} cannot be compiled: ") and "sr_module.h" in said


# ---- a cache that does not fit heals


def test_a_config_mak_from_before_libssl_was_there_is_made_anew(tmp_path, cache):
    edit(cache / "src/config.mak", without_mutex)
    code, said = configure(tmp_path)
    assert code == 0 and LACKING in said and MUTEX in flags_of(tmp_path), said
    assert (cache / "src/config.mak").read_text() == (cached_tree() / "src/config.mak").read_text()
    code, said = configure(tmp_path)
    assert code == 0 and "anew" not in said, said


def test_an_empty_config_mak_is_made_anew(tmp_path, cache):
    edit(cache / "src/config.mak", lambda _: "")
    code, said = configure(tmp_path)
    assert code == 0 and MUTEX in flags_of(tmp_path), said


def test_a_tree_that_is_of_no_use_is_fetched_anew(tmp_path, cache):
    for name in ("Makefile.defs", "core/sr_module.h"):
        (cache / "src" / name).unlink()
    code, said = configure(tmp_path)
    assert code == 0 and "Fetching Kamailio's source anew" in said, said
    assert (cache / "src/core/sr_module.h").exists() and MUTEX in flags_of(tmp_path)


def test_a_copy_of_the_user_s_tree_is_configured_anew_and_the_tree_is_left_alone(tmp_path, cache):
    (cache / "src/config.mak").unlink()
    code, said = configure(tmp_path, f"-DKAMAILIO_SOURCE_DIR={cache}")
    assert code == 0, said
    edit(tmp_path / "build/kamailio-config/config.mak", without_mutex)
    code, said = configure(tmp_path)
    assert code == 0 and MUTEX in flags_of(tmp_path), said
    assert not (cache / "src/config.mak").exists()


def test_a_config_mak_of_the_user_s_is_not_written_to_and_what_differs_is_named(tmp_path, cache):
    edit(cache / "src/config.mak", without_mutex)
    before = (cache / "src/config.mak").read_text()
    code, said = configure(tmp_path, f"-DKAMAILIO_SOURCE_DIR={cache}")
    assert code != 0 and f"Kamailio would refuse the module: {KAMAILIO} has {LACKING} that" in said and "libssl-dev" in said, said
    assert (cache / "src/config.mak").read_text() == before
    code, said = configure(tmp_path, "-DEVAPID_CHECK_MODULE=OFF")
    assert code == 0 and MUTEX not in flags_of(tmp_path), said


def test_where_libssl_is_missing_what_differs_is_named_with_the_package(tmp_path, cache, without_libssl):
    """The makefile of Kamailio 6 does not look for libssl: there the flag needs no package."""
    edit(cache / "src/config.mak", without_mutex)
    code, said = configure(tmp_path, environment=without_libssl)
    if kamailio.version() >= (6,):
        assert code == 0 and MUTEX in flags_of(tmp_path), said
        return
    assert code != 0 and f"has {LACKING} that" in said and "install libssl-dev" in said, said
    shutil.rmtree(cache)
    code, said = configure(tmp_path, environment=without_libssl)
    assert code != 0 and "pkg-config finds no libssl: install pkg-config and libssl-dev" in said, said


def test_nothing_of_the_caller_s_environment_gets_into_the_flags(tmp_path):
    """Make takes its variables from there."""
    leaks = {"CC": "/bin/false", "CFLAGS": "-DCFLAGS_OF_THE_CALLER", "C_DEFS": "-DOF_THE_CALLER", "MEMDBG": "1", "ARCH": "i386",
             "extra_defs": "-DOF_THE_CALLER", "CPUTYPE": "athlon", "PROFILE": "-pg", "mode": "debug", "LOCALBASE": "/opt",
             "LIBSSL_SET_MUTEX_SHARED": "0", "MAKEFLAGS": "-n", "CROSS_COMPILE": "nobody-", "CC_EXTRA_OPTS": "-DOF_THE_CALLER"}
    source, config = cached_tree() / "src", tmp_path / "config.mak"
    subprocess.run([ROOT / "cmake/configure-kamailio", source, config], check=True, timeout=300, env={**os.environ, **leaks})
    assert config.read_text() == (source / "config.mak").read_text()


# ---- what is needed


def lists():
    """The lists of cmake/packages.sh."""
    names = ("build", "pack", "run", "package")
    shown = "; ".join(f'echo "${{packages_{name}[*]}}"' for name in names)
    said = subprocess.run(["bash", "-ec", f". cmake/packages.sh; {shown}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name: set(line.split()) for name, line in zip(names, said.splitlines())}


def test_the_readme_s_packages_are_those_of_the_lists():
    update, install, *_ = commands.text_of("README.md", "install").replace("\\\n", "").splitlines()
    command = install.split()
    assert update == "apt update" and command[:3] == ["apt", "install", "--no-install-recommends"]
    assert set(command[3:]) == lists()["build"] | lists()["pack"] | (lists()["run"] - {"python3"})
