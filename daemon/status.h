/* The status: everything an operator could ask about this evapid, as one JSON object. docs/protocol.md has its form. */
#ifndef EVAPID_STATUS_H
#define EVAPID_STATUS_H

#include <jansson.h>
#include <stdint.h>

#include "bus.h"
#include "door.h"
#include "kamailio.h"
#include "listener.h"

/* Whose status it is. */
struct status_subject {
    const struct bus *bus;
    struct kamailio *kamailio;
    const struct listeners *listeners;
    const struct door *control;
    uint64_t started_ms; /* of the loop's time */
};

/* A new reference, NULL when there is no memory. */
json_t *status_describe(const struct status_subject *subject);

#endif
