"""An address that is, or overlaps, one that evapid gives up, "0.0.0.0:8448" in place of "127.0.0.1:8448", however the new
configuration comes: the old socket, which somebody still holds, is not in the way."""

import socket

import pytest

from client import Client, refused
from namespace import within
from privilege import only_root
from scrape import ask


def settings_at(host):
    return {"metrics": {"address": f"{host}:9464"}, "listeners": [{"address": f"{host}:8448"}]}


def by_reload(stage, **settings):
    stage.evapid.reload(**settings)


def by_replacing(stage, **settings):
    stage.replace_evapid(before=stage.apart, **settings)


def by_restart(stage, **settings):
    stage.evapid.configure(**settings)
    stage.evapid.restart()
    sockets = [name for name in stage.evapid.stored() if name.startswith(("listener-", "metrics"))]
    assert len(sockets) == len(stage.evapid.settings["listeners"]) + ("metrics" in stage.evapid.settings)


def by_restart_after_a_kill(stage, **settings):
    stage.evapid.configure(**settings)
    stage.evapid.kill_and_restart()


def by_reload_and_a_slow_service_manager(stage, **settings):
    stage.evapid.notifications.puts_off()
    stage.evapid.reload(**settings)


def by_restart_and_a_slow_service_manager(stage, **settings):
    stage.evapid.configure(**settings)
    stage.evapid.terminate()
    stage.evapid.notifications.puts_off()
    stage.evapid.start_again()


as_root = only_root("can enter a network namespace")
supervised = (by_restart, by_restart_after_a_kill, by_reload_and_a_slow_service_manager,
              by_restart_and_a_slow_service_manager)
every_change = pytest.mark.parametrize("change", [by_reload, by_replacing, *supervised])


def begin(stage, apart, change, **settings):
    stage.apart = apart
    start = stage.start_supervised if change in supervised else stage.start_evapid
    start(before=apart, **settings)


def connected(stage, count):
    stage.evapid.until_status(lambda s: len(s["clients"]) == count, f"{count} clients are connected")


def is_ours_alone(host, port):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((host, port))
            other.listen()


@as_root
@pytest.mark.parametrize("first, second", [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_one_that_stays_is_in_the_way(stage, apart, first, second):
    stage.start_supervised(before=apart, listeners=[{"address": "127.0.0.1:8448"}])
    stage.evapid.configure(listeners=[{"address": f"{first}:8448"}, {"address": f"{second}:8448"}])
    stage.evapid.terminate()
    assert stage.evapid.start_in_vain(unless_ready=True) == 1
    assert stage.evapid.lines("error listener 0.0.0.0:8448: address in use")


@as_root
@pytest.mark.parametrize("before, after", [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
@every_change
def test_an_address_may_overlap_the_one_before(stage, apart, change, before, after):
    begin(stage, apart, change, **settings_at(before))
    change(stage, **settings_at(after))
    stage.evapid.listening(f"{after}:8448")

    def look():
        assert ask("127.0.0.1:9464", "/healthz").status == 200
        Client("127.0.0.1:8448").close()
        is_ours_alone(before, 8448)
        is_ours_alone(before, 9464)
        return True
    assert within(stage.evapid.pid, look)


def test_an_address_is_free_at_once_whenever_the_service_manager_lets_go_of_it(stage):
    """And nobody who connects to it meanwhile waits in vain."""
    stage.start_supervised()
    address = stage.new_address()
    stage.evapid.notifications.puts_off()
    for settings in ({"listeners": [{"address": address}]}, {"metrics": {"address": address}}) * 3:
        for key in ("listeners", "metrics"):
            stage.evapid.settings.pop(key, None)
        stage.evapid.reload(**settings)
        del stage.evapid.settings[list(settings)[0]]
        stage.evapid.reload()
        assert refused(address)


@as_root
@pytest.mark.parametrize("before, after", [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
@every_change
def test_an_address_of_a_listener_may_become_that_of_the_metrics(stage, apart, change, before, after):
    begin(stage, apart, change, listeners=[{"address": f"{before}:8448"}])
    with within(stage.evapid.pid, lambda: Client("127.0.0.1:8448")).socket:
        connected(stage, 1)
        change(stage, listeners=[], metrics={"address": f"{after}:8448"})
        connected(stage, 1)

        def look():
            for _ in range(20):  # none of them finds the old socket
                assert ask("127.0.0.1:8448", "/healthz").status == 200
            is_ours_alone(before, 8448)
            return True
        assert within(stage.evapid.pid, look)


@as_root
@pytest.mark.parametrize("before, after", [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
@every_change
def test_an_address_of_the_metrics_may_become_that_of_a_listener(stage, apart, change, before, after):
    begin(stage, apart, change, metrics={"address": f"{before}:8448"})
    del stage.evapid.settings["metrics"]
    change(stage, listeners=[{"address": f"{after}:8448"}])
    stage.evapid.listening(f"{after}:8448")
    clients = within(stage.evapid.pid, lambda: [Client("127.0.0.1:8448") for _ in range(20)])
    connected(stage, len(clients))
    assert within(stage.evapid.pid, lambda: is_ours_alone(before, 8448) is None)
    for client in clients:
        client.close()
