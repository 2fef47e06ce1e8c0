"""Places in the service manager's store, when there are fewer than evapid has use for: what a restart can't do without comes
first, then clients, first come first. Those that have no place end, and nobody else."""

import pytest

from books import balanced
from client import Client
from evapid import ROOT
from handover import ROUTES
from script import ask

STORE = 64
NEEDED = 8  # state, ledger, ring and its wake, both Unix sockets, a listener, a worker
CLIENTS = 70


def kept_clients(evapid):
    return {name for name in evapid.stored() if name.startswith("client-")}


def names(clients):
    return {f"client-{client.index}" for client in clients}


def begin(stage, store=STORE, **evapi):
    stage.start_supervised(store=store)
    stage.start_kamailio(ROUTES, evapi=evapi)


def restart(evapid):
    evapid.terminate()


def kill(evapid):
    evapid.kill()


@pytest.mark.parametrize("end", [restart, kill])
def test_the_clients_beyond_end_and_only_they(stage, end):
    begin(stage)
    phone = stage.phone()
    clients = [stage.connect() for _ in range(CLIENTS)]
    kept, beyond = clients[:STORE - NEEDED], clients[STORE - NEEDED:]
    assert kept_clients(stage.evapid) == names(kept)
    stage.evapid.logged(rf"client-{beyond[0].index}: not kept by the service manager")
    words = [b"%d" % number for number in range(30)]
    for word in words[:10]:
        assert ask(phone, "relay", word) == 1
    for client in clients:
        assert client.receive_many(10) == words[:10]
    end(stage.evapid)
    if end is restart:
        stage.evapid.logged(rf"warning evapid: {len(beyond)} clients are disconnected: the service manager has no place for them")
        stage.evapid.logged(rf"stopping: SIGTERM; {len(kept)} clients are left to the service manager")
    for word in words[10:20]:
        assert ask(phone, "relay", word) == 1
    stage.evapid.start_again()
    stage.evapid.attached(stage.kamailio.pid)
    stage.evapid.clients(len(kept))
    for word in words[20:]:
        assert ask(phone, "relay", word) == 1
    for client in kept:
        assert client.receive_many(20) == words[10:]
    for client in beyond:
        assert client.receive_rest() == []
    stage.evapid.logged(rf"{len(beyond)} (clients )?are closed")
    status = stage.evapid.status()
    assert balanced(status)
    assert status["totals"]["clients"]["accepted"] - status["totals"]["clients"]["closed"] == len(kept)
    assert refused_none(stage.evapid)


def refused_none(evapid):
    """The service manager was never asked to keep more than it can."""
    return evapid.refused() == 0


def test_a_place_that_becomes_free_goes_to_the_client_that_came_first(stage):
    begin(stage, NEEDED + 3)
    clients = [stage.connect() for _ in range(6)]
    assert kept_clients(stage.evapid) == names(clients[:3])
    clients[1].close()
    stage.evapid.clients(5)
    assert kept_clients(stage.evapid) == names([clients[0], clients[2], clients[3]])
    clients[4].close()  # one that waits
    stage.evapid.clients(4)
    clients[0].close()
    stage.evapid.clients(3)
    assert kept_clients(stage.evapid) == names([clients[2], clients[3], clients[5]])
    stage.evapid.restart()
    stage.evapid.clients(3)
    assert refused_none(stage.evapid)


def test_clients_make_way_for_what_a_restart_needs(stage):
    """Kamailio comes after them, with its ring and its workers, and a reload with one more listener."""
    address, other = stage.new_address(), stage.new_address()
    stage.start_supervised(store=20, listeners=[{"address": address}])
    clients = [stage._keep(Client(address)) for _ in range(16)]
    stage.evapid.until_status(lambda s: len(s["clients"]) == 16, "all are there")
    kept = kept_clients(stage.evapid)
    stage.start_kamailio(ROUTES, evapi={"workers": 4, "bind_addr": address})
    stage.evapid.clients(16)
    needed = 6 + 4 + 1
    assert len(kept) > len(kept_clients(stage.evapid)) == 20 - needed
    stage.evapid.reload(listeners=[{"address": address}, {"address": other}])
    first = {f"client-{number}" for number in range(1, 1 + 20 - needed - 1)}
    assert kept_clients(stage.evapid) == first
    stage.evapid.restart()
    stage.evapid.attached(stage.kamailio.pid, 4)
    stage.evapid.clients(len(first))
    assert refused_none(stage.evapid)
    assert [client.receive_ready() for client in clients] == [[]] * 16
    assert sum(not client.eof for client in clients) == len(first)


def test_it_says_at_the_start_when_not_all_who_may_connect_have_a_place(stage):
    stage.start_supervised(store=STORE, listeners=[{"address": stage.new_address(), "max_clients": 300},
                                                   {"address": stage.new_address(), "max_clients": 7}])
    line, = stage.evapid.logged("warning store: 307 clients may connect")
    enough = int(line.rpartition("FDSTORE to ")[2])
    assert "the service manager keeps 64 descriptors" in line and 307 < enough < 600
    stage.evapid.stop()
    stage.start_supervised(store=enough, **stage.evapid.settings)
    assert not stage.evapid.lines("may connect")
    assert stage.evapid.reload_in_vain(listeners=[{"address": "nowhere"}])
    stage.evapid.reload(listeners=[{"address": stage.new_address(), "max_clients": 10000}])
    stage.evapid.logged("warning store: 10000 clients may connect .* which is the most, and lower max_clients")


def test_a_listener_of_the_module_is_counted(stage):
    begin(stage, STORE, max_clients=64)
    stage.evapid.logged("warning store: 64 clients may connect")


def test_the_unit_has_places_for_a_listener_as_it_is_by_default(stage):
    unit = (ROOT / "conf" / "evapid.service").read_text()
    most = int(unit.partition("FileDescriptorStoreMax=")[2].split()[0])
    assert f"FDSTORE={most}\n" in unit
    stage.start_supervised(store=most, listeners=[{"address": stage.new_address()}])
    assert not stage.evapid.lines("may connect")
