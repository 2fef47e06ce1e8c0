"""Messages of clients, each answered by the event route with an event: how soon, how many, and whether all."""

from kamailio_systems import EVAPI, EVAPID, EVENT_BYTES, SYSTEMS, Bus, buses
from results import row
from systems import RunFailed, counted

# The first client gets what is relayed; with several, each has a tag of its own and gets its own answers only.
ALONE = """
route[TEST] { sl_send_reply("200", "OK"); }
event_route[evapi:message-received] { evapi_relay("$evapi(msg)"); }
"""
BUSY = """
route[TEST] { sl_send_reply("200", "OK"); }
event_route[evapi:connection-new] { evapi_set_tag("client $evapi(conidx)"); }
event_route[evapi:message-received] {
    usleep("1000");
    evapi_unicast("$evapi(msg)", "client $evapi(conidx)");
}
"""
QUIET_S = 3  # without an answer: no more will come


def ask(bus, **options):
    """Send messages and gather answers; returns what load found. Some may be missing: the caller judges that."""
    found = bus.load("ask", size=EVENT_BYTES, quiet=QUIET_S, **options).printed()
    found["seconds"] = (found["last_ns"] - found["first_ns"]) / 1e9
    if found["answers"] == 0:
        raise RunFailed("no message was answered")
    return found


def all_answered(found):
    if not found["complete"]:
        raise RunFailed(f"{found['answers']} of {found['messages']} messages were answered")
    return found


# Thrice the runs: much hangs on whether the scheduler has client and server share a processor, or wakes another one.
@row("answer", "a message of 200 bytes, the route's answer of 200 bytes, one after the other, one client")
def answer(bench):
    messages, warm = (1000, 100) if bench.quick else (10_000, 200)
    with buses(bench, ALONE) as pair:
        for _ in range(bench.repeat * 3):
            for bus in pair:
                with counted(bench, "answer", bus.system, {}, "us", "p50"):
                    found = all_answered(ask(bus, messages=messages + warm, warm=warm))
                    for metric in ("p50", "p99"):
                        bench.results.add("answer", bus.system, {}, metric, "us", found[f"{metric}_ns"] / 1e3)
                    bench.results.add("answer", bus.system, {}, "p99 to p50", "times",
                                      found["p99_ns"] / found["p50_ns"])
    for metric in ("p50", "p99"):
        bench.results.target("answer", f"{metric}, evapid to EVAPI", (EVAPID, {}, metric), (EVAPI, {}, metric),
                             at_most=2)
    bench.results.target("answer", "p99 to p50, evapid", (EVAPID, {}, "p99"), (EVAPID, {}, "p50"), at_most=3)


@row("busy-route", "the same while the route takes 1 ms and 4 clients send at once, workers=4")
def busy_route(bench):
    messages = 100 if bench.quick else 500
    windows = (1, 16)
    with buses(bench, BUSY, workers=4) as pair:
        for _ in range(bench.repeat):
            for window in windows:
                params = {"clients": 4, "under way": window}
                for bus in pair:
                    with counted(bench, "busy-route", bus.system, params, "messages/s"):
                        found = all_answered(ask(bus, clients=4, messages=messages, window=window))
                        bench.results.add("busy-route", bus.system, params, "rate", "messages/s",
                                          found["answers"] / found["seconds"])
    for window in windows:
        params = {"clients": 4, "under way": window}
        bench.results.target("busy-route", f"evapid to EVAPI, each client with {window} under way", (EVAPID, params),
                             (EVAPI, params), at_least=4)


@row("pipelined", "messages of 200 bytes sent without waiting, each answered, one client")
def pipelined(bench):
    messages = 20_000 if bench.quick else 100_000
    for _ in range(bench.repeat):
        for system in SYSTEMS:
            with counted(bench, "pipelined", system, {}, "answers/s"), Bus(bench, system, ALONE) as bus:
                found = ask(bus, messages=messages, window=0)
                bench.results.add("pipelined", system, {}, "rate", "answers/s", found["answers"] / found["seconds"])
                bench.results.add("pipelined", system, {}, "answered", "share", found["answers"] / messages)
    bench.results.target("pipelined", "evapid to EVAPI, which is given the rate of what it answered",
                         (EVAPID, {}, "rate"), (EVAPI, {}, "rate"), at_least=1)
    bench.results.target("pipelined", "share answered by evapid", (EVAPID, {}, "answered"), at_least=1)
    bench.results.note("pipelined", "If EVAPI stops answering, the run counts what it had answered, in "
                       f"the time that this took. {QUIET_S} s without an answer end a run.")
