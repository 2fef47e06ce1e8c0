/* A publication: events sent on the control socket as netstrings, one after the other. Clients receive them as if a
 * routing script had issued them.
 *
 * Bytes of an incomplete event are kept, so the largest event bounds the memory. It publishes a batch in each turn of
 * the loop, and lets clients keep up (publication_may_go_on). */
#ifndef EVAPID_PUBLICATION_H
#define EVAPID_PUBLICATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"

#define PUBLICATION_EVENT_MAX (1UL << 20) /* bytes of the largest event */
#define PUBLICATION_BATCH 65536U          /* bytes read in a turn */
#define PUBLICATION_PATIENCE_MS 1000U     /* the longest wait for clients that lag */
#define PUBLICATIONS_MAX 8U               /* at a time */

/* The receivers of the events. */
struct address_label {
    enum event_kind kind;
    char tag[EVAPID_TAG_MAX];
    size_t tag_length; /* 0 for a relay or a send */
    uint32_t index;    /* a send: of the client */
};

struct publication {
    struct address_label to;
    char *bytes; /* of an incomplete event, or of events for a later turn */
    size_t length, room;
    bool more; /* bytes may contain whole events: the turn was too short to publish all */
    uint64_t events, event_bytes;
    uint64_t received;        /* of these events, those that had a receiver */
    uint64_t receivers;       /* of all of them together */
    uint64_t behind_since_ms; /* loop time; 0: clients keep up */
};

/* Publish one event to the receivers in the label. Returns their number. The caller must commit afterwards. */
uint32_t publish(struct bus *bus, const struct address_label *to, const char *bytes, size_t length);

/* Commit: everything published has been given to the clients and is counted. */
void publish_commit(struct bus *bus);

/* NULL: memory is short. */
struct publication *publication_open(const struct address_label *to);
void publication_close(struct publication *publication);

/* Where to read the next bytes, with *room for them. NULL: memory is short. */
char *publication_room(struct publication *publication, size_t *room);

/* This many bytes were read: publish the whole events, as far as the turn allows. Returns NULL, or why the bytes are
 * invalid. */
const char *publication_publish(struct publication *publication, struct bus *bus, size_t length);

/* Has everything been published, up to the end of an event? */
bool publication_is_whole(const struct publication *publication);

/* May reading go on? Not while a client's queue is more than half full, or more than half of all memory for queues is
 * used; but it waits PUBLICATION_PATIENCE_MS at most. After that, clients that do not keep up lose events by their
 * policy, until they keep up again. */
bool publication_may_go_on(struct publication *publication, const struct bus *bus);

#endif
