/* A run: the events for every client in one framing, one after the other.
 *
 * An event is appended once, however many clients there are. A client that follows the run only keeps a position in it
 * (outq.h). A broadcast thus costs nothing for a client until it is sent, in as few pieces as there are chunks.
 * Positions are bytes since the run began; they only grow.
 *
 *     chunk ──▶ chunk ──▶ chunk ──▶ chunk
 *     ▲ pinned by a slow client   ▲ mark  ▲ bytes: all that was appended
 *
 * The run keeps what lies after mark, where the last turn of the loop ended, and every chunk from the first pinned one
 * on. A chunk is pinned by a follower that had not been sent everything at the end of a turn. Unsent bytes of the run
 * count against the limit of the follower's queue, so the run grows no longer than the longest queue may be. */
#ifndef EVAPID_RUN_H
#define EVAPID_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "events/chunk.h"

#define RUN_CHUNK 65536U /* bytes of a chunk, unless an event is larger */

struct state_in;
struct state_out;

struct run {
    enum framing framing;
    struct chunk *first, *last; /* NULL: nothing is kept */
    struct chunk *marked;       /* the chunk that contains mark; NULL: first does */
    struct chunk *spare;        /* empty chunks for the next turn */
    unsigned spares;
    uint64_t bytes, events; /* ever appended */
    uint64_t mark;          /* a position: a follower before it has a pin */
    uint64_t review_at;     /* a position: up to there, no follower's queue can be full */
    uint32_t followers;

    /* Clients that are skipped until they have caught up (pace.h). The events that they miss are counted for all
     * together. */
    uint32_t skipped;
    uint64_t offered; /* events meant for followers and skipped clients, appended or not */
};

void run_open(struct run *run, enum framing framing);

/* Bytes of memory that appending a framed event of size bytes adds to the chunks in use. */
size_t run_cost(const struct run *run, size_t size);

/* Append an event. False, with nothing changed, if memory is short. */
bool run_append(struct run *run, const struct payload *payload);

/* The chunk with the byte at position; NULL at the run's end. pin is that chunk or an earlier one, or NULL if position
 * is not before mark. */
struct chunk *run_find(const struct run *run, struct chunk *pin, uint64_t position);

/* The end of a turn: every follower is at the run's end or has pinned its position. Drops what no follower needs. */
void run_trim(struct run *run);

/* A follower's queue may be full from this position on: it is asked before anything is appended after it. */
static inline void run_review_at(struct run *run, uint64_t position)
{
    if (run->review_at > position)
        run->review_at = position;
}

/* run_join: one more client follows, whose queue may be full from this position on. run_part: one less. */
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

/* run_begin_skip: one more client is skipped. run_end_skip: one less. */
static inline void run_begin_skip(struct run *run)
{
    run->skipped++;
}

static inline void run_end_skip(struct run *run)
{
    run->skipped--;
}

/* An event is meant for all followers and skipped clients. */
static inline void run_offer(struct run *run)
{
    run->offered++;
}

/* Begin to ask every follower: each one says from which position on its queue may be full (run_review_at). */
static inline void run_begin_review(struct run *run)
{
    run->review_at = UINT64_MAX;
}

/* Nobody follows any more. */
void run_close(struct run *run);

/* Write the run, settled, for a successor; read it into a newly opened run. False: the data is invalid. */
void run_save(const struct run *run, struct state_out *out);
bool run_load(struct run *run, struct state_in *in);

#endif
