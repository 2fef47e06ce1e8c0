/* What happens to a client (client_type.h): it is opened, admitted, given events, read from, flushed and closed. */
#ifndef EVAPID_CLIENT_H
#define EVAPID_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

#include "client/client_type.h"

/* Take over a connected socket: set its options, begin to watch it. NULL when there is no memory or the socket is of no
 * use; the socket is closed then. */
struct client *client_open(uv_loop_t *loop, int fd, uint32_t index, const struct sockaddr_storage *peer,
                           const struct client_limits *limits, const struct client_host *host);

/* Take over the client of a slot from the evapid before us: its socket (-1: it is GONE), as it was when nothing waits
 * either way. NULL when there is no memory; the socket is closed then. */
struct client *client_adopt(uv_loop_t *loop, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                            const struct client_host *host);

/* Other limits hold from now on, also for what waits; but for a message that has begun those hold that it began with. The
 * framing stays. */
void client_set_limits(struct client *client, const struct client_limits *limits);

/* Write what a successor needs beside the slot; and read it into a client that has just been adopted. *lost: it is GONE only
 * because it was adopted without its socket. False: it makes no sense. */
void client_save(struct client *client, struct state_out *out);
bool client_load(struct client *client, struct state_in *in, bool *lost);

/* The listener at which it connected, NULL: it is there no more; and what Kamailio's side keeps for it. */
void client_set_listener(struct client *client, struct listener *listener);
void client_set_seat(struct client *client, void *seat);

/* ADMITTING: let it take part. */
void client_admit(struct client *client);

/* The host admits from now on, or not any more (client_host): its time to be admitted for the first time begins, or stops. */
void client_time_admission(struct client *client);

/* Has it waited for its first admission as long as it may? */
bool client_is_overdue(const struct client *client, uint64_t now_ms);

/* OPEN, FINISHING: hold it back until it is admitted again. */
void client_readmit(struct client *client);

/* Offer what was held to the host again, and go on reading when all was taken. */
void client_resume(struct client *client);

/* There is time now for what it has. */
void client_attend(struct client *client);

/* Once a second: end the input of a client whose message has not become whole in message_timeout_ms. */
void client_check_deadline(struct client *client);

/* output_give and output_can_take, after which the client waits for what it needs. */
bool client_give(struct client *client, struct chunk *chunk, enum drop_reason *reason);
bool client_can_take(struct client *client, size_t size, enum drop_reason *reason);

/* Send what the kernel takes now. */
void client_flush(struct client *client);

/* Take and give nothing more; close when the queue has been sent, at the latest linger_ms from now. A client that was
 * being admitted sees nothing more: only a frame of which a part has left is still sent whole. */
void client_finish(struct client *client);

/* Take no more, and drop what is queued for that reason; close as soon as a frame that has been begun is sent whole. What
 * it has sent, and the host has not taken, stays. */
void client_cut_off(struct client *client, enum drop_reason reason);

/* Close at once; what is queued is dropped for that reason. */
void client_drop(struct client *client, enum drop_reason reason);

/* Close and free a client that the host has had no use for yet, and hears no more of. */
void client_discard(struct client *client);

/* Likewise one that was adopted, without a word to the peer and with its slot as it is: it may be another's still. */
void client_abandon(struct client *client);
/* Once a second: watch the socket again when the kernel had no room for that. */
void client_tick(struct client *client);

/* Free a client that is GONE. */
void client_free(struct client *client);

const char *client_state_name(enum client_state state);

#endif
