/* Where a value is in a JSON text, so that an error can point at it. jansson does not keep positions of values. */
#ifndef EVAPID_PLACE_H
#define EVAPID_PLACE_H

#include <stddef.h>

struct place {
    unsigned line, column; /* both from 1; a column counts bytes */
};

/* Blank comments (# and // to the end of the line, block comments) in text[0..length), byte for byte, so that positions
 * stay the same. Strings are left alone. Returns the offset of a block comment without an end, or length. */
size_t place_blank_comments(char *text, size_t length);

/* The place of text[offset]. */
struct place place_of(const char *text, size_t offset);

/* The place of a value, whose path is like "listeners[0].max_clients"; "" is the whole text. text is valid JSON with
 * blanked comments. If the path is unknown, returns the place of its last part that exists. */
struct place place_find(const char *text, const char *path);

#endif
