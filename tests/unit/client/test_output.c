/* The bus: how events are sent, and how clients are closed. */
#include "bus/bus_rig.h"

/* ---- ways to the wire -------------------------------------------------------- */

static void test_writes_of_every_size_give_the_same_stream(void **state)
{
    (void)state;
    static const char expected[] = "5:hello,0:,12:a longer one,1:x,";
    for (wire.most = 1; wire.most < sizeof(expected); wire.most++) {
        struct peer a = open_pair();
        a.client->stream.kind = &narrow;
        relay("hello");
        relay("");
        relay("a longer one");
        relay("x");
        assert_receives(&a, expected);
        assert_int_equal(a.client->tally->delivered, 4);
        assert_int_equal(a.client->tally->delivered_bytes, sizeof(expected) - 1);
        assert_int_equal(outq_bytes(&a.client->out), 0);
        flush_finish(bus, a.client);
        hang_up(&a);
    }
    wire.most = SIZE_MAX;
}

static void test_a_write_that_is_interrupted_or_would_block_is_tried_again(void **state)
{
    (void)state;
    static const int errors[] = { EINTR, EAGAIN };
    for (size_t i = 0; i < 2; i++) {
        struct peer a = open_pair();
        a.client->stream.kind = &narrow;
        wire.error = errors[i];
        wire.fail = 0;
        wire.most = 3;
        relay("hello, world");
        assert_receives(&a, "12:hello, world,");
        wire.error = 0;
        wire.most = SIZE_MAX;
        flush_finish(bus, a.client);
        hang_up(&a);
    }
    assert_int_equal(all_dropped(&bus->totals), 0);
}

/* What the ledger says of a write while the kernel takes the bytes. */
static struct {
    const struct ledger_slot *slot;
    uint64_t offered; /* by the last write */
} under_way;

static ssize_t watched_write(struct stream *stream, const struct iovec *iov, int count)
{
    under_way.offered = under_way.slot->offered;
    return narrow_write(stream, iov, count);
}

/* An evapid that goes on after a kill closes a client for which a write was under way, if nothing tells how much of it
 * was sent. So the ledger says it of each write, and only of a write. */
static void test_the_ledger_says_that_a_write_is_under_way(void **state)
{
    (void)state;
    static const struct stream_kind watched = {
        .name = "watched", .read = plain_read, .write = watched_write, .close = plain_close
    };
    struct peer a = open_pair();
    a.client->stream.kind = &watched;
    under_way.slot = a.client->slot;
    wire_block();
    relay("hello");
    turn();
    assert_int_equal(under_way.offered, strlen("5:hello,"));
    assert_int_equal(under_way.slot->offered, 0);
    wire = (struct wire){ .most = 3, .error = EAGAIN, .fail = 1 };
    turn();
    assert_true(under_way.slot->output_begun);
    assert_int_equal(under_way.slot->offered, 0);
    wire_block();
    for (int i = 0; i < 8; i++) {
        const struct payload event = big_event(1 << 20, 'a');
        give_relay(bus, &event, NULL);
    }
    turn();
    assert_int_equal(under_way.offered, LEDGER_OFFERED_PART);
    assert_int_equal(under_way.slot->offered, 0);
    wire_open();
    hang_up(&a);
}

/* A turn's events cost one write for each client. */
static void test_the_events_of_a_turn_leave_in_one_write(void **state)
{
    (void)state;
    static char out[200 * 8];
    struct peer a = open_pair();
    a.client->stream.kind = &narrow;
    wire.writes = 0;
    for (int i = 0; i < 200; i++)
        relay("hello");
    assert_int_equal(wire.writes, 0);
    turn();
    assert_int_equal(wire.writes, 1);
    receive(&a, out, sizeof(out));
    turn();
    assert_int_equal(wire.writes, 1);
    hang_up(&a);
}

/* After a failed write the queued events are lost and counted. Routes still run for the client's messages. */
static void test_messages_of_a_client_are_still_read_after_a_failed_write(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = open_pair();
    a.client->stream.kind = &narrow;
    wire.error = EPIPE;
    wire.fail = 0;
    relay("1");
    relay("2");
    turn();
    wire.error = 0;
    relay("3");
    assert_int_equal(subscription_tally(a.client)->relayed, 2);
    assert_int_equal(a.client->tally->dropped[DROP_CLOSED], 2);
    send_text(&a, "5:hello,");
    TURN_UNTIL(up.of[1].messages == 1);
    assert_receives(&b, "1:1,1:2,1:3,");
    assert_books_balance();
    flush_finish(bus, a.client);
    assert_int_equal(up.of[1].gone, 1);
    hang_up(&a);
    hang_up(&b);
}

/* The client gets no more events, so Kamailio must not count it as a receiver. */
static void test_a_client_whose_write_failed_is_no_receiver(void **state)
{
    (void)state;
    static void (*const issue[])(const char *) = { relay, issue_multicast };
    for (size_t i = 0; i < 2; i++) {
        struct peer a = open_pair();
        give_tag(&a, "x");
        a.client->stream.kind = &narrow;
        wire.error = EPIPE;
        wire.fail = 0;
        relay("1");
        turn();
        wire.error = 0;
        bus->events.no_receiver = 0;
        assert_int_equal(up.admitted, 0);
        issue[i]("2");
        assert_int_equal(bus->events.no_receiver, 1);
        assert_int_equal(up.admitted, 0);
        assert_int_equal(up.present_count, 2 * i + 2);
        assert_present(2 * i + 1, "x", false);
        hang_up(&a);
    }
}

/* evapid takes the client out at the first write that fails: at the end of a turn, when evapid makes room for an event,
 * or when the kernel reports that it can take more. */
static void test_a_client_whose_write_fails_leaves_at_once(void **state)
{
    (void)state;
    enum { TURN_END, ROOM_IN_RUN, ROOM_FOR_ONE, WRITABLE, WAYS };
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 16;
    for (unsigned way = 0; way < WAYS; way++) {
        const struct tally before = bus->totals;
        struct peer a = through_narrow(admitted(connect_pair(&limits)));
        struct peer b = open_pair();
        give_tag(&a, "x");
        relay("hello");
        relay("hello");
        if (way == WRITABLE) {
            wire_block();
            turn();
            assert_true(a.client->output.blocked);
        }
        wire = (struct wire){ .most = SIZE_MAX, .error = EPIPE };
        assert_int_equal(up.admitted, 2);
        if (way == ROOM_IN_RUN)
            relay("hello");
        else if (way == ROOM_FOR_ONE)
            multicast("hello", "x");
        else
            turn();
        wire_open();
        const unsigned events = 2 + (way == ROOM_IN_RUN || way == ROOM_FOR_ONE);
        assert_int_equal(up.admitted, 1);
        assert_false(is_present("x"));
        assert_int_equal(bus->runs[FRAMING_NETSTRING].followers, 1);
        assert_true(a.client->subscription.failed && outq_is_empty(&a.client->out));
        assert_int_equal(subscription_tally(a.client)->relayed, events);
        assert_int_equal(a.client->tally->dropped[DROP_CLOSED], events);
        assert_books_balance();
        assert_following();
        relay("!");
        multicast("?", "x");
        assert_int_equal(subscription_tally(a.client)->relayed, events);
        assert_receives(&b, way == ROOM_IN_RUN ? "5:hello,5:hello,5:hello,1:!," : "5:hello,5:hello,1:!,");
        assert_int_equal(all_dropped(&bus->totals) - all_dropped(&before), events);
        flush_finish(bus, a.client);
        flush_finish(bus, b.client);
        hang_up(&a);
        hang_up(&b);
    }
}

/* evapid announces the client to Kamailio again, and a route admits it. It still gets no events. */
static void test_a_client_whose_write_failed_gets_nothing_when_it_is_admitted_again(void **state)
{
    (void)state;
    struct peer a = through_narrow(open_pair());
    relay("1");
    wire = (struct wire){ .most = SIZE_MAX, .error = EPIPE };
    turn();
    wire_open();
    bus_readmit(bus, a.client);
    bus_admit(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_OPEN);
    assert_int_equal(up.admitted, 0);
    assert_following();
    relay("2");
    assert_int_equal(subscription_tally(a.client)->relayed, 1);
    hang_up(&a);
}

/* The client was being announced again while a frame was half sent. It gets the rest of that frame only. */
static void test_a_client_refused_in_the_middle_of_a_frame_gets_the_rest_of_it(void **state)
{
    (void)state;
    static const char stream_of_two[] = "5:hello,5:world,";
    for (size_t sent = 1; sent <= 16; sent++) {
        char out[32];
        const size_t expected = (sent + 7) / 8 * 8;
        const struct tally before = bus->totals;
        struct peer a = open_pair();
        a.client->stream.kind = &narrow;
        wire = (struct wire){ .most = sent, .error = EAGAIN, .fail = 1 }; /* one write and no more */
        relay("hello");
        relay("world");
        turn();
        bus_readmit(bus, a.client);
        relay_to("secret", a.client);
        wire = (struct wire){ .most = SIZE_MAX };
        flush_finish(bus, a.client);
        receive(&a, out, expected);
        assert_memory_equal(out, stream_of_two, expected);
        assert_ends(&a);
        assert_int_equal(bus->totals.delivered - before.delivered, expected / 8);
        assert_int_equal(bus->totals.dropped[DROP_CLOSED] - before.dropped[DROP_CLOSED], 3 - expected / 8);
        hang_up(&a);
    }
}

/* The stream of a client that is disconnected as slow ends between two frames. */
static void test_a_slow_client_gets_the_rest_of_a_frame_that_has_begun(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 24; /* room for three of 5:hello, */
    for (size_t sent = 0; sent <= 16; sent++) {
        char out[64];
        const size_t expected = (sent + 7) / 8 * 8;
        const struct tally before = bus->totals;
        struct peer a = admitted(connect_pair(&limits));
        const uint32_t index = a.client->index;
        a.client->stream.kind = &narrow;
        wire = (struct wire){ .most = sent, .error = EAGAIN, .fail = sent > 0 }; /* one write and no more */
        for (int i = 0; i < 3; i++)
            relay("hello");
        turn();
        wire = (struct wire){ .most = SIZE_MAX };
        unsigned more = 0;
        while (up.admitted > 0) { /* until one event is too many */
            relay("hello");
            more++;
        }
        assert_int_equal(more, sent / 8 + 1);
        relay("hello");
        assert_int_equal(receive_to_end(&a, out, sizeof(out)), expected);
        for (size_t at = 0; at < expected; at += 8)
            assert_memory_equal(out + at, "5:hello,", 8);
        TURN_UNTIL(up.of[index].gone == 1);
        assert_int_equal(bus->totals.delivered - before.delivered, expected / 8);
        assert_int_equal(bus->totals.dropped[DROP_SLOW] - before.dropped[DROP_SLOW], 3 + more - expected / 8);
        assert_int_equal(bus->totals.relayed - before.relayed, 3 + more);
        hang_up(&a);
    }
}

/* A client that is disconnected because it does not read keeps the messages it has sent. */
static void test_messages_of_a_slow_client_still_reach_the_host(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 8;
    struct peer a = admitted(connect_pair(&limits));
    up.keep = true;
    up.take = 0;
    send_text(&a, "1:a,1:b,1:c,");
    TURN_UNTIL(up.of[1].refused == 1);
    a.client->stream.kind = &narrow;
    wire = (struct wire){ .most = 3, .error = EAGAIN, .fail = 1 };
    relay("hello");
    turn();
    relay("hello");
    assert_int_equal(a.client->state, CLIENT_FLUSHING);
    up.take = 1;
    client_resume(a.client);
    assert_heard(1, "a");
    wire = (struct wire){ .most = SIZE_MAX };
    assert_receives(&a, "5:hello,");
    TURN_UNTIL(a.client->state == CLIENT_GONE);
    up.take = 1;
    client_resume(a.client);
    assert_heard(1, "a|b");
    assert_int_equal(bus->totals.messages_dropped[LOSS_CLOSED], 0);
    release(a.client);
    assert_int_equal(bus->totals.messages_dropped[LOSS_CLOSED], 1);
    hang_up(&a);
}

/* ---- being closed -------------------------------------------------------------------------------------------------- */

static void test_finish_flushes_and_then_closes(void **state)
{
    (void)state;
    enum { EVENTS = 50, LENGTH = 20000, SIZE = LENGTH + 7 };
    static char out[EVENTS * SIZE];
    struct peer a = admitted(connect_tcp(&netstring_limits, 4096));
    give_tag(&a, "x");
    for (unsigned i = 0; i < EVENTS; i++) {
        const struct payload event = big_event(LENGTH, (char)('A' + i));
        give_relay(bus, &event, NULL);
    }
    turn();
    assert_true(a.client->output.blocked);
    flush_finish(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_FLUSHING);
    assert_int_equal(up.admitted, 0);
    relay("too late");
    multicast("too late", "x");
    assert_int_equal(bus->events.no_receiver, 2);
    receive(&a, out, sizeof(out));
    for (unsigned i = 0; i < EVENTS; i++)
        assert_int_equal(out[i * SIZE + 6], 'A' + i);
    assert_ends(&a);
    assert_int_equal(up.of[1].gone, 1);
    assert_int_equal(bus->totals.delivered, EVENTS);
    assert_int_equal(bus->totals.relayed, EVENTS);
    assert_int_equal(bus->closed, 1);
    hang_up(&a);
}

/* The event comes before the close, so the client gets it. */
static void test_an_event_and_a_close_in_one_turn(void **state)
{
    (void)state;
    struct peer a = open_client();
    relay("bye");
    flush_finish(bus, a.client);
    flush_finish(bus, a.client); /* the second call does nothing */
    assert_receives(&a, "3:bye,");
    assert_ends(&a);
    assert_int_equal(up.of[1].gone, 1);
    hang_up(&a);
}

/* A client gets the events that came before its close, and none that came after it. */
static void test_events_and_closes_in_one_turn_keep_their_order(void **state)
{
    (void)state;
    for (int blocked = 0; blocked < 2; blocked++) {
        struct peer a = through_narrow(open_pair());
        struct peer b = through_narrow(admitted(connect_pair(&raw_limits)));
        struct peer c = open_pair();
        const uint32_t first = a.client->index;
        give_tag(&a, "x");
        give_tag(&c, "x");
        if (blocked) {
            wire_block();
            relay("0");
            turn();
        }
        relay("1");
        multicast("2", "x");
        flush_finish(bus, a.client);
        relay("3");
        multicast("4", "x");
        relay("5");
        flush_finish(bus, b.client);
        relay("6");
        unicast("7", "x");
        assert_books_balance();
        assert_following();
        for (int i = 0; i < 3 && blocked; i++) { /* the run continues while the closed clients wait */
            turn();
            relay("8");
            assert_int_equal(up.of[first].gone, 0);
        }
        wire_open();
        assert_receives(&a, blocked ? "1:0,1:1,1:2," : "1:1,1:2,");
        assert_ends(&a);
        assert_receives(&b, blocked ? "0135" : "135");
        assert_ends(&b);
        assert_receives(&c, blocked ? "1:0,1:1,1:2,1:3,1:4,1:5,1:6,1:7,1:8,1:8,1:8," : "1:1,1:2,1:3,1:4,1:5,1:6,1:7,");
        assert_int_equal(all_dropped(&bus->totals), 0);
        flush_finish(bus, c.client);
        hang_up(&a);
        hang_up(&b);
        hang_up(&c);
    }
}

/* While a client is announced again, the run continues without it. The client still gets the events from before. */
static void test_a_client_that_is_readmitted_keeps_its_part_of_the_run(void **state)
{
    (void)state;
    struct peer a = through_narrow(open_pair());
    struct peer b = open_pair();
    wire_block();
    relay("1");
    turn();
    relay("2");
    bus_readmit(bus, a.client);
    for (int i = 0; i < 5; i++) {
        relay("not for a");
        turn();
    }
    bus_admit(bus, a.client);
    relay("3");
    wire_open();
    assert_receives(&a, "1:1,1:2,1:3,");
    assert_books_balance();
    hang_up(&a);
    hang_up(&b);
}

static void test_finish_of_a_client_with_nothing_to_send_closes_at_once(void **state)
{
    (void)state;
    struct peer a = open_client();
    flush_finish(bus, a.client);
    assert_int_equal(up.of[1].gone, 1);
    assert_null(roster_find(bus, 1));
    assert_ends(&a);
    hang_up(&a);
}

static void test_a_client_that_does_not_read_the_rest_in_time_is_closed(void **state)
{
    (void)state;
    struct peer a = far_behind();
    flush_finish(bus, a.client);
    bus_tick(bus);
    assert_int_equal(a.client->state, CLIENT_FLUSHING);
    assert_int_equal(a.client->deadline_ms, uv_now(&loop) + netstring_limits.linger_ms);
    a.client->deadline_ms = uv_now(&loop) + 1;
    bus_tick(bus);
    assert_int_equal(up.of[1].gone, 0);
    a.client->deadline_ms = uv_now(&loop);
    bus_tick(bus);
    flush_turn(bus);
    assert_int_equal(up.of[1].gone, 1);
    assert_int_equal(bus->totals.delivered + bus->totals.dropped[DROP_CLOSED], 8);
    assert_true(bus->totals.dropped[DROP_CLOSED] > 0);
    hang_up(&a);
}

/* Closing a socket with unread input resets the connection. A reset would overtake the last event. */
static void test_the_last_event_arrives_though_the_client_has_sent_more(void **state)
{
    (void)state;
    struct peer a = open_client();
    up.take = 0;
    send_text(&a, "5:hello,");
    TURN_UNTIL(up.of[1].refused > 0);
    for (int i = 0; i < 100; i++)
        send_text(&a, "5:hello,");
    relay("bye");
    flush_finish(bus, a.client);
    assert_receives(&a, "3:bye,");
    assert_ends(&a);
    hang_up(&a);
}

static void test_closing_the_bus_closes_every_client_whatever_its_state(void **state)
{
    (void)state;
    static const char *const names[] = { "admitting", "open", "finishing", "flushing" };
    struct peer peers[4];
    for (int i = 0; i < 4; i++)
        peers[i] = connect_tcp(&netstring_limits, 4096);
    for (int i = 1; i < 4; i++)
        bus_admit(bus, peers[i].client);
    const struct payload event = big_event(8 << 20, 'x');
    give_relay(bus, &event, NULL);
    shutdown(peers[2].fd, SHUT_WR);
    TURN_UNTIL(up.of[3].ended == 1);
    flush_finish(bus, peers[3].client);
    for (int i = 0; i < 4; i++)
        assert_string_equal(client_state_name(peers[i].client->state), names[i]);
    assert_false(flush_is_done(bus));
    bus_close(bus);
    assert_int_equal(bus->closed, 4);
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 3);
    assert_int_equal(up.admitted, 0);
    assert_true(flush_is_done(bus));
    for (int i = 0; i < 4; i++)
        hang_up(&peers[i]);
}

static void test_flush_is_done_when_no_client_has_anything_queued(void **state)
{
    (void)state;
    assert_true(flush_is_done(bus));
    struct peer a = open_client();
    struct peer b = open_client();
    assert_true(flush_is_done(bus));
    give_tag(&b, "x");
    multicast("1", "x");
    assert_false(flush_is_done(bus));
    assert_receives(&b, "1:1,");
    assert_true(flush_is_done(bus));
    hang_up(&a);
    hang_up(&b);
}

/* ---- a turn that has no more time ---------------------------------------------- */

/* Let libuv report the sockets that are ready after the turn's time is over. */
static void poll_in_a_full_turn(void)
{
    bus->flush.polls = (struct slice){ .until_ns = 1, .over = true };
    uv_run(&loop, UV_RUN_NOWAIT);
}

static struct peer open_full(size_t queued)
{
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 1024;
    struct peer peer = through_narrow(admitted(connect_pair(&limits)));
    wire_block();
    const struct payload event = big_event(queued, 'a');
    give_relay(bus, &event, NULL);
    turn();
    assert_true(peer.client->output.blocked && peer.client->output.full);
    return peer;
}

static void test_a_client_that_is_writable_but_postponed_is_not_slow(void **state)
{
    (void)state;
    static char out[2048];
    struct peer a = open_full(900);
    poll_in_a_full_turn();
    assert_true(a.client->roster.postponed);
    wire_open();
    const struct payload event = big_event(900, 'b'); /* no room for it, unless evapid sends first */
    give_relay(bus, &event, NULL);
    assert_int_equal(a.client->state, CLIENT_OPEN);
    assert_int_equal(all_dropped(&bus->totals), 0);
    receive(&a, out, 2 * 905);
    hang_up(&a);
}

static void test_a_client_that_is_readmitted_is_not_sent_what_was_postponed(void **state)
{
    (void)state;
    static char out[905];
    struct peer a = open_full(900);
    poll_in_a_full_turn();
    assert_true(a.client->roster.postponed);
    bus_readmit(bus, a.client);
    wire_open();
    turn();
    turn();
    assert_int_equal(recv(a.fd, out, sizeof(out), MSG_DONTWAIT), -1);
    assert_int_equal(wire.writes, 0);
    bus_admit(bus, a.client);
    receive(&a, out, sizeof(out));
    hang_up(&a);
}

/* evapid sends the event without waiting for a report of the socket. */
static void test_queued_events_are_sent_in_the_turns_in_which_a_client_is_closed(void **state)
{
    (void)state;
    struct peer a = open_pair();
    relay("last");
    flush_leave(bus, a.client);
    turn();
    assert_null(bus->roster.dirty);
    assert_receives(&a, "4:last,");
    assert_ends(&a);
    hang_up(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_writes_of_every_size_give_the_same_stream),
        WITH_BUS(test_a_write_that_is_interrupted_or_would_block_is_tried_again),
        WITH_BUS(test_the_ledger_says_that_a_write_is_under_way),
        WITH_BUS(test_the_events_of_a_turn_leave_in_one_write),
        WITH_BUS(test_messages_of_a_client_are_still_read_after_a_failed_write),
        WITH_BUS(test_a_client_whose_write_failed_is_no_receiver),
        WITH_BUS(test_a_client_whose_write_fails_leaves_at_once),
        WITH_BUS(test_a_client_whose_write_failed_gets_nothing_when_it_is_admitted_again),
        WITH_BUS(test_a_client_refused_in_the_middle_of_a_frame_gets_the_rest_of_it),
        WITH_BUS(test_a_slow_client_gets_the_rest_of_a_frame_that_has_begun),
        WITH_BUS(test_messages_of_a_slow_client_still_reach_the_host),
        WITH_BUS(test_finish_flushes_and_then_closes),
        WITH_BUS(test_an_event_and_a_close_in_one_turn),
        WITH_BUS(test_events_and_closes_in_one_turn_keep_their_order),
        WITH_BUS(test_a_client_that_is_readmitted_keeps_its_part_of_the_run),
        WITH_BUS(test_finish_of_a_client_with_nothing_to_send_closes_at_once),
        WITH_BUS(test_a_client_that_does_not_read_the_rest_in_time_is_closed),
        WITH_BUS(test_the_last_event_arrives_though_the_client_has_sent_more),
        WITH_BUS(test_closing_the_bus_closes_every_client_whatever_its_state),
        WITH_BUS(test_flush_is_done_when_no_client_has_anything_queued),
        WITH_BUS(test_a_client_that_is_writable_but_postponed_is_not_slow),
        WITH_BUS(test_a_client_that_is_readmitted_is_not_sent_what_was_postponed),
        WITH_BUS(test_queued_events_are_sent_in_the_turns_in_which_a_client_is_closed),
    };
    return cmocka_run_group_tests_name("bus, output", tests, NULL, NULL);
}
