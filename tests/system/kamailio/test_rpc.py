"""Kamailio's own tools: RPC by kamcmd, kamcli and JSON-RPC, the statistics group "evapi", and xhttp_prom. docs/module.md has
what they show."""

import json
import os
import re
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

import commands
from process import DEADLINE_S, until
from stage import Stage

# kamcli 2.0.0 asks Python for SafeConfigParser, another name of ConfigParser, which Python 3.12 no longer has. Debian 13's can't do
# anything for want of that name; with it, it works. Python reads this file at its start.
KAMCLI_START = "import configparser\nconfigparser.SafeConfigParser = configparser.ConfigParser\n"

ROUTES = """
route[TEST] {
    if (is_method("OPTIONS")) evapi_relay("event");
    sl_send_reply("200", "OK");
}
event_route[evapi:connection-new] { evapi_set_tag("c$evapi(conidx)"); }
event_route[evapi:message-received] { evapi_multicast("$evapi(msg)", "c$evapi(conidx)"); }
event_route[xhttp:request] {
    if ($hu =~ "^/rpc") jsonrpc_dispatch();
    else if ($hu =~ "^/web") dispatch_xhttp_rpc();
    else prom_dispatch();
}
"""


class Office(Stage):
    """A stage with a Kamailio that can be managed."""

    def open(self, routes=ROUTES, **more):
        self.http = self.ports.tcp()
        self.ctl, self.fifo, self.socket = (self.folder / name for name in ("ctl.sock", "rpc.fifo", "rpc.sock"))
        params = {"ctl": {"binrpc": f"unix:{self.ctl}"},
                  "jsonrpcs": {"transport": 7, "fifo_name": str(self.fifo), "fifo_reply_dir": f"{self.folder}/",
                               "dgram_socket": str(self.socket)},
                  "xhttp_prom": {"xhttp_prom_stats": "evapi:"}, "xhttp_rpc": {"xhttp_rpc_root": "web"}}
        self.start_kamailio(routes, modules=("ctl", "kex", "xhttp", "xhttp_prom", "xhttp_rpc", "jsonrpcs"), params=params,
                            settings=f"disable_tcp=no\nlisten=tcp:127.0.0.1:{self.http}\ntcp_accept_no_cl=yes", **more)
        return self

    @staticmethod
    def in_time(ask):
        """What ask() gives, once evapid answers in the half second that the module gives it."""
        return until(lambda: [reply for reply in [ask()] if "it does not answer" not in str(reply)], "evapid answers")[0]

    def kamcmd(self, *words):
        return self.in_time(lambda: self.kamcmd_once(*words))

    def kamcmd_once(self, *words):
        """What kamcmd prints."""
        ran = subprocess.run(["kamcmd", "-s", f"unix:{self.ctl}", *map(str, words)], capture_output=True, text=True,
                             timeout=DEADLINE_S)
        assert ran.returncode == 0 and not ran.stderr, ran.stderr
        return ran.stdout

    def kamcli(self, *words):
        return self.in_time(lambda: self._kamcli(*words))

    def _kamcli(self, *words):
        """What kamcli prints as JSON: it speaks JSON-RPC over a Unix datagram socket."""
        start = self.folder / "python"
        start.mkdir(exist_ok=True)
        (start / "sitecustomize.py").write_text(KAMCLI_START)
        config = self.folder / "kamcli.ini"
        config.write_text("[main]\n[db]\n[ctl]\ntype=jsonrpc\n[jsonrpc]\ntransport=socket\noutformat=json\n"
                          f"srvaddr={self.socket}\nrcvaddr={self.folder}/kamcli\n")
        ran = subprocess.run(["kamcli", "-c", str(config), *map(str, words)], capture_output=True, text=True,
                             timeout=DEADLINE_S, env={**os.environ, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(start)})
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout[ran.stdout.index("{"):])

    def post(self, method, *params):
        """JSON-RPC over HTTP: the whole reply."""
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
        return self._http("/rpc", json.dumps(request).encode())

    def rpc(self, method, *params):
        return self.in_time(lambda: self.rpc_once(method, *params))

    def rpc_once(self, method, *params):
        reply = self.post(method, *params)
        assert "error" not in reply, reply
        return reply["result"]

    def _http(self, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", body)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as reply:
                text = reply.read().decode()
        except urllib.error.HTTPError as error:
            text = error.read().decode()
        return json.loads(text) if body else text

    def by_fifo(self, method):
        return self.in_time(lambda: self._by_fifo(method))

    def _by_fifo(self, method):
        """JSON-RPC over the FIFO."""
        name = self.folder / "reply"
        os.mkfifo(name)
        reply = os.open(name, os.O_RDWR)
        with open(self.fifo, "w") as fifo:
            fifo.write(json.dumps({"jsonrpc": "2.0", "method": method, "reply_name": "reply", "id": 1}))
        text = ""
        while text.count("{") != text.count("}") or not text:
            text += os.read(reply, 65536).decode()
        os.close(reply)
        name.unlink()
        return json.loads(text)["result"]

    def scrape(self):
        """The statistics that xhttp_prom shows."""
        return {name: int(value) for name, value in re.findall(r"^kamailio_evapi_(\w+) (\d+)", self._http("/metrics"), re.M)}


@pytest.fixture(scope="module")
def office():
    with Office() as own:
        own.start_evapid(listeners=[{"address": own.new_address()}])
        yield own.open()


@pytest.fixture
def calm(office):
    yield
    office.hang_up()
    assert not office.problems()


@pytest.fixture
def alone():
    """An office of a test's own."""
    with Office() as own:
        own.start_evapid()
        yield own.open()


def without_time(shown):
    """But for what goes on between two looks."""
    if isinstance(shown, dict):
        return {key: without_time(value) for key, value in shown.items() if key not in ("uptime_s", "attached_s", "connected_s")}
    return [without_time(value) for value in shown] if isinstance(shown, list) else shown


def parsed(text):
    """What kamcmd prints, as a tree: lists have values without names."""
    lines = iter(line.strip() for line in text.splitlines())

    def inside():
        named, unnamed = {}, []
        for line in lines:
            if line == "}":
                break
            name, separator, value = line.partition(":")
            if line == "{":
                unnamed.append(inside())
            elif separator and value.strip() == "{":
                named[name] = inside()
            else:
                named[name] = value.strip()
        return unnamed or named
    return inside()[0]


def as_text(value):
    """A JSON value as kamcmd prints it."""
    if isinstance(value, dict):
        return {key: as_text(inner) for key, inner in value.items()}
    return [as_text(inner) for inner in value] or {} if isinstance(value, list) else str(value)


def settled(office):
    """The status when all that has been issued is with the clients, and all their messages are with the routes."""
    return office.evapid.until_status(
        lambda s: s["kamailio"]["ring"]["used"] == 0 and s["totals"]["in"]["waiting"] == 0 and
        s["totals"]["out"]["queued_frames"] == 0, "all has come to rest")


# ---- evapi.status


def test_status_says_what_evapid_says(office, calm):
    for _ in range(3):
        office.connect()
    seen, shown = office.evapid.status(), office.rpc("evapi.status")
    assert shown["state"] == "attached" and shown["workers"] == 1
    assert shown["socket"] == seen["sockets"]["kamailio"]["path"]
    assert shown["queue"] == {key: seen["kamailio"]["ring"][key] for key in ("capacity", "used", "refused_full", "refused_large", "lost")}
    evapid, kamailio = shown["evapid"], seen["kamailio"]
    assert {key: evapid[key] for key in ("version", "pid", "session")} == {key: seen[key] for key in ("version", "pid", "session")}
    assert evapid["clients"] == evapid["admitted"] == 3
    for key in ("state", "pid", "version", "module", "workers_declared"):
        assert evapid["kamailio"][key] == kamailio[key]
    assert evapid["workers"] == kamailio["workers"]
    assert evapid["ring"].items() <= kamailio["ring"].items()
    assert len(evapid["listeners"]) == 2
    for listener, entry in zip(evapid["listeners"], seen["listeners"]):
        assert listener.items() <= entry.items() and "refused" in listener


def test_the_document_shows_what_kamcmd_prints(office, calm):
    ((command, shown),) = commands.dialogue(commands.text_of("docs/module.md", "the status by kamcmd"))
    printed = office.kamcmd(*command.split()[1:])

    def names(text):
        return re.findall(r"^(\t*\w+):", text, re.M)
    lines = names(printed)
    assert lines[:len(names(shown))] == names(shown)


def test_the_web_page_of_xhttp_rpc_shows_the_status_and_the_clients(office, calm):
    client = office.connect()
    page = office._http("/web/evapi/evapi.status?arg=")
    for text in ("attached", str(office.evapid.pid), str(office.evapid.kamailio_socket), office.address):
        assert text in page, page
    assert f"127.0.0.1:{client.port}" in office._http("/web/evapi/evapi.clients?arg=")


def test_every_tool_shows_the_same_status(office, calm):
    office.connect()
    shown = without_time(office.rpc("evapi.status"))
    assert without_time(office.kamcli("rpc", "evapi.status")["result"]) == shown
    assert without_time(office.by_fifo("evapi.status")) == shown
    assert without_time(parsed(office.kamcmd("evapi.status"))) == as_text(shown)


# ---- evapi.clients


def test_clients_are_those_of_evapid(office, calm):
    clients = [office.connect() for _ in range(3)]
    clients[1].send(b"to myself")
    assert clients[1].receive() == b"to myself"
    assert office.phone().ask("OPTIONS").code == 200
    for client in clients:
        assert client.receive() == b"event"
    seen, shown = settled(office)["clients"], office.rpc("evapi.clients")
    assert (shown["total"], shown["shown"], shown["left"]) == (3, 3, 0)
    for client, entry in zip(shown["clients"], seen):
        assert {key: client[key] for key in ("index", "address", "listener", "tag", "state")} == \
               {key: entry[key] for key in ("index", "address", "listener", "tag", "state")}
        assert [client[key] for key in ("slow", "relayed", "delivered", "queued", "queued_bytes", "dropped")] == \
               [0, entry["out"]["relayed"], entry["out"]["delivered"], 0, 0, 0]
        assert [client[key] for key in ("messages", "messages_waiting", "messages_dropped")] == [entry["in"]["frames"], 0, 0]
    assert [client["messages"] for client in shown["clients"]] == [0, 1, 0]
    assert without_time(parsed(office.kamcmd("evapi.clients"))) == as_text(without_time(shown))
    assert without_time(office.kamcli("rpc", "evapi.clients")["result"]) == without_time(shown)


def test_many_clients_come_page_by_page(alone):
    office = alone
    office.kamailio.terminate()
    office.open(evapi={"max_clients": 300})
    clients = [office.connect(admitted=False) for _ in range(230)]
    office.evapid.clients(230)
    indexes, after = [], 0
    for left in (130, 30, 0):
        page = parsed(office.kamcmd("evapi.clients", after))
        assert (page["total"], page["left"]) == ("230", str(left)) and len(page["clients"]) == int(page["shown"])
        indexes += [int(client["index"]) for client in page["clients"]]
        after = indexes[-1]
    assert indexes == list(range(1, 231))
    assert [client["index"] for client in office.rpc("evapi.clients", 7, 2)["clients"]] == [8, 9]
    assert office.rpc("evapi.clients", 0, 100000)["shown"] == 100
    assert office.rpc("evapi.clients", 0, 0)["clients"] == []
    for client in clients:
        client.close()


@pytest.mark.parametrize("words", [["x"], ["1", "x"], ["-1"], ["2147483648"], ["1", "99999999999"]])
def test_a_parameter_that_is_no_number_is_an_error(office, words):
    assert office.kamcmd("evapi.clients", *(f"s:{word}" for word in words)) == \
        "error: 400 - expected: [AFTER [LIMIT]], both numbers\n"


def test_bytes_of_a_tag_that_a_terminal_might_obey_are_shown_as_digits(alone):
    office = alone
    office.kamailio.terminate()
    office.open(ROUTES.replace('"c$evapi(conidx)"', '"a\\x1b[31m\\xc3\\xa4\\\\"', 1).replace("\\x1b", "\x1b").replace("\\xc3\\xa4", "ä"))
    office.connect()
    shown = "a\\x1b[31m\\xc3\\xa4\\x5c"
    assert office.rpc("evapi.clients")["clients"][0]["tag"] == shown
    assert f"tag: {shown}\n" in office.kamcmd("evapi.clients")


# ---- the figures


TOTALS = {  # by the path in evapid's status
    "clients_accepted": "clients.accepted", "clients_closed": "clients.closed", "events_relay": "events.relay",
    "events_multicast": "events.multicast", "events_unicast": "events.unicast", "events_send": "events.send",
    "events_no_receiver": "events.no_receiver",
    "relayed": "out.relayed", "delivered": "out.delivered", "delivered_bytes": "out.bytes", "queued": "out.queued_frames",
    "queued_memory": "out.queued_memory", "messages": "in.frames", "message_bytes": "in.bytes",
    "messages_delivered": "in.delivered", "messages_waiting": "in.waiting",
    **{f"dropped_{reason}": f"out.dropped.{reason}" for reason in ("slow", "closed", "large", "memory", "lost", "absent")},
    **{f"messages_dropped_{reason}": f"in.dropped.{reason}" for reason in ("closed", "memory", "lost")}}


def expected_figures(status):
    def total(path):
        value = status["totals"]
        for key in path.split("."):
            value = value[key]
        return value
    ring = status["kamailio"]["ring"]
    return {"attached": 1, "clients": len(status["clients"]), "tags": len({entry["tag"] for entry in status["clients"]}),
            "queue_capacity": ring["capacity"], "queue_used": ring["used"], "queue_refused_full": ring["refused_full"],
            "queue_refused_large": ring["refused_large"], "queue_lost": ring["lost"], **{name: total(path) for name, path in TOTALS.items()}}


def make_traffic(office):
    """Something of most kinds."""
    clients = [office.connect() for _ in range(3)]
    clients[0].send(b"to myself")
    assert clients[0].receive() == b"to myself"
    for _ in range(4):
        assert office.phone().ask("OPTIONS").code == 200
    office.rpc("evapi.unicast", f"c{clients[1].index}", "for one")
    office.rpc("evapi.unicast", "no such tag", "for nobody")
    assert clients[1].receive_many(5)[-1] == b"for one"
    office.rpc("evapi.send", clients[1].index, "to you")
    assert clients[1].receive() == b"to you"
    assert office.evapid.ctl("relay", "published").returncode == 0  # which no queue of Kamailio has seen
    assert clients[1].receive() == b"published"
    clients[2].close()
    office.evapid.clients(2)


def test_the_figures_are_evapids_totals(office, calm):
    make_traffic(office)
    expected = expected_figures(settled(office))
    assert expected["events_no_receiver"] >= 1 and expected["messages"] >= 1 and expected["clients_closed"] >= 1
    assert office.rpc("evapi.stats") == expected
    assert parsed(office.kamcmd("evapi.stats")) == as_text(expected)
    assert office.kamcli("rpc", "evapi.stats")["result"] == expected


def test_the_statistics_group_is_shown_by_every_tool(office, calm):
    make_traffic(office)
    expected = expected_figures(settled(office))
    lines = dict(line.split(" = ") for line in office.kamcmd("stats.get_statistics", "evapi:").splitlines())
    assert lines == {f"evapi:{name}": str(value) for name, value in expected.items()}
    assert parsed(office.kamcmd("stats.fetch", "evapi:")) == {f"evapi.{name}": str(value) for name, value in expected.items()}
    assert sorted(office.kamcli("stats", "evapi")["result"]) == sorted(f"evapi:{name} = {value}" for name, value in expected.items())
    assert office.kamcmd("stats.get_statistics", "events_relay") == f"evapi:events_relay = {expected['events_relay']}\n"
    assert office.scrape() == expected


def test_statistics_cannot_be_reset(office, calm):
    make_traffic(office)
    expected = expected_figures(settled(office))
    office.kamcmd("stats.reset_statistics", "evapi:")
    office.kamcmd("stats.clear_statistics", "evapi:")
    assert office.rpc("evapi.stats") == expected


def test_figures_go_on_when_evapid_is_replaced(alone):
    make_traffic(alone)
    settled(alone)
    before = alone.rpc("evapi.stats")
    alone.replace_evapid()
    assert alone.phone().ask("OPTIONS").code == 200
    settled(alone)
    after = alone.rpc("evapi.stats")
    assert after["events_relay"] == before["events_relay"] + 1
    assert after["relayed"] == before["relayed"] + 2 and after["messages"] == before["messages"]


def test_a_full_queue_is_seen_in_the_figures(alone):
    alone.kamailio.terminate()
    alone.open(ROUTES.replace('"event"', '"$mb$mb$mb"'), evapi={"queue_size": 65536})
    alone.connect()
    alone.evapid.stopped()
    try:
        for _ in range(200):
            assert alone.phone().ask("OPTIONS").code == 200
            if alone.scrape()["queue_refused_full"] > 0:
                break
        figures = alone.rpc("evapi.stats")
        assert figures["queue_refused_full"] > 0 and figures["queue_used"] > figures["queue_capacity"] // 2
    finally:
        alone.evapid.goes_on()


# ---- without evapid


def test_without_evapid_the_tools_say_so_and_have_the_last_figures(alone):
    make_traffic(alone)
    before = expected_figures(settled(alone))
    alone.evapid.terminate()
    until(lambda: alone.rpc("evapi.stats")["attached"] == 0, "the module knows that evapid has gone")
    assert alone.phone().ask("OPTIONS").code == 200  # its event waits
    shown = alone.rpc("evapi.status")
    assert shown["state"] == "detached" and shown["queue"]["used"] > 0
    assert shown["evapid"] == {"error": "No such file or directory"}
    assert "state: detached\n" in alone.kamcmd("evapi.status")
    assert alone.kamcmd("evapi.clients") == \
        f"error: 503 - no clients are known: evapid at {alone.evapid.kamailio_socket}: No such file or directory\n"
    figures = alone.rpc("evapi.stats")
    assert (figures["clients"], figures["tags"], figures["queued"]) == (0, 0, 0)
    assert figures["queue_used"] == shown["queue"]["used"]
    for name in ("events_relay", "relayed", "delivered", "messages"):
        assert figures[name] == before[name]
    assert alone.scrape() == figures
    alone.restart_evapid()
    alone.evapid.attached(alone.kamailio.pid)
    assert alone.rpc("evapi.status")["evapid"]["pid"] == alone.evapid.pid


def connect_until_no_more(path):
    """As many connections as the socket takes of those that nobody accepts."""
    connections = []
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(str(path))
        except BlockingIOError:
            connection.close()
            return connections
        connections.append(connection)


def test_no_tool_waits_for_an_evapid_that_does_not_answer(alone):
    alone.connect()
    alone.evapid.stopped()
    try:  # it goes on only when all of this has been answered
        assert alone.rpc_once("evapi.status")["evapid"] == {"error": "it does not answer"}
        assert alone.kamcmd_once("evapi.clients").endswith(": it does not answer\n")
        assert alone.rpc("evapi.stats")["attached"] == 1
        assert alone.scrape()["clients"] == 1
        waiting = connect_until_no_more(alone.evapid.kamailio_socket)
        assert alone.rpc_once("evapi.status")["evapid"] == {"error": "it does not answer"}
        assert alone.phone().ask("OPTIONS").code == 200
    finally:
        alone.evapid.goes_on()
    for connection in waiting:
        connection.close()
    assert "error" not in alone.rpc("evapi.status")["evapid"]


def test_a_kamailio_that_evapid_refuses_sees_who_is_attached(office, calm):
    config, first = office.kamailio.config, office.kamailio
    with Office() as other:
        other.evapid, other.address = office.evapid, office.new_address()
        other.open(evapi={"socket": config.evapi["socket"], "bind_addr": ""}, attach=False)
        other.kamailio.logged("refuses this Kamailio")
        shown = other.rpc("evapi.status")
        assert shown["state"] == "detached" and other.rpc("evapi.stats")["attached"] == 0
        assert shown["evapid"]["kamailio"]["state"] == "attached" and shown["evapid"]["kamailio"]["pid"] == first.pid
        other.evapid = None


# ---- what may be done


def test_events_can_be_sent(office, calm):
    first, second = office.connect(), office.connect()
    assert office.kamcmd("evapi.relay", "to both") == ""
    assert office.rpc("evapi.multicast", f"c{second.index}", "to the second") == {}
    office.kamcmd("evapi.unicast", f"c{first.index}", "12345")
    office.kamcmd("evapi.send", first.index, "to the first")
    assert first.receive_many(3) == [b"to both", b"12345", b"to the first"]
    assert second.receive_many(2) == [b"to both", b"to the second"]


def test_a_connection_can_be_closed(office, calm):
    client = office.connect()
    office.kamcmd("evapi.relay", "last")
    assert office.kamcmd("evapi.close", client.index) == ""
    assert client.receive_rest() == [b"last"]


@pytest.mark.parametrize("command, words, error", [
    ("evapi.relay", [], "400 - expected: EVENT"), ("evapi.relay", ["s:"], "500 - it is not sent: Kamailio's log says why"),
    ("evapi.multicast", ["tag"], "400 - expected: TAG EVENT"), ("evapi.unicast", [], "400 - expected: TAG EVENT"),
    ("evapi.multicast", ["t" * 65, "event"], "500 - it is not sent: Kamailio's log says why"),
    ("evapi.send", [], "400 - expected: INDEX EVENT"), ("evapi.send", ["1"], "400 - expected: INDEX EVENT"),
    ("evapi.send", ["99999", "event"], "500 - it is not sent: Kamailio's log says why"),
    ("evapi.close", [], "400 - expected: INDEX"), ("evapi.close", ["s:x"], "500 - it is not closed: Kamailio's log says why")])
def test_what_cannot_be_done_is_an_error(office, command, words, error):
    assert office.kamcmd(command, *words) == f"error: {error}\n"


def test_every_command_has_its_help(office):
    commands = [name for name in office.kamcmd("system.listMethods").split() if name.startswith("evapi.")]
    assert len(commands) == 8
    for command in commands:
        shown = office.kamcmd("help", command)
        assert len(shown) > 30 and "not documented" not in shown.lower(), shown
