/* Kamailio's side of evapid: the attachment of one Kamailio, its evapi workers, and what its routes are told.
 *
 * It is the bus's upstream: a client that comes is given to a worker, announced there (connection-new), and admitted when
 * that route has run; its messages follow in order, and last its connection-closed. It is the queue's host: what routes
 * say goes to the bus in the order in which they said it. */
#ifndef EVAPID_KAMAILIO_H
#define EVAPID_KAMAILIO_H

#include <stdbool.h>
#include <stdint.h>

#include "kamailio/kamailio_type.h"

/* Begin to listen for workers, going on with an inherited socket if there is one. NULL, or why it can't. bus, listeners and
 * config outlive it. */
const char *kamailio_open(struct kamailio *kamailio, uv_loop_t *loop, const struct config *config, struct bus *bus,
                          struct listeners *listeners, struct kamailio_answerer answerer,
                          struct inherited_door inherited);

/* What the bus needs to know of us. */
struct bus_upstream kamailio_upstream(struct kamailio *kamailio);

/* The end of a loop turn: offer windows that have opened to those who wait, and write to the workers. */
void kamailio_flush(struct kamailio *kamailio);

/* Once a second. */
void kamailio_tick(struct kamailio *kamailio);

/* evapid is ending: begin no route any more, and leave in the ring what the next evapid needs to know. */
void kamailio_stop(struct kamailio *kamailio);

/* Are routes running, or about to, for what clients have sent? */
bool kamailio_is_idle(const struct kamailio *kamailio);

/* A successor goes on: so many control records were meant for another evapid. */
void kamailio_go_on(struct kamailio *kamailio, uint64_t stale);

/* Close everything. The bus has been closed before. */
void kamailio_close(struct kamailio *kamailio);

#endif
