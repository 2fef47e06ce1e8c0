/* Events for one connection, as they come from the ring: an index counts only with the session that assigned it. And
 * which connections Kamailio is told of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "base/state.h"
#include "bus/flush.h"
#include "bus/roster.h"
#include "kamailio/attachment.h"
#include "kamailio/kamailio.h"
#include "kamailio/publish.h"

enum { SESSION = 1000, BEFORE = 999 };

static struct {
    char folder[32];
    uv_loop_t loop;
    struct config config;
    struct ledger ledger;
    struct bus bus;
    struct listeners listeners;
    struct listener listener;
    struct kamailio kamailio;
    struct intake ring; /* only its header is used, for the presence */
    int peers[8];
    uint32_t clients;
} t;

static int set_up(void **state)
{
    (void)state;
    memset(&t, 0, sizeof(t));
    snprintf(t.folder, sizeof(t.folder), "/tmp/evapid-unit-XXXXXX");
    if (mkdtemp(t.folder) == NULL || uv_loop_init(&t.loop) != 0 || ledger_open(&t.ledger) != NULL)
        return -1;
    snprintf(t.config.kamailio_socket, sizeof(t.config.kamailio_socket), "%s/kamailio.sock", t.folder);
    t.config.kamailio_access = (struct door_access){ .mode = 0660, .group = DOOR_OWN_GROUP };
    snprintf(t.listener.name, sizeof(t.listener.name), "127.0.0.1:8448");
    bus_open(&t.bus, &t.loop, &t.ledger);
    t.bus.upstream = kamailio_upstream(&t.kamailio);
    t.listeners.loop = &t.loop;
    t.kamailio.attachment.session = SESSION;
    t.kamailio.attachment.before = BEFORE;
    t.ring.ring.header = calloc(1, sizeof(*t.ring.ring.header));
    return t.ring.ring.header == NULL ||
           kamailio_open(&t.kamailio, &t.loop, &t.config, &t.bus, &t.listeners, (struct kamailio_answerer){ 0 },
                         (struct inherited_door){ .fd = -1 }) != NULL;
}

static int tear_down(void **state)
{
    (void)state;
    t.kamailio.attachment.intake = NULL;
    kamailio_stop(&t.kamailio);
    bus_close(&t.bus);
    kamailio_close(&t.kamailio);
    uv_run(&t.loop, UV_RUN_DEFAULT);
    for (uint32_t i = 0; i < t.clients; i++)
        close(t.peers[i]);
    free(t.ring.ring.header);
    ledger_close(&t.ledger);
    rmdir(t.folder);
    return uv_loop_close(&t.loop) != 0;
}

/* The ring's presence, once it has been published. */
static struct presence *published(void)
{
    t.kamailio.attachment.intake = &t.ring;
    publish_all(&t.kamailio);
    return intake_presence(&t.ring);
}

static struct client *arrive(void)
{
    static const struct client_limits limits = { .framing = FRAMING_NETSTRING, .max_queued_bytes = 4096 };
    struct sockaddr_storage from = { .ss_family = AF_UNSPEC };
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    assert_null(address_parse("[2001:db8::1]:4711", &from));
    const struct remote remote = remote_of_address(&from);
    assert_true(listener_enter(&t.listener, &remote.origin));
    assert_true(bus_connect(&t.bus, ends[0], &remote, &limits, &t.listener));
    t.peers[t.clients++] = ends[1];
    return roster_find(&t.bus, t.bus.last_index);
}

static struct client *arrive_and_be_let_in(void)
{
    struct client *client = arrive();
    bus_admit(&t.bus, client);
    return client;
}

/* How many clients got the event of a record that the ring held. */
static uint64_t give(struct ring_record record)
{
    const struct payload payload = { .part = { "hello", NULL }, .length = { 5, 0 } };
    const uint64_t before = t.bus.totals.relayed;
    record.type = RING_SEND;
    record.payload_length = 5;
    t.kamailio.intake_host.event(t.kamailio.intake_host.owner, &record, "", &payload);
    return t.bus.totals.relayed - before;
}

static void test_an_index_counts_with_the_session_that_assigned_it(void **state)
{
    (void)state;
    const struct client *client = arrive_and_be_let_in();
    arrive_and_be_let_in();
    assert_int_equal(give((struct ring_record){ .session = SESSION, .target = client->index }), 1);
    assert_int_equal(client->tally->relayed, 1);
    assert_int_equal(give((struct ring_record){ .session = BEFORE, .target = client->index }), 1);
    assert_int_equal(client->tally->relayed, 2);
    assert_int_equal(t.bus.events.no_receiver, 0);
    assert_int_equal(give((struct ring_record){ .session = SESSION + 1, .target = client->index }), 0);
    assert_int_equal(give((struct ring_record){ .session = 0, .target = client->index }), 0);
    t.kamailio.attachment.before = 0;
    assert_int_equal(give((struct ring_record){ .session = BEFORE, .target = client->index }), 0);
    assert_int_equal(give((struct ring_record){ .session = 0, .target = client->index }), 0);
    assert_int_equal(t.bus.events.send, 6);
    assert_int_equal(t.bus.events.no_receiver, 4);
}

/* Otherwise the route of a client that outlived a kill could not answer it any more after the next restart. */
static void test_the_session_before_is_known_to_the_next_evapid_too(void **state)
{
    (void)state;
    struct state_out out;
    struct state_in in;
    const struct client *client = arrive_and_be_let_in();
    assert_true(state_begin(&out));
    attachment_save(&t.kamailio, &out);
    const int memfd = state_end(&out);
    assert_true(memfd >= 0);
    t.kamailio.attachment.session = t.kamailio.attachment.before = SESSION + 1;
    assert_null(state_open(&in, memfd));
    assert_true(attachment_load(&t.kamailio, &in) && state_finish(&in) && state_close(&in));
    assert_int_equal(give((struct ring_record){ .session = BEFORE, .target = client->index }), 1);
    assert_int_equal(give((struct ring_record){ .session = SESSION, .target = client->index }), 1);
    assert_int_equal(give((struct ring_record){ .session = SESSION + 1, .target = client->index }), 0);
}

static void test_a_target_that_is_no_index_has_no_receiver(void **state)
{
    (void)state;
    const struct client *client = arrive_and_be_let_in();
    static const uint64_t targets[] = { 0, 2, INT32_MAX, UINT32_MAX, (UINT64_C(1) << 32) + 1, UINT64_MAX };
    for (size_t i = 0; i < sizeof(targets) / sizeof(*targets); i++)
        assert_int_equal(give((struct ring_record){ .session = SESSION, .target = targets[i] }), 0);
    assert_int_equal(client->tally->relayed, 0);
    assert_int_equal(t.bus.events.no_receiver, sizeof(targets) / sizeof(*targets));
}

/* Only the route that admits it may send it something, and only for the evapid that runs: the next one runs it anew. */
static void test_a_client_that_is_being_admitted_is_a_guest_of_its_own_route(void **state)
{
    (void)state;
    const struct client *guest = arrive();
    assert_int_equal(give((struct ring_record){ .session = SESSION, .target = guest->index }), 0);
    assert_int_equal(give((struct ring_record){ .session = BEFORE, .target = guest->index, .worker = RING_GUEST }), 0);
    assert_int_equal(give((struct ring_record){ .session = SESSION, .target = guest->index, .worker = RING_GUEST }), 1);
    assert_int_equal(guest->tally->relayed, 1);
}

static void test_the_connections_that_get_events_are_published(void **state)
{
    (void)state;
    struct client *early = arrive_and_be_let_in();
    struct client *guest = arrive();
    const struct presence *p = published();
    assert_int_equal(p->session, SESSION);
    assert_int_equal(p->before, BEFORE);
    assert_int_equal(t.ledger.header->session, SESSION);
    assert_true(presence_connected(p, early->index));
    assert_false(presence_connected(p, guest->index));
    bus_admit(&t.bus, guest);
    publish_attached(&t.kamailio, true);
    assert_true(presence_connected(p, guest->index) && presence_receives(p, guest->index));
    const uint32_t index = guest->index;
    flush_finish(&t.bus, guest);
    assert_false(presence_connected(p, index) || presence_receives(p, index));
}

/* Another Kamailio lets it in: it is there, but nobody could wait for its answer meanwhile. */
static void test_a_connection_that_is_held_back_once_more_stays_published(void **state)
{
    (void)state;
    struct client *client = arrive_and_be_let_in();
    const uint32_t index = client->index;
    struct presence *p = published();
    publish_attached(&t.kamailio, true);
    arrive_and_be_let_in();
    bus_readmit(&t.bus, client);
    assert_true(presence_connected(p, index));
    assert_false(presence_receives(p, index));
    publish_all(&t.kamailio); /* the other Kamailio's ring */
    assert_true(presence_connected(p, index));
    assert_false(presence_receives(p, index));
    bus_admit(&t.bus, client);
    assert_true(presence_receives(p, index));
    bus_readmit(&t.bus, client);
    flush_finish(&t.bus, client);
    assert_false(presence_connected(p, index));
    assert_true(p->connections[index] == 0);
}

/* What another evapid has left in the ring does not stay there. */
static void test_connections_of_an_earlier_evapid_are_not_published_any_more(void **state)
{
    (void)state;
    struct presence *p = intake_presence(&t.ring);
    presence_connect(p, 1, true);
    presence_connect(p, 2, true);
    presence_receive(p, 2, true);
    const struct client *client = arrive_and_be_let_in();
    assert_ptr_equal(published(), p);
    assert_int_equal(client->index, 1);
    assert_true(presence_connected(p, 1));
    assert_false(presence_connected(p, 2) || presence_connected(p, 1 + PRESENCE_CONNECTION_SLOTS));
}

#define test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_an_index_counts_with_the_session_that_assigned_it),
        test(test_the_session_before_is_known_to_the_next_evapid_too),
        test(test_a_target_that_is_no_index_has_no_receiver),
        test(test_a_client_that_is_being_admitted_is_a_guest_of_its_own_route),
        test(test_the_connections_that_get_events_are_published),
        test(test_a_connection_that_is_held_back_once_more_stays_published),
        test(test_connections_of_an_earlier_evapid_are_not_published_any_more),
    };
    return cmocka_run_group_tests_name("send", tests, NULL, NULL);
}
