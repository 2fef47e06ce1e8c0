/* Kamailio's side of evapid: the attachment of one Kamailio, its evapi workers, and what evapid publishes for its
 * routes.
 *
 * It is the bus's upstream: it gives a new client to a worker, announces it there (connection-new), and admits it when
 * that route has run. The client's messages follow in order, and its connection-closed comes last. It is also the
 * intake's host: it passes what routes send to the bus, in the order in which they sent it. */
#ifndef EVAPID_KAMAILIO_H
#define EVAPID_KAMAILIO_H

#include <stdbool.h>
#include <stdint.h>

#include "kamailio/kamailio_type.h"

/* Listen for workers, on the inherited socket if there is one. Returns NULL, or why it cannot. bus, listeners and
 * config outlive it. */
const char *kamailio_open(struct kamailio *kamailio, uv_loop_t *loop, const struct config *config, struct bus *bus,
                          struct listeners *listeners, struct kamailio_answerer answerer,
                          struct inherited_door inherited);

/* The functions that the bus calls. */
struct bus_upstream kamailio_upstream(struct kamailio *kamailio);

/* Call it at the end of a turn: serve seats whose worker's window has opened, and write to the workers. */
void kamailio_flush(struct kamailio *kamailio);

/* Once a second. */
void kamailio_tick(struct kamailio *kamailio);

/* evapid is ending: start no more routes, and leave in the ring what the next evapid needs. */
void kamailio_stop(struct kamailio *kamailio);

/* Have all routes ended that were started for clients? */
bool kamailio_is_idle(const struct kamailio *kamailio);

/* Continue as a successor. stale: how many control records were meant for another evapid. */
void kamailio_go_on(struct kamailio *kamailio, uint64_t stale);

/* Close everything. The caller has closed the bus. */
void kamailio_close(struct kamailio *kamailio);

#endif
