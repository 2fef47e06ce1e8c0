/* Publishing: the script's calls as records in the queue.
 *
 * Every function returns what the script gets: 1, or -1 with the reason in the log. None waits for evapid, but that an
 * event route may wait for room in the queue when it closes or tags a client. */
#ifndef EVAPI_PUBLISH_H
#define EVAPI_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/parser/msg_parser.h"
#include "evapid/ring.h"

#include "text.h"

/* Bind tm for the async calls, if it is loaded. Call it once, when all modules are initialized, so that tm may be loaded after
 * this one, and before Kamailio forks. */
void publish_bind_tm(void);

/* Relay an event: type is RING_RELAY, or RING_MULTICAST or RING_UNICAST with a tag, which is else NULL. */
int publish_event(sip_msg_t *msg, enum ring_type type, const struct text *event, const struct text *tag);

/* The same, with the transaction of msg, which is made if need be, suspended until somebody answers. When it returns -1 the
 * transaction is not suspended. 0: msg is a retransmission, and the script shall stop. */
int publish_async(sip_msg_t *msg, enum ring_type type, const struct text *event, const struct text *tag);

/* Close the connection of the current event, or that of an index. */
int publish_close(void);
int publish_close_index(sip_msg_t *msg, const struct text *index);

/* The script's evapi_close with a parameter: a number is an index, and anything else closes the connection of the current event.
 * EVAPI does that with any parameter. */
int publish_close_named(sip_msg_t *msg, const struct text *text);

/* Give a tag to the connection of the current event; an empty one takes it away. */
int publish_tag(sip_msg_t *msg, const struct text *tag);

#endif
