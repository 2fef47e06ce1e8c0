"""The packages, as they are built; and others made of them, for upgrades."""

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

from host import completed

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/package"


class Packages:
    """folder: where copies of them are kept, which no other build takes away."""

    def __init__(self, folder):
        self.folder = folder

    def build(self):
        self.folder.mkdir()
        for package in self.make(BUILD):
            shutil.copy(package, self.folder)
        return self

    def make(self, build, umask=0o022):
        """Build them; returns the paths of the four."""
        with open(ROOT / "CMakeLists.txt") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            completed(["cmake", "--preset", "package", "-DEVAPID_WERROR=ON"], "cmake", cwd=ROOT, umask=umask)
            completed(["cmake", "--build", "--preset", "package"], "the build", cwd=ROOT, umask=umask)
            return sorted(build.glob("*.deb"))

    def all(self):
        return sorted(self.folder.glob("*.deb"))

    def one(self, name):
        (found,) = self.folder.glob(f"{name}_*.deb")
        return found

    @property
    def evapid(self):
        return self.one("evapid")

    @property
    def module(self):
        return self.one("kamailio-evapid-module")

    def libraries(self):
        """What evapid depends on, but for systemd: as apt is told to install it."""
        depends = field(self.evapid, "Depends").split(", ")
        return [re.match(r"[\w.+-]+", each)[0] for each in depends if "|" not in each]


def field(package, name):
    return completed(["dpkg-deb", "-f", package, name], "dpkg-deb").strip()


def newer(package, folder, change=lambda files: None):
    """A package as this one, of a higher version; change(FILES) changes what is in it."""
    files, version = folder / "files", field(package, "Version") + "+newer"
    completed(["dpkg-deb", "-R", package, files], "dpkg-deb")
    control = files / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", control.read_text()))
    change(files)
    made = folder / f"{field(package, 'Package')}_{version}_{field(package, 'Architecture')}.deb"
    completed(["dpkg-deb", "--root-owner-group", "-b", files, made], "dpkg-deb")
    shutil.rmtree(files)
    return made


def empty(folder, name, version):
    """A package of that name and version, with nothing in it."""
    files = folder / "empty"
    (files / "DEBIAN").mkdir(parents=True)
    (files / "DEBIAN/control").write_text(f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
                                          "Maintainer: evapid's tests <tests@evapid.invalid>\nDescription: an empty package\n")
    made = folder / f"{name}_{version}_all.deb"
    completed(["dpkg-deb", "--root-owner-group", "-b", files, made], "dpkg-deb")
    shutil.rmtree(files)
    return made


def lintian(packages):
    """What lintian finds: one line each, without what an override explains."""
    ran = subprocess.run(["lintian", "--allow-root", "--pedantic", "--tag-display-limit", "0", *map(str, packages)],
                         capture_output=True, text=True, timeout=300, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert ran.returncode in (0, 2), ran.stderr
    return ran.stdout.splitlines()
