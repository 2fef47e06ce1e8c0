"""With several workers, event routes run at the same time in different processes. EVAPI runs all in one, whatever `workers` says:
what a script does in two steps to something that all share needs a lock (docs/migration.md); test_migration.py has the comparison."""

import re

import pytest

import commands

MESSAGES, CLIENTS = 25, 4

HEAD = """
route[TEST] { append_to_reply("X-Count: $shv(count)\\r\\n"); sl_send_reply("200", "OK"); }
event_route[evapi:connection-new] { xlog("L_NOTICE", "NEW $evapi(srcaddr):$evapi(srcport) as $evapi(conidx);\\n"); }
"""
# What another process does between the two steps is overwritten.
TWO_STEPS = """
event_route[evapi:message-received] {
    $var(count) = $shv(count);
    usleep("2000");
    $shv(count) = $var(count) + 1;
    xlog("L_NOTICE", "COUNTED in $pp;\\n");
}
"""
LOCKED = commands.text_of("docs/migration.md", "a count that all share")


def count(stage, clients):
    """Each client sends its messages; when all have been worked on: the count, and how many processes ran routes."""
    for number in range(MESSAGES):
        for client in clients:
            client.send(b"%d" % number)
    lines = stage.kamailio.logged("COUNTED in", MESSAGES * CLIENTS)
    processes = {re.search(r"COUNTED in (\d+);", line)[1] for line in lines}
    return int(stage.phone().ask("MESSAGE")["X-Count"]), len(processes)


@pytest.mark.parametrize("workers, routes, lost", [(4, TWO_STEPS, True), (4, LOCKED, False), (1, TWO_STEPS, False)],
                         ids=["four workers", "four workers and a lock", "one worker"])
def test_counts_of_event_routes_are_lost_without_a_lock_and_not_with_one(stage, workers, routes, lost):
    stage.start_evapid()
    stage.start_kamailio(HEAD + routes, evapi={"workers": workers},
                         params={"pv": {"shvset": "count=i:0"}, "cfgutils": {"lock_set_size": 4}})
    counted, processes = count(stage, [stage.connect() for _ in range(CLIENTS)])
    assert processes == workers
    assert counted < MESSAGES * CLIENTS if lost else counted == MESSAGES * CLIENTS
