/* The figures of this module and of evapid, as Kamailio's statistics of the group "evapi". All of them are read from the
 * queue's shared memory: nobody is asked, nothing waits, and they are there when evapid is not. */
#ifndef EVAPI_STATISTICS_H
#define EVAPI_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>

/* Register the group. False: Kamailio doesn't take it, which is logged. */
bool statistics_init(void);

/* The n-th figure, from 0; false behind the last. */
struct statistic {
    const char *name;
    long value;
};
bool statistics_read(size_t n, struct statistic *statistic);

#endif
