/* Where in a JSON text a value stands, so that an error can point at it. jansson keeps no positions of values. */
#ifndef EVAPID_PLACE_H
#define EVAPID_PLACE_H

#include <stddef.h>

struct place {
    unsigned line, column; /* both from 1; a column is a byte */
};

/* Blank out comments (# and // to the end of the line, block comments) in text[0..length), byte for byte, so that every
 * position stays. Strings are left alone. Returns the offset of a block comment that has no end, length when there is
 * none. */
size_t place_blank_comments(char *text, size_t length);

/* The place of text[offset]. */
struct place place_of(const char *text, size_t offset);

/* The place of a value: path names it as "listeners[0].max_clients", "" is the whole text. text is valid JSON whose
 * comments are blanked. An unknown path gives the place of the last part that is there. */
struct place place_find(const char *text, const char *path);

#endif
