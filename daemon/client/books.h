/* A client's books (struct tally): what became of each event that it was to get, and of each message that it sent.
 *
 * All counts are made here, in the client's own tally, which lies in the ledger, and in the one of all clients. */
#ifndef EVAPID_BOOKS_H
#define EVAPID_BOOKS_H

#include <stddef.h>
#include <stdint.h>

#include "client/client_type.h"

/* The queue was given events since the last call: count them, also in the ledger. Of an event in the run, all clients' tally is the
 * caller's to count, once for all of its followers. */
void books_note_given(struct client *client);

/* The queue was given an event that is not in the run. */
void books_count_given(struct client *client);

/* The run did not give so many events to a client that it skips. All clients' tally has them already. */
void books_count_skipped(struct client *client, uint64_t events);

/* Events that were given to the client are dropped. */
void books_count_dropped(struct client *client, enum drop_reason reason, uint64_t events);

/* An event is meant for the client, and the client doesn't get it. */
void books_count_refused(struct client *client, enum drop_reason reason);

/* The kernel took so many bytes, with which so many events left whole. */
void books_count_sent(struct client *client, uint64_t events, size_t bytes);

/* A message of length bytes came whole. Later, its route ended or was broken off; or no route ever begins with it. */
void books_count_message(struct client *client, size_t length);
void books_count_route(struct client *client);
void books_count_lost_message(struct client *client, enum message_loss reason);

#endif
