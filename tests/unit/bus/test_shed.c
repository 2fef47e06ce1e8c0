/* The bus: the limit of waiting bytes for all clients together. */
#include "bus/bus_rig.h"

#define TOTAL ((size_t)1 << 20)
#define ROOM (TOTAL - TOTAL / 16) /* that is aimed at when somebody has to go short */

static struct peer stalled(enum slow_policy policy, const char *tag)
{
    struct client_limits limits = netstring_limits;
    limits.slow_policy = policy;
    struct peer peer = through_narrow(admitted(connect_pair(&limits)));
    give_tag(&peer, tag);
    return peer;
}

static void multicast_big(size_t length, const char *tag)
{
    const struct payload event = big_event(length, 'x');
    give_multicast(bus, &event, tag, strlen(tag), NULL);
}

/* A client that was sent ten bytes of an event of this length. */
static struct peer with_begun(enum slow_policy policy, const char *tag, size_t length)
{
    struct peer peer = stalled(policy, tag);
    wire_open();
    turn();
    multicast_big(length, tag);
    wire = (struct wire){ .most = 10, .error = EAGAIN, .fail = 1 };
    turn();
    wire_block();
    return peer;
}

/* ---- who goes short -------------------------------------------------------------------------------------------------- */

/* With any policies and events memory stays within the limit, and clients that read get everything. */
static void test_who_reads_gets_all_whatever_waits_for_the_others(void **state)
{
    (void)state;
    enum { STALLED = 12, EVENTS = 3000, LENGTH = 3000 };
    static const char *const tags[] = { "a", "b", "c", "d" };
    static char out[LENGTH + 6];
    struct peer peers[STALLED];
    struct peer quick = open_client();
    bus->max_total_queued_bytes = TOTAL;
    give_tag(&quick, "quick");
    for (unsigned i = 0; i < STALLED; i++)
        peers[i] = stalled((enum slow_policy)(i % 3), tags[i % 4]);
    wire_block();
    for (unsigned n = 0; n < EVENTS; n++) {
        const struct payload event = big_event(LENGTH, (char)('a' + n % 26));
        if (n % 3 == 0)
            give_multicast(bus, &event, tags[n % 4], 1, NULL);
        else if (n % 3 == 1)
            give_unicast(bus, &event, "quick", 5, NULL);
        else
            give_relay(bus, &event, NULL);
        assert_true(shed_queue_memory() <= TOTAL);
        assert_books_balance();
        assert_following();
        if (n % 3 == 0)
            continue;
        receive(&quick, out, sizeof(out));
        assert_int_equal(out[5], 'a' + n % 26);
        assert_int_equal(out[LENGTH + 4], 'a' + n % 26);
    }
    assert_int_equal(all_dropped(subscription_tally(quick.client)), 0);
    assert_int_equal(bus->totals.dropped[DROP_SLOW], all_dropped(&bus->totals));
    for (unsigned i = 0; i < STALLED; i++) {
        assert_int_equal(up.of[i + 2].gone, i % 3 == 0);
        hang_up(&peers[i]);
    }
    hang_up(&quick);
}

/* The longest queue is cut; the others stay. */
static void test_the_longest_queue_goes_short_first(void **state)
{
    (void)state;
    for (int policy = SLOW_DISCONNECT; policy <= SLOW_DROP_OLDEST; policy++) {
        bus->max_total_queued_bytes = TOTAL;
        struct peer most = stalled((enum slow_policy)policy, "most");
        struct peer less = stalled(SLOW_DISCONNECT, "less");
        const uint32_t index = most.client->index;
        wire_block();
        for (int i = 0; i < 40; i++)
            multicast_big(10000, "less");
        for (int i = 0; i < 60; i++)
            multicast_big(10000, "most");
        assert_int_equal(all_dropped(&bus->totals), all_dropped(&up.past));
        multicast_big(30000, "less");
        multicast_big(30000, "less");
        assert_int_equal(all_dropped(subscription_tally(less.client)), 0);
        assert_int_equal(outq_events(&less.client->out), 42);
        assert_int_equal(up.of[index].gone, policy == SLOW_DISCONNECT);
        if (policy != SLOW_DISCONNECT) {
            assert_in_range(outq_events(&most.client->out), 29, 30);
            assert_int_equal(subscription_tally(most.client)->dropped[DROP_SLOW], 60 - outq_events(&most.client->out));
            assert_int_not_equal(most.client->pace.slow_since_ms, 0);
            assert_following();
            flush_finish(bus, most.client);
        }
        assert_books_balance();
        wire_open();
        flush_finish(bus, less.client);
        static char out[500000];
        assert_int_equal(receive_to_end(&less, out, sizeof(out)), 40 * 10007 + 2 * 30007);
        hang_up(&most);
        hang_up(&less);
        TURN_UNTIL(up.of[index].gone == 1);
    }
}

/* Which half is dropped. */
static void test_the_half_that_goes_is_the_oldest_or_the_newest(void **state)
{
    (void)state;
    static char out[900000];
    for (int to_one = 0; to_one < 2; to_one++)
        for (int policy = SLOW_DROP_NEWEST; policy <= SLOW_DROP_OLDEST; policy++) {
            bus->max_total_queued_bytes = TOTAL;
            struct peer a = stalled((enum slow_policy)policy, "a");
            wire_block();
            for (int i = 0; bus->totals.dropped[DROP_SLOW] == up.past.dropped[DROP_SLOW]; i++) {
                const struct payload event = big_event(50000, (char)('a' + i));
                if (to_one)
                    give_unicast(bus, &event, "a", 1, NULL);
                else
                    give_relay(bus, &event, NULL);
                assert_in_range(i, 0, 25);
                turn();
            }
            const unsigned dropped = (unsigned)subscription_tally(a.client)->dropped[DROP_SLOW];
            const unsigned kept = (unsigned)outq_events(&a.client->out);
            assert_in_range(dropped, kept - 2, kept + 1);
            wire_open();
            receive(&a, out, kept * 50007);
            for (unsigned i = 0; i < kept; i++) { /* the last event is the one that was too much */
                const unsigned n = policy == SLOW_DROP_OLDEST || i == kept - 1 ? dropped + i : i;
                assert_int_equal(out[i * 50007 + 6], 'a' + n);
                assert_int_equal(out[i * 50007 + 50005], 'a' + n);
            }
            flush_finish(bus, a.client);
            hang_up(&a);
        }
}

/* Many stand at the same place of the run: it frees nothing before all of them have been cut. */
static void test_all_who_wait_for_the_same_go_short_together(void **state)
{
    (void)state;
    enum { STALLED = 8 };
    struct peer peers[STALLED];
    bus->max_total_queued_bytes = TOTAL;
    struct peer few = stalled(SLOW_DISCONNECT, "few"); /* it has a little of its own */
    for (unsigned i = 0; i < STALLED; i++)
        peers[i] = stalled(SLOW_DROP_OLDEST, "x");
    wire_block();
    bus_readmit(bus, few.client);
    for (int i = 0; i < 200; i++) {
        const struct payload event = big_event(10000, 'x');
        give_relay(bus, &event, NULL);
        assert_true(shed_queue_memory() <= TOTAL);
        turn();
    }
    const uint64_t dropped = subscription_tally(peers[0].client)->dropped[DROP_SLOW];
    assert_in_range(dropped, 100, 160);
    for (unsigned i = 0; i < STALLED; i++) {
        assert_int_equal(subscription_tally(peers[i].client)->dropped[DROP_SLOW], dropped);
        hang_up(&peers[i]);
    }
    hang_up(&few);
}

/* ---- what is left when nothing whole waits ------------------------------------------------------------------------------ */

/* A begun frame is dropped last, and the connection with it. */
static void test_begun_frames_go_when_nothing_else_is_left(void **state)
{
    (void)state;
    for (int policy = SLOW_DISCONNECT; policy <= SLOW_DROP_OLDEST; policy++) {
        bus->max_total_queued_bytes = TOTAL;
        struct peer a = with_begun((enum slow_policy)policy, "a", 300000);
        struct peer b = with_begun((enum slow_policy)policy, "b", 400000);
        struct peer c = with_begun((enum slow_policy)policy, "c", 200000);
        struct peer quick = open_client();
        const uint32_t index = b.client->index;
        static char out[200008];
        give_tag(&quick, "quick");
        multicast_big(200000, "quick");
        assert_int_equal(up.of[index].gone, 1);
        assert_int_equal(up.of[index].tally.dropped[DROP_SLOW], 1);
        assert_int_equal(a.client->state, CLIENT_OPEN);
        assert_int_equal(c.client->state, CLIENT_OPEN);
        assert_books_balance();
        receive(&quick, out, sizeof(out));
        wire_open();
        hang_up(&b);
        flush_finish(bus, a.client);
        flush_finish(bus, c.client);
        flush_finish(bus, quick.client);
        turn();
        hang_up(&a);
        hang_up(&c);
        hang_up(&quick);
        turn();
    }
}

/* A client that is being closed keeps only the begun frame. */
static void test_who_is_being_closed_goes_short_too(void **state)
{
    (void)state;
    static char out[100009];
    bus->max_total_queued_bytes = TOTAL;
    struct peer a = with_begun(SLOW_DISCONNECT, "a", 100000);
    struct peer b = stalled(SLOW_DISCONNECT, "b");
    for (int i = 0; i < 7; i++)
        multicast_big(100000, "a");
    flush_finish(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_FLUSHING);
    for (int i = 0; i < 3; i++)
        multicast_big(100000, "b");
    assert_int_equal(subscription_tally(a.client)->dropped[DROP_SLOW], 7);
    assert_int_equal(a.client->state, CLIENT_FLUSHING);
    assert_int_equal(outq_events(&b.client->out), 3);
    wire_open();
    assert_int_equal(receive_to_end(&a, out, sizeof(out)), 100008);
    hang_up(&a);
    hang_up(&b);
}

/* An event larger than the limit is too large for every client, and no queue is cut for it. */
static void test_an_event_larger_than_the_limit_is_dropped_alone(void **state)
{
    (void)state;
    bus->max_total_queued_bytes = TOTAL;
    struct peer a = stalled(SLOW_DISCONNECT, "a");
    struct peer raw = admitted(connect_pair(&raw_limits));
    wire_block();
    for (int i = 0; i < 9; i++)
        multicast_big(100000, "a");
    for (int i = 0; i < 3; i++) {
        const struct payload event = big_event(TOTAL + 1, 'x');
        give_relay(bus, &event, NULL);
        give_unicast(bus, &event, "a", 1, NULL);
    }
    assert_int_equal(subscription_tally(a.client)->dropped[DROP_LARGE], 6);
    assert_int_equal(subscription_tally(raw.client)->dropped[DROP_LARGE], 3);
    assert_int_equal(all_dropped(&bus->totals), 9);
    assert_int_equal(outq_events(&a.client->out), 9);
    assert_books_balance();
    hang_up(&a);
    hang_up(&raw);
}

/* One that just doesn't fit beside a chunk of the run goes on top when there is nothing left to be shed. */
static void test_an_event_as_large_as_the_limit_is_sent_all_the_same(void **state)
{
    (void)state;
    static char out[TOTAL];
    bus->max_total_queued_bytes = TOTAL;
    struct peer a = open_client();
    relay("1");
    const struct payload event = big_event(TOTAL - 9, 'x');
    give_relay(bus, &event, NULL);
    assert_receives(&a, "1:1,");
    receive(&a, out, TOTAL);
    assert_int_equal(all_dropped(&bus->totals), 0);
    hang_up(&a);
}

/* ---- guests ---------------------------------------------------------------------------------------------------------- */

/* The guest whose event is too much may itself be the one for whom most waits, and go with it. */
static void test_a_guest_may_go_short_for_its_own_event(void **state)
{
    (void)state;
    for (int to_one = 0; to_one < 2; to_one++) {
        bus->max_total_queued_bytes = TOTAL;
        struct peer guest = connect_pair(&netstring_limits);
        const uint32_t index = guest.client->index;
        const struct payload event = big_event(90000, 'x');
        give_tag(&guest, "guest");
        for (int i = 0; i < 12; i++) {
            struct client *client = roster_find(bus, index);
            if (to_one)
                give_multicast(bus, &event, "guest", 5, client);
            else
                give_relay(bus, &event, client);
            assert_books_balance();
        }
        assert_int_equal(up.of[index].gone, 1);
        assert_in_range(up.of[index].tally.dropped[DROP_SLOW], 10, 11);
        assert_int_equal(up.of[index].tally.delivered_bytes, 0);
        assert_ends(&guest);
        hang_up(&guest);
    }
}

/* ---- no memory to shed with --------------------------------------------------------------------------------------------- */

static void test_shedding_ends_also_without_memory(void **state)
{
    (void)state;
    for (int policy = SLOW_DISCONNECT; policy <= SLOW_DROP_OLDEST; policy++)
        for (long calls = 0; calls < 6; calls++) {
            bus->max_total_queued_bytes = TOTAL;
            struct peer a = with_begun((enum slow_policy)policy, "a", 300000);
            struct peer b = stalled((enum slow_policy)policy, "b");
            const struct payload event = big_event(60000, 'y');
            for (int i = 0; i < 9; i++)
                give_relay(bus, &event, NULL);
            turn();
            memory_limit(calls);
            for (int i = 0; i < 9; i++)
                give_relay(bus, &event, NULL);
            memory_limit(-1);
            assert_books_balance();
            assert_following();
            assert_true(shed_queue_memory() <= TOTAL + 65536);
            bus_close(bus);
            turn();
            hang_up(&a);
            hang_up(&b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_who_reads_gets_all_whatever_waits_for_the_others),
        WITH_BUS(test_the_longest_queue_goes_short_first),
        WITH_BUS(test_the_half_that_goes_is_the_oldest_or_the_newest),
        WITH_BUS(test_all_who_wait_for_the_same_go_short_together),
        WITH_BUS(test_begun_frames_go_when_nothing_else_is_left),
        WITH_BUS(test_who_is_being_closed_goes_short_too),
        WITH_BUS(test_an_event_larger_than_the_limit_is_dropped_alone),
        WITH_BUS(test_an_event_as_large_as_the_limit_is_sent_all_the_same),
        WITH_BUS(test_a_guest_may_go_short_for_its_own_event),
        WITH_BUS(test_shedding_ends_also_without_memory),
    };
    return cmocka_run_group_tests_name("bus, total", tests, NULL, NULL);
}
