/* An event: what a script, or a program at the control socket, tells clients. */
#ifndef EVAPID_EVENT_H
#define EVAPID_EVENT_H

#include <stddef.h>

#include "events/framing.h"

struct client;

/* To every client; to each one with a tag; to one of those with a tag. */
enum event_kind { EVENT_RELAY, EVENT_MULTICAST, EVENT_UNICAST };

struct event {
    enum event_kind kind;
    const struct payload *payload;
    const char *tag; /* tag_length bytes; none for a relay */
    size_t tag_length;
    struct client
        *guest; /* being admitted by the route that issues the event: it receives it too, and sees it later; or NULL */
};

#endif
