/* A client's output: events into its queue, and the queue into its socket.
 *
 * It owns struct client_output. The caller changes the client's state according to what was sent (client.h). */
#ifndef EVAPID_OUTPUT_H
#define EVAPID_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "client/client_type.h"

/* Queue an event for a client that gets events. If there is no room, make some by sending. False: it did not fit
 * (*reason says why) and is counted as dropped. */
bool output_give(struct client *client, struct chunk *chunk, enum drop_reason *reason);

/* Is there room for an event of size bytes, framed, that is about to be appended to the run? If not, make some by
 * sending. False: it does not fit (*reason says why) and is counted as given and dropped. The caller makes sure that
 * the client does not get it. */
bool output_can_accept(struct client *client, size_t size, enum drop_reason *reason);

/* An event is meant for the client, but the client does not get it: count it. */
void output_refuse(struct client *client, enum drop_reason reason);

/* Send what the kernel takes now, up to a limit that leaves time for others. */
void output_flush(struct client *client);

/* The socket was writable when there was no time for the client: the next event that finds no room may try to send
 * again. */
void output_note_writable(struct client *client);

/* The client has come, or was taken over: we have not sent it anything yet. */
void output_begin(struct client *client);

/* The rest waits until the socket is writable, as in the evapid before us. */
void output_restore(struct client *client, bool blocked);

/* The connection has ended. */
void output_stop(struct client *client);

/* Does it wait until the socket is writable? */
static inline bool output_is_blocked(const struct client *client)
{
    return client->output.blocked && !client->subscription.failed;
}

#endif
