/* A seat: a client as Kamailio's routes see it.
 *
 *     WAITING ──announce──▶ ANNOUNCED ──its route has run──▶ ADMITTED ──client gone, all delivered──▶ LEAVING ──▶ freed
 *        ▲                      │                              │
 *        └────── the worker or Kamailio has gone ──────────────┘
 *
 * A seat stays with one worker, so that its client's messages stay in order; a client that has gone keeps its seat until
 * its last message and its connection-closed have been delivered. When a worker dies, what it had not begun comes back to
 * the seats in order (the ring's header says how far it was): each message starts a route at most once, and none is lost
 * before. */
#ifndef EVAPID_SEAT_H
#define EVAPID_SEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/client.h"
#include "kamailio/kamailio_type.h"

enum seat_state {
    SEAT_WAITING,   /* no worker knows the client */
    SEAT_ANNOUNCED, /* its connection-new is on the way or running */
    SEAT_ADMITTED,
    SEAT_LEAVING /* its connection-closed is on the way or running */
};

struct seat {
    enum seat_state state;
    struct client *client;
    struct worker *worker;                /* NULL: none */
    struct post *announcement, *farewell; /* its connection-new and connection-closed; NULL: on a link */
    struct post *returned;                /* list: messages that a dead worker had not begun */
    size_t in_flight;                     /* messages on the link */
    uint16_t only_place; /* index + 1 of the only worker that may take it, which still runs a route of it; 0: any may */
    bool queued;         /* in the worker's list of those that wait */
    struct seat *prev, *next;                 /* worker's seats, or the unplaced */
    struct seat *waiting_prev, *waiting_next; /* worker's waiting */
};

/* A client has come: it is announced as soon as a worker is there. False when there is no memory. */
bool seat_open(struct kamailio *kamailio, struct client *client);

/* The client has a message. False: not now; it is asked for it again when its worker's window opens. */
bool seat_message(struct kamailio *kamailio, struct seat *seat, const char *bytes, size_t length);

/* The client's input has ended, or it has gone: do what is left to do once nothing is pending. The seat may be freed. */
void seat_settle(struct kamailio *kamailio, struct seat *seat);

/* The route of a post has run. */
void seat_answered(struct kamailio *kamailio, struct post *post);

/* Give every seat that has none a worker, if need be in several turns: at the end of each it goes on. */
void seat_place_all(struct kamailio *kamailio);
void seat_go_on_placing(struct kamailio *kamailio);
void seat_finish_placing(struct kamailio *kamailio); /* now: a successor does not know of it */

/* Another Kamailio has come: no worker of it is at work for a seat that has none. */
void seat_forget_workers(struct kamailio *kamailio);

/* A window may have opened: let those who wait for the worker go on. */
void seat_serve_waiting(struct kamailio *kamailio, struct worker *worker);

/* The worker has gone, after it had begun the post of sequence number begun. Its seats are without a worker then; last:
 * no other worker is left, so that they must be announced anew. */
void seat_leave_worker(struct kamailio *kamailio, struct worker *worker, uint64_t begun, bool last);

/* Kamailio has gone, and its clients go with it: close each one gracefully that a connection-new route had let in. What of its
 * messages no route has begun with is dropped, and nobody is told that it is closed. Returns how many are closed. */
unsigned seat_close_all(struct kamailio *kamailio);

/* evapid ends, and every client and worker has gone: free the seats of those who still had something to say. */
void seat_free_all(struct kamailio *kamailio);
/* Write the seat for a successor; and read it into the one that its client has been given. False: it makes no sense. */
void seat_save(const struct seat *seat, struct state_out *out);
bool seat_load(struct kamailio *kamailio, struct seat *seat, struct state_in *in);

/* Likewise what is on the worker's link, and who waits for it; behind all seats. */
void seat_save_worker(const struct worker *worker, struct state_out *out);
bool seat_load_worker(struct kamailio *kamailio, struct worker *worker, struct state_in *in);

#endif
