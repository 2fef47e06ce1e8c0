/* Delivery: the one place that decides who receives an event, and gives it to them.
 *
 * An event for every client is appended to the runs, once for each framing. One for those with a tag, or for a client that is being
 * admitted, is queued for each of them. */
#ifndef EVAPID_DELIVERY_H
#define EVAPID_DELIVERY_H

#include <stdint.h>

#include "bus/bus_type.h"

/* Give the event to its receivers. Returns how many were meant to get it, also if they had no room. Clients may be closed by that,
 * the guest too. */
uint32_t delivery_give(struct bus *bus, const struct event *event);

#endif
