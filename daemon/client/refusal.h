/* Refusals at a listener: what the log says of each. */
#ifndef EVAPID_REFUSAL_H
#define EVAPID_REFUSAL_H

#include <stdint.h>

#include "net/access.h"
#include "net/remote.h"

/* What a refusal's line says besides who was refused. */
struct refusal_facts {
    const char *subject; /* the listener's */
    const struct access *access;
    uint32_t places, gone; /* clients with a place, and how many of them have gone */
    uint32_t admission_timeout_ms;
};

/* Log that a remote was refused, or that a client is closed. Lines of one kind are limited. */
void refusal_log(enum refusal refusal, const struct remote *remote, const struct refusal_facts *facts);

#endif
