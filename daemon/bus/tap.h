/* A tap on the bus: somebody looks on as events and messages pass, and changes nothing. Nobody does most of the time, and
 * then it costs the bus one comparison for each of them. */
#ifndef EVAPID_TAP_H
#define EVAPID_TAP_H

#include <stddef.h>
#include <stdint.h>

#include "events/framing.h"

enum event_kind { EVENT_RELAY, EVENT_MULTICAST, EVENT_UNICAST };

struct client;

/* An event that has passed. receivers: clients that were meant to get it. */
struct passing {
    enum event_kind kind;
    const struct payload *payload;
    const char *tag; /* tag_length bytes; of a relay none */
    size_t tag_length;
    uint32_t receivers;
};

/* event: one has been given to its receivers. message: one of a client's has been handed on to Kamailio's side. */
struct bus_tap {
    void *owner;
    void (*event)(void *owner, const struct passing *passing);
    void (*message)(void *owner, const struct client *client, const char *bytes, size_t length);
};

#endif
