/* Reading: the reader's place in the file, so that an error can name it. */
#ifndef EVAPID_READING_H
#define EVAPID_READING_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct reading {
    const char *file;
    const char *text;  /* comments blanked */
    char *error;       /* buffer for an error */
    size_t error_room; /* bytes of it */
    char path[128];    /* the key of the current value: "listeners[0].max_clients" */
};

/* Write the error "FILE:LINE:COLUMN: KEY: what is wrong". Always false, for the caller to return. */
__attribute__((format(printf, 2, 3))) bool reading_fail(const struct reading *in, const char *format, ...);

/* Enter the value of this name. Returns the argument for reading_leave. */
size_t reading_enter(struct reading *in, const char *name);

/* Enter this element of the current array. Returns the same. */
size_t reading_enter_element(struct reading *in, size_t index);

void reading_leave(struct reading *in, size_t outer);

/* Is it an object, an array, a string? If not, write an error. */
bool reading_is_object(const struct reading *in, const json_t *value);
bool reading_is_array(const struct reading *in, const json_t *value);
bool reading_is_string(const struct reading *in, const json_t *value);

/* For an error: "an object", "a number with a fraction", ... */
const char *reading_type_name(const json_t *value);

#endif
