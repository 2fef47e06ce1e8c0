/* What a client of each system must say before it gets events. */
#ifndef LOAD_SUBSCRIBE_H
#define LOAD_SUBSCRIBE_H

#include <stdbool.h>

#include "framing.h"

/* Subscribe on a connected socket that blocks, and wait for the server's confirmation. Clients of evapid and EVAPI have
 * nothing to say. Returns false, with a line on standard error, if the server says anything else. */
bool subscribe(int fd, enum framing_protocol protocol);

/* Introduce a publisher to NATS, which then confirms no events. */
bool subscribe_publisher(int fd);

#endif
