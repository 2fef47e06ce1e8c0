/* Chunks: made, filled, counted, freed. */
#include "chunk.h"

#include <stdlib.h>

static size_t memory; /* bytes that chunks in use take */

size_t chunk_memory(void)
{
    return memory;
}

void chunk_set_aside(const struct chunk *chunk)
{
    memory -= sizeof(*chunk) + chunk->room;
}

void chunk_take_up(const struct chunk *chunk)
{
    memory += sizeof(*chunk) + chunk->room;
}

struct chunk *chunk_new(size_t room, size_t size)
{
    const size_t ends = sizeof(uint32_t);
    if (size > CHUNK_EVENT_MAX)
        return NULL;
    if (room < size + ends)
        room = (size + ends + ends - 1) & ~(ends - 1);
    struct chunk *chunk = malloc(sizeof(*chunk) + room);
    if (chunk == NULL)
        return NULL;
    *chunk = (struct chunk){ .refs = 1, .room = (uint32_t)room };
    chunk_take_up(chunk);
    return chunk;
}

struct chunk *chunk_of_event(enum framing framing, const struct payload *payload)
{
    const size_t size = framing_size(framing, payload_length(payload));
    struct chunk *chunk = chunk_new(0, size);
    if (chunk != NULL)
        chunk_append(chunk, framing, payload, size);
    return chunk;
}

void chunk_unref(struct chunk *chunk)
{
    if (--chunk->refs > 0)
        return;
    chunk_set_aside(chunk);
    free(chunk);
}

/* Where the end of event i is noted. */
static uint32_t *chunk_end(const struct chunk *chunk, uint32_t i)
{
    return (uint32_t *)(uintptr_t)(chunk->bytes + chunk->room) - 1 - i;
}

void chunk_append(struct chunk *chunk, enum framing framing, const struct payload *payload, size_t size)
{
    framing_write(framing, chunk->bytes + chunk->used, payload);
    chunk->used += (uint32_t)size;
    *chunk_end(chunk, chunk->events++) = chunk->used;
}

uint32_t chunk_events_before(const struct chunk *chunk, uint32_t offset)
{
    uint32_t low = 0;
    uint32_t high = chunk->events;
    if (offset == chunk->used)
        return high;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (*chunk_end(chunk, middle) <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t chunk_event_begin(const struct chunk *chunk, uint32_t offset)
{
    const uint32_t before = chunk_events_before(chunk, offset);
    return before > 0 ? *chunk_end(chunk, before - 1) : 0;
}

uint32_t chunk_event_end(const struct chunk *chunk, uint32_t offset)
{
    return chunk_event_begin(chunk, offset) == offset ? offset : *chunk_end(chunk, chunk_events_before(chunk, offset));
}

struct chunk *chunk_part(const struct chunk *chunk, uint32_t *from, uint32_t *to)
{
    const uint32_t first = chunk_events_before(chunk, *from);
    const uint32_t events = chunk_events_before(chunk, *to) - first;
    const uint32_t begin = first > 0 ? *chunk_end(chunk, first - 1) : 0;
    struct chunk *part = chunk_new(0, *to - begin + sizeof(uint32_t) * (size_t)events);
    if (part == NULL)
        return NULL;
    memcpy(part->bytes, chunk->bytes + begin, *to - begin);
    for (uint32_t i = 0; i < events; i++)
        *chunk_end(part, i) = *chunk_end(chunk, first + i) - begin;
    part->used = *to - begin;
    part->events = events;
    *from -= begin;
    *to -= begin;
    return part;
}

uint32_t chunk_end_of(const struct chunk *chunk, uint32_t i)
{
    return *chunk_end(chunk, i);
}

struct chunk *chunk_restore(size_t room, const char *bytes, size_t used, const uint32_t *ends, uint32_t events)
{
    uint32_t end = 0;
    if (room > UINT32_MAX || room % sizeof(uint32_t) != 0 || used > room || events > (room - used) / sizeof(uint32_t))
        return NULL;
    for (uint32_t i = 0; i < events; end = ends[i++])
        if (ends[i] <= end)
            return NULL;
    struct chunk *chunk = end == used ? chunk_new(room, 0) : NULL;
    if (chunk == NULL || chunk->room != room) {
        free(chunk);
        return NULL;
    }
    if (used > 0)
        memcpy(chunk->bytes, bytes, used);
    for (uint32_t i = 0; i < events; i++)
        *chunk_end(chunk, i) = ends[i];
    chunk->used = (uint32_t)used;
    chunk->events = events;
    return chunk;
}
