"""The packaged Kamailio, with a configuration made of pieces.

A configuration answers OPTIONS to sip:ready@ by itself, by which the test knows that Kamailio is up.

EVAPID_KAMAILIO names another kamailio than the packaged one, and EVAPID_KAMAILIO_MODULES the folder of its modules; the module
under test must be built for it (EVAPID_MODULE). tests/versions/run does so."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from evapid import MODULE
from process import DEADLINE_S, Process, until
from sip import Phone

KAMAILIO = [os.environ.get("EVAPID_KAMAILIO", "kamailio")]
if "EVAPID_KAMAILIO_MODULES" in os.environ:
    KAMAILIO += ["-L", os.environ["EVAPID_KAMAILIO_MODULES"]]


def version():
    """(6, 0, 1)."""
    shown = subprocess.run([KAMAILIO[0], "-v"], capture_output=True, text=True, timeout=DEADLINE_S, check=True).stdout
    return tuple(int(number) for number in re.search(r"version: \S+ (\d+)\.(\d+)\.(\d+)", shown).groups())


# Requests of any size that a datagram takes: Kamailio 6 drops those of 32 KiB if it is not told.
SIZE = "msg_recv_max_size=65535" if version() >= (6,) else ""

FUTEX = {"x86_64": 202, "aarch64": 98}.get(os.uname().machine)  # the number of that system call

# tm first: sl binds to it.
MODULES = ("tm", "tmx", "sl", "pv", "xlog", "textops", "cfgutils")
CRASHED = re.compile(r"exited by a signal|core was (not )?generated|BUG:|Segmentation|corrupted|ABORT")

HEAD = """#!KAMAILIO
debug=2
log_stderror=yes
children={children}
listen=udp:127.0.0.1:{port}
disable_tcp=yes
enable_sctp=0
auto_aliases=no
max_while_loops=0
{size}
{settings}
"""

NATIVE = """
request_route {{
    if (is_method("OPTIONS") && $rU == "ready") {{
        sl_send_reply("200", "Ready");
        exit;
    }}
    if (is_method("ACK")) exit;
    route(TEST);
}}
{routes}
"""

LUA = """
function ksr_request_route()
    if KSR.pv.get("$rm") == "OPTIONS" and KSR.pv.get("$rU") == "ready" then
        KSR.sl.sl_send_reply(200, "Ready")
        return 1
    end
    if KSR.pv.get("$rm") == "ACK" then return 1 end
    test_route()
    return 1
end
"""


def modparams(module, values):
    lines = []
    for name, value in values.items():
        shown = value if isinstance(value, int) else '"' + value.replace('"', '\\"') + '"'
        lines.append(f'modparam("{module}", "{name}", {shown})')
    return "\n".join(lines)


class Config:
    """What a kamailio.cfg is made of.

    routes: native blocks, among them route[TEST], which gets every request; or lua: a script with test_route(), and native blocks
    beside it.
    evapi: parameters of the module under test. modules: loaded besides MODULES, without those in without; later: loaded after the
    module under test. module: that, or the EVAPI of Kamailio's packages, to compare."""

    def __init__(self, routes="route[TEST] { sl_send_reply(\"200\", \"OK\"); }", lua=None, evapi=None, modules=(),
                 without=(), params=None, settings="", children=2, later=(), module=MODULE, native=""):
        self.routes, self.lua, self.settings, self.children = routes, lua, settings, children
        self.evapi, self.params = dict(evapi or {}), dict(params or {})
        self.modules = [name for name in MODULES if name not in without] + list(modules)
        self.later, self.module, self.native = later, module, native

    def head(self, port):
        return HEAD.format(children=self.children, port=port, size=SIZE, settings=self.settings)

    def write(self, folder, name, port):
        """Write the files; returns the path of the configuration."""
        lines = [self.head(port)]
        lines += [f'loadmodule "{name_}.so"' for name_ in self.modules]
        lines += [f'loadmodule "{module}"' for module in (self.module, *(f"{name_}.so" for name_ in self.later))]
        if self.lua is not None:
            script = folder / f"{name}.lua"
            script.write_text(LUA + self.lua)
            lines += ['loadmodule "app_lua.so"', modparams("app_lua", {"load": str(script)}), 'cfgengine "lua"']
        lines.append(modparams("evapi", self.evapi))
        lines += [modparams(module, values) for module, values in self.params.items()]
        lines.append(NATIVE.format(routes=self.routes) if self.lua is None else self.native)
        path = folder / f"{name}.cfg"
        path.write_text("\n".join(lines))
        return path


def check_config(config, folder, port, before=()):
    """kamailio -c: its exit code, and what it printed."""
    path = config.write(folder, "checked", port)
    ran = subprocess.run([*before, *KAMAILIO, "-c", "-E", "-f", str(path)], capture_output=True, text=True, timeout=DEADLINE_S)
    return ran.returncode, ran.stdout + ran.stderr


class Kamailio(Process):
    count = 0

    def __init__(self, folder, config, port):
        Kamailio.count += 1
        name = f"kamailio-{Kamailio.count}"
        self.port, self.config = port, config
        path = config.write(folder, name, port)
        run = folder / name
        run.mkdir()
        super().__init__(name, [*KAMAILIO, "-f", path, "-DD", "-E", "-m", "64", "-M", "16", "-Y", run, "-w", run],
                         folder)

    def ready(self):
        """Wait until it answers SIP."""
        phone = Phone(self.port)
        try:
            transaction = phone.start("OPTIONS", "ready")

            def look():
                assert self.alive(), f"kamailio ended with {self.popen.returncode}: {self.tail(20)}"
                phone.send(transaction)
                phone.turn(0.02)
                return transaction.final
            until(look, "Kamailio answers SIP")
        finally:
            phone.close()
        return self

    def ended(self):
        """As for any process. Two faults of Kamailio's would make it hang for a minute, until SIGKILL (exit_timeout). A child that is
        told to end while it starts may miss that: it is told again. A child that ends while it holds a lock of Kamailio's leaves the
        main process waiting for it (seen with tm's timer): the main process is killed, and that counts as 0."""
        told = time.monotonic()
        helped = False

        def gone():
            nonlocal told, helped
            if self.expect_end and self.alive() and time.monotonic() > told + 5:
                told = time.monotonic()
                for pid in set(self.members()) - {self.pid}:
                    try:
                        os.kill(pid, signal.SIGTERM)
                    except ProcessLookupError:
                        pass
                if self.waits_for_the_dead():
                    helped = True
                    print(f"{self.name} was killed: it waited for a lock of a process that has ended")
                    self.signal(signal.SIGKILL)
            return not self.alive()
        until(gone, f"{self.name} ends")
        return 0 if super().ended() == -signal.SIGKILL and helped else self.popen.returncode

    def waits_for_the_dead(self):
        """Is the main process the only one, and in futex() for a word in Kamailio's shared memory? The module's own is one page."""
        if self.members() != [self.pid]:
            return False
        try:
            call = Path(f"/proc/{self.pid}/syscall").read_text().split()
            maps = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        except OSError:  # it has just ended
            return False
        if call[0] != str(FUTEX):
            return False
        word = int(call[1], 16)
        areas = [tuple(int(at, 16) for at in line.split()[0].split("-")) for line in maps if "/dev/zero" in line]
        return any(start <= word < end and end - start > 1 << 20 for start, end in areas)

    def problems(self):
        found = []
        if self.popen.poll() is not None and not self.expect_end:
            found.append(f"{self.name} ended by itself with {self.popen.returncode}")
        if crashes := self.lines(CRASHED):
            found.append(f"{self.name} logged: {crashes[0]}")
        return found

    def finish(self):
        found = self.problems()
        if self.alive():
            self.terminate()
            found += [problem for problem in self.problems() if problem not in found]
        return found
