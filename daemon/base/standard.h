/* The three standard descriptors: open from the start, even if they were closed. */
#ifndef EVAPID_STANDARD_H
#define EVAPID_STANDARD_H

#include <stdbool.h>

/* Open standard input, output and error on /dev/null where they are closed. Call it before anything else is opened:
 * else a socket could get their number, and log lines would be sent on it. False: they cannot be opened. */
bool standard_open(void);

#endif
