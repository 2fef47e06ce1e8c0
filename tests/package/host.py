"""A Debian of its own in a folder, in which packages are installed as on a host.

It is the release that runs here, for which the packages are built, made by debootstrap from the archive that this machine's
apt uses. What debootstrap made is kept for a week, and what apt fetched until then, in the cache folder that also has
Kamailio's source. Commands run in it by chroot, in a mount namespace of their own: whatever becomes of them, nothing stays
mounted. They share this machine's network, and no package starts anything. A host that is booted is a Machine
(tests/service)."""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import time
from pathlib import Path

from machine import Machine

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evapid"
WEEK_S = 7 * 24 * 3600
DEADLINE_S = 300  # for apt and debootstrap: they may have much to fetch

IN_ROOT = """
mount -t proc proc "$1/proc" && mount --bind "$2" "$1/var/cache/apt/archives" || exit 125
root=$1; shift 2; exec chroot "$root" "$@"
"""
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8",
               "DEBIAN_FRONTEND": "noninteractive"}
PROXIES = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


def completed(command, what, **options):
    """Run it; fail with what it said when it fails."""
    ran = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, timeout=DEADLINE_S, **options)
    assert ran.returncode == 0, f"{what} ended with {ran.returncode}:\n{ran.stdout[-4000:]}"
    return ran.stdout


class Host:
    """root: the folder of it. archives: where apt keeps what it has fetched."""

    def __init__(self, root, archives):
        self.root, self.archives = root, archives

    def path(self, name):
        """The file of that name in it, from here."""
        return self.root / str(name).lstrip("/")

    def run(self, *words):
        """Run a command in it, as root. Returns what subprocess.run does, with text."""
        command = ["unshare", "--mount", "sh", "-c", IN_ROOT, "sh", self.root, self.archives, *words]
        return subprocess.run([str(word) for word in command], env={**PROXIES, **ENVIRONMENT}, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=DEADLINE_S)

    def done(self, *words):
        """Run a command that is to succeed; returns its output, errors included."""
        ran = self.run(*words)
        assert ran.returncode == 0, f"{words} ended with {ran.returncode}:\n{(ran.stdout + ran.stderr)[-4000:]}"
        return ran.stdout + ran.stderr

    def apt(self, *words):
        return self.done("apt-get", "-q", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=60",
                         *words)

    def install(self, *packages):
        """With apt, from files of this machine: as `apt install ./FILE...`."""
        return self._install(packages, "-o", "Dpkg::Options::=--force-confold")

    def would_install(self, *packages):
        """What apt says that it would do."""
        return self._install(packages, "--simulate")

    def offer(self, *packages):
        """Have these files in /srv/packages, and no others."""
        folder = self.path("/srv/packages")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for package in packages:
            shutil.copy(package, folder)

    def _install(self, packages, *options):
        self.offer(*packages)
        try:
            return self.apt("install", *options, *(f"/srv/packages/{package.name}" for package in packages))
        finally:
            shutil.rmtree(self.path("/srv/packages"))

    def turn_off(self, *units):
        """Mask them."""
        for unit in units:
            self.path(f"/etc/systemd/system/{unit}").symlink_to("/dev/null")

    def copy(self, root):
        completed(["cp", "-a", "--reflink=auto", self.root, root], "cp")
        return Host(root, self.archives)

    def tree(self):
        """What is in it, for each path: kind and mode, owner, and what it holds. Not what apt, dpkg, systemd, ldconfig and the
        log keep in books of their own, nor what is in memory only."""
        own = ("proc", "sys", "dev", "run", "tmp", "srv", "var/backups", "var/cache", "var/lib/apt", "var/lib/dpkg",
               "var/lib/systemd", "var/log", "etc/ld.so.cache")
        seen = {}
        for folder, names, files in os.walk(self.root):
            inside = os.path.relpath(folder, self.root)
            names[:] = [name for name in names if os.path.normpath(os.path.join(inside, name)) not in own]
            for name in names + files:
                path = os.path.normpath(os.path.join(inside, name))
                if path not in own:
                    seen["/" + path] = facts(os.path.join(folder, name))
        return seen


class Booted(Host):
    """A copy of a host, with systemd running in it, in a with statement. Kamailio's service stays off."""

    def __init__(self, host, root):
        copy = host.copy(root)
        super().__init__(copy.root, copy.archives)
        self.path("/usr/sbin/policy-rc.d").unlink()
        self.turn_off("kamailio.service")
        self.machine = Machine(root)

    def __enter__(self):
        self.machine.__enter__()
        return self

    def __exit__(self, *_):
        self.machine.__exit__()

    def run(self, *words):
        return self.machine.run(*map(str, words))

    def status(self):
        return json.loads(self.done("evapictl", "status", "--json"))

    def evapid(self):
        """The pid of it in there, 0 for none, as systemd knows it."""
        return int(self.machine.show("evapid", "MainPID"))


def facts(path):
    status = os.lstat(path)
    held = None
    if stat.S_ISREG(status.st_mode):
        held = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        held = os.readlink(path)
    return stat.filemode(status.st_mode), status.st_uid, status.st_gid, held


# ---- making one


def release():
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.split("=")[1].strip('"') for line in lines if line.startswith("VERSION_CODENAME="))


def archive():
    """Where this machine's apt has its release from."""
    shown = completed(["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"], "apt-get")
    for line in shown.splitlines():
        codename, uri = line.split()
        if codename == release():
            return uri
    raise AssertionError(f"this machine's apt has no archive of {release()}")


def debootstrap(archives, made):
    """Fill the folder with a minimal Debian, whose apt is set up as this machine's."""
    completed(["debootstrap", "--variant=minbase", f"--cache-dir={archives}", release(), made, archive()], "debootstrap")
    for name in ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "etc/apt/keyrings",
                 "etc/apt/auth.conf.d", "usr/share/keyrings"):
        (made / name).unlink() if (made / name).is_file() else shutil.rmtree(made / name, ignore_errors=True)
        if (source := Path("/") / name).is_dir():
            shutil.copytree(source, made / name)
        elif source.is_file():
            shutil.copy(source, made / name)
    settings = completed(["apt-config", "dump"], "apt-config").splitlines()
    (made / "etc/apt/apt.conf.d/00machine").write_text("\n".join(line for line in settings if line.startswith("Acquire::")) + "\n")


def bare(folder):
    """A minimal Debian in folder. Waits for another test that makes one, or uses what apt has fetched: until this process
    ends nobody else does."""
    archives = CACHE / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    lock = os.open(CACHE / "archives.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    kept = CACHE / f"debian-{release()}-{platform.machine()}.tar"
    if not kept.exists() or time.time() - kept.stat().st_mtime > WEEK_S:
        for old in archives.glob("*.deb"):
            old.unlink()
        made = folder / "made"
        debootstrap(archives, made)
        completed(["tar", "-cf", f"{kept}.part", "-C", made, "."], "tar")
        os.rename(f"{kept}.part", kept)
        shutil.rmtree(made)
    root = folder / "bare"
    root.mkdir()
    completed(["tar", "-xf", kept, "-C", root], "tar")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    host = Host(root, archives)
    # No package starts anything: as in an image that is being built.
    policy = host.path("/usr/sbin/policy-rc.d")
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    host.apt("update")
    return host
