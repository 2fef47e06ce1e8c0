/* The process: what evapid takes of its machine, as the kernel says. */
#ifndef EVAPID_PROCESS_H
#define EVAPID_PROCESS_H

#include <stdint.h>

struct process {
    double cpu_s;                            /* user and system */
    double started_s;                        /* of the epoch */
    uint64_t resident_bytes, virtual_bytes;  /* 0: unknown */
    uint64_t descriptors, descriptors_limit; /* open ones, and how many may be */
};

/* Look. What can't be found out is 0. */
struct process process_look(void);

#endif
