/* Kept tags: a tag whose last client has gone is kept for a while (keep_absent_ms), and events for it wait for the next
 * client that gets it.
 *
 *     a tag's last client ──goes──▶ kept ──the next client is admitted──▶ its queue is that client's
 *                                    │
 *                                    └──the time is over──▶ what waits is dropped as absent
 *
 * The queue is like that of a client that does not read: the same chunks, limits and books (in the ledger, in a slot of
 * its own). It follows no run: an event for all clients waits in a chunk of its own, which all kept tags share. It has
 * the framing of the client that went last, and is framed anew for a client that has the other one. While another client
 * has the tag, nothing more waits.
 *
 * It owns struct kept and struct keeping. heritage.h decides when a tag is kept, and who gets what waits. */
#ifndef EVAPID_KEPT_H
#define EVAPID_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus_type.h"

#define KEPT_MAX 4096U /* most kept tags: one more ends the one kept longest */

struct state_in;
struct state_out;

/* Keep the client's tag, from now on, on the client's terms. NULL: no memory. */
struct kept *kept_begin(struct bus *bus, const struct client *client);

/* Move the queue of a client, which follows no run any more, to the end of what waits. full: the client was cut off
 * because its queue was full, so nothing more waits after that. */
void kept_take(struct bus *bus, struct kept *kept, struct client *client, bool full);

/* An event for the tag, in the framing of its queue, waits from now on. If there is no room, it is dropped as absent, or
 * older ones if slow_policy says so. chunk NULL: there was no memory for it. */
void kept_give(struct bus *bus, struct kept *kept, struct chunk *chunk);

/* Move all that waits to the client, before what waits for it already; after that if the client was admitted before. The
 * tag stays kept until kept_close. False: no memory; nothing has changed. */
bool kept_hand_on(struct bus *bus, struct kept *kept, struct client *client);

/* Keep it no more. What waits is dropped as absent; why says in the log what has happened, NULL: nothing to say. */
void kept_close(struct bus *bus, struct kept *kept, const char *why);
void kept_close_all(struct bus *bus);

/* Memory is short: drop the older or the newer half of what waits, or all of it, as slow_policy says. */
void kept_shed(struct bus *bus, struct kept *kept);

/* Call it once a second: end those whose time is over. After until_ns of CLOCK_MONOTONIC the rest are left to the next call,
 * but one is ended in any case. */
void kept_tick(struct bus *bus, uint64_t until_ns);

/* Apply a listener's limits. */
void kept_set_limits(struct bus *bus, struct kept *kept, const struct client_limits *limits);

/* The name of the listener of the tag's last client. */
const char *kept_listener(const struct kept *kept);

/* Events that wait, by the books: counting them in the queue would take long. */
uint64_t kept_waiting(const struct kept *kept);

/* All events and bytes that wait. */
uint64_t kept_events(const struct bus *bus);
size_t kept_bytes(const struct bus *bus);

/* Continue with the tag in a slot of the evapid before us. NULL: no memory, it is invalid, or too many are kept; the slot is
 * unchanged. */
struct kept *kept_adopt(struct bus *bus, struct ledger_slot *slot, const struct client_limits *limits);

/* Write the queue for a successor; read it. False: the state is invalid. */
void kept_save(const struct bus *bus, const struct kept *kept, struct state_out *out);
bool kept_load(struct bus *bus, struct kept *kept, struct state_in *in);

#endif
