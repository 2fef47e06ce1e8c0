/* The bus: all clients, and the entry of every event.
 *
 * It owns every client, the tag index, and the runs: an event for every client is appended to one run per framing, an
 * event for a few is given to each of them (delivery.h). It passes messages, and the coming and going of clients, to
 * its upstream (Kamailio's side), which it knows only as struct bus_upstream. */
#ifndef EVAPID_BUS_H
#define EVAPID_BUS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "bus/bus_type.h"

/* Begin; loop and ledger are the caller's. Call bus_set_upstream before the first client. */
void bus_open(struct bus *bus, uv_loop_t *loop, struct ledger *ledger);

/* Set Kamailio's side. */
void bus_set_upstream(struct bus *bus, struct bus_upstream upstream);

/* Everything read from this instance's ring up to tail is with the clients: count it. */
void bus_commit(struct bus *bus, uint64_t instance, uint64_t tail);

/* Close every client immediately. Queued events count as dropped. */
void bus_close(struct bus *bus);

/* A new connection: the client is ADMITTING until upstream admits it. False: no memory. */
bool bus_connect(struct bus *bus, int fd, const struct remote *remote, const struct client_limits *limits,
                 struct listener *listener);

/* The bus as the host of listeners: make an accepted connection a client. */
static inline bool bus_on_connection(void *bus, struct listener *listener, int fd, const struct remote *remote)
{
    return bus_connect(bus, fd, remote, &listener->limits, listener);
}

/* Can anybody admit clients now? Only then does their time for admission run. */
void bus_set_admits(struct bus *bus, bool admits);

/* Upstream has admitted the client; or holds it back once more. */
void bus_admit(struct bus *bus, struct client *client);
void bus_readmit(struct bus *bus, struct client *client);

/* Give the event to its receivers, and show it to the observers. Returns how many were meant to get it. If the event
 * did not come from the ring, call upstream.commit after it, so that it counts in the ledger. */
uint32_t bus_issue(struct bus *bus, const struct event *event);

/* Start and stop showing events and messages to the observer, which is the caller's. */
void bus_observe(struct bus *bus, struct observer *observer);
void bus_unobserve(struct bus *bus, struct observer *observer);

/* Give the client a tag; length 0 removes it. */
void bus_tag(struct bus *bus, struct client *client, const char *tag, size_t tag_length);

/* Upstream no longer uses this client, which is GONE. */
void bus_release(struct bus *bus, struct client *client);

/* Take over the client of a ledger's slot from the evapid before us, on fd (-1: it is GONE). It is ADMITTING until
 * upstream admits it, unless it was admitted before. NULL: no memory; fd is closed, and the slot is unchanged. */
struct client *bus_adopt(struct bus *bus, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                         struct listener *listener);

/* Apply the listeners' present limits to their clients, and this limit to all queues together. */
void bus_set_limits(struct bus *bus, size_t max_total_queued_bytes);

/* Apply a listener's limits to a kept tag. */
void bus_set_kept_limits(struct bus *bus, struct kept *kept, const struct client_limits *limits);

/* Tell upstream about clients that are GONE, before or because their sockets were not handed over. */
void bus_report_gone(struct bus *bus);

/* All clients have been adopted, with their tags and queues: restore the books from the ledger. */
void bus_restore_books(struct bus *bus, const struct event_counts *events);

/* Write what a successor needs of the runs and of a client, and read it back. Call flush_turn before: clients that it
 * did not reach are saved as if they read slowly. False: the state is invalid. */
void bus_save(struct bus *bus, struct state_out *out);
bool bus_load(struct bus *bus, struct state_in *in);
void bus_save_client(struct client *client, struct state_out *out);
bool bus_load_client(struct bus *bus, struct client *client, struct state_in *in);

/* Call it once a second: check who is slow, and close clients whose time to complete a message, to flush, or to be
 * admitted is over. */
void bus_tick(struct bus *bus);

#endif
