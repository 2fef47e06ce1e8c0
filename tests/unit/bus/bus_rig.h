/* What the tests of the bus share: a bus whose clients are real sockets, and a fake upstream.
 *
 * Clients are TCP over loopback, or a socket pair if a test must know that a byte has arrived. The upstream stands for
 * Kamailio's side and remembers what it is told. Each test has its own bus. At its end every client has gone and the
 * books balance. */
#ifndef EVAPID_TEST_BUS_RIG_H
#define EVAPID_TEST_BUS_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/watch.h"
#include "bus/bus.h"
#include "bus/flush.h"
#include "bus/roster.h"
#include "bus/shed.h"
#include "client/books.h"
#include "client/ledger.h"
#include "client/listener.h"
#include "client/output.h"
#include "client/subscription.h"
#include "evapid/presence.h"
#include "give.h"
#include "memory.h"

/* ---- the upstream ------------------------------------------------------------------------------------------------- */

#define CLIENTS 64
#define HEARD_MAX (4U << 20)

/* What the upstream was told about one client, by the client's index. */
struct told {
    unsigned opened, ended, gone;
    char *heard; /* messages, each after its length in four bytes */
    size_t heard_length;
    size_t messages, refused;
    struct tally tally; /* when it had gone */
    bool there, receives;
};

static struct {
    struct told of[CLIENTS + 1];
    long take;         /* messages that it still accepts; negative: all */
    bool refuse;       /* it has no memory for a new client */
    bool keep;         /* it keeps clients that have gone, and releases them itself */
    bool finish_ended; /* it closes a client at once when the client's input has ended */
    unsigned admitted_calls;
    uint32_t admitted;
    struct {
        uint64_t hash;
        bool present;
    } present[256], now[8]; /* what it was first told of tags; and the tags that are present now */
    size_t present_count;
    struct tally past; /* of released clients */
    bool kept;         /* a tag was kept: past lacks its books, and events have moved from client to client */
} up;

static struct bus *bus;
static struct ledger ledger;
static uv_loop_t loop;
static struct listener listener;

static inline struct told *told_of(const struct client *client)
{
    assert_in_range(client->index, 1, CLIENTS);
    return &up.of[client->index];
}

static inline void add_tally(struct tally *sum, const struct tally *t)
{
    sum->relayed += t->relayed;
    sum->delivered += t->delivered;
    sum->delivered_bytes += t->delivered_bytes;
    for (unsigned i = 0; i < DROP_REASONS; i++)
        sum->dropped[i] += t->dropped[i];
    sum->messages += t->messages;
    sum->message_bytes += t->message_bytes;
    sum->messages_delivered += t->messages_delivered;
    for (unsigned i = 0; i < MESSAGE_LOSSES; i++)
        sum->messages_dropped[i] += t->messages_dropped[i];
}

static inline void release(struct client *client)
{
    add_tally(&up.past, subscription_tally(client));
    const struct tally before = bus->totals;
    bus_release(bus, client);
    up.past.messages += bus->totals.messages - before.messages;
    up.past.message_bytes += bus->totals.message_bytes - before.message_bytes;
    for (unsigned i = 0; i < MESSAGE_LOSSES; i++)
        up.past.messages_dropped[i] += bus->totals.messages_dropped[i] - before.messages_dropped[i];
}

static inline bool on_opened(void *owner, struct client *client)
{
    assert_ptr_equal(owner, &up);
    told_of(client)->opened++;
    return !up.refuse;
}

static inline bool on_message(void *owner, struct client *client, const char *bytes, size_t length)
{
    struct told *told = told_of(client);
    const uint32_t size = (uint32_t)length;
    assert_ptr_equal(owner, &up);
    if (up.take == 0) {
        told->refused++;
        return false;
    }
    up.take -= up.take > 0;
    if (told->heard == NULL)
        told->heard = malloc(HEARD_MAX);
    assert_true(told->heard != NULL && told->heard_length + sizeof(size) + length <= HEARD_MAX);
    memcpy(told->heard + told->heard_length, &size, sizeof(size));
    memcpy(told->heard + told->heard_length + sizeof(size), bytes, length);
    told->heard_length += sizeof(size) + length;
    told->messages++;
    return true;
}

static inline void on_ended(void *owner, struct client *client)
{
    assert_ptr_equal(owner, &up);
    told_of(client)->ended++;
    if (up.finish_ended)
        flush_finish(bus, client);
}

static inline void on_gone(void *owner, struct client *client)
{
    assert_ptr_equal(owner, &up);
    assert_int_equal(client->state, CLIENT_GONE);
    told_of(client)->gone++;
    told_of(client)->tally = *subscription_tally(client);
    if (!up.keep)
        release(client);
}

static inline void on_present(void *owner, uint64_t hash, bool present)
{
    assert_ptr_equal(owner, &up);
    if (up.present_count < sizeof(up.present) / sizeof(*up.present)) {
        up.present[up.present_count].hash = hash;
        up.present[up.present_count].present = present;
    }
    up.present_count++;
    size_t i = 0;
    while (up.now[i].hash != hash && up.now[i].hash != 0)
        assert_true(++i < sizeof(up.now) / sizeof(*up.now));
    assert_int_equal(up.now[i].present, !present); /* it is told only of changes */
    up.now[i].hash = hash;
    up.now[i].present = present;
}

static inline void on_connected(void *owner, const struct client *client, bool there)
{
    assert_ptr_equal(owner, &up);
    assert_int_equal(client->roster.there, there);
    assert_int_equal(told_of(client)->there, !there);
    told_of(client)->there = there;
}

static inline void on_admitted(void *owner, const struct client *client, bool receives)
{
    assert_ptr_equal(owner, &up);
    assert_int_equal(client->roster.receives, receives);
    assert_int_equal(told_of(client)->receives, !receives); /* it is told only of changes */
    told_of(client)->receives = receives;
    up.admitted_calls++;
    up.admitted = bus->roster.receiver_count;
}

static inline void on_kept(void *owner)
{
    assert_ptr_equal(owner, &up);
    up.kept = true;
}

static inline void on_commit(void *owner)
{
    assert_ptr_equal(owner, &up);
    bus_commit(bus, 0, 0);
}

static inline bool is_present(const char *tag)
{
    size_t i = 0;
    while (i < 8 && up.now[i].hash != presence_hash(tag, strlen(tag)))
        i++;
    return i < 8 && up.now[i].present;
}

static inline void assert_present(size_t i, const char *tag, bool present)
{
    assert_true(i < up.present_count);
    assert_int_equal(up.present[i].hash, presence_hash(tag, strlen(tag)));
    assert_int_equal(up.present[i].present, present);
}

/* ---- the other end of a client's connection ------------------------------------------------------------------------ */

static const struct client_limits netstring_limits = {
    .framing = FRAMING_NETSTRING, .max_message_bytes = 1 << 20, .max_queued_bytes = 16 << 20, .linger_ms = 10000
};
static const struct client_limits raw_limits = {
    .framing = FRAMING_RAW, .max_message_bytes = 1 << 20, .max_queued_bytes = 16 << 20, .linger_ms = 10000
};

struct peer {
    int fd;
    struct client *client; /* until it is released */
};

static int listening = -1; /* where peers connect */

static inline int open_listening(void)
{
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return listening < 0 || bind(listening, (struct sockaddr *)&any, sizeof(any)) != 0 || listen(listening, 64) != 0;
}

static inline void connect_remote(struct peer *peer, int fd, const struct remote *remote,
                                  const struct client_limits *limits)
{
    assert_true(listener_enter(&listener, &remote->origin));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    assert_true(bus_connect(bus, fd, remote, limits, &listener));
    peer->client = roster_find(bus, bus->last_index);
    assert_non_null(peer->client);
}

static inline void connect_fd(struct peer *peer, int fd, const struct sockaddr_storage *address,
                              const struct client_limits *limits)
{
    const struct remote remote = remote_of_address(address);
    connect_remote(peer, fd, &remote, limits);
}

/* A client over TCP, admitting. buffer: bytes of its socket's buffers, to fill them fast; 0: the system's default. */
static inline struct peer connect_tcp(const struct client_limits *limits, int buffer)
{
    struct peer peer = { .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
    struct sockaddr_storage address = { 0 };
    socklen_t size = sizeof(address);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&address, &size), 0);
    if (buffer > 0)
        setsockopt(peer.fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    assert_int_equal(connect(peer.fd, (struct sockaddr *)&address, size), 0);
    size = sizeof(address);
    const int fd = accept4(listening, (struct sockaddr *)&address, &size, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    if (buffer > 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    connect_fd(&peer, fd, &address, limits);
    return peer;
}

/* A client over a socket pair: what one side has written can be read on the other at once. */
static inline struct peer connect_pair(const struct client_limits *limits)
{
    int ends[2];
    struct peer peer;
    struct sockaddr_storage address = { 0 };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_null(address_parse("[2001:db8::1]:4711", &address));
    peer.fd = ends[0];
    connect_fd(&peer, ends[1], &address, limits);
    return peer;
}

static inline struct peer admitted(struct peer peer)
{
    bus_admit(bus, peer.client);
    return peer;
}

static inline struct peer open_client(void)
{
    return admitted(connect_tcp(&netstring_limits, 0));
}

static inline struct peer open_pair(void)
{
    return admitted(connect_pair(&netstring_limits));
}

/* A turn of the loop, as evapid does it. */
static inline void turn(void)
{
    uv_run(&loop, UV_RUN_NOWAIT);
    do {
        flush_attend(bus);
        flush_turn(bus);
    } while (flush_is_behind(bus));
}

/* Turn until the condition holds; the limit only ends a test that would never end. */
#define TURN_UNTIL(condition)                                                                                          \
    do {                                                                                                               \
        for (unsigned turns_ = 0; !(condition); turns_++) {                                                            \
            if (turns_ == 20000)                                                                                       \
                fail_msg("in vain: %s", #condition);                                                                   \
            turn();                                                                                                    \
            if (turns_ > 100)                                                                                          \
                poll(NULL, 0, 1);                                                                                      \
        }                                                                                                              \
    } while (0)

static inline void send_bytes(const struct peer *peer, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        const ssize_t n = send(peer->fd, at, length, MSG_NOSIGNAL);
        assert_true(n > 0);
        at += n;
        length -= (size_t)n;
    }
}

static inline void send_text(const struct peer *peer, const char *text)
{
    send_bytes(peer, text, strlen(text));
}

/* Read length bytes while the bus gets turns. */
static inline void receive(const struct peer *peer, char *out, size_t length)
{
    size_t got = 0;
    while (got < length) {
        ssize_t n = 0;
        TURN_UNTIL((n = recv(peer->fd, out + got, length - got, MSG_DONTWAIT)) >= 0 || errno != EAGAIN);
        if (n <= 0)
            fail_msg("%zu bytes and then %s, expected %zu", got, n == 0 ? "the end" : strerror(errno), length);
        got += (size_t)n;
    }
}

static inline void assert_receives(const struct peer *peer, const char *text)
{
    char out[512];
    const size_t length = strlen(text);
    assert_true(length < sizeof(out));
    receive(peer, out, length);
    out[length] = '\0';
    assert_string_equal(out, text);
}

/* The stream ends, with nothing before its end. */
static inline void assert_ends(const struct peer *peer)
{
    char byte;
    ssize_t n = 0;
    TURN_UNTIL((n = recv(peer->fd, &byte, 1, MSG_DONTWAIT)) >= 0 || errno != EAGAIN);
    assert_int_equal(n, 0);
}

/* The upstream was told these messages in this order; expected separates them by bars. */
static inline void assert_heard(uint32_t index, const char *expected)
{
    const struct told *told = &up.of[index];
    const char *at = expected;
    size_t n = 0;
    for (size_t i = 0; i < told->heard_length; n++) {
        uint32_t length;
        memcpy(&length, told->heard + i, sizeof(length));
        i += sizeof(length);
        if (strcspn(at, "|") != length || memcmp(at, told->heard + i, length) != 0)
            fail_msg("message %zu is %.*s, expected %s", n, (int)length, told->heard + i, at);
        i += length;
        at += length;
        at += *at == '|';
    }
    assert_string_equal(at, "");
    assert_int_equal(n, told->messages);
}

/* Read until the connection ends; returns the bytes. */
static inline size_t receive_to_end(const struct peer *peer, char *out, size_t room)
{
    size_t got = 0;
    for (;;) {
        ssize_t n = 0;
        assert_true(got < room);
        TURN_UNTIL((n = recv(peer->fd, out + got, room - got, MSG_DONTWAIT)) >= 0 || errno != EAGAIN);
        if (n <= 0)
            return got;
        got += (size_t)n;
    }
}

static inline void hang_up(struct peer *peer)
{
    close(peer->fd);
    peer->fd = -1;
}

static inline void reset(struct peer *peer)
{
    const struct linger now = { .l_onoff = 1, .l_linger = 0 };
    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    hang_up(peer);
}

/* ---- a stream that accepts what it likes ----------------------------------------------------------------------- */

static struct wire {
    size_t most;   /* the most bytes that a write accepts; 0: it would block */
    int error;     /* not 0: every other write fails with it */
    unsigned fail; /* counts them */
    unsigned writes;
} wire = { .most = SIZE_MAX };

static inline ssize_t narrow_write(struct stream *stream, const struct iovec *iov, int count)
{
    wire.writes++;
    if (wire.most == 0 || (wire.error != 0 && wire.fail++ % 2 == 0)) {
        errno = wire.most == 0 ? EAGAIN : wire.error;
        return -1;
    }
    struct iovec some[IOV_MAX > 1024 ? 1024 : IOV_MAX];
    size_t room = wire.most;
    int n = 0;
    for (; n < count && room > 0; n++) {
        some[n] = iov[n];
        if (some[n].iov_len > room)
            some[n].iov_len = room;
        room -= some[n].iov_len;
    }
    return stream_tcp.write(stream, some, n);
}

static inline ssize_t plain_read(struct stream *stream, void *bytes, size_t room)
{
    return stream_tcp.read(stream, bytes, room);
}

static inline void plain_close(struct stream *stream)
{
    stream_tcp.close(stream);
}

static const struct stream_kind narrow = { .read = plain_read, .write = narrow_write, .close = plain_close };

static inline struct peer through_narrow(struct peer peer)
{
    peer.client->stream.kind = &narrow;
    return peer;
}

/* wire_block: nothing leaves through the narrow stream, as if no peer read. wire_open: everything leaves again. */
static inline void wire_block(void)
{
    wire = (struct wire){ .most = 0 };
}

static inline void wire_open(void)
{
    wire = (struct wire){ .most = SIZE_MAX };
}

/* ---- events -------------------------------------------------------------------------------------------------------- */

/* An event as it may lie in the ring: in two parts. */
static inline struct payload payload_of(const char *bytes, size_t length)
{
    const size_t first = length / 3;
    return (struct payload){ .part = { bytes, bytes + first }, .length = { first, length - first } };
}

/* An event of this many equal bytes; valid until the next one is made. */
static inline struct payload big_event(size_t length, char with)
{
    static char bytes[8U << 20];
    assert_true(length <= sizeof(bytes));
    memset(bytes, with, length);
    return payload_of(bytes, length);
}

static inline void relay_to(const char *text, struct client *guest)
{
    const struct payload event = payload_of(text, strlen(text));
    give_relay(bus, &event, guest);
}

static inline void relay(const char *text)
{
    relay_to(text, NULL);
}

static inline void multicast_to(const char *text, const char *tag, struct client *guest)
{
    const struct payload event = payload_of(text, strlen(text));
    give_multicast(bus, &event, tag, strlen(tag), guest);
}

static inline void multicast(const char *text, const char *tag)
{
    multicast_to(text, tag, NULL);
}

static inline void unicast_to(const char *text, const char *tag, struct client *guest)
{
    const struct payload event = payload_of(text, strlen(text));
    give_unicast(bus, &event, tag, strlen(tag), guest);
}

static inline void unicast(const char *text, const char *tag)
{
    unicast_to(text, tag, NULL);
}

static inline uint32_t send_to(const char *text, uint32_t index, struct client *guest)
{
    const struct payload event = payload_of(text, strlen(text));
    return give_send(bus, &event, index, guest);
}

static inline void issue_multicast(const char *text)
{
    multicast(text, "x");
}

static inline void issue_unicast(const char *text)
{
    unicast(text, "x");
}

static inline void give_tag(const struct peer *peer, const char *tag)
{
    bus_tag(bus, peer->client, tag, strlen(tag));
}

/* ---- the books ----------------------------------------------------------------------------------------------------- */

static inline uint64_t all_dropped(const struct tally *tally)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < DROP_REASONS; i++)
        sum += tally->dropped[i];
    return sum;
}

/* For each client and for all together: relayed = delivered + queued + dropped. And the totals are the sum of the
 * clients. */
static inline void assert_books_balance(void)
{
    struct tally sum = up.past;
    uint64_t queued = 0;
    for (struct client *client = bus->roster.clients; client != NULL; client = client->hh.next) {
        const struct tally *tally = subscription_tally(client);
        const uint64_t waiting = outq_events(&client->out);
        assert_int_equal(tally->relayed, tally->delivered + waiting + all_dropped(tally));
        queued += waiting;
        add_tally(&sum, tally);
    }
    assert_int_equal(bus->totals.relayed, bus->totals.delivered + queued + all_dropped(&bus->totals));
    assert_memory_equal(&bus->totals, &sum, sizeof(sum));
}

/* Every client that gets events follows the run of its framing or is skipped by it, and no other client is counted
 * there. */
static inline void assert_following(void)
{
    uint32_t followers[FRAMINGS] = { 0 };
    uint32_t passed[FRAMINGS] = { 0 };
    for (const struct client *client = bus->roster.clients; client != NULL; client = client->hh.next) {
        const struct run *own = client->roster.receives ? &bus->runs[client->out.framing] : NULL;
        const bool passed_over = client->subscription.skipped_by != NULL;
        assert_ptr_equal(client->out.run, passed_over ? NULL : own);
        assert_ptr_equal(client->subscription.skipped_by, passed_over ? own : NULL);
        assert_true(!passed_over || outq_bytes(&client->out) > client->out.limit / 2);
        followers[client->out.framing] += client->out.run != NULL;
        passed[client->out.framing] += passed_over;
    }
    for (size_t i = 0; i < FRAMINGS; i++) {
        assert_int_equal(bus->runs[i].followers, followers[i]);
        assert_int_equal(bus->runs[i].skipped, passed[i]);
    }
}

/* A tag is present when a client that gets events carries it, and every such client is in the list. */
static inline void assert_presence(const char *tag)
{
    bool carried = false;
    uint32_t listening_clients = 0;
    for (const struct client *client = bus->roster.clients; client != NULL; client = client->hh.next) {
        listening_clients += client->roster.receives;
        carried |= client->roster.receives && client->tagging.tag != NULL && client->tagging.tag->name[0] == tag[0];
        assert_true(client->roster.receives || !client_may_receive(client));
        assert_true(!client->roster.receives || client_may_receive(client));
    }
    assert_int_equal(is_present(tag), carried);
    assert_int_equal(up.admitted, listening_clients);
}

/* ---- set up, tear down --------------------------------------------------------------------------------------------- */

static inline int set_up(void **state)
{
    (void)state;
    log_open(LEVEL_ERROR);
    memset(&up, 0, sizeof(up));
    up.take = -1;
    wire_open();
    memset(&listener, 0, sizeof(listener));
    snprintf(listener.name, sizeof(listener.name), "127.0.0.1:8448");
    bus = calloc(1, sizeof(*bus));
    if (bus == NULL || uv_loop_init(&loop) != 0)
        return -1;
    if (ledger_open(&ledger) != NULL)
        return -1;
    bus_open(bus, &loop, &ledger);
    bus->upstream = (struct bus_upstream){ .owner = &up,
                                           .opened = on_opened,
                                           .message = on_message,
                                           .ended = on_ended,
                                           .gone = on_gone,
                                           .present = on_present,
                                           .connected = on_connected,
                                           .admitted = on_admitted,
                                           .kept = on_kept,
                                           .commit = on_commit };
    return listening < 0 && open_listening() != 0;
}

/* Whatever a test has left is ended: then every client has gone and the books balance. */
static inline int tear_down(void **state)
{
    (void)state;
    up.keep = false;
    memory_limit(-1);
    bus_close(bus);
    for (struct client *client = bus->roster.clients, *next; client != NULL; client = next) {
        next = client->hh.next;
        release(client);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    const bool books = (up.kept || memcmp(&bus->totals, &up.past, sizeof(up.past)) == 0) &&
                       memcmp(&bus->totals, &ledger.header->gone, sizeof(up.past)) == 0 &&
                       bus->totals.relayed == bus->totals.delivered + all_dropped(&bus->totals);
    bool left = bus->roster.clients != NULL || bus->roster.receivers != NULL || bus->roster.dirty != NULL ||
                bus->tags.tags != NULL || bus->keeping.count != 0 || bus->keeping.unplaced != 0 ||
                bus->closed != bus->accepted || listener.clients != 0 || listener.origins != NULL || up.admitted != 0;
    for (size_t i = 0; i < 8; i++)
        left |= up.now[i].present;
    for (size_t i = 0; i <= CLIENTS; i++)
        left |= up.of[i].there || up.of[i].receives;
    for (size_t i = 0; i < FRAMINGS; i++)
        left |= bus->runs[i].followers != 0 || bus->runs[i].skipped != 0 || bus->runs[i].first != NULL ||
                bus->runs[i].spare != NULL;
    left |= chunk_memory() != 0 || outq_memory() != 0;
    left |= ledger_next(&ledger, NULL) != NULL;
    const int busy = uv_loop_close(&loop);
    ledger_close(&ledger);
    free(bus);
    for (size_t i = 0; i <= CLIENTS; i++)
        free(up.of[i].heard);
    if (!books || left || busy != 0)
        print_error("books %d left %d busy %d\n", books, left, busy);
    return !books || left || busy != 0;
}

#define WITH_BUS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

/* A client whose peer does not read, with 8 events of 1 MiB of which the kernel has accepted only a part. */
static inline struct peer far_behind(void)
{
    struct peer peer = admitted(connect_tcp(&netstring_limits, 4096));
    const struct payload event = big_event(1 << 20, 'x');
    for (int i = 0; i < 8; i++)
        give_relay(bus, &event, NULL);
    turn();
    return peer;
}

#endif
