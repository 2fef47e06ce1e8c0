/* Makes, fills, counts and frees chunks. */
#include "events/chunk.h"

#include <stdlib.h>

#include "events/waits.h"

static size_t memory; /* bytes of all chunks in use */

size_t chunk_memory(void)
{
    return memory;
}

void chunk_set_aside(const struct chunk *chunk)
{
    memory -= sizeof(*chunk) + chunk->room;
}

void chunk_reuse(const struct chunk *chunk)
{
    memory += sizeof(*chunk) + chunk->room;
}

struct chunk *chunk_new(size_t room, size_t size)
{
    const size_t align = _Alignof(struct chunk_end);
    const size_t least = size + sizeof(struct chunk_end);
    if (size > CHUNK_EVENT_MAX)
        return NULL;
    if (room < least)
        room = (least + align - 1) & ~(align - 1);
    struct chunk *chunk = malloc(sizeof(*chunk) + room);
    if (chunk == NULL)
        return NULL;
    *chunk = (struct chunk){ .refs = 1, .room = (uint32_t)room };
    chunk_reuse(chunk);
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

void chunk_mark(struct chunk *chunk, enum chunk_for meant_for, uint64_t tag_hash)
{
    chunk->tag_hash = tag_hash;
    chunk->meant_for = meant_for;
}

void chunk_unref(struct chunk *chunk)
{
    if (--chunk->refs > 0)
        return;
    chunk_set_aside(chunk);
    free(chunk);
}

/* Where the end of event i is stored. */
static struct chunk_end *chunk_end(const struct chunk *chunk, uint32_t i)
{
    return (struct chunk_end *)(uintptr_t)(chunk->bytes + chunk->room) - 1 - i;
}

/* How long after the chunk's first event an event was taken, if not in the same turn. */
__attribute__((noinline)) static uint32_t chunk_later_age(const struct chunk *chunk, uint64_t taken_ns)
{
    const uint64_t age = histogram_since_ns(chunk->taken_ns, taken_ns) / CHUNK_AGE_NS;
    return age < UINT32_MAX ? (uint32_t)age : UINT32_MAX;
}

void chunk_append(struct chunk *chunk, enum framing framing, const struct payload *payload, size_t size)
{
    const uint64_t taken_ns = payload->taken_ns != 0 ? payload->taken_ns : histogram_clock_ns();
    if (chunk->events == 0)
        chunk->taken_ns = taken_ns;
    const uint32_t age = taken_ns == chunk->taken_ns ? 0 : chunk_later_age(chunk, taken_ns);
    framing_write(framing, chunk->bytes + chunk->used, payload);
    chunk->used += (uint32_t)size;
    *chunk_end(chunk, chunk->events++) = (struct chunk_end){ chunk->used, age };
}

uint32_t chunk_events_before(const struct chunk *chunk, uint32_t offset)
{
    uint32_t low = 0;
    uint32_t high = chunk->events;
    if (offset == chunk->used)
        return high;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (chunk_end(chunk, middle)->at <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t chunk_event_begin(const struct chunk *chunk, uint32_t offset)
{
    const uint32_t before = chunk_events_before(chunk, offset);
    return before > 0 ? chunk_end(chunk, before - 1)->at : 0;
}

uint32_t chunk_event_end(const struct chunk *chunk, uint32_t offset)
{
    return chunk_event_begin(chunk, offset) == offset ? offset
                                                      : chunk_end(chunk, chunk_events_before(chunk, offset))->at;
}

/* The first event after first, and before end, with another age. Usually there is none, which one look shows. */
static uint32_t chunk_other_age(const struct chunk *chunk, uint32_t first, uint32_t end)
{
    const uint32_t age = chunk_end(chunk, first)->age;
    uint32_t other = end;
    if (chunk_end(chunk, end - 1)->age == age)
        return end;
    while (first + 1 < other) {
        const uint32_t middle = first + (other - first) / 2;
        if (chunk_end(chunk, middle)->age == age)
            first = middle;
        else
            other = middle;
    }
    return other;
}

void chunk_note_waits(const struct chunk *chunk, uint32_t first, uint32_t end, struct waits *waits)
{
    while (first < end) {
        const uint32_t other = chunk_other_age(chunk, first, end);
        waits_add(waits, chunk->taken_ns + (uint64_t)chunk_end(chunk, first)->age * CHUNK_AGE_NS, other - first);
        first = other;
    }
}

struct chunk *chunk_part(const struct chunk *chunk, uint32_t *from, uint32_t *to)
{
    const uint32_t first = chunk_events_before(chunk, *from);
    const uint32_t events = chunk_events_before(chunk, *to) - first;
    const uint32_t begin = first > 0 ? chunk_end(chunk, first - 1)->at : 0;
    struct chunk *part = chunk_new(0, *to - begin + sizeof(struct chunk_end) * (size_t)events);
    if (part == NULL)
        return NULL;
    memcpy(part->bytes, chunk->bytes + begin, *to - begin);
    for (uint32_t i = 0; i < events; i++)
        *chunk_end(part, i) =
            (struct chunk_end){ chunk_end(chunk, first + i)->at - begin, chunk_end(chunk, first + i)->age };
    part->taken_ns = chunk->taken_ns; /* the age of the part's first event may then be above 0 */
    part->used = *to - begin;
    part->events = events;
    chunk_mark(part, chunk->meant_for, chunk->tag_hash);
    *from -= begin;
    *to -= begin;
    return part;
}

struct payload chunk_payload(const struct chunk *chunk, uint32_t i, enum framing framing)
{
    const char *begin = chunk->bytes + (i > 0 ? chunk_end(chunk, i - 1)->at : 0);
    const char *end = chunk->bytes + chunk_end(chunk, i)->at;
    if (framing == FRAMING_NETSTRING) {
        begin = (const char *)memchr(begin, ':', (size_t)(end - begin)) + 1; /* we have framed it */
        end--;
    }
    return (struct payload){ .part = { begin, NULL },
                             .length = { (size_t)(end - begin), 0 },
                             .taken_ns = chunk->taken_ns + (uint64_t)chunk_end(chunk, i)->age * CHUNK_AGE_NS };
}

/* A time is exact only in a chunk of one event: else it is up to CHUNK_AGE_NS too early. */
static enum repetition chunk_compare(const struct chunk *there, uint32_t i, const struct chunk *one)
{
    const struct chunk_end *end = chunk_end(there, i);
    const uint32_t begin = i > 0 ? chunk_end(there, i - 1)->at : 0;
    const uint64_t taken_ns = there->taken_ns + (uint64_t)end->age * CHUNK_AGE_NS;
    if (one->taken_ns >= taken_ns + CHUNK_AGE_NS)
        return REPETITION_OVER;
    const bool found = taken_ns <= one->taken_ns && end->at - begin == one->used &&
                       memcmp(there->bytes + begin, one->bytes, one->used) == 0;
    return found ? REPETITION_FOUND : REPETITION_NONE;
}

enum repetition chunk_look_for(const struct chunk *there, uint32_t from, uint32_t to, const struct chunk *one)
{
    const uint32_t first = chunk_events_before(there, from);
    enum repetition repetition = REPETITION_NONE;
    for (uint32_t i = chunk_events_before(there, to); i > first && repetition == REPETITION_NONE; i--)
        repetition = chunk_compare(there, i - 1, one);
    return repetition;
}

struct chunk_end chunk_end_of(const struct chunk *chunk, uint32_t i)
{
    return *chunk_end(chunk, i);
}

struct chunk *chunk_restore(size_t room, const char *bytes, size_t used, const struct chunk_end *ends, uint32_t events,
                            uint64_t taken_ns)
{
    struct chunk_end end = { 0 };
    if (room > UINT32_MAX || room % _Alignof(struct chunk_end) != 0 || used > room ||
        events > (room - used) / sizeof(struct chunk_end))
        return NULL;
    for (uint32_t i = 0; i < events; end = ends[i++])
        if (ends[i].at <= end.at || ends[i].age < end.age)
            return NULL;
    struct chunk *chunk = end.at == used ? chunk_new(room, 0) : NULL;
    if (chunk == NULL || chunk->room != room) {
        free(chunk);
        return NULL;
    }
    if (used > 0)
        memcpy(chunk->bytes, bytes, used);
    for (uint32_t i = 0; i < events; i++)
        *chunk_end(chunk, i) = ends[i];
    chunk->taken_ns = taken_ns;
    chunk->used = (uint32_t)used;
    chunk->events = events;
    return chunk;
}
