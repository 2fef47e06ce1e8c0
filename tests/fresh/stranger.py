"""Who has a minimal Debian, a clone of this tree, and README.md."""

import concurrent.futures
import os
import shutil
from pathlib import Path

import commands
import host
from host import Host, completed

ROOT = Path(__file__).resolve().parents[2]
CLONE = "/srv/evapid"
# Nobody is there to answer apt, and to keep the files that were edited when dpkg asks; and what `apt` has fetched is kept, as `apt-get`
# keeps it.
ANSWERS = 'APT::Get::Assume-Yes "true";\nDpkg::Options { "--force-confold"; };\nBinary::apt::APT::Keep-Downloaded-Packages "true";\n'
# evapid, Kamailio and an application, each started in a terminal of its own.
FIRST_EVENT = """
( {evapid} ) > /tmp/evapid.log 2>&1 &
until evapictl status > /dev/null 2>&1; do kill -0 $! || {{ cat /tmp/evapid.log; exit 1; }}; sleep 0.1; done
( {kamailio} ) > /tmp/kamailio.log 2>&1 &
until evapictl status | grep -q ' listening '; do kill -0 $! || {{ cat /tmp/kamailio.log; exit 1; }}; sleep 0.1; done
{application}
echo
evapictl status
cat /tmp/kamailio.log
"""
UNITS, RUNLEVELS = "etc/systemd/system", "etc/rc[2345].d"


class Stranger(Host):
    """begun: the first command, which runs in a thread of its own. before: what started at boot before it."""

    def finished(self):
        """What the first command has printed, when it has ended; fails when that failed."""
        ran = self.begun.result()
        assert ran.returncode == 0, f"ended with {ran.returncode}:\n{ran.stdout[-6000:]}{ran.stderr[-6000:]}"
        return ran.stdout

    def shell(self, text, **options):
        """Run these lines in the clone."""
        return self.run("bash", "-ec", f"cd {CLONE}\n{text}", **options)

    def shell_done(self, text, **options):
        """Run these lines in the clone, which are to succeed; returns their output, errors included."""
        ran = self.shell(text, **options)
        assert ran.returncode == 0, f"ended with {ran.returncode}: {text}\n{(ran.stdout + ran.stderr)[-6000:]}"
        return ran.stdout + ran.stderr

    def commands(self, name, document="README.md"):
        """The block of that name in the document that lies in the clone."""
        return commands.text_of(document, name, self.path(CLONE))

    def lines(self, name, first=0, last=None):
        """Commands of README.md: those lines of the block of that name. A command that goes on in the next line is one."""
        return "".join(line + "\n" for line in self.commands(name).replace("\\\n", "").splitlines()[first:last])

    def first_event(self, kamailio=None):
        """Start evapid and Kamailio without systemd as README.md says, with a network of their own, and let an application connect.
        kamailio: how Kamailio is started, if not with the example."""
        ((command, shown),) = commands.dialogue(self.commands("the first event"))
        said = self.shell_done(FIRST_EVENT.format(evapid=self.lines("run without systemd"), application=command,
                                                  kamailio=kamailio or self.lines("run the example")), alone=True)
        for each in (shown, " attached for ", "config file ok", "attached to evapid "):
            assert each in said, said

    def starts_at_boot(self):
        """The services that systemd or System V's init would start."""
        units = {path.name for path in self.path(UNITS).rglob("*.service") if path.is_symlink() and os.readlink(path) != "/dev/null"}
        return units | {path.name for path in self.root.glob(f"{RUNLEVELS}/S*")}

    def packages(self):
        return sorted(self.path(f"{CLONE}/build/package").glob("*.deb"))


class Strangers:
    """folder: where their Debians are. In a with statement, at the end of which what apt has fetched is in the cache."""

    def __init__(self, folder):
        self.folder, self.known, self.borrowed = folder, {}, []
        self.threads = concurrent.futures.ThreadPoolExecutor()

    def __enter__(self):
        self.archives = host.lock_archives()
        clone = self.folder / "clone"
        completed(["git", "-c", f"safe.directory={ROOT}", "clone", "-q", "--depth", "1", f"file://{ROOT}", clone], "git clone")
        self.clone = clone
        return self

    def __exit__(self, *_):
        self.threads.shutdown()
        for folder in self.borrowed:
            for package in folder.glob("*.deb"):
                if not (kept := self.archives / package.name).exists():
                    shutil.move(package, kept)

    def new(self, name, suite):
        """Nothing is running there yet."""
        root = self.folder / name
        stranger = Stranger(host.fresh(root, suite, self.archives).root, self.borrow(name))
        stranger.path("etc/apt/apt.conf.d/01answers").write_text(ANSWERS)
        shutil.copytree(self.clone, stranger.path(CLONE), symlinks=True)
        return stranger

    def borrow(self, name):
        """The packages that apt has fetched, in a folder of its own: two apts don't share one."""
        folder = self.folder / f"archives-{name}"
        (folder / "partial").mkdir(parents=True)
        for package in self.archives.glob("*.deb"):
            try:
                os.link(package, folder / package.name)
            except OSError:  # another file system
                shutil.copy(package, folder)
        self.borrowed.append(folder)
        return folder

    def newcomer(self, suite):
        """Who has called ./quickstart, and nothing else; it may be at work still."""
        return self.at_work(f"newcomer-{suite}", suite, lambda stranger: "./quickstart")

    def packager(self, suite):
        """Who has made the packages as README.md says, and nothing else; it may be at work still."""
        # What README.md has them install starts as on any machine; here nothing is to.
        return self.at_work(f"packager-{suite}", suite, lambda stranger: stranger.lines("install", 0, -1), Stranger.start_nothing)

    def at_work(self, name, suite, begin, prepare=lambda stranger: None):
        if name not in self.known:
            stranger = self.known[name] = self.new(name, suite)
            stranger.before = stranger.starts_at_boot()
            prepare(stranger)
            stranger.begun = self.threads.submit(stranger.shell, begin(stranger))
        return self.known[name]
