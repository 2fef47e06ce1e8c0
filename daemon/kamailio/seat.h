/* A seat: a client as Kamailio's routes see it.
 *
 *     WAITING ──announce──▶ ANNOUNCED ──its route has run──▶ ADMITTED ──client gone, all delivered──▶ LEAVING ──▶ freed
 *        ▲                      │                              │
 *        └────── the worker or Kamailio has gone ──────────────┘
 *
 * A seat stays with one worker, so that its client's messages stay in order. A client that has gone keeps its seat
 * until its last message and its connection-closed have been delivered. When a worker dies, the posts that it had not
 * begun return to their seats in order; the ring's header says how far it was. So each message starts a route at most
 * once, and none is lost before that. */
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
    struct post *announcement, *farewell; /* its connection-new and connection-closed; NULL: on the link */
    struct post *returned;                /* list: messages that a dead worker had not begun */
    size_t in_flight;                     /* messages on the link */
    uint16_t only_place; /* index + 1 of the only worker allowed, because it still runs a route of this seat; 0: any */
    bool queued;         /* in the worker's waiting list */
    struct seat *prev, *next;                 /* worker's seats, or the unplaced */
    struct seat *waiting_prev, *waiting_next; /* worker's waiting */
};

/* Open a seat for a new client; it is announced as soon as a worker is there. False: no memory. */
bool seat_open(struct kamailio *kamailio, struct client *client);

/* Pass on the client's message. False: not now; the seat asks the client again when the worker's window opens. */
bool seat_message(struct kamailio *kamailio, struct seat *seat, const char *bytes, size_t length);

/* The client's input has ended, or it has gone. Once nothing is pending, finish the client, post its connection-closed,
 * or free the seat. */
void seat_advance(struct kamailio *kamailio, struct seat *seat);

/* The route of a post has run. */
void seat_answered(struct kamailio *kamailio, struct post *post);

/* Give each seat without a worker one. This may take several turns; seat_go_on_placing continues it at the end of
 * each. */
void seat_place_all(struct kamailio *kamailio);
void seat_go_on_placing(struct kamailio *kamailio);
void seat_finish_placing(struct kamailio *kamailio); /* immediately, because a successor does not continue it */

/* Another Kamailio has come: seats need not wait for their old workers. */
void seat_forget_workers(struct kamailio *kamailio);

/* The worker's window may have opened: serve its waiting seats. */
void seat_serve_waiting(struct kamailio *kamailio, struct worker *worker);

/* The worker has gone; begun is the last sequence number whose route it had begun. Its seats then have no worker. last:
 * no other worker is left, so they must be announced again. */
void seat_leave_worker(struct kamailio *kamailio, struct worker *worker, uint64_t begun, bool last);

/* Kamailio has gone, and its clients go with it: close each client that a connection-new route had let in, gracefully.
 * Messages for which no route has begun are dropped, and no connection-closed is sent. Returns how many are being
 * closed. */
unsigned seat_close_all(struct kamailio *kamailio);

/* evapid ends, and all clients and workers have gone: free the seats that are left. */
void seat_free_all(struct kamailio *kamailio);

/* Write the seat for a successor, and read it into the seat that its client has been given. False: the state is
 * invalid. */
void seat_save(const struct seat *seat, struct state_out *out);
bool seat_load(struct kamailio *kamailio, struct seat *seat, struct state_in *in);

/* The same for the posts on the worker's link and for its waiting seats. Read them after all seats. */
void seat_save_worker(const struct worker *worker, struct state_out *out);
bool seat_load_worker(struct kamailio *kamailio, struct worker *worker, struct state_in *in);

#endif
