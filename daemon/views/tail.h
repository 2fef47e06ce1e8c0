/* A tail: a connection on the control socket that is shown events and messages as they pass, one JSON object a line.
 *
 * It never delays anybody. Its lines wait in a queue of TAIL_ROOM bytes. While that is full, further lines are only
 * counted, and their number follows as soon as there is room. Without a tail nothing observes the bus. */
#ifndef EVAPID_TAIL_H
#define EVAPID_TAIL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"

#define TAIL_ROOM 524288U       /* bytes of waiting lines */
#define TAIL_PAYLOAD_MAX 65536U /* bytes shown of a payload */
#define TAILS_MAX 8U            /* at a time */

/* What is shown. */
struct tail_filter {
    bool out, in; /* events, messages of clients */
    bool by_tag;  /* only events for the tag, and messages of clients that have it */
    char tag[EVAPID_TAG_MAX];
    size_t tag_length;
    uint32_t client; /* only this client's messages, and events that it is meant to get; 0: of all */
};

struct tail {
    struct tail_filter filter;
    char *lines;      /* of TAIL_ROOM bytes */
    size_t length;    /* of the waiting lines */
    uint64_t relayed; /* filter.client's count of events that it was meant to get, after the last event */
    uint64_t dropped; /* events and messages not shown since these lines began to wait */
    struct tail *prev, *next;
};

/* All tails on one bus. */
struct tails {
    struct bus *bus;
    struct observer observer;
    struct tail *first; /* list */
    unsigned count;
};

/* Begin a tail; there must be fewer than TAILS_MAX. NULL: memory is short. */
struct tail *tail_open(struct tails *tails, struct bus *bus, const struct tail_filter *filter);
void tail_close(struct tails *tails, struct tail *tail);

/* Take the waiting lines, *length bytes, which the caller frees. NULL if nothing waits or memory is short now. */
char *tail_collect(struct tail *tail, size_t *length);

#endif
