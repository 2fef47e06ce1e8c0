/* Waits: how long events were in evapid, from the time at which they were taken out of the ring until a client's kernel
 * had accepted all of them.
 *
 * The clock is not read for each event. All events of a batch from the ring have the time of the batch's start
 * (payload.taken_ns, kept with the event in its chunk). The time of a send is at most WAITS_USES sends old. */
#ifndef EVAPID_WAITS_H
#define EVAPID_WAITS_H

#include "evapid/histogram.h"

#define WAITS_USES 8U /* uses of one time before the clock is read again; a send takes some microseconds */

struct waits {
    struct histogram *histogram; /* in the ledger */
    uint64_t now_ns;
    unsigned uses; /* uses left for now_ns */
};

/* Time has passed: a turn begins, or other work than sending was done. */
static inline void waits_refresh(struct waits *waits)
{
    waits->uses = 0;
}

/* Bytes have just been sent. */
static inline void waits_sent(struct waits *waits)
{
    if (waits->uses == 0) {
        waits->now_ns = histogram_clock_ns();
        waits->uses = WAITS_USES;
    }
    waits->uses--;
}

/* Among them were this many whole events that were taken at this time. */
static inline void waits_add(struct waits *waits, uint64_t taken_ns, uint64_t events)
{
    histogram_add(waits->histogram, histogram_since_ns(taken_ns, waits->now_ns), events);
}

#endif
