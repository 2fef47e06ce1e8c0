/* A bucket limits a rate: it fills at so many a second, and holds at most a second's worth. Each arrival takes one
 * out. */
#ifndef EVAPID_BUCKET_H
#define EVAPID_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

#define BUCKET_RATE_MAX 1000000U

struct bucket {
    uint64_t thousandths; /* content at at_ms */
    uint64_t at_ms;
    bool begun; /* false: the bucket is full */
};

/* One arrives at now_ms, a clock that never goes back. May it pass, at this rate (1 to BUCKET_RATE_MAX)? */
static inline bool bucket_take(struct bucket *bucket, uint32_t per_second, uint64_t now_ms)
{
    const uint64_t most = (uint64_t)per_second * 1000;
    const uint64_t waited_ms = now_ms - bucket->at_ms;
    /* A millisecond brings as many thousandths as a second brings whole ones. */
    if (!bucket->begun || waited_ms >= 1000 || bucket->thousandths + waited_ms * per_second > most)
        bucket->thousandths = most;
    else
        bucket->thousandths += waited_ms * per_second;
    bucket->begun = true;
    bucket->at_ms = now_ms;
    if (bucket->thousandths < 1000)
        return false;
    bucket->thousandths -= 1000;
    return true;
}

#endif
