/* What happens to a client (client_type.h): it is opened, admitted, given events, read, flushed and closed. */
#ifndef EVAPID_CLIENT_H
#define EVAPID_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

#include "client/client_type.h"

/* Take over a connected socket: set its options, and watch it. NULL: no memory, or the socket is unusable; it is
 * closed. */
struct client *client_open(uv_loop_t *loop, int fd, uint32_t index, const struct remote *remote,
                           const struct client_limits *limits, const struct client_host *host);

/* Take over the client of a slot from the evapid before us, with its socket (-1: it is GONE). Nothing waits in either
 * direction yet (client_load). NULL: no memory; the socket is closed. */
struct client *client_adopt(uv_loop_t *loop, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                            const struct client_host *host);

/* Apply other limits, also to what waits. A message that has begun keeps the limits with which it began. The framing
 * never changes. */
void client_set_limits(struct client *client, const struct client_limits *limits);

/* save: write what a successor needs besides the slot. load: read it into a client just adopted; *lost: it is GONE only
 * because its socket did not come along. False: the state is invalid. */
void client_save(struct client *client, struct state_out *out);
bool client_load(struct client *client, struct state_in *in, bool *lost);

/* The listener at which it connected, NULL: it is no longer there; and its seat at Kamailio's side. */
void client_set_listener(struct client *client, struct listener *listener);
void client_set_seat(struct client *client, void *seat);

/* ADMITTING: open it. */
void client_admit(struct client *client);

/* client_host.admits has changed: start or stop the time within which it must first be admitted. */
void client_time_admission(struct client *client);

/* Has it waited too long for its first admission? */
bool client_is_overdue(const struct client *client, uint64_t now_ms);

/* OPEN, FINISHING: hold it back until it is admitted again. */
void client_readmit(struct client *client);

/* Offer held messages to the host again. Continue to read if all were taken. */
void client_resume(struct client *client);

/* Handle a postponed client: there is time now. */
void client_attend(struct client *client);

/* Call it once a second: end the input of a client whose message has not become complete in message_timeout_ms. */
void client_check_deadline(struct client *client);

/* output_give and output_can_accept; afterwards the socket is watched for what the client now needs. */
bool client_give(struct client *client, struct chunk *chunk, enum drop_reason *reason);
bool client_can_accept(struct client *client, size_t size, enum drop_reason *reason);

/* Send what the kernel takes now. */
void client_flush(struct client *client);

/* Stop reading and giving; close when the queue has been sent, or after linger_ms. A client that was being admitted
 * gets nothing more, except the rest of a half-sent frame. */
void client_finish(struct client *client);

/* Stop reading, and drop the queue for this reason; close as soon as a half-sent frame is complete. Messages that the
 * host has not taken yet are kept. */
void client_cut_off(struct client *client, enum drop_reason reason);

/* Close immediately, and drop the queue for this reason. */
void client_drop(struct client *client, enum drop_reason reason);

/* Close and free a client that the host does not use yet. The host is not told. */
void client_discard(struct client *client);

/* The same for an adopted client: nothing is sent to the peer, and the slot stays as it is, because another evapid may
 * still use both. */
void client_abandon(struct client *client);

/* Call it once a second: watch the socket again if the kernel had no room before. */
void client_tick(struct client *client);

/* For how long has nothing come from it, and nothing been sent to it? At first, since we have had it. */
uint64_t client_idle_ms(const struct client *client);

/* Free a client that is GONE. */
void client_free(struct client *client);

const char *client_state_name(enum client_state state);

#endif
