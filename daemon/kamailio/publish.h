/* What evapid publishes in the ring (evapid/presence.h), beside its figures: who is here, and which tags reach somebody. */
#ifndef EVAPID_PUBLISH_H
#define EVAPID_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

#include "kamailio/kamailio_type.h"

/* Where it is published; NULL when there is no ring, or it is the next evapid's to say. */
struct presence *publish_presence(const struct kamailio *kamailio);

/* Write into a freshly opened ring who is here. */
void publish_all(struct kamailio *kamailio);

/* A tag has got its first receiver, or lost its last. */
void publish_tag(struct kamailio *kamailio, uint64_t hash, bool present);

/* So many clients receive events, and so many are expected to. */
void publish_clients(const struct kamailio *kamailio, uint32_t clients, uint32_t expected);

/* Workers are attached, or none. Also when evapid stops. */
void publish_attached(const struct kamailio *kamailio, bool attached);

#endif
