"""The module's parameters: those of the manual with their meaning, the new ones, and what is said about wrong values."""

import random
import socket

import pytest

import kamailio
from client import refused
from privilege import only_root
from process import session_members, until
from stage import Stage

ECHO = """
route[TEST] { evapi_relay("event"); $var(rc) = $rc; append_to_reply("X-Rc: $var(rc)\\r\\n"); sl_send_reply("200", "OK"); }
event_route[evapi:connection-new] { evapi_set_tag("c$evapi(conidx)"); }
event_route[evapi:message-received] { evapi_unicast("$pp:$evapi(msg)", "c$evapi(conidx)"); }
"""


@pytest.fixture(scope="class")
def shared_stage():
    """One evapid for a class; each test starts its own Kamailio."""
    with Stage() as own:
        own.start_evapid()
        yield own


@pytest.fixture
def stage(shared_stage):
    shared_stage.address = shared_stage.new_address()
    yield shared_stage
    shared_stage.hang_up()
    if shared_stage.kamailio is not None:
        shared_stage.kamailio.terminate()
    shared_stage.evapid.detached()
    assert not shared_stage.problems()


def listener_at(stage, address):
    found = [at for at in stage.evapid.status()["listeners"] if at["address"] == address]
    return found[0] if found else None


class TestParameters:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_workers_is_the_number_of_processes_that_run_event_routes(self, stage, workers):
        kamailio = stage.start_kamailio(ECHO, evapi={"workers": workers})
        shown = stage.evapid.status()["kamailio"]["workers"]
        assert sorted(worker["index"] for worker in shown) == list(range(workers))
        pids = set()
        for _ in range(2 * workers):
            client = stage.connect()
            client.send(b"x")
            pids.add(int(client.receive().split(b":")[0]))
        assert len(pids) == workers, "clients spread over all workers"
        assert pids <= set(session_members(kamailio.pid)) - {kamailio.pid}
        shown = stage.evapid.status()["kamailio"]["workers"]
        assert sum(worker["clients"] for worker in shown) == 2 * workers

    def test_a_client_stays_with_its_worker(self, stage):
        stage.start_kamailio(ECHO, evapi={"workers": 3})
        for _ in range(3):
            client = stage.connect()
            pids = {answer.split(b":")[0] for answer in client.exchange(b"1:x," * 200, 200)}
            assert len(pids) == 1

    def test_bind_addr_is_where_clients_connect(self, stage):
        stage.start_kamailio(ECHO, evapi={"max_clients": 5})
        stage.connect().send(b"x")
        shown = listener_at(stage, stage.address)
        assert (shown["source"], shown["framing"], shown["max_clients"], shown["state"]) == (
            "module", "netstring", 5, "listening")

    def test_bind_addr_may_be_ipv6_in_brackets(self, stage):
        address = stage.new_address("::1")
        stage.start_kamailio(ECHO, evapi={"bind_addr": address})
        client = stage.connect(address)
        client.send(b"over IPv6")
        assert client.receive().endswith(b":over IPv6")

    def test_an_empty_bind_addr_declares_no_listener(self, stage):
        stage.start_kamailio(ECHO, evapi={"bind_addr": ""})
        stage.evapid.until_status(lambda s: s["listeners"] == [], "no listener is left")
        assert int(stage.phone().ask("MESSAGE")["X-Rc"]) == 1

    def test_the_defaults_are_those_of_the_manual(self, stage):
        """Whether that port is free on this machine is not asked: only what the module has declared."""
        config = stage.kamailio_config(ECHO)
        for name in ("bind_addr", "max_clients"):
            del config.evapi[name]
        stage.run_kamailio(config)
        status = stage.evapid.status()
        shown = listener_at(stage, "127.0.0.1:8448")
        assert (shown["source"], shown["framing"], shown["max_clients"]) == ("module", "netstring", 8)
        assert len(status["kamailio"]["workers"]) == 1
        assert status["kamailio"]["ring"]["capacity"] == 32 << 20

    def test_the_next_kamailio_may_declare_another_listener(self, stage):
        first = stage.address
        stage.start_kamailio(ECHO)
        client = stage.connect()
        stage.kamailio.terminate()
        stage.address = stage.new_address()
        stage.start_kamailio(ECHO)
        stage.connect().send(b"x")
        assert client.exchange(b"1:x,", 1), "who was connected stays"
        until(lambda: refused(first), "nobody listens at the first address")

    def test_netstring_format_0_is_bare_bytes(self, stage):
        stage.start_kamailio(ECHO, evapi={"netstring_format": 0})
        assert listener_at(stage, stage.address)["framing"] == "raw"
        client = stage.connect()
        assert int(stage.phone().ask("MESSAGE")["X-Rc"]) == 1
        assert client.receive_bytes(5) == b"event"
        client.send_bytes(b"bare")
        answer = b""
        while not answer.endswith(b":bare"):
            answer += client.receive_bytes(1)

    def test_max_clients_refuses_the_next_one_and_counts_it(self, stage):
        stage.start_kamailio(ECHO, evapi={"max_clients": 2})
        clients = [stage.connect(), stage.connect()]
        for _ in range(3):
            assert stage.connect(admitted=False).receive_rest() == []
        shown = listener_at(stage, stage.address)
        assert (shown["clients"], shown["refused"]) == (2, 3)
        assert stage.evapid.status()["totals"]["clients"]["refused"] == 3
        assert stage.evapid.lines(rf"warning .*{stage.address}.*refused.*max_clients")
        stage.phone().ask("MESSAGE")
        assert [client.receive() for client in clients] == [b"event"] * 2
        clients[0].close()
        stage.evapid.clients(1)
        client = stage.connect()
        stage.phone().ask("MESSAGE")
        assert client.receive() == b"event"

    @pytest.mark.parametrize("size, capacity", [(65536, 65536), (100000, 131072), (1 << 20, 1 << 20)])
    def test_queue_size_is_the_ring_s_rounded_up_to_a_power_of_two(self, stage, size, capacity):
        stage.start_kamailio(ECHO, evapi={"queue_size": size})
        assert stage.evapid.status()["kamailio"]["ring"]["capacity"] == capacity

    def test_event_callback_names_the_function_of_the_script(self, stage):
        stage.start_kamailio(evapi={"event_callback": "my_own_name"}, lua="""
            function test_route() KSR.sl.sl_send_reply(200, "OK") end
            function my_own_name(event) KSR.evapi.relay("seen " .. event) return 1 end
            """)
        client = stage.connect()
        client.send(b"x")
        assert client.receive_many(2) == [b"seen evapi:connection-new", b"seen evapi:message-received"]

    def test_an_event_callback_without_a_kemi_script_is_an_error_and_event_routes_run(self, stage):
        stage.start_kamailio(ECHO, evapi={"event_callback": "evapi_event"})
        assert len(stage.kamailio.logged(r"ERROR: evapi .*event_callback.*evapi_event")) == 1
        client = stage.connect()
        client.send(b"x")
        assert client.receive().endswith(b":x")

    def test_an_event_callback_that_is_not_there_breaks_nothing(self, stage):
        """app_lua passes over a function that the script does not have, without a word."""
        stage.start_kamailio(evapi={"event_callback": "not_there"}, lua="""
            function test_route()
                KSR.evapi.relay("event")
                KSR.sl.sl_send_reply(200, "OK")
            end
            """)
        client = stage.connect()
        client.send(b"x")
        stage.evapid.until_status(lambda s: s["clients"][0]["in"]["frames"] == 1, "the message was taken")
        stage.phone().ask("MESSAGE")
        assert client.receive() == b"event"

    def test_the_parameters_of_newer_releases_are_accepted_and_named_once(self, stage):
        newer = {"wait_idle": 500000, "wait_increase": 3, "send_task_timeout": 1000, "send_data_timeout": 1000,
                 "context_mlimit": 1}
        stage.start_kamailio(ECHO, evapi=newer)
        for name in newer:
            assert len(stage.kamailio.lines(rf"NOTICE: evapi .*\b{name}\b")) == 1, name
        client = stage.connect()
        client.send(b"x")
        assert client.receive().endswith(b":x")

    def test_a_listener_that_cannot_have_its_address_is_shown_and_said_to_kamailio(self, stage):
        stage.ports.holders[-1].listen()
        stage.start_kamailio(ECHO)
        assert listener_at(stage, stage.address)["state"] == "failed"
        stage.evapid.logged(rf"{stage.address}.*address in use")
        stage.kamailio.logged(rf"evapi .*{stage.address}.*address in use")
        assert int(stage.phone().ask("MESSAGE")["X-Rc"]) == 1
        stage.ports.holders[-1].close()
        client = stage.connect()
        client.send(b"x")
        assert client.receive().endswith(b":x")


class TestWrongValues:
    @pytest.fixture(scope="class")
    def nothing(self):
        with Stage() as own:
            yield own

    @pytest.mark.parametrize("name, value, reason", [
        ("workers", -1, "-1: it must be from 1 to 128"),
        ("max_clients", -5, "-5: it must be 0 or more"),
        ("keep_clients", 2, "2: it must be 0 or 1"), ("keep_clients", -1, "-1: it must be 0 or 1"),
        ("queue_size", 1000, "1000: it must be from 65536 to 1073741824"), ("queue_size", -1, "-1: "),
        ("queue_size", (1 << 30) + 1, "1073741825: "),
        ("bind_addr", "127.0.0.1:", "the port is not a number"), ("bind_addr", "127.0.0.1:80x", "the port is not a number"),
        ("bind_addr", "127.0.0.1:99999", "from 1 to 65535"), ("bind_addr", "127.0.0.1:0", "from 1 to 65535"),
        ("bind_addr", "8448", "a port without an address"), ("bind_addr", ":8448", "it names no address"),
        ("bind_addr", "::1:8448", "in brackets"), ("bind_addr", "tcp:127.0.0.1:8448", "several colons"),
        ("bind_addr", "[::1:8448", "brackets"), ("bind_addr", "[::1]x8448", "brackets"),
        ("bind_addr", "[127.0.0.1]:8448", "not an IPv6 address"), ("bind_addr", "x" * 300 + ":8448", "too long"),
        ("bind_addr", "300.1.1.1:8448", "has no address"), ("bind_addr", "nowhere.invalid:8448", "has no address"),
        ("socket", "/" + "x" * 120, "1 to 107 bytes"), ("socket", "", "1 to 107 bytes"),
        ("event_callback", "f" * 128, "at most 127"),
    ])
    def test_a_value_that_cannot_be_meant_is_found_by_the_check_in_a_line_that_says_why(self, nothing, name, value, reason):
        code, output = nothing.check_kamailio(ECHO, evapi={name: value})
        assert code != 0
        errors = [line for line in output.splitlines() if "ERROR: evapi" in line and f"parameter {name} is" in line]
        assert len(errors) == 1 and reason in errors[0], output
        assert "checked.cfg, line" in output

    def test_all_that_is_wrong_is_said_at_once(self, nothing):
        """Kamailio 6 itself reads no further than to the first error, which is that of socket."""
        wrong = {"workers": -1, "queue_size": 5, "bind_addr": ":1", "max_clients": -1, "socket": ""}
        for code, output in (nothing.check_kamailio(ECHO, evapi=wrong), nothing.try_kamailio(ECHO, evapi=wrong)):
            assert code != 0
            said = [name for name in wrong if f"parameter {name} is" in output]
            assert said == (list(wrong) if kamailio.version() < (6,) else ["socket"]), output

    def test_a_name_without_an_address_does_not_take_sip_down(self, nothing):
        """A check of the configuration finds it; at a start the name server may be what is ill."""
        kamailio = nothing.start_kamailio(ECHO, attach=False, evapi={"bind_addr": "nowhere.invalid:8448"})
        assert len(kamailio.lines(r"ERROR: evapi .*nowhere.invalid:8448.*has no address.*does not listen")) == 1
        kamailio.terminate()

    @only_root("can have a name server of its own")
    def test_a_name_server_that_does_not_answer_does_not_hold_up_the_start(self, nothing):
        """The resolver itself would try on for twenty seconds."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind((f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}", 53))
            servers = nothing.folder / "resolv.conf"
            servers.write_text(f"nameserver {silent.getsockname()[0]}\noptions timeout:30 attempts:5\n")
            alone = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf; exec "$@"', servers]
            code, output = nothing.check_kamailio(ECHO, evapi={"bind_addr": "nowhere.example:8448"}, before=alone)
        assert code != 0 and "no name server has answered in time" in output, output

    @pytest.mark.parametrize("line", [
        'modparam("evapi", "no_such_parameter", 1)', 'modparam("evapi", "workers", "two")',
        'modparam("evapi", "bind_addr", 8448)'])
    def test_a_wrong_parameter_ends_kamailio(self, nothing, line):
        config = nothing.kamailio_config(ECHO + line)
        code, output = nothing.try_config(config)
        assert code != 0, output

    @pytest.mark.parametrize("call", ["evapi_relay()", 'evapi_relay("a", "b")', 'evapi_multicast("a")',
                                      "evapi_set_tag()", 'evapi_close("1", "2")', 'evapi_relay("$evapi(nonsense)")'])
    def test_a_call_with_the_wrong_parameters_is_an_error_of_the_configuration(self, nothing, call):
        code, output = nothing.try_kamailio("route[TEST] { %s; }" % call)
        assert code != 0, output

    def test_a_good_configuration_passes_the_check_without_evapid(self, nothing):
        code, output = nothing.check_kamailio(ECHO, evapi={"workers": 2, "bind_addr": "[::1]:8448", "queue_size": 65536})
        assert code == 0 and "ERROR: evapi" not in output, output


class TestListeners:
    def test_a_listener_of_evapid_s_own_file_wins_with_a_warning_that_names_both(self, stage):
        stage.start_evapid(listeners=[{"address": stage.address, "framing": "raw", "max_clients": 3}])
        stage.start_kamailio(ECHO, evapi={"max_clients": 7})
        shown = listener_at(stage, stage.address)
        assert (shown["source"], shown["framing"], shown["max_clients"]) == ("config", "raw", 3)
        assert len(stage.evapid.status()["listeners"]) == 1
        for process in (stage.evapid, stage.kamailio):
            line = process.logged(rf"(?i)warning.*{stage.address}")[0]
            for word in ("raw", "netstring", "3", "7"):
                assert word in line.split(stage.address, 1)[1], line

    def test_module_listener_false_gives_the_module_none_and_says_so(self, stage):
        mine = stage.new_address()
        stage.start_evapid(module_listener=False, listeners=[{"address": mine}])
        stage.start_kamailio(ECHO)
        assert [at["address"] for at in stage.evapid.status()["listeners"]] == [mine]
        assert refused(stage.address)
        stage.evapid.logged(r"module_listener")
        client = stage.connect(mine)
        stage.phone().ask("MESSAGE")
        assert client.receive() == b"event"

    @pytest.fixture
    def stage(self):
        with Stage() as own:
            yield own
