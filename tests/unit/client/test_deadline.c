/* The bus: clients that begin a message and do not finish it. No test waits: it moves a message's start into the
 * past. */
#include "bus/bus_rig.h"

#define TIMEOUT_MS 100000U /* far more than a test takes */

static struct peer timed(void)
{
    struct client_limits limits = netstring_limits;
    limits.message_timeout_ms = TIMEOUT_MS;
    return admitted(connect_pair(&limits));
}

/* The peer has sent something and evapid has read it. */
static void send_and_read(const struct peer *peer, const char *text)
{
    const struct client *client = peer->client;
    const uint64_t end = client->input.offset + client->input.end - client->input.start + strlen(text);
    send_text(peer, text);
    TURN_UNTIL(client->input.offset + client->input.end - client->input.start == end);
}

/* Let ms milliseconds pass for a message that has begun, then run a tick. */
static void pass(const struct peer *peer, uint64_t ms)
{
    assert_int_not_equal(peer->client->input.since_ms, 0);
    peer->client->input.since_ms -= ms;
    bus_tick(bus);
}

static void test_a_message_that_is_not_finished_ends_the_client(void **state)
{
    (void)state;
    struct peer a = timed();
    send_and_read(&a, "1:a,5:he");
    pass(&a, TIMEOUT_MS / 2);
    assert_int_equal(a.client->state, CLIENT_OPEN);
    pass(&a, TIMEOUT_MS / 2);
    assert_int_equal(a.client->state, CLIENT_FINISHING); /* routes still run for complete messages */
    assert_int_equal(up.of[1].ended, 1);
    assert_heard(1, "a");
    assert_null(a.client->input.bytes);
    bus_tick(bus);
    assert_int_equal(up.of[1].ended, 1);
    relay("an answer");
    assert_receives(&a, "9:an answer,");
    flush_finish(bus, a.client);
    assert_ends(&a);
    assert_int_equal(all_dropped(&bus->totals), 0);
    assert_int_equal(bus->totals.messages, 1);
    hang_up(&a);
}

/* The time counts from the message's first byte: further bytes do not extend it. */
static void test_a_message_that_comes_too_slowly_ends_the_client_too(void **state)
{
    (void)state;
    static const char text[] = "20:abcdefghijklmnopqr";
    struct peer a = timed();
    for (size_t i = 0; i + 1 < sizeof(text) && a.client->state == CLIENT_OPEN; i++) {
        send_and_read(&a, (const char[]){ text[i], '\0' });
        pass(&a, TIMEOUT_MS / 10);
        assert_int_equal(a.client->state, i + 1 < 10 ? CLIENT_OPEN : CLIENT_FINISHING);
    }
    hang_up(&a);
}

/* The time begins anew with each message. Between two messages there is no time limit. */
static void test_each_message_has_its_own_time(void **state)
{
    (void)state;
    struct peer a = timed();
    send_and_read(&a, "5:he");
    pass(&a, TIMEOUT_MS - TIMEOUT_MS / 10);
    send_and_read(&a, "llo,3:b");
    pass(&a, TIMEOUT_MS - TIMEOUT_MS / 10);
    assert_int_equal(a.client->state, CLIENT_OPEN);
    send_and_read(&a, "ye,");
    assert_int_equal(a.client->input.since_ms, 0);
    assert_int_equal(a.client->input.spent_ms, 0);
    send_and_read(&a, " \r\n "); /* white space begins no message */
    assert_int_equal(a.client->input.since_ms, 0);
    send_and_read(&a, " 1");
    pass(&a, TIMEOUT_MS / 2);
    send_and_read(&a, ":x,  2");
    pass(&a, TIMEOUT_MS - TIMEOUT_MS / 10);
    assert_int_equal(a.client->state, CLIENT_OPEN);
    pass(&a, TIMEOUT_MS / 10);
    assert_int_equal(a.client->state, CLIENT_FINISHING);
    assert_heard(1, "hello|bye|x");
    hang_up(&a);
}

/* While routes are slow, evapid does not read from the client, and that time does not count. */
static void test_time_in_which_the_client_is_not_read_does_not_count(void **state)
{
    (void)state;
    struct peer a = timed();
    send_and_read(&a, "5:he");
    pass(&a, TIMEOUT_MS / 2);
    up.take = 0;
    send_and_read(&a, "llo,3:b");
    assert_true(client_has_waiting(a.client));
    assert_int_equal(a.client->input.since_ms, 0);
    bus_tick(bus);
    client_resume(a.client); /* the host still refuses the message */
    assert_int_equal(a.client->input.since_ms, 0);
    up.take = -1;
    client_resume(a.client);
    assert_int_equal(a.client->input.spent_ms, 0);
    pass(&a, TIMEOUT_MS - TIMEOUT_MS / 10);
    assert_int_equal(a.client->state, CLIENT_OPEN);
    pass(&a, TIMEOUT_MS / 10);
    assert_int_equal(a.client->state, CLIENT_FINISHING);
    hang_up(&a);
}

/* The time before the client was announced again still counts. */
static void test_time_in_which_the_client_is_readmitted_does_not_count(void **state)
{
    (void)state;
    struct peer a = timed();
    send_and_read(&a, "5:he");
    pass(&a, TIMEOUT_MS / 2);
    bus_readmit(bus, a.client);
    assert_int_equal(a.client->input.since_ms, 0);
    assert_in_range(a.client->input.spent_ms, TIMEOUT_MS / 2, TIMEOUT_MS - TIMEOUT_MS / 10);
    bus_tick(bus);
    assert_int_equal(a.client->state, CLIENT_ADMITTING);
    bus_admit(bus, a.client);
    bus_tick(bus);
    assert_int_equal(a.client->state, CLIENT_OPEN);
    pass(&a, TIMEOUT_MS / 2);
    assert_int_equal(a.client->state, CLIENT_FINISHING);
    hang_up(&a);
}

/* If evapid itself is late, input that arrived in time still counts. */
static void test_input_that_came_in_time_is_read_before_the_deadline_is_checked(void **state)
{
    (void)state;
    enum { LENGTH = 150000 };
    static char rest[LENGTH + 1];
    struct peer a = timed();
    memset(rest, 'x', LENGTH);
    rest[LENGTH] = ',';
    send_and_read(&a, "150000:");
    send_bytes(&a, rest, sizeof(rest));
    pass(&a, TIMEOUT_MS);
    assert_int_equal(a.client->state, CLIENT_OPEN);
    assert_int_equal(up.of[1].messages, 1);
    send_and_read(&a, "2:");
    shutdown(a.fd, SHUT_WR); /* the end of input counts in the same way */
    pass(&a, TIMEOUT_MS);
    assert_int_equal(up.of[1].ended, 1);
    hang_up(&a);
}

static void test_there_may_be_no_deadline(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct client_limits limits = raw_limits;
    limits.message_timeout_ms = TIMEOUT_MS;
    struct peer raw = admitted(connect_pair(&limits));
    assert_int_equal(netstring_limits.message_timeout_ms, 0);
    send_and_read(&a, "5:he");
    pass(&a, 1000ULL * TIMEOUT_MS);
    assert_int_equal(a.client->state, CLIENT_OPEN);
    send_text(&raw, "what comes is whole");
    TURN_UNTIL(up.of[2].messages == 1);
    assert_int_equal(raw.client->input.since_ms, 0);
    up.take = 0;
    send_text(&raw, "and held");
    TURN_UNTIL(up.of[2].refused == 1);
    assert_int_equal(raw.client->input.since_ms, 0);
    hang_up(&a);
    hang_up(&raw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_a_message_that_is_not_finished_ends_the_client),
        WITH_BUS(test_a_message_that_comes_too_slowly_ends_the_client_too),
        WITH_BUS(test_each_message_has_its_own_time),
        WITH_BUS(test_time_in_which_the_client_is_not_read_does_not_count),
        WITH_BUS(test_time_in_which_the_client_is_readmitted_does_not_count),
        WITH_BUS(test_input_that_came_in_time_is_read_before_the_deadline_is_checked),
        WITH_BUS(test_there_may_be_no_deadline),
    };
    return cmocka_run_group_tests_name("bus, deadline", tests, NULL, NULL);
}
