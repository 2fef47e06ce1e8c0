/* The path of the current value, and errors with its place. */
#include "config/reading.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/place.h"

bool reading_fail(const struct reading *in, const char *format, ...)
{
    const struct place place = place_find(in->text, in->path);
    const int n = snprintf(in->error, in->error_room, "%s:%u:%u: %s%s", in->file, place.line, place.column, in->path,
                           in->path[0] != '\0' ? ": " : "");
    va_list args;
    va_start(args, format);
    if (n > 0 && (size_t)n < in->error_room)
        vsnprintf(in->error + n, in->error_room - (size_t)n, format, args);
    va_end(args);
    return false;
}

size_t reading_enter(struct reading *in, const char *name)
{
    const size_t outer = strlen(in->path);
    snprintf(in->path + outer, sizeof(in->path) - outer, "%s%s", outer > 0 ? "." : "", name);
    return outer;
}

size_t reading_enter_element(struct reading *in, size_t index)
{
    const size_t outer = strlen(in->path);
    snprintf(in->path + outer, sizeof(in->path) - outer, "[%zu]", index);
    return outer;
}

void reading_leave(struct reading *in, size_t outer)
{
    in->path[outer] = '\0';
}

const char *reading_type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    case JSON_NULL: break;
    }
    return "null";
}

bool reading_is_object(const struct reading *in, const json_t *value)
{
    return json_is_object(value) || reading_fail(in, "expected an object, found %s", reading_type_name(value));
}

bool reading_is_array(const struct reading *in, const json_t *value)
{
    return json_is_array(value) || reading_fail(in, "expected an array, found %s", reading_type_name(value));
}

bool reading_is_string(const struct reading *in, const json_t *value)
{
    return json_is_string(value) || reading_fail(in, "expected a string, found %s", reading_type_name(value));
}
