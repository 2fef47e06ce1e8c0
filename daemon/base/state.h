/* A state: what one evapid leaves to its successor besides descriptors and the ledger, written into a memfd. The owner
 * of a struct writes and reads its part; handover.c defines the order. docs/handover.md describes the format.
 *
 * A state describes itself, so that evapids of different versions can follow each other: every field has a name and a
 * length. A field is a number, bytes, or a record of fields. A reader asks for the fields that it knows, in the order
 * in which they are written. Fields that it skips are unknown to it, and are noted. For a missing field the reader
 * supplies a value. A new field therefore only needs a value for states that lack it. A field keeps its name, its
 * meaning and its place in the order. If its meaning changes, it gets a new name.
 *
 * A thing with several references, such as a chunk (events/chunk_state.h), is a record at its first reference, and is
 * numbered from 1. Later references are its number, or 0 for none. The reader checks everything that it reads. A state
 * with anything invalid is refused as a whole. */
#ifndef EVAPID_STATE_H
#define EVAPID_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "evapid/wire.h"

#define STATE_MAGIC 0x7473646970617665U /* "evapidst" in memory */

/* Versions of state and ledger together. Raise the first with every field that is added or removed, and add a fixture
 * of it to tests/system/handover/fixtures. Raise the second to the first if an earlier evapid could do harm with what it does
 * not know: it then says so and does not take over. */
#define STATE_VERSION 5U
#define STATE_READER 3U       /* the lowest version that can continue from our state */
#define STATE_OLDEST 3U       /* the earliest version from which we can continue */
#define STATE_NAME_MAX 31U    /* bytes of a field's name */
#define STATE_DEPTH 8U        /* depth of nested records */
#define STATE_UNKNOWN_MAX 16U /* unknown fields whose names are noted */

/* Why we cannot continue from a state of this version, which names the lowest version of its readers; NULL: we can. */
const char *state_judge(uint32_t version, uint32_t reader);

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* A state being written. An error shows at the end. */
struct state_out {
    FILE *file;
    uint32_t serial; /* this state's number among those that this process has written */
    uint32_t shared; /* how many things with several references have a number so far */
};

/* Begin in a new memfd. False if none can be made. */
bool state_begin(struct state_out *out);

/* Write a number, bytes, or text up to its NUL. */
void state_put(struct state_out *out, const char *name, uint64_t value);
void state_put_bytes(struct state_out *out, const char *name, const void *bytes, size_t length);
void state_put_text(struct state_out *out, const char *name, const char *text);

/* Write bytes that consist of numbers: first their total length, then each number, four bytes long. */
void state_put_bytes_begin(struct state_out *out, const char *name, uint64_t length);
void state_put_bytes_u32(struct state_out *out, uint32_t value);

/* All that is put between these two belongs to the record of this name. */
void state_put_record(struct state_out *out, const char *name);
void state_put_end(struct state_out *out);

/* The number of a thing with several references that is about to be written. */
uint32_t state_number(struct state_out *out);

/* The memfd, now the caller's; -1: it could not be written completely. */
int state_end(struct state_out *out);

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* A field that nobody has asked for: its name with those of its records, and its total bytes. */
struct state_unknown {
    char name[STATE_DEPTH * (STATE_NAME_MAX + 1)];
    size_t bytes;
};

/* A thing with several references. It is ours until the state is closed. */
struct state_shared {
    void *thing;
    void (*release)(void *thing);
};

/* A state being read. After an error at.failed stays true, and nothing more is read. */
struct state_in {
    struct wire_cursor at;
    void *memory; /* of the mapping */
    size_t size;
    uint32_t version;

    const char *path[STATE_DEPTH]; /* names of the records that we are in */
    unsigned depth;
    unsigned absent; /* how many of these, the innermost, are missing: every field in them is missing too */

    struct state_shared *shared; /* by their numbers */
    uint32_t count, room;

    struct state_unknown unknown[STATE_UNKNOWN_MAX];
    unsigned unknown_count;
};

/* Map the memfd and close it, also after an error. Returns NULL, or why we cannot read the state. */
const char *state_open(struct state_in *in, int memfd);

/* Read a number, or use `missing` if there is none; read bytes, empty if there are none. */
uint64_t state_get(struct state_in *in, const char *name, uint64_t missing);
struct wire_text state_get_bytes(struct state_in *in, const char *name);

/* Enter the record of this name, and leave it again. A missing record is like one without fields. */
void state_get_record(struct state_in *in, const char *name);
void state_get_end(struct state_in *in);

/* Enter the next record of this name, if there is another one. state_get_end leaves it. */
bool state_get_next(struct state_in *in, const char *name);

enum state_reference {
    STATE_MISSING, /* there is no field of this name */
    STATE_FIRST,   /* the thing itself: we are in its record, and its reader calls state_make_room and state_share */
    STATE_AGAIN    /* a thing that was read before */
};

/* Find a reference to a thing. *thing is NULL unless the thing was read before. */
enum state_reference state_get_reference(struct state_in *in, const char *name, void **thing);

/* state_make_room: is this number the next one, and is there room for it? state_share: it is this thing, which is
 * released with the state. */
bool state_make_room(struct state_in *in, uint64_t number);
void state_share(struct state_in *in, void *thing, void (*release)(void *thing));

/* Report that what was read is invalid. */
static inline bool state_fail(struct state_in *in)
{
    in->at.failed = true;
    return false;
}

/* Leave the outermost record, and check that the state is complete. Fields that nobody asked for are unknown. */
bool state_finish(struct state_in *in);

/* Unmap it, and release the things in it. A second call does no harm. Returns whether all was valid. */
bool state_close(struct state_in *in);

#endif
