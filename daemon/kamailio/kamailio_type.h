/* The data of Kamailio's side of evapid. kamailio.h and the headers of its parts say what is done with it. */
#ifndef EVAPID_KAMAILIO_TYPE_H
#define EVAPID_KAMAILIO_TYPE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "bus/bus.h"
#include "client/listener.h"
#include "config/config.h"
#include "kamailio/declaration.h"
#include "kamailio/intake.h"
#include "kamailio/worker.h"
#include "net/door.h"

struct descriptors;
struct seat;
struct state_in;
struct state_out;
struct status_subject;

enum attachment_state {
    DETACHED,
    GATHERING, /* some workers are here; the others get GATHER_MS */
    ATTACHED
};

/* A Kamailio that has gone. Its clients may be closed (keep_clients 0) only when its queue has been read to the
 * mark. */
struct kamailio_gone {
    bool pending;
    struct kamailio_mark mark;
};

/* The attached Kamailio, or the last one (attachment.h). */
struct attachment {
    enum attachment_state state;
    uint32_t session; /* this evapid's number, in presence and in what routes send back */
    uint32_t before;  /* the session before it, whose connections go on under their indexes; 0: there is none */
    uint64_t instance;
    uint32_t pid;
    uint64_t since_ms; /* wall clock */
    struct kamailio_gone gone;
    uint64_t back_by_ms; /* loop time: if it is not back by then, it has gone; 0: it is attached, or gone for good */
    uint16_t workers_declared, workers_attached;
    uint64_t short_since_ms; /* loop time since when workers are missing; 0: none is */
    bool short_said;         /* and that is in the log */
    uint16_t departed;       /* attached workers that have gone, while evapid reads what they had written */
    char module_version[32], kamailio_version[64];
    struct worker *workers[EVAPID_WORKERS_MAX];
    bool corrupt; /* the ring of corrupt_instance cannot be read; that Kamailio is refused */
    uint64_t corrupt_instance;
    struct intake
        *intake;        /* NULL: none yet; stays after a detachment, for what that Kamailio's processes still write */
    uint64_t rings;     /* read so far, one after the other */
    uint64_t lost_said; /* lost records of this ring that are in the log */
    bool stuck_said;    /* and that it is stuck */
    const char *queue_lost; /* why the last evapid's queue could not be taken over; NULL: it could, or there was none */
    bool abandoned; /* the links end though their processes live: those run everything that was sent to them whole */
    uv_timer_t gather;
};

/* hold.h */
struct hold {
    uint32_t expected; /* admitted clients for which a held queue waits */
    uv_timer_t timer;
};

/* seat.h */
struct seats {
    uint32_t announced;    /* seats in ANNOUNCED */
    struct seat *unplaced; /* list: seats without a worker */
    bool placing;          /* some of them get a worker in the next turns */
    struct seat *serving;  /* the waiting seat whose turn it is */
};

/* gate.h */
struct gate {
    struct worker *strangers; /* list, the oldest first */
    uint32_t count, waiting;  /* strangers; at most so many of them wait */
    bool asking;              /* the QUERY that is being handled may be answered */
};

/* publish.h */
struct published {
    uint32_t tags_removed; /* from the presence, since the last check of the places that they leave there */
    bool none_waits;       /* the ring says that no tag is kept */
};

/* Answers a QUERY about the subject (answer.h). answer NULL: nobody is answered. */
struct kamailio_answerer {
    void (*answer)(struct worker *worker, const struct wire_query *query);
    const struct status_subject *subject;
};

struct kamailio {
    uv_loop_t *loop;
    const struct config *config;
    struct bus *bus;
    struct kamailio_answerer answerer;
    struct declaration declaration;
    struct door door;
    struct worker_host worker_host;
    struct intake_host intake_host;
    struct gate gate;
    struct attachment attachment;
    struct seats seats;
    struct hold hold;
    struct published published;
    bool stopping;
    bool resume_wanted; /* a window may have opened in this turn */
    uint64_t stale;     /* control records that were meant for another evapid */
};

#endif
