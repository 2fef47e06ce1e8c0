/* A chunk: framed events one behind the other, on their way to clients and shared by all who get them.
 *
 *     bytes │ event │ event │ event │ room ...           │ ends[2] │ ends[1] │ ends[0] │
 *           0                       used                                               room
 *
 * Events are written once and never change; more may be put behind them. Where each of them ends, and when it was taken
 * out of the ring, stands at the other end of the room, so that bytes which have left can be counted in whole events, and
 * a client be stopped between two. */
#ifndef EVAPID_CHUNK_H
#define EVAPID_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "events/framing.h"

struct waits;

struct chunk_end {
    uint32_t at;  /* offset of the event's end */
    uint32_t age; /* when it was taken, in units of CHUNK_AGE_NS after the chunk's first; it never decreases */
};

#define CHUNK_AGE_NS 1024U /* so that 32 bits last for an hour: what is taken later counts as taken then */

struct chunk {
    unsigned refs; /* freed with the last */
    uint32_t used, room, events;
    uint64_t taken_ns; /* when the first event was taken out of the ring, by CLOCK_MONOTONIC */

    /* The run's, for a chunk that is part of one (run.h). */
    unsigned pins;
    struct chunk *next;
    uint64_t first_byte, first_event; /* bytes and events of the run that come before it */

    /* The state's: in which state it has been written, and as which chunk (state.h). */
    uint32_t state_serial, state_number;

    _Alignas(uint64_t) char bytes[];
};

/* The largest framed event that a chunk can hold, in bytes. */
#define CHUNK_EVENT_MAX (UINT32_MAX - 64U)

/* An empty chunk whose room is enough for one event of size bytes, framed, and at least room bytes; one reference, the
 * caller's. NULL when there is no memory. */
struct chunk *chunk_new(size_t room, size_t size);

/* A chunk of just that event. NULL when there is no memory. */
struct chunk *chunk_of_event(enum framing framing, const struct payload *payload);

static inline struct chunk *chunk_ref(struct chunk *chunk)
{
    chunk->refs++;
    return chunk;
}

/* Give a reference back; the last one frees. */
void chunk_unref(struct chunk *chunk);

/* Nothing is in the chunk, and it is kept for later: it doesn't count as memory in use; and now it does again. */
void chunk_set_aside(const struct chunk *chunk);
void chunk_take_up(const struct chunk *chunk);

/* Bytes of memory that the chunks in use take, all together and each once. */
size_t chunk_memory(void);

/* Bytes of memory that a chunk of at least that room takes when it is made for an event of size bytes, framed. */
static inline size_t chunk_cost(size_t room, size_t size)
{
    const size_t least = size + sizeof(struct chunk_end) + sizeof(uint32_t);
    return sizeof(struct chunk) + (room > least ? room : least);
}

/* Is there room for one more event of size bytes, framed? */
static inline bool chunk_fits(const struct chunk *chunk, size_t size)
{
    const size_t taken = chunk->used + sizeof(struct chunk_end) * ((size_t)chunk->events + 1);
    return taken <= chunk->room && size <= chunk->room - taken;
}

/* Put an event behind the others; its size in that framing fits. */
void chunk_append(struct chunk *chunk, enum framing framing, const struct payload *payload, size_t size);

/* Where event i ends. */
struct chunk_end chunk_end_of(const struct chunk *chunk, uint32_t i);

/* A chunk of that room that holds bytes with the ends of its events, each behind the one before, the last at used. NULL when
 * they do not fit each other or there is no memory. */
struct chunk *chunk_restore(size_t room, const char *bytes, size_t used, const struct chunk_end *ends, uint32_t events,
                            uint64_t taken_ns);

/* How many of its events end at or before that offset. */
uint32_t chunk_events_before(const struct chunk *chunk, uint32_t offset);

/* A chunk of just the events between two offsets, with the whole of the first though it may have begun before from. Both
 * offsets are made those of the new chunk. NULL, and they stay, when there is no memory. */
struct chunk *chunk_part(const struct chunk *chunk, uint32_t *from, uint32_t *to);

/* The events from the one of number first up to before end have left: note how long each of them had been here. */
void chunk_note_waits(const struct chunk *chunk, uint32_t first, uint32_t end, struct waits *waits);

/* Where the event begins that has not ended at that offset: the offset itself when none is cut in two by it. */
uint32_t chunk_event_begin(const struct chunk *chunk, uint32_t offset);

/* Where the event ends that has begun before that offset: the offset itself when none is cut in two by it. */
uint32_t chunk_event_end(const struct chunk *chunk, uint32_t offset);

#endif
