/* A state: what one evapid leaves to its successor beside descriptors and the ledger, written down in a memfd. Who owns a struct
 * writes and reads its part; handover.c says in which order. docs/handover.md has the format.
 *
 * It describes itself, so that evapids of different versions can follow each other: every field has a name, and says how long it
 * is. A field is a number, bytes, or a record of fields. A reader asks for the fields that it knows, in the order in which
 * they are written: what it passes over is unknown to it, and noted; what is missing is what the reader says in its place. So a
 * new field needs no more than a value for a state that lacks it. A field keeps its name and meaning, and its place before or
 * after others; one whose meaning changes gets a new name.
 *
 * What many refer to, as chunks (events/chunk_state.h), is a record where it is first referred to, and is numbered from 1;
 * later its number stands for it, and 0 for none. The reader checks all that it reads: what makes no sense to it makes the
 * whole state one that can't be taken over. */
#ifndef EVAPID_STATE_H
#define EVAPID_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "evapid/wire.h"

#define STATE_MAGIC 0x7473646970617665U /* "evapidst" in memory */

/* Versions of state and ledger together. Raise the first with every field that comes or goes, and lay a fixture of it beside the
 * others (tests/system/handover/fixtures). Raise the second to the first when an earlier evapid would do harm with what it can't
 * know: it says so, and does not take over. */
#define STATE_VERSION 3U
#define STATE_READER 3U       /* the least version that can go on with what this one writes */
#define STATE_OLDEST 3U       /* the earliest one that this one can go on with */
#define STATE_NAME_MAX 31U    /* bytes of a field's name */
#define STATE_DEPTH 8U        /* records within records */
#define STATE_UNKNOWN_MAX 16U /* names of unknown fields that are noted */

/* Why that version, which says who can read it, can't be gone on with; NULL: it can. */
const char *state_judge(uint32_t version, uint32_t reader);

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* A state that is being written. An error shows at the end. */
struct state_out {
    FILE *file;
    uint32_t serial; /* of this state among those that this process has written */
    uint32_t shared; /* things that many refer to: so many have a number up to now */
};

/* Begin in a new memfd; false when there can be none. */
bool state_begin(struct state_out *out);

/* A number; bytes; text up to its NUL. */
void state_put(struct state_out *out, const char *name, uint64_t value);
void state_put_bytes(struct state_out *out, const char *name, const void *bytes, size_t length);
void state_put_text(struct state_out *out, const char *name, const char *text);

/* Likewise bytes that come one number after the other: how many there will be in all, and then each number of four bytes. */
void state_put_bytes_begin(struct state_out *out, const char *name, uint64_t length);
void state_put_bytes_u32(struct state_out *out, uint32_t value);

/* What is put between these two is in a record of that name. */
void state_put_record(struct state_out *out, const char *name);
void state_put_end(struct state_out *out);

/* The number of a thing that many refer to, which is about to be written. */
uint32_t state_number(struct state_out *out);

/* The memfd, which is the caller's, or -1: it could not be written whole. */
int state_end(struct state_out *out);

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* A field that nobody has asked for: its name and those of the records that it lies in, and what it takes in all. */
struct state_unknown {
    char name[STATE_DEPTH * (STATE_NAME_MAX + 1)];
    size_t bytes;
};

/* A thing that many refer to. It is ours until the state is closed. */
struct state_shared {
    void *thing;
    void (*release)(void *thing);
};

/* A state that is being read. Once something is wrong, at.failed stays true, and nothing more is read. */
struct state_in {
    struct wire_cursor at;
    void *memory; /* of the mapping */
    size_t size;
    uint32_t version;

    const char *path[STATE_DEPTH]; /* names of the records that we are in */
    unsigned depth;
    unsigned absent; /* of these, the innermost that are not there: all is missing in them */

    struct state_shared *shared; /* by their numbers */
    uint32_t count, room;

    struct state_unknown unknown[STATE_UNKNOWN_MAX];
    unsigned unknown_count;
};

/* Map the memfd, which is closed in any case. NULL, or why it is no state that we can read. */
const char *state_open(struct state_in *in, int memfd);

/* A number, or what stands for it when it is missing; bytes, none when they are missing. */
uint64_t state_take(struct state_in *in, const char *name, uint64_t missing);
struct wire_text state_take_bytes(struct state_in *in, const char *name);

/* Go into the record of that name, and out of it again. One that is missing is as one that has no fields. */
void state_take_record(struct state_in *in, const char *name);
void state_take_end(struct state_in *in);

/* Go into the next record of that name, if there is one more: state_take_end leaves it. */
bool state_take_next(struct state_in *in, const char *name);

enum state_reference {
    STATE_MISSING, /* there is no field of that name */
    STATE_FIRST,   /* the thing itself: we are in its record now, and its reader says state_make_room and state_share */
    STATE_AGAIN    /* one that has been read before */
};

/* Look for a thing that many refer to. *thing is NULL unless it has been read before. */
enum state_reference state_take_reference(struct state_in *in, const char *name, void **thing);

/* Is a thing of that number the next one, and is there room for it? And: that is it; it is released with the state. */
bool state_make_room(struct state_in *in, uint64_t number);
void state_share(struct state_in *in, void *thing, void (*release)(void *thing));

/* Say that what was read makes no sense. */
static inline bool state_fail(struct state_in *in)
{
    in->at.failed = true;
    return false;
}

/* Leave the outermost record, and look whether the state is whole. What was not asked for is unknown. */
bool state_finish(struct state_in *in);

/* Unmap, and let go of the chunks; once more does no harm. Returns whether nothing was wrong. */
bool state_close(struct state_in *in);

#endif
