/* Chunks in a state. A chunk can have several references: the first writes it, the others write its number. */
#ifndef EVAPID_CHUNK_STATE_H
#define EVAPID_CHUNK_STATE_H

#include <stdbool.h>

struct chunk;
struct state_in;
struct state_out;

/* Write a chunk: all of it, or its number if it was written before. NULL is allowed. The first reference to a chunk
 * must not be a field that an earlier version does not know. */
void state_put_chunk(struct state_out *out, const char *name, struct chunk *chunk);

/* Read a chunk. The caller gets no reference: the state holds one until it is closed. *missing: there is no field of
 * this name, and so no chunk. */
struct chunk *state_get_chunk(struct state_in *in, const char *name, bool *missing);

#endif
