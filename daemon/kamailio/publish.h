/* What evapid publishes in the ring (evapid/presence.h), besides its figures: its clients, and which tags have
 * receivers. */
#ifndef EVAPID_PUBLISH_H
#define EVAPID_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

#include "kamailio/kamailio_type.h"

/* The presence; NULL: there is no ring, or evapid is stopping and the next evapid publishes. */
struct presence *publish_presence(const struct kamailio *kamailio);

/* Publish the tags and the session in a newly opened ring. */
void publish_all(struct kamailio *kamailio);

/* A tag has got its first receiver, or lost its last. */
void publish_tag(struct kamailio *kamailio, uint64_t hash, bool present);

/* How many clients receive events, and how many are expected to. */
void publish_clients(const struct kamailio *kamailio, uint32_t clients, uint32_t expected);

/* Are workers attached? Also works while evapid stops. */
void publish_attached(const struct kamailio *kamailio, bool attached);

#endif
