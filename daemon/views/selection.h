/* A selection: which clients somebody asks for, in which order, and how many of them. */
#ifndef EVAPID_SELECTION_H
#define EVAPID_SELECTION_H

#include <stdbool.h>
#include <stddef.h>

#include "bus/bus.h"
#include "net/network.h"

/* Those with the smallest, or with the largest, first: whichever an operator looks for. */
enum selection_order {
    ORDER_INDEX,     /* ascending: the oldest first */
    ORDER_ADDRESS,   /* ascending, as text */
    ORDER_TAG,       /* ascending; those without a tag last */
    ORDER_QUEUED,    /* bytes that wait for it, descending; likewise the rest */
    ORDER_DROPPED,   /* events */
    ORDER_DELIVERED, /* events */
    ORDER_SENT,      /* bytes that it was sent */
    ORDER_MESSAGES,
    ORDER_RECEIVED, /* bytes of its messages */
    SELECTION_ORDERS
};

struct selection {
    bool by_tag, by_address, by_state, slow; /* what it must meet; slow: it is slow */
    const char *tag;                         /* tag_length bytes; none: it has no tag */
    size_t tag_length;
    struct network address; /* it comes from there */
    enum client_state state;
    enum selection_order order;
    size_t limit; /* the most that are chosen */
};

/* The order, or the state, of that name; false when there is none. */
bool selection_order_find(const char *name, enum selection_order *order);
bool selection_state_find(const char *name, enum client_state *state);

/* The names, for whoever has asked for another: "index, address, ...". */
#define SELECTION_ORDER_NAMES "index, address, tag, queued, dropped, delivered, sent, messages or received"
#define SELECTION_STATE_NAMES "admitting, open, finishing, flushing or gone"

/* Choose clients of the bus: *chosen of them in their order in an array that is the caller's to free, *matching of which they
 * are the first. NULL: there is no memory. */
struct client **selection_make(const struct selection *selection, const struct bus *bus, size_t *chosen,
                               size_t *matching);

#endif
