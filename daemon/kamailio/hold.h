/* The hold: after an attachment the events in the ring wait until their clients are ready. Connected clients must first
 * be announced to the new Kamailio. After a restart of evapid, the earlier clients must also come back. A hold lasts
 * attach_hold_ms at most. */
#ifndef EVAPID_HOLD_H
#define EVAPID_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "kamailio/kamailio_type.h"

void hold_open(struct kamailio *kamailio);
void hold_close(struct kamailio *kamailio);

bool hold_is_on(const struct kamailio *kamailio);

/* Let events wait for the connected clients and for clients_before earlier ones. If there are neither, don't hold. */
void hold_begin(struct kamailio *kamailio, uint32_t clients_before);

/* hold_check: end the hold if all clients are ready. hold_end: end it in any case. */
void hold_check(struct kamailio *kamailio);
void hold_end(struct kamailio *kamailio, const char *why);

/* Publish in the ring how many clients there are. During a hold this includes the expected ones: if this evapid ends,
 * the next one has to wait for them too. */
void hold_publish_clients(const struct kamailio *kamailio);

/* What a successor continues with: how many clients are expected, and how many milliseconds are left. */
void hold_expect(struct kamailio *kamailio, uint32_t clients);
uint64_t hold_left_ms(const struct kamailio *kamailio);
void hold_go_on(struct kamailio *kamailio, uint64_t left_ms);

#endif
