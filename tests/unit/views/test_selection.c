/* Which clients a request asks for, in which order; and the counts since a reset. */
#include "bus/bus_rig.h"

#include "base/state.h"
#include "views/selection.h"
#include "views/stats.h"

static struct peer connect_from(const char *address)
{
    int ends[2];
    struct peer peer;
    struct sockaddr_storage from = { 0 };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_null(address_parse(address, &from));
    peer.fd = ends[0];
    connect_fd(&peer, ends[1], &from, &netstring_limits);
    return admitted(peer);
}

static struct peer connect_user(uint32_t user)
{
    int ends[2];
    struct peer peer;
    const struct remote remote = remote_of_user(user);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    peer.fd = ends[0];
    connect_remote(&peer, ends[1], &remote, &netstring_limits);
    return admitted(peer);
}

/* The chosen indexes as text, and the number they were chosen from. */
static void assert_chosen(const struct selection *selection, const char *expected)
{
    char text[256] = "";
    size_t chosen = 0;
    size_t matching = 0;
    struct client **clients = selection_make(selection, bus, &chosen, &matching);
    assert_non_null(clients);
    for (size_t i = 0; i < chosen; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%u ", clients[i]->index);
    snprintf(text + strlen(text), sizeof(text) - strlen(text), "of %zu", matching);
    free((void *)clients);
    assert_string_equal(text, expected);
}

static struct selection by_order(enum selection_order order, size_t limit)
{
    return (struct selection){ .order = order, .limit = limit };
}

static void test_clients_are_chosen_by_what_they_are(void **state)
{
    (void)state;
    struct peer peers[] = { connect_from("10.1.2.3:1"), connect_from("[::ffff:10.1.9.9]:2"),
                            connect_from("[2001:db8::5]:3"), connect_tcp(&netstring_limits, 0) };
    give_tag(&peers[0], "blue");
    give_tag(&peers[2], "blues");
    peers[2].client->pace.slow_since_ms = 1;
    struct selection selection = { .limit = SIZE_MAX };
    assert_chosen(&selection, "1 2 3 4 of 4");
    selection.limit = 2;
    assert_chosen(&selection, "1 2 of 4");
    selection = (struct selection){ .limit = SIZE_MAX, .by_tag = true, .tag = "blue", .tag_length = 4 };
    assert_chosen(&selection, "1 of 1");
    selection.tag_length = 0;
    assert_chosen(&selection, "2 4 of 2");
    selection = (struct selection){ .limit = SIZE_MAX, .by_state = true, .state = CLIENT_ADMITTING };
    assert_chosen(&selection, "4 of 1");
    selection = (struct selection){ .limit = SIZE_MAX, .slow = true };
    assert_chosen(&selection, "3 of 1");
    selection = (struct selection){ .limit = SIZE_MAX, .by_address = true };
    static const struct {
        const char *network, *expected;
    } networks[] = { { "10.0.0.0/8", "1 2 of 2" }, { "10.1.2.3", "1 of 1" },      { "2001:db8::/32", "3 of 1" },
                     { "127.0.0.1", "4 of 1" },    { "0.0.0.0/0", "1 2 4 of 3" }, { "::1", "of 0" } };
    for (size_t i = 0; i < sizeof(networks) / sizeof(*networks); i++) {
        assert_null(network_parse(networks[i].network, &selection.address));
        assert_chosen(&selection, networks[i].expected);
    }
    peers[2].client->pace.slow_since_ms = 0;
    for (size_t i = 0; i < 4; i++)
        hang_up(&peers[i]);
}

static void test_clients_at_unix_sockets_are_chosen_by_their_users(void **state)
{
    (void)state;
    struct peer peers[] = { connect_user(1000), connect_from("0.0.3.232:1"), connect_user(0), connect_user(1000) };
    struct selection selection = { .limit = SIZE_MAX, .by_address = true };
    static const struct {
        const char *whom, *expected;
    } wanted[] = { { "unix", "1 3 4 of 3" },  { "unix:1000", "1 4 of 2" }, { "unix:0", "3 of 1" }, { "unix:7", "of 0" },
                   { "0.0.0.0/0", "2 of 1" }, { "0.0.3.232", "2 of 1" },   { "::/0", "of 0" } };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        assert_null(remote_parse(wanted[i].whom, &selection.address));
        assert_chosen(&selection, wanted[i].expected);
    }
    selection = by_order(ORDER_ADDRESS, SIZE_MAX);
    assert_chosen(&selection, "2 3 1 4 of 4");
    for (size_t i = 0; i < 4; i++)
        hang_up(&peers[i]);
}

static void test_clients_stand_in_the_order_that_is_wanted(void **state)
{
    (void)state;
    struct peer peers[] = { open_pair(), open_pair(), open_pair() };
    give_tag(&peers[1], "b");
    give_tag(&peers[2], "ab");
    send_text(&peers[2], "5:hello,");
    TURN_UNTIL(up.of[3].messages == 1);
    multicast("hello", "b");
    turn();
    through_narrow(peers[0]);
    wire_block();
    relay("hello");
    turn();
    static const struct {
        enum selection_order order;
        const char *expected;
    } orders[] = { { ORDER_INDEX, "1 2 3 of 3" },  { ORDER_ADDRESS, "1 2 3 of 3" },  { ORDER_TAG, "3 2 1 of 3" },
                   { ORDER_QUEUED, "1 2 3 of 3" }, { ORDER_DROPPED, "1 2 3 of 3" },  { ORDER_DELIVERED, "2 3 1 of 3" },
                   { ORDER_SENT, "2 3 1 of 3" },   { ORDER_MESSAGES, "3 1 2 of 3" }, { ORDER_RECEIVED, "3 1 2 of 3" } };
    for (size_t i = 0; i < SELECTION_ORDERS; i++) {
        const struct selection selection = by_order(orders[i].order, SIZE_MAX);
        assert_chosen(&selection, orders[i].expected);
    }
    const struct selection first = by_order(ORDER_MESSAGES, 1);
    assert_chosen(&first, "3 of 3");
    wire_open();
    for (size_t i = 0; i < 3; i++)
        hang_up(&peers[i]);
}

static void test_clients_without_traffic_are_chosen_by_how_long(void **state)
{
    (void)state;
    struct peer peers[] = { open_pair(), open_pair(), open_pair() };
    const uint64_t before_ms = uv_now(&loop) - 90000;
    for (size_t i = 0; i < 3; i++) {
        assert_in_range(client_idle_ms(peers[i].client), 0, 80000); /* it has just come */
        peers[i].client->output.sent_ms = before_ms;
    }
    send_text(&peers[1], "5:hello,");
    TURN_UNTIL(up.of[2].messages == 1);
    send_text(&peers[2], "1"); /* not a message yet, but traffic */
    TURN_UNTIL(peers[2].client->input.bytes != NULL);
    assert_in_range(client_idle_ms(peers[0].client), 90000, 900000);
    struct selection selection = by_order(ORDER_INDEX, SIZE_MAX);
    selection.idle_ms = 90000;
    assert_chosen(&selection, "1 of 1");
    selection.idle_ms = 900000;
    assert_chosen(&selection, "of 0");
    selection.idle_ms = 0;
    assert_chosen(&selection, "1 2 3 of 3");
    peers[1].client->input.read_ns -= 90000ULL * 1000000;
    selection.idle_ms = 80000;
    assert_chosen(&selection, "1 2 of 2");
    relay("to all");
    turn();
    assert_chosen(&selection, "of 0");
    for (size_t i = 0; i < 3; i++)
        hang_up(&peers[i]);
}

static void test_names_of_orders_and_states_are_known(void **state)
{
    (void)state;
    enum selection_order order = ORDER_INDEX;
    enum client_state client_state = CLIENT_GONE;
    static const char *const names[] = { "index",     "address", "tag",      "queued",  "dropped",
                                         "delivered", "sent",    "messages", "received" };
    for (int i = 0; i < SELECTION_ORDERS; i++) {
        assert_true(selection_order_find(names[i], &order));
        assert_int_equal(order, i);
        assert_non_null(strstr(SELECTION_ORDER_NAMES, names[i]));
    }
    assert_false(selection_order_find("size", &order));
    assert_true(selection_state_find("admitting", &client_state));
    assert_int_equal(client_state, CLIENT_ADMITTING);
    assert_false(selection_state_find("", &client_state));
}

static void test_without_memory_nothing_is_chosen(void **state)
{
    (void)state;
    size_t chosen = 1;
    size_t matching = 1;
    struct peer peer = open_pair();
    const struct selection all = by_order(ORDER_INDEX, SIZE_MAX);
    for (long calls = 0; calls < 2; calls++) {
        memory_limit(calls);
        assert_null(selection_make(&all, bus, &chosen, &matching));
        assert_int_equal(chosen, 0);
    }
    memory_limit(-1);
    hang_up(&peer);
}

/* ---- counting since a reset --------------------------------------------------------------------------------------- */

static void test_counts_since_a_reset_are_what_has_come_since(void **state)
{
    (void)state;
    struct stats stats = { .since_ms = 0 };
    struct peer peer = open_pair();
    relay("a");
    send_text(&peer, "1:b,");
    TURN_UNTIL(up.of[1].messages == 1);
    struct stats since = stats_since(&stats, bus);
    assert_int_equal(since.since_ms, 0);
    assert_int_equal(since.events.relay, 1);
    assert_int_equal(since.totals.messages, 1);
    stats_reset(&stats, bus);
    since = stats_since(&stats, bus);
    assert_true(since.since_ms > 0);
    assert_int_equal(since.totals.relayed + since.totals.messages + since.accepted + since.events.relay, 0);
    relay("cc");
    unicast("d", "nobody");
    turn();
    since = stats_since(&stats, bus);
    assert_int_equal(since.events.relay, 1);
    assert_int_equal(since.events.no_receiver, 1);
    assert_int_equal(since.totals.relayed, 1);
    assert_int_equal(since.totals.delivered_bytes, 5);
    hang_up(&peer);
    TURN_UNTIL(up.of[1].ended == 1);
}

static void test_a_reset_goes_over_to_a_successor(void **state)
{
    (void)state;
    struct state_out out;
    struct state_in in;
    struct stats stats;
    struct stats loaded = { .since_ms = 0 };
    relay("a");
    stats_reset(&stats, bus);
    assert_true(state_begin(&out));
    stats_save(&stats, &out);
    const int memfd = state_end(&out);
    assert_null(state_open(&in, memfd));
    assert_true(stats_load(&loaded, &in) && state_finish(&in));
    assert_int_equal(in.unknown_count, 0);
    assert_true(state_close(&in));
    assert_memory_equal(&loaded, &stats, sizeof(stats));
    assert_true(state_begin(&out));
    state_put_text(&out, "since-ms", "now");
    assert_null(state_open(&in, state_end(&out)));
    assert_false(stats_load(&loaded, &in));
    state_close(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_clients_are_chosen_by_what_they_are),
        WITH_BUS(test_clients_at_unix_sockets_are_chosen_by_their_users),
        WITH_BUS(test_clients_stand_in_the_order_that_is_wanted),
        WITH_BUS(test_clients_without_traffic_are_chosen_by_how_long),
        WITH_BUS(test_names_of_orders_and_states_are_known),
        WITH_BUS(test_without_memory_nothing_is_chosen),
        WITH_BUS(test_counts_since_a_reset_are_what_has_come_since),
        WITH_BUS(test_a_reset_goes_over_to_a_successor),
    };
    return cmocka_run_group_tests_name("selection", tests, NULL, NULL);
}
