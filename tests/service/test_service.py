"""evapid as its unit runs it, under a real systemd: as its own user, in its sandbox, with its watchdog, and with the
descriptors that systemd keeps for it."""

import contextlib
import json
import threading

import pytest

from client import Client, refused
from scrape import ask
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


@contextlib.contextmanager
def editing(machine):
    """Calls its argument the text of the configuration, which is as it was in the end."""
    config = machine.folder / "etc/evapid/evapid.json"
    good = config.read_text()
    try:
        yield config.write_text
    finally:
        config.write_text(good)


@pytest.fixture
def edit(machine, client):
    """Writes the configuration. In the end it is as it was, in the evapid that runs, too."""
    with editing(machine) as write:
        yield lambda **keys: write(json.dumps(keys))
    machine.systemctl("reload", "evapid")


def reload(machine):
    """What systemd says to it."""
    return machine.run("systemctl", "reload", "evapid").returncode


def logged(machine, line, times=1):
    """Waits until the line stands so often in the journal. journald writes when it comes to it."""
    machine.until(lambda: machine.log("evapid").count(line) >= times, f"{times} times in the journal: {line}")


def addresses(machine):
    return [listener["address"] for listener in machine.status()["listeners"] if listener["state"] == "listening"]


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


def killed_and_started_again(machine):
    restarts = int(machine.show("evapid", "NRestarts"))
    machine.kill("evapid", "SIGKILL")
    machine.until(lambda: int(machine.show("evapid", "NRestarts")) == restarts + 1
                  and machine.show("evapid", "ActiveState") == "active", "systemd starts it again")


def test_a_killed_evapid_is_started_again_and_its_clients_stay(machine, client, phone):
    relay(phone, b"one")
    assert client.receive() == b"one"
    killed_and_started_again(machine)
    relay(phone, b"two")
    assert client.receive() == b"two"
    logged(machine, "evapid was killed: 1 clients go on, 0 are closed")


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
    machine.until(lambda: not client.receive_ready() and client.eof, "the end of the stream")
    machine.until(lambda: machine.show("evapid", "NFileDescriptorStore") == "0", "nothing is left with systemd")
    assert machine.run("ls", "/run/evapid").returncode != 0


def test_sigint_lets_clients_have_what_waits_and_leaves_nothing_with_systemd(machine, client, phone):
    relay(phone, b"the last")
    machine.kill("evapid", "SIGINT")
    assert client.receive() == b"the last"
    machine.until(lambda: not client.receive_ready() and client.eof, "the end of the stream")
    machine.until(lambda: machine.show("evapid", "ActiveState") == "inactive", "it has ended")
    machine.until(lambda: machine.show("evapid", "NFileDescriptorStore") == "0", "nothing is left with systemd")


def test_a_bad_configuration_is_said_in_the_journal_and_costs_nothing_when_it_is_corrected(machine, client, phone):
    with editing(machine) as write:
        write('{ "listeners": 7 }')
        assert machine.run("systemctl", "restart", "evapid").returncode != 0
        logged(machine, "evapid.json:1:16: listeners: expected an array, found an integer")
    machine.systemctl("reset-failed", "evapid")
    machine.systemctl("start", "evapid")
    relay(phone, b"again")
    assert client.receive() == b"again"


def test_a_reload_adds_a_listener_and_clients_stay(machine, client, phone, edit):
    pid, address = pid_of(machine), f"127.0.0.1:{machine.ports.tcp()}"
    edit(listeners=[{"address": address}])
    assert reload(machine) == 0
    logged(machine, "reloaded: 1 listeners are new, 0 have gone, 0 clients may not stay")
    another = Client(address)
    machine.until(lambda: entry_of(machine, another)["state"] == "open", "a client is let in there")
    relay(phone, b"to both")
    assert (client.receive(), another.receive()) == (b"to both", b"to both")
    another.close()

    # What the reload opened is with systemd, too: it stays over a restart.
    machine.systemctl("restart", "evapid")
    assert sorted(addresses(machine)) == sorted([machine.address, address])
    relay(phone, b"from the next")
    assert client.receive() == b"from the next"
    assert pid_of(machine) != pid


def test_an_address_that_a_reload_gives_up_is_free_at_once(machine, client, phone, edit):
    """systemd closes its copy of the socket when it comes to it."""
    address = f"127.0.0.1:{machine.ports.tcp()}"
    for _ in range(5):
        for key, value in (("listeners", [{"address": address}]), ("metrics", {"address": address})):
            edit(**{key: value})
            assert reload(machine) == 0
            edit()
            assert reload(machine) == 0
            assert refused(address)
    relay(phone, b"all the while")
    assert client.receive() == b"all the while"


def test_a_reload_of_a_bad_configuration_fails_and_changes_nothing(machine, client, phone, edit):
    pid, before = pid_of(machine), machine.status()["listeners"]
    with editing(machine) as write:
        write('{ "listeners": [ { "address": "127.0.0.1:1", "max_clients": 0 } ] }')
        assert reload(machine) != 0
        # Who looks for the reason finds it where the unit's lines are: evapid's, and that of the command that asked.
        logged(machine, "listeners[0].max_clients: 0 is out of range: 1 to 1000000", times=2)
        write(json.dumps({"listeners": [{"address": "192.0.2.1:9"}]}))  # none of this machine's
        assert reload(machine) != 0
    logged(machine, "not reloaded, nothing has changed: listener 192.0.2.1:9: ")
    assert (pid_of(machine), machine.show("evapid", "ActiveState")) == (pid, "active")
    assert machine.status()["listeners"] == before
    relay(phone, b"as before")
    assert client.receive() == b"as before"


def test_the_metrics_are_served_from_within_the_sandbox(machine, client, phone, edit):
    address = f"127.0.0.1:{machine.ports.tcp()}"
    edit(metrics={"address": address})
    assert reload(machine) == 0

    def served():
        answer = ask(address)
        assert answer.status == 200
        samples = [line.rsplit(" ", 1) for line in answer.text().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in samples}
    assert (ask(address, "/healthz").status, ask(address, "/readyz").status) == (200, 200)
    before = served()
    assert before["process_open_fds"] > 0 and before["process_resident_memory_bytes"] > 0
    assert before["process_cpu_seconds_total"] > 0 and before["process_max_fds"] > before["process_open_fds"]
    relay(phone, b"counted")
    assert client.receive() == b"counted"
    machine.until(lambda: served()["evapid_deliveries_done_total"] == before["evapid_deliveries_done_total"] + 1, "it is counted")

    machine.systemctl("restart", "evapid")  # its socket and its counts are kept as well
    assert served()["evapid_deliveries_done_total"] == before["evapid_deliveries_done_total"] + 1
    killed_and_started_again(machine)
    assert served()["evapid_deliveries_done_total"] == before["evapid_deliveries_done_total"] + 1
