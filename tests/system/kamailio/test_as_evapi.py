"""A configuration with which the EVAPI of Kamailio's packages starts, starts with evapid, and does the same. Each test runs with
both, so that what EVAPI does is seen and not remembered."""

import random
import socket

import pytest

from client import Client, netstring
from process import DEADLINE_S, until

ECHO = """
route[TEST] { sl_send_reply("200", "OK"); }
event_route[evapi:connection-new] { xlog("L_NOTICE", "NEW $evapi(srcport) as $evapi(conidx);\\n"); }
event_route[evapi:message-received] { evapi_relay("got $evapi(msg)"); }
event_route[evapi:connection-closed] { xlog("L_NOTICE", "CLOSED $evapi(srcport);\\n"); }
"""


class Evapi:
    """Kamailio with its own EVAPI."""

    name = "evapi"

    def __init__(self, stage):
        self.stage = stage

    def start(self, routes=None, evapi=None, attach=False, **pieces):
        config = self.stage.kamailio_config(routes, evapi, module="evapi.so", **pieces)
        del config.evapi["socket"]
        return self.stage.run_kamailio(config, attach=False)


class Evapid(Evapi):
    """Kamailio with evapid. attach: wait until it is attached; a configuration may want that it isn't."""

    name = "evapid"

    def start(self, routes=None, evapi=None, attach=True, **pieces):
        self.stage.start_evapid()
        kamailio = self.stage.run_kamailio(self.stage.kamailio_config(routes, evapi, **pieces), attach=False)
        if attach:
            self.stage.evapid.attached(kamailio.pid)
        return kamailio


@pytest.fixture(params=[Evapi, Evapid], ids=lambda kind: kind.name)
def bus(request, stage):
    return request.param(stage)


@pytest.fixture
def evapid(stage):
    return Evapid(stage)


def connected(stage, address=None):
    """A client, as soon as somebody listens there."""
    found = []

    def there():
        try:
            found.append(Client(address or stage.address))
        except ConnectionRefusedError:
            return False
        return True
    until(there, "somebody listens")
    stage.connections += found
    return found[0]


def greeted(stage):
    """A client whose connection-new route has run."""
    client = connected(stage)
    stage.kamailio.logged(f"NEW {client.port} as")
    return client


def port_of(stage):
    return stage.address.rsplit(":", 1)[1]


# ---- parameters

# What is in the configuration, and a pattern for the line that evapid's module logs about it.
STARTS = {
    "no worker": ({"workers": 0}, r"WARNING: evapi .*workers is 0.*taken for 1\b"),
    "many workers": ({"workers": 129}, r"WARNING: evapi .*workers is 129.*taken for 128"),
    "netstring_format 2": ({"netstring_format": 2}, r"NOTICE: evapi .*netstring_format is 2: netstrings"),
    "netstring_format -1": ({"netstring_format": -1}, r"NOTICE: evapi .*netstring_format is -1: netstrings"),
    "a name": ({"bind_addr": "localhost:PORT"}, r"evapi .*bind_addr is \"localhost:PORT\": that is .*PORT"),
    "any address": ({"bind_addr": "0:PORT"}, None),
    "a short address": ({"bind_addr": "127.1:PORT"}, None),
    "a star": ({"bind_addr": "*:PORT"}, r"evapi .*bind_addr is \"\*:PORT\": that is .*PORT"),
    "a space before the port": ({"bind_addr": "127.0.0.1: PORT"}, None),
    "zeros before the port": ({"bind_addr": "127.0.0.1:000PORT"}, None),
}


@pytest.mark.parametrize("what", STARTS)
def test_a_value_that_evapi_starts_with_starts_and_clients_are_served(bus, stage, what):
    values, line = STARTS[what]
    shown = {name: value.replace("PORT", port_of(stage)) if isinstance(value, str) else value for name, value in values.items()}
    bus.start(ECHO, evapi=shown)
    with anywhere(port_of(stage)) as client:
        client.sendall(b"2:hi,")
        assert client.makefile("rb").read(9) == b"6:got hi,"
    if bus.name == "evapid" and line is not None:
        assert len(stage.kamailio.lines(line.replace("PORT", port_of(stage)))) == 1, stage.kamailio.tail()


def anywhere(port):
    """A connection to that port of this machine, over IPv4 or IPv6, as soon as somebody listens."""
    def there():
        for host in ("127.0.0.1", "::1"):
            try:
                return socket.create_connection((host, int(port)), DEADLINE_S)
            except OSError:
                pass
        return None
    return until(there, "somebody listens")


def test_an_address_without_a_port_has_the_port_of_the_manual(bus, stage):
    """At an address of the loopback network that nobody else has."""
    address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
    bus.start(ECHO, evapi={"bind_addr": address})
    client = connected(stage, f"{address}:8448")
    client.send(b"hi")
    assert client.receive() == b"got hi"


def test_max_clients_0_lets_nobody_in(bus, stage):
    bus.start(ECHO, evapi={"max_clients": 0})
    if bus.name == "evapid":
        assert len(stage.kamailio.lines(r"WARNING: evapi .*max_clients is 0: no client")) == 1
        stage.evapid.listening(stage.address)
    assert connected(stage).receive_rest() == []
    assert not stage.kamailio.lines("NEW")
    if bus.name == "evapid":
        stage.evapid.logged(r"refused.*max_clients")


# ---- what is loaded when

def test_tm_may_be_loaded_after_evapi(evapid, stage):
    """EVAPI starts then, and its async functions fail: here they work."""
    evapid.start("""
        route[TEST] { if (evapi_async_relay("$T(id_index):$T(id_label)")) exit; t_reply("480", "Nobody"); }
        route[RESUMED] { t_reply("299", "Resumed"); }
        event_route[evapi:message-received] {
            $var(index) = $(evapi(msg){s.select,0,:}{s.int});
            $var(label) = $(evapi(msg){s.select,1,:}{s.int});
            t_continue("$var(index)", "$var(label)", "RESUMED");
        }
        """, without=("tm", "tmx", "sl"), later=("tm", "sl", "tmx"))
    client, phone = stage.connect(), stage.phone()
    call = phone.start("INVITE", "x")
    client.send(client.receive())
    assert phone.finish(call).code == 299


def test_with_tm_behind_evapi_a_script_without_async_calls_runs(bus, stage):
    bus.start(ECHO, without=("tm", "tmx", "sl"), later=("tm", "sl", "tmx"))
    client = connected(stage)
    client.send(b"hi")
    assert client.receive() == b"got hi"


# ---- routes and the callback

LUA = """
function test_route() KSR.sl.sl_send_reply(200, "OK") end
function evapi_event(event) KSR.evapi.relay("callback of " .. event) return 1 end
"""
ROUTES = ("connection-new", "message-received", "connection-closed")


@pytest.mark.parametrize("native", [(), ("connection-new",), ("message-received",), ("connection-closed",), ROUTES],
                         ids=lambda names: "+".join(names) or "none")
def test_an_event_route_of_the_script_goes_before_the_callback(bus, stage, native):
    """For each event by itself: those without a route have the callback."""
    blocks = "".join(f'event_route[evapi:{name}] {{ evapi_relay("route of evapi:{name}"); }}\n' for name in native)
    bus.start(lua=LUA, evapi={"event_callback": "evapi_event"}, native=blocks)
    said = {name: f"{'route' if name in native else 'callback'} of evapi:{name}".encode() for name in ROUTES}
    witness = connected(stage)
    assert witness.receive() == said["connection-new"]
    client = connected(stage)
    assert witness.receive() == said["connection-new"]
    client.send(b"x")
    assert witness.receive() == said["message-received"]
    client.close()
    assert witness.receive() == said["connection-closed"]


# ---- what a route may do

@pytest.mark.parametrize("parameter", ["x", "", "$avp(unset)", "close me", "x7"])
def test_close_with_a_parameter_that_is_no_number_closes_the_current_client(bus, stage, parameter):
    """Without workers: those of EVAPI 6.0 run the route of a message where its connection isn't, and close nothing of it."""
    bus.start(ECHO.replace('{ evapi_relay(', '{ if ($evapi(msg) == "close") evapi_close("%s"); else evapi_relay(' % parameter),
              evapi={"workers": 0})
    other, client = greeted(stage), greeted(stage)
    client.send(b"close")
    assert client.receive_rest() == []
    other.send(b"hi")
    assert other.receive() == b"got hi"


NAMES = ("msg", "conidx", "srcaddr", "srcport")


def test_an_assignment_to_a_variable_changes_nothing(bus, stage):
    routes = ECHO.replace("{ evapi_relay(", "{ " + " ".join(f'$evapi({name}) = "y";' for name in NAMES) +
                          " $evapi(conidx) = 7; evapi_relay(")
    bus.start(routes + 'route[UNUSED] { $evapi(msg) = $null; }', evapi={"workers": 2})
    for _ in range(4):
        client = connected(stage)
        client.send(b"hi")
        assert client.receive() == b"got hi"
    warned = stage.kamailio.lines(r"WARNING: evapi .*\$evapi\(msg\) can't be changed")
    assert len(warned) == (1 if bus.name == "evapid" else 0)


TASK = """
route[TEST] { sl_send_reply("200", "OK"); }
route[TASK] { evapi_relay("task of $avp(what)"); }
event_route[evapi:connection-new] { xlog("L_NOTICE", "NEW $evapi(srcport) as $evapi(conidx);\\n"); }
event_route[evapi:message-received] {
    $avp(what) = $evapi(msg);
    async_task_route("TASK");
    xlog("L_NOTICE", "BEGUN $rc;\\n");
}
"""


def test_async_task_route_runs_its_route_later(bus, stage):
    bus.start(TASK, modules=("async",), settings="async_workers=2")
    client = greeted(stage)
    client.send(b"one")
    assert client.receive() == b"task of one"


def test_async_task_route_runs_for_messages_that_follow_each_other(evapid, stage):
    """With EVAPI, tm takes the second for a retransmission of the first."""
    evapid.start(TASK, modules=("async",), settings="async_workers=2")
    client = greeted(stage)
    client.send_bytes(b"".join(netstring(b"%d" % number) for number in range(20)))
    assert sorted(client.receive_many(20)) == sorted(b"task of %d" % number for number in range(20))


FRAMES = {"zeros": b"0005:hello,", "many zeros": b"0000000000005:hello,", "a NUL behind": b"5:hello,\0", "two NULs": b"5:hello,\0\0",
          "a line end": b"5:hello,\r\n", "blanks": b" \t\r\n5:hello,\t "}


@pytest.mark.parametrize("what", FRAMES)
def test_a_frame_that_evapi_works_on_is_worked_on(bus, stage, what):
    """The client waits for its answer: behind a NUL EVAPI throws away what came in the same read."""
    bus.start(ECHO)
    client = greeted(stage)
    for _ in range(3):
        client.send_bytes(FRAMES[what])
        assert client.receive() == b"got hello"


@pytest.mark.parametrize("call", [
    't_newtran()', 't_suspend()', 'sl_send_reply("200", "OK")', 't_reply("200", "OK")', 'async_route("TASK", 1)',
    'async_ms_route("TASK", 10)', 'async_task_route("TASK")', 'is_faked_msg()', 'append_to_reply("X: y\\r\\n")', 'evapi_set_tag("t")',
    't_is_set("failure_route")'])
def test_a_function_answers_in_message_received_as_with_evapi(stage, call):
    routes = TASK.replace('async_task_route("TASK");\n', f'{call};\n    evapi_relay("$rc");\n')
    answers = []
    for kind in (Evapi, Evapid):
        bus = kind(stage)
        bus.start(routes, modules=("async", "corex"), settings="async_workers=2",
                  params={"async": {"workers": 1, "ms_timer": 10}})
        client = greeted(stage)
        client.send(b"one")
        answers.append(client.receive())
        client.close()
        stage.kamailio.terminate()
    assert answers[0] == answers[1], stage.kamailio.tail()


# ---- before its turn

EARLY = """
import KSR

class script:
    def child_init(self, rank):
        CHILD
        return 0

def call():
    return [KSR.evapi.relay("x"), KSR.evapi.relay_multicast("x", "t"), KSR.evapi.relay_unicast("x", "t"),
            KSR.evapi.async_relay("x"), KSR.evapi.async_multicast("x", "t"), KSR.evapi.async_unicast("x", "t"),
            KSR.evapi.close(), KSR.evapi.set_tag("t")]

def mod_init():
    INIT
    return script()
"""
SAY = 'KSR.err("PYTHON %s %s %s\\n" % ("WHEN", call(), [KSR.pv.get("$evapi(%s)" % name) for name in ("msg", "conidx", "srcaddr")]))'


@pytest.fixture
def early(stage):
    """Start Kamailio with a Python script that calls all functions: in mod_init, which comes before evapi's, or in child_init."""
    def start(bus, init="pass", child="pass"):
        script = stage.folder / "early.py"
        script.write_text(EARLY.replace("INIT", init).replace("CHILD", child))
        return bus.start(ECHO, modules=("app_python3",), params={"app_python3": {"load": str(script)}})
    return start


def test_a_function_called_before_its_turn_is_an_error_line_and_negative(evapid, stage, early):
    kamailio = early(evapid, init=SAY.replace("WHEN", "init"))
    values = kamailio.logged(r"PYTHON init")[0]
    assert "[-1, -1, -1, -1, -1, -1, -1, -1] [None, None, None]" in values, values
    assert len(kamailio.lines(r"ERROR: evapi .*before Kamailio has initialized it")) == 8
    client = stage.connect()
    client.send(b"hi")
    assert client.receive() == b"got hi", "and nothing else is harmed"


def test_evapi_s_own_relay_before_its_turn_ends_nothing(bus, early, stage):
    early(bus, init='KSR.err("PYTHON %s\\n" % KSR.evapi.relay("x"))')
    stage.kamailio.logged("PYTHON -")
    client = connected(stage)
    client.send(b"hi")
    assert client.receive() == b"got hi"


def test_a_function_called_in_a_child_s_initialization_has_no_request_and_breaks_nothing(evapid, stage, early):
    kamailio = early(evapid, child=SAY.replace("WHEN", "child"))
    for line in kamailio.logged(r"PYTHON child"):
        assert "[1, 1, 1, -1, -1, -1, -1, -1] [None, None, None]" in line, line
