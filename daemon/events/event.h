/* An event: what a script, or a program at the control socket, sends to clients. */
#ifndef EVAPID_EVENT_H
#define EVAPID_EVENT_H

#include <stddef.h>

#include "events/framing.h"

struct client;

/* To every client; to each client with the tag; to one client with the tag. */
enum event_kind { EVENT_RELAY, EVENT_MULTICAST, EVENT_UNICAST };

struct event {
    enum event_kind kind;
    const struct payload *payload;
    const char *tag; /* tag_length bytes; none for a relay */
    size_t tag_length;
    struct client
        *guest; /* the client that the issuing route is admitting: it receives the event too, after its admission; or
                   NULL */
};

#endif
