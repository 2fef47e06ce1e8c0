/* Shedding: what waits for all clients together may take max_total_queued_bytes of memory, each event once, however many
 * wait for it. An event that would take it over that has those go short for whom most waits, so that it reaches the others. */
#ifndef EVAPID_SHED_H
#define EVAPID_SHED_H

#include <stdbool.h>

#include "bus/bus.h"

/* See to it that there is memory for an event, for every client or for some. Any client may be closed by that: returns the
 * guest, if it is still there. */
struct client *shed_make_room(struct bus *bus, const struct payload *payload, bool to_all, struct client *guest);

#endif
