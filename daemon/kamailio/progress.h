/* How far evapid has read the ring that Kamailio's processes write, and how far their routes are. */
#ifndef EVAPID_PROGRESS_H
#define EVAPID_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "kamailio/kamailio_type.h"

/* Read what routes have written without waking us, up to one turn's batch. */
void progress_catch_up(struct kamailio *kamailio);

/* catch_up_to: the same, and return the end of everything written before the call. has_read: has everything before the
 * mark been read? */
struct kamailio_mark progress_catch_up_to(struct kamailio *kamailio);
bool progress_has_read(const struct kamailio *kamailio, struct kamailio_mark mark);

/* The same; or it can't be read for the time being, because a process of Kamailio was stopped in the middle of a push. */
bool progress_can_go_on(const struct kamailio *kamailio, struct kamailio_mark mark);
bool progress_is_stuck(const struct kamailio *kamailio);

/* Go on without the record of that process. */
void progress_skip_stuck(struct kamailio *kamailio);

/* The end of everything written up to now. */
struct kamailio_mark progress_mark(const struct kamailio *kamailio);

/* Wake us when the last post of this worker is done. */
void progress_await_done(struct kamailio *kamailio, const struct worker *worker);

/* The last sequence number whose route the worker has begun. */
uint64_t progress_begun(const struct kamailio *kamailio, const struct worker *worker);

/* A worker begins, and its frames are numbered from 1. Call it only after the link before has been settled: that needs
 * the old value. */
void progress_begin(struct kamailio *kamailio, uint16_t index);

#endif
