/* A slice of long work: one turn of the loop does a slice, and the following turns do the rest, so that nobody waits
 * long for all of it (docs/architecture.md, promise 9).
 *
 *     struct slice slice = slice_begin();
 *     while (there is more && !slice_is_over(&slice))
 *         do a little;
 *
 * A slice is a time, not a number of things, because the time for one depends on the machine. It is elapsed time, which
 * is read without a system call, not processor time: if other processes hold evapid up, a slice does less, never
 * more. */
#ifndef EVAPID_SLICE_H
#define EVAPID_SLICE_H

#include <stdbool.h>
#include <stdint.h>

#include "evapid/histogram.h"

#define SLICE_NS 5000000U /* a turn has 50 ms, so several kinds of work can each have a slice in it */
#define SLICE_LOOK 8U     /* calls of slice_is_over for one look at the clock */

struct slice {
    uint64_t until_ns;
    unsigned asked;
    bool over;
};

static inline struct slice slice_begin_of(uint64_t ns)
{
    return (struct slice){ .until_ns = histogram_clock_ns() + ns };
}

static inline struct slice slice_begin(void)
{
    return slice_begin_of(SLICE_NS);
}

/* Is the slice's time over? Every SLICE_LOOK-th call reads the clock; the calls before always say no. */
static inline bool slice_is_over(struct slice *slice)
{
    if (!slice->over && ++slice->asked % SLICE_LOOK == 0)
        slice->over = histogram_clock_ns() >= slice->until_ns;
    return slice->over;
}

#endif
