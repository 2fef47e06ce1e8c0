/* The hold: after an attachment the events in the ring wait until the clients that they are for are there (again). Those that
 * are connected must have been announced to the new Kamailio; after a restart of evapid those that were connected before must
 * have come back. For attach_hold_ms at the most. */
#ifndef EVAPID_HOLD_H
#define EVAPID_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "kamailio/kamailio_type.h"

void hold_open(struct kamailio *kamailio);
void hold_close(struct kamailio *kamailio);

bool hold_is_on(const struct kamailio *kamailio);

/* Events wait for the clients, those that are there and those that were before, when there are any of either. */
void hold_begin(struct kamailio *kamailio, uint32_t clients_before);

/* End it if all are there; end it whoever is there. */
void hold_check(struct kamailio *kamailio);
void hold_end(struct kamailio *kamailio, const char *why);

/* Say in the ring how many clients there are. While they are waited for, the next evapid would have to wait for those who
 * were here before, too. */
void hold_publish_clients(const struct kamailio *kamailio);

/* What a successor goes on with: how many clients are expected, and how many milliseconds are left. */
void hold_expect(struct kamailio *kamailio, uint32_t clients);
uint64_t hold_left_ms(const struct kamailio *kamailio);
void hold_go_on(struct kamailio *kamailio, uint64_t left_ms);

#endif
