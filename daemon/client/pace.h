/* A client's pace: whether it keeps up with its events, and what happens to one that doesn't.
 *
 * A client is slow from the moment when more than half of its queue's limit waits, or an event is dropped for it, until no more
 * than an eighth waits. evapid looks at that when a turn of the loop ends and once a second, logs it, and shows it in the status.
 *
 * When the queue is full, the policy (enum slow_policy) decides. SLOW_DISCONNECT is the bus's to carry out. SLOW_DROP_OLDEST
 * drops the older half of the queue. SLOW_DROP_NEWEST skips the client (subscription.h) until half of its queue is free. Both drop
 * much at a time: few long gaps instead of one after each event. */
#ifndef EVAPID_PACE_H
#define EVAPID_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/client_type.h"

/* The kernel takes no more: make room in the queue for an event of size bytes, framed, if the policy has a way. False: it has
 * none, and nothing has changed. */
bool pace_make_room(struct client *client, size_t size);

/* Memory is short: drop half of what waits, in whole events, the newest or the oldest as the policy says. run is the client's own,
 * NULL when it gets no events. False: there was no memory even for that, and nothing is dropped. */
bool pace_shed(struct client *client, struct run *run);

/* An event is dropped for the client because its queue is full: it is slow from now on, if it wasn't. */
void pace_fall_behind(struct client *client);

/* Skip a client that gets events from now on, unless half of its queue is free. */
void pace_skip(struct client *client, struct run *run);

/* Bytes have left the queue: a client that is skipped follows its run again when half of the queue is free. */
void pace_note_sent(struct client *client);

/* Look whether it has become slow, or is no longer. */
void pace_note(struct client *client);

/* Another policy holds from now on. Call pace_note_limits after that, and after another limit of the queue: a client that those
 * would not skip follows its run again. */
void pace_set_policy(struct client *client, enum slow_policy policy);
void pace_note_limits(struct client *client);

/* Write it and the subscription for a successor; read them back, for a client of that run. False: they make no sense. */
void pace_save(struct client *client, struct state_out *out);
bool pace_load(struct client *client, struct run *run, struct state_in *in);

#endif
