/* A pace: so many a second, and no more at once than a second's worth. A bucket that fills at the rate and overflows at a
 * second's worth; each that comes takes one out. */
#ifndef EVAPID_PACE_H
#define EVAPID_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_RATE_MAX 1000000U

struct pace {
    uint64_t thousandths; /* that the bucket holds at at_ms */
    uint64_t at_ms;
    bool begun; /* false: the bucket is full */
};

/* One has come at now_ms, a clock that never goes back: may it pass, at that many a second (1 to PACE_RATE_MAX)? */
static inline bool pace_take(struct pace *pace, uint32_t per_second, uint64_t now_ms)
{
    const uint64_t most = (uint64_t)per_second * 1000;
    const uint64_t waited_ms = now_ms - pace->at_ms;
    /* A millisecond brings so many thousandths as a second brings whole ones. */
    if (!pace->begun || waited_ms >= 1000 || pace->thousandths + waited_ms * per_second > most)
        pace->thousandths = most;
    else
        pace->thousandths += waited_ms * per_second;
    pace->begun = true;
    pace->at_ms = now_ms;
    if (pace->thousandths < 1000)
        return false;
    pace->thousandths -= 1000;
    return true;
}

#endif
