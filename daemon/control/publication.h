/* A publication: events that somebody sends on the control socket, netstrings one behind the other, to be given to clients
 * as if a routing script had issued them.
 *
 * What has come and is no whole event is kept, so that memory is bounded by the largest event. It goes on a batch in a turn
 * of the loop, and lets clients keep up (publication_may_go_on). */
#ifndef EVAPID_PUBLICATION_H
#define EVAPID_PUBLICATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"

#define PUBLICATION_EVENT_MAX (1UL << 20) /* bytes of the largest event */
#define PUBLICATION_BATCH 65536U          /* bytes that are read in a turn */
#define PUBLICATION_PATIENCE_MS 1000U     /* how long clients that are behind are waited for */
#define PUBLICATIONS_MAX 8U               /* at a time */

/* To whom. */
struct address_label {
    enum event_kind kind;
    char tag[EVAPID_TAG_MAX];
    size_t tag_length; /* of a relay 0 */
};

struct publication {
    struct address_label to;
    char *bytes; /* of no whole event yet, or of those that are for a turn to come */
    size_t length, room;
    bool more; /* whole events may be among them: there was no time to publish all */
    uint64_t events, event_bytes;
    uint64_t received;        /* of these events, those that a client was meant to get */
    uint64_t behind_since_ms; /* loop time; 0: clients keep up */
};

/* Give one event to those on the label. Returns how many were meant to get it. Whoever does is to commit behind it. */
uint32_t publish(struct bus *bus, const struct address_label *to, const char *bytes, size_t length);

/* What has been published is with the clients: it counts. */
void publish_commit(struct bus *bus);

/* NULL: there is no memory. */
struct publication *publication_open(const struct address_label *to);
void publication_close(struct publication *publication);

/* Where the next bytes may be read to, *room of them; NULL: there is no memory. */
char *publication_room(struct publication *publication, size_t *room);

/* So many bytes have been: publish what is whole, as far as a turn goes. NULL, or why they can't be understood. */
const char *publication_take(struct publication *publication, struct bus *bus, size_t length);

/* Has everything been published, up to the end of an event? */
bool publication_is_whole(const struct publication *publication);

/* Let it be read on? Not while clients have more than half of their queues to read, or more than half of all memory for
 * queues is taken, but no longer than PUBLICATION_PATIENCE_MS: then those who don't keep up go short by their policy, until
 * they do again. */
bool publication_may_go_on(struct publication *publication, const struct bus *bus);

#endif
