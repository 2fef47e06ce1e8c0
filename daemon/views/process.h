/* The process: what evapid uses of its machine, according to the kernel. */
#ifndef EVAPID_PROCESS_H
#define EVAPID_PROCESS_H

#include <stdint.h>

struct process {
    double cpu_s;                            /* user and system */
    double started_s;                        /* since the epoch */
    uint64_t resident_bytes, virtual_bytes;  /* 0: unknown */
    uint64_t descriptors, descriptors_limit; /* open descriptors, and their limit */
};

/* Look at the process now. Unknown values are 0. */
struct process process_look(void);

#endif
