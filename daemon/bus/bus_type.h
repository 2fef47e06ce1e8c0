/* The data of the bus. Its parts say what is done with it: bus.h, delivery.h, shed.h, flush.h, roster.h, tag.h. */
#ifndef EVAPID_BUS_TYPE_H
#define EVAPID_BUS_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "bus/tag.h"
#include "client/client.h"
#include "client/ledger.h"
#include "client/listener.h"
#include "events/event.h"
#include "events/run.h"
#include "evapid/waiting.h"
#include "events/waits.h"

/* What the bus tells Kamailio's side. opened: a client has come; upstream releases it (bus_release) after it is gone.
 * False: no memory, and the client is not upstream's. message, ended, gone: as in struct client_host. present: a tag
 * got its first receiver, or lost its last. connected: the client is there from now on, or no longer (struct roster_place).
 * admitted: it receives events from now on, or none any more. kept: the number of kept tags has changed, or of those that
 * are full. commit: as in struct client_host. */
struct bus_upstream {
    void *owner;
    bool (*opened)(void *owner, struct client *client);
    bool (*message)(void *owner, struct client *client, const char *bytes, size_t length);
    void (*ended)(void *owner, struct client *client);
    void (*gone)(void *owner, struct client *client);
    void (*present)(void *owner, uint64_t tag_hash, bool present);
    void (*connected)(void *owner, const struct client *client, bool there);
    void (*admitted)(void *owner, const struct client *client, bool receives);
    void (*kept)(void *owner);
    void (*commit)(void *owner);
};

/* It watches events and messages, and changes nothing. event: one was given to so many receivers. message: a client's
 * message was passed to Kamailio's side. */
struct observer {
    void *owner;
    void (*event)(void *owner, const struct event *event, uint32_t receivers);
    void (*message)(void *owner, const struct client *client, const char *bytes, size_t length);
    struct observer *prev, *next;
};

/* roster.h */
struct roster {
    struct client *clients;   /* uthash by index: all that are not freed */
    struct client *receivers; /* list of those that get events */
    uint32_t receiver_count;
    struct client *dirty;     /* list of those with something to send besides what the runs hold */
    struct client *postponed; /* list of those whose sockets were ready when a turn had no more time */
    struct client *leaving;   /* list of those that are to be closed */
};

/* kept.h */
struct kept {
    struct tag *tag;
    struct outq out;          /* what waits; it follows no run */
    struct ledger_slot *slot; /* its books, its listener, and since when it is kept */
    enum slow_policy policy;
    uint32_t keep_ms;  /* how long it is kept, from the time when its last client went */
    uint64_t until_ms; /* loop time */
    bool full;         /* its queue was full: nothing more waits, so that there is no gap in the middle */
    uint64_t begin;    /* keeping.begins, since its last client went */
    uint32_t place;    /* in keeping.places; WAITING_PLACES: it has none */
    struct kept *prev, *next;
};

struct keeping {
    struct kept *first; /* list in order of time: the first is kept longest */
    uint32_t count;
    uint32_t full;                       /* of these, those for which nothing more waits */
    uint64_t begins;                     /* how often a tag has begun to be kept */
    struct kept *places[WAITING_PLACES]; /* those of which a script can read how many events wait (evapid/waiting.h) */
    uint32_t unplaced;                   /* how many have no place there */
};

/* heritage.h */
struct heritage {
    unsigned depth; /* how many clients are giving their events to others, each while the one before does */
};

/* flush.h */
struct flush {
    struct slice polls; /* time for input from clients in this turn */
    uint32_t cut_off;   /* clients cut off as slow in this turn */
    bool behind;        /* the last turn did not reach some clients; they come first in this one */
};

struct bus {
    uv_loop_t *loop;
    struct client_host host;
    struct bus_upstream upstream;
    struct run runs[FRAMINGS]; /* followed by receivers, one per framing */
    struct roster roster;
    struct tag_index tags;
    struct keeping keeping;
    struct heritage heritage;
    struct flush flush;
    struct observer *observers; /* list */
    struct ledger *ledger;
    size_t max_total_queued_bytes; /* of memory for all queues together; SIZE_MAX until it is set */
    struct tally totals;
    struct waits waits;
    struct event_counts events;
    uint32_t last_index;
    uint64_t accepted, closed; /* clients */
    uint32_t lost;             /* clients taken over without their sockets */
    char scratch[CLIENT_SCRATCH];
};

#endif
