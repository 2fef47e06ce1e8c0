/* A client's subscription to the run of its framing, in which every event for all clients is stored once (run.h).
 *
 *     none ──follow──▶ follows ──skip──▶ skipped ──resume──▶ follows
 *       ▲                 │ leave           │ leave
 *       └─────────────────┴─────────────────┘
 *
 * A client that follows its run gets the events appended to it. A skipped client (pace.h) gets nothing. The events that
 * it misses are counted all at once, when somebody asks or when it follows again. */
#ifndef EVAPID_SUBSCRIPTION_H
#define EVAPID_SUBSCRIPTION_H

#include <stdbool.h>

#include "client/client_type.h"

/* From now on give the client what is appended to the run. */
void subscription_follow(struct client *client, struct run *run);

/* Give it nothing more. Its events in the run move to its own queue; without memory for that the client fails. */
void subscription_leave(struct client *client);

/* Skip it from now on. It has left the run before. */
void subscription_skip(struct client *client, struct run *run);

/* Let a skipped client follow its run again. */
void subscription_resume(struct client *client);

/* Nothing more can be sent to the client: drop its queue for this reason, and log why. Its messages are still worked
 * on. */
void subscription_fail(struct client *client, enum drop_reason reason, const char *why);

/* The client gets nothing more, and nothing is sent to it. The caller takes its queue. */
void subscription_end(struct client *client);

/* The client's books, including all that its run holds for it or has skipped. */
const struct tally *subscription_tally(struct client *client);

/* Write for a successor whether it is skipped; read it, for a client of this run. False: the state is invalid. */
void subscription_save(struct client *client, struct state_out *out);
bool subscription_load(struct client *client, struct run *run, struct state_in *in);

#endif
