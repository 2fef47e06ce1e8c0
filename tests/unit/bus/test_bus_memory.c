/* The bus: if memory is short, an event is dropped for its receivers, and counted. A client whose queue cannot be kept
 * as it is sees its connection end, never a stream with a gap. */
#include "bus/bus_rig.h"

/* Run action with memory for only this many calls. */
#define WITHOUT_MEMORY_FROM(calls, action)                                                                             \
    do {                                                                                                               \
        memory_limit(calls);                                                                                           \
        action;                                                                                                        \
        assert_true(memory_refused() > 0);                                                                             \
        memory_limit(-1);                                                                                              \
    } while (0)

/* ---- events ---------------------------------------------------------------------------------------------------------- */

static void test_an_event_for_all_that_cannot_be_kept_is_dropped_for_all(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = admitted(connect_pair(&raw_limits));
    struct peer c = open_pair();
    WITHOUT_MEMORY_FROM(0, relay("lost"));
    assert_int_equal(bus->totals.dropped[DROP_MEMORY], 3);
    assert_int_equal(subscription_tally(a.client)->dropped[DROP_MEMORY], 1);
    assert_books_balance();
    WITHOUT_MEMORY_FROM(1, relay("1")); /* enough for one framing */
    assert_int_equal(bus->totals.dropped[DROP_MEMORY], 4);
    assert_books_balance();
    relay("2");
    assert_receives(&a, "1:1,1:2,");
    assert_receives(&b, "2");
    assert_receives(&c, "1:1,1:2,");
    assert_int_equal(bus->totals.relayed, 9);
    assert_int_equal(bus->events.no_receiver, 0);
    hang_up(&a);
    hang_up(&b);
    hang_up(&c);
}

/* An event that fits into the current chunk needs no memory: a turn like the one before allocates nothing. */
static void test_an_event_for_all_takes_no_memory_in_a_turn_like_the_last(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = open_pair();
    relay("1");
    turn();
    memory_limit(0);
    for (int i = 0; i < 100; i++) {
        relay("2");
        turn();
    }
    assert_int_equal(memory_refused(), 0);
    memory_limit(-1);
    assert_int_equal(bus->totals.delivered, 202);
    hang_up(&a);
    hang_up(&b);
}

static void test_an_event_for_some_that_cannot_be_kept_is_dropped_for_them(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = open_pair();
    give_tag(&a, "x");
    give_tag(&b, "x");
    WITHOUT_MEMORY_FROM(0, multicast("lost", "x"));
    assert_int_equal(bus->totals.dropped[DROP_MEMORY], 2);
    assert_books_balance();
    WITHOUT_MEMORY_FROM(1, multicast("lost too", "x")); /* there is a chunk, but no queue has room for pieces */
    assert_int_equal(bus->totals.dropped[DROP_MEMORY], 4);
    assert_books_balance();
    WITHOUT_MEMORY_FROM(2, multicast("1", "x")); /* one has */
    assert_int_equal(bus->totals.dropped[DROP_MEMORY], 5);
    assert_books_balance();
    WITHOUT_MEMORY_FROM(0, unicast("lost", "x")); /* and no other client gets it instead */
    assert_int_equal(subscription_tally(a.client)->dropped[DROP_MEMORY], 3);
    assert_int_equal(subscription_tally(b.client)->dropped[DROP_MEMORY], 3);
    assert_int_equal(up.admitted, 2); /* that is no reason to disconnect a client */
    multicast("2", "x");
    assert_receives(&a, "1:1,1:2,");
    assert_receives(&b, "1:2,");
    assert_int_equal(bus->events.no_receiver, 0);
    assert_books_balance();
    hang_up(&a);
    hang_up(&b);
}

/* The run's bytes for it cannot become a piece: all of them stay, and only the event is lost. */
static void test_an_event_for_one_that_cannot_be_kept_leaves_its_queue_alone(void **state)
{
    (void)state;
    struct peer a = open_pair();
    give_tag(&a, "x");
    relay("1");
    WITHOUT_MEMORY_FROM(1, unicast("lost", "x"));
    relay("2");
    assert_books_balance();
    assert_receives(&a, "1:1,1:2,");
    assert_int_equal(subscription_tally(a.client)->dropped[DROP_MEMORY], 1);
    hang_up(&a);
}

static void test_a_guest_s_event_that_cannot_be_kept_is_dropped_for_it(void **state)
{
    (void)state;
    struct peer guest = connect_pair(&netstring_limits);
    struct peer a = open_pair();
    relay("0"); /* so that the run has room for what follows */
    WITHOUT_MEMORY_FROM(0, relay_to("1", guest.client));
    assert_int_equal(subscription_tally(guest.client)->dropped[DROP_MEMORY], 1);
    bus_admit(bus, guest.client);
    relay("2");
    assert_receives(&guest, "1:2,");
    assert_receives(&a, "1:0,1:1,1:2,");
    assert_books_balance();
    hang_up(&guest);
    hang_up(&a);
}

/* ---- queues that cannot be kept as they are -------------------------------------------------------------------------- */

/* Only the rest of a begun event may still be sent: then its connection ends at once. */
static void assert_broken_off(struct peer *peer, const char *sent)
{
    char out[64];
    const size_t length = receive_to_end(peer, out, sizeof(out));
    assert_int_equal(length, strlen(sent));
    assert_memory_equal(out, sent, length);
    assert_books_balance();
}

static void test_a_client_that_is_closed_without_memory_ends_at_once(void **state)
{
    (void)state;
    struct peer a = open_pair();
    relay("lost");
    relay("lost");
    WITHOUT_MEMORY_FROM(0, flush_finish(bus, a.client));
    assert_int_equal(up.of[1].gone, 1);
    assert_int_equal(up.admitted, 0);
    assert_int_equal(bus->totals.dropped[DROP_MEMORY], 2);
    assert_broken_off(&a, "");
    hang_up(&a);
}

/* It is held back and then admitted again: it must not continue as if it had missed nothing. */
static void test_a_client_that_is_held_back_without_memory_ends(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = open_pair();
    relay("1");
    turn();
    relay("lost");
    WITHOUT_MEMORY_FROM(0, bus_readmit(bus, a.client));
    assert_int_equal(a.client->state, CLIENT_ADMITTING);
    assert_int_equal(up.admitted, 1);
    assert_int_equal(bus->totals.dropped[DROP_MEMORY], 1);
    assert_broken_off(&a, "1:1,");
    relay_to("2", NULL);
    bus_admit(bus, a.client);
    relay("3");
    assert_int_equal(up.admitted, 1);
    TURN_UNTIL(up.of[1].ended == 1);
    flush_finish(bus, a.client);
    assert_receives(&b, "1:1,4:lost,1:2,1:3,");
    assert_books_balance();
    hang_up(&a);
    hang_up(&b);
}

/* A part of an event was sent, and there is no memory to keep the rest: only the end of the connection can show
 * that. */
static void test_a_slow_client_is_cut_off_without_memory_too(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 16;
    for (int pieces = 0; pieces < 2; pieces++) {
        const struct tally before = bus->totals;
        struct peer a = through_narrow(admitted(connect_pair(&limits)));
        const uint32_t index = a.client->index;
        give_tag(&a, "x");
        wire = (struct wire){ .most = 3, .error = EAGAIN, .fail = 1 };
        if (pieces)
            multicast("hello", "x");
        else
            relay("hello");
        relay("hello");
        turn();
        wire_block();
        WITHOUT_MEMORY_FROM(0, relay("hello"));
        assert_int_equal(up.of[index].gone, 1);
        assert_int_equal(bus->totals.relayed - before.relayed, 3);
        assert_int_equal(all_dropped(&bus->totals) - all_dropped(&before), 3);
        assert_true(bus->totals.dropped[DROP_SLOW] > before.dropped[DROP_SLOW]);
        assert_broken_off(&a, "5:h");
        hang_up(&a);
    }
}

/* An event is too large for it, and it should continue after that one, but cannot. Others get both. */
static void test_a_client_that_is_passed_over_without_memory_ends(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 10;
    struct peer small = admitted(connect_pair(&limits));
    struct peer large = open_pair();
    relay("1");
    WITHOUT_MEMORY_FROM(0, relay("larger than its queue"));
    relay("2");
    assert_int_equal(up.admitted, 1);
    assert_int_equal(small.client->tally->dropped[DROP_LARGE], 1);
    assert_int_equal(small.client->tally->dropped[DROP_MEMORY], 1);
    assert_broken_off(&small, "");
    assert_receives(&large, "1:1,21:larger than its queue,1:2,");
    hang_up(&small);
    hang_up(&large);
}

/* ---- clients --------------------------------------------------------------------------------------------------------- */

/* Wherever memory runs out while a client connects, it is closed, and nothing of it remains. */
static void test_a_client_that_there_is_no_memory_for_is_closed(void **state)
{
    (void)state;
    bool connected = false;
    long calls = 0;
    struct sockaddr_storage address;
    assert_null(address_parse("127.0.0.1:1", &address));
    const struct remote remote = remote_of_address(&address);
    const struct network origin = origin_of(&address);
    assert_true(listener_enter(&listener, &origin));
    for (; !connected; calls++) {
        int ends[2];
        char byte;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
        memory_limit(calls);
        connected = bus_connect(bus, ends[1], &remote, &netstring_limits, &listener);
        memory_limit(-1);
        assert_int_equal(bus->roster.clients != NULL, connected);
        assert_int_equal(bus->accepted, connected);
        if (!connected)
            assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 0);
        close(ends[0]);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_in_range(calls, 3, 10); /* one allocation is not enough */
}

/* libuv would end the process if its table of descriptors could not grow. */
static void test_a_client_whose_descriptor_cannot_be_watched_is_closed(void **state)
{
    (void)state;
    int ends[2];
    char byte;
    struct sockaddr_storage address;
    assert_null(address_parse("127.0.0.1:1", &address));
    const struct remote remote = remote_of_address(&address);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    const int high = fcntl(ends[1], F_DUPFD_CLOEXEC, 900);
    close(ends[1]);
    assert_true(high >= 900 && loop.nwatchers < 900);
    listener.clients = 1;
    WITHOUT_MEMORY_FROM(1, assert_false(bus_connect(bus, high, &remote, &netstring_limits, &listener)));
    listener.clients = 0;
    assert_null(bus->roster.clients);
    assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 0);
    close(ends[0]);
}

static void test_a_message_that_there_is_no_memory_for_ends_its_client(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = open_pair();
    send_text(&a, "5:hel");
    WITHOUT_MEMORY_FROM(0, turn(); turn());
    assert_int_equal(up.of[1].ended, 1);
    assert_int_equal(a.client->state, CLIENT_FINISHING);
    relay("1"); /* it can still send to the end, and still receives */
    assert_receives(&a, "1:1,");
    assert_receives(&b, "1:1,");
    assert_int_equal(up.of[2].ended, 0);
    hang_up(&a);
    hang_up(&b);
}

/* There is no memory to hold messages that the upstream does not accept yet: they are lost and counted, and not offered
 * again. */
static void test_messages_that_there_is_no_memory_to_hold_are_counted(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = admitted(connect_pair(&raw_limits));
    send_text(&a, "1:1,");
    turn();
    up.take = 0;
    send_text(&a, "1:2,1:3,1:4");
    send_text(&b, "raw");
    WITHOUT_MEMORY_FROM(0, turn(); turn());
    up.take = -1;
    assert_int_equal(up.of[1].ended, 1);
    assert_int_equal(up.of[2].ended, 1);
    assert_false(client_has_waiting(a.client) || client_has_waiting(b.client));
    client_resume(a.client);
    client_resume(b.client);
    assert_heard(1, "1");
    assert_int_equal(up.of[2].messages, 0);
    assert_int_equal(subscription_tally(a.client)->messages_dropped[LOSS_MEMORY], 2);
    assert_int_equal(subscription_tally(b.client)->messages_dropped[LOSS_MEMORY], 1);
    assert_int_equal(bus->totals.messages_dropped[LOSS_MEMORY], 3);
    hang_up(&a);
    hang_up(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_an_event_for_all_that_cannot_be_kept_is_dropped_for_all),
        WITH_BUS(test_an_event_for_all_takes_no_memory_in_a_turn_like_the_last),
        WITH_BUS(test_an_event_for_some_that_cannot_be_kept_is_dropped_for_them),
        WITH_BUS(test_an_event_for_one_that_cannot_be_kept_leaves_its_queue_alone),
        WITH_BUS(test_a_guest_s_event_that_cannot_be_kept_is_dropped_for_it),
        WITH_BUS(test_a_client_that_is_closed_without_memory_ends_at_once),
        WITH_BUS(test_a_client_that_is_held_back_without_memory_ends),
        WITH_BUS(test_a_slow_client_is_cut_off_without_memory_too),
        WITH_BUS(test_a_client_that_is_passed_over_without_memory_ends),
        WITH_BUS(test_a_client_that_there_is_no_memory_for_is_closed),
        WITH_BUS(test_a_client_whose_descriptor_cannot_be_watched_is_closed),
        WITH_BUS(test_a_message_that_there_is_no_memory_for_ends_its_client),
        WITH_BUS(test_messages_that_there_is_no_memory_to_hold_are_counted),
    };
    return cmocka_run_group_tests_name("bus, memory", tests, NULL, NULL);
}
