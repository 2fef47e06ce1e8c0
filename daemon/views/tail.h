/* A tail: somebody on the control socket to whom events and messages are shown as they pass, a JSON object on a line each.
 *
 * It never holds anybody up. What is to be shown is kept in a queue of TAIL_ROOM bytes; what comes while that is full is
 * not, and its number follows as soon as there is room. While there is no tail nobody observes the bus. */
#ifndef EVAPID_TAIL_H
#define EVAPID_TAIL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"

#define TAIL_ROOM 524288U       /* bytes of lines that wait */
#define TAIL_PAYLOAD_MAX 65536U /* bytes of a payload that are shown */
#define TAILS_MAX 8U            /* at a time */

/* What is shown. */
struct tail_filter {
    bool out, in; /* events, messages of clients */
    bool by_tag;  /* only events for the tag, messages of clients that have it */
    char tag[EVAPID_TAG_MAX];
    size_t tag_length;
};

struct tail {
    struct tail_filter filter;
    char *lines;      /* of TAIL_ROOM bytes */
    size_t length;    /* of what waits in them */
    uint64_t dropped; /* since that began to wait: what has not been shown */
    struct tail *prev, *next;
};

/* All of them on one bus. */
struct tails {
    struct bus *bus;
    struct observer observer;
    struct tail *first; /* list */
    unsigned count;
};

/* Begin; there are fewer than TAILS_MAX. NULL: there is no memory. */
struct tail *tail_open(struct tails *tails, struct bus *bus, const struct tail_filter *filter);
void tail_close(struct tails *tails, struct tail *tail);

/* Take what waits, *length bytes that are the caller's to free; NULL when nothing does, or there is no memory now. */
char *tail_take(struct tail *tail, size_t *length);

#endif
