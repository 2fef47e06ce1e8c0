/* A state: what one evapid leaves to its successor beside descriptors and the ledger, written down as one stream of numbers
 * and bytes, in a memfd. Who owns a struct writes and reads its part; handover.c says in which order.
 *
 * Integers are little-endian. Chunks, which many refer to, are written where they are first referred to, and numbered. The
 * reader checks all that it reads: what it can't understand makes the whole state one that can't be taken over. */
#ifndef EVAPID_STATE_H
#define EVAPID_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "chunk.h"
#include "evapid/wire.h"

#define STATE_MAGIC 0x7473646970617665U /* "evapidst" in memory */
#define STATE_VERSION 3U

/* A state that is being written. An error shows at the end. */
struct state_out {
    FILE *file;
    uint32_t serial; /* of this state among those that this process has written */
    uint32_t chunks; /* written up to now */
};

/* Begin in a new memfd; false when there can be none. */
bool state_begin(struct state_out *out);

/* A number of that many bytes; bytes with their length in front. */
void state_put(struct state_out *out, uint64_t value, unsigned bytes);
void state_put_bytes(struct state_out *out, const void *bytes, size_t length);

/* A chunk: the whole of it, or its number when it has been written before. NULL is one, too. */
void state_put_chunk(struct state_out *out, struct chunk *chunk);

/* The memfd, which is the caller's, or -1: it could not be written whole. */
int state_end(struct state_out *out);

/* A state that is being read. Once something is wrong, at.failed stays true, and nothing more is read. */
struct state_in {
    struct wire_cursor at;
    void *memory; /* of the mapping */
    size_t size;
    struct chunk **chunks; /* by their numbers; a reference to each is ours */
    uint32_t count, room;
};

/* Map the memfd, which is closed in any case. NULL, or why it is no state that we can read. */
const char *state_open(struct state_in *in, int memfd);

uint64_t state_take(struct state_in *in, unsigned bytes);
struct wire_text state_take_bytes(struct state_in *in);

/* A chunk, without a reference of the caller's. */
struct chunk *state_take_chunk(struct state_in *in);

/* Say that what was read makes no sense. */
static inline bool state_fail(struct state_in *in)
{
    in->at.failed = true;
    return false;
}

/* Unmap, and let go of the chunks; once more does no harm. Returns whether all was read, up to the end, and good. */
bool state_close(struct state_in *in);

#endif
