"""Several evapids on one host, evapid@NAME.service, each with a Kamailio and clients of its own."""

import contextlib
import json

import pytest

from client import Client
from conftest import KAMAILIO
from sip import Phone

NAMES = ("east", "west")


class Instance:
    """One of them, with its Kamailio, a phone and a client."""

    def __init__(self, machine, name):
        self.machine, self.name, self.unit = machine, name, f"evapid@{name}"
        self.address, self.sip_port = f"127.0.0.1:{machine.ports.tcp()}", machine.ports.udp()
        module = next(machine.folder.glob("usr/lib/**/kamailio/**/*evapid*/evapi.so")).relative_to(machine.folder)
        config = KAMAILIO.format(port=self.sip_port, address=self.address, module=f"/{module}")
        socket = f'modparam("evapi", "socket", "/run/evapid-{name}/kamailio.sock")\n'
        self.kamailio = machine.folder / f"etc/kamailio/{name}.cfg"
        self.kamailio.write_text(config.replace("request_route {", socket + "request_route {", 1))
        self.config = machine.folder / f"etc/evapid/{name}.json"
        self.configure()
        machine.systemctl("start", self.unit)
        machine.run("systemd-run", f"--unit=kamailio-{name}", "--uid=kamailio", "--gid=kamailio",
                    "kamailio", "-DD", "-E", "-f", f"/etc/kamailio/{name}.cfg", "-Y", "/tmp", check=True)
        machine.until(lambda: self.ctl("ready").returncode == 0, f"{name} is ready")
        self.phone, self.client = Phone(self.sip_port), Client(self.address)
        machine.until(lambda: [each["state"] for each in self.status()["clients"]] == ["open"], "its client is let in")

    def configure(self, **keys):
        sockets = {f"{kind}_socket": f"/run/evapid-{self.name}/{kind}.sock" for kind in ("kamailio", "control")}
        self.config.write_text(json.dumps({**sockets, **keys}))

    def ctl(self, *words):
        return self.machine.run("evapictl", "-i", self.name, *words)

    def status(self):
        return json.loads(self.ctl("--json", "status").stdout)

    def close(self):
        self.phone.close(), self.client.close()
        self.machine.run("systemctl", "stop", f"kamailio-{self.name}", self.unit)
        self.config.unlink(), self.kamailio.unlink()


@pytest.fixture(scope="module")
def instances(machine):
    with contextlib.ExitStack() as stack:
        started = []
        for name in NAMES:
            started.append(Instance(machine, name))
            stack.callback(started[-1].close)
        yield started


def relay(instance, body):
    assert instance.phone.ask("MESSAGE", "relay", body=body)["X-Rc"] == "1"


def test_each_has_its_own_process_folder_kamailio_and_clients(machine, instances):
    assert len({instance.status()["pid"] for instance in instances}) == 2
    for instance in instances:
        assert instance.status()["pid"] == int(machine.show(instance.unit, "MainPID"))
        assert instance.status()["kamailio"]["pid"] == int(machine.show(f"kamailio-{instance.name}", "MainPID"))
        owner = machine.run("stat", "-c", "%A %U %G", f"/run/evapid-{instance.name}", check=True).stdout
        assert owner == "drwxr-x--- evapid kamailio\n"
        relay(instance, f"of {instance.name}".encode())
    for instance in instances:
        assert instance.client.receive() == f"of {instance.name}".encode()
        assert not instance.client.receive_ready()


def test_evapictl_finds_each_by_its_name_or_by_the_environment(machine, instances):
    for instance in instances:
        named = machine.run("env", f"EVAPICTL_SOCKET=/run/evapid-{instance.name}/control.sock", "evapictl", "-j", "status")
        assert json.loads(named.stdout)["pid"] == instance.status()["pid"]
    other = machine.run("env", "EVAPICTL_SOCKET=/nowhere", "evapictl", "-i", "east", "-j", "status")
    assert json.loads(other.stdout)["pid"] == instances[0].status()["pid"]


def test_one_is_restarted_and_reloaded_and_the_other_does_not_notice(machine, instances):
    east, west = instances
    before = [instance.status()["pid"] for instance in instances]
    machine.systemctl("restart", east.unit)
    assert east.status()["pid"] != before[0] and west.status()["pid"] == before[1]
    for instance in instances:
        relay(instance, b"after the restart")
        assert instance.client.receive() == b"after the restart"
    east.configure(limits={"linger_ms": 4321})
    machine.systemctl("reload", east.unit)
    assert "limits.linger_ms" in east.ctl("config").stdout and " 4321 " in east.ctl("config").stdout
    assert " 4321 " not in west.ctl("config").stdout
