/* A selection: which clients a request asks for, in which order, and how many. */
#ifndef EVAPID_SELECTION_H
#define EVAPID_SELECTION_H

#include <stdbool.h>
#include <stddef.h>

#include "bus/bus.h"
#include "net/network.h"

/* Each order puts first what an operator looks for: the smallest or the largest. */
enum selection_order {
    ORDER_INDEX,     /* ascending: the oldest first */
    ORDER_ADDRESS,   /* ascending, as text */
    ORDER_TAG,       /* ascending; those without a tag last */
    ORDER_QUEUED,    /* waiting bytes, descending, as all below */
    ORDER_DROPPED,   /* events */
    ORDER_DELIVERED, /* events */
    ORDER_SENT,      /* bytes sent to it */
    ORDER_MESSAGES,
    ORDER_RECEIVED, /* bytes of its messages */
    SELECTION_ORDERS
};

struct selection {
    bool by_tag, by_address, by_state, slow; /* the conditions; slow: it is slow */
    uint64_t idle_ms;                        /* it has been idle for so long */
    const char *tag;                         /* tag_length bytes; length 0: clients without a tag */
    size_t tag_length;
    struct network address; /* the client comes from there */
    enum client_state state;
    enum selection_order order;
    size_t limit; /* the most clients to choose */
};

/* A selection as somebody wrote it; NULL: not given. Without limit, which each caller bounds for itself. */
struct selection_words {
    const char *tag; /* tag_length bytes */
    size_t tag_length;
    const char *address, *state, *sort;
    bool slow;
    int64_t idle_s;
};

/* Read the words; the selection refers to the tag. Returns NULL, or what is wrong: a text that is valid until the next
 * call. */
const char *selection_read(struct selection *selection, const struct selection_words *words);

/* The order, or the state, of this name. False if there is none. */
bool selection_order_find(const char *name, enum selection_order *order);
bool selection_state_find(const char *name, enum client_state *state);

/* The valid names, for an error: "index, address, ...". */
#define SELECTION_ORDER_NAMES "index, address, tag, queued, dropped, delivered, sent, messages or received"
#define SELECTION_STATE_NAMES "admitting, open, finishing, flushing or gone"

/* Choose clients of the bus. Returns the first *chosen of *matching clients in order, in an array that the caller
 * frees. NULL: memory is short. */
struct client **selection_make(const struct selection *selection, const struct bus *bus, size_t *chosen,
                               size_t *matching);

#endif
