/* The bus: slow clients, the policies that drop events, and the slow state. The policy that disconnects has its tests
 * in test_bus_limits.c. */
#include "bus/bus_rig.h"

#define SIZE 105U /* bytes of a numbered event, framed as a netstring */

/* Event n, of 100 bytes. */
static struct payload numbered(unsigned n)
{
    static char text[101];
    snprintf(text, sizeof(text), "%0100u", n);
    return payload_of(text, 100);
}

static void relay_number(unsigned n)
{
    const struct payload event = numbered(n);
    give_relay(bus, &event, NULL);
}

static void unicast_number(unsigned n)
{
    const struct payload event = numbered(n);
    give_unicast(bus, &event, "x", 1, NULL);
}

/* A client whose queue has room for so many numbered events. */
static struct peer dropping(enum slow_policy policy, unsigned events)
{
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = (size_t)events * SIZE;
    limits.slow_policy = policy;
    struct peer peer = through_narrow(admitted(connect_pair(&limits)));
    give_tag(&peer, "x");
    return peer;
}

/* Receive the events from first to last. */
static void assert_numbers(const struct peer *peer, unsigned first, unsigned last)
{
    for (unsigned n = first; n <= last; n++) {
        char expected[SIZE + 2];
        char out[SIZE];
        snprintf(expected, sizeof(expected), "100:%0100u,", n);
        receive(peer, out, SIZE);
        assert_memory_equal(out, expected, SIZE);
    }
}

static void assert_nothing_waits(const struct peer *peer)
{
    char byte;
    TURN_UNTIL(outq_is_empty(&peer->client->out));
    assert_int_equal(recv(peer->fd, &byte, 1, MSG_DONTWAIT), -1);
}

static uint64_t dropped_slow(const struct peer *peer)
{
    const struct tally *tally = subscription_tally(peer->client);
    assert_int_equal(all_dropped(tally), tally->dropped[DROP_SLOW]);
    return tally->dropped[DROP_SLOW];
}

/* ---- drop-oldest --------------------------------------------------------------------------------------------------- */

static void (*const issues[])(unsigned) = { relay_number, unicast_number };

/* Of a hundred events the client gets the newest, as many as fill between half and all of its queue. */
static void test_the_oldest_are_dropped_and_the_newest_sent(void **state)
{
    (void)state;
    for (size_t how = 0; how < 2; how++) {
        struct peer a = dropping(SLOW_DROP_OLDEST, 10);
        wire_block();
        for (unsigned n = 1; n <= 100; n++) {
            issues[how](n);
            assert_in_range(outq_events(&a.client->out), n < 5 ? n : 5, 10);
            assert_books_balance();
            if (n % 7 == 0)
                turn();
        }
        /* The 11th event finds the queue full: five events are dropped, five stay, and it becomes the sixth. The same
         * happens at every fifth event from there on, and for the last time at the 96th. */
        assert_int_equal(dropped_slow(&a), 90);
        assert_following();
        wire_open();
        assert_numbers(&a, 91, 100);
        issues[how](101);
        assert_numbers(&a, 101, 101);
        assert_nothing_waits(&a);
        assert_int_equal(dropped_slow(&a), 90);
        flush_finish(bus, a.client);
        hang_up(&a);
    }
}

/* A frame that has begun is sent completely, whether it came by relay or unicast, and whatever is dropped after it. */
static void test_a_begun_frame_is_completed_when_the_oldest_are_dropped(void **state)
{
    (void)state;
    for (size_t begun = 0; begun < 2; begun++)
        for (size_t how = 0; how < 2; how++)
            for (size_t taken = 1; taken < 2 * SIZE; taken += 17) {
                struct peer a = dropping(SLOW_DROP_OLDEST, 10);
                wire_block();
                for (unsigned n = 1; n <= 3; n++)
                    issues[begun](n);
                wire = (struct wire){ .most = taken, .error = EAGAIN, .fail = 1 };
                turn();
                wire_block();
                for (unsigned n = 4; n <= 50; n++)
                    issues[how](n);
                assert_books_balance();
                const unsigned whole = (unsigned)(taken + SIZE - 1) / SIZE; /* frames that were sent, or begun */
                const unsigned waiting = (unsigned)outq_events(&a.client->out) - (taken % SIZE != 0);
                wire_open();
                assert_numbers(&a, 1, whole);
                assert_numbers(&a, 50 - waiting + 1, 50);
                assert_nothing_waits(&a);
                assert_int_equal(dropped_slow(&a), 50 - whole - waiting);
                flush_finish(bus, a.client);
                hang_up(&a);
            }
}

/* If the rest of a begun frame leaves too little room, only the new event is dropped. */
static void test_an_event_that_does_not_fit_after_a_begun_frame_is_dropped_alone(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 1000;
    limits.slow_policy = SLOW_DROP_OLDEST;
    for (int to_one = 0; to_one < 2; to_one++) {
        struct peer a = through_narrow(admitted(connect_pair(&limits)));
        struct peer b = open_pair();
        static char out[2000];
        give_tag(&a, "x");
        struct payload event = big_event(900, 'x');
        give_relay(bus, &event, NULL);
        wire = (struct wire){ .most = 10, .error = EAGAIN, .fail = 1 };
        turn();
        wire_block();
        relay("1");
        event = big_event(300, 'y');
        if (to_one)
            give_unicast(bus, &event, "x", 1, NULL);
        else
            give_relay(bus, &event, NULL);
        relay("2");
        assert_int_equal(dropped_slow(&a), 1);
        assert_books_balance();
        assert_following();
        wire_open();
        receive(&a, out, 905);
        assert_receives(&a, "1:1,1:2,");
        assert_nothing_waits(&a);
        receive(&b, out, 905 + 4 + (to_one ? 0 : 305) + 4);
        flush_finish(bus, a.client);
        flush_finish(bus, b.client);
        hang_up(&a);
        hang_up(&b);
    }
}

/* A client that reads is not affected by those that do not. */
static void test_other_clients_get_what_a_slow_one_loses(void **state)
{
    (void)state;
    struct peer old = dropping(SLOW_DROP_OLDEST, 10);
    struct peer new = dropping(SLOW_DROP_NEWEST, 10);
    struct peer quick = open_pair();
    wire_block();
    for (unsigned n = 1; n <= 200; n++) {
        relay_number(n);
        assert_numbers(&quick, n, n);
        assert_books_balance();
        assert_following();
    }
    wire_open();
    assert_numbers(&old, 191, 200);
    assert_numbers(&new, 1, 10);
    assert_int_equal(dropped_slow(&old), 190);
    assert_int_equal(dropped_slow(&new), 190);
    hang_up(&old);
    hang_up(&new);
    hang_up(&quick);
}

/* ---- drop-newest --------------------------------------------------------------------------------------------------- */

/* A client whose queue is full is skipped until half of it is free. Each skipped event is counted. */
static void test_a_full_client_is_skipped_until_half_is_free(void **state)
{
    (void)state;
    for (size_t how = 0; how < 2; how++) {
        struct peer a = dropping(SLOW_DROP_NEWEST, 10);
        wire_block();
        for (unsigned n = 1; n <= 30; n++) {
            issues[how](n);
            assert_books_balance();
            if (n % 7 == 0)
                turn();
        }
        assert_int_equal(dropped_slow(&a), 20);
        assert_int_equal(bus->runs[FRAMING_NETSTRING].skipped, 1);
        wire = (struct wire){ .most = 5 * SIZE - 1, .error = EAGAIN, .fail = 1 }; /* a byte less than half */
        client_flush(a.client);
        wire_block();
        issues[how](31);
        assert_int_equal(dropped_slow(&a), 21);
        wire = (struct wire){ .most = 1, .error = EAGAIN, .fail = 1 };
        client_flush(a.client);
        wire_block();
        assert_int_equal(bus->runs[FRAMING_NETSTRING].skipped, 0);
        assert_following();
        issues[how](32);
        assert_int_equal(dropped_slow(&a), 21);
        wire_open();
        assert_numbers(&a, 1, 10);
        assert_numbers(&a, 32, 32);
        assert_nothing_waits(&a);
        assert_int_equal(subscription_tally(a.client)->relayed, 32);
        assert_books_balance();
        flush_finish(bus, a.client);
        hang_up(&a);
    }
}

/* If the queue is half free and an event does not fit, only that event is dropped. */
static void test_a_large_event_does_not_make_a_half_free_client_skipped(void **state)
{
    (void)state;
    struct peer a = dropping(SLOW_DROP_NEWEST, 10);
    wire_block();
    for (unsigned n = 1; n <= 5; n++)
        relay_number(n);
    const struct payload event = big_event(6 * SIZE, 'x');
    give_relay(bus, &event, NULL);
    give_unicast(bus, &event, "x", 1, NULL);
    assert_int_equal(dropped_slow(&a), 2);
    assert_int_equal(bus->runs[FRAMING_NETSTRING].skipped, 0);
    assert_following();
    relay_number(6);
    wire_open();
    assert_numbers(&a, 1, 6);
    assert_nothing_waits(&a);
    hang_up(&a);
}

/* However a skipped client leaves, its books count the events it missed, and the run counts no skipped client. */
static void test_a_skipped_client_may_leave(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        struct peer a = dropping(SLOW_DROP_NEWEST, 2);
        const uint32_t index = a.client->index;
        wire_block();
        for (unsigned n = 1; n <= 5; n++)
            relay_number(n);
        assert_int_equal(bus->runs[FRAMING_NETSTRING].skipped, 1);
        if (how == 0)
            flush_finish(bus, a.client);
        else if (how == 1)
            bus_readmit(bus, a.client);
        else if (how == 2)
            client_drop(a.client, DROP_CLOSED);
        else
            client_cut_off(a.client, DROP_CLOSED);
        assert_int_equal(bus->runs[FRAMING_NETSTRING].skipped, 0);
        assert_books_balance();
        relay_number(6); /* nobody gets this one */
        wire_open();
        if (how == 1) {
            assert_int_equal(subscription_tally(a.client)->dropped[DROP_SLOW], 3);
            bus_admit(bus, a.client);
            assert_numbers(&a, 1, 2);
            relay_number(7);
            assert_numbers(&a, 7, 7);
            flush_finish(bus, a.client);
        }
        TURN_UNTIL(up.of[index].gone == 1);
        assert_int_equal(up.of[index].tally.dropped[DROP_SLOW], 3);
        hang_up(&a);
    }
}

/* All clients of a run are skipped, so it has no followers. The events are still counted. */
static void test_events_that_skip_every_client_are_counted(void **state)
{
    (void)state;
    struct peer a = dropping(SLOW_DROP_NEWEST, 2);
    struct peer b = dropping(SLOW_DROP_NEWEST, 3);
    wire_block();
    for (unsigned n = 1; n <= 9; n++) {
        relay_number(n);
        assert_books_balance();
        turn();
    }
    assert_int_equal(bus->runs[FRAMING_NETSTRING].followers, 0);
    assert_int_equal(bus->totals.relayed, 18);
    assert_int_equal(bus->totals.dropped[DROP_SLOW], 7 + 6);
    assert_int_equal(bus->events.no_receiver, 0);
    wire_open();
    assert_numbers(&a, 1, 2);
    assert_numbers(&b, 1, 3);
    relay_number(10);
    assert_numbers(&a, 10, 10);
    assert_numbers(&b, 10, 10);
    hang_up(&a);
    hang_up(&b);
}

/* A skipped client must keep its part of the run. Without memory for that its stream would have a gap. */
static void test_a_client_that_cannot_be_skipped_for_lack_of_memory_is_closed(void **state)
{
    (void)state;
    struct peer a = dropping(SLOW_DROP_NEWEST, 3);
    const uint32_t index = a.client->index;
    wire_block();
    for (unsigned n = 1; n <= 3; n++)
        relay_number(n);
    memory_limit(0);
    relay_number(4);
    assert_true(memory_refused() > 0);
    memory_limit(-1);
    assert_int_equal(bus->runs[FRAMING_NETSTRING].skipped, 0);
    assert_books_balance();
    assert_int_equal(up.admitted, 0);
    assert_int_equal(subscription_tally(a.client)->dropped[DROP_MEMORY], 3);
    assert_int_equal(subscription_tally(a.client)->dropped[DROP_SLOW], 1);
    flush_finish(bus, a.client);
    assert_ends(&a);
    assert_int_equal(up.of[index].gone, 1);
    hang_up(&a);
}

/* The rest of a begun frame must be copied out of the run before older events can be dropped. Without memory for that,
 * the new event is dropped. */
static void test_without_memory_to_copy_a_begun_frame_no_frame_is_torn(void **state)
{
    (void)state;
    for (int to_one = 0; to_one < 2; to_one++) {
        struct peer a = dropping(SLOW_DROP_OLDEST, 4);
        struct chunk *chunk = NULL;
        char out[5 * SIZE];
        for (unsigned n = 1; n <= 4; n++)
            relay_number(n);
        wire = (struct wire){ .most = 1, .error = EAGAIN, .fail = 1 };
        turn();
        wire_block();
        const struct payload event = numbered(5);
        chunk = chunk_of_event(FRAMING_NETSTRING, &event);
        enum drop_reason reason = DROP_MEMORY;
        memory_limit(0);
        const bool given = to_one ? client_give(a.client, chunk, &reason) : client_can_accept(a.client, SIZE, &reason);
        assert_int_equal(memory_refused(), 1);
        memory_limit(-1);
        chunk_unref(chunk);
        assert_false(given);
        assert_int_equal(reason, DROP_SLOW);
        assert_int_equal(dropped_slow(&a), 1);
        assert_books_balance();
        wire_open();
        receive(&a, out, 4 * SIZE);
        assert_nothing_waits(&a);
        flush_finish(bus, a.client);
        hang_up(&a);
    }
}

/* ---- the slow state ------------------------------------------------------------------------------------------------- */

/* A client becomes slow when more than half of its queue is used, and stays slow until no more than an eighth is. */
static void test_a_client_is_slow_between_half_and_an_eighth(void **state)
{
    (void)state;
    struct peer a = dropping(SLOW_DISCONNECT, 16);
    wire_block();
    for (unsigned n = 1; n <= 16; n++) {
        relay_number(n);
        turn();
        assert_int_equal(a.client->pace.slow_since_ms != 0, n > 8);
    }
    const uint64_t since = a.client->pace.slow_since_ms;
    for (unsigned n = 16; n > 0; n--) {
        wire = (struct wire){ .most = SIZE, .error = EAGAIN, .fail = 1 };
        client_flush(a.client);
        assert_int_equal(outq_events(&a.client->out), n - 1);
        assert_int_equal(a.client->pace.slow_since_ms, n - 1 > 2 ? since : 0);
    }
    hang_up(&a);
}

/* A tick, once a second, also notices a slow client that no turn looks at. */
static void test_a_tick_notices_a_slow_client(void **state)
{
    (void)state;
    struct peer a = dropping(SLOW_DISCONNECT, 4);
    wire_block();
    for (unsigned n = 1; n <= 3; n++)
        relay_number(n);
    assert_int_equal(a.client->pace.slow_since_ms, 0);
    bus_tick(bus);
    assert_int_not_equal(a.client->pace.slow_since_ms, 0);
    wire_open();
    assert_numbers(&a, 1, 3);
    assert_int_equal(a.client->pace.slow_since_ms, 0);
    hang_up(&a);
}

/* A client that loses an event counts as slow, even if dropping has made its queue short. */
static void test_a_client_that_loses_an_event_is_slow(void **state)
{
    (void)state;
    for (int policy = SLOW_DROP_NEWEST; policy <= SLOW_DROP_OLDEST; policy++) {
        struct peer a = dropping((enum slow_policy)policy, 4);
        wire_block();
        for (unsigned n = 1; n <= 5; n++) {
            relay_number(n);
            assert_int_equal(a.client->pace.slow_since_ms != 0, n == 5);
            if (n == 1)
                turn(); /* the kernel takes nothing, and evapid does not try again for each event */
        }
        assert_int_equal(dropped_slow(&a) - a.client->pace.slow_dropped, policy == SLOW_DROP_NEWEST ? 1 : 2);
        flush_finish(bus, a.client);
        wire_open();
        hang_up(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_the_oldest_are_dropped_and_the_newest_sent),
        WITH_BUS(test_a_begun_frame_is_completed_when_the_oldest_are_dropped),
        WITH_BUS(test_an_event_that_does_not_fit_after_a_begun_frame_is_dropped_alone),
        WITH_BUS(test_other_clients_get_what_a_slow_one_loses),
        WITH_BUS(test_a_full_client_is_skipped_until_half_is_free),
        WITH_BUS(test_a_large_event_does_not_make_a_half_free_client_skipped),
        WITH_BUS(test_a_skipped_client_may_leave),
        WITH_BUS(test_events_that_skip_every_client_are_counted),
        WITH_BUS(test_a_client_that_cannot_be_skipped_for_lack_of_memory_is_closed),
        WITH_BUS(test_without_memory_to_copy_a_begun_frame_no_frame_is_torn),
        WITH_BUS(test_a_client_is_slow_between_half_and_an_eighth),
        WITH_BUS(test_a_tick_notices_a_slow_client),
        WITH_BUS(test_a_client_that_loses_an_event_is_slow),
    };
    return cmocka_run_group_tests_name("bus, slow clients", tests, NULL, NULL);
}
