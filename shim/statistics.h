/* The figures of this module and of evapid, as Kamailio's statistics of the group "evapi". All are read from the
 * queue's shared memory: nothing asks or waits, and they are there without an evapid too. */
#ifndef EVAPI_STATISTICS_H
#define EVAPI_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>

/* Register the group. False: Kamailio refused it, which is logged. */
bool statistics_init(void);

/* The n-th figure, from 0; false after the last. */
struct statistic {
    const char *name;
    long value;
};
bool statistics_read(size_t n, struct statistic *statistic);

#endif
