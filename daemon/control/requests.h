/* Requests of the control socket: a table of what may be asked, and what each does. docs/protocol.md specifies them.
 *
 * It knows JSON and evapid, but no connection: what a request wants of its connection (to be shown what passes, to publish, to
 * take over) it says in the reply. */
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

/* What came of reading the configuration again. */
struct reload_outcome {
    unsigned added, removed; /* listeners */
    unsigned revoked;        /* clients that are closed, since they may not be connected any more */
};

/* Somebody asks to read the configuration again. NULL: it has been done, and *outcome says what came of it; or why nothing has
 * changed. */
typedef const char *request_reload(void *owner, struct reload_outcome *outcome);

/* What requests are about. */
struct request_subject {
    const struct status_subject *status;
    struct stats *stats;
    struct tails *tails;
    unsigned publications; /* open now; the connections' to count */
    bool in_turn;          /* all has been read that Kamailio had said before the request came */
    request_reload *reload;
    void *owner; /* of reload */
};

/* What becomes of a request. It goes on with at most one of tail, publication and replace; the first two belong to who has
 * asked, and so does a report. */
struct request_reply {
    json_t *answer;        /* NULL: an error, or one of the following two */
    struct report *report; /* it is answered by this */
    bool later;            /* nothing has been done: it is to be done in turn, when all before mark has been read */
    struct kamailio_mark mark;
    const char *error;
    char detail[REQUEST_DETAIL];
    struct tail *tail;
    struct publication *publication;
    bool replace;
};

/* Do what the line of length bytes says. */
void request_do(const struct request_subject *subject, const char *line, size_t length, struct request_reply *reply);

#endif
