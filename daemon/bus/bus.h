/* The bus: who gets an event, and the clients there are.
 *
 * It owns every client, the tag index, and the runs: events for every client are appended to one run for each framing, and
 * those for a few are given to each of them. What clients send, and their coming and going, it hands to its upstream
 * (Kamailio's side), of which it knows only struct bus_upstream. */
#ifndef EVAPID_BUS_H
#define EVAPID_BUS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "bus/tag.h"
#include "bus/tap.h"
#include "client/client.h"
#include "client/ledger.h"
#include "client/listener.h"
#include "events/waits.h"

/* What the bus tells Kamailio's side. opened: a client has come; it is upstream's to release (bus_release) once it is gone.
 * False: no memory, and the client is not upstream's. message, ended, gone: as in struct client_host. present: a tag has
 * got its first client that gets events, or lost its last. admitted: listening_count has changed. sends: as in struct
 * client_host. */
struct bus_upstream {
    void *owner;
    bool (*opened)(void *owner, struct client *client);
    bool (*message)(void *owner, struct client *client, const char *bytes, size_t length);
    void (*ended)(void *owner, struct client *client);
    void (*gone)(void *owner, struct client *client);
    void (*present)(void *owner, uint64_t tag_hash, bool present);
    void (*admitted)(void *owner);
    void (*sends)(void *owner);
};

struct bus {
    uv_loop_t *loop;
    struct client_host host;
    struct bus_upstream upstream;
    struct run runs[FRAMINGS]; /* what clients that get events follow, by their framing */
    struct client *clients;    /* uthash by index: all that are not freed */
    struct client *listening;  /* list of those that get events */
    uint32_t listening_count;
    struct client *dirty;     /* list of those that have something to send beside what the runs have */
    struct client *postponed; /* list of those that have something for which there was no time yet */
    uint32_t cut_off;         /* clients, for being slow, in this turn */
    struct client *leaving;   /* list of those that are to be closed (flush.h) */
    bool behind;              /* some clients were not reached in the last turn; they come first in this one */
    struct tag_index tags;
    uint32_t last_index;
    struct ledger *ledger;
    size_t max_total_queued_bytes; /* of memory for all queues together; none until it is set */
    struct tally totals;
    struct waits waits;
    struct slice polls; /* of what comes from clients in this turn */
    struct event_counts events;
    uint64_t accepted, closed; /* clients */
    uint32_t lost;             /* clients that were taken over without their sockets */
    const struct bus_tap *tap; /* NULL: nobody looks on */
    char scratch[CLIENT_SCRATCH];
};

/* Begin; loop and ledger are the caller's. upstream must be set before the first client comes. */
void bus_open(struct bus *bus, uv_loop_t *loop, struct ledger *ledger);

/* What has been read from the ring of that instance up to tail is with the clients: it counts. */
void bus_commit(struct bus *bus, uint64_t instance, uint64_t tail);

/* The end of a loop turn: send each client what it was given in it, with as few system calls as the kernel allows. When there is no
 * time for all, bus.behind is true, and those that were not reached come first the next time (flush.h). */
void bus_flush(struct bus *bus);

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

/* Give the event to every client; to those with the tag; to one with the tag (group.h). guest is the client, if any,
 * whose admission the issuing route is about: it gets the event too, and sees it once admitted. Returns how many were meant to get
 * it. What did not come from the ring must be followed by upstream.sends, so that it counts in the ledger. */
uint32_t bus_relay(struct bus *bus, const struct payload *payload, struct client *guest);
uint32_t bus_multicast(struct bus *bus, const struct payload *payload, const char *tag, size_t tag_length,
                       struct client *guest);
uint32_t bus_unicast(struct bus *bus, const struct payload *payload, const char *tag, size_t tag_length,
                     struct client *guest);

/* Give the client a tag; length 0 takes it away. */
void bus_tag(struct bus *bus, struct client *client, const char *tag, size_t tag_length);

/* It gets no more events. */
void bus_delist(struct bus *bus, struct client *client);

/* Close the client when what it has been given is sent. */
void bus_finish(struct bus *bus, struct client *client);

/* Upstream has no more use for a client that is gone. */
void bus_release(struct bus *bus, struct client *client);

/* The client of that index, or NULL. */
struct client *bus_find(const struct bus *bus, uint32_t index);

/* Take over the client of a slot of the ledger from the evapid before us, on fd (-1: it is GONE). It waits, admitting, for
 * upstream unless it had been admitted. NULL when there is no memory: fd is closed, and the slot as it was. */
struct client *bus_adopt(struct bus *bus, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                         struct listener *listener);

/* Hold every client to the limits that its listener has now, and all together to that. */
void bus_set_limits(struct bus *bus, size_t max_total_queued_bytes);

/* Clients whose sockets were not handed over, and those that were GONE: tell upstream so. */
void bus_settle_gone(struct bus *bus);

/* All clients have been adopted, with all their tags and queues: the books are those of the ledger. */
void bus_take_books(struct bus *bus, const struct event_counts *events);

/* Write what a successor needs of the runs and of a client, or read it back. bus_flush comes before; clients that it
 * did not reach are saved as such that read slowly. False: it makes no
 * sense. */
void bus_save(struct bus *bus, struct state_out *out);
bool bus_load(struct bus *bus, struct state_in *in);
void bus_save_client(struct client *client, struct state_out *out);
bool bus_load_client(struct bus *bus, struct client *client, struct state_in *in);

/* Once a second: see who is slow, and close those whose time to finish a message, to flush, or to be admitted is over. */
void bus_tick(struct bus *bus);

/* Bytes of memory that all that waits for clients takes, each event once. */
size_t bus_queue_memory(void);

/* Cut off a client whose queue is full, if that is its policy, and with it all that it had not read: it can tell that it
 * has missed something by that. */
void bus_disconnect_slow(struct bus *bus, struct client *client);

/* Let the runs go of what nobody waits for. */
void bus_settle(struct bus *bus);

/* Has every client been sent all it was given? */
bool bus_is_flushed(const struct bus *bus);

#endif
