/* A chunk: framed events, one after the other, on their way to clients and shared by all their receivers.
 *
 *     bytes │ event │ event │ event │ room ...           │ ends[2] │ ends[1] │ ends[0] │
 *           0                       used                                               room
 *
 * Events are written once and never change. More may be appended. The other end of the room holds each event's end, and
 * when it was taken out of the ring. With that, sent bytes can be counted in whole events, and a client can be stopped
 * between two events. */
#ifndef EVAPID_CHUNK_H
#define EVAPID_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "events/framing.h"

struct waits;

struct chunk_end {
    uint32_t at;  /* offset of the event's end */
    uint32_t age; /* when it was taken out of the ring, in units of CHUNK_AGE_NS after the chunk's first event; never
                     decreases */
};

#define CHUNK_AGE_NS 1024U /* with it 32 bits last for an hour; a later event counts as taken then */

/* For whom a chunk's events are. Those with a chunk of one event can be told apart when its client goes (heritage.h). */
enum chunk_for {
    CHUNK_FOR_ALL, /* all clients, or all of a tag */
    CHUNK_FOR_ANY, /* one event, for any one client of a tag */
    CHUNK_FOR_ONE, /* one event, for one connection: nobody else may get it */
    CHUNK_FORS
};

struct chunk {
    unsigned refs; /* the chunk is freed with the last one */
    uint32_t used, room, events;
    uint64_t taken_ns; /* when the first event was taken out of the ring, by CLOCK_MONOTONIC */

    /* The run's, for a chunk that is part of one (run.h). */
    unsigned pins;
    struct chunk *next;
    uint64_t first_byte, first_event; /* bytes and events of the run before this chunk */

    enum chunk_for meant_for;
    uint64_t tag_hash; /* of the tag that its event is for (presence_hash); 0: for clients whatever their tag */

    /* The state's: in which state the chunk has been written, and with which number (state.h). */
    uint32_t state_serial, state_number;

    _Alignas(uint64_t) char bytes[];
};

/* The largest framed event that a chunk can hold, in bytes. */
#define CHUNK_EVENT_MAX (UINT32_MAX - 64U)

/* Say for whom the chunk's one event is, and for which tag. */
void chunk_mark(struct chunk *chunk, enum chunk_for meant_for, uint64_t tag_hash);

/* Is its event for nobody with this tag, or for one connection only? */
static inline bool chunk_is_foreign(const struct chunk *chunk, uint64_t tag_hash)
{
    return chunk->meant_for == CHUNK_FOR_ONE || (chunk->tag_hash != 0 && chunk->tag_hash != tag_hash);
}

/* May the events of both be in one chunk? Both are for all clients, with the same tag or whatever their tag. */
static inline bool chunk_is_like(const struct chunk *chunk, const struct chunk *other)
{
    return chunk->meant_for == CHUNK_FOR_ALL && other->meant_for == CHUNK_FOR_ALL && chunk->tag_hash == other->tag_hash;
}

/* An empty chunk with room for one framed event of size bytes, and at least room bytes. Its one reference is the
 * caller's. NULL if memory is short. */
struct chunk *chunk_new(size_t room, size_t size);

/* A chunk with only this event. NULL if memory is short. */
struct chunk *chunk_of_event(enum framing framing, const struct payload *payload);

static inline struct chunk *chunk_ref(struct chunk *chunk)
{
    chunk->refs++;
    return chunk;
}

/* Release a reference; the last one frees the chunk. */
void chunk_unref(struct chunk *chunk);

/* chunk_set_aside: an empty chunk is kept for later and does not count as memory in use. chunk_reuse: it counts
 * again. */
void chunk_set_aside(const struct chunk *chunk);
void chunk_reuse(const struct chunk *chunk);

/* Bytes of memory of all chunks in use, each counted once. */
size_t chunk_memory(void);

/* Bytes of memory for a chunk of at least this room that is made for a framed event of size bytes. */
static inline size_t chunk_cost(size_t room, size_t size)
{
    const size_t least = size + sizeof(struct chunk_end) + sizeof(uint32_t);
    return sizeof(struct chunk) + (room > least ? room : least);
}

/* Is there room for one more framed event of size bytes? */
static inline bool chunk_fits(const struct chunk *chunk, size_t size)
{
    const size_t taken = chunk->used + sizeof(struct chunk_end) * ((size_t)chunk->events + 1);
    return taken <= chunk->room && size <= chunk->room - taken;
}

/* Append an event. Its framed size fits. */
void chunk_append(struct chunk *chunk, enum framing framing, const struct payload *payload, size_t size);

/* The payload of event i, which was framed like this: a part of the chunk's bytes. */
struct payload chunk_payload(const struct chunk *chunk, uint32_t i, enum framing framing);

/* Does the one event of a chunk stand in another chunk, between two offsets? */
enum repetition {
    REPETITION_NONE,  /* not there */
    REPETITION_FOUND, /* there: with the same bytes, taken out of the ring at the same time */
    REPETITION_OVER   /* not there, nor in chunks that are older than this one */
};
enum repetition chunk_look_for(const struct chunk *there, uint32_t from, uint32_t to, const struct chunk *one);

/* These bytes, to be sent. */
static inline struct iovec chunk_iovec(const struct chunk *chunk, uint32_t from, uint32_t to)
{
    /* writev(2) does not write to it */
    return (struct iovec){ .iov_base = (char *)(uintptr_t)chunk->bytes + from, .iov_len = to - from };
}

/* Where event i ends. */
struct chunk_end chunk_end_of(const struct chunk *chunk, uint32_t i);

/* A chunk of this room with these bytes and the ends of their events, each after the one before, the last at used. NULL
 * if they contradict each other or memory is short. */
struct chunk *chunk_restore(size_t room, const char *bytes, size_t used, const struct chunk_end *ends, uint32_t events,
                            uint64_t taken_ns);

/* How many of its events end at or before this offset. */
uint32_t chunk_events_before(const struct chunk *chunk, uint32_t offset);

/* A chunk of only the events between two offsets. It has the whole first event, even if that began before from. Both
 * offsets become those of the new chunk. NULL if memory is short; the offsets then stay. */
struct chunk *chunk_part(const struct chunk *chunk, uint32_t *from, uint32_t *to);

/* The events from number first up to before end have been sent: note how long each of them was in evapid. */
void chunk_note_waits(const struct chunk *chunk, uint32_t first, uint32_t end, struct waits *waits);

/* The start of the event that this offset cuts in two; the offset itself if it cuts none. */
uint32_t chunk_event_begin(const struct chunk *chunk, uint32_t offset);

/* The end of the event that this offset cuts in two; the offset itself if it cuts none. */
uint32_t chunk_event_end(const struct chunk *chunk, uint32_t offset);

#endif
