/* A slice of long work: so much is done in one turn of the loop, and the rest in the turns that follow, so that nobody waits long
 * for all of it (docs/architecture.md, promise 9).
 *
 *     struct slice slice = slice_begin();
 *     while (there is more && !slice_is_over(&slice))
 *         do a little;
 *
 * A slice is a time and not a number of things, because how long one takes depends on the machine. It is elapsed time, which is read
 * without a system call, and not processor time: if other processes hold evapid up, a slice does less, never more. */
#ifndef EVAPID_SLICE_H
#define EVAPID_SLICE_H

#include <stdbool.h>
#include <stdint.h>

#include "evapid/histogram.h"

#define SLICE_NS 5000000U /* several kinds of work may have one each in a turn, which has 50 ms */
#define SLICE_LOOK 8U     /* the clock is read once in so many questions */

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

/* Is the slice's time over? The clock is read at every 8th call (SLICE_LOOK); the calls before always say no. */
static inline bool slice_is_over(struct slice *slice)
{
    if (!slice->over && ++slice->asked % SLICE_LOOK == 0)
        slice->over = histogram_clock_ns() >= slice->until_ns;
    return slice->over;
}

#endif
