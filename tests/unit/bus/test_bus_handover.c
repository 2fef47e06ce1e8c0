/* The bus: another one goes on with what the first leaves: clients and their input, tags in their order, queues,
 * guests, books. If memory runs out in between, the first stays as it was. */
#include "bus/bus_rig.h"

#include "base/state.h"

static int sockets[CLIENTS + 1]; /* copies of the clients' sockets, by index; -1: none */

/* ---- leaving and coming ---------------------------------------------------------------------------------------------- */

/* Write everything down, as handover.c does; the sockets are copied, as in a hand-over. Returns the memfd. */
static int save(void)
{
    struct state_out out;
    for (size_t i = 0; i <= CLIENTS; i++)
        sockets[i] = -1;
    flush_turn(bus);
    assert_true(state_begin(&out));
    state_put_record(&out, "bus");
    bus_save(bus, &out);
    state_put_end(&out);
    for (struct client *client = bus->roster.clients; client != NULL; client = client->hh.next) {
        state_put_record(&out, "client");
        state_put(&out, "index", client->index);
        state_put(&out, "slot", ledger_number(&ledger, client->slot));
        bus_save_client(client, &out);
        state_put_end(&out);
        if (client->stream.fd >= 0)
            sockets[client->index] = fcntl(client->stream.fd, F_DUPFD_CLOEXEC, 0);
    }
    const int memfd = state_end(&out);
    assert_true(memfd >= 0);
    return memfd;
}

/* End a bus without closing anything: in evapid its process ends. */
static void leave(void)
{
    struct client *client = NULL;
    struct client *next = NULL;
    for (client = bus->roster.clients; client != NULL; client = next) {
        next = client->hh.next;
        tag_remove(&bus->tags, client);
        outq_clear(&client->out);
        free(client->input.bytes);
        HASH_DEL(bus->roster.clients, client);
        client_abandon(client);
    }
    for (int framing = 0; framing < FRAMINGS; framing++)
        run_close(&bus->runs[framing]);
    memset(up.now, 0, sizeof(up.now));
    up.present_count = 0;
    uv_run(&loop, UV_RUN_NOWAIT);
}

static void begin(int memfd)
{
    const struct bus_upstream upstream = bus->upstream;
    ledger_close(&ledger);
    assert_null(ledger_adopt(&ledger, memfd));
    memset(bus, 0, sizeof(*bus));
    bus_open(bus, &loop, &ledger);
    bus->upstream = upstream;
}

static bool load_client(struct state_in *in)
{
    const uint32_t index = (uint32_t)state_get(in, "index", 0);
    struct ledger_slot *slot = ledger_at(&ledger, (uint32_t)state_get(in, "slot", LEDGER_NONE));
    assert_true(slot != NULL && slot->index == index);
    const struct client_limits *limits = slot->framing == FRAMING_RAW ? &raw_limits : &netstring_limits;
    const int fd = sockets[index] >= 0 ? fcntl(sockets[index], F_DUPFD_CLOEXEC, 0) : -1;
    struct client *client = bus_adopt(bus, fd, slot, limits, &listener);
    return client != NULL && bus_load_client(bus, client, in);
}

static bool load(int memfd)
{
    struct state_in in;
    assert_null(state_open(&in, fcntl(memfd, F_DUPFD_CLOEXEC, 0)));
    state_get_record(&in, "bus");
    bool good = bus_load(bus, &in);
    state_get_end(&in);
    while (good && state_get_next(&in, "client")) {
        good = load_client(&in);
        state_get_end(&in);
    }
    good = good && state_finish(&in);
    assert_true(!good || in.unknown_count == 0);
    if (good) {
        const struct event_counts events = bus->events;
        bus_restore_books(bus, &events);
    }
    good = state_close(&in) && good;
    if (good)
        bus_report_gone(bus);
    return good;
}

/* The ring goes on, and with it what upstream was told of each client; of those that were lost it is told anew. */
static void assert_told_as_before(void)
{
    for (uint32_t i = 0; i <= CLIENTS; i++) {
        const struct client *client = roster_find(bus, i);
        struct told *told = &up.of[i];
        if (client != NULL && client->state != CLIENT_GONE)
            assert_true(told->there == client->roster.there && told->receives == client->roster.receives);
        told->there = client != NULL && client->roster.there;
        told->receives = client != NULL && client->roster.receives;
    }
}

static void close_copies(void)
{
    for (size_t i = 0; i <= CLIENTS; i++)
        if (sockets[i] >= 0)
            close(sockets[i]);
}

/* Hand over from one bus to the next, which takes its place. */
static void hand_over(void)
{
    const int memfd = save();
    const int books = fcntl(ledger.memfd, F_DUPFD_CLOEXEC, 0);
    leave();
    begin(books);
    assert_true(load(memfd));
    assert_told_as_before();
    close(memfd);
    close_copies();
}

static struct client *find(uint32_t index)
{
    struct client *client = roster_find(bus, index);
    assert_non_null(client);
    return client;
}

/* ---- one thing at a time --------------------------------------------------------------------------------------------- */

static void test_clients_go_on_both_ways(void **state)
{
    struct peer peers[3] = { open_client(), open_pair(), admitted(connect_tcp(&raw_limits, 0)) };
    (void)state;
    relay("before");
    turn();
    hand_over();
    assert_int_equal(bus->roster.receiver_count, 3);
    assert_int_equal(bus->last_index, 3);
    assert_int_equal(bus->accepted, 3);
    relay("behind");
    for (uint32_t i = 0; i < 3; i++) {
        assert_receives(&peers[i], i < 2 ? "6:before,6:behind," : "beforebehind");
        send_text(&peers[i], i < 2 ? "5:hello," : "hello");
        TURN_UNTIL(up.of[i + 1].messages == 1);
        assert_heard(i + 1, "hello");
    }
    struct peer new = open_client();
    assert_int_equal(new.client->index, 4);
    assert_books_balance();
    assert_following();
    assert_int_equal(bus->totals.delivered, 6);
    assert_int_equal(bus->events.relay, 2);
    for (size_t i = 0; i < 3; i++)
        hang_up(&peers[i]);
    hang_up(&new);
}

static void test_a_client_is_idle_from_the_hand_over_on(void **state)
{
    struct peer peer = open_client();
    (void)state;
    send_text(&peer, "5:hello,");
    TURN_UNTIL(up.of[1].messages == 1);
    find(1)->output.sent_ms -= 90000;
    find(1)->input.read_ns -= 90000ULL * 1000000;
    assert_in_range(client_idle_ms(find(1)), 90000, 900000);
    hand_over();
    assert_in_range(client_idle_ms(find(1)), 0, 80000);
    hang_up(&peer);
}

static void test_a_message_in_two_parts_and_one_that_nobody_took(void **state)
{
    struct peer part = open_client();
    struct peer held = open_client();
    (void)state;
    send_text(&part, " 12:in two");
    TURN_UNTIL(find(1)->input.bytes != NULL);
    up.take = 1;
    send_text(&held, "3:one,3:two,5:three,4:fo");
    TURN_UNTIL(find(2)->input.held);
    hand_over();
    assert_true(find(1)->slot->input_begun && find(2)->slot->input_begun);
    assert_true(client_has_waiting(find(2)));
    send_text(&part, " parts,");
    send_text(&held, "ur,");
    up.take = -1;
    TURN_UNTIL(up.of[1].messages == 1);
    assert_heard(2, "one");
    client_resume(find(2));
    TURN_UNTIL(up.of[2].messages == 4);
    assert_heard(1, "in two parts");
    assert_heard(2, "one|two|three|four");
    assert_int_equal(find(1)->input.offset, 17);
    assert_false(find(1)->slot->input_begun || find(2)->slot->input_begun);
    hang_up(&part);
    hang_up(&held);
}

static void test_what_waits_for_slow_clients_goes_over_whole(void **state)
{
    struct peer peers[4];
    char *got = malloc(16 << 20);
    size_t lengths[4] = { 0 };
    (void)state;
    assert_non_null(got);
    for (size_t i = 0; i < 4; i++) {
        peers[i] = admitted(connect_tcp(i == 3 ? &raw_limits : &netstring_limits, 4096));
        bus_tag(bus, find((uint32_t)i + 1), i < 2 ? "a" : "b", 1);
    }
    for (int i = 0; i < 40; i++) {
        const struct payload event = big_event((size_t)20000 + (size_t)i * 1000, (char)('a' + i % 26));
        if (i % 5 == 1)
            give_multicast(bus, &event, i % 2 == 0 ? "a" : "b", 1, NULL);
        else
            give_relay(bus, &event, NULL);
        if (i % 8 == 7) {
            turn();
            assert_true(outq_bytes(&find(1)->out) > 0);
            hand_over();
            assert_books_balance();
            assert_following();
        }
    }
    for (size_t i = 0; i < 4; i++)
        for (int j = 0; j < 40; j++)
            if (j % 5 != 1 || (j % 2 == 0) == (i < 2))
                lengths[i] += framing_size(i == 3 ? FRAMING_RAW : FRAMING_NETSTRING, (size_t)20000 + (size_t)j * 1000);
    for (size_t i = 0; i < 4; i++) {
        size_t at = 0;
        receive(&peers[i], got, lengths[i]);
        for (int j = 0; j < 40; j++) {
            char *end = got + at;
            const size_t size = (size_t)20000 + (size_t)j * 1000;
            if (j % 5 == 1 && (j % 2 == 0) != (i < 2))
                continue;
            if (i < 3) {
                assert_int_equal(strtoul(got + at, &end, 10), size);
                assert_int_equal(*end++, ':');
            }
            for (size_t k = 0; k < size; k++)
                if (end[k] != 'a' + j % 26)
                    fail_msg("byte %zu of event %d of peer %zu is %d", k, j, i, end[k]);
            assert_true(i == 3 || end[size] == ',');
            at = (size_t)(end - got) + size + (i < 3);
        }
        assert_int_equal(at, lengths[i]);
    }
    TURN_UNTIL(flush_is_done(bus));
    assert_int_equal(bus->totals.delivered, bus->totals.relayed);
    assert_books_balance();
    for (size_t i = 0; i < 4; i++)
        hang_up(&peers[i]);
    free(got);
}

static void test_tags_keep_their_order(void **state)
{
    struct peer peers[5];
    (void)state;
    for (size_t i = 0; i < 5; i++)
        peers[i] = open_client();
    static const uint32_t order[] = { 4, 2, 5, 1, 3 };
    for (size_t i = 0; i < 5; i++)
        bus_tag(bus, find(order[i]), "t", 1);
    bus_tag(bus, find(2), "other", 5);
    bus_tag(bus, find(2), "t", 1); /* it is the last now */
    bus_tag(bus, find(4), "t", 1); /* it keeps its place */
    static const uint32_t expected[] = { 4, 5, 1, 3, 2 };
    for (size_t i = 0; i < 5; i++) {
        hand_over();
        assert_true(is_present("t"));
        assert_false(is_present("other"));
        unicast("first", "t");
        const struct peer *first = &peers[expected[i] - 1];
        assert_receives(first, "5:first,");
        if (i % 2 == 0)
            bus_tag(bus, find(expected[i]), "", 0);
        else
            flush_finish(bus, find(expected[i]));
    }
    turn();
    hand_over();
    assert_false(is_present("t"));
    assert_books_balance();
    for (size_t i = 0; i < 5; i++)
        hang_up(&peers[i]);
}

static void test_whose_turn_it_is_goes_over(void **state)
{
    (void)state;
    struct client_limits turns = netstring_limits;
    turns.unicast_mode = UNICAST_ROUND_ROBIN;
    listener.limits = turns;
    struct peer peers[3] = { open_pair(), open_pair(), open_pair() };
    for (size_t i = 0; i < 3; i++)
        give_tag(&peers[i], "t");
    bus_set_limits(bus, SIZE_MAX);
    unicast("1", "t");
    unicast("2", "t");
    turn();
    hand_over();
    bus_set_limits(bus, SIZE_MAX);
    unicast("3", "t");
    unicast("4", "t");
    assert_receives(&peers[0], "1:1,1:4,");
    assert_receives(&peers[1], "1:2,");
    assert_receives(&peers[2], "1:3,");
    for (size_t i = 0; i < 3; i++)
        hang_up(&peers[i]);
}

static void test_what_waits_for_a_guest_waits_on(void **state)
{
    struct peer guest = connect_tcp(&netstring_limits, 0);
    struct peer other = open_client();
    (void)state;
    const struct payload event = payload_of("welcome", 7);
    give_relay(bus, &event, guest.client);
    turn();
    hand_over();
    assert_int_equal(find(1)->state, CLIENT_ADMITTING);
    assert_int_equal(outq_events(&find(1)->out), 1);
    assert_int_equal(bus->roster.receiver_count, 1);
    give_relay(bus, &event, find(1));
    turn();
    hand_over();
    bus_admit(bus, find(1));
    relay("for all");
    assert_receives(&guest, "7:welcome,7:welcome,7:for all,");
    assert_receives(&other, "7:welcome,7:welcome,7:for all,");
    assert_books_balance();
    hang_up(&guest);
    hang_up(&other);
}

static void test_every_state_of_a_client_goes_over(void **state)
{
    struct peer admitting = connect_tcp(&netstring_limits, 0);
    struct peer finishing = open_client();
    struct peer flushing = far_behind();
    struct peer gone = open_client();
    struct peer again = open_client();
    (void)state;
    up.keep = true;
    send_text(&finishing, "4:last,");
    shutdown(finishing.fd, SHUT_WR);
    TURN_UNTIL(find(2)->state == CLIENT_FINISHING);
    flush_finish(bus, find(3));
    up.take = 0;
    send_text(&gone, "4:held,");
    TURN_UNTIL(client_has_waiting(find(4)));
    client_drop(find(4), DROP_CLOSED);
    bus_readmit(bus, find(5));
    for (int i = 0; i < 3; i++) {
        hand_over();
        assert_int_equal(find(1)->state, CLIENT_ADMITTING);
        assert_int_equal(find(2)->state, CLIENT_FINISHING);
        assert_int_equal(find(3)->state, CLIENT_FLUSHING);
        assert_int_equal(find(4)->state, CLIENT_GONE);
        assert_true(client_has_waiting(find(4)));
        assert_int_equal(find(5)->state, CLIENT_ADMITTING);
        assert_true(find(5)->roster.there && !find(1)->roster.there);
        assert_int_equal(bus->roster.receiver_count, 1);
        assert_int_equal(listener.clients, 5); /* a client that has gone keeps its place while it holds something */
    }
    up.take = -1;
    client_resume(find(4));
    assert_heard(4, "held");
    relay("answer");
    char *got = malloc(9 << 20);
    assert_non_null(got);
    receive(&finishing, got, (size_t)8 * ((1 << 20) + 9)); /* the events that filled the third one's queue */
    assert_receives(&finishing, "6:answer,");
    free(got);
    assert_books_balance();
    release(find(4));
    up.keep = false;
    hang_up(&admitting);
    hang_up(&finishing);
    hang_up(&flushing);
    hang_up(&gone);
    hang_up(&again);
}

static void test_a_client_without_its_socket_is_gone_and_its_queue_lost(void **state)
{
    struct peer slow = far_behind();
    struct peer other = open_client();
    (void)state;
    bus_tag(bus, slow.client, "s", 1);
    relay("one more");
    turn();
    const uint64_t waiting = outq_events(&slow.client->out);
    const uint64_t closed = bus->closed;
    const int memfd = save();
    const int books = fcntl(ledger.memfd, F_DUPFD_CLOEXEC, 0);
    close(sockets[1]);
    sockets[1] = -1;
    leave();
    begin(books);
    listener_note_gone(&listener);
    assert_true(load(memfd));
    close(memfd);
    close_copies();
    assert_told_as_before();
    assert_null(roster_find(bus, 1));
    assert_int_equal(up.of[1].gone, 1);
    assert_int_equal(up.of[1].tally.dropped[DROP_LOST], waiting);
    assert_int_equal(bus->closed, closed + 1);
    assert_false(is_present("s"));
    up.admitted = bus->roster.receiver_count;
    relay("on");
    assert_receives(&other, "8:one more,2:on,");
    assert_books_balance();
    hang_up(&slow);
    hang_up(&other);
}

/* ---- without memory -------------------------------------------------------------------------------------------------- */

/* The successor's memory runs out at some point, and it gives up: sockets and ledger stay as they were, and the next
 * successor gets further. */
static void test_a_successor_without_memory_harms_nobody(void **state)
{
    struct peer peers[4] = { open_client(), far_behind(), open_client(), connect_tcp(&netstring_limits, 0) };
    long calls = 0;
    (void)state;
    bus_tag(bus, find(1), "t", 1);
    send_text(&peers[2], "9:half");
    TURN_UNTIL(find(3)->input.bytes != NULL);
    const int memfd = save();
    const int books = fcntl(ledger.memfd, F_DUPFD_CLOEXEC, 0);
    leave();
    struct tally sum = { 0 };
    for (struct ledger_slot *slot = ledger_next(&ledger, NULL); slot != NULL; slot = ledger_next(&ledger, slot))
        tally_add(&sum, &slot->tally);
    for (bool good = false; !good; calls++) {
        begin(fcntl(books, F_DUPFD_CLOEXEC, 0));
        memory_limit(calls);
        good = load(memfd);
        const bool refused = memory_refused() > 0;
        memory_limit(-1);
        if (!good || refused) { /* tags without memory are lost, and reported */
            assert_true(refused);
            struct tally now = { 0 };
            unsigned clients = 0;
            for (struct ledger_slot *slot = ledger_next(&ledger, NULL); slot != NULL;
                 slot = ledger_next(&ledger, slot)) {
                tally_add(&now, &slot->tally);
                clients++;
            }
            assert_int_equal(clients, 4);
            assert_memory_equal(&now, &sum, sizeof(sum));
            leave();
            good = false;
        }
    }
    assert_in_range(calls, 15, 80);
    close(memfd);
    close(books);
    close_copies();
    for (size_t i = 1; i <= 4; i++)
        assert_int_equal(up.of[i].gone, 0);
    send_text(&peers[2], " over,");
    TURN_UNTIL(up.of[3].messages == 1);
    assert_heard(3, "half over");
    unicast("tagged", "t");
    char *got = malloc(9 << 20);
    assert_non_null(got);
    receive(&peers[0], got, 8 * ((1 << 20) + 9)); /* the events that filled the second one's queue */
    assert_receives(&peers[0], "6:tagged,");
    receive(&peers[1], got, 8 * ((1 << 20) + 9));
    TURN_UNTIL(outq_is_empty(&find(2)->out));
    free(got);
    assert_books_balance();
    for (size_t i = 0; i < 4; i++)
        hang_up(&peers[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_clients_go_on_both_ways),
        WITH_BUS(test_a_client_is_idle_from_the_hand_over_on),
        WITH_BUS(test_a_message_in_two_parts_and_one_that_nobody_took),
        WITH_BUS(test_what_waits_for_slow_clients_goes_over_whole),
        WITH_BUS(test_tags_keep_their_order),
        WITH_BUS(test_whose_turn_it_is_goes_over),
        WITH_BUS(test_what_waits_for_a_guest_waits_on),
        WITH_BUS(test_every_state_of_a_client_goes_over),
        WITH_BUS(test_a_client_without_its_socket_is_gone_and_its_queue_lost),
        WITH_BUS(test_a_successor_without_memory_harms_nobody),
    };
    return cmocka_run_group_tests_name("bus, hand-over", tests, NULL, NULL);
}
