/* Heritage: what becomes of the queue of a client whose tag others have too. Kept tags: test_kept.c. */
#include "bus/kept_rig.h"

static void test_the_last_of_a_group_leaves_it_and_others_get_unicasts(void **state)
{
    (void)state;
    struct peer leaves = stalled(SLOW_DISCONNECT, 1000);
    unicast("1", TAG);
    multicast("2", TAG);
    relay("3");
    unicast("4", TAG);
    struct peer stays = carrier(&raw_limits);
    go(&leaves);
    assert_int_equal(bus->keeping.count, 0);
    wire_open();
    assert_receives(&stays, "14");
    assert_all_books();
    assert_int_equal(bus->totals.relayed, 4);
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 2);
    go(&stays);
    assert_int_equal(bus->keeping.count, 1);
}

static void test_unicasts_of_one_that_is_cut_off_go_to_others(void **state)
{
    (void)state;
    struct peer slow = stalled(SLOW_DISCONNECT, 2);
    unicast("1", TAG);
    unicast("2", TAG);
    struct peer stays = carrier(&netstring_limits);
    unicast("3", TAG); /* the first that has the tag gets it, and is cut off */
    wire_open();
    turn();
    assert_receives(&stays, "1:1,1:2,");
    assert_ends(&slow);
    assert_all_books();
    hang_up(&slow);
    go(&stays);
}

/* A group of so many, each with one unicast and a connection that is broken without evapid's knowledge. The queues are full,
 * but for the last one's. */
static void broken_group(struct peer *peers, size_t members)
{
    struct client_limits limits = netstring_limits;
    limits.unicast_mode = UNICAST_ROUND_ROBIN;
    for (size_t i = 0; i < members; i++) {
        limits.max_queued_bytes = (i + 1 < members ? 3 : 1000) * FRAME;
        peers[i] = carrier(&limits);
    }
    for (size_t i = 0; i < members; i++)
        unicast("u", TAG);
    multicast("m", TAG);
    multicast("m", TAG);
    for (size_t i = 0; i < members; i++) {
        assert_int_equal(outq_events(&peers[i].client->out), 3);
        peers[i].client->unicast_mode = UNICAST_FIRST;
        hang_up(&peers[i]);
    }
}

static void test_unicasts_pass_by_those_that_are_found_broken(void **state)
{
    (void)state;
    struct peer peers[6];
    broken_group(peers, 6);
    heritage_leave(bus, peers[0].client, DROP_CLOSED);
    assert_int_equal(outq_events(&peers[5].client->out), 6 + 2);
    assert_all_books();
    turn();
    assert_int_equal(waiting(), 6 + 2);
    struct peer next = carrier(&netstring_limits);
    assert_receives(&next, "1:u,1:m,1:m,1:u,1:u,1:u,1:u,1:u,");
    assert_all_books();
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 2 * 5);
    go(&next);
}

static void test_a_large_group_that_is_found_broken_costs_no_more_stack(void **state)
{
    (void)state;
    struct peer peers[40];
    broken_group(peers, 40);
    heritage_leave(bus, peers[0].client, DROP_CLOSED);
    assert_all_books();
    assert_int_equal(outq_events(&peers[39].client->out), 2 + 1 + 8); /* deeper, unicasts are dropped */
    turn();
}

/* It is full only for this turn: nothing has tried yet to send to it. */
static void test_one_that_inherits_and_cannot_be_sent_more_is_watched_until_it_can(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 3 * FRAME;
    struct peer leaves = stalled(SLOW_DISCONNECT, 1000);
    unicast("1", TAG);
    struct peer heir = through_narrow(carrier(&limits));
    multicast("2", TAG);
    multicast("3", TAG);
    multicast("4", TAG);
    heritage_leave(bus, leaves.client, DROP_CLOSED);
    assert_true(output_is_blocked(heir.client));
    assert_int_equal(heir.client->watched & UV_WRITABLE, UV_WRITABLE);
    wire_open();
    assert_receives(&heir, "1:2,1:3,1:4,");
    multicast("5", TAG);
    assert_receives(&heir, "1:5,");
    assert_all_books();
    go(&leaves);
    go(&heir);
}

/* Kamailio has been restarted, and before they are admitted again one of them hangs up. */
static void test_those_who_wait_for_another_admission_each_get_their_own_once(void **state)
{
    (void)state;
    struct peer leaves = stalled(SLOW_DISCONNECT, 1000);
    unicast("1", TAG);
    struct peer stays = through_narrow(carrier(&netstring_limits));
    multicast("2", TAG);
    relay("3");
    turn();
    bus_readmit(bus, leaves.client);
    bus_readmit(bus, stays.client);
    wire_open();
    hang_up(&leaves);
    TURN_UNTIL(bus->keeping.count == 1);
    assert_int_equal(waiting(), 1);
    assert_all_books();
    admitted(stays);
    multicast("4", TAG);
    assert_receives(&stays, "1:2,1:3,1:1,1:4,");
    assert_all_books();
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 2);
    go(&stays);
}

/* A client with the tag, for which two unicasts wait: there is no room for more. */
static struct peer full_carrier(void)
{
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 2 * FRAME;
    const struct peer full = carrier(&limits);
    unicast("1", TAG);
    unicast("2", TAG);
    return full;
}

static void test_a_unicast_passes_by_one_that_it_finds_broken(void **state)
{
    (void)state;
    struct peer broken = full_carrier();
    struct peer stays = carrier(&netstring_limits);
    hang_up(&broken);
    unicast("3", TAG);
    unicast("4", TAG);
    assert_receives(&stays, "1:1,1:2,1:3,1:4,");
    assert_dropped(0);
    assert_int_equal(bus->totals.relayed, 4);
    go(&stays);
}

/* The one that is found broken was the last: its tag is kept. */
static void test_a_unicast_waits_if_all_are_found_broken(void **state)
{
    (void)state;
    struct peer broken = full_carrier();
    hang_up(&broken);
    unicast("3", TAG);
    assert_int_equal(bus->totals.relayed, 3);
    assert_dropped(1); /* no more than two may wait */
    turn();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_the_last_of_a_group_leaves_it_and_others_get_unicasts),
        WITH_BUS(test_unicasts_of_one_that_is_cut_off_go_to_others),
        WITH_BUS(test_unicasts_pass_by_those_that_are_found_broken),
        WITH_BUS(test_a_large_group_that_is_found_broken_costs_no_more_stack),
        WITH_BUS(test_one_that_inherits_and_cannot_be_sent_more_is_watched_until_it_can),
        WITH_BUS(test_those_who_wait_for_another_admission_each_get_their_own_once),
        WITH_BUS(test_a_unicast_passes_by_one_that_it_finds_broken),
        WITH_BUS(test_a_unicast_waits_if_all_are_found_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
