/* A client's output: frames it has been given and not yet sent.
 *
 * Frames are shared between clients and never change; the queue holds a reference to each, and how much of the first has
 * left. Bytes in the queue never exceed limit: a frame that would go over is refused whole. */
#ifndef EVAPID_OUTQ_H
#define EVAPID_OUTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "frame.h"

struct outq {
    struct frame **ring;      /* frames, oldest at head; NULL while none has been queued */
    size_t head, count, room; /* positions in frames; room is 0 or a power of two */
    size_t sent;              /* bytes of ring[head] already written */
    size_t bytes, limit;      /* queued, and the most that may be */
    enum framing framing;
};

void outq_init(struct outq *q, enum framing framing, size_t limit);

/* Let go of every frame. Returns how many were not sent whole. */
size_t outq_clear(struct outq *q);

/* Let go of every frame but the first if a part of it has been sent. Returns how many were let go. */
size_t outq_keep_partial(struct outq *q);

/* Queue f for sending, taking a reference. Returns false, and leaves the queue as it was, when f would take it over its
 * limit or there is no memory: what happens to the client then is the caller's policy. */
bool outq_push(struct outq *q, struct frame *f);

/* Point up to most iovecs at what is to be sent next; returns how many were set. */
int outq_gather(const struct outq *q, struct iovec *iov, int most);

/* The first bytes of the queue have left. Returns how many frames have left whole by that. */
size_t outq_sent(struct outq *q, size_t bytes);

#endif
