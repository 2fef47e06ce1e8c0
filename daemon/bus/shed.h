/* Shedding: what waits for all clients together may take max_total_queued_bytes of memory, each event once, however many clients
 * wait for it. When an event would exceed that, the clients for which the most waits are cut short, so that it reaches the others. */
#ifndef EVAPID_SHED_H
#define EVAPID_SHED_H

#include <stddef.h>

#include "bus/bus_type.h"

/* Make sure that there is memory for the event. Any client may be closed by that: returns the event's guest, or NULL if it has
 * none or no longer. */
struct client *shed_make_room(struct bus *bus, const struct event *event);

/* Bytes of memory that all that waits for clients takes, each event once. */
size_t shed_queue_memory(void);

#endif
