/* The status: everything an operator could ask about this evapid, as one JSON object. docs/protocol.md has its form. */
#ifndef EVAPID_STATUS_H
#define EVAPID_STATUS_H

#include <jansson.h>
#include <stdint.h>

#include "base/turn.h"
#include "bus/bus.h"
#include "client/listener.h"
#include "kamailio/kamailio.h"
#include "net/door.h"
#include "views/selection.h"
#include "views/stats.h"

/* Whose status it is. */
struct status_subject {
    struct bus *bus;
    struct kamailio *kamailio;
    struct listeners *listeners;
    const struct door *control;
    const struct turn *turn;
    uint64_t started_ms; /* of the loop's time */
};

/* All of these return a new reference, NULL when there is no memory: what is there is whole. The first two are all of the
 * status but for the clients, which stand between them (report.h). */
json_t *status_describe(const struct status_subject *subject);
json_t *status_describe_totals(const struct status_subject *subject);

/* Parts of it. */
json_t *describe_client(struct client *client);
json_t *describe_kamailio(const struct kamailio *kamailio);
json_t *describe_listeners(const struct listeners *all);
json_t *describe_totals(const struct status_subject *subject);

/* What it has not: what was counted since a moment. */
json_t *describe_since(const struct stats *since);

/* Text for JSON, which is UTF-8: any other bytes are shown as \xNN. At most EVAPID_TAG_MAX bytes, if they are not. */
json_t *describe_bytes(const char *bytes, size_t length);

/* A time of the wall clock, milliseconds of the epoch, as 2026-11-23T08:19:27.123Z. */
json_t *describe_time(uint64_t ms);

#endif
