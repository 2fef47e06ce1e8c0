/* Kamailio's side of evapid: the attachment of one Kamailio, its evapi workers, and what its routes are told.
 *
 * It is the bus's upstream: a client that comes is given to a worker, announced there (connection-new), and admitted when
 * that route has run; its messages follow in order, and last its connection-closed. It is the queue's host: what routes
 * say goes to the bus in the order in which they said it. */
#ifndef EVAPID_KAMAILIO_H
#define EVAPID_KAMAILIO_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "bus/bus.h"
#include "client/listener.h"
#include "config/config.h"
#include "kamailio/declaration.h"
#include "kamailio/queue.h"
#include "kamailio/seat.h"
#include "kamailio/worker.h"
#include "net/door.h"

struct holdings;
struct state_in;
struct state_out;
struct status_subject;

enum attachment {
    DETACHED,
    GATHERING, /* some of its workers are here, the others are given a moment */
    ATTACHED
};

/* A Kamailio that has gone, of whose queue not all has been read yet: only then may clients go with it (keep_clients 0). */
struct kamailio_gone {
    bool pending;
    struct kamailio_mark mark;
};

struct kamailio {
    uv_loop_t *loop;
    const struct config *config;
    struct bus *bus;
    struct declaration declaration;
    struct door door;
    struct worker_host worker_host;
    struct worker *strangers; /* list, the oldest first: links that are no worker's (stranger.h) */
    /* Whoever has asked is answered by this, about that (answer.h); to be set before kamailio_open, NULL: nobody is. */
    void (*asked)(struct worker *worker, const struct wire_query *query);
    const struct status_subject *subject;
    uint32_t stranger_count, waiting; /* strangers; those of them that may be waiting */
    bool asking;                      /* the question that is heard now is to be answered */
    uint32_t session;                 /* of this evapid: in presence, and in what routes send back */
    bool stopping;

    /* The Kamailio that is attached, or was last. */
    enum attachment attachment;
    uint64_t instance;
    uint32_t pid;
    uint64_t since_ms; /* wall clock */
    struct kamailio_gone gone;
    uint64_t back_by_ms; /* loop time: if it is not back by then, it has gone; 0: it is here, or known to have */
    uint16_t workers_declared, workers_attached;
    uint16_t departed; /* of the attached: they have gone, and what they had written is being read */
    char module_version[32], kamailio_version[64];
    struct worker *workers[EVAPID_WORKERS_MAX];
    bool corrupt; /* the ring of corrupt_instance can't be read: that Kamailio is not let in again */
    uint64_t corrupt_instance;

    const char *queue_lost; /* why that of the evapid before us could not be taken over; NULL: nothing of that */
    bool abandoned;      /* the links end though their processes live: these run all that they have been sent whole */
    struct queue *queue; /* NULL: none yet; stays after a detachment, for what that Kamailio's processes still write */
    uint32_t expected;   /* admitted clients that a held queue waits for */
    uint32_t announced;  /* seats in ANNOUNCED */
    struct seat *unplaced; /* list: seats without a worker */
    bool placing;          /* some of them are still to be given one in the turns that follow */
    struct seat *serving;  /* the seat whose turn it is among the waiting */
    uv_timer_t gather, hold;
    bool resume_wanted;    /* a window may have opened in this turn */
    uint64_t rings;        /* that have been read one after the other */
    uint64_t stale;        /* control records that were meant for another evapid */
    uint32_t tags_removed; /* from the presence, since it was looked at how many places they have left there */
};

#define BACK_MS 5000U /* for how long an evapid that has just begun takes a Kamailio for alive that has not come back */
#define GATHER_MS 250U /* how long an attaching Kamailio's other workers are waited for before clients are spread */

/* Begin to listen for workers, going on with an inherited socket if there is one. NULL, or why it can't. bus, listeners and
 * config outlive it. */
const char *kamailio_open(struct kamailio *kamailio, uv_loop_t *loop, const struct config *config, struct bus *bus,
                          struct listeners *listeners, struct inherited_door inherited);

/* What evapid publishes in the ring; NULL when there is none, or it is the next one's to say. */
struct presence *kamailio_presence(const struct kamailio *kamailio);

/* What the bus needs to know of us. */
struct bus_upstream kamailio_upstream(struct kamailio *kamailio);

/* Begin to read a ring; the queue is held. NULL, or why it can't be read. */
const char *kamailio_open_queue(struct kamailio *kamailio, int memfd, int wake_fd);

/* An attached worker has gone. All that its Kamailio had written by now counts: it is read first, as many turns as that takes. It
 * may be corrupt, which closes every worker. */
void kamailio_depart(struct kamailio *kamailio, struct worker *worker, const char *why);

/* Write into a freshly opened ring who is here. */
void kamailio_publish(struct kamailio *kamailio);

/* Wait a moment for the other workers before clients are spread over them. */
void kamailio_gather(struct kamailio *kamailio);

/* This evapid has begun with clients of a Kamailio that is not attached: if it does not come back, it has gone. */
void kamailio_await_return(struct kamailio *kamailio);

/* The end of a loop turn: offer windows that have opened to those who wait, and write to the workers. */
void kamailio_flush(struct kamailio *kamailio);

/* Once a second. */
void kamailio_tick(struct kamailio *kamailio);

/* evapid is ending: begin no route any more, and leave in the ring what the next evapid needs to know. */
void kamailio_stop(struct kamailio *kamailio);

/* Somebody waits for the end of what this worker has been posted: be woken by it. */
void kamailio_await_done(struct kamailio *kamailio, const struct worker *worker);

/* Read what routes have said and nobody has woken us for, as far as a loop turn goes. */
void kamailio_catch_up(struct kamailio *kamailio);

/* Likewise, and say where all ends that they have said up to now: what is to come behind that waits until it has been read. */
struct kamailio_mark kamailio_catch_up_to(struct kamailio *kamailio);
bool kamailio_has_read(const struct kamailio *kamailio, struct kamailio_mark mark);

/* Tell a stranger why it can't attach, and log it; it is lost. */
void kamailio_refuse(struct worker *worker, uint32_t pid, const char *why);

/* Are routes running, or about to, for what clients have sent? */
bool kamailio_is_idle(const struct kamailio *kamailio);

/* Close everything. The bus has been closed before. */
void kamailio_close(struct kamailio *kamailio);

#endif
