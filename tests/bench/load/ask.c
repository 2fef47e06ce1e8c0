/* ask: clients that send numbered messages. A route must answer each with an event that begins with the same number.
 * Each client has up to --window messages under way: with 1 it asks and waits, with 0 there is no limit. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "clock.h"
#include "commands.h"
#include "options.h"
#include "peer.h"

enum { DIGITS = 16, BATCH = 64, TICK_MS = 100 };

struct asker {
    struct peer peer;
    uint64_t sent, answers;
    uint64_t next;     /* number of the next answer: answers come in order, though one may be lost */
    uint64_t *sent_ns; /* when each message was sent */
};

struct inquiry {
    struct asker *askers;
    int epoll;
    uint64_t clients, messages, warm; /* messages that each client sends; the first ones, whose times do not count */
    uint64_t window, size, quiet_s;
    const char *address;
    char *message;
    uint64_t answers, first_ns, last_ns;
    uint64_t *taken_ns, taken; /* times of the answers, and how many there are */
    bool broken;
};

/* Send messages until the window of the asker is full. */
static bool ask(struct inquiry *inquiry, struct asker *asker)
{
    while (asker->sent < inquiry->messages && peer_room(&asker->peer, inquiry->size) &&
           (inquiry->window == 0 || asker->sent - asker->next < inquiry->window)) {
        char digits[DIGITS + 1];
        snprintf(digits, sizeof(digits), "%0*" PRIu64, DIGITS, asker->sent);
        memcpy(inquiry->message, digits, DIGITS);
        peer_say(&asker->peer, inquiry->message, inquiry->size);
        asker->sent_ns[asker->sent++] = clock_ns();
    }
    return peer_flush(&asker->peer, asker);
}

/* Count an answer. Returns false if it answers no message that is under way. */
static bool answered(struct inquiry *inquiry, struct asker *asker, const struct netstring *frame)
{
    char digits[DIGITS + 1] = "";
    if (frame->length != inquiry->size)
        return false;
    memcpy(digits, frame->payload, DIGITS);
    const uint64_t number = strtoull(digits, NULL, 10);
    if (number < asker->next || number >= asker->sent)
        return false;
    inquiry->last_ns = clock_ns();
    if (number >= inquiry->warm)
        inquiry->taken_ns[inquiry->taken++] = inquiry->last_ns - asker->sent_ns[number];
    asker->next = number + 1;
    asker->answers++;
    inquiry->answers++;
    return true;
}

static bool asker_turn(struct inquiry *inquiry, struct asker *asker, uint32_t ready)
{
    struct netstring frame;
    int found = 0;
    if ((ready & EPOLLIN) != 0 && !peer_read(&asker->peer))
        return false;
    while ((found = peer_next(&asker->peer, &frame)) > 0)
        if (!answered(inquiry, asker, &frame)) {
            fprintf(stderr, "not an answer: %.*s\n", (int)frame.length, frame.payload);
            return false;
        }
    if (found < 0)
        fputs("the server sent something that is no netstring\n", stderr);
    return found == 0 && ask(inquiry, asker);
}

static bool inquiry_open(struct inquiry *inquiry)
{
    inquiry->epoll = epoll_create1(EPOLL_CLOEXEC);
    inquiry->askers = calloc(inquiry->clients, sizeof(*inquiry->askers));
    inquiry->taken_ns = calloc(inquiry->clients * inquiry->messages, sizeof(uint64_t));
    inquiry->message = malloc(inquiry->size);
    if (inquiry->epoll < 0 || inquiry->askers == NULL || inquiry->taken_ns == NULL || inquiry->message == NULL)
        return false;
    memset(inquiry->message, 'm', inquiry->size);
    for (uint64_t i = 0; i < inquiry->clients; i++) {
        struct asker *asker = &inquiry->askers[i];
        asker->sent_ns = calloc(inquiry->messages, sizeof(uint64_t));
        if (asker->sent_ns == NULL || !peer_open(&asker->peer, inquiry->address, inquiry->epoll, asker))
            return false;
    }
    return true;
}

/* Ask until every message is answered, or no answer has come for quiet_s seconds. */
static void inquiry_run(struct inquiry *inquiry)
{
    struct epoll_event events[BATCH];
    inquiry->first_ns = inquiry->last_ns = clock_ns();
    for (uint64_t i = 0; i < inquiry->clients && !inquiry->broken; i++)
        inquiry->broken = !ask(inquiry, &inquiry->askers[i]);
    while (inquiry->answers < inquiry->clients * inquiry->messages && !inquiry->broken) {
        const int ready = epoll_wait(inquiry->epoll, events, BATCH, TICK_MS);
        for (int i = 0; i < ready && !inquiry->broken; i++)
            inquiry->broken = !asker_turn(inquiry, events[i].data.ptr, events[i].events);
        if (ready == 0 && clock_ns() - inquiry->last_ns > inquiry->quiet_s * CLOCK_NS_PER_S)
            return;
    }
}

static int earlier(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* The time within which so many of a thousand answers came. */
static uint64_t within_ns(const struct inquiry *inquiry, uint64_t thousandths)
{
    return inquiry->taken == 0 ? 0 : inquiry->taken_ns[(inquiry->taken - 1) * thousandths / 1000];
}

static int inquiry_report(struct inquiry *inquiry)
{
    const uint64_t messages = inquiry->clients * inquiry->messages;
    uint64_t sent = 0;
    for (uint64_t i = 0; i < inquiry->clients; i++)
        sent += inquiry->askers[i].sent;
    qsort(inquiry->taken_ns, inquiry->taken, sizeof(uint64_t), earlier);
    printf("{\"clients\": %" PRIu64 ", \"messages\": %" PRIu64 ", \"sent\": %" PRIu64 ", \"answers\": %" PRIu64
           ", \"first_ns\": %" PRIu64 ", \"last_ns\": %" PRIu64 ", \"p50_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64
           ", \"most_ns\": %" PRIu64 ", \"complete\": %s}\n",
           inquiry->clients, messages, sent, inquiry->answers, inquiry->first_ns, inquiry->last_ns,
           within_ns(inquiry, 500), within_ns(inquiry, 990), within_ns(inquiry, 1000),
           inquiry->answers == messages ? "true" : "false");
    return inquiry->answers == messages ? 0 : 1;
}

static bool settings_read(int argc, char **argv, struct inquiry *inquiry)
{
    const struct option_spec specs[] = {
        { "connect", OPTION_TEXT, &inquiry->address, true, "the server's address and port" },
        { "clients", OPTION_NUMBER, &inquiry->clients, false, "connections, 1 by default" },
        { "messages", OPTION_NUMBER, &inquiry->messages, true, "that each sends" },
        { "size", OPTION_NUMBER, &inquiry->size, false, "bytes of a message and of its answer, 200 by default" },
        { "window", OPTION_NUMBER, &inquiry->window, false, "messages of each under way, 1 by default; 0: any number" },
        { "warm", OPTION_NUMBER, &inquiry->warm, false, "first messages of each whose times do not count" },
        { "quiet", OPTION_NUMBER, &inquiry->quiet_s, false, "seconds without an answer that end it, 5 by default" },
        { 0 },
    };
    if (!options_read(argc, argv, specs))
        return false;
    if (inquiry->size < DIGITS || inquiry->size > PEER_MESSAGE_MAX) {
        fprintf(stderr, "ask: --size is from %d to %d\n", DIGITS, PEER_MESSAGE_MAX);
        return false;
    }
    return true;
}

int ask_main(int argc, char **argv)
{
    static struct inquiry inquiry = { .clients = 1, .size = 200, .window = 1, .quiet_s = 5 };
    if (!settings_read(argc, argv, &inquiry) || !inquiry_open(&inquiry))
        return 2;
    puts("ready");
    fflush(stdout);
    inquiry_run(&inquiry);
    return inquiry_report(&inquiry);
}
