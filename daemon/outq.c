/* The output queue: a ring of frame references that grows and shrinks with its use. */
#include "outq.h"

#include <stdlib.h>

#define ROOM_FIRST 8 /* frames */
#define ROOM_KEPT 64 /* a larger ring is freed when it has run empty: idle clients are many */

void outq_init(struct outq *q, enum framing framing, size_t limit)
{
    *q = (struct outq){ .framing = framing, .limit = limit };
}

static struct frame *outq_at(const struct outq *q, size_t i)
{
    return q->ring[(q->head + i) & (q->room - 1)];
}

static void outq_free_ring(struct outq *q)
{
    free(q->ring);
    q->ring = NULL;
    q->room = 0;
    q->head = 0;
}

size_t outq_clear(struct outq *q)
{
    const size_t left = q->count;
    for (size_t i = 0; i < left; i++)
        frame_unref(outq_at(q, i));
    outq_free_ring(q);
    q->count = 0;
    q->bytes = 0;
    q->sent = 0;
    return left;
}

size_t outq_keep_partial(struct outq *q)
{
    if (q->sent == 0)
        return outq_clear(q);
    const size_t left = q->count - 1;
    for (; q->count > 1; q->count--) {
        struct frame *f = outq_at(q, q->count - 1);
        q->bytes -= frame_size(f, q->framing);
        frame_unref(f);
    }
    return left;
}

static bool outq_grow(struct outq *q)
{
    const size_t room = q->room == 0 ? ROOM_FIRST : q->room * 2;
    struct frame **ring = malloc(room * sizeof(struct frame *));
    if (ring == NULL)
        return false;
    for (size_t i = 0; i < q->count; i++)
        ring[i] = outq_at(q, i);
    free(q->ring);
    q->ring = ring;
    q->room = room;
    q->head = 0;
    return true;
}

bool outq_push(struct outq *q, struct frame *f)
{
    const size_t size = frame_size(f, q->framing);
    if (size > q->limit - q->bytes)
        return false;
    if (q->count == q->room && !outq_grow(q))
        return false;
    q->ring[(q->head + q->count++) & (q->room - 1)] = frame_ref(f);
    q->bytes += size;
    return true;
}

int outq_gather(const struct outq *q, struct iovec *iov, int most)
{
    int n = 0;
    for (size_t i = 0; i < q->count && n < most; i++, n++) {
        const struct frame *f = outq_at(q, i);
        const size_t sent = i == 0 ? q->sent : 0;
        iov[n].iov_base = (char *)(uintptr_t)frame_start(f, q->framing) + sent; /* writev(2) does not write to it */
        iov[n].iov_len = frame_size(f, q->framing) - sent;
    }
    return n;
}

size_t outq_sent(struct outq *q, size_t bytes)
{
    size_t whole = 0;
    q->bytes -= bytes;
    bytes += q->sent;
    while (q->count > 0 && bytes >= frame_size(outq_at(q, 0), q->framing)) {
        struct frame *f = outq_at(q, 0);
        bytes -= frame_size(f, q->framing);
        frame_unref(f);
        q->head++;
        q->count--;
        whole++;
    }
    q->sent = bytes;
    if (q->count == 0 && q->room > ROOM_KEPT)
        outq_free_ring(q);
    return whole;
}
