"""A real systemd, with PID 1 of its own, in a folder that holds a Debian: namespaces keep its processes and mounts to
itself. The network is the machine's, so that tests connect from outside; what runs inside listens on loopback.

Needs root and a writable cgroup file system, of version 1 or 2."""

import contextlib
import itertools
import os
import pathlib
import subprocess
import time

DEADLINE_S = 300.0  # for what happens at once, on a machine that has little else to do
CGROUPS = pathlib.Path("/sys/fs/cgroup")
NAMESPACES = ["--mount", "--pid", "--cgroup", "--uts", "--ipc"]

# Runs as the first process of the new namespaces. $1: the folder.
BOOT = r"""
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --rbind /sys sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd,xattr cgroup sys/fs/cgroup/systemd
fi
mount -t tmpfs tmpfs dev
mkdir dev/shm dev/pts
for node in null zero full random urandom tty; do
    touch dev/$node
    mount --bind /dev/$node dev/$node
done
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --system --log-target=journal \
    --show-status=0 --unit=multi-user.target
"""


class Machine:
    """Boots in the folder at the start of a with statement; afterwards none of its processes is left."""

    count = itertools.count(1)

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        own = CGROUPS if (CGROUPS / "cgroup.controllers").exists() else CGROUPS / "systemd"
        self.cgroup = own / f"evapid-test-{os.getpid()}-{next(Machine.count)}"

    def __enter__(self):
        self.cgroup.mkdir()
        enter = f'echo $$ > "{self.cgroup}/cgroup.procs"; exec "$@"'
        self.starter = subprocess.Popen(
            ["sh", "-c", enter, "sh", "unshare", *NAMESPACES, "--fork", "--kill-child", "bash", "-c", BOOT, "boot", self.folder],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            self.init = self.find_init()
            self.until(lambda: self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"),
                       "systemd has started everything")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.starter.kill()  # and with it PID 1 (--kill-child), and with that all the others
        self.starter.communicate()
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                for inner in sorted(self.cgroup.rglob("*/"), reverse=True):
                    inner.rmdir()
                self.cgroup.rmdir()
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.cgroup} is still in use")

    def find_init(self):
        """The process that unshare forked."""
        children = pathlib.Path(f"/proc/{self.starter.pid}/task/{self.starter.pid}/children")
        self.until(lambda: self.starter.poll() is not None or children.read_text(), "unshare forks")
        assert self.starter.poll() is None, f"unshare: {self.starter.communicate()[0]}"
        init = int(children.read_text())
        self.until(lambda: self.starter.poll() is not None or (pathlib.Path(f"/proc/{init}/comm").read_text() == "systemd\n"),
                   "systemd runs")
        assert self.starter.poll() is None, f"no systemd: {self.starter.communicate()[0]}"
        return init

    def run(self, *command, check=False, **options):
        """Run a command in there; its output as text."""
        inside = ["nsenter", "-t", str(self.init), "-m", "-p", "-u", "-i", "-C", f"--root=/proc/{self.init}/root", "--wd=/",
                  "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
        ran = subprocess.run([*inside, *command], capture_output=True, text=True, timeout=2400, **options)
        assert not check or ran.returncode == 0, f"{' '.join(command)}: {ran.returncode}: {ran.stdout}{ran.stderr}"
        return ran

    def systemctl(self, *arguments):
        return self.run("systemctl", *arguments, check=True).stdout

    def show(self, unit, property_):
        return self.systemctl("show", "--value", "-p", property_, unit).strip()

    def log(self, unit):
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout

    def kill(self, unit, name):
        """Send a signal to the main process, of which systemd finds out by itself what becomes."""
        self.systemctl("kill", f"--signal={name}", "--kill-who=main", unit)

    @staticmethod
    def until(condition, what):
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"not so in {DEADLINE_S:g} s: {what}"
            time.sleep(0.02)
