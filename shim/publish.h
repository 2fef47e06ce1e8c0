/* Publishing: the script's calls as records in the queue.
 *
 * Every function returns what the script gets: 1, or -1 with the reason in the log. None waits for evapid, with one
 * exception: an event route may wait for room in the queue when it closes or tags a client. */
#ifndef EVAPI_PUBLISH_H
#define EVAPI_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/parser/msg_parser.h"
#include "evapid/ring.h"

#include "text.h"

/* Bind tm for the async calls, if it is loaded. Call it once, before Kamailio forks and after all modules are
 * initialized, since tm may be loaded after this module. */
void publish_bind_tm(void);

/* Send an event: by type to everybody (RING_RELAY, to is NULL), to a tag (RING_MULTICAST, RING_UNICAST), or to one
 * connection (RING_SEND): the one whose index `to` is, or NULL for the current event's. */
int publish_event(sip_msg_t *msg, enum ring_type type, const struct text *event, const struct text *to);

/* The same, and suspend msg's transaction until an application answers. Creates the transaction if there is none. If it
 * returns -1, the transaction is not suspended. 0: msg is a retransmission, and the script shall stop. */
int publish_async(sip_msg_t *msg, enum ring_type type, const struct text *event, const struct text *to);

/* Close the current event's connection, or the one with this index. */
int publish_close(void);
int publish_close_index(sip_msg_t *msg, const struct text *index);

/* evapi_close with a parameter: a number is an index; anything else closes the current event's connection, as EVAPI
 * does with any parameter. */
int publish_close_named(sip_msg_t *msg, const struct text *text);

/* Give the current event's connection a tag; an empty one removes its tag. */
int publish_tag(sip_msg_t *msg, const struct text *tag);

#endif
