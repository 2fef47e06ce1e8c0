/* The one clock of the benchmark: CLOCK_MONOTONIC in nanoseconds, the same in all processes of a machine. */
#ifndef LOAD_CLOCK_H
#define LOAD_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_NS_PER_S 1000000000U

static inline uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * CLOCK_NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Sleep for so many microseconds, up to a second. */
static inline void clock_rest_us(unsigned us)
{
    const struct timespec rest = { .tv_nsec = (long)us * 1000 };
    nanosleep(&rest, NULL);
}

#endif
