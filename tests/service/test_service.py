"""evapid as its unit runs it, under a real systemd: as its own user, in its sandbox, with its watchdog, and with the
descriptors that systemd keeps for it."""

import threading

import pytest

from client import Client
from sip import Phone


@pytest.fixture
def phone(machine):
    with_close = Phone(machine.sip_port)
    yield with_close
    with_close.close()


@pytest.fixture
def client(machine):
    """One that has been let in; evapid and Kamailio run."""
    machine.systemctl("reset-failed", "evapid")
    machine.systemctl("start", "evapid", "kamailio")
    machine.until(lambda: [listener["state"] for listener in machine.status()["listeners"]] == ["listening"],
                  "the module's listener is there")
    client = Client(machine.address)
    machine.until(lambda: entry_of(machine, client)["state"] == "open", "the client is let in")
    yield client
    client.close()


def entry_of(machine, client):
    entries = machine.status()["clients"]
    return next((entry for entry in entries if entry["address"].endswith(f":{client.port}")), {"state": "none"})


def relay(phone, body):
    assert phone.ask("MESSAGE", "relay", body=body)["X-Rc"] == "1"


def pid_of(machine):
    return int(machine.show("evapid", "MainPID"))


def test_it_starts_with_the_system_as_its_own_user_and_kamailio_finds_it(machine):
    assert machine.systemctl("is-enabled", "evapid").strip() == "enabled"
    assert machine.show("evapid", "ActiveState") == "active"
    assert machine.show("evapid", "StatusText").startswith("workers attach at /run/evapid/kamailio.sock")
    owner = machine.run("stat", "-c", "%U %G", f"/proc/{pid_of(machine)}", check=True).stdout
    assert owner == "evapid kamailio\n"
    machine.until(lambda: machine.status()["kamailio"]["state"] == "attached", "Kamailio is attached")
    assert machine.run("stat", "-c", "%A %U %G", "/run/evapid", check=True).stdout == "drwxr-x--- evapid kamailio\n"


def test_a_restart_is_nothing_that_a_client_notices(machine, client, phone):
    before = pid_of(machine)
    ended, relayed = threading.Event(), 0

    def restart():
        for _ in range(5):
            machine.systemctl("restart", "evapid")
        ended.set()

    thread = threading.Thread(target=restart)
    thread.start()
    while not ended.is_set():
        relay(phone, b"%d" % relayed)
        relayed += 1
    thread.join()
    assert client.receive_many(relayed) == [b"%d" % i for i in range(relayed)]
    client.send(b"still there")
    assert client.receive() == b"echo still there"
    assert pid_of(machine) != before
    assert entry_of(machine, client)["out"]["delivered"] == relayed + 1


def test_a_killed_evapid_is_started_again_and_its_clients_stay(machine, client, phone):
    relay(phone, b"one")
    assert client.receive() == b"one"
    restarts = int(machine.show("evapid", "NRestarts"))
    machine.kill("evapid", "SIGKILL")
    machine.until(lambda: int(machine.show("evapid", "NRestarts")) == restarts + 1
                  and machine.show("evapid", "ActiveState") == "active", "systemd starts it again")
    relay(phone, b"two")
    assert client.receive() == b"two"
    assert "evapid was killed: 1 clients go on, 0 are closed" in machine.log("evapid")


def test_an_evapid_that_hangs_is_ended_by_the_watchdog_and_started_again(machine, client, phone):
    restarts = int(machine.show("evapid", "NRestarts"))
    machine.kill("evapid", "SIGSTOP")
    relay(phone, b"while it hangs")
    machine.until(lambda: int(machine.show("evapid", "NRestarts")) == restarts + 1, "the watchdog ends it")
    assert client.receive() == b"while it hangs"


def test_kamailio_is_restarted_and_clients_stay(machine, client, phone):
    machine.systemctl("restart", "kamailio")
    relay(phone, b"from the next Kamailio")
    assert client.receive() == b"from the next Kamailio"


def test_a_stop_ends_the_connections_and_leaves_nothing_with_systemd(machine, client):
    machine.systemctl("stop", "evapid")
    assert not client.receive_ready() and client.eof
    assert machine.show("evapid", "NFileDescriptorStore") == "0"
    assert machine.run("ls", "/run/evapid").returncode != 0


def test_sigint_lets_clients_have_what_waits_and_leaves_nothing_with_systemd(machine, client, phone):
    relay(phone, b"the last")
    machine.kill("evapid", "SIGINT")
    assert client.receive() == b"the last"
    machine.until(lambda: not client.receive_ready() and client.eof, "the end of the stream")
    machine.until(lambda: machine.show("evapid", "ActiveState") == "inactive", "it has ended")
    assert machine.show("evapid", "NFileDescriptorStore") == "0"


def test_a_bad_configuration_is_said_in_the_journal_and_costs_nothing_when_it_is_corrected(machine, client, phone):
    config = machine.folder / "etc/evapid/evapid.json"
    good = config.read_text()
    try:
        config.write_text('{ "listeners": 7 }')
        assert machine.run("systemctl", "restart", "evapid").returncode != 0
        assert "evapid.json:1:16: listeners: expected an array, found an integer" in machine.log("evapid")
    finally:
        config.write_text(good)
    machine.systemctl("reset-failed", "evapid")
    machine.systemctl("start", "evapid")
    relay(phone, b"again")
    assert client.receive() == b"again"
