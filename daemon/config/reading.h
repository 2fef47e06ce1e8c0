/* Reading: where in the file the reader is, so that an error can name the place. */
#ifndef EVAPID_READING_H
#define EVAPID_READING_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct reading {
    const char *file;
    const char *text;  /* comments blanked */
    char *error;       /* where an error is to be written */
    size_t error_room; /* bytes of it */
    char path[128];    /* the key of the value at hand: "listeners[0].max_clients" */
};

/* Write the error "FILE:LINE:COLUMN: KEY: what is wrong". Always false, for the caller to return. */
__attribute__((format(printf, 2, 3))) bool reading_fail(const struct reading *in, const char *format, ...);

/* Go into the value called name; returns what reading_leave takes to come back. */
size_t reading_enter(struct reading *in, const char *name);

/* Go into that element of the array at hand. */
size_t reading_enter_element(struct reading *in, size_t index);

void reading_leave(struct reading *in, size_t outer);

/* Is it an object, an array, a string? If not, that is an error. */
bool reading_is_object(const struct reading *in, const json_t *value);
bool reading_is_array(const struct reading *in, const json_t *value);
bool reading_is_string(const struct reading *in, const json_t *value);

/* For an error: "an object", "a number with a fraction", ... */
const char *reading_type_name(const json_t *value);

#endif
