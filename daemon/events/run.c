/* Appends to the last chunk, drops the first ones. */
#include "events/run.h"

#include <stdlib.h>

#include "base/state.h"
#include "events/chunk_state.h"

#define SPARES_MAX 8 /* chunks: as many as a turn is likely to need again */

void run_open(struct run *run, enum framing framing)
{
    *run = (struct run){ .framing = framing, .review_at = UINT64_MAX };
}

static struct chunk *run_take_spare(struct run *run)
{
    struct chunk *chunk = run->spare;
    run->spare = chunk->next;
    run->spares--;
    chunk_reuse(chunk);
    return chunk;
}

/* Empty the chunk, so that it begins at the run's end. */
static void run_place(const struct run *run, struct chunk *chunk)
{
    chunk->used = chunk->events = 0;
    chunk->pins = 0;
    chunk->next = NULL;
    chunk->first_byte = run->bytes;
    chunk->first_event = run->events;
}

/* The chunk for the next event, of size bytes; NULL if memory is short. */
static struct chunk *run_last(struct run *run, size_t size)
{
    if (run->last != NULL && chunk_fits(run->last, size))
        return run->last;
    const bool fits_spare = run->spare != NULL && size <= RUN_CHUNK - sizeof(struct chunk_end);
    struct chunk *chunk = fits_spare ? run_take_spare(run) : chunk_new(RUN_CHUNK, size);
    if (chunk == NULL)
        return NULL;
    run_place(run, chunk);
    if (run->last != NULL)
        run->last->next = chunk;
    else
        run->first = chunk;
    run->last = chunk;
    return chunk;
}

size_t run_cost(const struct run *run, size_t size)
{
    return run->last != NULL && chunk_fits(run->last, size) ? 0 : chunk_cost(RUN_CHUNK, size);
}

bool run_append(struct run *run, const struct payload *payload)
{
    const size_t size = framing_size(run->framing, payload_length(payload));
    struct chunk *chunk = run_last(run, size);
    if (chunk == NULL)
        return false;
    chunk_append(chunk, run->framing, payload, size);
    run->bytes += size;
    run->events++;
    return true;
}

struct chunk *run_find(const struct run *run, struct chunk *pin, uint64_t position)
{
    if (position == run->bytes)
        return NULL;
    struct chunk *chunk = pin != NULL ? pin : run->marked != NULL ? run->marked : run->first;
    while (position - chunk->first_byte >= chunk->used)
        chunk = chunk->next;
    return chunk;
}

/* The run no longer needs a chunk. A piece of some queue may still refer to it. */
static void run_drop(struct run *run, struct chunk *chunk)
{
    chunk->next = NULL;
    if (chunk->refs > 1 || chunk->room != RUN_CHUNK || run->spares == SPARES_MAX) {
        chunk_unref(chunk);
        return;
    }
    chunk_set_aside(chunk);
    chunk->next = run->spare;
    run->spare = chunk;
    run->spares++;
}

static void run_drop_first(struct run *run)
{
    struct chunk *chunk = run->first;
    run->first = chunk->next;
    if (run->first == NULL)
        run->last = NULL;
    run_drop(run, chunk);
}

void run_trim(struct run *run)
{
    run->mark = run->bytes;
    run->marked = run->last;
    while (run->first != run->last && run->first->pins == 0)
        run_drop_first(run);
    struct chunk *chunk = run->first;
    if (chunk == NULL || chunk != run->last || chunk->pins > 0)
        return;
    if (chunk->refs == 1 && chunk->room == RUN_CHUNK) {
        run_place(run, chunk); /* the next turn writes where this one did: that memory is still in the caches */
        return;
    }
    if (chunk->refs > 1 && chunk->room == RUN_CHUNK)
        return; /* pieces refer to it: append after them, so that they do not hold a chunk each */
    run_drop_first(run);
    run->marked = NULL;
}

void run_close(struct run *run)
{
    while (run->first != NULL)
        run_drop_first(run);
    while (run->spare != NULL)
        chunk_unref(run_take_spare(run));
    run->marked = NULL;
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void run_save(const struct run *run, struct state_out *out)
{
    for (struct chunk *chunk = run->first; chunk != NULL; chunk = chunk->next)
        state_put_chunk(out, "chunk", chunk);
    state_put(out, "bytes", run->bytes);
    state_put(out, "events", run->events);
    state_put(out, "offered", run->offered);
}

bool run_load(struct run *run, struct state_in *in)
{
    uint64_t bytes = 0;
    uint64_t events = 0;
    bool missing = false;
    for (struct chunk *chunk = NULL; (chunk = state_get_chunk(in, "chunk", &missing)) != NULL;) {
        if (chunk->refs > 1)
            return state_fail(in); /* it is part of a run already */
        if (run->last != NULL)
            run->last->next = chunk;
        else
            run->first = chunk;
        run->last = chunk_ref(chunk);
        chunk->first_byte = bytes;
        chunk->first_event = events;
        bytes += chunk->used;
        events += chunk->events;
    }
    run->bytes = state_get(in, "bytes", bytes);
    run->events = state_get(in, "events", events);
    run->offered = state_get(in, "offered", run->events);
    if (in->at.failed || run->bytes < bytes || run->events < events)
        return state_fail(in);
    for (struct chunk *chunk = run->first; chunk != NULL; chunk = chunk->next) {
        chunk->first_byte += run->bytes - bytes;
        chunk->first_event += run->events - events;
    }
    run->mark = run->bytes;
    run->marked = run->last;
    return true;
}
