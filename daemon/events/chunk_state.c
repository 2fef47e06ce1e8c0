/* Writes chunks into a state, and reads them. */
#include "events/chunk_state.h"

#include <stdlib.h>

#include "base/state.h"
#include "events/chunk.h"

#define END_BYTES 8U /* of a chunk_end in a state: its two numbers */

static void put_chunk_ends(struct state_out *out, const struct chunk *chunk)
{
    state_put_bytes_begin(out, "ends", chunk->events * (uint64_t)END_BYTES);
    for (uint32_t i = 0; i < chunk->events; i++) {
        const struct chunk_end end = chunk_end_of(chunk, i);
        state_put_bytes_u32(out, end.at);
        state_put_bytes_u32(out, end.age);
    }
}

void state_put_chunk(struct state_out *out, const char *name, struct chunk *chunk)
{
    if (chunk == NULL || chunk->state_serial == out->serial) {
        state_put(out, name, chunk != NULL ? chunk->state_number : 0);
        return;
    }
    chunk->state_serial = out->serial;
    chunk->state_number = state_number(out);
    state_put_record(out, name);
    state_put(out, "number", chunk->state_number);
    state_put(out, "room", chunk->room);
    put_chunk_ends(out, chunk);
    state_put(out, "taken-ns", chunk->taken_ns);
    state_put_bytes(out, "bytes", chunk->bytes, chunk->used);
    state_put(out, "for", chunk->meant_for);
    state_put(out, "tag", chunk->tag_hash);
    state_put_end(out);
}

static struct chunk *make_chunk(size_t room, struct wire_text packed, uint64_t taken_ns, struct wire_text bytes)
{
    struct wire_cursor at = wire_reading(packed.bytes, packed.length);
    const uint32_t events = (uint32_t)(packed.length / END_BYTES);
    struct chunk_end *ends = packed.length / END_BYTES <= UINT32_MAX ? malloc(events * sizeof(*ends) + 1) : NULL;
    for (uint32_t i = 0; ends != NULL && i < events; i++) {
        ends[i].at = (uint32_t)wire_get(&at, 4);
        ends[i].age = (uint32_t)wire_get(&at, 4);
    }
    struct chunk *chunk = ends != NULL ? chunk_restore(room, bytes.bytes, bytes.length, ends, events, taken_ns) : NULL;
    free(ends);
    return chunk;
}

static void release(void *chunk)
{
    chunk_unref(chunk);
}

static struct chunk *state_read_chunk(struct state_in *in)
{
    const uint64_t number = state_get(in, "number", 0);
    const size_t room = (size_t)state_get(in, "room", 0);
    const struct wire_text ends = state_get_bytes(in, "ends");
    const uint64_t taken_ns = state_get(in, "taken-ns", 0);
    const struct wire_text bytes = state_get_bytes(in, "bytes");
    const uint64_t meant_for = state_get(in, "for", CHUNK_FOR_ALL);
    const uint64_t tag_hash = state_get(in, "tag", 0);
    state_get_end(in);
    struct chunk *chunk =
        meant_for < CHUNK_FORS && state_make_room(in, number) ? make_chunk(room, ends, taken_ns, bytes) : NULL;
    if (chunk == NULL) {
        state_fail(in);
        return NULL;
    }
    chunk_mark(chunk, (enum chunk_for)meant_for, tag_hash);
    state_share(in, chunk, release);
    return chunk;
}

struct chunk *state_get_chunk(struct state_in *in, const char *name, bool *missing)
{
    void *chunk = NULL;
    const enum state_reference found = state_get_reference(in, name, &chunk);
    *missing = found == STATE_MISSING;
    return found == STATE_FIRST ? state_read_chunk(in) : chunk;
}
