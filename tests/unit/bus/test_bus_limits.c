/* The bus: clients that do not keep up, events that are too large, and short memory. */
#include "bus/bus_rig.h"

/* ---- slow clients, large events ------------------------------------------------------------------------------------ */

static void test_a_slow_client_is_disconnected_and_nobody_else_notices(void **state)
{
    (void)state;
    enum { EVENTS = 400, LENGTH = 10000, SIZE = LENGTH + 7 };
    static char out[EVENTS * SIZE];
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 20 * SIZE;
    struct peer slow = admitted(connect_tcp(&limits, 4096));
    struct peer quick = admitted(connect_tcp(&limits, 0));
    give_tag(&slow, "x");
    size_t sent = 0;
    for (unsigned i = 0; i < EVENTS; i++) {
        const struct payload event = big_event(LENGTH, (char)('a' + i % 26));
        give_relay(bus, &event, NULL);
        receive(&quick, out + sent, SIZE);
        sent += SIZE;
        assert_books_balance();
    }
    for (unsigned i = 0; i < EVENTS; i++) {
        assert_memory_equal(out + i * SIZE, "10000:", 6);
        assert_int_equal(out[i * SIZE + 6], 'a' + i % 26);
        assert_int_equal(out[(i + 1) * SIZE - 2], 'a' + i % 26);
        assert_int_equal(out[(i + 1) * SIZE - 1], ',');
    }
    assert_int_equal(up.present_count, 2); /* no client with its tag gets events any more */
    assert_int_equal(up.admitted, 1);
    const size_t got = receive_to_end(&slow, out, sizeof(out));
    const struct tally *tally = &up.of[1].tally;
    assert_int_equal(up.of[1].gone, 1);
    assert_int_equal(tally->dropped[DROP_SLOW], all_dropped(tally));
    assert_in_range(all_dropped(tally), 20, 21); /* its queue, without the rest of a begun frame, and the event that was
                                                    too much */
    assert_int_equal(tally->relayed, tally->delivered + all_dropped(tally));
    assert_int_equal(got, tally->delivered_bytes);
    assert_int_equal(got, tally->delivered * SIZE); /* whole frames */
    assert_int_equal(bus->totals.relayed, EVENTS + tally->relayed);
    hang_up(&slow);
    hang_up(&quick);
}

/* Half of the receivers, or with a tag all of them, are disconnected while the event is being handed out. */
static void test_slow_clients_may_go_in_the_middle_of_an_event(void **state)
{
    (void)state;
    enum { PEERS = 12 };
    for (int tagged = 0; tagged < 2; tagged++) {
        struct peer peers[PEERS];
        struct client_limits limits = netstring_limits;
        const struct payload event = big_event(5000, 'x');
        wire_block();
        for (unsigned i = 0; i < PEERS; i++) {
            limits.max_queued_bytes = i % 2 == 0 ? 6000 : 60000;
            peers[i] = admitted(connect_tcp(&limits, 0));
            peers[i].client->stream.kind = &narrow;
            if (tagged)
                give_tag(&peers[i], i < 3 ? "y" : "x");
        }
        for (unsigned i = 0; i < 2; i++)
            if (tagged)
                give_multicast(bus, &event, "x", 1, NULL);
            else
                give_relay(bus, &event, NULL);
        wire_open();
        for (unsigned i = 0; i < PEERS; i++) {
            const bool gets = !tagged || i >= 3;
            static char out[20000];
            if (gets && i % 2 == 0)
                assert_ends(&peers[i]);
            else if (gets)
                receive(&peers[i], out, 2 * 5006);
            else
                assert_int_equal(subscription_tally(peers[i].client)->relayed, 0);
            hang_up(&peers[i]);
        }
        assert_books_balance();
        assert_int_equal(bus->totals.dropped[DROP_SLOW], tagged ? 2 * (6 + 4) : 2 * 6);
        bus_close(bus);
        turn();
    }
}

static void test_when_the_last_of_a_tag_is_slow_the_tag_goes_with_it(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 4;
    struct peer a = admitted(connect_tcp(&limits, 0));
    struct peer b = admitted(connect_tcp(&limits, 0));
    a.client->stream.kind = b.client->stream.kind = &narrow;
    wire_block();
    give_tag(&a, "x");
    give_tag(&b, "x");
    multicast("1", "x");
    multicast("2", "x");
    assert_int_equal(bus->closed, 2);
    assert_null(bus->tags.tags);
    multicast("3", "x");
    assert_int_equal(bus->events.no_receiver, 1);
    hang_up(&a);
    hang_up(&b);
}

static void test_an_event_larger_than_a_queue_may_be_is_dropped_alone(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 100;
    struct peer small = admitted(connect_tcp(&limits, 0));
    struct peer large = open_client();
    static char out[1000];
    struct payload event = big_event(97, 'x'); /* 101 bytes as a netstring */
    relay("1");
    give_relay(bus, &event, NULL);
    relay("2");
    event = big_event(95, 'y'); /* 99 bytes: it fits alone, but not after the others */
    TURN_UNTIL(flush_is_done(bus));
    give_relay(bus, &event, NULL);
    assert_receives(&small, "1:1,1:2,");
    receive(&small, out, 99);
    assert_memory_equal(out, "95:yyy", 6);
    receive(&large, out, 4 + 101 + 4 + 99);
    assert_int_equal(small.client->tally->dropped[DROP_LARGE], 1);
    assert_int_equal(all_dropped(&bus->totals), 1);
    assert_books_balance();
    hang_up(&small);
    hang_up(&large);
}

/* ---- the right event ------------------------------------------------------------------------------------------------ */

/* Several clients that read nothing, each with its own limit: each is cut off by the first event beyond it. */
static void test_each_of_several_slow_clients_goes_at_its_own_limit(void **state)
{
    (void)state;
    enum { PEERS = 12, SIZE = 102 };
    struct peer peers[PEERS];
    for (unsigned i = 0; i < PEERS; i++) {
        struct client_limits limits = i % 3 == 0 ? raw_limits : netstring_limits;
        limits.max_queued_bytes = (PEERS - i) * SIZE + i; /* not in order of arrival */
        peers[i] = through_narrow(admitted(connect_pair(&limits)));
    }
    wire_block();
    for (unsigned n = 1; n <= PEERS; n++) {
        const struct payload event = big_event(SIZE - 4, 'x'); /* SIZE as a netstring */
        give_relay(bus, &event, NULL);
        for (unsigned i = 0; i < PEERS; i++) {
            const size_t size = i % 3 == 0 ? SIZE - 4 : SIZE;
            assert_int_equal(up.of[i + 1].gone, n * size > (PEERS - i) * SIZE + i);
        }
        assert_books_balance();
        assert_following();
        if (n % 3 == 0)
            turn();
    }
    assert_int_equal(up.admitted, 1); /* the raw one with the largest limit */
    for (unsigned i = 0; i < PEERS; i++) {
        const struct tally *tally = &up.of[i + 1].tally;
        assert_int_equal(tally->dropped[DROP_SLOW], tally->relayed);
        hang_up(&peers[i]);
    }
}

/* The queue holds exactly its limit in bytes, wherever they come from. */
static void test_what_came_to_one_counts_with_what_came_to_all(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 20;
    for (int last = 0; last < 3; last++)
        for (int over = 0; over < 2; over++) {
            struct peer a = through_narrow(admitted(connect_pair(&limits)));
            const uint32_t index = a.client->index;
            give_tag(&a, "x");
            wire_block();
            relay("1");
            multicast("2", "x");
            relay("3");
            unicast("4", "x"); /* 16 bytes */
            const char *text = over ? "ab" : "a";
            if (last == 0)
                relay(text);
            else if (last == 1)
                multicast(text, "x");
            else
                unicast(text, "x");
            assert_int_equal(up.of[index].gone, over);
            assert_books_balance();
            wire_open();
            if (!over) {
                assert_receives(&a, "1:1,1:2,1:3,1:4,1:a,");
                flush_finish(bus, a.client);
            }
            assert_ends(&a);
            hang_up(&a);
        }
}

/* ---- a burst --------------------------------------------------------------------------------------------------------- */

/* One turn brings far more than a queue may hold: what the kernel accepts makes room, and no client that reads is cut
 * off. */
static void test_a_burst_larger_than_the_queue_is_sent_as_it_comes(void **state)
{
    (void)state;
    enum { EVENTS = 100 };
    static void (*const issue[])(const char *) = { relay, issue_multicast, issue_unicast };
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 1000;
    for (size_t how = 0; how < 3; how++) {
        struct peer quick = admitted(connect_pair(&limits));
        struct peer raw = admitted(connect_pair(&raw_limits));
        struct peer slow = through_narrow(admitted(connect_pair(&limits)));
        const uint32_t index = slow.client->index;
        static char out[EVENTS * 105];
        give_tag(&quick, "x");
        if (how == 1)
            give_tag(&slow, "x");
        wire_block();
        for (unsigned n = 0; n < EVENTS; n++) {
            char text[101];
            snprintf(text, sizeof(text), "%0100u", n);
            issue[how](text);
            assert_books_balance();
        }
        assert_int_equal(up.of[index].gone, how < 2);
        assert_int_equal(quick.client->state, CLIENT_OPEN);
        assert_int_equal(all_dropped(subscription_tally(quick.client)), 0);
        receive(&quick, out, sizeof(out));
        for (unsigned n = 0; n < EVENTS; n++) {
            char text[106];
            snprintf(text, sizeof(text), "100:%0100u,", n);
            assert_memory_equal(out + (size_t)n * 105, text, 105);
        }
        wire_open();
        if (how == 0) {
            receive(&raw, out, EVENTS * 100);
            assert_memory_equal(out + 99 * 100 + 98, "99", 2);
        }
        flush_finish(bus, quick.client);
        flush_finish(bus, raw.client);
        if (how == 2)
            flush_finish(bus, slow.client);
        turn();
        hang_up(&quick);
        hang_up(&raw);
        hang_up(&slow);
    }
}

/* A kernel that accepts everything at once. */
static ssize_t sink_write(struct stream *stream, const struct iovec *iov, int count)
{
    ssize_t bytes = 0;
    (void)stream;
    for (int i = 0; i < count; i++)
        bytes += (ssize_t)iov[i].iov_len;
    return bytes;
}

static const struct stream_kind sink = { .read = plain_read, .write = sink_write, .close = plain_close };

/* One flush sends only so much to a client; but as long as the kernel accepts it, another follows. */
static void test_a_burst_larger_than_queue_and_flush_together_is_sent_as_it_comes(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 3 << 20;
    const struct payload event = big_event(8000, 'x');
    for (int to_one = 0; to_one < 2; to_one++) {
        struct peer peer = admitted(connect_pair(&limits));
        peer.client->stream.kind = &sink;
        give_tag(&peer, "x");
        for (int i = 0; i < 1000; i++) {
            if (to_one)
                give_unicast(bus, &event, "x", 1, NULL);
            else
                give_relay(bus, &event, NULL);
            assert_int_equal(bus->totals.dropped[DROP_SLOW], 0);
        }
        turn();
        hang_up(&peer);
    }
}

/* Sending makes no room for a client that is not admitted yet: it sees nothing, even when it is cut off. */
static void test_a_guest_is_not_sent_what_is_too_much_for_its_queue(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 16;
    for (int to_one = 0; to_one < 2; to_one++) {
        struct peer guest = connect_pair(&limits);
        const uint32_t index = guest.client->index;
        give_tag(&guest, "x");
        for (unsigned n = 1; n <= 3; n++) {
            if (to_one)
                unicast_to("hello", "x", guest.client);
            else
                relay_to("hello", guest.client);
            assert_int_equal(up.of[index].gone, n == 3);
            assert_books_balance();
        }
        assert_int_equal(up.of[index].tally.dropped[DROP_SLOW], 3);
        assert_int_equal(up.of[index].tally.delivered_bytes, 0);
        assert_ends(&guest);
        hang_up(&guest);
    }
}

/* While there is room nothing is sent before the turn's end: one system call for each client, not for each event. */
static void test_a_burst_that_fits_is_sent_at_the_end_of_the_turn(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 40;
    struct peer a = through_narrow(admitted(connect_pair(&limits)));
    wire.writes = 0;
    for (int i = 0; i < 5; i++)
        relay("hello");
    assert_int_equal(wire.writes, 0);
    relay("hello"); /* which is one too many */
    assert_int_equal(wire.writes, 1);
    assert_int_equal(outq_events(&a.client->out), 1);
    assert_int_equal(bus->runs[FRAMING_NETSTRING].review_at, 80); /* no further attempt before there are 40 bytes */
    turn();
    assert_int_equal(wire.writes, 2);
    assert_receives(&a, "5:hello,5:hello,5:hello,5:hello,5:hello,5:hello,");
    hang_up(&a);
}

/* The kernel accepts a part: that may be enough. */
static void test_a_part_that_is_taken_makes_room_too(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 24;
    for (size_t taken = 1; taken <= 24; taken++) {
        struct peer a = through_narrow(admitted(connect_pair(&limits)));
        const uint32_t index = a.client->index;
        for (int i = 0; i < 3; i++)
            relay("hello");
        wire = (struct wire){ .most = taken, .error = EAGAIN, .fail = 1 }; /* one write and no more */
        relay("hello");
        assert_int_equal(up.admitted, taken >= 8);
        assert_books_balance();
        wire_open();
        if (taken >= 8)
            assert_receives(&a, "5:hello,5:hello,5:hello,5:hello,");
        else
            assert_receives(&a, "5:hello,"); /* which had begun */
        if (up.of[index].gone == 0 && taken >= 8)
            flush_finish(bus, a.client);
        assert_ends(&a);
        hang_up(&a);
    }
}

/* ---- too large for some ---------------------------------------------------------------------------------------------- */

/* An event larger than one client's whole queue skips that client, which continues after it. */
static void test_a_large_event_passes_over_those_it_is_too_large_for(void **state)
{
    (void)state;
    static char large[] = "a text of forty characters, not one more";
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 43; /* 40 bytes are 44 as a netstring */
    struct client_limits raw = raw_limits;
    raw.max_queued_bytes = 43;
    assert_int_equal(strlen(large), 40);
    struct peer first = admitted(connect_pair(&limits));
    struct peer exact = admitted(connect_pair(&raw));
    struct peer wide = open_pair();
    struct peer last = admitted(connect_pair(&limits));
    relay(large); /* as the first event ever, */
    relay("1");
    relay(large); /* in the middle of a turn, */
    relay(large);
    relay("2");
    assert_books_balance();
    assert_following();
    turn();
    relay(large); /* and at the end of one */
    turn();
    relay("3");
    assert_receives(&first, "1:1,1:2,1:3,");
    assert_receives(&last, "1:1,1:2,1:3,");
    assert_receives(&exact,
                    "a text of forty characters, not one more1a text of forty characters, not one morea text of forty "
                    "characters, not one more2a text of forty characters, not one more3");
    char out[4 * 44 + 12];
    receive(&wide, out, sizeof(out));
    assert_memory_equal(out + 44, "1:1,40:a text", 13);
    assert_memory_equal(out + 3 * 44 + 4, "1:2,40:a text", 13);
    assert_int_equal(subscription_tally(first.client)->dropped[DROP_LARGE], 4);
    assert_int_equal(subscription_tally(first.client)->relayed, 7);
    assert_int_equal(subscription_tally(last.client)->dropped[DROP_LARGE], 4);
    assert_int_equal(all_dropped(&bus->totals), 8);
    assert_int_equal(bus->events.no_receiver, 0);
    assert_books_balance();
    hang_up(&first);
    hang_up(&exact);
    hang_up(&wide);
    hang_up(&last);
}

/* Too large for every client: only this event is dropped, and all continue with what they had. */
static void test_an_event_too_large_for_all_is_dropped_for_all(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 10;
    struct peer a = through_narrow(admitted(connect_pair(&limits)));
    struct peer b = through_narrow(admitted(connect_pair(&limits)));
    wire = (struct wire){ .most = 3, .error = EAGAIN, .fail = 1 };
    relay("1");
    turn(); /* a is sent three bytes of it, b maybe none */
    wire_block();
    for (int i = 0; i < 3; i++) {
        relay("much too large");
        turn();
    }
    relay("2");
    assert_int_equal(up.admitted, 2);
    assert_books_balance();
    wire_open();
    assert_receives(&a, "1:1,1:2,");
    assert_receives(&b, "1:1,1:2,");
    assert_int_equal(bus->totals.dropped[DROP_LARGE], 6);
    assert_int_equal(all_dropped(&bus->totals), 6);
    assert_int_equal(bus->totals.relayed, 10);
    hang_up(&a);
    hang_up(&b);
}

static void test_a_large_event_to_one_is_dropped_alone(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 10;
    struct peer a = admitted(connect_pair(&limits));
    struct peer b = open_pair();
    struct peer guest = connect_pair(&limits);
    give_tag(&a, "x");
    give_tag(&b, "x");
    relay("1");
    multicast("much too large", "x");
    unicast("much too large", "x"); /* the first client has the tag, and no other gets it instead */
    assert_int_equal(send_to("much too large", a.client->index, NULL), 1);
    relay_to("also too large", guest.client);
    relay("2");
    assert_books_balance();
    bus_admit(bus, guest.client);
    relay("3");
    assert_receives(&a, "1:1,1:2,1:3,");
    assert_receives(&b, "1:1,14:much too large,14:also too large,1:2,1:3,");
    assert_receives(&guest, "1:3,");
    assert_int_equal(subscription_tally(a.client)->dropped[DROP_LARGE], 4);
    assert_int_equal(subscription_tally(guest.client)->dropped[DROP_LARGE], 1);
    assert_int_equal(all_dropped(&bus->totals), 5);
    assert_int_equal(bus->events.no_receiver, 0);
    hang_up(&a);
    hang_up(&b);
    hang_up(&guest);
}

/* ---- those who are behind -------------------------------------------------------------------------------------------- */

static size_t kept_bytes(void)
{
    size_t bytes = 0;
    for (size_t i = 0; i < FRAMINGS; i++) {
        for (const struct chunk *chunk = bus->runs[i].first; chunk != NULL; chunk = chunk->next)
            bytes += chunk->room;
        for (const struct chunk *chunk = bus->runs[i].spare; chunk != NULL; chunk = chunk->next)
            bytes += chunk->room;
    }
    return bytes;
}

/* However many clients lag, the bytes they wait for exist once; they are freed when sent to all. */
static void test_many_that_are_behind_cost_as_much_memory_as_one(void **state)
{
    (void)state;
    enum { PEERS = 30, EVENTS = 150, LENGTH = 9000 };
    static char out[EVENTS * (LENGTH + 6)];
    struct peer peers[PEERS];
    for (unsigned i = 0; i < PEERS; i++)
        peers[i] = through_narrow(admitted(connect_pair(i % 2 == 0 ? &netstring_limits : &raw_limits)));
    wire_block();
    for (unsigned n = 0; n < EVENTS; n++) {
        const struct payload event = big_event(LENGTH, (char)('a' + n % 26));
        give_relay(bus, &event, NULL);
        turn();
    }
    const size_t once = (size_t)2 * EVENTS * LENGTH; /* for each framing */
    assert_in_range(kept_bytes(), once, once + once / 4 + (size_t)2 * 9 * RUN_CHUNK);
    assert_books_balance();
    wire_open();
    for (unsigned i = 0; i < PEERS; i++) {
        const size_t size = i % 2 == 0 ? LENGTH + 6 : LENGTH;
        receive(&peers[i], out, EVENTS * size);
        for (unsigned n = 0; n < EVENTS; n++)
            assert_int_equal(out[n * size + 5 + n], 'a' + n % 26);
        flush_finish(bus, peers[i].client);
    }
    turn();
    assert_in_range(kept_bytes(), 0, (size_t)2 * 10 * RUN_CHUNK);
    for (unsigned i = 0; i < PEERS; i++)
        hang_up(&peers[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_a_slow_client_is_disconnected_and_nobody_else_notices),
        WITH_BUS(test_slow_clients_may_go_in_the_middle_of_an_event),
        WITH_BUS(test_when_the_last_of_a_tag_is_slow_the_tag_goes_with_it),
        WITH_BUS(test_an_event_larger_than_a_queue_may_be_is_dropped_alone),
        WITH_BUS(test_each_of_several_slow_clients_goes_at_its_own_limit),
        WITH_BUS(test_what_came_to_one_counts_with_what_came_to_all),
        WITH_BUS(test_a_burst_larger_than_the_queue_is_sent_as_it_comes),
        WITH_BUS(test_a_burst_larger_than_queue_and_flush_together_is_sent_as_it_comes),
        WITH_BUS(test_a_guest_is_not_sent_what_is_too_much_for_its_queue),
        WITH_BUS(test_a_burst_that_fits_is_sent_at_the_end_of_the_turn),
        WITH_BUS(test_a_part_that_is_taken_makes_room_too),
        WITH_BUS(test_a_large_event_passes_over_those_it_is_too_large_for),
        WITH_BUS(test_an_event_too_large_for_all_is_dropped_for_all),
        WITH_BUS(test_a_large_event_to_one_is_dropped_alone),
        WITH_BUS(test_many_that_are_behind_cost_as_much_memory_as_one),
    };
    return cmocka_run_group_tests_name("bus, limits", tests, NULL, NULL);
}
