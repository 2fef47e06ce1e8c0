/* The gate: connections to Kamailio's socket that are no worker's, or not yet: strangers.
 *
 * A stranger says HELLO and becomes a worker, or asks (QUERY) and is answered, or says nothing and is closed. There are STRANGERS_MAX at
 * a time. One more takes the place of another: of the user who has the most, the one that has been there longest. So whoever holds
 * connections, however many and however often, holds them against himself and not against Kamailio. One question is answered in a
 * turn of the loop, in the order in which they came, so that events go out in between. */
#ifndef EVAPID_GATE_H
#define EVAPID_GATE_H

#include "kamailio/kamailio_type.h"

#define STRANGERS_MAX 256U /* at a time */
#define HELLO_MS 5000U     /* for how long each may say nothing, or not read its answer */

/* Somebody has connected. owner is the kamailio. */
void gate_on_connect(void *owner, int fd);

/* As in struct worker_host. */
void gate_on_hello(struct worker *worker, const struct wire_hello *hello, int memfd, int wake_fd);
void gate_on_bad_hello(struct worker *worker, const struct wire_hello *hello);
void gate_on_query(struct worker *worker, const struct wire_query *query);
void gate_on_lost(struct worker *worker, const char *why);

/* The end of a loop turn: hear those again who wait, as far as their time has come. */
void gate_serve(struct kamailio *kamailio);

/* Is there more to hear in the next turn? */
static inline bool gate_is_waited_at(const struct kamailio *kamailio)
{
    return kamailio->gate.waiting > 0;
}

/* Once a second: close those whose time is over. */
void gate_tick(struct kamailio *kamailio);

/* Close all. */
void gate_close(struct kamailio *kamailio);

#endif
