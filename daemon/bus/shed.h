/* Shedding: all queues together may take max_total_queued_bytes of memory. Each event counts once, however many clients
 * wait for it. If an event would exceed that, the longest queues are cut, so that it reaches the other clients. */
#ifndef EVAPID_SHED_H
#define EVAPID_SHED_H

#include <stddef.h>

#include "bus/bus_type.h"

/* Make room for the event. This may close any client: returns the event's guest, or NULL if it has none any more. */
struct client *shed_make_room(struct bus *bus, const struct event *event);

/* Bytes of memory that all queues take; each event counts once. */
size_t shed_queue_memory(void);

#endif
