/* publish: the events of a run, to Redis or NATS, as fast as the server takes them.
 *
 * One send has many publications. Redis answers each: we read the answers as they come, and await no more than
 * OUTSTANDING at a time. NATS answers none: a PING after the last publication shows that all were read. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "commands.h"
#include "framing.h"
#include "options.h"
#include "socket.h"
#include "subscribe.h"

enum { BLOCK = 1 << 16, OUTSTANDING = 16384, WAIT_MS = 10000 };

struct publisher {
    int fd;
    struct framing framing;
    uint64_t events;
    uint64_t written, answered, failed; /* publications, answers (lines), and errors among them */
    char *block;                        /* whole frames */
    size_t filled, sent;                /* bytes of block */
    size_t room;
    bool asked; /* NATS: the PING is written */
    bool line_begins;
};

/* How many answers are still to come. */
static uint64_t publisher_due(const struct publisher *p)
{
    const uint64_t answers = p->framing.protocol == FRAMING_REDIS ? p->written : p->asked ? 1 : 0;
    return answers > p->answered ? answers - p->answered : 0;
}

/* Fill the block again. All of it must have been sent. */
static void publisher_fill(struct publisher *p)
{
    p->filled = p->sent = 0;
    while (p->written < p->events && p->filled + p->framing.bytes <= p->room &&
           (p->framing.protocol != FRAMING_REDIS || publisher_due(p) < OUTSTANDING)) {
        framing_number(&p->framing, p->written++);
        memcpy(p->block + p->filled, p->framing.frame, p->framing.bytes);
        p->filled += p->framing.bytes;
    }
    if (p->filled == 0 && p->written == p->events && p->framing.protocol == FRAMING_NATS && !p->asked) {
        p->filled = (size_t)sprintf(p->block, "PING\r\n");
        p->asked = true;
    }
}

/* Count the answers, and the errors among them. */
static bool publisher_read(struct publisher *p)
{
    char seen[BLOCK];
    const ssize_t got = recv(p->fd, seen, sizeof(seen), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (got <= 0) {
        fprintf(stderr, "publishing: %s\n", got == 0 ? "the server has closed" : strerror(errno));
        return false;
    }
    for (ssize_t i = 0; i < got; i++) {
        if (p->line_begins && seen[i] == '-')
            p->failed++;
        p->line_begins = seen[i] == '\n';
        if (p->line_begins)
            p->answered++;
    }
    return true;
}

static bool publisher_send(struct publisher *p)
{
    const ssize_t sent = send(p->fd, p->block + p->sent, p->filled - p->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0)
        p->sent += (size_t)sent;
    else if (errno != EAGAIN && errno != EINTR) {
        perror("publishing");
        return false;
    }
    return true;
}

/* Publish until all events are written and answered. */
static bool publisher_run(struct publisher *p)
{
    for (;;) {
        if (p->sent == p->filled)
            publisher_fill(p);
        const bool writing = p->sent < p->filled;
        if (!writing && publisher_due(p) == 0)
            return true;
        struct pollfd at = { .fd = p->fd, .events = (short)(POLLIN | (writing ? POLLOUT : 0)) };
        if (poll(&at, 1, WAIT_MS) == 0) {
            fprintf(stderr, "publishing: the server has done nothing for %d s\n", WAIT_MS / 1000);
            return false;
        }
        if ((at.revents & (POLLIN | POLLHUP | POLLERR)) != 0 && !publisher_read(p))
            return false;
        if ((at.revents & POLLOUT) != 0 && !publisher_send(p))
            return false;
    }
}

int publish_main(int argc, char **argv)
{
    const char *protocol = NULL, *address = NULL;
    uint64_t events = 0, size = 0;
    const struct option_spec specs[] = {
        { "protocol", OPTION_TEXT, &protocol, true, "redis or nats" },
        { "connect", OPTION_TEXT, &address, true, "the server's address and port" },
        { "events", OPTION_NUMBER, &events, true, "to publish" },
        { "size", OPTION_NUMBER, &size, true, "bytes of an event" },
        { 0 },
    };
    static struct publisher p = { .line_begins = true };
    if (!options_read(argc, argv, specs) || !framing_make(&p.framing, protocol, FRAMING_PUBLISH, (size_t)size))
        return 2;
    p.events = events;
    p.room = p.framing.bytes > BLOCK ? p.framing.bytes : BLOCK;
    p.block = malloc(p.room);
    p.fd = socket_connect(address, 0);
    if (p.block == NULL || p.fd < 0 || (p.framing.protocol == FRAMING_NATS && !subscribe_publisher(p.fd)))
        return 2;
    const uint64_t first_ns = clock_ns();
    const bool good = publisher_run(&p);
    printf("{\"first_ns\": %" PRIu64 ", \"last_ns\": %" PRIu64 ", \"events\": %" PRIu64 ", \"failed\": %" PRIu64 "}\n",
           first_ns, clock_ns(), p.written, p.failed);
    return good && p.failed == 0 ? 0 : 1;
}
