/* A histogram of durations: each bucket counts the durations up to its bound. evapid's histograms and those that the
 * module keeps in the ring have the same bounds, so they can be added. */
#ifndef EVAPID_HISTOGRAM_H
#define EVAPID_HISTOGRAM_H

#include <stdint.h>
#include <time.h>

#define HISTOGRAM_BOUNDS 20U
#define HISTOGRAM_BUCKETS (HISTOGRAM_BOUNDS + 1) /* the last bucket holds durations over every bound */

/* Upper bounds of the buckets in nanoseconds, three to a decade: 10 µs to 10 s, and a minute. */
static const uint64_t histogram_bounds_ns[HISTOGRAM_BOUNDS] = {
    10000,    25000,    50000,     100000,    250000,    500000,     1000000,    2500000,    5000000,     10000000,
    25000000, 50000000, 100000000, 250000000, 500000000, 1000000000, 2500000000, 5000000000, 10000000000, 60000000000,
};

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS]; /* of this bucket alone, not cumulative */
    uint64_t sum_ns;
};

/* The bucket for this duration: the first whose bound is not below it. */
static inline unsigned histogram_bucket(uint64_t ns)
{
    unsigned low = 0;
    unsigned high = HISTOGRAM_BOUNDS;
    while (low < high) {
        const unsigned middle = (low + high) / 2;
        if (ns <= histogram_bounds_ns[middle])
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Count `count` events that took `ns` each. */
static inline void histogram_add(struct histogram *histogram, uint64_t ns, uint64_t count)
{
    histogram->counts[histogram_bucket(ns)] += count;
    histogram->sum_ns += ns * count;
}

/* The clock for durations: the same in all processes of the machine, and never set back. */
static inline uint64_t histogram_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* Nanoseconds from then to now. 0 if then is later than now: another process may claim such a time. */
static inline uint64_t histogram_since_ns(uint64_t then_ns, uint64_t now_ns)
{
    return now_ns > then_ns ? now_ns - then_ns : 0;
}

#endif
