/* A turn of the loop: how long it took, in evapid's own processor time.
 *
 * A turn lasts from the end of the turn before to its own end. evapid sleeps until something arrives, then works on all
 * that has arrived; that work counts. Nobody waits for evapid longer than its longest turn, so turns have a bound
 * (docs/architecture.md, promise 9).
 *
 * Reading the thread's clock is a system call, so it is read at most once in a millisecond. The turns that ended since
 * the last reading share the measured time. Only the last of them can have been long, so it is given as much of that
 * time as it can have used. */
#ifndef EVAPID_TURN_H
#define EVAPID_TURN_H

#include <stdint.h>

#include "evapid/histogram.h"

#define TURN_BOUND_NS 50000000U /* of processor time: a longer turn is logged */

struct turn {
    uint64_t number;            /* turns that have ended */
    struct histogram histogram; /* of the turns counted, in this process */
    uint64_t uncounted;         /* turns that ended since the thread's clock was read */
    uint64_t ended_ns, read_ns; /* by CLOCK_MONOTONIC: the end of the last turn, and the last reading of the thread's
                                   clock */
    uint64_t cpu_ns;            /* the result of that reading */
};

/* Call it before the loop runs. */
void turn_begin(struct turn *turn);

/* Call it when a turn has ended. */
void turn_end(struct turn *turn);

/* The same, with the time by CLOCK_MONOTONIC as now_ns. cpu_ns reads the thread's clock. For tests. */
void turn_end_at(struct turn *turn, uint64_t now_ns, uint64_t (*cpu_ns)(void));

#endif
