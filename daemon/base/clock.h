/* The clocks: the wall clock, which can be set, and the monotonic clock, which only advances. */
#ifndef EVAPID_CLOCK_H
#define EVAPID_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_read_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Milliseconds since the epoch. May go back. */
static inline uint64_t clock_wall_ms(void)
{
    return clock_read_ms(CLOCK_REALTIME);
}

/* Milliseconds since an unspecified moment, the same for all processes of the machine. Never goes back. */
static inline uint64_t clock_monotonic_ms(void)
{
    return clock_read_ms(CLOCK_MONOTONIC);
}

#endif
