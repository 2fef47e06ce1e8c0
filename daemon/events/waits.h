/* Waits: for how long events have been in evapid, from the time at which they were taken out of the ring until a
 * client's kernel had taken them whole.
 *
 * No clock is read for each event. Those of a batch from the ring have the time at which it was begun
 * (payload.taken_ns, kept with the event in its chunk), and what is sent has a time that is at most WAITS_USES sends
 * old. */
#ifndef EVAPID_WAITS_H
#define EVAPID_WAITS_H

#include "evapid/histogram.h"

#define WAITS_USES 8U /* of a time, before the clock is read again: a send takes some microseconds */

struct waits {
    struct histogram *histogram; /* in the ledger */
    uint64_t now_ns;
    unsigned uses; /* of now_ns that are left */
};

/* Time has passed: a turn begins, or something else than sending has been done. */
static inline void waits_refresh(struct waits *waits)
{
    waits->uses = 0;
}

/* Bytes have been sent just now. */
static inline void waits_sent(struct waits *waits)
{
    if (waits->uses == 0) {
        waits->now_ns = histogram_clock_ns();
        waits->uses = WAITS_USES;
    }
    waits->uses--;
}

/* So many events that were taken at that time were among them, whole. */
static inline void waits_add(struct waits *waits, uint64_t taken_ns, uint64_t events)
{
    histogram_add(waits->histogram, histogram_since_ns(taken_ns, waits->now_ns), events);
}

#endif
