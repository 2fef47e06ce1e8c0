/* The bus: the clients there are, and the entry of every event.
 *
 * It owns every client, the tag index, and the runs: events for every client are appended to one run for each framing, and
 * those for a few are given to each of them (delivery.h). What clients send, and their coming and going, it hands to its upstream
 * (Kamailio's side), of which it knows only struct bus_upstream. */
#ifndef EVAPID_BUS_H
#define EVAPID_BUS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "bus/bus_type.h"

/* Begin; loop and ledger are the caller's. bus_set_upstream comes before the first client. */
void bus_open(struct bus *bus, uv_loop_t *loop, struct ledger *ledger);

/* Kamailio's side, of which the bus knows no more. */
void bus_set_upstream(struct bus *bus, struct bus_upstream upstream);

/* What has been read from the ring of that instance up to tail is with the clients: it counts. */
void bus_commit(struct bus *bus, uint64_t instance, uint64_t tail);

/* Close every client at once. What was queued counts as dropped. */
void bus_close(struct bus *bus);

/* A new connection: it waits, admitting, until upstream admits it. False when there was no memory for it. */
bool bus_connect(struct bus *bus, int fd, const struct sockaddr_storage *peer, const struct client_limits *limits,
                 struct listener *listener);

/* The bus as the host of listeners: a connection that one has accepted is a client from then on. */
static inline bool bus_on_connection(void *bus, struct listener *listener, int fd, const struct sockaddr_storage *peer)
{
    return bus_connect(bus, fd, peer, &listener->limits, listener);
}

/* Somebody is there who may let clients in, or nobody is any more: the time in which they must be admitted runs, or not. */
void bus_set_admits(struct bus *bus, bool admits);

/* Upstream has let the client in; or holds it back once more. */
void bus_admit(struct bus *bus, struct client *client);
void bus_readmit(struct bus *bus, struct client *client);

/* Give the event to its receivers, and show it to the observers. Returns how many were meant to get it. After an event that did not
 * come from the ring, call upstream.commit, so that it counts in the ledger. */
uint32_t bus_issue(struct bus *bus, const struct event *event);

/* The observer looks on from now on; or no more. It is the caller's. */
void bus_observe(struct bus *bus, struct observer *observer);
void bus_unobserve(struct bus *bus, struct observer *observer);

/* Give the client a tag; length 0 takes it away. */
void bus_tag(struct bus *bus, struct client *client, const char *tag, size_t tag_length);

/* Upstream has no more use for a client that is gone. */
void bus_release(struct bus *bus, struct client *client);

/* Take over the client of a slot of the ledger from the evapid before us, on fd (-1: it is GONE). It waits, admitting, for
 * upstream unless it had been admitted. NULL when there is no memory: fd is closed, and the slot as it was. */
struct client *bus_adopt(struct bus *bus, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                         struct listener *listener);

/* Hold every client to the limits that its listener has now, and all together to that. */
void bus_set_limits(struct bus *bus, size_t max_total_queued_bytes);

/* Clients whose sockets were not handed over, and those that were GONE: tell upstream so. */
void bus_settle_gone(struct bus *bus);

/* All clients have been adopted, with all their tags and queues: the books are those of the ledger. */
void bus_restore_books(struct bus *bus, const struct event_counts *events);

/* Write what a successor needs of the runs and of a client, or read it back. Call flush_turn before: clients that it did
 * not reach are saved as if they read slowly. False: it makes no sense. */
void bus_save(struct bus *bus, struct state_out *out);
bool bus_load(struct bus *bus, struct state_in *in);
void bus_save_client(struct client *client, struct state_out *out);
bool bus_load_client(struct bus *bus, struct client *client, struct state_in *in);

/* Once a second: see who is slow, and close those whose time to finish a message, to flush, or to be admitted is over. */
void bus_tick(struct bus *bus);

#endif
