/* floor: a broadcast over TCP, and nothing else. No events come in, and nothing is framed, queued or counted. The same
 * bytes, made at the start, go to all clients in blocks (64 KiB by default), with one send for each block and client. A
 * client whose socket is full is skipped until epoll reports room. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "commands.h"
#include "framing.h"
#include "options.h"
#include "socket.h"

enum { BLOCK = 1 << 16, BATCH = 256, WAIT_MS = 10000 };

struct receiver {
    int fd;
    bool ready; /* its socket may have room, so it is in the broadcast's list */
    uint64_t sent;
};

struct broadcast {
    struct receiver *receivers;
    size_t *ready; /* indexes of the receivers whose sockets may have room */
    size_t clients, ready_count, done;
    uint64_t bytes; /* for each client */
    size_t period;  /* the pattern repeats after so many bytes: one frame */
    char *pattern;  /* period + block bytes */
    size_t block;   /* the most that one send is given */
    int epoll;
};

static bool pattern_make(struct broadcast *b, const struct framing *framing)
{
    b->period = framing->bytes;
    b->pattern = malloc(b->period + b->block);
    if (b->pattern == NULL)
        return false;
    for (size_t at = 0; at < b->period + b->block; at++)
        b->pattern[at] = framing->frame[at % b->period];
    return true;
}

static bool broadcast_accept(struct broadcast *b, int listener)
{
    for (size_t i = 0; i < b->clients; i++) {
        struct receiver *r = &b->receivers[i];
        r->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct epoll_event event = { .events = EPOLLOUT | EPOLLET, .data.ptr = r };
        if (r->fd < 0 || !socket_without_delay(r->fd) || epoll_ctl(b->epoll, EPOLL_CTL_ADD, r->fd, &event) != 0) {
            perror("accepting");
            return false;
        }
    }
    return true;
}

enum turn { TURN_MORE, TURN_FULL, TURN_DONE, TURN_LOST };

/* One send for one client: up to the end of its block. */
static enum turn receiver_send(const struct broadcast *b, struct receiver *r)
{
    const size_t block = b->block - (size_t)(r->sent % b->block);
    const size_t length = b->bytes - r->sent < block ? (size_t)(b->bytes - r->sent) : block;
    const ssize_t sent = send(r->fd, b->pattern + r->sent % b->period, length, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR ? TURN_FULL : TURN_LOST;
    r->sent += (uint64_t)sent;
    if (r->sent == b->bytes)
        return TURN_DONE;
    return (size_t)sent < length ? TURN_FULL : TURN_MORE;
}

/* Send one block to each client that has room. Returns false if a client is lost. */
static bool broadcast_turn(struct broadcast *b)
{
    size_t kept = 0;
    for (size_t i = 0; i < b->ready_count; i++) {
        struct receiver *r = &b->receivers[b->ready[i]];
        const enum turn turn = receiver_send(b, r);
        if (turn == TURN_LOST) {
            perror("sending");
            return false;
        }
        r->ready = turn == TURN_MORE;
        if (turn == TURN_MORE)
            b->ready[kept++] = b->ready[i];
        else if (turn == TURN_DONE)
            b->done++;
    }
    b->ready_count = kept;
    return true;
}

/* Add the clients whose sockets have room again. Wait for one only if no client has room. */
static bool broadcast_wait(struct broadcast *b)
{
    struct epoll_event events[BATCH];
    if (b->ready_count == b->clients - b->done)
        return true;
    const int count = epoll_wait(b->epoll, events, BATCH, b->ready_count == 0 ? WAIT_MS : 0);
    for (int i = 0; i < count; i++) {
        struct receiver *r = events[i].data.ptr;
        if (r->ready || r->sent == b->bytes)
            continue;
        r->ready = true;
        b->ready[b->ready_count++] = (size_t)(r - b->receivers);
    }
    return count > 0 || b->ready_count > 0;
}

static bool broadcast_run(struct broadcast *b)
{
    while (b->done < b->clients)
        if (!broadcast_wait(b) || !broadcast_turn(b))
            return false;
    return true;
}

int floor_main(int argc, char **argv)
{
    const char *address = NULL, *protocol = "netstring";
    uint64_t clients = 0, events = 0, size = 0, block = BLOCK;
    const struct option_spec specs[] = {
        { "listen", OPTION_TEXT, &address, true, "address and port" },
        { "clients", OPTION_NUMBER, &clients, true, "to wait for" },
        { "events", OPTION_NUMBER, &events, true, "to send to each" },
        { "size", OPTION_NUMBER, &size, true, "bytes of an event" },
        { "block", OPTION_NUMBER, &block, false, "bytes of a block, 65536 by default" },
        { 0 },
    };
    struct framing framing;
    static struct broadcast b;
    b.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!options_read(argc, argv, specs) || !framing_make(&framing, protocol, FRAMING_EVENT, (size_t)size))
        return 2;
    const int listener = socket_listen(address);
    b.clients = (size_t)clients;
    b.block = (size_t)block;
    b.bytes = events * framing.bytes;
    b.receivers = calloc(clients + 1, sizeof(*b.receivers));
    b.ready = calloc(clients + 1, sizeof(*b.ready));
    if (listener < 0 || block == 0 || b.receivers == NULL || b.ready == NULL || !pattern_make(&b, &framing))
        return 2;
    puts("ready");
    fflush(stdout);
    if (!broadcast_accept(&b, listener))
        return 2;
    const uint64_t first_ns = clock_ns();
    const bool good = broadcast_run(&b);
    printf("{\"first_ns\": %" PRIu64 ", \"last_ns\": %" PRIu64 ", \"events\": %" PRIu64 ", \"failed\": 0}\n", first_ns,
           clock_ns(), events);
    return good ? 0 : 1;
}
