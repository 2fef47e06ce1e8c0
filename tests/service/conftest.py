"""Tests of evapid as a service. They need root; tests/package/run prepares the folder that they boot in."""

import json
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "system/lib"))

from machine import Machine  # noqa: E402
from ports import Ports  # noqa: E402

KAMAILIO = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
listen=udp:127.0.0.1:{port}
disable_tcp=yes
enable_sctp=0
auto_aliases=no
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "textops.so"
loadmodule "{module}"
modparam("evapi", "bind_addr", "{address}")
modparam("evapi", "netstring_format", 1)
request_route {{
    evapi_relay("$rb");
    $var(rc) = $rc;
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    sl_send_reply("200", "OK");
}}
event_route[evapi:message-received] {{ evapi_relay("echo $evapi(msg)"); }}
"""


class Service(Machine):
    """With evapid and Kamailio."""

    def __init__(self, folder):
        super().__init__(folder)
        self.ports = ports = Ports()
        self.address, self.sip_port = f"127.0.0.1:{ports.tcp()}", ports.udp()
        module = next(self.folder.glob("usr/lib/**/kamailio/**/*evapid*/evapi.so")).relative_to(self.folder)
        config = KAMAILIO.format(port=self.sip_port, address=self.address, module=f"/{module}")
        (self.folder / "etc/kamailio/kamailio.cfg").write_text(config)
        (self.folder / "etc/default/kamailio").write_text("RUN_KAMAILIO=yes\n")

    def status(self):
        return json.loads(self.run("evapictl", "--json", "status", check=True).stdout)


@pytest.fixture(scope="session")
def machine():
    with Service(os.environ["EVAPID_MACHINE"]) as booted:
        yield booted


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With a failure come the last lines of the journal."""
    outcome = yield
    report = outcome.get_result()
    machine = item.funcargs.get("machine")
    if report.failed and machine is not None:
        report.sections.append(("the journal", machine.run("journalctl", "--no-pager", "-n", "60").stdout))
