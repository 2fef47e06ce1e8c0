/* A run: the events for every client, framed in one way, one behind the other.
 *
 * An event is appended once, whatever the number of clients. A client that follows the run keeps no more than a position
 * in it (outq.h), so that a broadcast costs it nothing until it is sent what has come since, in as few pieces as there are
 * chunks. Positions are bytes since the run began; they only grow.
 *
 *     chunk ──▶ chunk ──▶ chunk ──▶ chunk
 *     ▲ pinned by a slow client   ▲ mark  ▲ bytes: all that was appended
 *
 * The run keeps what lies behind mark, where the last turn of the loop ended, and every chunk from the first that is
 * pinned: by a follower who has not been sent all that was there then. What a follower is behind counts against the limit
 * of its queue, so that the run is as long as the longest queue may be, and no longer. */
#ifndef EVAPID_RUN_H
#define EVAPID_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "events/chunk.h"

#define RUN_CHUNK 65536U /* bytes of a chunk, but for an event that is larger */

struct state_in;
struct state_out;

struct run {
    enum framing framing;
    struct chunk *first, *last; /* NULL: nothing is kept */
    struct chunk *marked;       /* the chunk that mark lies in; NULL: first is */
    struct chunk *spare;        /* list of empty chunks, for the next turn */
    unsigned spares;
    uint64_t bytes, events; /* that were ever appended */
    uint64_t mark;          /* a position: no follower without a pin stands before it */
    uint64_t review_at;     /* a position: up to there, no follower's queue can be full */
    uint32_t followers;

    /* Clients that are skipped until they have caught up (pace.h): what they miss is counted for all together. */
    uint32_t skipped;
    uint64_t offered; /* events that were meant for followers and those, appended or not */
};

void run_open(struct run *run, enum framing framing);

/* Bytes of memory by which the chunks in use grow when an event of size bytes, framed, is appended. */
size_t run_cost(const struct run *run, size_t size);

/* Append an event. False when there is no memory: nothing has changed. */
bool run_append(struct run *run, const struct payload *payload);

/* The chunk that holds the byte at position; NULL at the end of the run. pin is that chunk or one before it, or NULL when
 * position is not before mark. */
struct chunk *run_find(const struct run *run, struct chunk *pin, uint64_t position);

/* The end of a turn: every follower stands at the end, or has pinned where it stands. Lets go of what nobody needs. */
void run_settle(struct run *run);

/* A follower's queue may be full from that position on: it is asked before anything is appended behind it. */
static inline void run_review_at(struct run *run, uint64_t position)
{
    if (run->review_at > position)
        run->review_at = position;
}

/* One more client follows, whose queue may be full from that position on; one less does. */
static inline void run_join(struct run *run, uint64_t review_at)
{
    run->followers++;
    run_review_at(run, review_at);
}

static inline void run_part(struct run *run)
{
    run->followers--;
    if (run->followers == 0)
        run->review_at = UINT64_MAX;
}

/* One more client is skipped; one less is. */
static inline void run_begin_skip(struct run *run)
{
    run->skipped++;
}

static inline void run_end_skip(struct run *run)
{
    run->skipped--;
}

/* An event is meant for all followers, and for those that are skipped. */
static inline void run_offer(struct run *run)
{
    run->offered++;
}

/* Every follower is asked now: each says from which position on its queue may be full (run_review_at). */
static inline void run_begin_review(struct run *run)
{
    run->review_at = UINT64_MAX;
}

/* Nobody follows any more. */
void run_close(struct run *run);

/* Write it for a successor, settled; read it into a run that was just opened. False: it makes no sense. */
void run_save(const struct run *run, struct state_out *out);
bool run_load(struct run *run, struct state_in *in);

#endif
