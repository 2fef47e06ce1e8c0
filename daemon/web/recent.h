/* Recent events: what passed last, for the pages that are open. While a page asks, this observes the bus as `evapictl
 * tail` does, and keeps the last lines with their numbers; a page asks for those after the last number that it has.
 * When nobody has asked for RECENT_IDLE_MS, it observes nothing and forgets all. */
#ifndef EVAPID_RECENT_H
#define EVAPID_RECENT_H

#include <stddef.h>
#include <stdint.h>

#include "views/tail.h"

#define RECENT_LINES 200U
#define RECENT_BYTES 524288U /* of all lines together */
#define RECENT_IDLE_MS 10000U

struct recent {
    struct tails tails;
    struct tail *tail; /* NULL: nobody asks */
    uint64_t asked_ms; /* the loop's time of the last question */
    char *lines[RECENT_LINES];
    size_t length[RECENT_LINES];
    size_t bytes;   /* of them together */
    uint64_t first; /* the number of the oldest line that is kept */
    uint64_t next;  /* the number that the next line gets */
};

/* {"next":N,"lines":[...]}: the lines from number `from` on that are kept; ask next for those from N on. The caller
 * frees the text. NULL: memory is short. */
char *recent_describe(struct recent *recent, struct bus *bus, uint64_t from, uint64_t now_ms, size_t *length);

/* Call it once a second. */
void recent_tick(struct recent *recent, uint64_t now_ms);

/* Forget all, and observe nothing. */
void recent_end(struct recent *recent);

#endif
