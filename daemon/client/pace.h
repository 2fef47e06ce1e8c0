/* A client's pace: whether it keeps up with what it is given, and what becomes of one that doesn't.
 *
 * A client is slow from when more than half of its queue's limit waits, or an event is dropped for it, until no more than
 * an eighth waits: that is noticed when a turn of the loop ends and once a second, logged, and shown by the status.
 *
 * When its queue is full its policy (enum slow_policy) decides. SLOW_DISCONNECT is the bus's to carry out. SLOW_DROP_OLDEST
 * drops the older half of the queue. SLOW_DROP_NEWEST passes the client over: it follows its run no more, and what the run
 * is offered meanwhile is counted for it, all at once, when it rejoins: when half of its queue is free. Both drop much at a
 * time, so that there are few gaps, and long ones, instead of one behind each event. */
#ifndef EVAPID_PACE_H
#define EVAPID_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/client_type.h"

/* The kernel takes no more: make room in the queue for an event of size bytes, framed, if the policy has a way. False:
 * there is none, and nothing has changed. */
bool pace_make_room(struct client *client, size_t size);

/* Memory is short: drop half of what waits, in whole events, the newest or the oldest, whichever the policy is to drop. run is
 * the client's own, NULL when it gets no events. False: nothing has been dropped, for there was no memory even for that. */
bool pace_shed(struct client *client, struct run *run);

/* An event has been dropped for the client because its queue is full: it is slow from now on, if it wasn't. */
void pace_fall_behind(struct client *client);

/* Pass a client that listens over from now on, unless half of its queue is free: it follows its run no more. */
void pace_pass_over(struct client *client, struct run *run);

/* Bytes have left the queue: a client that was passed over follows its run again when half of it is free. */
void pace_sent(struct client *client);

/* It is not passed over any more: it gets no events at all now. */
void pace_end_pass(struct client *client);

/* Bring up to date in its books what it has missed. */
void pace_count_passed(struct client *client);

/* Look whether it has become slow, or is no longer. */
void pace_note(struct client *client);

/* Write it for a successor; read it back, for a client of that run. False: it makes no sense. */
void pace_save(struct client *client, struct state_out *out);
bool pace_load(struct client *client, struct run *run, struct state_in *in);

/* Its policy or its limit may be another than it had: if by those it is not to be passed over, it gets the next event, or
 * that one finds its queue full. */
void pace_note_limits(struct client *client);

#endif
