/* Groups: which of a tag's clients gets a unicast. */
#include "bus/bus_rig.h"

#include "bus/group.h"

#define TAG "g"
#define ROOM 1000U /* bytes that may wait for a client that does not read */

/* A client of the group, over a socket pair. */
static struct peer member(enum unicast_mode mode)
{
    struct client_limits limits = netstring_limits;
    limits.unicast_mode = mode;
    struct peer peer = admitted(connect_pair(&limits));
    give_tag(&peer, TAG);
    return peer;
}

/* A client with little room for waiting bytes; nothing is sent while the wire is blocked. */
static struct peer narrow_member(enum unicast_mode mode, enum slow_policy policy)
{
    struct client_limits limits = netstring_limits;
    limits.unicast_mode = mode;
    limits.slow_policy = policy;
    limits.max_queued_bytes = ROOM;
    struct peer peer = through_narrow(admitted(connect_pair(&limits)));
    give_tag(&peer, TAG);
    return peer;
}

/* An event of this framed size for one of them. */
static void issue(size_t bytes)
{
    const struct payload event = big_event(bytes - (bytes > 103 ? 5 : 4), 'x'); /* "999:...," or "99:...," */
    give_unicast(bus, &event, TAG, strlen(TAG), NULL);
}

static void issue_many(unsigned count)
{
    while (count-- > 0)
        unicast("x", TAG);
}

static uint64_t given(const struct peer *peer)
{
    return subscription_tally(peer->client)->relayed;
}

/* The next event goes to this client. */
static void assert_next(const struct peer *peer)
{
    const uint64_t before = given(peer);
    const uint64_t all = bus->totals.relayed;
    unicast("x", TAG);
    assert_int_equal(given(peer), before + 1);
    assert_int_equal(bus->totals.relayed, all + 1);
}

static void leave(struct peer *peer)
{
    flush_finish(bus, peer->client);
    hang_up(peer);
    turn();
}

static void hang_up_all(struct peer *peers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        hang_up(&peers[i]);
    turn();
    assert_books_balance();
}

/* ---- whose turn it is ----------------------------------------------------------------------------------------------- */

static void test_without_a_mode_the_first_gets_all(void **state)
{
    (void)state;
    struct peer peers[3] = { member(UNICAST_FIRST), member(UNICAST_FIRST), member(UNICAST_FIRST) };
    issue_many(10);
    assert_int_equal(given(&peers[0]), 10);
    leave(&peers[0]);
    issue_many(10);
    assert_int_equal(given(&peers[1]), 10);
    hang_up_all(peers + 1, 2);
}

static void test_round_robin_gives_to_one_after_the_other(void **state)
{
    (void)state;
    struct peer peers[3] = { member(UNICAST_ROUND_ROBIN), member(UNICAST_ROUND_ROBIN), member(UNICAST_ROUND_ROBIN) };
    for (unsigned n = 0; n < 30; n++) {
        assert_next(&peers[n % 3]);
        if (n % 7 == 0)
            turn();
    }
    assert_int_equal(bus->events.unicast, 30);
    assert_int_equal(bus->events.no_receiver, 0);
    hang_up_all(peers, 3);
}

static void test_groups_take_turns_each_by_itself(void **state)
{
    (void)state;
    struct peer peers[4] = { member(UNICAST_ROUND_ROBIN), member(UNICAST_ROUND_ROBIN), member(UNICAST_ROUND_ROBIN),
                             member(UNICAST_ROUND_ROBIN) };
    give_tag(&peers[2], "other");
    give_tag(&peers[3], "other");
    for (unsigned n = 0; n < 10; n++) {
        assert_next(&peers[n % 2]);
        unicast("x", "other");
        unicast("x", "other");
    }
    assert_int_equal(given(&peers[2]), 10);
    assert_int_equal(given(&peers[3]), 10);
    hang_up_all(peers, 4);
}

static void test_the_turn_goes_on_when_clients_come_and_go(void **state)
{
    (void)state;
    struct peer a = member(UNICAST_ROUND_ROBIN);
    struct peer b = member(UNICAST_ROUND_ROBIN);
    struct peer c = member(UNICAST_ROUND_ROBIN);
    assert_next(&a);
    leave(&b); /* its turn */
    struct peer d = member(UNICAST_ROUND_ROBIN);
    assert_next(&c);
    assert_next(&d);
    assert_next(&a);
    leave(&a); /* it has had its turn */
    assert_next(&c);
    bus_tag(bus, c.client, "", 0);
    assert_next(&d);
    assert_next(&d);
    give_tag(&c, TAG);
    struct peer e = member(UNICAST_ROUND_ROBIN);
    assert_next(&d);
    assert_next(&c);
    bus_readmit(bus, e.client); /* its turn: it waits to be admitted again */
    assert_next(&d);
    bus_admit(bus, e.client);
    assert_next(&c);
    assert_next(&e);
    leave(&c);
    leave(&d);
    assert_next(&e);
    leave(&e);
    issue_many(1);
    assert_int_equal(bus->events.no_receiver, 1);
    assert_books_balance();
}

/* A client that stays gets as much as the others, whatever the rest does. */
static void test_whoever_stays_has_a_fair_share(void **state)
{
    (void)state;
    struct peer stay[4];
    struct peer passing[3];
    uint32_t seed = 1;
    bool there[3] = { false };
    for (size_t i = 0; i < 4; i++)
        stay[i] = member(UNICAST_ROUND_ROBIN);
    for (unsigned n = 0; n < 2000; n++) {
        seed = seed * 1664525 + 1013904223;
        const unsigned i = (seed >> 16) % 3;
        if (n % 40 == 0 && bus->last_index < CLIENTS) {
            if (there[i])
                leave(&passing[i]);
            else
                passing[i] = member(UNICAST_ROUND_ROBIN);
            there[i] = !there[i];
        }
        unicast("x", TAG);
        if (n % 16 == 0)
            turn();
    }
    for (size_t i = 1; i < 4; i++)
        assert_in_range(given(&stay[0]) + 1 - given(&stay[i]), 0, 2);
    assert_true(given(&stay[0]) >= 2000 / 7 - 1);
    for (size_t i = 0; i < 3; i++)
        if (there[i])
            leave(&passing[i]);
    hang_up_all(stay, 4);
}

/* ---- which mode holds ----------------------------------------------------------------------------------------------- */

static void test_the_mode_is_that_of_who_has_the_tag_longest_and_gets_events(void **state)
{
    (void)state;
    struct peer first = member(UNICAST_FIRST);
    struct peer peers[2] = { member(UNICAST_ROUND_ROBIN), member(UNICAST_FIRST) };
    issue_many(4);
    assert_int_equal(given(&first), 4);
    bus_readmit(bus, first.client); /* gets no events now, and does not count */
    assert_next(&peers[0]);
    assert_next(&peers[1]);
    assert_next(&peers[0]);
    bus_admit(bus, first.client);
    assert_next(&first);
    assert_next(&first);
    bus_tag(bus, first.client, "another", 7);
    assert_next(&peers[1]);
    give_tag(&first, TAG);
    assert_next(&peers[0]);
    assert_next(&peers[1]);
    assert_next(&first);
    hang_up(&first);
    hang_up_all(peers, 2);
}

static void test_another_mode_holds_from_the_next_event_on(void **state)
{
    (void)state;
    struct peer peers[2] = { member(UNICAST_FIRST), member(UNICAST_FIRST) };
    assert_next(&peers[0]);
    listener.limits = netstring_limits;
    listener.limits.unicast_mode = UNICAST_ROUND_ROBIN;
    bus_set_limits(bus, SIZE_MAX);
    assert_next(&peers[0]);
    assert_next(&peers[1]);
    assert_next(&peers[0]);
    listener.limits.unicast_mode = UNICAST_FIRST;
    bus_set_limits(bus, SIZE_MAX);
    assert_next(&peers[0]);
    hang_up_all(peers, 2);
}

/* ---- who is passed over --------------------------------------------------------------------------------------------- */

static void test_a_slow_client_is_passed_over_until_it_keeps_up(void **state)
{
    (void)state;
    static const enum unicast_mode modes[] = { UNICAST_ROUND_ROBIN, UNICAST_LEAST_QUEUED };
    for (size_t i = 0; i < 2; i++) {
        struct peer slow = narrow_member(modes[i], SLOW_DISCONNECT);
        struct peer peers[2] = { member(modes[i]), member(modes[i]) };
        const uint64_t before = given(&slow);
        wire_block();
        const struct payload much = big_event(600, 'm');
        give_multicast(bus, &much, TAG, strlen(TAG), NULL);
        turn();
        assert_true(slow.client->pace.slow_since_ms != 0);
        for (unsigned n = 0; n < 100; n++) {
            assert_next(&peers[n % 2]);
            turn();
        }
        assert_int_equal(given(&slow), before + 1);
        wire_open();
        TURN_UNTIL(slow.client->pace.slow_since_ms == 0);
        assert_next(&slow);
        hang_up(&slow);
        hang_up_all(peers, 2);
    }
}

static void test_a_client_without_room_for_the_event_is_passed_over(void **state)
{
    (void)state;
    struct peer small = narrow_member(UNICAST_ROUND_ROBIN, SLOW_DISCONNECT);
    struct peer large = member(UNICAST_ROUND_ROBIN);
    for (int i = 0; i < 3; i++)
        issue(ROOM + 1);
    assert_int_equal(given(&small), 0);
    assert_int_equal(given(&large), 3);
    issue(ROOM);
    assert_int_equal(given(&small), 1);
    wire_block();
    issue(ROOM); /* large's turn */
    for (int i = 0; i < 20; i++)
        issue(600);
    assert_int_equal(given(&small),
                     1); /* the turn has not ended: its waiting bytes could be sent, but the other one has room */
    wire_open();
    turn();
    assert_int_equal(all_dropped(subscription_tally(small.client)), 0);
    hang_up(&small);
    hang_up(&large);
}

static void test_a_client_that_drops_the_newest_is_passed_over_while_it_does(void **state)
{
    (void)state;
    struct peer slow = narrow_member(UNICAST_ROUND_ROBIN, SLOW_DROP_NEWEST);
    struct client_limits limits = netstring_limits;
    limits.unicast_mode = UNICAST_ROUND_ROBIN;
    limits.max_queued_bytes = 2 * ROOM;
    struct peer other = through_narrow(admitted(connect_pair(&limits)));
    wire_block();
    give_tag(&other, TAG);
    for (int i = 0; i < 20; i++)
        multicast("0123456789012345678901234567890123456789012345678901234567890123456789", TAG);
    turn();
    assert_non_null(slow.client->subscription.skipped_by);
    assert_true(other.client->pace.slow_since_ms != 0 &&
                other.client->subscription.skipped_by == NULL); /* it is slow, too, but has room */
    const uint64_t dropped = all_dropped(subscription_tally(slow.client));
    assert_true(dropped > 0);
    for (int i = 0; i < 10; i++)
        assert_next(&other);
    assert_int_equal(all_dropped(subscription_tally(slow.client)), dropped);
    wire_open();
    TURN_UNTIL(slow.client->pace.slow_since_ms == 0);
    assert_next(&slow);
    hang_up(&slow);
    hang_up(&other);
}

static void test_a_client_that_has_ended_its_side_is_passed_over(void **state)
{
    (void)state;
    struct peer half = member(UNICAST_ROUND_ROBIN);
    struct peer other = member(UNICAST_ROUND_ROBIN);
    shutdown(half.fd, SHUT_WR);
    TURN_UNTIL(half.client->state == CLIENT_FINISHING);
    for (int i = 0; i < 4; i++)
        assert_next(&other);
    leave(&other);
    assert_next(&half); /* it may still read */
    hang_up(&half);
}

static void test_when_nobody_keeps_up_the_turns_go_on_and_the_policies_decide(void **state)
{
    (void)state;
    struct peer peers[3];
    for (size_t i = 0; i < 3; i++)
        peers[i] = narrow_member(UNICAST_ROUND_ROBIN, SLOW_DROP_OLDEST);
    wire_block();
    for (int i = 0; i < 300; i++) {
        issue(100);
        if (i % 10 == 9)
            turn();
    }
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(given(&peers[i]), 100);
        assert_true(subscription_tally(peers[i].client)->dropped[DROP_SLOW] > 0);
    }
    assert_int_equal(bus->events.no_receiver, 0);
    assert_books_balance();
    wire_open();
    hang_up_all(peers, 3);
}

static void test_the_share_of_one_that_goes_is_that_of_the_others(void **state)
{
    (void)state;
    struct peer peers[3];
    for (size_t i = 0; i < 3; i++)
        peers[i] = narrow_member(UNICAST_ROUND_ROBIN, SLOW_DISCONNECT);
    wire_block();
    issue_many(9);
    flush_finish(bus, peers[1].client); /* three events wait for it */
    for (int i = 0; i < 4; i++) {
        assert_next(&peers[0]);
        assert_next(&peers[2]);
    }
    const struct tally before = bus->totals;
    reset(&peers[1]);
    wire_open();
    TURN_UNTIL(up.of[2].gone == 1);
    assert_int_equal(up.of[2].tally.delivered + all_dropped(&up.of[2].tally), 3);
    assert_int_equal(bus->totals.relayed, before.relayed);
    assert_books_balance();
    hang_up(&peers[0]);
    hang_up(&peers[2]);
}

/* ---- the least that waits -------------------------------------------------------------------------------------------- */

static void test_least_queued_gives_to_whom_the_fewest_bytes_wait(void **state)
{
    (void)state;
    struct peer peers[3];
    for (size_t i = 0; i < 3; i++) {
        peers[i] = member(UNICAST_LEAST_QUEUED);
        through_narrow(peers[i]);
    }
    wire_block();
    issue(5000); /* 0 has it */
    issue(100);  /* 1 */
    issue(300);  /* 2 */
    issue(100);  /* 1: 200 */
    issue(150);  /* 1: 350 */
    issue(50);   /* 2: 350 */
    assert_int_equal(given(&peers[0]), 1);
    assert_int_equal(given(&peers[1]), 3);
    assert_int_equal(given(&peers[2]), 2);
    assert_int_equal(outq_bytes(&peers[1].client->out), 350);
    assert_int_equal(outq_bytes(&peers[2].client->out), 350);
    issue(10); /* equally many bytes wait for both, and 2 was the last to get something */
    assert_int_equal(given(&peers[1]), 4);
    relay("for all"); /* waiting bytes count wherever they come from */
    issue(10);
    assert_int_equal(given(&peers[2]), 4);
    wire_open();
    hang_up_all(peers, 3);
}

static void test_least_queued_takes_turns_when_nothing_waits(void **state)
{
    (void)state;
    struct peer peers[3] = { member(UNICAST_LEAST_QUEUED), member(UNICAST_LEAST_QUEUED), member(UNICAST_LEAST_QUEUED) };
    for (unsigned n = 0; n < 30; n++) {
        assert_next(&peers[n % 3]);
        turn();
    }
    hang_up_all(peers, 3);
}

/* ---- guests, other framings, what can't be given --------------------------------------------------------------------- */

static void test_a_guest_takes_part(void **state)
{
    (void)state;
    struct peer one = member(UNICAST_ROUND_ROBIN);
    struct client_limits limits = netstring_limits;
    limits.unicast_mode = UNICAST_ROUND_ROBIN;
    struct peer guest = connect_pair(&limits);
    give_tag(&guest, TAG);
    issue_many(2);
    assert_int_equal(given(&one), 2);
    for (int i = 0; i < 4; i++)
        unicast_to("x", TAG, guest.client);
    assert_int_equal(given(&one), 4);
    assert_int_equal(given(&guest), 2);
    bus_admit(bus, guest.client);
    assert_receives(&guest, "1:x,1:x,");
    hang_up(&one);
    hang_up(&guest);
}

static void test_framings_share_a_group(void **state)
{
    (void)state;
    struct client_limits limits = raw_limits;
    limits.unicast_mode = UNICAST_ROUND_ROBIN;
    struct peer raw = admitted(connect_pair(&limits));
    give_tag(&raw, TAG);
    struct peer framed = member(UNICAST_ROUND_ROBIN);
    unicast("one", TAG);
    unicast("two", TAG);
    unicast("three", TAG);
    assert_receives(&raw, "onethree");
    assert_receives(&framed, "3:two,");
    hang_up(&raw);
    hang_up(&framed);
}

static void test_without_memory_an_event_is_counted_for_who_was_to_get_it(void **state)
{
    (void)state;
    struct peer peers[2] = { member(UNICAST_ROUND_ROBIN), member(UNICAST_ROUND_ROBIN) };
    memory_limit(0);
    issue_many(4);
    memory_limit(-1);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(given(&peers[i]), 2);
        assert_int_equal(subscription_tally(peers[i].client)->dropped[DROP_MEMORY], 2);
    }
    assert_books_balance();
    hang_up_all(peers, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_without_a_mode_the_first_gets_all),
        WITH_BUS(test_round_robin_gives_to_one_after_the_other),
        WITH_BUS(test_groups_take_turns_each_by_itself),
        WITH_BUS(test_the_turn_goes_on_when_clients_come_and_go),
        WITH_BUS(test_whoever_stays_has_a_fair_share),
        WITH_BUS(test_the_mode_is_that_of_who_has_the_tag_longest_and_gets_events),
        WITH_BUS(test_another_mode_holds_from_the_next_event_on),
        WITH_BUS(test_a_slow_client_is_passed_over_until_it_keeps_up),
        WITH_BUS(test_a_client_without_room_for_the_event_is_passed_over),
        WITH_BUS(test_a_client_that_drops_the_newest_is_passed_over_while_it_does),
        WITH_BUS(test_a_client_that_has_ended_its_side_is_passed_over),
        WITH_BUS(test_when_nobody_keeps_up_the_turns_go_on_and_the_policies_decide),
        WITH_BUS(test_the_share_of_one_that_goes_is_that_of_the_others),
        WITH_BUS(test_least_queued_gives_to_whom_the_fewest_bytes_wait),
        WITH_BUS(test_least_queued_takes_turns_when_nothing_waits),
        WITH_BUS(test_a_guest_takes_part),
        WITH_BUS(test_framings_share_a_group),
        WITH_BUS(test_without_memory_an_event_is_counted_for_who_was_to_get_it),
    };
    watch_prepare();
    return cmocka_run_group_tests_name("group", tests, NULL, NULL);
}
