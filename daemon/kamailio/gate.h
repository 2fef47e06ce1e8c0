/* The gate: strangers, that is connections to Kamailio's socket that are not workers, or not yet.
 *
 * A stranger sends HELLO and becomes a worker, or sends QUERY and gets an answer. One that stays silent is closed. At
 * most STRANGERS_MAX are open. One more replaces the oldest of the user who has the most, so a user who holds many
 * connections cannot lock Kamailio out. A loop turn answers one question, in order of arrival, so that events go out in
 * between. */
#ifndef EVAPID_GATE_H
#define EVAPID_GATE_H

#include "kamailio/kamailio_type.h"

#define STRANGERS_MAX 256U /* at a time */
#define HELLO_MS 5000U     /* how long a stranger may stay silent, or leave its answer unread */

/* A connection has been accepted. owner is the kamailio. */
void gate_on_connect(void *owner, int fd);

/* The functions of struct worker_host. */
void gate_on_hello(struct worker *worker, const struct wire_hello *hello, int memfd, int wake_fd);
void gate_on_bad_hello(struct worker *worker, const struct wire_hello *hello);
void gate_on_query(struct worker *worker, const struct wire_query *query);
void gate_on_lost(struct worker *worker, const char *why);

/* Call it at the end of a turn: handle the waiting HELLOs that may go on now, and one waiting QUERY. */
void gate_serve(struct kamailio *kamailio);

/* Is there work for the next turn? */
static inline bool gate_is_waited_at(const struct kamailio *kamailio)
{
    return kamailio->gate.waiting > 0;
}

/* Call it once a second: refuse strangers whose HELLO_MS are over. */
void gate_tick(struct kamailio *kamailio);

/* Close all strangers. */
void gate_close(struct kamailio *kamailio);

#endif
