/* The status: everything that an operator could ask about this evapid, as one JSON object. docs/protocol.md has its
 * form. */
#ifndef EVAPID_STATUS_H
#define EVAPID_STATUS_H

#include <jansson.h>
#include <stdint.h>

#include "base/turn.h"
#include "bus/bus.h"
#include "client/listener.h"
#include "config/config_type.h"
#include "kamailio/kamailio.h"
#include "net/door.h"
#include "views/selection.h"
#include "views/stats.h"

/* The evapid that the status describes. */
struct status_subject {
    struct bus *bus;
    struct kamailio *kamailio;
    struct listeners *listeners;
    const struct door *control;
    const struct config *config;
    const struct turn *turn;
    uint64_t started_ms; /* by the loop's clock */
};

/* All of these return a new reference, complete, or NULL if memory is short. The first two are the whole status, except
 * for the clients, which stand between them (report.h). */
json_t *status_describe(const struct status_subject *subject);
json_t *status_describe_totals(const struct status_subject *subject);

/* Parts of it. */
json_t *describe_client(struct client *client);
json_t *describe_kamailio(const struct kamailio *kamailio);
json_t *describe_listeners(const struct listeners *all);
json_t *describe_totals(const struct status_subject *subject);

/* Since when the tag is kept, and what waits for it. */
json_t *describe_kept(const struct kept *kept);

/* Not in the status: counts since a reset. */
json_t *describe_since(const struct stats *since);

/* Text for JSON. If the bytes are not UTF-8, they are shown as \xNN; then at most EVAPID_TAG_MAX bytes. */
json_t *describe_bytes(const char *bytes, size_t length);

/* A time of the wall clock, in milliseconds since the epoch, as 2026-11-23T08:19:27.123Z. */
json_t *describe_time(uint64_t ms);

#endif
