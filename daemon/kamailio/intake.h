/* The intake: evapid's reading end of the ring that Kamailio's processes write (evapid/ring.h).
 *
 * It maps the ring, sleeps until its wake is readable, and passes every record to its host in the order of issue. A
 * loop turn reads one batch, so that clients are served in between.
 *
 * While it is held, events stay in the ring, where they survive even if evapid is killed. Control records are read
 * ahead of them, because a hold waits for what they say (a client's admission). A close or a tag that was read ahead is
 * passed again at its place among the events: only the host knows whether it could be handled early. A done is passed
 * only once. */
#ifndef EVAPID_INTAKE_H
#define EVAPID_INTAKE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "evapid/ring.h"
#include "events/framing.h"
#include "kamailio/patience.h"

struct state_in;
struct state_out;

/* event: a relay, multicast, unicast or send, by the record's type; payload lies in the ring. control: a close, tag or done,
 * read ahead or in its turn. tag: record->tag_length bytes. crowded: the ring is held and nearly full. corrupt: the
 * ring cannot be read beyond position at; the intake has stopped. commit: everything before tail has been passed on, and
 * is about to be consumed. busy: clients must be served before more is read; NULL: never. */
struct intake_host {
    void *owner;
    bool (*busy)(void *owner);
    void (*event)(void *owner, const struct ring_record *record, const char *tag, const struct payload *payload);
    void (*control)(void *owner, const struct ring_record *record, const char *tag, bool ahead);
    void (*crowded)(void *owner);
    void (*corrupt)(void *owner, uint64_t at, const char *why);
    void (*commit)(void *owner, uint64_t tail);
};

enum intake_state { INTAKE_RUNNING, INTAKE_HELD, INTAKE_CORRUPT };

/* What one batch has read. */
struct intake_batch {
    unsigned records;
    size_t bytes;
    size_t work; /* clients that were given an event, counted per event (intake_note_work) */
};

struct intake {
    enum intake_state state;
    struct intake_host host;
    struct ring_reader ring;
    int memfd;      /* ours, closed with the intake */
    size_t bytes;   /* of the mapping */
    uint64_t ahead; /* control records before this position have been read ahead */
    int wake_fd;    /* ours too: one end of a pair of datagram sockets; Kamailio sends on the other */
    uv_poll_t wake;
    bool unwatched;             /* the kernel had no room to watch the wake */
    uv_idle_t turn;             /* active while there is more to read, so that the loop does not sleep */
    struct patience events;     /* more events come after events: nap, and gather them */
    struct patience answers;    /* a route's answer comes soon after its message: look again immediately */
    uint64_t taken_ns;          /* when the first event of this batch was taken; 0: none was */
    struct intake_batch looks;  /* read in this turn besides its own batch, because somebody looked */
    struct intake_batch *batch; /* the one being read; NULL: none is */
    bool awaited;               /* clients wait for an answer: don't nap */
    int nap_fd;                 /* a timerfd, -1: no naps */
    bool napping;
    uv_poll_t nap;
    uint64_t hole;          /* the position of a record that was claimed and not published, when intake_tick found it */
    uint64_t hole_since_ms; /* 0: it found none */
    uint64_t lost;          /* records that died with their processes, counted by this evapid */
    size_t high_water;      /* most bytes found waiting */
    unsigned open_handles;  /* freed when all are closed */
};

/* Map the memfd and begin to read, held. Both descriptors belong to the intake, also after a failure. Returns NULL and
 * sets *why if it cannot. */
struct intake *intake_open(uv_loop_t *loop, int memfd, int wake_fd, const struct intake_host *host, const char **why);

/* Bytes that wait in it. */
size_t intake_used(const struct intake *intake);

/* The end of a turn. awaited: clients wait for routes that run. posted: messages were sent to workers just now. */
void intake_await_answers(struct intake *intake, bool awaited, bool posted);

void intake_hold(struct intake *intake);
void intake_resume(struct intake *intake);

/* Consume what has been passed on so far, in the middle of a turn. */
void intake_commit(struct intake *intake);

/* save: write the intake for a successor; its two descriptors go separately. load: read it into a intake just opened with
 * them, which is then held, running or corrupt as before. Returns NULL, or why it is not the same intake. intake NULL:
 * skip the fields. */
void intake_save(const struct intake *intake, struct state_out *out);
const char *intake_load(struct intake *intake, struct state_in *in);

/* Pass on what there is, and update intake_used. However often it is called, it reads at most one batch in a turn,
 * besides the turn's own. */
void intake_read_batch(struct intake *intake);

/* During an event: so many clients were given it one by one. A batch limits that too. */
void intake_note_work(struct intake *intake, uint32_t clients);

/* intake_end: the position after everything written so far; the next turns read up to it. intake_has_read: has everything
 * before that position been passed on (held: its control records)? True if nothing is read any more. */
uint64_t intake_end(struct intake *intake);
bool intake_has_read(const struct intake *intake, uint64_t end);

/* Call it once a second: read what a producer wrote that was killed before it could wake us, and what comes after the
 * record of one that was killed before it could publish it, with all other producers. */
void intake_tick(struct intake *intake);

/* Has a producer not published its record for a second or more? It has been stopped, say. What comes after its record
 * can't be read until it goes on. */
bool intake_is_stuck(const struct intake *intake);

/* Nobody shall wait for that producer any more, because its Kamailio has gone: its record is lost. Read what comes after. */
void intake_skip_hole(struct intake *intake);

/* Unmap and free it. */
void intake_close(struct intake *intake);

/* The presence that evapid publishes in this ring. */
static inline struct presence *intake_presence(const struct intake *intake)
{
    return &intake->ring.header->presence;
}

#endif
