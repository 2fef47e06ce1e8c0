/* The bus: in any mixture of events the books balance, and every client is sent what it was given. */
#include "bus/bus_rig.h"

/* ---- everything at once ---------------------------------------------------------------------------------------------- */

#define CROWD 10

static unsigned seed;
static bool memory_runs_out; /* now and then */

static unsigned any(unsigned of)
{
    return (unsigned)rand_r(&seed) % of;
}

/* The next steps may find no memory, at once or soon. */
static void limit_memory(void)
{
    if (memory_runs_out && any(8) == 0)
        memory_limit(any(3));
}

static struct peer join(void)
{
    struct client_limits limits = any(2) == 0 ? netstring_limits : raw_limits;
    limits.max_queued_bytes = any(3) == 0 ? 3000 : 200000;
    limits.max_message_bytes = 1000;
    limits.slow_policy = (enum slow_policy)any(3);
    struct peer peer = any(2) == 0 ? connect_tcp(&limits, any(2) == 0 ? 4096 : 0) : connect_pair(&limits);
    if (any(4) > 0)
        bus_admit(bus, peer.client);
    return peer;
}

static void act_as_peer(struct peer *peer)
{
    static char out[65536];
    switch (any(8)) {
    case 0: send(peer->fd, "5:hello,3:bye,", 14, MSG_DONTWAIT | MSG_NOSIGNAL); break;
    case 1: send(peer->fd, "7:brok", 6, MSG_DONTWAIT | MSG_NOSIGNAL); break;
    case 2:
        if (any(10) == 0)
            shutdown(peer->fd, SHUT_WR);
        break;
    default:
        if (recv(peer->fd, out, any(sizeof(out)), MSG_DONTWAIT) < 0)
            return;
    }
}

static void act_as_upstream(struct client *client)
{
    static const char *const tags[] = { "", "a", "b" };
    const char *tag = tags[any(3)];
    switch (any(12)) {
    case 0:
        limit_memory();
        if (any(3) == 0)
            flush_finish(bus, client);
        break;
    case 1:
        limit_memory();
        bus_readmit(bus, client);
        break;
    case 2:
        if (any(10) == 0)
            client_drop(client, DROP_SLOW);
        break;
    case 3: client_resume(client); break;
    case 4:
    case 5: bus_tag(bus, client, tag, strlen(tag)); break;
    default: bus_admit(bus, client);
    }
    memory_limit(-1);
}

static void act_as_script(void)
{
    const unsigned kind = any(100);
    const struct payload event = big_event(kind == 0 ? 150000 : kind < 5 ? 50000 : any(300), 'e');
    struct client *guest = any(2) == 0 ? NULL : roster_find(bus, 1 + any(CROWD));
    limit_memory();
    switch (any(4)) {
    case 0: give_multicast(bus, &event, "a", 1, guest); break;
    case 1: give_unicast(bus, &event, "b", 1, guest); break;
    default: give_relay(bus, &event, guest);
    }
    memory_limit(-1);
}

/* After any steps in any order: the books balance at every step, and nothing is left at the end. */
static void watch_the_books(void)
{
    size_t most_memory = 0;
    struct peer peers[CROWD + 1] = { { .fd = -1 } };
    for (uint32_t i = 1; i <= CROWD; i++)
        peers[i].fd = -1;
    for (unsigned round = 0; round < 30000; round++) {
        const uint32_t i = 1 + any(CROWD);
        struct client *client = roster_find(bus, i);
        up.take = any(3) == 0 ? 0 : -1;
        if (client == NULL) {
            if (peers[i].fd >= 0)
                hang_up(&peers[i]);
            bus->last_index = i - 1; /* so that it gets this index */
            peers[i] = join();
            assert_int_equal(peers[i].client->index, i);
            up.of[i].heard_length = 0;
        } else if (any(3) == 0) {
            act_as_upstream(client);
        } else if (any(2) == 0) {
            act_as_peer(&peers[i]);
        } else {
            for (unsigned burst = any(10) == 0 ? 20 : 1; burst > 0; burst--)
                act_as_script();
        }
        if (any(4) == 0)
            turn();
        assert_books_balance();
        assert_presence("a");
        assert_presence("b");
        assert_following();
        most_memory = shed_queue_memory() > most_memory ? shed_queue_memory() : most_memory;
    }
    assert_true(bus->closed > 100 && bus->totals.delivered > 1000 && bus->totals.messages > 100);
    assert_true(bus->totals.dropped[DROP_SLOW] > 10 && bus->totals.dropped[DROP_CLOSED] > 10 &&
                bus->totals.dropped[DROP_LARGE] > 10 && bus->totals.messages_dropped[LOSS_CLOSED] > 10);
    /* When nothing is left to drop, an event in each framing may exceed the limit, and rings may grow after it. */
    assert_true(most_memory > 200000 && most_memory / 2 < bus->max_total_queued_bytes);
    for (uint32_t i = 1; i <= CROWD; i++)
        if (peers[i].fd >= 0)
            hang_up(&peers[i]);
}

static void test_the_books_balance_whatever_happens(void **state)
{
    (void)state;
    seed = 4242;
    memory_runs_out = false;
    watch_the_books();
    assert_int_equal(bus->totals.dropped[DROP_MEMORY], 0);
}

/* The books also balance if all queues together have much less room than each one's limit. */
static void test_the_books_balance_when_the_queues_are_crowded(void **state)
{
    (void)state;
    seed = 90210;
    memory_runs_out = false;
    bus->max_total_queued_bytes = 400000;
    watch_the_books();
    assert_int_equal(bus->totals.dropped[DROP_MEMORY], 0);
}

static void test_the_books_balance_when_the_queues_are_crowded_and_memory_runs_out(void **state)
{
    (void)state;
    seed = 1848;
    memory_runs_out = true;
    bus->max_total_queued_bytes = 400000;
    watch_the_books();
    assert_true(bus->totals.dropped[DROP_MEMORY] > 100);
}

/* They also balance if memory runs out, wherever that is. */
static void test_the_books_balance_when_memory_runs_out(void **state)
{
    (void)state;
    seed = 777;
    memory_runs_out = true;
    watch_the_books();
    assert_true(bus->totals.dropped[DROP_MEMORY] > 100);
}

/* ---- every stream, against a model ----------------------------------------------------------------------------------- */

#define ACTORS 8
#define STREAM_MAX ((size_t)1 << 20)
#define STREAM_EVENTS ((size_t)1 << 16)

/* A client, and all that it was given since it connected. */
static struct actor {
    struct peer peer;
    uint32_t index;
    struct client_limits limits;
    bool open;         /* else it is being admitted */
    char *stream;      /* STREAM_MAX */
    size_t *ends;      /* STREAM_EVENTS: where each event ends in it */
    size_t given, got; /* bytes given, bytes that its peer has read */
    size_t events;     /* given */
    uint64_t large;    /* events that were larger than its queue */
    const char *tag;   /* its own tag, or one that others have too */
} actors[ACTORS];

static void actor_comes(unsigned i)
{
    static const char *const tags[ACTORS] = { "m", "0", "m", "1", "m", "2", "m", "3" };
    struct actor *actor = &actors[i];
    actor->limits = any(2) == 0 ? netstring_limits : raw_limits;
    actor->limits.max_queued_bytes = any(3) == 0 ? 300 : any(2) == 0 ? 2000 : 40000;
    bus->last_index = i;
    memset(&up.of[i + 1], 0, sizeof(up.of[i + 1]));
    actor->peer = through_narrow(connect_pair(&actor->limits));
    actor->index = i + 1;
    assert_int_equal(actor->peer.client->index, i + 1);
    actor->open = any(3) > 0;
    if (actor->open)
        bus_admit(bus, actor->peer.client);
    actor->tag = tags[i];
    give_tag(&actor->peer, actor->tag);
    actor->given = actor->got = actor->events = 0;
    actor->large = 0;
}

static size_t actor_queued(const struct actor *actor)
{
    return actor->given - (size_t)actor->peer.client->tally->delivered_bytes;
}

/* The end of the event that is cut in two when this many bytes have been sent. */
static size_t actor_event_end(const struct actor *actor, size_t bytes)
{
    size_t i = 0;
    while (i < actor->events && actor->ends[i] < bytes)
        i++;
    return bytes == 0 ? 0 : actor->ends[i];
}

static void actor_compare(struct actor *actor, const char *bytes, size_t length)
{
    assert_true(actor->got + length <= actor->given);
    assert_memory_equal(bytes, actor->stream + actor->got, length);
    actor->got += length;
}

/* Its stream ends, and its books are closed; another client takes its place. */
static void actor_ends(unsigned i, size_t last, enum drop_reason reason, uint64_t refused)
{
    static char out[STREAM_MAX];
    struct actor *actor = &actors[i];
    const struct tally *tally = &up.of[actor->index].tally;
    wire_open();
    const size_t length = receive_to_end(&actor->peer, out, sizeof(out));
    actor_compare(actor, out, length);
    assert_int_equal(actor->got, last);
    assert_int_equal(up.of[actor->index].gone, 1);
    size_t whole = 0;
    while (whole < actor->events && actor->ends[whole] <= last)
        whole++;
    assert_int_equal(tally->relayed, actor->events + actor->large + refused);
    assert_int_equal(tally->delivered, whole);
    assert_int_equal(tally->dropped[DROP_LARGE], actor->large);
    assert_int_equal(tally->dropped[reason], actor->events - whole + refused);
    assert_int_equal(all_dropped(tally), actor->large + actor->events - whole + refused);
    hang_up(&actor->peer);
    actor_comes(i);
    wire_block();
}

/* Peers read what has arrived. */
static void actors_read(void)
{
    static char out[STREAM_MAX];
    for (unsigned i = 0; i < ACTORS; i++) {
        const ssize_t n = recv(actors[i].peer.fd, out, sizeof(out), MSG_DONTWAIT);
        if (n > 0)
            actor_compare(&actors[i], out, (size_t)n);
    }
}

enum { TO_ALL, TO_SOME, TO_ONE };

/* The effect of an event on a client that is meant to get it. Returns whether it cuts the client off. */
static bool actor_is_given(struct actor *actor, const struct payload *event)
{
    const enum framing framing = actor->limits.framing;
    const size_t size = framing_size(framing, payload_length(event));
    if (size > actor->limits.max_queued_bytes) {
        actor->large++;
        return false;
    }
    if (actor_queued(actor) + size > actor->limits.max_queued_bytes)
        return true;
    assert_true(actor->given + size <= STREAM_MAX && actor->events < STREAM_EVENTS);
    framing_write(framing, actor->stream + actor->given, event);
    actor->given += size;
    actor->ends[actor->events++] = actor->given;
    return false;
}

/* Issue an event. Nothing is sent meanwhile, so it is known which clients have room for it. */
static void actors_event(void)
{
    const unsigned to = any(3) == 0 ? any(2) == 0 ? TO_SOME : TO_ONE : TO_ALL;
    const struct payload event = big_event(1 + any(any(25) == 0 ? 5000 : 200), (char)('a' + any(26)));
    const unsigned at = any(ACTORS);
    struct client *guest = any(2) == 0 ? actors[at].peer.client : NULL;
    const char *tag = to == TO_ONE ? actors[1 + 2 * any(ACTORS / 2)].tag : "m";
    bool cut_off[ACTORS] = { false };
    size_t last[ACTORS] = { 0 };
    for (unsigned i = 0; i < ACTORS; i++) {
        struct actor *actor = &actors[i];
        if ((!actor->open && actor->peer.client != guest) || (to != TO_ALL && strcmp(actor->tag, tag) != 0))
            continue;
        last[i] = actor_event_end(actor, (size_t)actor->peer.client->tally->delivered_bytes);
        cut_off[i] = actor_is_given(actor, &event);
    }
    if (to == TO_ALL)
        give_relay(bus, &event, guest);
    else if (to == TO_SOME)
        give_multicast(bus, &event, tag, strlen(tag), guest);
    else
        give_unicast(bus, &event, tag, strlen(tag), guest);
    for (unsigned i = 0; i < ACTORS; i++)
        if (cut_off[i])
            actor_ends(i, last[i], DROP_SLOW, 1);
        else
            assert_int_equal(up.of[i + 1].gone, 0);
}

/* Send some of the waiting bytes: a few of each client, or all. */
static void actors_flush(void)
{
    wire_open();
    if (any(3) > 0)
        wire = (struct wire){ .most = 1 + any(600), .error = EAGAIN, .fail = any(2) };
    turn();
    turn();
    wire_block();
    actors_read();
}

static void actor_acts(unsigned i)
{
    struct actor *actor = &actors[i];
    struct client *client = actor->peer.client;
    if (any(8) == 0 || actor->given > STREAM_MAX / 2) {
        const size_t sent = (size_t)client->tally->delivered_bytes;
        flush_finish(bus, client);
        actor_ends(i, actor->open ? actor->given : actor_event_end(actor, sent), DROP_CLOSED, 0);
    } else if (actor->open) {
        bus_readmit(bus, client);
        actor->open = false;
    } else {
        bus_admit(bus, client);
        actor->open = true;
    }
}

static void assert_actors(void)
{
    for (unsigned i = 0; i < ACTORS; i++) {
        const struct actor *actor = &actors[i];
        struct client *client = actor->peer.client;
        assert_int_equal(subscription_tally(client)->relayed, actor->events + actor->large);
        assert_int_equal(outq_bytes(&client->out), actor_queued(actor));
        assert_int_equal(outq_events(&client->out), actor->events - client->tally->delivered);
    }
}

/* Events for all, some and one client; guests; clients that are held back, closed, too slow. Each stream is what the
 * client was given: whole events in order. A client is cut off by exactly the event that its queue has no room for. */
static void test_every_client_is_sent_what_it_was_given(void **state)
{
    (void)state;
    uint64_t issued = 0;
    seed = 31337;
    wire_block();
    for (unsigned i = 0; i < ACTORS; i++) {
        actors[i] = (struct actor){ .stream = malloc(STREAM_MAX), .ends = calloc(STREAM_EVENTS, sizeof(size_t)) };
        assert_true(actors[i].stream != NULL && actors[i].ends != NULL);
        actor_comes(i);
    }
    for (unsigned round = 0; round < 20000; round++) {
        const unsigned action = any(100);
        if (action < 70) {
            actors_event();
            issued++;
        } else if (action < 85) {
            turn();
        } else if (action < 95) {
            actors_flush();
        } else {
            actor_acts(any(ACTORS));
        }
        assert_actors();
        assert_books_balance();
        assert_following();
    }
    assert_int_equal(bus->events.relay + bus->events.multicast + bus->events.unicast, issued);
    assert_true(bus->totals.dropped[DROP_SLOW] > 500 && bus->totals.dropped[DROP_LARGE] > 50);
    assert_true(bus->totals.delivered > 20000 && bus->closed > 100);
    for (unsigned i = 0; i < ACTORS; i++) {
        hang_up(&actors[i].peer);
        free(actors[i].stream);
        free(actors[i].ends);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_the_books_balance_whatever_happens),
        WITH_BUS(test_the_books_balance_when_memory_runs_out),
        WITH_BUS(test_the_books_balance_when_the_queues_are_crowded),
        WITH_BUS(test_the_books_balance_when_the_queues_are_crowded_and_memory_runs_out),
        WITH_BUS(test_every_client_is_sent_what_it_was_given),
    };
    return cmocka_run_group_tests_name("bus, books", tests, NULL, NULL);
}
