/* The requests of the control socket: a table of commands and what each does. docs/protocol.md specifies them.
 *
 * This file knows JSON and evapid, but no connection. If a request needs something of its connection (to be shown what
 * passes, to publish, to take over), the reply says so. */
#ifndef EVAPID_REQUESTS_H
#define EVAPID_REQUESTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "control/publication.h"
#include "views/report.h"
#include "views/status.h"
#include "views/tail.h"

#define REQUEST_DETAIL CONFIG_ERROR

/* The result of a reload. */
struct reload_outcome {
    unsigned added, removed; /* listeners */
    unsigned revoked;        /* clients closed because they are no longer allowed */
    json_t *changed;         /* names of the keys with other values, for the caller to free; NULL: not reloaded */
};

/* Reload the configuration. NULL: done, and *outcome has the result. Else why nothing has changed. */
typedef const char *request_reload(void *owner, struct reload_outcome *outcome);

/* What requests work on. */
struct request_subject {
    const struct status_subject *status;
    struct stats *stats;
    struct tails *tails;
    unsigned publications; /* open now; counted by the connections' owner */
    bool in_turn;          /* evapid has read everything that Kamailio had said before the request arrived */
    request_reload *reload;
    void *owner; /* of reload */
};

/* The result of a request. At most one of tail, publication and replace is set. The caller owns a tail, a publication
 * and a report. */
struct request_reply {
    json_t *answer;        /* NULL: an error, or one of the next two */
    struct report *report; /* this answers the request */
    bool later;            /* nothing has been done yet: do it in turn, when all before mark has been read */
    struct kamailio_mark mark;
    const char *error;
    char detail[REQUEST_DETAIL];
    struct tail *tail;
    struct publication *publication;
    bool replace;
};

/* Do the request in the line of length bytes. */
void request_do(const struct request_subject *subject, const char *line, size_t length, struct request_reply *reply);

#endif
