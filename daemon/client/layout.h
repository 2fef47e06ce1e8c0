/* The layout of the ledger's memory, as the ledger describes itself, so that an evapid of another version can read it.
 *
 * The ledger is written in place while events pass, so its fields are where the compiler put them. The memory begins
 * with a description: of the file, and of each field's name, place and size. A successor with the same description
 * continues in that memory. Any other successor copies the fields that both know, by name, into a ledger of its own. It
 * skips fields that it does not know, and missing ones are 0. */
#ifndef EVAPID_LAYOUT_H
#define EVAPID_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_NAME 48U /* bytes, with a NUL */

enum layout_part {
    LAYOUT_HEADER, /* once in the file */
    LAYOUT_SLOT,   /* in every slot */
};

enum layout_kind {
    LAYOUT_NUMBER, /* in the machine's byte order, of 1, 2, 4 or 8 bytes */
    LAYOUT_BYTES,  /* any; copied as far as there is room */
    LAYOUT_OWN,    /* of this one file: never copied */
};

/* Numbers are in the machine's byte order; the file never leaves the machine. */
struct layout_field {
    char name[LAYOUT_NAME]; /* padded with NULs */
    uint16_t part, kind;    /* an enum layout_part, an enum layout_kind */
    uint32_t offset, size;  /* in the part */
};

_Static_assert(sizeof(struct layout_field) == LAYOUT_NAME + 12, "it has no padding, for it is compared as bytes");

/* The beginning of the file, in every version. */
struct layout_file {
    uint64_t magic;
    uint32_t version, reader; /* of the evapid that writes the file (state.h) */
    uint32_t header_bytes;    /* where the first slots begin */
    uint32_t fields_at, field_count, field_bytes;
    uint32_t slot_bytes, segment_slots; /* slots are in segments: bytes of one slot, slots of a segment */
    uint64_t segment_bytes;
};

/* A description, in any memory. */
struct layout {
    struct layout_file file;
    const struct layout_field *fields;
};

/* Read the description of the file in memory[0..size), whose first bytes are mapped. False: it contradicts itself. */
bool layout_read(struct layout *layout, const void *memory, uint64_t size);

/* Are the fields in the same places in both? */
bool layout_is_same(const struct layout *a, const struct layout *b);

/* The field of this name, or NULL. */
const struct layout_field *layout_find(const struct layout *layout, enum layout_part part, const char *name);

/* Copy a field of one part to its place in another. False: the number does not fit there. */
bool layout_copy(const struct layout_field *to, void *part, const struct layout_field *from, const void *from_part);

#endif
