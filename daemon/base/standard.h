/* The three standard descriptors: there from the start, whatever closed them. */
#ifndef EVAPID_STANDARD_H
#define EVAPID_STANDARD_H

#include <stdbool.h>

/* Open those of standard input, output and error that are closed on /dev/null, before anything else is opened: else a socket
 * would get their number, and lines of the log would be sent on it. False: that can't be done. */
bool standard_open(void);

#endif
