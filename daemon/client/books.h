/* A client's books (struct tally): what became of each event for it, and of each message from it.
 *
 * Every count is made here: in the client's own tally, which is in the ledger, and in the tally of all clients. */
#ifndef EVAPID_BOOKS_H
#define EVAPID_BOOKS_H

#include <stddef.h>
#include <stdint.h>

#include "client/client_type.h"

/* The queue was given events since the last call: count them, also in the ledger. For an event in the run, the caller
 * counts it in all clients' tally, once for all followers. */
void books_note_given(struct client *client);

/* The queue was given an event that is not in the run. */
void books_count_given(struct client *client);

/* The run skipped this client for so many events. All clients' tally has them already. */
void books_count_skipped(struct client *client, uint64_t events);

/* Events that were given to the client are dropped. */
void books_count_dropped(struct client *client, enum drop_reason reason, uint64_t events);

/* An event is meant for the client, but the client does not get it. */
void books_count_refused(struct client *client, enum drop_reason reason);

/* The kernel has taken so many bytes, which completed so many events. */
void books_count_sent(struct client *client, uint64_t events, size_t bytes);

/* Events that wait move from one queue to another: they are in the books of the slot to, not of from. */
void books_move(const struct ledger *ledger, struct ledger_slot *from, struct ledger_slot *to, uint64_t events);

/* An event of the client is given to another client, which counts it anew. */
void books_uncount(struct client *client);

/* For a kept tag (kept.h), as for a client: an event was given to its queue; so many are dropped. */
void books_count_kept(const struct ledger *ledger, struct ledger_slot *slot, struct tally *totals);
void books_count_kept_dropped(const struct ledger *ledger, struct ledger_slot *slot, struct tally *totals,
                              enum drop_reason reason, uint64_t events);

/* count_message: a complete message of length bytes has come. Later count_route: its route has ended or was broken off;
 * or count_lost_message: no route will begin with it. */
void books_count_message(struct client *client, size_t length);
void books_count_route(struct client *client);
void books_count_lost_message(struct client *client, enum message_loss reason);

#endif
