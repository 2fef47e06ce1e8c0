/* Chunks in a state. Many refer to a chunk: it is written where it is first referred to, and its number from then on. */
#ifndef EVAPID_CHUNK_STATE_H
#define EVAPID_CHUNK_STATE_H

#include <stdbool.h>

struct chunk;
struct state_in;
struct state_out;

/* A chunk: the whole of it, or its number when it has been written before. NULL is one, too. A field that an earlier
 * version doesn't know may not be the first to refer to a chunk. */
void state_put_chunk(struct state_out *out, const char *name, struct chunk *chunk);

/* A chunk, without a reference of the caller's: the state has one until it is closed. *missing: there is no field of that
 * name, and so no chunk. */
struct chunk *state_take_chunk(struct state_in *in, const char *name, bool *missing);

#endif
