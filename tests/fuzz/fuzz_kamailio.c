/* Fuzzing all that is between the two sides of evapid: bus, clients, seats, workers, intake. The input chooses what
 * applications and a Kamailio do: connect, send, stop reading and hang up; attach, announce, answer, relay, close, tag
 * and die. Memory and epoll's watches run out, and Kamailio may scribble on its ring.
 *
 * After every turn the books balance, and clients get whole netstrings. As long as Kamailio does not scribble, a client
 * gets events in the order of their issue, and none before its connection-new has begun. Kamailio begins a route once
 * for each message of a client, in order. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utlist.h>

#include "../unit/memory.h"
#include "bus/flush.h"
#include "client/subscription.h"
#include "evapid/lane.h"
#include "views/answer.h"
#include "kamailio/figures.h"
#include "input.h"
#include "kamailio/kamailio.h"

#define CAPACITY EVAPID_RING_MIN
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define PEERS 8U
#define LINKS 3U
#define INDEXES 512U /* connections that an input can make */
#define STEPS 1500

/* ---- applications and links ------------------------------------------------------------------------------------------ */

/* An application. */
struct peer {
    int fd; /* -1: none */
    uint32_t index;
    uint32_t said;    /* number of its last message */
    uint32_t heard;   /* number of the last event that it got */
    char bytes[8192]; /* what it got of an event that is not complete */
    size_t length;
};

/* An evapi worker. */
struct link {
    int fd; /* -1: none */
    uint64_t sequence, done;
    unsigned char bytes[65536];
    size_t length;
};

static struct {
    uv_loop_t loop;
    uv_prepare_t turn_end;
    struct config config;
    struct ledger ledger;
    struct bus bus;
    struct listeners listeners;
    struct listener *listener;
    struct kamailio kamailio;
    struct status_subject subject;

    struct peer peers[PEERS];
    uint32_t last_peer_index;

    struct ring_header *ring;
    struct ring_lane lane;
    unsigned slot;
    int memfd, wake[2];
    uint64_t instance;
    uint16_t workers;
    struct link links[LINKS];

    uint32_t issued;              /* number of the last event */
    bool announced[INDEXES + 1];  /* connections announced to this Kamailio */
    bool met[INDEXES + 1];        /* connections whose first connection-new has begun, at any Kamailio */
    uint32_t routed[INDEXES + 1]; /* number of the last message whose route has begun */
    bool trusted;                 /* Kamailio has not scribbled */
} t;

static bool crowded; /* epoll accepts no more watches */

/* Replaces libc's function for libuv too. At its limit the kernel refuses only a new watch. */
int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    const int done = (int)syscall(SYS_epoll_ctl, epfd, op, fd, event);
    if (!crowded || op != EPOLL_CTL_ADD || done != 0)
        return done;
    syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_DEL, fd, event);
    errno = ENOSPC;
    return -1;
}

static uint32_t number_of(const char *payload, size_t length)
{
    uint32_t number = 0;
    for (size_t i = 0; i < length && payload[i] >= '0' && payload[i] <= '9'; i++)
        number = number * 10 + (uint32_t)(payload[i] - '0');
    return number;
}

static void check_books(void)
{
    const struct tally *totals = &t.bus.totals;
    uint64_t ended = totals->delivered;
    for (int reason = 0; reason < DROP_REASONS; reason++)
        ended += totals->dropped[reason];
    for (struct client *client = t.bus.roster.clients; client != NULL; client = client->hh.next) {
        const struct tally *tally = subscription_tally(client);
        uint64_t own = tally->delivered + outq_events(&client->out);
        for (int reason = 0; reason < DROP_REASONS; reason++)
            own += tally->dropped[reason];
        assert(tally->relayed == own);
        ended += outq_events(&client->out);
    }
    assert(totals->relayed == ended);
}

static void turn(void)
{
    uv_run(&t.loop, UV_RUN_NOWAIT);
    check_books();
    assert((t.kamailio.attachment.state == DETACHED) == (t.kamailio.attachment.workers_attached == 0));
}

static void on_turn_end(uv_prepare_t *prepare)
{
    (void)prepare;
    kamailio_flush(&t.kamailio);
    flush_turn(&t.bus);
    figures_publish(&t.kamailio);
}

/* ---- applications ---------------------------------------------------------------------------------------------------- */

static void peer_check_event(struct peer *peer, const char *payload, size_t length)
{
    if (!t.trusted)
        return;
    const uint32_t number = number_of(payload, length);
    assert(number > peer->heard && number <= t.issued && t.met[peer->index]);
    peer->heard = number;
}

/* Returns false at the end of the stream. */
static bool peer_hear(struct peer *peer)
{
    const ssize_t n = recv(peer->fd, peer->bytes + peer->length, sizeof(peer->bytes) - peer->length, MSG_DONTWAIT);
    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    peer->length += (size_t)n;
    struct netstring frame;
    size_t at = 0;
    enum netstring_status status = NETSTRING_FRAME;
    while ((status = netstring_scan(peer->bytes + at, peer->length - at, sizeof(peer->bytes) / 2, &frame)) ==
           NETSTRING_FRAME) {
        peer_check_event(peer, frame.payload, frame.length);
        at += frame.used;
    }
    assert(status == NETSTRING_MORE);
    peer->length -= at;
    memmove(peer->bytes, peer->bytes + at, peer->length);
    return true;
}

static void peer_hang_up(struct peer *peer)
{
    if (peer->fd >= 0)
        close(peer->fd);
    peer->fd = -1;
}

static void peer_connect(struct peer *peer, struct input *in)
{
    const struct sockaddr_storage address = { .ss_family = AF_INET };
    const int room = 4096;
    int pair[2];
    if (t.bus.last_index == INDEXES)
        return;
    peer_hang_up(peer);
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    t.listener->limits.max_queued_bytes = input_below(in, 3) == 0 ? 1024 : 65536;
    const struct remote remote = remote_of_address(&address);
    if (!listener_enter(t.listener, &remote.origin)) {
        close(pair[0]);
        close(pair[1]);
        return;
    }
    if (!bus_connect(&t.bus, pair[0], &remote, &t.listener->limits, t.listener)) {
        listener_leave(t.listener, &remote.origin);
        close(pair[1]);
        return;
    }
    *peer = (struct peer){ .fd = pair[1], .index = t.bus.last_index };
}

static void peer_say(struct peer *peer, struct input *in)
{
    char message[1024];
    char digits[16];
    const size_t length = input_below(in, 600);
    snprintf(digits, sizeof(digits), "%u.", ++peer->said);
    const int n = snprintf(message, sizeof(message), "%zu:%s%0*d,", length + strlen(digits), digits, (int)length, 0);
    if (length == 0)
        snprintf(message, sizeof(message), "%zu:%s,", strlen(digits), digits);
    size_t size = length == 0 ? strlen(message) : (size_t)n;
    if (input_below(in, 16) == 0)
        size /= 2; /* a cut message makes all that follows malformed */
    const ssize_t sent = send(peer->fd, message, size, MSG_NOSIGNAL);
    if (sent >= 0 && (size_t)sent < size)
        shutdown(peer->fd, SHUT_WR);
}

static void do_peer(struct input *in)
{
    struct peer *peer = &t.peers[input_below(in, PEERS)];
    if (peer->fd < 0) {
        peer_connect(peer, in);
        return;
    }
    switch (input_below(in, 8)) {
    case 0: peer_hang_up(peer); break;
    case 1: shutdown(peer->fd, SHUT_WR); break;
    case 2: shutdown(peer->fd, SHUT_RD); break;
    case 3:
    case 4:
        if (!peer_hear(peer))
            peer_hang_up(peer);
        break;
    default: peer_say(peer, in); break;
    }
}

/* ---- Kamailio -------------------------------------------------------------------------------------------------------- */

static void link_drop(struct link *link)
{
    if (link->fd >= 0)
        close(link->fd);
    *link = (struct link){ .fd = -1 };
}

static void kamailio_die(void)
{
    for (unsigned i = 0; i < LINKS; i++)
        link_drop(&t.links[i]);
}

static void kamailio_forget_ring(void)
{
    if (t.ring == NULL)
        return;
    munmap(t.ring, ring_bytes(CAPACITY));
    ring_leave(&t.lane, t.slot);
    close(t.memfd);
    close(t.wake[0]);
    close(t.wake[1]);
    t.ring = NULL;
}

/* Kill this Kamailio, and start another one with a ring of its own. */
static void kamailio_begin_anew(struct input *in)
{
    kamailio_die();
    turn();
    kamailio_forget_ring();
    t.memfd = memfd_create("ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, t.wake) == 0);
    assert(t.memfd >= 0 && ftruncate(t.memfd, (off_t)ring_bytes(CAPACITY)) == 0);
    assert(fcntl(t.memfd, F_ADD_SEALS, SEALS) == 0);
    t.ring = mmap(NULL, ring_bytes(CAPACITY), PROT_READ | PROT_WRITE, MAP_SHARED, t.memfd, 0);
    memset(&t.lane, 0, sizeof(t.lane));
    assert(t.ring != MAP_FAILED && ring_make(t.ring, &t.lane, CAPACITY, 1) == 0);
    t.slot = ring_join(t.ring, &t.lane);
    t.ring->presence.expected = input_below(in, 4) == 0 ? 2 : 0;
    t.instance++;
    t.workers = (uint16_t)(1 + input_below(in, LINKS));
    memset(t.announced, 0, sizeof(t.announced));
}

static void send_with_descriptors(int fd, const void *bytes, size_t length, size_t count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = { 0 };
    const int descriptors[2] = { t.memfd, t.wake[1] };
    struct iovec iov = { (void *)(uintptr_t)bytes, length };
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), descriptors, count * sizeof(int));
    }
    sendmsg(fd, &message, MSG_NOSIGNAL);
}

/* Connect and ask instead of attaching. evapid answers and closes; without memory, it only closes. */
static void ask(struct input *in)
{
    static unsigned char answer[WIRE_HEADER + WIRE_ANSWER_MAX + 1];
    int pair[2];
    const struct wire_query query = { .subject = input_below(in, 2) == 0 ? WIRE_ASK_STATUS : WIRE_ASK_CLIENTS,
                                      .after = (uint32_t)input_below(in, 8),
                                      .limit = (uint16_t)input_below(in, 8) };
    const size_t size = wire_write_query(answer, sizeof(answer), &query);
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    t.kamailio.door.opened(t.kamailio.door.owner, pair[0]);
    send(pair[1], answer, size, MSG_NOSIGNAL);
    turn();
    const ssize_t n = recv(pair[1], answer, sizeof(answer), 0);
    assert(n <= 0 || (answer[4] == WIRE_ANSWER && answer_is_good(answer + WIRE_HEADER, (size_t)n - WIRE_HEADER)));
    close(pair[1]);
}

/* Connect, and send a good HELLO, which the input may damage. */
static void link_attach(struct link *link, uint16_t worker, struct input *in)
{
    unsigned char frame[WIRE_HEADER + WIRE_HELLO_MAX];
    int pair[2];
    struct wire_hello hello = { .version = WIRE_VERSION,
                                .instance = t.instance,
                                .pid = 1,
                                .worker = worker,
                                .workers = t.workers,
                                .keep_clients = true,
                                .kamailio_version = { "5.6.3", 5 } };
    const size_t size = wire_write_hello(frame, sizeof(frame), &hello);
    const size_t harm = input_below(in, 16);
    if (harm == 6)
        ask(in);
    if (harm == 1)
        frame[input_below(in, size)] ^= (unsigned char)(1 + input_below(in, 255));
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    *link = (struct link){ .fd = pair[1] };
    t.kamailio.door.opened(t.kamailio.door.owner, pair[0]);
    send_with_descriptors(link->fd, frame, harm == 2 ? size / 2 : size, harm == 3 ? 1 : harm == 4 ? 0 : 2);
    if (harm == 2 || harm == 5)
        send_with_descriptors(link->fd, frame + size / 2, size - size / 2, 2);
}

static void push(struct ring_record record, const char *tag, size_t tag_length, const char *payload, size_t length)
{
    ring_push(t.ring, &t.lane, t.slot, record, tag, tag_length, payload, length);
    const uint64_t sleep = ring_sleeper(t.ring, &t.lane);
    if (sleep != 0 && (send(t.wake[0], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 || errno == EAGAIN))
        ring_woken(t.ring, sleep);
}

static void link_say_done(const struct link *link)
{
    const struct ring_record done = { .type = RING_DONE,
                                      .worker = (uint16_t)(link - t.links),
                                      .session = t.kamailio.attachment.session,
                                      .target = link->sequence };
    push(done, "", 0, "", 0);
}

static void link_check_event(struct link *link, enum wire_type type, const struct wire_event *event)
{
    if (!t.trusted)
        return;
    assert(event->sequence == link->sequence && event->connection >= 1 && event->connection <= INDEXES);
    assert(type == WIRE_NEW || t.announced[event->connection]);
    if (type == WIRE_NEW)
        t.announced[event->connection] = t.met[event->connection] = true;
    if (type != WIRE_MESSAGE)
        return;
    const uint32_t number = number_of(event->message.bytes, event->message.length);
    assert(number > t.routed[event->connection]);
    t.routed[event->connection] = number;
}

/* Begin the route of the first complete frame. Returns false if there is none, or if it is no event. */
static bool link_begin_route(struct link *link)
{
    enum wire_type type = WIRE_HELLO;
    size_t body = 0;
    struct wire_event event;
    const enum wire_status status = wire_header(link->bytes, link->length, sizeof(link->bytes), &type, &body);
    assert(status != WIRE_BAD);
    if (status == WIRE_MORE || link->length < WIRE_HEADER + body)
        return false;
    if (type >= WIRE_NEW) {
        atomic_store(&t.ring->workers[link - t.links].started, ++link->sequence);
        assert(wire_read_event(link->bytes + WIRE_HEADER, body, &event));
        link_check_event(link, type, &event);
    }
    link->length -= WIRE_HEADER + body;
    memmove(link->bytes, link->bytes + WIRE_HEADER + body, link->length);
    return true;
}

static void link_run(struct link *link, struct input *in)
{
    const size_t room = sizeof(link->bytes) - link->length;
    const ssize_t n = recv(link->fd, link->bytes + link->length, room, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        link_drop(link);
        return;
    }
    link->length += n > 0 ? (size_t)n : 0;
    const uint64_t before = link->sequence;
    for (size_t routes = 1 + input_below(in, 20); routes > 0 && link_begin_route(link); routes--)
        continue;
    if (link->sequence > before && input_below(in, 8) > 0)
        link_say_done(link);
}

/* Send a byte that does not belong there: evapid closes the link, and takes the worker for dead. So the worker must
 * die. If it went on with the frames it has, it would begin routes that other workers also begin. */
static void link_break(struct link *link)
{
    send(link->fd, "x", 1, MSG_NOSIGNAL);
    turn();
    link_drop(link);
}

static void do_link(struct input *in)
{
    const uint16_t worker = (uint16_t)input_below(in, t.workers);
    struct link *link = &t.links[worker];
    if (link->fd < 0) {
        link_attach(link, worker, in);
        return;
    }
    switch (input_below(in, 16)) {
    case 0: link_drop(link); break;
    case 1: link_break(link); break;
    case 2: link_say_done(link); break;
    default: link_run(link, in); break;
    }
}

/* Push a record, as the routing script does. */
static void do_script(struct input *in)
{
    static const char tags[] = "abc";
    char payload[4096];
    struct ring_record record = { .session = t.kamailio.attachment.session };
    const size_t tag = input_below(in, 4);
    record.type = (uint8_t)(RING_RELAY + input_below(in, RING_DONE));
    if (record.type == RING_DONE) { /* only a link says that */
        record.type = RING_SEND;
        record.worker = (uint16_t)input_below(in, 2);
    }
    record.target = input_below(in, 2) == 0 ? t.peers[input_below(in, PEERS)].index : 0;
    if (ring_type_is_control(record.type)) {
        push(record, tags + tag, record.type == RING_TAG && tag < 3, "", 0);
        return;
    }
    const size_t length = 16 + input_below(in, 3000);
    memset(payload, '.', sizeof(payload));
    snprintf(payload, sizeof(payload), "%u", ++t.issued);
    payload[strlen(payload)] = '.';
    push(record, tags + tag % 3, record.type != RING_RELAY && record.type != RING_SEND, payload, length);
}

static void do_scribble(struct input *in)
{
    size_t taken = 0;
    const size_t where = input_below(in, 4);
    const size_t offset = where == 0   ? input_below(in, offsetof(struct ring_header, presence.hashes))
                          : where == 1 ? offsetof(struct ring_header, workers) + input_below(in, 256)
                          : where == 2 ? offsetof(struct ring_header, slots) + input_below(in, 2 * RING_LINE)
                                       : RING_DATA_OFFSET + input_below(in, CAPACITY - 64);
    const uint8_t *bytes = input_take(in, 1 + input_below(in, 16), &taken);
    if (input_below(in, 4) > 0)
        return; /* most inputs leave the ring as it is */
    memcpy((unsigned char *)t.ring + offset, bytes, taken);
    t.trusted = false;
}

/* ---- time ------------------------------------------------------------------------------------------------------------ */

static void timer_is_over(uv_timer_t *timer)
{
    if (uv_is_active((uv_handle_t *)timer))
        uv_timer_start(timer, timer->timer_cb, 0, 0);
}

static void do_time(struct input *in)
{
    struct worker *worker = NULL;
    struct client *client = NULL;
    struct client *next = NULL;
    switch (input_below(in, 4)) {
    case 0: timer_is_over(&t.kamailio.attachment.gather); break;
    case 1: timer_is_over(&t.kamailio.hold.timer); break;
    case 2:
        HASH_ITER(hh, t.bus.roster.clients, client, next)
        client->deadline_ms = 0;
        bus_tick(&t.bus);
        break;
    default:
        DL_FOREACH(t.kamailio.gate.strangers, worker)
        worker->opened_ms = input_below(in, 2) == 0 ? 0 : worker->opened_ms;
        kamailio_tick(&t.kamailio);
        break;
    }
}

/* Memory or watches run out until after the next turn. */
static void do_shortage(struct input *in)
{
    const uint64_t what = input_number(in, 1);
    memory_limit((long)(what % 6));
    crowded = what >= 192;
}

static void do_step(struct input *in)
{
    switch (input_below(in, 16)) {
    case 0: kamailio_begin_anew(in); break;
    case 1: kamailio_die(); break;
    case 2: do_time(in); break;
    case 3: do_shortage(in); break;
    case 4: do_scribble(in); break;
    case 5:
    case 6:
    case 7: do_peer(in); break;
    case 8:
    case 9:
    case 10: do_link(in); break;
    case 11:
    case 12: do_script(in); break;
    default:
        turn();
        memory_limit(-1);
        crowded = false;
        break;
    }
}

/* ---- begin and end --------------------------------------------------------------------------------------------------- */

static void begin(struct input *in)
{
    static const uint32_t holds_ms[] = { 5000, 0, 600000 };
    memset(&t, 0, sizeof(t));
    t.trusted = true;
    t.config.attach_hold_ms = holds_ms[input_below(in, 3)];
    t.config.worker_window_frames = 1 + input_below(in, 8);
    t.config.worker_window_bytes = 1024;
    snprintf(t.config.kamailio_socket, sizeof(t.config.kamailio_socket), "/tmp/fuzz-kamailio-%d.sock", (int)getpid());
    for (unsigned i = 0; i < PEERS; i++)
        t.peers[i].fd = -1;
    for (unsigned i = 0; i < LINKS; i++)
        t.links[i].fd = -1;
    assert(uv_loop_init(&t.loop) == 0);
    t.config.kamailio_access = (struct door_access){ .mode = 0600, .group = DOOR_OWN_GROUP };
    assert(ledger_open(&t.ledger) == NULL);
    bus_open(&t.bus, &t.loop, &t.ledger);
    t.bus.upstream = kamailio_upstream(&t.kamailio);
    t.listeners.loop = &t.loop;
    t.listeners.host = (struct listener_host){ .owner = &t.bus, .connected = bus_on_connection };
    t.subject = (struct status_subject){ .bus = &t.bus, .kamailio = &t.kamailio, .listeners = &t.listeners };
    assert(kamailio_open(&t.kamailio, &t.loop, &t.config, &t.bus, &t.listeners,
                         (struct kamailio_answerer){ .answer = answer_query, .subject = &t.subject },
                         (struct inherited_door){ .fd = -1 }) == NULL);
    const struct sockaddr_storage address = { .ss_family = AF_INET };
    const struct client_limits limits = { .max_message_bytes = 512, .keepalive_idle_s = 0 };
    t.listener = listener_add(&t.listeners, &address, &limits, &t.config.access, 100, LISTENER_CONFIG);
    assert(t.listener != NULL);
    uv_prepare_init(&t.loop, &t.turn_end);
    uv_prepare_start(&t.turn_end, on_turn_end);
    kamailio_begin_anew(in);
}

static void end(void)
{
    memory_limit(-1);
    crowded = false;
    kamailio_stop(&t.kamailio);
    turn();
    bus_close(&t.bus);
    kamailio_close(&t.kamailio);
    uv_close((uv_handle_t *)&t.turn_end, NULL);
    uv_run(&t.loop, UV_RUN_DEFAULT);
    assert(uv_loop_close(&t.loop) == 0);
    assert(t.bus.roster.clients == NULL && t.kamailio.seats.unplaced == NULL && ledger_next(&t.ledger, NULL) == NULL);
    check_books();
    ledger_close(&t.ledger);
    for (unsigned i = 0; i < PEERS; i++)
        peer_hang_up(&t.peers[i]);
    kamailio_die();
    kamailio_forget_ring();
    free(t.listener);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct input in = input_of(bytes, length);
    begin(&in);
    for (int i = 0; i < STEPS && input_left(&in) > 0; i++)
        do_step(&in);
    end();
    return 0;
}
