/* Publishing from the control socket: events from a stream that is cut anywhere, and which clients it waits for. */
#include "bus/bus_rig.h"

#include "control/publication.h"

static struct publication *publication;

static void begin(enum event_kind kind, const char *tag)
{
    struct address_label to = { .kind = kind, .tag_length = strlen(tag) };
    memcpy(to.tag, tag, to.tag_length);
    publication = publication_open(&to);
    assert_non_null(publication);
}

/* These bytes arrive. Returns why they are invalid; NULL: they are not. */
static const char *come(const char *bytes, size_t length)
{
    size_t room = 0;
    const char *why = NULL;
    while (length > 0 && why == NULL) {
        char *to = publication_room(publication, &room);
        assert_non_null(to);
        assert_true(room > 0 && room <= PUBLICATION_BATCH);
        const size_t size = length < room ? length : room;
        memcpy(to, bytes, size);
        why = publication_publish(publication, bus, size);
        bytes += size;
        length -= size;
    }
    return why;
}

static void test_a_stream_cut_anywhere_gives_the_same_events(void **state)
{
    (void)state;
    static const char stream[] = "5:hello,0:,\n 3:a\0b,11:hello world,";
    const size_t length = sizeof(stream) - 1;
    struct peer peer = open_pair();
    for (size_t size = 1; size <= length; size++) {
        char out[64];
        begin(EVENT_RELAY, "");
        for (size_t at = 0; at < length; at += size)
            assert_null(come(stream + at, size < length - at ? size : length - at));
        assert_true(publication_is_whole(publication));
        assert_int_equal(publication->events, 4);
        assert_int_equal(publication->event_bytes, 19);
        assert_int_equal(publication->received, 4);
        assert_int_equal(publication->receivers, 4);
        receive(&peer, out, 8 + 3 + 6 + 15);
        assert_memory_equal(out, "5:hello,0:,3:a\0b,11:hello world,", 32);
        publication_close(publication);
    }
    hang_up(&peer);
}

static void test_events_go_to_those_on_the_label(void **state)
{
    (void)state;
    struct peer first = open_pair();
    struct peer second = open_pair();
    give_tag(&first, "blue");
    give_tag(&second, "blue");
    begin(EVENT_MULTICAST, "blue");
    assert_null(come("1:a,", 4));
    publication_close(publication);
    begin(EVENT_UNICAST, "blue");
    assert_null(come("1:b,", 4));
    publication_close(publication);
    begin(EVENT_UNICAST, "green");
    assert_null(come("1:c,", 4));
    assert_int_equal(publication->events, 1);
    assert_int_equal(publication->received, 0);
    publication_close(publication);
    assert_receives(&first, "1:a,1:b,");
    assert_receives(&second, "1:a,");
    assert_int_equal(bus->events.multicast + bus->events.unicast, 3);
    assert_int_equal(bus->events.no_receiver, 1);
    hang_up(&first);
    hang_up(&second);
}

static void test_what_makes_no_sense_ends_it_behind_the_good_events(void **state)
{
    (void)state;
    static const char *const streams[] = { "1:a,x", "1:a,000000000000000000001:b,", "1:a,1:bb", "1:a,1048577:" };
    for (size_t i = 0; i < 4; i++) {
        begin(EVENT_RELAY, "");
        assert_non_null(come(streams[i], strlen(streams[i])));
        assert_int_equal(publication->events, 1);
        publication_close(publication);
    }
    begin(EVENT_RELAY, "");
    assert_null(come("1:a,2:b", 7));
    assert_false(publication_is_whole(publication));
    publication_close(publication);
}

/* The memory for an event grows with its bytes, not with its announced length, and never beyond the largest event. */
static void test_memory_grows_with_what_has_come(void **state)
{
    (void)state;
    static char event[PUBLICATION_EVENT_MAX];
    begin(EVENT_RELAY, "");
    assert_null(come("1048576:", 8));
    assert_int_equal(publication->room, PUBLICATION_BATCH);
    memset(event, 'x', sizeof(event));
    assert_null(come(event, sizeof(event)));
    assert_int_equal(publication->events, 0);
    assert_null(come(",", 1));
    assert_int_equal(publication->events, 1);
    assert_true(publication->room <= 2 * PUBLICATION_EVENT_MAX);
    publication_close(publication);
}

static void test_without_memory_there_is_no_room(void **state)
{
    (void)state;
    size_t room = 0;
    const struct address_label to = { .kind = EVENT_RELAY };
    memory_limit(0);
    assert_null(publication_open(&to));
    memory_limit(-1);
    begin(EVENT_RELAY, "");
    memory_limit(0);
    assert_null(publication_room(publication, &room));
    memory_limit(-1);
    assert_null(come("1:a,", 4));
    assert_int_equal(publication->events, 1);
    publication_close(publication);
}

/* The test moves the time. */
static void pass_ms(uint64_t ms)
{
    const uint64_t then = uv_now(&loop) + ms;
    while (uv_now(&loop) < then) {
        poll(NULL, 0, 10);
        uv_update_time(&loop);
    }
}

static void test_a_client_that_is_behind_is_waited_for_but_not_for_long(void **state)
{
    (void)state;
    struct peer peer = through_narrow(open_pair());
    begin(EVENT_RELAY, "");
    wire_block();
    assert_true(publication_may_go_on(publication, bus));
    for (int i = 0; i < 9; i++) {
        const struct payload event = big_event(1 << 20, 'x');
        give_relay(bus, &event, NULL);
    }
    assert_false(publication_may_go_on(publication, bus));
    pass_ms(PUBLICATION_PATIENCE_MS);
    assert_true(publication_may_go_on(publication, bus));
    wire_open();
    char *out = malloc(10U << 20);
    assert_non_null(out);
    receive(&peer, out, 9 * ((1 << 20) + 9));
    free(out);
    assert_true(publication_may_go_on(publication, bus));
    assert_int_equal(publication->behind_since_ms, 0);
    publication_close(publication);
    hang_up(&peer);
}

static void test_nobody_waits_for_a_client_that_is_passed_over(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.slow_policy = SLOW_DROP_NEWEST;
    limits.max_queued_bytes = 4 << 20;
    struct peer peer = through_narrow(admitted(connect_pair(&limits)));
    begin(EVENT_RELAY, "");
    wire_block();
    for (int i = 0; i < 3; i++) {
        const struct payload event = big_event(1 << 20, 'x');
        give_relay(bus, &event, NULL);
    }
    assert_false(publication_may_go_on(publication, bus));
    for (int i = 0; i < 3; i++) {
        const struct payload event = big_event(1 << 20, 'x');
        give_relay(bus, &event, NULL);
        turn();
    }
    assert_non_null(peer.client->subscription.skipped_by);
    assert_true(publication_may_go_on(publication, bus));
    publication_close(publication);
    wire_open();
    hang_up(&peer);
}

static void test_memory_for_all_queues_is_waited_for(void **state)
{
    (void)state;
    struct peer peer = through_narrow(open_pair());
    bus->max_total_queued_bytes = 4 << 20;
    begin(EVENT_RELAY, "");
    wire_block();
    const struct payload event = big_event(1 << 20, 'x');
    give_relay(bus, &event, NULL);
    assert_true(publication_may_go_on(publication, bus));
    give_relay(bus, &event, NULL);
    assert_false(publication_may_go_on(publication, bus));
    publication_close(publication);
    wire_open();
    hang_up(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_a_stream_cut_anywhere_gives_the_same_events),
        WITH_BUS(test_events_go_to_those_on_the_label),
        WITH_BUS(test_what_makes_no_sense_ends_it_behind_the_good_events),
        WITH_BUS(test_memory_grows_with_what_has_come),
        WITH_BUS(test_without_memory_there_is_no_room),
        WITH_BUS(test_a_client_that_is_behind_is_waited_for_but_not_for_long),
        WITH_BUS(test_nobody_waits_for_a_client_that_is_passed_over),
        WITH_BUS(test_memory_for_all_queues_is_waited_for),
    };
    return cmocka_run_group_tests_name("publication", tests, NULL, NULL);
}
