/* What evapid publishes in the ring (evapid/presence.h), besides its figures: which connections and which tags get
 * events. */
#ifndef EVAPID_PUBLISH_H
#define EVAPID_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

#include "kamailio/kamailio_type.h"

/* The presence; NULL: there is no ring, or evapid is stopping and the next evapid publishes. */
struct presence *publish_presence(const struct kamailio *kamailio);

/* Publish the tags, the connections and the session in a newly opened ring. */
void publish_all(struct kamailio *kamailio);

/* A tag has got its first receiver, or lost its last. */
void publish_tag(struct kamailio *kamailio, uint64_t hash, bool present);

/* connection: the client with this index is there, or it goes (struct roster_place). receiver: it receives events from
 * now on, or none any more. */
void publish_connection(const struct kamailio *kamailio, uint32_t index, bool there);
void publish_receiver(const struct kamailio *kamailio, uint32_t index, bool receives);

/* How many clients receive events, and how many are expected to. */
void publish_clients(const struct kamailio *kamailio, uint32_t clients, uint32_t expected);

/* For how many kept tags more events may wait. publish_waiting: how many events wait for each; call it
 * before a turn's frames leave, and again at its end. */
void publish_kept(const struct kamailio *kamailio);
void publish_waiting(struct kamailio *kamailio);

/* Are workers attached? Also works while evapid stops. */
void publish_attached(const struct kamailio *kamailio, bool attached);

#endif
