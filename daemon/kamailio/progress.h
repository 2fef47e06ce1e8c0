/* How far evapid has read what Kamailio's processes write into the ring, and how far their routes are. */
#ifndef EVAPID_PROGRESS_H
#define EVAPID_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "kamailio/kamailio_type.h"

/* Read what routes have said and nobody has woken us for, as far as a loop turn goes. */
void progress_catch_up(struct kamailio *kamailio);

/* Likewise, and say where all ends that they have said up to now. Has all before that been read? */
struct kamailio_mark progress_catch_up_to(struct kamailio *kamailio);
bool progress_has_read(const struct kamailio *kamailio, struct kamailio_mark mark);

/* Where all ends that has been written up to now. */
struct kamailio_mark progress_mark(const struct kamailio *kamailio);

/* Somebody waits for the end of what this worker has been posted: be woken by it. */
void progress_await_done(struct kamailio *kamailio, const struct worker *worker);

/* The last sequence number of which the worker has begun the route. */
uint64_t progress_begun(const struct kamailio *kamailio, const struct worker *worker);

/* A worker begins, whose frames are numbered from 1. Only now: the link before has been settled with the old value. */
void progress_begin(struct kamailio *kamailio, uint16_t index);

#endif
