/* What a client of each system says before it gets events. */
#ifndef LOAD_SUBSCRIBE_H
#define LOAD_SUBSCRIBE_H

#include <stdbool.h>

#include "framing.h"

/* Subscribe on a connected socket that blocks, and wait until the server has confirmed it. evapid's and EVAPI's clients
 * have nothing to say. False, with a line on standard error, when the server says something else. */
bool subscribe(int fd, enum framing_protocol protocol);

/* Introduce a publisher to NATS; it wants no confirmation of each event. */
bool subscribe_publisher(int fd);

#endif
