/* Delivery: the one place that decides who receives an event, and gives it to them.
 *
 * An event for every client is appended to the runs, once per framing. An event for a tag, for one connection, or for a
 * client that is being admitted, is queued for each receiver. */
#ifndef EVAPID_DELIVERY_H
#define EVAPID_DELIVERY_H

#include <stdint.h>

#include "bus/bus_type.h"

/* Give the event to its receivers. Returns how many were meant to get it, even if they had no room. This may close
 * clients, the guest too. */
uint32_t delivery_give(struct bus *bus, const struct event *event);

#endif
