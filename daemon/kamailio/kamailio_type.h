/* What is known of Kamailio's side of evapid; kamailio.h and the headers of its parts say what is done with it. */
#ifndef EVAPID_KAMAILIO_TYPE_H
#define EVAPID_KAMAILIO_TYPE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "bus/bus.h"
#include "client/listener.h"
#include "config/config.h"
#include "kamailio/declaration.h"
#include "kamailio/queue.h"
#include "kamailio/worker.h"
#include "net/door.h"

struct holdings;
struct seat;
struct state_in;
struct state_out;
struct status_subject;

enum attachment_state {
    DETACHED,
    GATHERING, /* some of its workers are here, the others are given a moment */
    ATTACHED
};

/* A Kamailio that has gone, of whose queue not all has been read yet: only then may clients go with it (keep_clients 0). */
struct kamailio_gone {
    bool pending;
    struct kamailio_mark mark;
};

/* The Kamailio that is attached, or was last (attachment.h). */
struct attachment {
    enum attachment_state state;
    uint32_t session; /* of this evapid: in presence, and in what routes send back */
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
    struct queue *queue; /* NULL: none yet; stays after a detachment, for what that Kamailio's processes still write */
    uint64_t rings;      /* that have been read one after the other */
    const char *queue_lost; /* why that of the evapid before us could not be taken over; NULL: nothing of that */
    bool abandoned; /* the links end though their processes live: these run all that they have been sent whole */
    uv_timer_t gather;
};

/* hold.h */
struct hold {
    uint32_t expected; /* admitted clients that a held queue waits for */
    uv_timer_t timer;
};

/* seat.h */
struct seats {
    uint32_t announced;    /* seats in ANNOUNCED */
    struct seat *unplaced; /* list: seats without a worker */
    bool placing;          /* some of them are still to be given one in the turns that follow */
    struct seat *serving;  /* the seat whose turn it is among the waiting */
};

/* gate.h */
struct gate {
    struct worker *strangers; /* list, the oldest first: links that are no worker's */
    uint32_t count, waiting;  /* strangers; those of them that may be waiting */
    bool asking;              /* the question that is heard now is to be answered */
};

/* publish.h */
struct published {
    uint32_t tags_removed; /* from the presence, since it was looked at how many places they have left there */
};

/* Answers whoever has asked, about that (answer.h). answer NULL: nobody is answered. */
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
    struct queue_host queue_host;
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
