/* A client's output: what it has been given and not yet sent.
 *
 *     piece ─▶ piece ─▶ piece ─▶ all of the run from byte on
 *
 * Events for every client lie in a run that the queue follows: it keeps where in it the client stands. Events for this
 * client, or a few, come in chunks of their own. As the client must get all in order, such a chunk makes a piece of what
 * the run had for it up to then; so pieces are parts of shared chunks, and the run goes on behind them.
 *
 * The queue refers to what it waits for, and never copies it. Bytes in it are bounded by limit: outq_push refuses a chunk
 * that would go over, and whoever appends to the run sees to it before (run.review_at). */
#ifndef EVAPID_OUTQ_H
#define EVAPID_OUTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "events/run.h"

struct state_in;
struct state_out;

struct piece {
    struct chunk *chunk;
    uint32_t from, to; /* offsets; to is the end of an event */
};

struct outq {
    struct piece *pieces;       /* a ring, oldest at head; NULL while there are none */
    uint32_t head, count, room; /* positions in it; room is 0 or a power of two */
    enum framing framing;
    size_t bytes, limit; /* in pieces; and the most that may be, in pieces and the run together */

    struct run *run;   /* that it follows; NULL: none */
    uint64_t byte;     /* position in it of what is next to be sent */
    struct chunk *pin; /* the chunk there, kept by us; NULL: byte is not before the run's mark */
    uint64_t since;    /* events that the run had when they were last counted as given */
    uint64_t given;    /* events given since outq_take_given */
    bool followed;     /* it has been loaded, and is to follow its run again */

    struct waits
        *waits; /* where is noted for how long events waited, when they have left; NULL: nowhere. The owner's to set */
};

void outq_init(struct outq *q, enum framing framing, size_t limit);

/* Bytes that may wait from now on; if more do, nothing is dropped for that alone. */
void outq_set_limit(struct outq *q, size_t limit);

/* Follow the run: all that is appended to it from now on is the client's. */
void outq_follow(struct outq *q, struct run *run);

/* Follow no more. What the run had for the client up to now becomes pieces. False, and nothing has changed, when there is
 * no memory. */
bool outq_leave(struct outq *q);

/* Let go of everything, and follow no more. Returns how many events were not sent whole. */
uint64_t outq_clear(struct outq *q);

/* Likewise, but for an event of which a part has been sent: the rest of it stays. */
uint64_t outq_keep_begun(struct outq *q);

/* Let go of whole events, the oldest first, until at most keep bytes wait; one of which a part has been sent stays, however
 * long it is. Goes on following. Returns how many events are gone: 0 also when there was no memory to part them. */
uint64_t outq_drop_oldest(struct outq *q, size_t keep);

/* Likewise, the newest first, of a queue that follows no run. */
uint64_t outq_drop_newest(struct outq *q, size_t keep);

/* Queue an event in a chunk of its own, taking a reference. Returns false, and leaves the queue as it was, when it would go
 * over its limit or there is no memory: what happens to the client then is the caller's policy. */
bool outq_push(struct outq *q, struct chunk *chunk);

/* Bytes that wait; is there anything? */
size_t outq_bytes(const struct outq *q);
static inline bool outq_is_empty(const struct outq *q)
{
    return q->count == 0 && (q->run == NULL || q->byte == q->run->bytes);
}

/* Bytes that may still come: 0 also when more than the limit wait. */
static inline size_t outq_room(const struct outq *q)
{
    const size_t bytes = outq_bytes(q);
    return bytes < q->limit ? q->limit - bytes : 0;
}

/* Bytes that are left of an event of which a part has been sent; 0: there is none. */
size_t outq_begun(const struct outq *q);

/* Bytes of memory that the rings of all queues take, beside the chunks; and the most by which that grows when so many queues
 * get an event in a chunk of its own. */
size_t outq_memory(void);
size_t outq_growth(uint32_t queues);

/* Events that wait, one that has been sent in part among them. */
uint64_t outq_events(const struct outq *q);

/* Events that were given, by outq_push and by the run, since this was last asked. */
uint64_t outq_take_given(struct outq *q);

/* The position of the run up to which it may grow without the queue going over its limit. */
static inline uint64_t outq_review_at(const struct outq *q)
{
    return q->run->bytes + outq_room(q);
}

/* Point up to most iovecs at what is to be sent next; returns how many were set. */
int outq_gather(const struct outq *q, struct iovec *iov, int most);

/* The first bytes of the queue have left. Returns how many events have left whole by that. */
uint64_t outq_sent(struct outq *q, size_t bytes);

/* The run is about to be settled: keep the chunk where the queue stands, if there is still something to be sent. */
void outq_pin(struct outq *q);

/* Write it for a successor; read it back into a queue that is empty and follows no run. The run that it followed, if any,
 * is set by outq_resume. False: it makes no sense, and the queue is to be cleared. */
void outq_save(const struct outq *q, struct state_out *out);
bool outq_load(struct outq *q, struct state_in *in);

/* Follow the run that it followed when it was saved (nothing, if it was none). False: its position is not in that run. */
bool outq_resume(struct outq *q, struct run *run);

#endif
