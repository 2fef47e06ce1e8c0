/* The bus: who gets an event and who doesn't, what clients send, how they end, and that the books are right.
 *
 * Clients are real sockets: TCP over loopback, or a socket pair where a test has to know that a byte has arrived. The
 * upstream, Kamailio's side, is a fake that remembers what it is told. */
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

#include "bus.h"
#include "evapid/presence.h"
#include "listener.h"
#include "log.h"

/* ---- the upstream ------------------------------------------------------------------------------------------------- */

#define CLIENTS 64
#define HEARD_MAX (4U << 20)

/* What it was told about one client, by the client's index. */
struct told {
    unsigned opened, ended, gone;
    char *heard; /* messages, each with its length in four bytes in front */
    size_t heard_length;
    size_t messages, refused;
    struct tally tally; /* when it had gone */
};

static struct {
    struct told of[CLIENTS + 1];
    long take;         /* messages that it takes, one by one down to 0; negative: all */
    bool refuse;       /* it has no memory for a new client */
    bool keep;         /* it keeps clients that have gone, and releases them itself */
    bool finish_ended; /* a client whose input has ended is closed at once */
    unsigned admitted_calls;
    uint32_t admitted;
    struct {
        uint64_t hash;
        bool present;
    } present[256], now[8]; /* what it was told of tags, the first of it; and what follows from all of it */
    size_t present_count;
    struct tally past; /* of clients that have been released */
} up;

static struct bus *bus;
static uv_loop_t loop;
static struct listener listener;

static struct told *told_of(const struct client *client)
{
    assert_in_range(client->index, 1, CLIENTS);
    return &up.of[client->index];
}

static void add_tally(struct tally *sum, const struct tally *t)
{
    sum->relayed += t->relayed;
    sum->delivered += t->delivered;
    sum->delivered_bytes += t->delivered_bytes;
    for (unsigned i = 0; i < DROP_REASONS; i++)
        sum->dropped[i] += t->dropped[i];
    sum->messages += t->messages;
    sum->message_bytes += t->message_bytes;
    sum->messages_dropped += t->messages_dropped;
}

static void release(struct client *client)
{
    add_tally(&up.past, &client->tally);
    const uint64_t dropped = bus->totals.messages_dropped;
    bus_release(bus, client);
    up.past.messages_dropped += bus->totals.messages_dropped - dropped;
}

static bool on_opened(void *owner, struct client *client)
{
    assert_ptr_equal(owner, &up);
    told_of(client)->opened++;
    return !up.refuse;
}

static bool on_message(void *owner, struct client *client, const char *bytes, size_t length)
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

static void on_ended(void *owner, struct client *client)
{
    assert_ptr_equal(owner, &up);
    told_of(client)->ended++;
    if (up.finish_ended)
        bus_finish(bus, client);
}

static void on_gone(void *owner, struct client *client)
{
    assert_ptr_equal(owner, &up);
    assert_int_equal(client->state, CLIENT_GONE);
    told_of(client)->gone++;
    told_of(client)->tally = client->tally;
    if (!up.keep)
        release(client);
}

static void on_present(void *owner, uint64_t hash, bool present)
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
    assert_int_equal(up.now[i].present, !present); /* it is told of changes alone */
    up.now[i].hash = hash;
    up.now[i].present = present;
}

static void on_admitted(void *owner)
{
    assert_ptr_equal(owner, &up);
    up.admitted_calls++;
    up.admitted = bus->listening_count;
}

static bool is_present(const char *tag)
{
    size_t i = 0;
    while (i < 8 && up.now[i].hash != presence_hash(tag, strlen(tag)))
        i++;
    return i < 8 && up.now[i].present;
}

/* ---- the other end of a client's connection ------------------------------------------------------------------------ */

static const struct client_limits netstring_limits = { .framing = FRAMING_NETSTRING,
                                                       .max_message_bytes = 1 << 20,
                                                       .max_queued_bytes = 16 << 20 };
static const struct client_limits raw_limits = { .framing = FRAMING_RAW,
                                                 .max_message_bytes = 1 << 20,
                                                 .max_queued_bytes = 16 << 20 };

struct peer {
    int fd;
    struct client *client; /* as long as it is not released */
};

static int listening = -1; /* where peers connect to */

static int open_listening(void)
{
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return listening < 0 || bind(listening, (struct sockaddr *)&any, sizeof(any)) != 0 || listen(listening, 64) != 0;
}

static void connect_fd(struct peer *peer, int fd, const struct sockaddr_storage *address,
                       const struct client_limits *limits)
{
    listener.clients++;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    assert_true(bus_connect(bus, fd, address, limits, &listener));
    peer->client = bus_find(bus, bus->last_index);
    assert_non_null(peer->client);
}

/* A client over TCP, admitting. buffer: bytes of its socket's buffers, so that it is soon full; 0: as the system likes. */
static struct peer connect_tcp(const struct client_limits *limits, int buffer)
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

/* A client over a socket pair: what one side has written, the other can read. */
static struct peer connect_pair(const struct client_limits *limits)
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

static struct peer admitted(struct peer peer)
{
    bus_admit(bus, peer.client);
    return peer;
}

static struct peer open_client(void)
{
    return admitted(connect_tcp(&netstring_limits, 0));
}

static struct peer open_pair(void)
{
    return admitted(connect_pair(&netstring_limits));
}

/* A turn of the loop as evapid makes it. */
static void turn(void)
{
    uv_run(&loop, UV_RUN_NOWAIT);
    bus_flush(bus);
}

/* Turns until it is so; the limit is only there to end a test that would never end. */
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

static void send_bytes(const struct peer *peer, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        const ssize_t n = send(peer->fd, at, length, MSG_NOSIGNAL);
        assert_true(n > 0);
        at += n;
        length -= (size_t)n;
    }
}

static void send_text(const struct peer *peer, const char *text)
{
    send_bytes(peer, text, strlen(text));
}

/* Read length bytes, giving the bus turns meanwhile. */
static void receive(const struct peer *peer, char *out, size_t length)
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

static void assert_receives(const struct peer *peer, const char *text)
{
    char out[512];
    const size_t length = strlen(text);
    assert_true(length < sizeof(out));
    receive(peer, out, length);
    out[length] = '\0';
    assert_string_equal(out, text);
}

/* The end of the stream, and nothing in front of it. */
static void assert_ends(const struct peer *peer)
{
    char byte;
    ssize_t n = 0;
    TURN_UNTIL((n = recv(peer->fd, &byte, 1, MSG_DONTWAIT)) >= 0 || errno != EAGAIN);
    assert_int_equal(n, 0);
}

/* What upstream was told: messages in this order, given as text behind each other with a bar in between. */
static void assert_heard(uint32_t index, const char *expected)
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

/* ---- events -------------------------------------------------------------------------------------------------------- */

static struct frame *frame_of(const void *bytes, size_t length)
{
    struct frame *frame = frame_new(length);
    assert_non_null(frame);
    if (length > 0)
        memcpy(frame_payload(frame), bytes, length);
    return frame;
}

static void relay_to(const char *text, struct client *guest)
{
    struct frame *frame = frame_of(text, strlen(text));
    bus_relay(bus, frame, guest);
    frame_unref(frame);
}

static void relay(const char *text)
{
    relay_to(text, NULL);
}

static void multicast_to(const char *text, const char *tag, struct client *guest)
{
    struct frame *frame = frame_of(text, strlen(text));
    bus_multicast(bus, frame, tag, strlen(tag), guest);
    frame_unref(frame);
}

static void multicast(const char *text, const char *tag)
{
    multicast_to(text, tag, NULL);
}

static void unicast_to(const char *text, const char *tag, struct client *guest)
{
    struct frame *frame = frame_of(text, strlen(text));
    bus_unicast(bus, frame, tag, strlen(tag), guest);
    frame_unref(frame);
}

static void unicast(const char *text, const char *tag)
{
    unicast_to(text, tag, NULL);
}

static void issue_multicast(const char *text)
{
    multicast(text, "x");
}

static void give_tag(const struct peer *peer, const char *tag)
{
    bus_tag(bus, peer->client, tag, strlen(tag));
}

/* ---- the books ----------------------------------------------------------------------------------------------------- */

static uint64_t all_dropped(const struct tally *tally)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < DROP_REASONS; i++)
        sum += tally->dropped[i];
    return sum;
}

/* For each client and for all together: relayed = delivered + queued + dropped; and all are the sum of each. */
static void assert_books_balance(void)
{
    struct tally sum = up.past;
    uint64_t queued = 0;
    for (const struct client *client = bus->clients; client != NULL; client = client->hh.next) {
        const struct tally *tally = &client->tally;
        assert_int_equal(tally->relayed, tally->delivered + client->out.count + all_dropped(tally));
        queued += client->out.count;
        add_tally(&sum, tally);
    }
    assert_int_equal(bus->totals.relayed, bus->totals.delivered + queued + all_dropped(&bus->totals));
    assert_memory_equal(&bus->totals, &sum, sizeof(sum));
}

/* A tag is present when a client that gets events carries it, and every such client is in the list. */
static void assert_presence(const char *tag)
{
    bool carried = false;
    uint32_t listening_clients = 0;
    for (const struct client *client = bus->clients; client != NULL; client = client->hh.next) {
        listening_clients += client->listed;
        carried |= client->listed && client->tag != NULL && client->tag->name[0] == tag[0];
        assert_true(client->listed || !client_listens(client));
        assert_true(!client->listed || client_listens(client) || client->deaf);
    }
    assert_int_equal(is_present(tag), carried);
    assert_int_equal(up.admitted, listening_clients);
}

/* ---- set up, tear down --------------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    (void)state;
    log_open(LEVEL_ERROR);
    memset(&up, 0, sizeof(up));
    up.take = -1;
    memset(&listener, 0, sizeof(listener));
    snprintf(listener.name, sizeof(listener.name), "127.0.0.1:8448");
    bus = calloc(1, sizeof(*bus));
    if (bus == NULL || uv_loop_init(&loop) != 0)
        return -1;
    bus_open(bus, &loop);
    bus->upstream = (struct bus_upstream){ .owner = &up,
                                           .opened = on_opened,
                                           .message = on_message,
                                           .ended = on_ended,
                                           .gone = on_gone,
                                           .present = on_present,
                                           .admitted = on_admitted };
    return listening < 0 && open_listening() != 0;
}

/* Whatever a test has left: all of it ends, every client has gone and the books balance. */
static int tear_down(void **state)
{
    (void)state;
    up.keep = false;
    bus_close(bus);
    for (struct client *client = bus->clients, *next; client != NULL; client = next) {
        next = client->hh.next;
        release(client);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    const bool books = memcmp(&bus->totals, &up.past, sizeof(up.past)) == 0 &&
                       bus->totals.relayed == bus->totals.delivered + all_dropped(&bus->totals);
    bool left = bus->clients != NULL || bus->listening != NULL || bus->dirty != NULL || bus->tags.tags != NULL ||
                bus->closed != bus->accepted || listener.clients != 0 || up.admitted != 0;
    for (size_t i = 0; i < 8; i++)
        left |= up.now[i].present;
    const int busy = uv_loop_close(&loop);
    free(bus);
    for (size_t i = 0; i <= CLIENTS; i++)
        free(up.of[i].heard);
    if (!books || left || busy != 0)
        print_error("books %d left %d busy %d\n", books, left, busy);
    return !books || left || busy != 0;
}

static void hang_up(struct peer *peer)
{
    close(peer->fd);
    peer->fd = -1;
}

/* ---- coming and being let in --------------------------------------------------------------------------------------- */

static void test_a_new_client_is_told_upstream_and_waits(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    struct sockaddr_in here = { 0 };
    socklen_t size = sizeof(here);
    getsockname(a.fd, (struct sockaddr *)&here, &size);
    assert_int_equal(a.client->index, 1);
    assert_int_equal(a.client->state, CLIENT_ADMITTING);
    assert_string_equal(a.client->address, "127.0.0.1");
    assert_int_equal(a.client->port, ntohs(here.sin_port));
    assert_int_equal(up.of[1].opened, 1);
    assert_int_equal(bus->accepted, 1);
    assert_int_equal(up.admitted_calls, 0);
    struct peer b = connect_pair(&raw_limits);
    assert_int_equal(b.client->index, 2);
    assert_string_equal(b.client->address, "2001:db8::1");
    assert_int_equal(b.client->port, 4711);
    assert_ptr_equal(bus_find(bus, 1), a.client);
    assert_ptr_equal(bus_find(bus, 2), b.client);
    assert_null(bus_find(bus, 0));
    assert_null(bus_find(bus, 3));
    bus_admit(bus, b.client);
    assert_int_equal(b.client->state, CLIENT_OPEN);
    assert_int_equal(up.admitted, 1);
    bus_admit(bus, a.client);
    assert_int_equal(up.admitted, 2);
    hang_up(&a);
    hang_up(&b);
}

static void test_an_index_is_not_used_again_after_its_client(void **state)
{
    (void)state;
    for (uint32_t i = 1; i <= 10; i++) {
        struct peer a = open_client();
        assert_int_equal(a.client->index, i);
        bus_finish(bus, a.client);
        assert_null(bus_find(bus, i));
        hang_up(&a);
    }
}

static void test_indexes_begin_anew_after_the_largest_int_and_pass_over_those_in_use(void **state)
{
    (void)state;
    struct peer one = open_client();
    struct peer two = open_client();
    assert_int_equal(two.client->index, 2);
    bus->last_index = INT32_MAX;
    struct peer three = open_client();
    assert_int_equal(three.client->index, 3);
    assert_ptr_equal(bus_find(bus, 1), one.client);
    hang_up(&one);
    hang_up(&two);
    hang_up(&three);
}

static void test_a_socket_that_cannot_be_watched_is_closed(void **state)
{
    (void)state;
    struct sockaddr_storage address;
    assert_null(address_parse("127.0.0.1:1", &address));
    const int file = memfd_create("no socket", MFD_CLOEXEC);
    assert_false(bus_connect(bus, file, &address, &netstring_limits, &listener));
    assert_int_equal(fcntl(file, F_GETFD), -1);
    assert_null(bus->clients);
    assert_int_equal(bus->accepted, 0);
}

/* Upstream has no memory for it: it is closed, and nobody hears of it again. */
static void test_a_client_that_upstream_cannot_take_is_closed(void **state)
{
    (void)state;
    struct sockaddr_storage address;
    int ends[2];
    char byte;
    assert_null(address_parse("127.0.0.1:1", &address));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    up.refuse = true;
    assert_false(bus_connect(bus, ends[1], &address, &netstring_limits, &listener));
    assert_int_equal(up.of[1].opened, 1);
    assert_int_equal(up.of[1].gone, 0);
    assert_null(bus->clients);
    assert_int_equal(bus->accepted, 0);
    assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 0);
    close(ends[0]);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t size = sizeof(value);
    assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
    return value;
}

static void test_a_socket_gets_the_options_of_its_listener(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.keepalive_idle_s = 71;
    limits.keepalive_interval_s = 13;
    limits.keepalive_probes = 4;
    struct peer a = connect_tcp(&limits, 0);
    assert_int_equal(option(a.client->fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(option(a.client->fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(a.client->fd, IPPROTO_TCP, TCP_KEEPIDLE), 71);
    assert_int_equal(option(a.client->fd, IPPROTO_TCP, TCP_KEEPINTVL), 13);
    assert_int_equal(option(a.client->fd, IPPROTO_TCP, TCP_KEEPCNT), 4);
    limits.keepalive_idle_s = 0;
    struct peer b = connect_tcp(&limits, 0);
    assert_int_equal(option(b.client->fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(option(b.client->fd, SOL_SOCKET, SO_KEEPALIVE), 0);
    hang_up(&a);
    hang_up(&b);
}

/* ---- who gets an event --------------------------------------------------------------------------------------------- */

static void test_a_relayed_event_reaches_every_client_in_its_framing(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = admitted(connect_tcp(&raw_limits, 0));
    struct peer c = open_client();
    relay("hello");
    relay("");
    relay("world, too");
    assert_receives(&a, "5:hello,0:,10:world, too,");
    assert_receives(&b, "helloworld, too");
    assert_receives(&c, "5:hello,0:,10:world, too,");
    assert_int_equal(bus->events.relay, 3);
    assert_int_equal(bus->events.no_receiver, 0);
    TURN_UNTIL(bus_is_flushed(bus));
    assert_int_equal(a.client->tally.delivered, 3);
    assert_int_equal(a.client->tally.delivered_bytes, 25);
    assert_int_equal(b.client->tally.delivered, 3);
    assert_int_equal(b.client->tally.delivered_bytes, 15);
    assert_books_balance();
    hang_up(&a);
    hang_up(&b);
    hang_up(&c);
}

static void test_a_client_that_is_not_admitted_gets_nothing_also_not_later(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    struct peer b = open_client();
    relay("before");
    turn();
    assert_int_equal(a.client->tally.relayed, 0);
    bus_admit(bus, a.client);
    relay("after");
    assert_receives(&a, "5:after,");
    assert_receives(&b, "6:before,5:after,");
    hang_up(&a);
    hang_up(&b);
}

static void test_an_event_for_nobody_is_counted(void **state)
{
    (void)state;
    relay("x");
    struct peer a = connect_tcp(&netstring_limits, 0);
    relay("x");
    multicast("x", "tag");
    unicast("x", "tag");
    assert_int_equal(bus->events.no_receiver, 4);
    bus_admit(bus, a.client);
    relay("y");
    multicast("x", "tag");
    unicast("x", "tag");
    give_tag(&a, "tag");
    multicast("z", "tag");
    unicast("z", "tag");
    assert_int_equal(bus->events.no_receiver, 6);
    assert_int_equal(bus->events.relay, 3);
    assert_int_equal(bus->events.multicast, 3);
    assert_int_equal(bus->events.unicast, 3);
    assert_receives(&a, "1:y,1:z,1:z,");
    assert_int_equal(bus->totals.relayed, 3);
    hang_up(&a);
}

static void test_a_multicast_reaches_those_with_the_tag(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = open_client();
    struct peer c = open_client();
    struct peer d = connect_tcp(&netstring_limits, 0);
    give_tag(&a, "x");
    give_tag(&b, "xy");
    give_tag(&c, "x");
    give_tag(&d, "x");
    multicast("1", "x");
    multicast("2", "xy");
    multicast("3", "");
    multicast("4", "X");
    relay("end");
    assert_receives(&a, "1:1,3:end,");
    assert_receives(&b, "1:2,3:end,");
    assert_receives(&c, "1:1,3:end,");
    bus_admit(bus, d.client);
    multicast("5", "x");
    assert_receives(&d, "1:5,");
    assert_int_equal(bus->events.no_receiver, 2);
    hang_up(&a);
    hang_up(&b);
    hang_up(&c);
    hang_up(&d);
}

/* The first is the one that got the tag first; when it goes, the next one is. */
static void test_a_unicast_reaches_the_first_with_the_tag(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = open_client();
    struct peer c = open_client();
    give_tag(&b, "x");
    give_tag(&a, "x");
    give_tag(&c, "x");
    unicast("1", "x");
    unicast("2", "x");
    give_tag(&b, "y");
    unicast("3", "x");
    bus_finish(bus, a.client);
    unicast("4", "x");
    relay("end");
    assert_receives(&b, "1:1,1:2,3:end,");
    assert_receives(&a, "1:3,");
    assert_ends(&a);
    assert_receives(&c, "1:4,3:end,");
    hang_up(&a);
    hang_up(&b);
    hang_up(&c);
}

static void test_a_unicast_passes_over_a_client_that_is_not_admitted(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    struct peer b = open_client();
    give_tag(&a, "x");
    give_tag(&b, "x");
    unicast("1", "x");
    assert_receives(&b, "1:1,");
    bus_admit(bus, a.client);
    unicast("2", "x");
    assert_receives(&a, "1:2,");
    assert_int_equal(b.client->tally.relayed, 1);
    hang_up(&a);
    hang_up(&b);
}

static void assert_present(size_t i, const char *tag, bool present)
{
    assert_true(i < up.present_count);
    assert_int_equal(up.present[i].hash, presence_hash(tag, strlen(tag)));
    assert_int_equal(up.present[i].present, present);
}

static void test_a_tag_may_be_changed_and_taken_away(void **state)
{
    (void)state;
    struct peer a = open_client();
    give_tag(&a, "x");
    give_tag(&a, "y");
    multicast("1", "x");
    multicast("2", "y");
    give_tag(&a, "");
    multicast("3", "y");
    relay("end");
    assert_receives(&a, "1:2,3:end,");
    assert_null(a.client->tag);
    assert_int_equal(up.present_count, 4);
    assert_present(0, "x", true);
    assert_present(1, "x", false);
    assert_present(2, "y", true);
    assert_present(3, "y", false);
    hang_up(&a);
}

/* Its last routes may ask for it; but nothing reaches it any more, and upstream is told so. */
static void test_a_client_keeps_its_tag_until_it_is_released(void **state)
{
    (void)state;
    up.keep = true;
    struct peer a = open_client();
    give_tag(&a, "x");
    relay("1"); /* so that there is something to flush */
    bus_finish(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_FLUSHING);
    assert_int_equal(up.present_count, 2);
    assert_present(1, "x", false);
    multicast("2", "x");
    unicast("3", "x");
    assert_non_null(a.client->tag);
    TURN_UNTIL(a.client->state == CLIENT_GONE);
    multicast("4", "x");
    give_tag(&a, "y");
    assert_memory_equal(a.client->tag->name, "y", 1);
    assert_int_equal(bus->events.no_receiver, 3);
    assert_receives(&a, "1:1,");
    assert_ends(&a);
    release(a.client);
    assert_null(bus->tags.tags);
    assert_int_equal(up.present_count, 2);
    hang_up(&a);
}

/* A tag counts as present when somebody would get an event for it: not while its client is being admitted. */
static void test_a_tag_is_present_when_its_client_gets_events(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    struct peer b = open_client();
    give_tag(&a, "x");
    assert_int_equal(up.present_count, 0);
    bus_admit(bus, a.client);
    assert_int_equal(up.present_count, 1);
    assert_present(0, "x", true);
    give_tag(&b, "x");
    bus_readmit(bus, a.client);
    bus_readmit(bus, b.client);
    assert_int_equal(up.present_count, 2);
    assert_present(1, "x", false);
    bus_admit(bus, b.client);
    assert_present(2, "x", true);
    bus_finish(bus, b.client);
    assert_present(3, "x", false);
    assert_int_equal(up.present_count, 4);
    hang_up(&a);
    hang_up(&b);
}

static void test_upstream_hears_how_many_clients_get_events(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = connect_tcp(&netstring_limits, 0);
    assert_int_equal(up.admitted, 1);
    bus_admit(bus, b.client);
    assert_int_equal(up.admitted, 2);
    bus_admit(bus, b.client);
    bus_readmit(bus, a.client);
    assert_int_equal(up.admitted, 1);
    bus_readmit(bus, a.client);
    assert_int_equal(up.admitted, 1);
    bus_admit(bus, a.client);
    assert_int_equal(up.admitted, 2);
    bus_finish(bus, b.client);
    assert_int_equal(up.admitted, 1);
    bus_finish(bus, a.client);
    assert_int_equal(up.admitted, 0);
    assert_int_equal(up.admitted_calls, 6);
    hang_up(&a);
    hang_up(&b);
}

/* ---- the guest: the client that a connection-new route is about --------------------------------------------------- */

static void test_a_guest_gets_what_its_own_route_issues_once_it_is_admitted(void **state)
{
    (void)state;
    struct peer guest = connect_tcp(&netstring_limits, 0);
    struct peer other = connect_tcp(&netstring_limits, 0);
    struct peer open = open_client();
    relay("0");
    relay_to("welcome", guest.client);
    relay("1");
    turn();
    turn();
    assert_int_equal(guest.client->tally.delivered, 0); /* nothing is sent before it is admitted */
    assert_int_equal(guest.client->out.count, 1);
    bus_admit(bus, guest.client);
    relay("2");
    bus_admit(bus, other.client);
    relay("3");
    assert_receives(&guest, "7:welcome,1:2,1:3,");
    assert_receives(&other, "1:3,");
    assert_receives(&open, "1:0,7:welcome,1:1,1:2,1:3,");
    assert_books_balance();
    hang_up(&guest);
    hang_up(&other);
    hang_up(&open);
}

static void test_a_guest_gets_multicast_and_unicast_by_its_tag(void **state)
{
    (void)state;
    struct peer guest = connect_tcp(&netstring_limits, 0);
    struct peer other = connect_tcp(&netstring_limits, 0);
    multicast_to("0", "x", guest.client);
    give_tag(&other, "x");
    give_tag(&guest, "x");
    multicast_to("1", "x", guest.client);
    unicast_to("2", "x", guest.client);
    multicast_to("3", "y", guest.client);
    multicast("4", "x");
    unicast("5", "x");
    bus_admit(bus, guest.client);
    bus_admit(bus, other.client);
    relay("end");
    assert_receives(&guest, "1:1,1:2,3:end,");
    assert_receives(&other, "3:end,");
    assert_int_equal(bus->events.no_receiver, 4);
    hang_up(&guest);
    hang_up(&other);
}

static void test_a_guest_that_gets_events_anyway_gets_them_once(void **state)
{
    (void)state;
    struct peer a = open_client();
    give_tag(&a, "x");
    relay_to("1", a.client);
    multicast_to("2", "x", a.client);
    unicast_to("3", "x", a.client);
    relay("end");
    assert_receives(&a, "1:1,1:2,1:3,3:end,");
    hang_up(&a);
}

static void test_a_guest_that_is_refused_sees_nothing(void **state)
{
    (void)state;
    struct peer guest = connect_tcp(&netstring_limits, 0);
    relay_to("secret", guest.client);
    bus_finish(bus, guest.client);
    assert_int_equal(up.of[1].gone, 1);
    assert_ends(&guest);
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 1);
    assert_int_equal(bus->totals.delivered, 0);
    hang_up(&guest);
}

/* ---- being held back once more: Kamailio has been restarted ------------------------------------------------------- */

static void test_a_client_held_back_gets_nothing_and_is_not_read(void **state)
{
    (void)state;
    struct peer a = open_pair();
    relay("1");
    bus_readmit(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_ADMITTING);
    relay("2");
    send_text(&a, "3:abc,");
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(up.of[1].messages, 0);
    assert_int_equal(a.client->tally.delivered, 0);
    bus_admit(bus, a.client);
    relay("3");
    assert_receives(&a, "1:1,1:3,"); /* what it had been given before, and what came after */
    TURN_UNTIL(up.of[1].messages == 1);
    assert_books_balance();
    hang_up(&a);
}

/* ---- slow clients, large events ------------------------------------------------------------------------------------ */

static struct frame *big_frame(size_t length, char with)
{
    struct frame *frame = frame_new(length);
    assert_non_null(frame);
    memset(frame_payload(frame), with, length);
    return frame;
}

/* Read until the connection ends; returns the bytes. */
static size_t receive_to_end(const struct peer *peer, char *out, size_t room)
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

static void test_a_slow_client_is_disconnected_and_nobody_else_notices(void **state)
{
    (void)state;
    enum { EVENTS = 400, LENGTH = 10000, SIZE = LENGTH + 7 };
    static char out[EVENTS * SIZE];
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 20 * SIZE;
    struct peer slow = admitted(connect_tcp(&limits, 4096));
    struct peer quick = admitted(connect_tcp(&limits, 0));
    give_tag(&slow, "x");
    size_t sent = 0;
    for (unsigned i = 0; i < EVENTS; i++) {
        struct frame *frame = big_frame(LENGTH, (char)('a' + i % 26));
        bus_relay(bus, frame, NULL);
        frame_unref(frame);
        receive(&quick, out + sent, SIZE);
        sent += SIZE;
        assert_books_balance();
    }
    for (unsigned i = 0; i < EVENTS; i++) {
        assert_memory_equal(out + i * SIZE, "10000:", 6);
        assert_int_equal(out[i * SIZE + 6], 'a' + i % 26);
        assert_int_equal(out[(i + 1) * SIZE - 2], 'a' + i % 26);
        assert_int_equal(out[(i + 1) * SIZE - 1], ',');
    }
    assert_int_equal(up.present_count, 2); /* nobody with its tag gets events any more */
    assert_int_equal(up.admitted, 1);
    const size_t got = receive_to_end(&slow, out, sizeof(out));
    const struct tally *tally = &up.of[1].tally;
    assert_int_equal(up.of[1].gone, 1);
    assert_int_equal(tally->dropped[DROP_SLOW], all_dropped(tally));
    assert_in_range(all_dropped(tally), 20, 21); /* its queue, less a frame that had begun, and the one too many */
    assert_int_equal(tally->relayed, tally->delivered + all_dropped(tally));
    assert_int_equal(got, tally->delivered_bytes);
    assert_int_equal(got, tally->delivered * SIZE); /* whole frames */
    assert_int_equal(bus->totals.relayed, EVENTS + tally->relayed);
    hang_up(&slow);
    hang_up(&quick);
}

/* Half of those that get an event, or with a tag all of them, are disconnected in the middle of handing it out. */
static void test_slow_clients_may_go_in_the_middle_of_an_event(void **state)
{
    (void)state;
    enum { PEERS = 12 };
    for (int tagged = 0; tagged < 2; tagged++) {
        struct peer peers[PEERS];
        struct client_limits limits = netstring_limits;
        struct frame *frame = big_frame(5000, 'x');
        for (unsigned i = 0; i < PEERS; i++) {
            limits.max_queued_bytes = i % 2 == 0 ? 6000 : 60000;
            peers[i] = admitted(connect_tcp(&limits, 0));
            if (tagged)
                give_tag(&peers[i], i < 3 ? "y" : "x");
        }
        for (unsigned i = 0; i < 2; i++) /* within one turn: nothing leaves in between */
            if (tagged)
                bus_multicast(bus, frame, "x", 1, NULL);
            else
                bus_relay(bus, frame, NULL);
        frame_unref(frame);
        for (unsigned i = 0; i < PEERS; i++) {
            const bool gets = !tagged || i >= 3;
            static char out[20000];
            if (gets && i % 2 == 0)
                assert_ends(&peers[i]);
            else if (gets)
                receive(&peers[i], out, 2 * 5006);
            else
                assert_int_equal(peers[i].client->tally.relayed, 0);
            hang_up(&peers[i]);
        }
        assert_books_balance();
        assert_int_equal(bus->totals.dropped[DROP_SLOW], tagged ? 2 * (6 + 4) : 2 * 6);
        bus_close(bus);
        turn();
    }
}

static void test_when_the_last_of_a_tag_is_slow_the_tag_goes_with_it(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 4;
    struct peer a = admitted(connect_tcp(&limits, 0));
    struct peer b = admitted(connect_tcp(&limits, 0));
    give_tag(&a, "x");
    give_tag(&b, "x");
    multicast("1", "x");
    multicast("2", "x");
    assert_int_equal(bus->closed, 2);
    assert_null(bus->tags.tags);
    multicast("3", "x");
    assert_int_equal(bus->events.no_receiver, 1);
    hang_up(&a);
    hang_up(&b);
}

static void test_an_event_larger_than_a_queue_may_be_is_dropped_alone(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 100;
    struct peer small = admitted(connect_tcp(&limits, 0));
    struct peer large = open_client();
    static char out[1000];
    struct frame *frame = big_frame(97, 'x'); /* 101 bytes as a netstring */
    relay("1");
    bus_relay(bus, frame, NULL);
    relay("2");
    frame_unref(frame);
    frame = big_frame(95, 'y'); /* 99 bytes: it fits, but not behind the others */
    TURN_UNTIL(bus_is_flushed(bus));
    bus_relay(bus, frame, NULL);
    frame_unref(frame);
    assert_receives(&small, "1:1,1:2,");
    receive(&small, out, 99);
    assert_memory_equal(out, "95:yyy", 6);
    receive(&large, out, 4 + 101 + 4 + 99);
    assert_int_equal(small.client->tally.dropped[DROP_LARGE], 1);
    assert_int_equal(all_dropped(&bus->totals), 1);
    assert_books_balance();
    hang_up(&small);
    hang_up(&large);
}

/* ---- ways to the wire: a transport that takes what it likes -------------------------------------------------------- */

static struct wire {
    size_t most;   /* bytes that a write takes at most */
    int error;     /* not 0: what every other write fails with */
    unsigned fail; /* counts them */
    unsigned writes;
} wire = { .most = SIZE_MAX };

static ssize_t narrow_write(int fd, const struct iovec *iov, int count)
{
    wire.writes++;
    if (wire.error != 0 && wire.fail++ % 2 == 0) {
        errno = wire.error;
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
    return transport_tcp.write(fd, some, n);
}

static ssize_t plain_read(int fd, void *bytes, size_t room)
{
    return transport_tcp.read(fd, bytes, room);
}

static int plain_close(int fd)
{
    return transport_tcp.close(fd);
}

static const struct transport narrow = { .read = plain_read, .write = narrow_write, .close = plain_close };

static void test_writes_of_every_size_give_the_same_stream(void **state)
{
    (void)state;
    static const char expected[] = "5:hello,0:,12:a longer one,1:x,";
    for (wire.most = 1; wire.most < sizeof(expected); wire.most++) {
        struct peer a = open_pair();
        a.client->transport = &narrow;
        relay("hello");
        relay("");
        relay("a longer one");
        relay("x");
        assert_receives(&a, expected);
        assert_int_equal(a.client->tally.delivered, 4);
        assert_int_equal(a.client->tally.delivered_bytes, sizeof(expected) - 1);
        assert_int_equal(a.client->out.bytes, 0);
        bus_finish(bus, a.client);
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
        a.client->transport = &narrow;
        wire.error = errors[i];
        wire.fail = 0;
        wire.most = 3;
        relay("hello, world");
        assert_receives(&a, "12:hello, world,");
        wire.error = 0;
        wire.most = SIZE_MAX;
        bus_finish(bus, a.client);
        hang_up(&a);
    }
    assert_int_equal(all_dropped(&bus->totals), 0);
}

/* The cost of a turn's events is one write for each client. */
static void test_the_events_of_a_turn_leave_in_one_write(void **state)
{
    (void)state;
    static char out[200 * 8];
    struct peer a = open_pair();
    a.client->transport = &narrow;
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

/* A write fails: what waits is lost and counted, but what the client has sent is still worked on. */
static void test_a_client_that_cannot_be_written_to_is_deaf_but_not_mute(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = open_pair();
    a.client->transport = &narrow;
    wire.error = EPIPE;
    wire.fail = 0;
    relay("1");
    relay("2");
    turn();
    wire.error = 0;
    relay("3");
    assert_int_equal(a.client->tally.relayed, 2);
    assert_int_equal(a.client->tally.dropped[DROP_CLOSED], 2);
    send_text(&a, "5:hello,");
    TURN_UNTIL(up.of[1].messages == 1);
    assert_receives(&b, "1:1,1:2,1:3,");
    assert_books_balance();
    bus_finish(bus, a.client);
    assert_int_equal(up.of[1].gone, 1);
    hang_up(&a);
    hang_up(&b);
}

/* It gets no event any more: upstream must not go on counting on it. */
static void test_a_deaf_client_does_not_count_as_one_that_gets_events(void **state)
{
    (void)state;
    static void (*const issue[])(const char *) = { relay, issue_multicast };
    for (size_t i = 0; i < 2; i++) {
        struct peer a = open_pair();
        give_tag(&a, "x");
        a.client->transport = &narrow;
        wire.error = EPIPE;
        wire.fail = 0;
        relay("1");
        turn();
        wire.error = 0;
        bus->events.no_receiver = 0;
        issue[i]("2");
        assert_int_equal(bus->events.no_receiver, 1);
        assert_int_equal(up.admitted, 0);
        assert_int_equal(up.present_count, 2 * i + 2);
        assert_present(2 * i + 1, "x", false);
        hang_up(&a);
    }
}

/* Held back with a frame half sent, then refused: the rest of that frame is still sent, and nothing else. */
static void test_a_client_refused_in_the_middle_of_a_frame_gets_the_rest_of_it(void **state)
{
    (void)state;
    static const char stream_of_two[] = "5:hello,5:world,";
    for (size_t sent = 1; sent <= 16; sent++) {
        char out[32];
        const size_t expected = (sent + 7) / 8 * 8;
        const struct tally before = bus->totals;
        struct peer a = open_pair();
        a.client->transport = &narrow;
        wire = (struct wire){ .most = sent, .error = EAGAIN, .fail = 1 }; /* one write and no more */
        relay("hello");
        relay("world");
        turn();
        bus_readmit(bus, a.client);
        relay_to("secret", a.client);
        wire = (struct wire){ .most = SIZE_MAX };
        bus_finish(bus, a.client);
        receive(&a, out, expected);
        assert_memory_equal(out, stream_of_two, expected);
        assert_ends(&a);
        assert_int_equal(bus->totals.delivered - before.delivered, expected / 8);
        assert_int_equal(bus->totals.dropped[DROP_CLOSED] - before.dropped[DROP_CLOSED], 3 - expected / 8);
        hang_up(&a);
    }
}

/* What it gets is the rest of a frame that it has a part of: its stream ends between two frames. */
static void test_a_slow_client_gets_the_rest_of_a_frame_that_has_begun(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 24; /* three times 5:hello, */
    for (size_t sent = 0; sent <= 16; sent++) {
        char out[64];
        const size_t expected = (sent + 7) / 8 * 8;
        const struct tally before = bus->totals;
        struct peer a = admitted(connect_pair(&limits));
        const uint32_t index = a.client->index;
        a.client->transport = &narrow;
        wire = (struct wire){ .most = sent, .error = EAGAIN, .fail = sent > 0 }; /* one write and no more */
        for (int i = 0; i < 3; i++)
            relay("hello");
        turn();
        wire = (struct wire){ .most = SIZE_MAX };
        unsigned more = 0;
        while (up.admitted > 0) { /* until one is too many */
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

/* That it does not read is no reason to lose what it has sent. */
static void test_messages_of_a_slow_client_can_still_be_taken(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_queued_bytes = 8;
    struct peer a = admitted(connect_pair(&limits));
    up.keep = true;
    up.take = 0;
    send_text(&a, "1:a,1:b,1:c,");
    TURN_UNTIL(up.of[1].refused == 1);
    a.client->transport = &narrow;
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
    assert_int_equal(bus->totals.messages_dropped, 0);
    release(a.client);
    assert_int_equal(bus->totals.messages_dropped, 1);
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
        struct frame *frame = big_frame(LENGTH, (char)('A' + i));
        bus_relay(bus, frame, NULL);
        frame_unref(frame);
    }
    turn();
    assert_true(a.client->blocked);
    bus_finish(bus, a.client);
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

/* In the same turn as the event that it closes behind. */
static void test_an_event_and_a_close_in_one_turn(void **state)
{
    (void)state;
    struct peer a = open_client();
    relay("bye");
    bus_finish(bus, a.client);
    bus_finish(bus, a.client); /* twice is once */
    assert_receives(&a, "3:bye,");
    assert_ends(&a);
    assert_int_equal(up.of[1].gone, 1);
    hang_up(&a);
}

static void test_finish_of_a_client_with_nothing_to_send_closes_at_once(void **state)
{
    (void)state;
    struct peer a = open_client();
    bus_finish(bus, a.client);
    assert_int_equal(up.of[1].gone, 1);
    assert_null(bus_find(bus, 1));
    assert_ends(&a);
    hang_up(&a);
}

static void test_a_client_that_does_not_read_the_rest_in_time_is_closed(void **state)
{
    (void)state;
    struct peer a = admitted(connect_tcp(&netstring_limits, 4096));
    struct frame *frame = big_frame(1 << 20, 'x');
    for (int i = 0; i < 8; i++)
        bus_relay(bus, frame, NULL);
    frame_unref(frame);
    turn();
    bus_finish(bus, a.client);
    bus_tick(bus);
    assert_int_equal(a.client->state, CLIENT_FLUSHING);
    assert_int_equal(a.client->deadline_ms, uv_now(&loop) + CLIENT_LINGER_MS);
    a.client->deadline_ms = uv_now(&loop) + 1;
    bus_tick(bus);
    assert_int_equal(up.of[1].gone, 0);
    a.client->deadline_ms = uv_now(&loop);
    bus_tick(bus);
    assert_int_equal(up.of[1].gone, 1);
    assert_int_equal(bus->totals.delivered + bus->totals.dropped[DROP_CLOSED], 8);
    assert_true(bus->totals.dropped[DROP_CLOSED] > 0);
    hang_up(&a);
}

/* Input that waits in the socket makes a close a reset, which would overtake what was sent last. */
static void test_what_was_sent_last_arrives_though_the_client_has_sent_more(void **state)
{
    (void)state;
    struct peer a = open_client();
    up.take = 0;
    send_text(&a, "5:hello,");
    TURN_UNTIL(up.of[1].refused > 0);
    for (int i = 0; i < 100; i++)
        send_text(&a, "5:hello,");
    relay("bye");
    bus_finish(bus, a.client);
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
    struct frame *frame = big_frame(8 << 20, 'x');
    bus_relay(bus, frame, NULL);
    frame_unref(frame);
    shutdown(peers[2].fd, SHUT_WR);
    TURN_UNTIL(up.of[3].ended == 1);
    bus_finish(bus, peers[3].client);
    for (int i = 0; i < 4; i++)
        assert_string_equal(client_state_name(peers[i].client->state), names[i]);
    assert_false(bus_is_flushed(bus));
    bus_close(bus);
    assert_int_equal(bus->closed, 4);
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 3);
    assert_int_equal(up.admitted, 0);
    assert_true(bus_is_flushed(bus));
    for (int i = 0; i < 4; i++)
        hang_up(&peers[i]);
}

static void test_flushed_means_that_nobody_has_anything_left(void **state)
{
    (void)state;
    assert_true(bus_is_flushed(bus));
    struct peer a = open_client();
    struct peer b = open_client();
    assert_true(bus_is_flushed(bus));
    give_tag(&b, "x");
    multicast("1", "x");
    assert_false(bus_is_flushed(bus));
    assert_receives(&b, "1:1,");
    assert_true(bus_is_flushed(bus));
    hang_up(&a);
    hang_up(&b);
}

/* ---- how a peer goes ----------------------------------------------------------------------------------------------- */

static void test_a_peer_that_half_closes_still_gets_its_answers(void **state)
{
    (void)state;
    struct peer a = open_client();
    give_tag(&a, "x");
    send_text(&a, "5:hello,3:bye,");
    shutdown(a.fd, SHUT_WR);
    TURN_UNTIL(up.of[1].ended == 1);
    assert_int_equal(up.of[1].messages, 2);
    assert_int_equal(a.client->state, CLIENT_FINISHING);
    relay("1");
    multicast("2", "x");
    unicast("3", "x");
    assert_receives(&a, "1:1,1:2,1:3,");
    relay("4");
    bus_finish(bus, a.client);
    assert_receives(&a, "1:4,");
    assert_ends(&a);
    assert_int_equal(up.of[1].ended, 1);
    assert_int_equal(up.of[1].gone, 1);
    hang_up(&a);
}

/* Upstream may close it right from where it hears that the input has ended, in whatever pieces it came. */
static void test_a_client_may_be_closed_when_its_input_ends(void **state)
{
    (void)state;
    static const char *const inputs[] = { "", "5:hello,", "5:hel", "x", "5:hello,x", "5:hello,3:bye,0", "5:hello,05" };
    up.finish_ended = true;
    for (size_t i = 0; i < sizeof(inputs) / sizeof(*inputs); i++)
        for (size_t cut = 0; cut <= strlen(inputs[i]); cut++) {
            bus->last_index = 0;
            free(up.of[1].heard);
            memset(&up.of[1], 0, sizeof(up.of[1]));
            struct peer a = open_pair();
            send_bytes(&a, inputs[i], cut);
            turn();
            turn();
            if (cut < strlen(inputs[i])) /* else it may be closed already */
                send_text(&a, inputs[i] + cut);
            shutdown(a.fd, SHUT_WR);
            TURN_UNTIL(up.of[1].gone == 1);
            assert_int_equal(up.of[1].ended, 1);
            assert_ends(&a);
            hang_up(&a);
            assert_int_equal(bus->totals.messages_dropped, 0); /* what was whole was taken */
        }
}

static void reset(struct peer *peer)
{
    const struct linger now = { .l_onoff = 1, .l_linger = 0 };
    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    hang_up(peer);
}

static void test_a_peer_that_resets_ends_its_client(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = open_client();
    send_text(&a, "5:hello,");
    TURN_UNTIL(up.of[1].messages == 1);
    reset(&a);
    TURN_UNTIL(up.of[1].ended == 1);
    for (int i = 0; i < 10; i++) {
        relay("x");
        turn();
    }
    assert_receives(&b, "1:x,1:x,1:x,1:x,1:x,1:x,1:x,1:x,1:x,1:x,");
    assert_books_balance();
    bus_finish(bus, a.client);
    TURN_UNTIL(up.of[1].gone == 1);
    assert_int_equal(up.of[1].ended, 1);
    assert_books_balance();
    hang_up(&b);
}

static void test_a_peer_that_resets_with_much_queued_ends_its_client(void **state)
{
    (void)state;
    struct peer a = admitted(connect_tcp(&netstring_limits, 4096));
    struct frame *frame = big_frame(1 << 20, 'x');
    for (int i = 0; i < 8; i++)
        bus_relay(bus, frame, NULL);
    frame_unref(frame);
    turn();
    assert_true(a.client->blocked);
    reset(&a);
    TURN_UNTIL(up.of[1].ended == 1 && a.client->out.count == 0);
    assert_int_equal(bus->totals.relayed, 8);
    assert_int_equal(bus->totals.delivered + bus->totals.dropped[DROP_CLOSED], 8);
    assert_books_balance();
    bus_finish(bus, a.client);
    assert_int_equal(up.of[1].gone, 1);
}

/* A flushing client whose peer goes is closed by that; nobody has to wait for the deadline. */
static void test_a_peer_that_resets_while_it_is_flushed_is_gone(void **state)
{
    (void)state;
    struct peer a = admitted(connect_tcp(&netstring_limits, 4096));
    struct frame *frame = big_frame(8 << 20, 'x');
    bus_relay(bus, frame, NULL);
    frame_unref(frame);
    turn();
    bus_finish(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_FLUSHING);
    reset(&a);
    TURN_UNTIL(up.of[1].gone == 1);
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 1);
}

static void test_a_peer_that_hangs_up_while_it_waits_is_forgotten(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    hang_up(&a);
    TURN_UNTIL(up.of[1].ended == 1);
    bus_admit(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_FINISHING);
    bus_finish(bus, a.client);
    assert_int_equal(up.of[1].gone, 1);
}

/* What it has sent before is worked on when it is admitted, and then its end. */
static void test_a_peer_that_hangs_up_with_messages_sent_waits_on(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    send_text(&a, "5:hello,3:bye,");
    hang_up(&a);
    for (int i = 0; i < 50; i++)
        turn();
    assert_int_equal(up.of[1].ended, 0);
    bus_admit(bus, a.client);
    TURN_UNTIL(up.of[1].ended == 1);
    assert_int_equal(up.of[1].messages, 2);
    bus_finish(bus, a.client);
}

/* ---- messages ------------------------------------------------------------------------------------------------------ */

static const char stream[] = "5:hello,0:, \r\n\t1:x,12:0123456789\n,,\n10:a:b,1:c,d,,   3:end,";
static const char stream_messages[] = "hello||x|0123456789\n,|a:b,1:c,d,|end";

#define STREAM_MESSAGES 6

/* Give the bus turns until it has read all that was sent: a pair's bytes are there as soon as they are sent. */
static void let_read(const struct peer *peer, size_t sent)
{
    TURN_UNTIL(peer->client->in_offset + peer->client->in_end - peer->client->in_start == sent);
}

static void test_messages_are_found_whatever_pieces_they_come_in(void **state)
{
    (void)state;
    const size_t length = sizeof(stream) - 1;
    for (size_t first = 1; first < length; first++) {
        for (size_t second = 0; second <= 1;
             second++) { /* in two pieces, and in three, of which the middle is a byte */
            bus->last_index = 0;
            free(up.of[1].heard);
            memset(&up.of[1], 0, sizeof(up.of[1]));
            struct peer a = open_pair();
            send_bytes(&a, stream, first);
            let_read(&a, first);
            if (second > 0) {
                send_bytes(&a, stream + first, second);
                let_read(&a, first + second);
            }
            send_bytes(&a, stream + first + second, length - first - second);
            let_read(&a, length);
            assert_heard(1, stream_messages);
            assert_int_equal(a.client->tally.messages, STREAM_MESSAGES);
            assert_int_equal(a.client->tally.message_bytes, strlen(stream_messages) - (STREAM_MESSAGES - 1));
            assert_null(a.client->in); /* nothing is kept when nothing is left */
            assert_int_equal(a.client->state, CLIENT_OPEN);
            hang_up(&a);
            TURN_UNTIL(up.of[1].ended == 1);
            bus_finish(bus, a.client);
        }
    }
}

static void test_messages_are_found_byte_by_byte(void **state)
{
    (void)state;
    struct peer a = open_pair();
    for (size_t i = 0; i < sizeof(stream) - 1; i++) {
        send_bytes(&a, stream + i, 1);
        let_read(&a, i + 1);
    }
    assert_heard(1, stream_messages);
    hang_up(&a);
}

static void test_messages_may_hold_any_bytes(void **state)
{
    (void)state;
    char message[256 + 5] = "256:";
    struct peer a = open_pair();
    for (unsigned i = 0; i < 256; i++)
        message[4 + i] = (char)i;
    message[260] = ',';
    send_bytes(&a, message, sizeof(message));
    TURN_UNTIL(up.of[1].messages == 1);
    uint32_t length;
    memcpy(&length, up.of[1].heard, sizeof(length));
    assert_int_equal(length, 256);
    assert_memory_equal(up.of[1].heard + sizeof(length), message + 4, 256);
    hang_up(&a);
}

static void test_raw_input_is_handed_on_as_it_comes(void **state)
{
    (void)state;
    struct peer a = admitted(connect_pair(&raw_limits));
    static const char *const pieces[] = { "x", "5:hello,", "\n", "last" };
    for (size_t i = 0; i < 4; i++) {
        send_text(&a, pieces[i]);
        TURN_UNTIL(up.of[1].messages == i + 1);
    }
    assert_heard(1, "x|5:hello,|\n|last");
    hang_up(&a);
}

static void test_a_piece_of_raw_input_is_no_longer_than_a_message_may_be(void **state)
{
    (void)state;
    struct client_limits limits = raw_limits;
    limits.max_message_bytes = 4;
    struct peer a = admitted(connect_pair(&limits));
    send_text(&a, "abcdefghij");
    TURN_UNTIL(up.of[1].messages == 3);
    assert_heard(1, "abcd|efgh|ij");
    hang_up(&a);
}

/* Longer than one read takes, and than the room that a message is first given; on a stream with others around it. */
static void test_messages_of_any_size_up_to_the_limit_come_whole(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 4095, 4096, 4097, 65535, 65536, 65537, 100000, 1 << 20 };
    static char frame[(1 << 20) + 16];
    struct peer a = open_pair();
    const int buffer = 4 << 20;
    setsockopt(a.fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        const size_t head = (size_t)snprintf(frame, sizeof(frame), "%zu:", sizes[i]);
        memset(frame + head, (int)('a' + i), sizes[i]);
        frame[head + sizes[i]] = ',';
        up.of[1].heard_length = up.of[1].messages = 0;
        send_text(&a, "3:one,");
        for (size_t sent = 0; sent < head + sizes[i] + 1;) {
            const ssize_t n = send(a.fd, frame + sent, head + sizes[i] + 1 - sent, MSG_DONTWAIT);
            if (n > 0)
                sent += (size_t)n;
            turn();
        }
        send_text(&a, "3:two,");
        TURN_UNTIL(up.of[1].messages == 3);
        const char *heard = up.of[1].heard;
        assert_int_equal(up.of[1].heard_length, 4 + 3 + 4 + sizes[i] + 4 + 3);
        assert_memory_equal(heard + 4, "one", 3);
        assert_memory_equal(heard + 4 + 3 + 4, frame + head, sizes[i]);
        assert_memory_equal(heard + 4 + 3 + 4 + sizes[i] + 4, "two", 3);
    }
    hang_up(&a);
}

/* Memory grows as bytes come, not as they are promised, and an idle client keeps none. */
static void test_a_promise_of_many_bytes_takes_no_memory(void **state)
{
    (void)state;
    struct peer a = open_pair();
    send_text(&a, "1000000:abc");
    let_read(&a, 11);
    assert_true(a.client->in_room <= 8192);
    hang_up(&a);
}

/* ---- malformed input ----------------------------------------------------------------------------------------------- */

/* Standard error goes to a file from here on until end_catch. */
static int caught_file, real_stderr;

static void begin_catch(void)
{
    caught_file = memfd_create("stderr", MFD_CLOEXEC);
    real_stderr = dup(STDERR_FILENO);
    fflush(stderr);
    dup2(caught_file, STDERR_FILENO);
}

static const char *end_catch(void)
{
    static char text[4096];
    fflush(stderr);
    dup2(real_stderr, STDERR_FILENO);
    const ssize_t n = pread(caught_file, text, sizeof(text) - 1, 0);
    close(real_stderr);
    close(caught_file);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static const struct {
    const char *input, *heard, *where; /* what is wrong and where, as the log tells */
} malformed[] = {
    { "x", "", "at byte 0 of its stream (0x78): a length in decimal digits and a colon was expected" },
    { ":,", "", "at byte 0 of its stream (0x3a): a length in decimal digits and a colon was expected" },
    { "5:hello,\n3:abc,\x01", "hello|abc", "at byte 15 of its stream (0x01): a length in decimal digits" },
    { "5:hello,05:hello,", "hello", "at byte 9 of its stream (0x35): the length has a leading zero" },
    { "5:hello,  1048577:", "hello", "at byte 10 of its stream (0x31): the length is over the limit (limit 1048576" },
    { "5:hello,3:abcd,", "hello", "at byte 13 of its stream (0x64): no comma behind the payload" },
};

#define MALFORMED (sizeof(malformed) / sizeof(*malformed))

static void test_malformed_input_ends_the_client_and_the_log_says_where(void **state)
{
    (void)state;
    struct peer healthy = open_pair();
    log_open(LEVEL_WARNING);
    for (size_t i = 0; i < MALFORMED; i++) {
        const uint32_t index = (uint32_t)i + 2;
        struct peer a = open_pair();
        begin_catch();
        for (size_t sent = 0; malformed[i].input[sent] != '\0'; sent++) { /* byte by byte: the place is the stream's */
            send_bytes(&a, malformed[i].input + sent, 1);
            turn();
            turn();
        }
        const char *line = end_catch();
        assert_int_equal(up.of[index].ended, 1);
        assert_heard(index, malformed[i].heard);
        if (strstr(line, malformed[i].where) == NULL || strstr(line, "client ") == NULL)
            fail_msg("%s: %s", malformed[i].input, line);
        assert_int_equal(a.client->state, CLIENT_FINISHING);
        bus_finish(bus, a.client);
        assert_ends(&a);
        hang_up(&a);
    }
    relay("still here");
    send_text(&healthy, "2:me,");
    assert_receives(&healthy, "10:still here,");
    TURN_UNTIL(up.of[1].messages == 1);
    assert_int_equal(up.of[1].ended, 0);
    hang_up(&healthy);
}

static void test_malformed_input_in_any_two_pieces_ends_the_same_way(void **state)
{
    (void)state;
    for (size_t i = 0; i < MALFORMED; i++)
        for (size_t cut = 0; cut < strlen(malformed[i].input); cut++) {
            bus->last_index = 0;
            free(up.of[1].heard);
            memset(&up.of[1], 0, sizeof(up.of[1]));
            struct peer a = open_pair();
            send_bytes(&a, malformed[i].input, cut);
            if (cut > 0)
                let_read(&a, cut);
            send_text(&a, malformed[i].input + cut);
            send_text(&a, "3:not,");
            TURN_UNTIL(up.of[1].ended == 1);
            turn();
            assert_heard(1, malformed[i].heard);
            assert_int_equal(up.of[1].ended, 1);
            bus_finish(bus, a.client);
            hang_up(&a);
        }
}

/* A client that is not allowed 6 bytes is allowed 5. */
static void test_a_message_s_limit_is_to_the_byte(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_message_bytes = 5;
    struct peer a = admitted(connect_pair(&limits));
    send_text(&a, "5:hello,");
    TURN_UNTIL(up.of[1].messages == 1);
    send_text(&a, "6:");
    TURN_UNTIL(up.of[1].ended == 1);
    hang_up(&a);
}

/* ---- messages that upstream does not take ---------------------------------------------------------------------------- */

static void test_a_message_that_is_not_taken_is_held_and_comes_first(void **state)
{
    (void)state;
    struct peer a = open_pair();
    up.take = 2;
    send_text(&a, "1:a,1:b,1:c,1:d,1:e,");
    TURN_UNTIL(up.of[1].refused == 1);
    assert_true(client_holds(a.client));
    assert_heard(1, "a|b");
    for (int i = 0; i < 10; i++)
        turn();
    assert_int_equal(up.of[1].refused, 1); /* nobody asks again by himself */
    up.take = 1;
    client_resume(a.client);
    assert_true(client_holds(a.client));
    assert_heard(1, "a|b|c");
    assert_int_equal(a.client->tally.messages, 3);
    up.take = -1;
    client_resume(a.client);
    assert_false(client_holds(a.client));
    assert_heard(1, "a|b|c|d|e");
    send_text(&a, "1:f,");
    TURN_UNTIL(up.of[1].messages == 6);
    assert_heard(1, "a|b|c|d|e|f");
    hang_up(&a);
}

/* TCP holds the sender back: no more is read than was under way. */
static void test_a_client_that_holds_a_message_is_not_read(void **state)
{
    (void)state;
    char chunk[10000] = "9990:";
    memset(chunk + 5, 'x', 9990);
    chunk[9995] = ',';
    struct peer a = open_pair();
    size_t sent = 0;
    up.take = 0;
    for (int full = 0; full < 20;) {
        const ssize_t n = send(a.fd, chunk + sent % 9996, 9996 - sent % 9996, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            sent += (size_t)n;
        else
            full++;
        turn();
    }
    assert_int_equal(up.of[1].refused, 1);
    assert_true(a.client->in_end <= CLIENT_SCRATCH);
    assert_true(sent > a.client->in_end); /* the rest is the kernel's */
    up.take = -1;
    client_resume(a.client);
    TURN_UNTIL(up.of[1].messages == sent / 9996);
    hang_up(&a);
}

static void test_events_reach_a_client_that_holds_a_message(void **state)
{
    (void)state;
    struct peer a = open_pair();
    up.take = 0;
    send_text(&a, "1:a,");
    TURN_UNTIL(up.of[1].refused == 1);
    relay("hello");
    assert_receives(&a, "5:hello,");
    hang_up(&a);
}

/* However few upstream takes at a time, and in whatever pieces they come: in order, each once. */
static void test_messages_come_in_order_and_once_however_they_are_taken(void **state)
{
    (void)state;
    enum { MESSAGES = 3000 };
    unsigned seed = 11;
    for (int framed = 0; framed < 3; framed++) {
        static char input[MESSAGES * 16];
        size_t length = 0;
        const uint32_t index = (uint32_t)framed + 1;
        struct peer a = open_pair();
        for (unsigned n = 0; n < MESSAGES; n++)
            length += (size_t)snprintf(input + length, 16, "6:%06u,", n);
        size_t sent = 0;
        while (up.of[index].messages < MESSAGES) {
            size_t piece = (size_t)rand_r(&seed) % (framed == 0 ? 7 : framed == 1 ? 100 : 5000);
            piece = piece > length - sent ? length - sent : piece;
            if (piece > 0) {
                const ssize_t n = send(a.fd, input + sent, piece, MSG_DONTWAIT);
                sent += n > 0 ? (size_t)n : 0;
            }
            up.take = rand_r(&seed) % 12;
            turn();
            if (client_holds(a.client))
                client_resume(a.client);
            if (rand_r(&seed) % 50 == 0) {
                bus_readmit(bus, a.client);
                turn();
                bus_admit(bus, a.client);
            }
        }
        for (unsigned n = 0; n < MESSAGES; n++) {
            char expected[16];
            snprintf(expected, sizeof(expected), "%06u", n);
            assert_memory_equal(up.of[index].heard + n * 10 + 4, expected, 6);
        }
        assert_int_equal(a.client->tally.messages, MESSAGES);
        assert_int_equal(a.client->tally.messages_dropped, 0);
        hang_up(&a);
    }
}

static void test_raw_input_that_is_not_taken_is_held_too(void **state)
{
    (void)state;
    struct peer a = admitted(connect_pair(&raw_limits));
    up.take = 0;
    send_text(&a, "abc");
    TURN_UNTIL(up.of[1].refused == 1);
    send_text(&a, "def");
    turn();
    client_resume(a.client);
    assert_int_equal(up.of[1].refused, 2);
    up.take = -1;
    client_resume(a.client);
    assert_heard(1, "abc");
    TURN_UNTIL(up.of[1].messages == 2);
    assert_heard(1, "abc|def");
    hang_up(&a);
}

/* The end comes behind what is held. */
static void test_the_end_of_a_client_that_holds_messages_waits_for_them(void **state)
{
    (void)state;
    struct peer a = open_pair();
    up.take = 1;
    send_text(&a, "1:a,1:b,1:c,");
    hang_up(&a);
    TURN_UNTIL(up.of[1].refused == 1);
    for (int i = 0; i < 10; i++)
        turn();
    assert_int_equal(up.of[1].ended, 0);
    up.take = -1;
    client_resume(a.client);
    TURN_UNTIL(up.of[1].ended == 1);
    assert_heard(1, "a|b|c");
}

/* It was too slow to read, but what it has sent is not lost. */
static void test_messages_of_a_client_that_has_gone_can_still_be_taken(void **state)
{
    (void)state;
    struct peer a = open_pair();
    up.keep = true;
    up.take = 0;
    send_text(&a, "1:a,1:b,1:c,");
    TURN_UNTIL(up.of[1].refused == 1);
    client_drop(a.client, DROP_SLOW);
    assert_int_equal(up.of[1].gone, 1);
    assert_true(client_holds(a.client));
    up.take = 2;
    client_resume(a.client);
    assert_heard(1, "a|b");
    assert_int_equal(bus->totals.messages_dropped, 0);
    release(a.client); /* Kamailio has gone for good: the third is lost, and counted */
    assert_int_equal(bus->totals.messages_dropped, 1);
    assert_int_equal(bus->totals.messages, 2);
    hang_up(&a);
}

static void test_messages_that_a_close_throws_away_are_counted(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = admitted(connect_pair(&raw_limits));
    up.take = 1;
    send_text(&a, "1:a,1:b,1:c,5:hel"); /* of which the last is none yet */
    TURN_UNTIL(up.of[1].refused == 1);
    bus_finish(bus, a.client);
    assert_int_equal(bus->totals.messages, 1);
    assert_int_equal(bus->totals.messages_dropped, 2);
    send_text(&b, "abc");
    TURN_UNTIL(up.of[2].refused == 1);
    bus_finish(bus, b.client);
    assert_int_equal(bus->totals.messages_dropped, 3);
    hang_up(&a);
    hang_up(&b);
}

/* ---- everything at once ---------------------------------------------------------------------------------------------- */

#define CROWD 10

static unsigned seed_of_crowd = 4242;

static unsigned any(unsigned of)
{
    return (unsigned)rand_r(&seed_of_crowd) % of;
}

static struct peer join(void)
{
    struct client_limits limits = any(2) == 0 ? netstring_limits : raw_limits;
    limits.max_queued_bytes = any(3) == 0 ? 3000 : 200000;
    limits.max_message_bytes = 1000;
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
        if (any(3) == 0)
            bus_finish(bus, client);
        break;
    case 1: bus_readmit(bus, client); break;
    case 2:
        if (any(10) == 0)
            client_drop(client, DROP_SLOW);
        break;
    case 3: client_resume(client); break;
    case 4:
    case 5: bus_tag(bus, client, tag, strlen(tag)); break;
    default: bus_admit(bus, client);
    }
}

static void act_as_script(void)
{
    struct frame *frame = big_frame(any(20) == 0 ? 50000 : any(300), 'e');
    struct client *guest = any(2) == 0 ? NULL : bus_find(bus, 1 + any(CROWD));
    switch (any(4)) {
    case 0: bus_multicast(bus, frame, "a", 1, guest); break;
    case 1: bus_unicast(bus, frame, "b", 1, guest); break;
    default: bus_relay(bus, frame, guest);
    }
    frame_unref(frame);
}

/* Whatever happens, in whatever order: the books balance at every step, and nothing is left in the end. */
static void test_the_books_balance_whatever_happens(void **state)
{
    (void)state;
    struct peer peers[CROWD + 1] = { { .fd = -1 } };
    for (uint32_t i = 1; i <= CROWD; i++)
        peers[i].fd = -1;
    for (unsigned round = 0; round < 30000; round++) {
        const uint32_t i = 1 + any(CROWD);
        struct client *client = bus_find(bus, i);
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
            act_as_script();
        }
        if (any(4) == 0)
            turn();
        assert_books_balance();
        assert_presence("a");
        assert_presence("b");
    }
    assert_true(bus->closed > 100 && bus->totals.delivered > 1000 && bus->totals.messages > 100);
    assert_true(bus->totals.dropped[DROP_SLOW] > 10 && bus->totals.dropped[DROP_CLOSED] > 10 &&
                bus->totals.dropped[DROP_LARGE] > 10 && bus->totals.messages_dropped > 10);
    for (uint32_t i = 1; i <= CROWD; i++)
        if (peers[i].fd >= 0)
            hang_up(&peers[i]);
}

#define WITH_BUS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_a_new_client_is_told_upstream_and_waits),
        WITH_BUS(test_an_index_is_not_used_again_after_its_client),
        WITH_BUS(test_indexes_begin_anew_after_the_largest_int_and_pass_over_those_in_use),
        WITH_BUS(test_a_socket_that_cannot_be_watched_is_closed),
        WITH_BUS(test_a_client_that_upstream_cannot_take_is_closed),
        WITH_BUS(test_a_socket_gets_the_options_of_its_listener),
        WITH_BUS(test_a_relayed_event_reaches_every_client_in_its_framing),
        WITH_BUS(test_a_client_that_is_not_admitted_gets_nothing_also_not_later),
        WITH_BUS(test_an_event_for_nobody_is_counted),
        WITH_BUS(test_a_multicast_reaches_those_with_the_tag),
        WITH_BUS(test_a_unicast_reaches_the_first_with_the_tag),
        WITH_BUS(test_a_unicast_passes_over_a_client_that_is_not_admitted),
        WITH_BUS(test_a_tag_may_be_changed_and_taken_away),
        WITH_BUS(test_a_client_keeps_its_tag_until_it_is_released),
        WITH_BUS(test_a_tag_is_present_when_its_client_gets_events),
        WITH_BUS(test_upstream_hears_how_many_clients_get_events),
        WITH_BUS(test_a_guest_gets_what_its_own_route_issues_once_it_is_admitted),
        WITH_BUS(test_a_guest_gets_multicast_and_unicast_by_its_tag),
        WITH_BUS(test_a_guest_that_gets_events_anyway_gets_them_once),
        WITH_BUS(test_a_guest_that_is_refused_sees_nothing),
        WITH_BUS(test_a_client_held_back_gets_nothing_and_is_not_read),
        WITH_BUS(test_a_slow_client_is_disconnected_and_nobody_else_notices),
        WITH_BUS(test_slow_clients_may_go_in_the_middle_of_an_event),
        WITH_BUS(test_when_the_last_of_a_tag_is_slow_the_tag_goes_with_it),
        WITH_BUS(test_an_event_larger_than_a_queue_may_be_is_dropped_alone),
        WITH_BUS(test_writes_of_every_size_give_the_same_stream),
        WITH_BUS(test_a_write_that_is_interrupted_or_would_block_is_tried_again),
        WITH_BUS(test_the_events_of_a_turn_leave_in_one_write),
        WITH_BUS(test_a_client_that_cannot_be_written_to_is_deaf_but_not_mute),
        WITH_BUS(test_a_deaf_client_does_not_count_as_one_that_gets_events),
        WITH_BUS(test_a_client_refused_in_the_middle_of_a_frame_gets_the_rest_of_it),
        WITH_BUS(test_a_slow_client_gets_the_rest_of_a_frame_that_has_begun),
        WITH_BUS(test_messages_of_a_slow_client_can_still_be_taken),
        WITH_BUS(test_finish_flushes_and_then_closes),
        WITH_BUS(test_an_event_and_a_close_in_one_turn),
        WITH_BUS(test_finish_of_a_client_with_nothing_to_send_closes_at_once),
        WITH_BUS(test_a_client_that_does_not_read_the_rest_in_time_is_closed),
        WITH_BUS(test_what_was_sent_last_arrives_though_the_client_has_sent_more),
        WITH_BUS(test_closing_the_bus_closes_every_client_whatever_its_state),
        WITH_BUS(test_flushed_means_that_nobody_has_anything_left),
        WITH_BUS(test_a_peer_that_half_closes_still_gets_its_answers),
        WITH_BUS(test_a_client_may_be_closed_when_its_input_ends),
        WITH_BUS(test_a_peer_that_resets_ends_its_client),
        WITH_BUS(test_a_peer_that_resets_with_much_queued_ends_its_client),
        WITH_BUS(test_a_peer_that_resets_while_it_is_flushed_is_gone),
        WITH_BUS(test_a_peer_that_hangs_up_while_it_waits_is_forgotten),
        WITH_BUS(test_a_peer_that_hangs_up_with_messages_sent_waits_on),
        WITH_BUS(test_messages_are_found_whatever_pieces_they_come_in),
        WITH_BUS(test_messages_are_found_byte_by_byte),
        WITH_BUS(test_messages_may_hold_any_bytes),
        WITH_BUS(test_raw_input_is_handed_on_as_it_comes),
        WITH_BUS(test_a_piece_of_raw_input_is_no_longer_than_a_message_may_be),
        WITH_BUS(test_messages_of_any_size_up_to_the_limit_come_whole),
        WITH_BUS(test_a_promise_of_many_bytes_takes_no_memory),
        WITH_BUS(test_malformed_input_ends_the_client_and_the_log_says_where),
        WITH_BUS(test_malformed_input_in_any_two_pieces_ends_the_same_way),
        WITH_BUS(test_a_message_s_limit_is_to_the_byte),
        WITH_BUS(test_a_message_that_is_not_taken_is_held_and_comes_first),
        WITH_BUS(test_a_client_that_holds_a_message_is_not_read),
        WITH_BUS(test_events_reach_a_client_that_holds_a_message),
        WITH_BUS(test_messages_come_in_order_and_once_however_they_are_taken),
        WITH_BUS(test_raw_input_that_is_not_taken_is_held_too),
        WITH_BUS(test_the_end_of_a_client_that_holds_messages_waits_for_them),
        WITH_BUS(test_messages_of_a_client_that_has_gone_can_still_be_taken),
        WITH_BUS(test_messages_that_a_close_throws_away_are_counted),
        WITH_BUS(test_the_books_balance_whatever_happens),
    };
    return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
