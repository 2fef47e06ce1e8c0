/* Kept tags: what waits for a tag whose clients have gone, and who gets it. The rest of a group: test_heritage.c. */
#include "bus/kept_rig.h"

#include <time.h>

/* ---- waiting and coming ------------------------------------------------------------------------------------------- */

static void test_the_next_client_gets_what_waited_and_then_what_comes(void **state)
{
    (void)state;
    struct peer before = carrier(&netstring_limits);
    multicast("0", TAG);
    assert_receives(&before, "1:0,");
    go(&before);
    assert_true(is_present(TAG));
    multicast("1", TAG);
    unicast("2", TAG);
    relay("3");
    multicast("-", "other");
    struct peer next = arriving(&netstring_limits);
    multicast("4", TAG);
    multicast_to("5", TAG, next.client);
    relay_to("6", next.client);
    unicast("7", TAG);
    assert_int_equal(waiting(), 7);
    admitted(next);
    assert_int_equal(bus->keeping.count, 0);
    assert_true(is_present(TAG));
    relay("8");
    assert_receives(&next, "1:1,1:2,1:3,1:4,1:5,1:6,1:7,1:8,");
    assert_dropped(0);
    assert_int_equal(subscription_tally(next.client)->relayed, 8);
    go(&next);
}

static void test_without_a_time_nothing_is_kept(void **state)
{
    (void)state;
    struct peer peer = admitted(connect_pair(&netstring_limits));
    up.finish_ended = true;
    give_tag(&peer, TAG);
    go(&peer);
    assert_int_equal(bus->keeping.count, 0);
    multicast("1", TAG);
    assert_int_equal(bus->events.no_receiver, 1);
}

static void test_a_client_without_a_tag_leaves_nothing(void **state)
{
    (void)state;
    const struct client_limits limits = keeping(&netstring_limits);
    struct peer peer = admitted(connect_pair(&limits));
    go(&peer);
    assert_int_equal(bus->keeping.count, 0);
}

static void test_what_the_last_one_was_not_sent_comes_first_and_whole(void **state)
{
    (void)state;
    struct peer before = through_narrow(carrier(&netstring_limits));
    wire = (struct wire){ .most = 7 }; /* the second event leaves in part: then nothing can be sent any more */
    multicast("1", TAG);
    multicast("2", TAG);
    relay("3");
    flush_attend(bus);
    uv_run(&loop, UV_RUN_NOWAIT);
    wire.most = 7;
    output_flush(before.client);
    reset(&before);
    wire_open();
    TURN_UNTIL(bus->keeping.count == 1);
    multicast("4", TAG);
    struct peer next = carrier(&netstring_limits);
    char got[64];
    TURN_UNTIL(outq_is_empty(&next.client->out));
    const ssize_t n = recv(next.fd, got, sizeof(got) - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    got[n] = '\0';
    const size_t sent = strlen("1:1,1:2,1:3,1:4,") - (size_t)n;
    assert_string_equal(got, "1:1,1:2,1:3,1:4," + sent); /* whole events up to the last */
    assert_int_equal(sent % FRAME, 0);
    assert_dropped(0);
    go(&next);
}

static void test_a_client_with_the_other_framing_gets_it_in_its_own(void **state)
{
    (void)state;
    struct peer before = carrier(&netstring_limits);
    go(&before);
    multicast("one", TAG);
    relay("two");
    struct peer raw = carrier(&raw_limits);
    assert_receives(&raw, "onetwo");
    go(&raw);
    multicast("three", TAG);
    multicast("0123456789", TAG);
    struct peer next = carrier(&netstring_limits);
    multicast("four", TAG);
    assert_receives(&next, "5:three,10:0123456789,4:four,");
    assert_dropped(0);
    go(&next);
}

/* As it comes from the ring: its time is that of the batch. */
static void relay_in_batch(const char *text, struct client *guest)
{
    struct payload event = payload_of(text, strlen(text));
    event.taken_ns = histogram_clock_ns();
    give_relay(bus, &event, guest);
}

static void relayed_before_the_tag(const struct client_limits *last)
{
    struct peer before = carrier(last);
    go(&before);
    relay_in_batch("1", NULL);
    const struct client_limits limits = keeping(&netstring_limits);
    struct peer next = connect_pair(&limits);
    relay_in_batch("2", next.client);
    give_tag(&next, TAG);
    relay_in_batch("3", next.client);
    admitted(next);
    relay("4");
    assert_receives(&next, "1:1,1:2,1:3,1:4,");
    assert_all_books();
    flush_finish(bus, next.client);
    go(&next);
}

static void test_what_the_route_sent_to_all_before_the_tag_comes_once(void **state)
{
    (void)state;
    relayed_before_the_tag(&netstring_limits);
    relayed_before_the_tag(&raw_limits);
}

/* Two of a group come at once, and one of them is let in first. */
static void test_what_a_route_sends_comes_to_its_client_also_if_another_gets_what_waited(void **state)
{
    (void)state;
    struct peer before = carrier(&netstring_limits);
    go(&before);
    multicast("1", TAG);
    struct peer second = arriving(&netstring_limits);
    struct peer first = arriving(&netstring_limits);
    relay_in_batch("2", second.client);
    unicast_to("3", TAG, second.client);
    relay_in_batch("4", first.client);
    admitted(first);
    admitted(second);
    multicast("5", TAG);
    assert_receives(&first, "1:1,1:2,1:3,1:4,1:5,");
    assert_receives(&second, "1:2,1:5,");
    assert_all_books();
    go(&first);
    go(&second);
}

static void test_what_is_for_one_connection_is_never_kept(void **state)
{
    (void)state;
    struct peer before = stalled(SLOW_DISCONNECT, 1000);
    const uint32_t index = before.client->index;
    multicast("1", TAG);
    assert_int_equal(send_to("2", index, NULL), 1);
    multicast("3", TAG);
    assert_int_equal(send_to("4", index, NULL), 1);
    go(&before);
    wire_open();
    assert_int_equal(waiting(), 2);
    assert_all_books();
    assert_int_equal(send_to("5", index, NULL), 0);
    struct peer next = arriving(&netstring_limits);
    assert_int_equal(send_to("6", next.client->index, next.client), 1);
    assert_int_equal(waiting(), 2);
    admitted(next);
    assert_receives(&next, "1:1,1:3,1:6,");
    assert_all_books();
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 2);
    assert_int_equal(all_dropped(&bus->totals), 2);
    go(&next);
}

/* A route may have given the client another tag before, to say something to it alone. */
static void test_what_is_for_a_former_tag_is_never_kept(void **state)
{
    (void)state;
    const struct client_limits limits = keeping(&netstring_limits);
    for (int group = 0; group < 2; group++) {
        struct peer before = through_narrow(connect_pair(&limits));
        give_tag(&before, "w1");
        unicast_to("0", "w1", before.client);
        give_tag(&before, TAG);
        unicast_to("1", TAG, before.client);
        multicast_to("2", TAG, before.client);
        wire_block();
        admitted(before);
        struct peer other = group ? carrier(&netstring_limits) : before;
        go(&before);
        wire_open();
        if (!group)
            other = carrier(&netstring_limits);
        assert_receives(&other, group ? "1:1," : "1:1,1:2,");
        assert_all_books();
        go(&other);
        kept_close_all(bus);
    }
}

static void test_another_tag_is_no_absence(void **state)
{
    (void)state;
    struct peer peer = carrier(&netstring_limits);
    give_tag(&peer, "u");
    assert_int_equal(bus->keeping.count, 0);
    assert_false(is_present(TAG));
    go(&peer);
    assert_true(is_present("u"));
    struct peer next = arriving(&netstring_limits);
    give_tag(&next, "u");
    give_tag(&next, TAG);
    admitted(next); /* what waits is for the tag that its route gave it last */
    assert_int_equal(kept_one()->tag->length, 1);
    assert_memory_equal(kept_one()->tag->name, "u", 1);
    go(&next);
}

static void test_only_a_client_that_is_being_admitted_gets_it(void **state)
{
    (void)state;
    struct peer before = carrier(&netstring_limits);
    go(&before);
    multicast("1", TAG);
    const struct client_limits limits = keeping(&netstring_limits);
    struct peer other = admitted(connect_pair(&limits));
    give_tag(&other, TAG);
    multicast("2", TAG); /* it is the other one's: nothing more waits */
    assert_receives(&other, "1:2,");
    assert_int_equal(waiting(), 1);
    struct peer next = carrier(&netstring_limits);
    assert_receives(&next, "1:1,");
    assert_dropped(0);
    go(&other);
    go(&next);
}

static void test_a_client_that_is_not_let_in_takes_nothing_away(void **state)
{
    (void)state;
    struct peer before = carrier(&netstring_limits);
    go(&before);
    multicast("1", TAG);
    struct peer refused = arriving(&netstring_limits);
    flush_finish(bus, refused.client);
    turn();
    assert_ends(&refused);
    hang_up(&refused);
    struct peer gone = arriving(&netstring_limits);
    go(&gone);
    multicast("2", TAG);
    struct peer next = carrier(&netstring_limits);
    assert_receives(&next, "1:1,1:2,");
    assert_dropped(0);
    go(&next);
}

/* ---- when a tag is kept ------------------------------------------------------------------------------------------- */

static void test_a_close_is_no_absence(void **state)
{
    (void)state;
    struct peer peer = carrier(&netstring_limits);
    flush_finish(bus, peer.client);
    turn();
    assert_int_equal(bus->keeping.count, 0);
    assert_false(is_present(TAG));
    hang_up(&peer);
    struct peer other = carrier(&netstring_limits);
    flush_leave(bus, other.client);
    turn();
    assert_int_equal(bus->keeping.count, 0);
    hang_up(&other);
}

static void test_at_no_moment_is_nobody_there(void **state)
{
    (void)state;
    struct peer peer = carrier(&netstring_limits);
    const size_t told = up.present_count;
    for (int i = 0; i < 3; i++) {
        go(&peer);
        assert_int_equal(bus->keeping.count, 1);
        peer = carrier(&netstring_limits);
    }
    assert_int_equal(up.present_count, told); /* it was never absent in between */
    go(&peer);
}

static void test_a_reset_and_a_broken_stream_are_an_end(void **state)
{
    (void)state;
    const struct client_limits limits = keeping(&netstring_limits);
    struct peer peer = connect_tcp(&limits, 0);
    give_tag(&peer, TAG);
    admitted(peer);
    reset(&peer);
    TURN_UNTIL(bus->keeping.count == 1);
    struct peer next = carrier(&netstring_limits);
    send_text(&next, "no netstring");
    TURN_UNTIL(bus->keeping.count == 1);
    multicast("1", TAG);
    assert_dropped(0);
    assert_int_equal(waiting(), 1);
    hang_up(&next);
}

static void test_one_that_is_cut_off_leaves_its_queue_and_nothing_more_waits(void **state)
{
    (void)state;
    struct peer slow = stalled(SLOW_DISCONNECT, 3);
    for (int i = 0; i < 5; i++)
        multicast((const char *[]){ "1", "2", "3", "4", "5" }[i], TAG);
    wire_open();
    turn();
    assert_ends(&slow);
    assert_int_equal(waiting(), 3);
    assert_false(is_present(TAG)); /* who would wait for an answer would wait in vain */
    struct peer next = carrier(&netstring_limits);
    assert_true(is_present(TAG));
    multicast("6", TAG);
    assert_receives(&next, "1:1,1:2,1:3,1:6,");
    assert_all_books();
    assert_int_equal(bus->totals.dropped[DROP_SLOW], 1);
    assert_int_equal(bus->totals.dropped[DROP_ABSENT], 1);
    hang_up(&slow);
    go(&next);
}

static void test_the_time_ends_it_and_says_how_much(void **state)
{
    (void)state;
    struct peer peer = carrier(&netstring_limits);
    go(&peer);
    multicast("1", TAG);
    relay("2");
    bus_tick(bus);
    assert_int_equal(waiting(), 2);
    struct client_limits limits = keeping(&netstring_limits);
    limits.keep_absent_ms = 1;
    bus_set_kept_limits(bus, kept_one(), &limits);
    poll(NULL, 0, 5);
    uv_update_time(&loop);
    struct peer next = arriving(&netstring_limits);
    bus_tick(bus); /* but not while a client is about to get it */
    assert_int_equal(waiting(), 2);
    flush_finish(bus, next.client);
    turn();
    bus_tick(bus);
    assert_int_equal(bus->keeping.count, 0);
    assert_false(is_present(TAG));
    assert_dropped(2);
    multicast("3", TAG);
    assert_int_equal(bus->events.no_receiver, 1);
    hang_up(&next);
}

/* ---- limits --------------------------------------------------------------------------------------------------------- */

static void test_a_full_queue_takes_nothing_more(void **state)
{
    (void)state;
    struct peer peer = stalled(SLOW_DROP_NEWEST, 3);
    go(&peer);
    multicast("x", TAG);
    multicast("x", TAG);
    assert_true(is_present(TAG));
    multicast("xx", TAG); /* too large for what is left */
    multicast("x", TAG);
    assert_int_equal(waiting(), 2);
    assert_false(is_present(TAG));
    assert_dropped(2);
    assert_int_equal(bus->keeping.full, 1);
    struct client_limits limits = keeping(&netstring_limits);
    bus_set_kept_limits(bus, kept_one(), &limits); /* to disconnect, with more room: there is a gap by now */
    assert_false(is_present(TAG));
    limits.slow_policy = SLOW_DROP_NEWEST;
    bus_set_kept_limits(bus, kept_one(), &limits);
    assert_true(is_present(TAG));
    assert_int_equal(bus->keeping.full, 0);
    multicast("x", TAG);
    assert_int_equal(waiting(), 3);
    wire_open();
}

static void test_drop_oldest_keeps_the_newest(void **state)
{
    (void)state;
    struct peer peer = stalled(SLOW_DROP_OLDEST, 4);
    go(&peer);
    for (int i = 0; i < 5; i++)
        multicast((const char *[]){ "1", "2", "3", "4", "5" }[i], TAG);
    assert_true(is_present(TAG));
    wire_open();
    struct peer next = carrier(&netstring_limits);
    assert_receives(&next, "1:3,1:4,1:5,");
    assert_dropped(2);
    go(&next);
}

static void test_one_event_may_be_too_large(void **state)
{
    (void)state;
    struct peer peer = stalled(SLOW_DISCONNECT, 3);
    go(&peer);
    multicast("0123456789", TAG);
    multicast("1", TAG);
    assert_int_equal(waiting(), 1);
    assert_int_equal(bus->totals.dropped[DROP_LARGE], 1);
    assert_all_books();
    wire_open();
}

static void test_memory_is_freed_of_what_waits_for_nobody_first(void **state)
{
    (void)state;
    struct peer peer = carrier(&netstring_limits);
    go(&peer);
    struct peer reads_not = through_narrow(admitted(connect_pair(&netstring_limits)));
    give_tag(&reads_not, "u");
    wire_block();
    const struct payload event = big_event(1 << 16, 'x');
    listener.limits = netstring_limits;
    bus_set_limits(bus, 2 << 20);
    for (int i = 0; i < 12; i++)
        give_multicast(bus, &event, "u", 1, NULL);
    for (int i = 0; i < 40; i++)
        give_multicast(bus, &event, TAG, 1, NULL);
    assert_int_equal(outq_events(&reads_not.client->out), 12);
    assert_true(bus->totals.dropped[DROP_ABSENT] > 0);
    assert_int_equal(bus->totals.dropped[DROP_SLOW], 0);
    assert_true(shed_queue_memory() <= 2 << 20);
    assert_all_books();
    wire_open();
    go(&reads_not);
}

static void ignore_presence(void *owner, uint64_t hash, bool present)
{
    (void)owner;
    (void)hash;
    (void)present;
}

static void test_very_many_tags_are_not_kept(void **state)
{
    (void)state;
    char tag[16];
    bus->upstream.present = ignore_presence; /* the rig remembers only a few tags */
    struct peer peer = carrier(&netstring_limits);
    for (unsigned i = 0; i < KEPT_MAX + 2; i++) {
        snprintf(tag, sizeof(tag), "t%u", i);
        bus_tag(bus, peer.client, tag, strlen(tag));
        assert_non_null(kept_begin(bus, peer.client));
    }
    assert_int_equal(bus->keeping.count, KEPT_MAX);
    assert_null(tag_find(&bus->tags, "t1", 2));
    assert_non_null(tag_find(&bus->tags, "t2", 2));
    go(&peer);
}

static void test_many_events_cost_what_they_cost_in_chunks(void **state)
{
    (void)state;
    enum { EVENTS = 100000, BYTES = 200 };
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 64 << 20;
    struct peer peer = carrier(&limits);
    go(&peer);
    const struct payload event = big_event(BYTES, 'x');
    for (int i = 0; i < EVENTS; i++)
        give_multicast(bus, &event, TAG, 1, NULL);
    assert_int_equal(waiting(), EVENTS);
    assert_true(chunk_memory() <= EVENTS * chunk_cost(0, BYTES + 5));
    assert_true(outq_memory() <= 2 * EVENTS * sizeof(struct piece));
    limits.framing = FRAMING_RAW;
    const clock_t begin = clock();
    struct peer next = carrier(&limits);
    print_message("admission with %d events, framed anew: %.1f ms of processor time\n", EVENTS,
                  (double)(clock() - begin) * 1e3 / CLOCKS_PER_SEC);
    assert_int_equal(outq_events(&next.client->out), EVENTS);
    assert_true(chunk_memory() <= EVENTS * (BYTES + sizeof(struct chunk_end)) * 11 / 10);
    assert_all_books();
    reset(&next);
    TURN_UNTIL(bus->keeping.count == 1);
}

static void test_the_listener_is_that_of_the_client_that_went_last(void **state)
{
    (void)state;
    struct peer before = carrier(&netstring_limits);
    go(&before);
    assert_string_equal(kept_listener(kept_one()), "127.0.0.1:8448");
    snprintf(listener.name, sizeof(listener.name), "127.0.0.1:8449");
    const struct client_limits limits = keeping(&netstring_limits);
    struct peer other = admitted(connect_pair(&limits)); /* it gets the tag too late to get what waits */
    give_tag(&other, TAG);
    go(&other);
    assert_string_equal(kept_listener(kept_one()), "127.0.0.1:8449");
}

static void test_what_was_framed_anew_for_a_former_tag_is_not_kept_either(void **state)
{
    (void)state;
    struct peer before = carrier(&netstring_limits);
    go(&before);
    multicast("1", TAG);
    multicast("2", TAG);
    relay("3");
    multicast("4", TAG);
    struct peer raw = through_narrow(arriving(&raw_limits));
    wire_block();
    admitted(raw);
    assert_int_equal(outq_events(&raw.client->out), 4);
    give_tag(&raw, "u");
    multicast("5", "u");
    go(&raw);
    wire_open();
    assert_int_equal(waiting(), 2);
    assert_all_books();
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 3);
    struct peer next = arriving(&netstring_limits);
    give_tag(&next, "u");
    admitted(next);
    assert_receives(&next, "1:3,1:5,");
    go(&next);
}

static void test_events_of_several_kinds_in_turn_take_little_memory_framed_anew(void **state)
{
    (void)state;
    enum { ROUNDS = 300, BYTES = 200 };
    struct peer before = carrier(&netstring_limits);
    go(&before);
    const struct payload event = big_event(BYTES, 'x');
    for (int i = 0; i < ROUNDS; i++) {
        give_relay(bus, &event, NULL);
        give_multicast(bus, &event, TAG, 1, NULL);
        give_unicast(bus, &event, TAG, 1, NULL);
    }
    struct peer next = through_narrow(arriving(&raw_limits));
    wire_block();
    admitted(next);
    assert_int_equal(outq_events(&next.client->out), 3 * ROUNDS);
    assert_true(chunk_memory() <= 3 * ROUNDS * 2 * chunk_cost(0, BYTES));
    assert_all_books();
    go(&next);
    wire_open();
}

static void test_times_that_end_together_take_several_ticks(void **state)
{
    (void)state;
    const char *const tags[] = { "a", "b", "c" };
    struct peer peer = carrier(&netstring_limits);
    struct client_limits limits = keeping(&netstring_limits);
    limits.keep_absent_ms = 1;
    for (size_t i = 0; i < sizeof(tags) / sizeof(*tags); i++) {
        bus_tag(bus, peer.client, tags[i], 1);
        bus_set_kept_limits(bus, kept_begin(bus, peer.client), &limits);
    }
    poll(NULL, 0, 5);
    uv_update_time(&loop);
    for (uint32_t left = 3; left > 0; left--) {
        assert_int_equal(bus->keeping.count, left);
        kept_tick(bus, 0); /* there is no time left */
    }
    assert_int_equal(bus->keeping.count, 0);
    go(&peer);
    kept_close_all(bus);
}

static void test_those_that_are_kept_longest_come_first(void **state)
{
    (void)state;
    const char *const tags[] = { "a", "b", "c", "b", "a" };
    struct peer peer = carrier(&netstring_limits);
    for (size_t i = 0; i < sizeof(tags) / sizeof(*tags); i++) {
        bus_tag(bus, peer.client, tags[i], 1);
        assert_non_null(kept_begin(bus, peer.client));
    }
    const struct kept *kept = bus->keeping.first;
    assert_int_equal(bus->keeping.count, 3);
    for (size_t i = 2; i < sizeof(tags) / sizeof(*tags); i++, kept = kept->next)
        assert_memory_equal(kept->tag->name, tags[i], 1);
    assert_null(kept);
    go(&peer);
    kept_close_all(bus);
}

static void test_an_event_for_all_that_does_not_fit_is_dropped_once(void **state)
{
    (void)state;
    struct peer slow = stalled(SLOW_DISCONNECT, 3);
    for (int i = 0; i < 4; i++)
        relay("x");
    assert_int_equal(waiting(), 3);
    assert_all_books();
    assert_int_equal(bus->totals.relayed, 4);
    assert_int_equal(bus->totals.dropped[DROP_SLOW], 1);
    assert_int_equal(all_dropped(&bus->totals), 1);
    relay("y"); /* this one it was not there for */
    assert_int_equal(bus->totals.relayed, 5);
    assert_int_equal(bus->totals.dropped[DROP_ABSENT], 1);
    assert_all_books();
    wire_open();
    turn();
    hang_up(&slow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_the_next_client_gets_what_waited_and_then_what_comes),
        WITH_BUS(test_without_a_time_nothing_is_kept),
        WITH_BUS(test_a_client_without_a_tag_leaves_nothing),
        WITH_BUS(test_what_the_last_one_was_not_sent_comes_first_and_whole),
        WITH_BUS(test_a_client_with_the_other_framing_gets_it_in_its_own),
        WITH_BUS(test_what_the_route_sent_to_all_before_the_tag_comes_once),
        WITH_BUS(test_what_a_route_sends_comes_to_its_client_also_if_another_gets_what_waited),
        WITH_BUS(test_what_is_for_one_connection_is_never_kept),
        WITH_BUS(test_what_is_for_a_former_tag_is_never_kept),
        WITH_BUS(test_another_tag_is_no_absence),
        WITH_BUS(test_only_a_client_that_is_being_admitted_gets_it),
        WITH_BUS(test_a_client_that_is_not_let_in_takes_nothing_away),
        WITH_BUS(test_a_close_is_no_absence),
        WITH_BUS(test_at_no_moment_is_nobody_there),
        WITH_BUS(test_a_reset_and_a_broken_stream_are_an_end),
        WITH_BUS(test_one_that_is_cut_off_leaves_its_queue_and_nothing_more_waits),
        WITH_BUS(test_the_time_ends_it_and_says_how_much),
        WITH_BUS(test_a_full_queue_takes_nothing_more),
        WITH_BUS(test_drop_oldest_keeps_the_newest),
        WITH_BUS(test_one_event_may_be_too_large),
        WITH_BUS(test_memory_is_freed_of_what_waits_for_nobody_first),
        WITH_BUS(test_very_many_tags_are_not_kept),
        WITH_BUS(test_many_events_cost_what_they_cost_in_chunks),
        WITH_BUS(test_the_listener_is_that_of_the_client_that_went_last),
        WITH_BUS(test_what_was_framed_anew_for_a_former_tag_is_not_kept_either),
        WITH_BUS(test_events_of_several_kinds_in_turn_take_little_memory_framed_anew),
        WITH_BUS(test_times_that_end_together_take_several_ticks),
        WITH_BUS(test_those_that_are_kept_longest_come_first),
        WITH_BUS(test_an_event_for_all_that_does_not_fit_is_dropped_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
