/* A client's pace: does it keep up with its events, and what happens if it does not?
 *
 * A client becomes slow when more than half of its queue's limit waits, or when an event is dropped for it. It stays
 * slow until at most an eighth waits. evapid checks this at the end of a loop turn and once a second, logs it, and
 * shows it in the status.
 *
 * When the queue is full, the policy (enum slow_policy) decides. The bus carries out SLOW_DISCONNECT. SLOW_DROP_OLDEST
 * drops the older half of the queue. SLOW_DROP_NEWEST skips the client (subscription.h) until half of its queue is
 * free. Both drop much at a time: few long gaps instead of one after each event. */
#ifndef EVAPID_PACE_H
#define EVAPID_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/client_type.h"

/* The kernel takes no more: make room in the queue for an event of size bytes, framed, if the policy has a way. False:
 * it has none, and nothing has changed. */
bool pace_make_room(struct client *client, size_t size);

/* Memory is short: drop half of the queue, in whole events, the newest or the oldest as the policy says. run is the
 * client's own, NULL if it gets no events. False: there was no memory even for that; nothing is dropped. */
bool pace_shed(struct client *client, struct run *run);

/* An event is dropped for the client because its queue is full: it is slow from now on. */
void pace_fall_behind(struct client *client);

/* Skip this client, which gets events, from now on, unless half of its queue is free. */
void pace_skip(struct client *client, struct run *run);

/* Bytes have left the queue: a skipped client follows its run again if half of its queue is free. */
void pace_note_sent(struct client *client);

/* Check whether it has become slow, or is no longer slow. */
void pace_note(struct client *client);

/* Apply another policy. Call pace_note_limits after that, and after a change of the queue's limit: a skipped client
 * that would not be skipped under the new terms follows its run again. */
void pace_set_policy(struct client *client, enum slow_policy policy);
void pace_note_limits(struct client *client);

/* Write it and the subscription for a successor; read them back, for a client of this run. False: they are invalid. */
void pace_save(struct client *client, struct state_out *out);
bool pace_load(struct client *client, struct run *run, struct state_in *in);

#endif
