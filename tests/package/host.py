"""A Debian of its own in a folder, in which packages are installed as on a host.

It is the release that runs here, for which the packages are built, or another one (tests/fresh), made by debootstrap from the
archive that this machine's apt uses. What debootstrap made is kept for a week, and what apt fetched until then, in the cache
folder that also has Kamailio's source. Commands run in it by chroot, in namespaces of their own: when a command has ended, no
process of it is left and nothing stays mounted. They share this machine's network. A host that is booted is a Machine
(tests/service)."""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

from machine import Machine

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evapid"
WEEK_S = 7 * 24 * 3600
DEADLINE_S = 2400  # for apt, debootstrap and a build: much to fetch and to compile, on a machine that has much else to do
RETRIES = 8  # of each file that apt fetches, the next one after a longer pause

NAMESPACES = ["--mount", "--pid", "--fork", "--kill-child"]
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

    def run(self, *words, alone=False):
        """Run a command in it, as root; alone: with a network of its own, which is nothing but a loopback. Returns what
        subprocess.run does, with text."""
        command = ["unshare", *NAMESPACES, "sh", "-c", IN_ROOT, "sh", self.root, self.archives, *words]
        if alone:
            command = [sys.executable, HERE / "loopback.py", *command]
        return subprocess.run([str(word) for word in command], env={**PROXIES, **ENVIRONMENT}, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=DEADLINE_S)

    def done(self, *words, **options):
        """Run a command that is to succeed; returns its output, errors included."""
        ran = self.run(*words, **options)
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

    def start_nothing(self):
        """No package starts anything, as in an image that is being built."""
        policy = self.path("/usr/sbin/policy-rc.d")
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)

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

    def evapid(self, unit="evapid"):
        """The pid of it in there, or of an instance, 0 for none, as systemd knows it."""
        return int(self.machine.show(unit, "MainPID"))


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


def debian_archives():
    """What this machine's apt has of Debian's own: address, suite (bookworm, bookworm-updates, ...) and components of each."""
    shown = completed(["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
                      "apt-get")
    found = {}
    for line in shown.splitlines():
        origin, uri, suite, component = line.split(" ")
        if origin == "Debian":
            found.setdefault((uri, suite), []).append(component)
    return [(uri, suite, components) for (uri, suite), components in found.items()]


def archive():
    """Where this machine's apt has its release from."""
    for uri, suite, _ in debian_archives():
        if suite == release():
            return uri
    raise AssertionError(f"this machine's apt has no archive of {release()}")


def debian_sources(suite):
    """Sources for apt: Debian's own archives as this machine's apt asks them, but for that suite."""
    return "\n".join(f"Types: deb\nURIs: {uri}\nSuites: {own.replace(release(), suite)}\nComponents: {' '.join(components)}\n"
                     "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
                     for uri, own, components in debian_archives())


def write_sources(root, suite):
    """Debian's own archives of that suite, and no others."""
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    (root / "etc/apt/sources.list.d/debian.sources").write_text(debian_sources(suite))
    write_settings(root)


def copy_sources(root):
    """Whatever this machine's apt uses: other vendors' archives too, one of which may be where Kamailio comes from."""
    for name in ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "etc/apt/keyrings",
                 "etc/apt/auth.conf.d", "usr/share/keyrings"):
        (root / name).unlink() if (root / name).is_file() else shutil.rmtree(root / name, ignore_errors=True)
        if (source := Path("/") / name).is_dir():
            shutil.copytree(source, root / name)
        elif source.is_file():
            shutil.copy(source, root / name)
    write_settings(root)


def write_settings(root):
    """How this machine's apt reaches its archives; and what does not come is asked for more often than apt does by itself."""
    settings = completed(["apt-config", "dump"], "apt-config").splitlines()
    settings = [line for line in settings if line.startswith("Acquire::")] + [f'Acquire::Retries "{RETRIES}";']
    (root / "etc/apt/apt.conf.d/00machine").write_text("\n".join(settings) + "\n")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")


def bootstrapped(archives, made, suite):
    """What debootstrap makes of that suite, in the folder made. It ends when a single file does not come: then it gets a second go, in
    which it fetches what is missing."""
    command = ["debootstrap", "--variant=minbase", f"--cache-dir={archives}", suite, made, archive()]
    try:
        completed(command, "debootstrap")
    except AssertionError as error:
        print(f"once more: {error}", file=sys.stderr)
        shutil.rmtree(made, ignore_errors=True)
        completed(command, "debootstrap")
    return made


def minimal(archives, folder, suite):
    """What debootstrap makes of that suite, as a tar file that is kept for a week. folder: where it is made, if it must be."""
    kept = CACHE / f"minimal-{suite}-{platform.machine()}.tar"
    if not kept.exists() or time.time() - kept.stat().st_mtime > WEEK_S:
        made = bootstrapped(archives, folder / f"made-{suite}", suite)
        completed(["tar", "-cf", f"{kept}.part", "-C", made, "."], "tar")
        os.rename(f"{kept}.part", kept)
        shutil.rmtree(made)
    return kept


def lock_archives():
    """The folder where apt keeps what it has fetched. Waits for another test that uses it; until this process ends nobody else
    does."""
    archives = CACHE / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    lock = os.open(CACHE / "archives.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for old in archives.glob("*.deb"):
        if time.time() - old.stat().st_mtime > WEEK_S:
            old.unlink()
    return archives


def fresh(folder, suite, archives):
    """A minimal Debian of that suite, and nothing else, in folder. Its apt knows Debian's own archives."""
    folder.mkdir()
    completed(["tar", "-xf", minimal(archives, folder.parent, suite), "-C", folder], "tar")
    (folder / "etc/dpkg/dpkg.cfg.d/00quick").write_text("force-unsafe-io\n")  # nobody needs it after a power failure
    write_sources(folder, suite)
    return Host(folder, archives)


def bare(folder):
    """A minimal Debian of the release that runs here, in folder/bare, where no package starts anything."""
    host = fresh(folder / "bare", release(), lock_archives())
    copy_sources(host.root)
    host.start_nothing()
    host.apt("update")
    return host
