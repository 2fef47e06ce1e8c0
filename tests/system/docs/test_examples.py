"""The examples in docs/examples do what they say: with the real Kamailio, real SIP, and whoever else they speak to;
while one after the other goes away and comes back."""

import hashlib
import json
import re
import signal

import pytest

import commands
from examples import EXAMPLES, Database, Program, Proxy, start_example, tagged
from process import until

pytestmark = pytest.mark.once

PATIENT = {"DECISION_MS": 30000}  # who is asked may be slow on a busy machine


def quoted(text):
    return f'"{text}"'


# ---- docs/examples/routing-node


class Engine:
    """The routing engine, with a table that leads calls of 49... to one callee."""

    def __init__(self, stage, gateway):
        self.stage = stage
        self.routes = stage.folder / "routes.json"
        self.routes.write_text(json.dumps({"blocked": [], "gateways": {"49": f"127.0.0.1:{gateway.port}"}}))

    def start(self, host=None, port=None):
        if host is None:
            host, port = self.stage.address.rsplit(":", 1)
        self.program = Program(self.stage, EXAMPLES / "routing-node/engine.mjs", host, port, self.routes)
        tagged(self.stage, "routing")
        return self.program


@pytest.fixture
def routed(stage):
    """A proxy with an engine: calls to 49... go to stage.gateway, those that nobody decides on to stage.fallback."""
    stage.gateway, stage.fallback = stage.callee(200, "From the gateway"), stage.callee(200, "By default")
    stage.start_evapid()
    stage.engine = Engine(stage, stage.gateway)
    stage.default = {"DEFAULT_GATEWAY": quoted(f"127.0.0.1:{stage.fallback.port}")}
    return stage


def reason(stage, user="4930123", **more):
    return stage.phone().ask("INVITE", user, **more).reason


def test_the_engine_routes_and_rejects(routed):
    start_example(routed, "routing-node", **routed.default, **PATIENT)
    routed.engine.start()
    assert reason(routed) == "From the gateway"
    assert reason(routed, "7") == "No Route"
    phone = routed.phone()
    table = json.loads(routed.engine.routes.read_text())
    routed.engine.routes.write_text(json.dumps({**table, "blocked": [f"sip:mallory@{phone.here}"]}))
    answer = phone.ask("INVITE", "4930123", caller="mallory")
    assert (answer.code, answer.reason) == (403, "Forbidden")
    assert len([request for request in routed.gateway.requests if request.startswith("INVITE")]) == 1
    assert routed.fallback.requests == []


def test_many_calls_are_each_routed_by_their_own_answer(routed):
    start_example(routed, "routing-node", **routed.default, **PATIENT)
    routed.engine.start()
    phone = routed.phone()
    calls = [phone.start("INVITE", f"{49 if number % 2 else 77}{number}") for number in range(100)]
    for number, answer in enumerate(phone.finish_all(calls)):
        assert answer.reason == ("From the gateway" if number % 2 else "No Route")


def test_without_an_engine_calls_go_by_default_and_by_it_again_when_it_is_back(routed):
    start_example(routed, "routing-node", **routed.default, **PATIENT)
    assert reason(routed) == "By default"
    routed.engine.start()
    assert reason(routed) == "From the gateway"
    assert routed.engine.program.terminate() == 0
    routed.evapid.clients(0)
    assert reason(routed) == "By default"
    routed.engine.start()
    assert reason(routed) == "From the gateway"


def test_a_call_that_the_engine_does_not_decide_in_time_goes_by_default(routed):
    start_example(routed, "routing-node", **routed.default, DECISION_MS=300)
    engine = routed.engine.start()
    engine.signal(signal.SIGSTOP)
    assert reason(routed) == "By default"
    engine.signal(signal.SIGCONT)
    routed.kamailio.logged("the engine's answer comes too late")


def test_a_call_is_cancelled_while_the_engine_thinks(routed):
    start_example(routed, "routing-node", **routed.default, **PATIENT)
    engine = routed.engine.start()
    engine.signal(signal.SIGSTOP)
    phone = routed.phone()
    call = phone.start("INVITE", "4930123")
    until(lambda: phone.turn(0.01) or call.answers, "100 Trying")  # which tm sends first of all
    routed.evapid.until_status(lambda s: s["totals"]["events"]["unicast"] == 1, "the question is on its way")
    phone.cancel(call)
    assert phone.finish(call).code == 487
    engine.signal(signal.SIGCONT)
    routed.kamailio.logged("the engine's answer comes too late")
    assert routed.gateway.requests == routed.fallback.requests == []


def test_an_answer_that_makes_no_sense_goes_by_default(routed):
    start_example(routed, "routing-node", **routed.default, **PATIENT)
    engine = routed.connect()
    engine.send(b'{"subscribe": "routing"}')
    tagged(routed, "routing")
    for answer in ({"to": "mailto:somebody"}, {"code": 100}, {"code": 700}, {"code": "x"}, {}, {"to": {"sip:": 1}}):
        phone = routed.phone()
        call = phone.start("INVITE", "4930123")
        engine.send(json.dumps({"call": json.loads(engine.receive())["call"], **answer}).encode())
        assert phone.finish(call).reason == "By default", answer
    for nonsense in (b"", b"{", b"[]", b'{"call": 5}', b'{"call": "x:y", "code": 404}', b"\0\xff"):
        engine.send(nonsense)
    call = phone.start("INVITE", "4930123")
    engine.send(json.dumps({"call": json.loads(engine.receive())["call"], "code": 404, "reason": "Gone"}).encode())
    assert phone.finish(call).reason == "Gone"


def test_the_engine_lives_through_restarts_of_evapid_and_kamailio(routed):
    start_example(routed, "routing-node", **routed.default, **PATIENT)
    engine = routed.engine.start()
    assert routed.kamailio.terminate() == 0
    routed.restart_kamailio()
    tagged(routed, "routing")
    assert reason(routed) == "From the gateway"
    routed.replace_evapid()
    assert reason(routed) == "From the gateway"
    assert len(engine.lines("^connected")) == 1
    routed.evapid.kill()
    routed.restart_evapid()
    tagged(routed, "routing")
    assert reason(routed) == "From the gateway"
    assert len(engine.lines("^connected")) == 2


def test_no_call_fails_while_the_engine_is_killed_and_started_again(routed):
    """Those that the killed one was asked about go by default. All others wait."""
    start_example(routed, "routing-node", **routed.default, DECISION_MS=3000)
    routed.evapid.reload(limits={"keep_absent_ms": 3600 * 1000})
    routed.engine.start()
    phone, calls = routed.phone(), []
    for _ in range(5):
        calls += [phone.start("INVITE", f"49{number}") for number in range(10)]
        until(lambda: phone.turn(0.01) or calls[-1].answers, "the calls are on their way")
        engine = routed.engine.program
        engine.expect_end = True
        engine.signal(signal.SIGKILL)
        engine.ended()
        routed.evapid.until_status(lambda s: s["kept"]["tags"] == 1, "it has gone")
        calls += [phone.start("INVITE", f"49{number}") for number in range(10)]
        until(lambda: phone.turn(0.01) or calls[-1].answers, "more calls are on their way")
        routed.engine.start()
    assert {answer.code for answer in phone.finish_all(calls)} == {200}
    until(lambda: reason(routed) == "From the gateway", "the last engine decides")
    assert not routed.kamailio.lines("nobody to ask")
    totals = routed.evapid.status()["totals"]
    assert totals["events"]["no_receiver"] == sum(totals["out"]["dropped"].values()) == 0


def test_the_engine_takes_events_in_pieces_and_comes_back_from_one_that_broke_off(routed):
    start_example(routed, "routing-node", **routed.default, DECISION_MS=300)
    proxy = Proxy(routed)
    engine = routed.engine.start(proxy.host, proxy.port)
    phone = routed.phone()
    proxy.left = 40  # within the question
    assert phone.ask("INVITE", "4930123").reason == "By default"
    engine.logged("^no connection: .*; again in [0-9]+ ms")
    engine.logged("^connected", 2)
    tagged(routed, "routing")
    until(lambda: phone.ask("INVITE", "4930123").reason == "From the gateway", "an answer in time")
    proxy.close()


# ---- docs/examples/calllog-python


def call_and_hang_up(phone, user="bob", **more):
    call = phone.start("INVITE", user, **more)
    answer = phone.finish(call)
    if answer.code == 200:
        assert phone.hang_up(call).code == 200
    return call


@pytest.fixture
def logged(stage):
    """A proxy whose calls go to stage.gateway, which answers them, and into a database."""
    stage.database = Database(stage)
    stage.gateway = stage.callee(200, "OK")
    stage.start_evapid()
    start_example(stage, "calllog-python", GATEWAY=quoted(f"sip:127.0.0.1:{stage.gateway.port}"))
    return stage


def start_calllog(stage, host=None, port=None):
    if host is None:
        host, port = stage.address.rsplit(":", 1)
    program = Program(stage, EXAMPLES / "calllog-python/calllog.py", host, port, stage.database.dsn)
    tagged(stage, "calllog")
    return program


def stored(stage, calls):
    """Wait until the log has just these calls."""
    want = sorted(call.call_id for call in calls)
    until(lambda: sorted(stage.database.rows("SELECT call_id FROM calls")) == want, f"{len(want)} calls are in the log")


def nothing_pending(stage):
    """Wait until Kamailio keeps no call any more: a client that asks for those gets no event."""
    client = stage.connect()

    def relayed():
        return stage.evapid.client(client)["out"]["relayed"]

    def ask():
        before = relayed()
        client.send(b"pending")
        client.wait_read()
        stage.evapid.until_status(lambda status: status["totals"]["in"]["waiting"] == 0, "its route has run")
        return relayed() == before
    until(ask, "nothing is pending")
    client.close()


def test_calls_are_logged_with_their_outcome(logged):
    program = start_calllog(logged)
    busy = logged.callee(486, "Busy")
    phone = logged.phone()
    ended = call_and_hang_up(phone, caller="alice")
    stored(logged, [ended])
    row = logged.database.rows("SELECT caller, callee, outcome, seconds FROM calls")[0]
    assert row.startswith(f"sip:alice@{phone.here}|sip:bob@127.0.0.1|answered|")
    logged.gateway.status = busy.status
    failed = call_and_hang_up(phone)
    stored(logged, [ended, failed])
    assert logged.database.rows("SELECT outcome, seconds FROM calls ORDER BY ended, outcome")[1] == "failed|0"
    nothing_pending(logged)
    program.logged("INFO calllog: stored 1 calls, 0 were there already", 2)


def test_what_callers_write_is_logged_whatever_it_is(logged):
    start_calllog(logged)
    phone = logged.phone()
    odd = [b"o'brien", b"quote'\"; DROP TABLE calls; --", "größe".encode(), b"\xff\xfe", b"back\\slash\\u0000",
           b"tab\there", b"x" * 3000]
    calls = [call_and_hang_up(phone, call_id=name.decode(errors="surrogateescape")) for name in odd]
    until(lambda: logged.database.rows("SELECT count(*) FROM calls") == [str(len(calls))], "all are in the log")
    assert logged.database.rows("SELECT count(*) FROM calls WHERE call_id = 'größe'") == ["1"]
    assert logged.database.rows("SELECT count(*) FROM calls WHERE length(call_id) = 3000") == ["1"]
    nothing_pending(logged)


def test_each_call_is_logged_once_whoever_is_away(logged):
    """The log, its database and evapid go and come back, one after the other, and calls go on."""
    phone, calls = logged.phone(), []

    def some_calls():
        calls.extend(call_and_hang_up(phone) for _ in range(3))
    some_calls()  # there has been no log yet
    program = start_calllog(logged)
    stored(logged, calls)
    logged.database.stop()
    some_calls()
    program.logged("ERROR calllog: not stored: .*; [1-9] calls wait, again in")
    logged.database.start_again()
    stored(logged, calls)
    program.signal(signal.SIGSTOP)
    some_calls()  # are in its socket
    program.kill()
    some_calls()
    program = start_calllog(logged)
    stored(logged, calls)
    logged.evapid.kill()
    some_calls()
    logged.restart_evapid()
    stored(logged, calls)
    nothing_pending(logged)
    program.logged("WARNING bus: no connection")


def test_a_call_whose_confirmation_was_lost_is_not_logged_twice(logged):
    proxy = Proxy(logged)
    program = start_calllog(logged, proxy.host, proxy.port)
    proxy.mute = True
    calls = [call_and_hang_up(logged.phone())]
    stored(logged, calls)
    program.logged("stored 1 calls")
    assert program.terminate() == 0
    logged.evapid.clients(0)
    program = start_calllog(logged)
    program.logged("stored 0 calls, 1 were there already")
    stored(logged, calls)
    nothing_pending(logged)
    proxy.close()


def test_calls_that_come_together_are_stored_together(logged):
    program = start_calllog(logged)
    logged.gateway.status = "486 Busy"
    phone = logged.phone()
    program.signal(signal.SIGSTOP)
    calls = [phone.start("INVITE", "bob") for _ in range(100)]
    phone.finish_all(calls)
    program.signal(signal.SIGCONT)
    stored(logged, calls)
    nothing_pending(logged)
    assert len(program.lines("calllog: stored")) < 20
    assert sum(int(line.split("stored ")[1].split()[0]) for line in program.lines("calllog: stored")) == 100


def test_a_call_log_that_is_told_to_end_stores_what_it_has(logged):
    proxy = Proxy(logged)
    program = start_calllog(logged, proxy.host, proxy.port)
    calls = [call_and_hang_up(logged.phone()) for _ in range(3)]
    assert program.terminate() == 0
    assert program.lines("stopped, 0 calls not stored")
    start_calllog(logged)
    stored(logged, calls)
    proxy.close()


# ---- docs/examples/billing-lua


class Billing:
    """The billing stub: alice can pay, bob can not."""

    def __init__(self, stage):
        self.stage = stage
        self.accounts, self.ledger = stage.folder / "accounts", stage.folder / "ledger"
        self.accounts.write_text("alice 20\nbob 0\nodd%20name 1\n")

    def start(self, host=None, port=None, with_tag=True):
        if host is None:
            host, port = self.stage.address.rsplit(":", 1)
        self.program = Program(self.stage, EXAMPLES / "billing-lua/billing.lua", host, port, self.accounts, self.ledger)
        if with_tag:
            tagged(self.stage, "billing")
        return self.program

    def charged(self, calls, account="alice"):
        """Wait until the ledger has just these calls, each with one unit of the account."""
        want = sorted(f"{hashlib.md5(call.call_id.encode()).hexdigest()} {account}" for call in calls)

        def look():
            lines = [line.split() for line in self.ledger.read_text().splitlines()]
            assert all(len(words) == 4 and int(words[3]) == max(1, -(-int(words[2]) // 60)) for words in lines), lines
            return sorted(" ".join(words[:2]) for words in lines) == want
        until(look, f"{len(calls)} calls are in the ledger")


@pytest.fixture
def billed(stage):
    stage.gateway = stage.callee(200, "OK")
    stage.start_evapid()
    stage.billing = Billing(stage)
    stage.defined = {"SCRIPT": quoted(EXAMPLES / "billing-lua/kamailio.lua"),
                     "GATEWAY": f"sip:127.0.0.1:{stage.gateway.port}"}
    return stage


@pytest.fixture
def patiently_billed(billed):
    """Billing may take its time: the script's DECISION_MS is another."""
    patient = billed.folder / "kamailio.lua"
    script = (EXAMPLES / "billing-lua/kamailio.lua").read_text()
    assert "DECISION_MS = 2000" in script
    patient.write_text(script.replace("DECISION_MS = 2000", "DECISION_MS = 30000"))
    start_example(billed, "billing-lua", **{**billed.defined, "SCRIPT": quoted(patient)})
    return billed


def test_who_can_pay_may_call_and_is_charged(patiently_billed):
    stage = patiently_billed
    program = stage.billing.start()
    phone = stage.phone()
    answer = phone.ask("INVITE", caller="bob")
    assert (answer.code, answer.reason) == (402, "Payment Required")
    assert phone.ask("INVITE", caller="nobody").code == 402
    call = call_and_hang_up(phone, caller="alice")
    assert call.final.code == 200
    stage.billing.charged([call])
    program.logged("^charge .*: 1 units from alice, who has 19 left")


def test_an_account_that_is_used_up_may_not_call(patiently_billed):
    patiently_billed.billing.accounts.write_text("alice 1\n")
    patiently_billed.billing.start()
    phone = patiently_billed.phone()
    call = call_and_hang_up(phone, caller="alice")
    patiently_billed.billing.charged([call])
    assert phone.ask("INVITE", caller="alice").code == 402


def test_a_call_that_was_not_answered_costs_nothing(patiently_billed):
    stage = patiently_billed
    stage.billing.start()
    phone = stage.phone()
    stage.gateway.status = "486 Busy"
    assert phone.ask("INVITE", caller="alice").code == 486
    stage.gateway.status = "200 OK"
    call = call_and_hang_up(phone, caller="alice")
    stage.billing.charged([call])


def test_without_billing_there_is_no_call(billed):
    start_example(billed, "billing-lua", **billed.defined)
    phone = billed.phone()
    answer = phone.ask("INVITE", caller="alice")
    assert (answer.code, answer.reason) == (503, "No Billing")
    program = billed.billing.start()
    program.signal(signal.SIGSTOP)
    answer = phone.ask("INVITE", caller="alice")
    assert (answer.code, answer.reason) == (503, "No Billing")
    program.signal(signal.SIGCONT)
    billed.kamailio.logged("billing's answer comes too late")
    assert billed.gateway.requests == []


def test_each_call_is_charged_once_whoever_is_away(patiently_billed):
    stage = patiently_billed
    program = stage.billing.start()
    phone, calls = stage.phone(), []

    def begin():
        call = phone.start("INVITE", caller="alice")
        assert phone.finish(call).code == 200
        calls.append(call)

    def end():
        assert phone.hang_up(calls[-1]).code == 200
    begin()
    program.kill()
    end()
    program = stage.billing.start()
    stage.billing.charged(calls)
    begin()
    stage.evapid.kill()
    end()
    stage.restart_evapid()
    tagged(stage, "billing")
    stage.billing.charged(calls)
    begin()
    program.kill()
    with open(stage.billing.ledger, "a") as ledger:
        ledger.write("a torn line 1")  # a crash while it wrote
    end()
    stage.billing.start()
    until(lambda: len(stage.billing.ledger.read_text().splitlines()) == 4, "the third call is charged")
    assert stage.billing.ledger.read_text().splitlines()[2] == "a torn line 1 torn"
    stage.billing.program.terminate()
    stage.evapid.clients(0)
    program = stage.billing.start()
    begin()
    end()
    program.logged("^charge .*: 1 units from alice, who has 16 left")


def test_a_charge_whose_confirmation_was_lost_is_not_charged_twice(patiently_billed):
    stage = patiently_billed
    proxy = Proxy(stage)
    program = stage.billing.start(proxy.host, proxy.port)
    phone = stage.phone()
    call = phone.start("INVITE", caller="alice")
    assert phone.finish(call).code == 200
    proxy.mute = True
    assert phone.hang_up(call).code == 200
    stage.billing.charged([call])
    assert program.terminate() == 0
    stage.evapid.clients(0)
    program = stage.billing.start()
    program.logged("^charge .*: known already")
    stage.billing.charged([call])
    assert program.terminate() == 0
    stage.evapid.clients(0)
    program = stage.billing.start()
    another = call_and_hang_up(phone, caller="alice")
    stage.billing.charged([call, another])
    assert len(program.logged("^charge")) == 1, "what is confirmed is not sent again"
    proxy.close()


def test_an_account_may_have_any_name(patiently_billed):
    stage = patiently_billed
    program = stage.billing.start()
    phone = stage.phone()
    answers = [phone.ask("INVITE", caller=name) for name in ("o'brien", "a%20b", "größe")]
    assert [answer.code for answer in answers] == [402, 402, 402]
    assert len(program.lines(": deny")) == 3
    assert program.lines("^gr%c3%b6%c3%9fe: deny")


# ---- how a README starts each


def follows(stage, example, name, tag, more=()):
    """The block of the example's README, run in its folder, becomes a client with the tag; it ends when it is told to."""
    path = EXAMPLES / example
    script = commands.staged(stage, commands.text_of(path / "README.md", name), more)
    program = Program(stage, "bash", "-c", f"cd {path}; exec {script}")
    tagged(stage, tag)
    assert program.terminate() == 0


def test_the_commands_of_the_readmes_start_the_programs(stage):
    stage.start_evapid()
    start_example(stage, "routing-node", **PATIENT)
    follows(stage, "routing-node", "start the engine", "routing")
    stage.kamailio.terminate()
    start_example(stage, "calllog-python")
    follows(stage, "calllog-python", "start the call log", "calllog", [("dbname=calls", f"host={stage.folder}")])
    stage.kamailio.terminate()
    start_example(stage, "billing-lua", SCRIPT=quoted(EXAMPLES / "billing-lua/kamailio.lua"))
    follows(stage, "billing-lua", "start billing", "billing", [(" ledger", f" {stage.folder}/ledger")])


# ---- docs/examples/shell

SHELL = "docs/examples/shell/README.md"


@pytest.fixture
def shell(stage):
    stage.start_evapid()
    start_example(stage, "shell")
    stage.evapid.listening(stage.address)
    return stage


READY = rb'{ "method": "OPTIONS", "from": "[^"]*", "to": "sip%3aready%40[^"]*" }'  # what asked whether Kamailio is


def test_a_one_liner_prints_events(shell):
    script = commands.staged(shell, commands.text_of(SHELL, "print events"))
    program = Program(shell, "bash", "-c", script, ends_with=(0, -signal.SIGTERM))
    shell.evapid.clients(1)
    shell.phone().ask("MESSAGE", "bob", caller="o'brien")
    shell.phone().ask("OPTIONS", "bob")
    first, second = program.logged('^{ "method": .*bob', 2)  # READY may be among them
    assert json.loads(first)["from"].startswith("sip%3ao%27brien%40127.0.0.1")
    assert json.loads(second)["method"] == "OPTIONS"


def test_a_one_liner_sends_a_message(shell):
    client = shell.connect()
    commands.run(shell, SHELL, "send a message")
    events = iter(client.receive, None)
    assert next(event for event in events if not re.fullmatch(READY, event)).decode() == "größer als gedacht"


def test_the_scripts_print_events_and_answers(shell):
    script = commands.staged(shell, commands.text_of(SHELL, "follow a tag"))
    program = Program(shell, "bash", "-c", f"cd {EXAMPLES / 'shell'}; exec {script}", ends_with=(0, -signal.SIGTERM))
    tagged(shell, "operators")
    ran = commands.run(shell, SHELL, "send messages", folder=EXAMPLES / "shell")
    answers = re.sub(rb"[0-9]+:" + READY + rb",", b"", ran.stdout.encode())
    assert answers.replace(b"3:bye,", b"") == b"4:pong,4:pong,"
    program.logged("^bye$")
    shell.evapid.kill()
    shell.restart_evapid()
    tagged(shell, "operators")
    shell.phone().ask("OPTIONS", "bob")
    program.logged('^{ "method": "OPTIONS".*bob')
