/* A client's subscription to the run of its framing, in which every event for all clients lies once (run.h).
 *
 *     none ──follow──▶ follows ──skip──▶ skipped ──resume──▶ follows
 *       ▲                 │ leave           │ leave
 *       └─────────────────┴─────────────────┘
 *
 * A client that follows its run gets what is appended to it. One that is skipped (pace.h) gets nothing, and what the run is offered
 * meanwhile is counted for it: all at once, when somebody asks or it follows again. */
#ifndef EVAPID_SUBSCRIPTION_H
#define EVAPID_SUBSCRIPTION_H

#include <stdbool.h>

#include "client/client_type.h"

/* Give the client what is appended to the run from now on. */
void subscription_follow(struct client *client, struct run *run);

/* Give it nothing more. What the run has for it becomes a part of its queue; without memory for that the client fails. */
void subscription_leave(struct client *client);

/* Skip it from now on: a client that has left the run. */
void subscription_skip(struct client *client, struct run *run);

/* Let a client that is skipped follow its run again. */
void subscription_resume(struct client *client);

/* Nothing more can be sent to the client: drop what waits for that reason, and say why. What it has sent is still worked on. */
void subscription_fail(struct client *client, enum drop_reason reason, const char *why);

/* The client's books, with all that its run holds and has skipped. */
const struct tally *subscription_tally(struct client *client);

/* Write whether it is skipped for a successor; or read it, for a client of that run. False: it makes no sense. */
void subscription_save(struct client *client, struct state_out *out);
bool subscription_load(struct client *client, struct run *run, struct state_in *in);

#endif
