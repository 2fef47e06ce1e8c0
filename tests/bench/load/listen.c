/* listen: clients of one system, which receive the events of a run.
 *
 * The benchmark measures the server, so the clients must cost as little as possible: they only count bytes, and the
 * kernel discards the bytes without a copy (MSG_TRUNC, tcp(7)). The framing is known, so the number of bytes shows
 * whether all events came. With --verify they compare each byte of framing and each event's number. */
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
#include "subscribe.h"

#define NATS_PING "PING\r\n"
#define NATS_PONG "PONG\r\n"

enum { BATCH = 256, READ_MAX = 1 << 20, TICK_MS = 100, STALLED_BUFFER = 4096 };

struct listener {
    int fd;
    bool over;      /* it has all its events, or will never get them */
    unsigned ping;  /* NATS: bytes missing of a PING that has begun */
    uint64_t bytes; /* received */
};

struct crowd {
    struct listener *listeners;
    int epoll;
    struct framing framing;
    uint64_t expected;          /* bytes that each client must receive */
    uint64_t extra;             /* bytes of these that precede the first event */
    uint64_t first_ns, last_ns; /* first byte at any client; last byte at the last complete client */
    uint64_t total, complete, over;
    char *buffer; /* READ_MAX */
};

struct settings {
    const char *protocol, *address;
    uint64_t clients, events, size, extra, stall, receivers, timeout_s;
    bool verify, copy, hold;
};

/* Compare the bytes at this position of a client's events with the expected ones. */
static bool bytes_due(struct framing *framing, uint64_t at, const char *bytes, size_t length)
{
    const size_t front = framing->head + (framing->size < FRAMING_DIGITS ? 0 : FRAMING_DIGITS);
    const size_t back = framing->head + framing->size;
    while (length > 0) {
        const size_t within = (size_t)(at % framing->bytes);
        const size_t here = length < framing->bytes - within ? length : framing->bytes - within;
        const size_t end = within + here;
        framing_number(framing, at / framing->bytes);
        if (within < front && memcmp(bytes, framing->frame + within, (end < front ? end : front) - within) != 0)
            return false;
        const size_t tail = within > back ? within : back;
        if (end > tail && memcmp(bytes + (tail - within), framing->frame + tail, end - tail) != 0)
            return false;
        at += here;
        bytes += here;
        length -= here;
    }
    return true;
}

/* The same for bytes that may precede the first event. */
static bool listener_verify(struct crowd *crowd, const struct listener *listener, size_t length)
{
    const char *bytes = crowd->buffer;
    uint64_t at = listener->bytes;
    if (at < crowd->extra) {
        const size_t skip = length < crowd->extra - at ? length : (size_t)(crowd->extra - at);
        at += skip;
        bytes += skip;
        length -= skip;
    }
    return bytes_due(&crowd->framing, at - crowd->extra, bytes, length);
}

/* NATS sends a PING between two events to see whether a client lives. Answer it, and cut it out of the received bytes.
 * Returns how many bytes are left. */
static size_t listener_strip_pings(struct crowd *crowd, struct listener *listener, size_t length)
{
    size_t at = 0;
    while (at < length) {
        const size_t within = (size_t)((listener->bytes + at) % crowd->framing.bytes);
        if (listener->ping == 0 && (within != 0 || crowd->buffer[at] != 'P')) {
            at += crowd->framing.bytes - within;
            continue;
        }
        if (listener->ping == 0)
            listener->ping = sizeof(NATS_PING) - 1;
        const size_t cut = listener->ping < length - at ? listener->ping : length - at;
        memmove(crowd->buffer + at, crowd->buffer + at + cut, length - at - cut);
        length -= cut;
        listener->ping -= (unsigned)cut;
        if (listener->ping == 0)
            send(listener->fd, NATS_PONG, sizeof(NATS_PONG) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    return length;
}

static void listener_end(struct crowd *crowd, struct listener *listener, const char *why)
{
    if (why != NULL)
        fprintf(stderr, "client %td: %s after %" PRIu64 " of %" PRIu64 " bytes\n", listener - crowd->listeners, why,
                listener->bytes, crowd->expected);
    listener->over = true;
    crowd->over++;
    epoll_ctl(crowd->epoll, EPOLL_CTL_DEL, listener->fd, NULL);
}

static void listener_read(struct crowd *crowd, struct listener *listener, const struct settings *settings)
{
    const bool nats = crowd->framing.protocol == FRAMING_NATS;
    const int how = settings->verify || settings->copy || nats ? MSG_DONTWAIT : MSG_DONTWAIT | MSG_TRUNC;
    ssize_t got = recv(listener->fd, crowd->buffer, READ_MAX, how);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        listener_end(crowd, listener, got == 0 ? "closed" : strerror(errno));
        return;
    }
    if (nats && (got = (ssize_t)listener_strip_pings(crowd, listener, (size_t)got)) == 0)
        return;
    if (crowd->first_ns == 0)
        crowd->first_ns = clock_ns();
    if (settings->verify && !listener_verify(crowd, listener, (size_t)got)) {
        listener_end(crowd, listener, "received something other than the next event");
        return;
    }
    listener->bytes += (uint64_t)got;
    crowd->total += (uint64_t)got;
    if (listener->bytes < crowd->expected)
        return;
    const bool whole = listener->bytes == crowd->expected;
    if (whole) {
        crowd->last_ns = clock_ns();
        crowd->complete++;
    }
    listener_end(crowd, listener, whole ? NULL : "too much");
}

static bool crowd_connect(struct crowd *crowd, const struct settings *settings)
{
    for (uint64_t i = 0; i < settings->clients; i++) {
        struct listener *listener = &crowd->listeners[i];
        const bool stalled = i >= settings->clients - settings->stall;
        listener->fd = socket_connect(settings->address, stalled ? STALLED_BUFFER : 0);
        if (listener->fd < 0 || !subscribe(listener->fd, crowd->framing.protocol))
            return false;
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = listener };
        if (i < settings->receivers && !stalled && epoll_ctl(crowd->epoll, EPOLL_CTL_ADD, listener->fd, &event) != 0) {
            perror("epoll_ctl");
            return false;
        }
    }
    return true;
}

/* Read until count listeners are over, or until the timeout. */
static void crowd_receive(struct crowd *crowd, uint64_t count, const struct settings *settings)
{
    struct epoll_event events[BATCH];
    const uint64_t end_ns = clock_ns() + settings->timeout_s * CLOCK_NS_PER_S;
    while (crowd->over < count && clock_ns() < end_ns) {
        const int ready = epoll_wait(crowd->epoll, events, BATCH, TICK_MS);
        for (int i = 0; i < ready; i++)
            listener_read(crowd, events[i].data.ptr, settings);
    }
}

static int crowd_report(const struct crowd *crowd, uint64_t receivers, const struct settings *settings)
{
    const bool complete = crowd->complete == receivers;
    printf("{\"clients\": %" PRIu64 ", \"events\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"first_ns\": %" PRIu64
           ", \"last_ns\": %" PRIu64 ", \"complete\": %s, \"completed\": %" PRIu64 ", \"stalled\": %" PRIu64 "}\n",
           settings->clients, settings->events, crowd->total, crowd->first_ns, crowd->last_ns,
           complete ? "true" : "false", crowd->complete, settings->stall);
    fflush(stdout);
    return complete ? 0 : 1;
}

static bool settings_read(int argc, char **argv, struct settings *settings)
{
    const struct option_spec specs[] = {
        { "protocol", OPTION_TEXT, &settings->protocol, true, "netstring, raw, redis or nats" },
        { "connect", OPTION_TEXT, &settings->address, true, "the server's address and port" },
        { "clients", OPTION_NUMBER, &settings->clients, true, "connections" },
        { "events", OPTION_NUMBER, &settings->events, true, "that each is to receive" },
        { "size", OPTION_NUMBER, &settings->size, true, "bytes of an event" },
        { "extra", OPTION_NUMBER, &settings->extra, false, "bytes that come before the first event" },
        { "stall", OPTION_NUMBER, &settings->stall, false, "so many, the last ones, never read" },
        { "receivers", OPTION_NUMBER, &settings->receivers, false, "only the first so many are to get events" },
        { "verify", OPTION_FLAG, &settings->verify, false, "read and compare what comes" },
        { "copy", OPTION_FLAG, &settings->copy, false, "read what comes, as a real client does, but only count it" },
        { "hold", OPTION_FLAG, &settings->hold, false, "keep the connections until a signal, or the timeout, ends it" },
        { "timeout", OPTION_NUMBER, &settings->timeout_s, false, "seconds, 60 by default" },
        { 0 },
    };
    if (!options_read(argc, argv, specs))
        return false;
    if (settings->stall > settings->clients)
        settings->stall = settings->clients;
    if (settings->receivers > settings->clients - settings->stall)
        settings->receivers = settings->clients - settings->stall;
    return true;
}

int listen_main(int argc, char **argv)
{
    struct settings settings = { .receivers = UINT64_MAX, .timeout_s = 60 };
    static struct crowd crowd;
    crowd.epoll = epoll_create1(EPOLL_CLOEXEC);
    crowd.buffer = malloc(READ_MAX);
    if (!settings_read(argc, argv, &settings) || crowd.epoll < 0 || crowd.buffer == NULL ||
        !framing_make(&crowd.framing, settings.protocol, FRAMING_EVENT, (size_t)settings.size))
        return 2;
    crowd.extra = settings.extra;
    crowd.expected = settings.extra + settings.events * crowd.framing.bytes;
    crowd.listeners = calloc(settings.clients + 1, sizeof(*crowd.listeners));
    if (crowd.listeners == NULL || !crowd_connect(&crowd, &settings))
        return 2;
    puts("ready");
    fflush(stdout);
    if (crowd.expected > 0)
        crowd_receive(&crowd, settings.receivers, &settings);
    const int code = crowd_report(&crowd, crowd.expected > 0 ? settings.receivers : 0, &settings);
    if (settings.hold)
        sleep((unsigned)settings.timeout_s);
    return code;
}
