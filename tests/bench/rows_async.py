"""Calls whose INVITE the script suspends with evapi_async_relay, until an application answers: made by SIPp."""

from pathlib import Path
from statistics import median

from kamailio_systems import EVAPI, EVAPID, SYSTEMS, Bus
from results import row
from systems import Program, RunFailed, counted

CALL = Path(__file__).with_name("call.xml")
RATE = 250      # calls/s at which nobody is busy: one for each tick of SIPp's clock, which has 4 ms
AT_A_TIME = 50  # calls when as many are made as can be
PACE = 20_000   # calls/s that SIPp then tries to begin
TIMEOUT_S = 50

ROUTES = """
route[TEST] {
    if (is_method("INVITE")) {
        if (evapi_async_relay("$T(id_index):$T(id_label)")) exit;
        t_reply("503", "Nobody there");
        exit;
    }
    sl_send_reply("200", "OK");
}
event_route[evapi:message-received] {
    $var(index) = $(evapi(msg){s.select,0,:}{s.int});
    $var(label) = $(evapi(msg){s.select,1,:}{s.int});
    t_continue("$var(index)", "$var(label)", "RESUMED");
}
route[RESUMED] {
    t_reply("200", "OK");
}
"""


def sipp(bus, calls, rate, *more):
    """Make calls with SIPp, and return its last figures by their names. RunFailed when one call failed."""
    bus.load("resume")
    if bus.system == EVAPID:
        bus.stage.evapid.clients(1)
    command = ["sipp", f"127.0.0.1:{bus.sip_port}", "-i", "127.0.0.1", "-sf", CALL, "-r", rate, "-m", calls, "-nostdin",
               "-timeout", TIMEOUT_S, "-timeout_error", "-trace_stat", "-stf", "stat.csv", *more]
    program = Program(bus.stage, "sipp", command)
    try:
        code = program.ended()
    except AssertionError as error:
        raise RunFailed(str(error)[:200]) from None
    if code != 0:
        raise RunFailed(f"sipp ended with {code}: {program.last_words()}")
    names, *_, last = [line.split(";") for line in (bus.stage.folder / "stat.csv").read_text().splitlines()]
    return dict(zip(names, last))


def response_times_us(log):
    """From each INVITE, as first sent, to its 200. SIPp notes every message with the time of day; its own response
    times count the ticks of its clock."""
    sent, times = {}, []
    for line in log.read_text(errors="replace").splitlines():
        _, _, at, way, call, sequence, first = line.split("\t")[:7]
        if sequence != "CSeq:1 INVITE":
            continue
        if way == "S":
            sent.setdefault(call, float(at))
        elif first.startswith("SIP/2.0 200") and call in sent:
            times.append((float(at) - sent.pop(call)) * 1e6)
    return times


def add_times(bench, bus, params):
    """Calls at a rate that leaves everybody idle in between."""
    sipp(bus, 250 if bench.quick else 1000, RATE, "-trace_shortmsg", "-shortmessage_file", "messages.csv")
    times = sorted(response_times_us(bus.stage.folder / "messages.csv"))
    bench.results.add("async", bus.system, params, "p50", "us", median(times))
    bench.results.add("async", bus.system, params, "p99", "us", times[len(times) * 99 // 100])


def add_rate(bench, bus, params):
    """As many calls as can be made, with a bound to those at a time."""
    calls = 2000 if bench.quick else 15_000
    found = sipp(bus, calls, PACE, "-l", AT_A_TIME)
    bench.results.add("async", bus.system, params, "rate", "calls/s", float(found["CallRate(C)"]))
    bench.results.add("async", bus.system, params, "sent again", "messages", int(found["Retransmissions(C)"]))


@row("async", "INVITE suspended, an application answers, resumed, 200; ACK, BYE: calls by SIPp")
def async_(bench):
    paced, crowded = {"calls/s": RATE}, {"at a time": AT_A_TIME}
    for _ in range(bench.repeat):
        for params, add, unit, metric in ((paced, add_times, "us", "p50"), (crowded, add_rate, "calls/s", "rate")):
            for system in SYSTEMS:
                with counted(bench, "async", system, params, unit, metric):
                    with Bus(bench, system, ROUTES, children=4) as bus:
                        add(bench, bus, params)
    bench.results.target("async", "calls/s, evapid to EVAPI", (EVAPID, crowded, "rate"), (EVAPI, crowded, "rate"),
                         at_least=1)
    bench.results.target("async", "p50 from INVITE to 200, evapid to EVAPI", (EVAPID, paced, "p50"),
                         (EVAPI, paced, "p50"), at_most=1.2)
