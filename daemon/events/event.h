/* An event: what a script, or a program at the control socket, sends to clients. */
#ifndef EVAPID_EVENT_H
#define EVAPID_EVENT_H

#include <stddef.h>
#include <stdint.h>

#include "events/framing.h"

struct client;

/* To every client; to each client with the tag; to one client with the tag; to the client with the index. */
enum event_kind { EVENT_RELAY, EVENT_MULTICAST, EVENT_UNICAST, EVENT_SEND };

struct event {
    enum event_kind kind;
    const struct payload *payload;
    const char *tag; /* tag_length bytes; none for a relay or a send */
    size_t tag_length;
    uint32_t index; /* a send: of the client that shall get it; 0: of none, it has gone */
    struct client
        *guest; /* the client that the issuing route is admitting: it receives the event too, after its admission; or
                   NULL */
};

#endif
