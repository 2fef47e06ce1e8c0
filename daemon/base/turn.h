/* A turn of the loop: how long it has taken, in processor time of evapid's own.
 *
 * A turn goes from the end of the one before to its own end: evapid sleeps until something comes, works on all that has come, and
 * that work is what counts. Nobody waits for evapid longer than its longest turn takes, so there is a bound for turns
 * (docs/architecture.md, promise 9).
 *
 * To read the thread's clock is a system call. It is read once in a millisecond at most: the turns that have ended since it was
 * read before share what it says, and the last one of them, the only one that can have been a long one, gets as much of that
 * as it can have taken. */
#ifndef EVAPID_TURN_H
#define EVAPID_TURN_H

#include <stdint.h>

#include "evapid/histogram.h"

#define TURN_BOUND_NS 50000000U /* of processor time: a turn that takes more is logged */

struct turn {
    uint64_t number;            /* turns that have ended */
    struct histogram histogram; /* of those that have been counted, in this process */
    uint64_t uncounted;         /* turns that have ended since the thread's clock was read */
    uint64_t ended_ns, read_ns; /* by CLOCK_MONOTONIC: when the last turn ended, and when the thread's clock was read */
    uint64_t cpu_ns;            /* what it said */
};

/* Before the loop runs. */
void turn_begin(struct turn *turn);

/* A turn has ended. */
void turn_end(struct turn *turn);

/* Likewise, at that time by CLOCK_MONOTONIC; cpu_ns reads the thread's clock. For tests. */
void turn_end_at(struct turn *turn, uint64_t now_ns, uint64_t (*cpu_ns)(void));

#endif
