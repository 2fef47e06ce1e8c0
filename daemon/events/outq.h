/* A client's output: what it has been given and not yet sent.
 *
 *     piece ─▶ piece ─▶ piece ─▶ all of the run from byte on
 *
 * Events for every client lie in a run. The queue follows the run: it keeps the client's position in it. Events for
 * this client, or for a few, come in chunks of their own. The client must get everything in order, so before such a
 * chunk the run's bytes up to then become pieces too. Pieces are thus parts of shared chunks, and the run continues
 * after them.
 *
 * The queue refers to waiting bytes and never copies them. limit bounds its bytes: outq_push refuses a chunk that would
 * exceed it, and the code that appends to the run checks it first (run.review_at). */
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
    uint32_t from, to; /* offsets; to is an event's end */
};

struct outq {
    struct piece *pieces;       /* a ring, oldest at head; NULL while it is empty */
    uint32_t head, count, room; /* positions in the ring; room is 0 or a power of two */
    enum framing framing;
    size_t bytes, limit; /* bytes in pieces; and the limit for pieces and run together */

    struct run *run;   /* the run that it follows; NULL: none */
    uint64_t byte;     /* position in the run of the next byte to send */
    struct chunk *pin; /* the chunk there, which we keep; NULL: byte is not before the run's mark */
    uint64_t since;    /* events that the run had when given was last counted */
    uint64_t given;    /* events given since outq_collect_given */
    bool followed;     /* it was loaded, and is to follow its run again */

    struct waits *waits; /* records how long sent events waited; NULL: nothing does. Set by the owner */
};

void outq_init(struct outq *q, enum framing framing, size_t limit);

/* How many bytes may wait from now on. If more wait already, none are dropped for that. */
void outq_set_limit(struct outq *q, size_t limit);

/* Follow the run: the client gets everything appended to it from now on. */
void outq_follow(struct outq *q, struct run *run);

/* Stop following. The run's bytes for the client so far become pieces. False, with nothing changed, if memory is
 * short. */
bool outq_leave(struct outq *q);

/* Drop everything, and stop following. Returns how many events were not sent completely. */
uint64_t outq_clear(struct outq *q);

/* The same, but keep the rest of an event that was sent in part. */
uint64_t outq_keep_begun(struct outq *q);

/* Drop whole events, the oldest first, until at most keep bytes wait. An event that was sent in part stays, however
 * long it is. Continues to follow. Returns how many events were dropped; 0 also if memory was too short to divide
 * them. */
uint64_t outq_drop_oldest(struct outq *q, size_t keep);

/* The same, the newest first, for a queue that follows no run. */
uint64_t outq_drop_newest(struct outq *q, size_t keep);

/* Queue an event in a chunk of its own; takes a reference. Returns false and changes nothing if the queue would exceed
 * its limit or memory is short. The caller's policy then decides about the client. */
bool outq_push(struct outq *q, struct chunk *chunk);

/* These are for queues that follow no run. outq_append: move all of from to the end of q, which has the same framing; an
 * event of from that was sent in part is whole again. False, with nothing changed, if memory is short. outq_prepend: the
 * same, to the front of q. */
bool outq_append(struct outq *q, struct outq *from);
bool outq_prepend(struct outq *q, struct outq *from);

/* Frame all that waits, in whole events, in another way. Returns how many events are dropped because memory was short,
 * or because they have no bytes in that framing. */
uint64_t outq_translate(struct outq *q, enum framing framing);

/* Drop the events that no other client of the tag may get: those for this connection only, or for another tag, which the
 * client had before. Returns how many. */
uint64_t outq_drop_foreign(struct outq *q, uint64_t tag_hash);

/* Drop each event of q, for all and in a chunk of its own, that waits in other, too: one that was taken out of the ring at
 * the same time, with the same bytes. Looks only at the newest events of other. Returns how many. */
uint64_t outq_drop_repeated(struct outq *q, const struct outq *other);

/* Remove the first piece, the queue has one. Its chunk's reference is now the caller's. Returns its events that have not
 * been sent completely. */
uint32_t outq_pop(struct outq *q, struct chunk **chunk);

/* Bytes that wait; and is the queue empty? */
size_t outq_bytes(const struct outq *q);
static inline bool outq_is_empty(const struct outq *q)
{
    return q->count == 0 && (q->run == NULL || q->byte == q->run->bytes);
}

/* Bytes that may still be added: 0 also if more than the limit wait. */
static inline size_t outq_room(const struct outq *q)
{
    const size_t bytes = outq_bytes(q);
    return bytes < q->limit ? q->limit - bytes : 0;
}

/* Unsent bytes of an event that was sent in part; 0: there is none. */
size_t outq_begun(const struct outq *q);

/* Bytes of memory of the rings of all queues, without the chunks; and the most by which they grow when this many queues
 * each get an event in a chunk of its own. */
size_t outq_memory(void);
size_t outq_growth(uint32_t queues);

/* Events that wait, including one that was sent in part. */
uint64_t outq_events(const struct outq *q);

/* Events given, by outq_push and by the run, since the last call. */
uint64_t outq_collect_given(struct outq *q);

/* How far the run may grow before the queue could exceed its limit, as a position. */
static inline uint64_t outq_review_at(const struct outq *q)
{
    return q->run->bytes + outq_room(q);
}

/* Point up to most iovecs at the next bytes to send. Returns how many were set. */
int outq_gather(const struct outq *q, struct iovec *iov, int most);

/* The queue's first bytes have been sent. Returns how many events have thereby been sent completely. */
uint64_t outq_sent(struct outq *q, size_t bytes);

/* The run is about to be settled: keep the chunk at the queue's position, if anything is still to be sent. */
void outq_pin(struct outq *q);

/* Write the queue for a successor; read it into an empty queue that follows no run. outq_resume then sets the run that
 * it followed, if any. False: the data is invalid, and the queue must be cleared. */
void outq_save(const struct outq *q, struct state_out *out);
bool outq_load(struct outq *q, struct state_in *in);

/* Follow the run that the queue followed when it was saved (nothing, if it followed none). False: its position is not
 * in that run. */
bool outq_resume(struct outq *q, struct run *run);

#endif
