/* Writes the text format of Prometheus. */
#include "views/exposition.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ROOM_FIRST 16384U /* bytes: most expositions fit */
#define PIECE_MAX 1024U   /* more than the longest piece written at once */

/* Make room for one more piece. */
static bool make_room(struct exposition *out)
{
    if (out->failed || out->room - out->length >= PIECE_MAX)
        return !out->failed;
    const size_t room = out->room == 0 ? ROOM_FIRST : out->room * 2;
    char *bytes = realloc(out->bytes, room);
    if (bytes == NULL) {
        out->failed = true;
        return false;
    }
    out->bytes = bytes;
    out->room = room;
    return true;
}

__attribute__((format(printf, 2, 3))) static void put(struct exposition *out, const char *format, ...)
{
    if (!make_room(out))
        return;
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(out->bytes + out->length, PIECE_MAX, format, args);
    va_end(args);
    out->failed = n < 0 || n >= (int)PIECE_MAX;
    out->length += out->failed ? 0 : (size_t)n;
}

void exposition_family(struct exposition *out, const char *name, const char *kind, const char *help)
{
    out->family = name;
    put(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

/* A label's value may come from another process, for example Kamailio's version. */
static void put_label_value(struct exposition *out, const char *value)
{
    for (; *value != '\0'; value++) {
        const unsigned char byte = (unsigned char)*value;
        if (byte == '"' || byte == '\\')
            put(out, "\\%c", byte);
        else if (byte < 0x20 || byte >= 0x7f)
            put(out, "\\\\x%02x", byte);
        else
            put(out, "%c", byte);
    }
}

static void put_labels(struct exposition *out, const struct label *labels)
{
    const char *before = "{";
    put(out, "%s", out->family);
    for (; labels != NULL && labels->name != NULL; labels++) {
        put(out, "%s%s=\"", before, labels->name);
        put_label_value(out, labels->value);
        put(out, "\"");
        before = ",";
    }
    put(out, *before == ',' ? "} " : " ");
}

void exposition_value(struct exposition *out, const struct label *labels, uint64_t value)
{
    put_labels(out, labels);
    put(out, "%llu\n", (unsigned long long)value);
}

void exposition_decimal(struct exposition *out, const struct label *labels, double value)
{
    put_labels(out, labels);
    put(out, "%.17g\n", value);
}

void exposition_counter(struct exposition *out, const char *name, const char *help, uint64_t value)
{
    exposition_family(out, name, "counter", help);
    exposition_value(out, NULL, value);
}

void exposition_gauge(struct exposition *out, const char *name, const char *help, uint64_t value)
{
    exposition_family(out, name, "gauge", help);
    exposition_value(out, NULL, value);
}

static double seconds_of(uint64_t ns)
{
    return (double)ns / 1e9;
}

void exposition_histogram(struct exposition *out, const char *name, const char *help, const struct histogram *histogram)
{
    uint64_t count = 0;
    exposition_family(out, name, "histogram", help);
    for (unsigned i = 0; i < HISTOGRAM_BOUNDS; i++) {
        count += histogram->counts[i];
        put(out, "%s_bucket{le=\"%g\"} %llu\n", name, seconds_of(histogram_bounds_ns[i]), (unsigned long long)count);
    }
    count += histogram->counts[HISTOGRAM_BOUNDS];
    put(out, "%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)count);
    put(out, "%s_sum %.17g\n", name, seconds_of(histogram->sum_ns));
    put(out, "%s_count %llu\n", name, (unsigned long long)count);
}

char *exposition_finish(struct exposition *out, size_t *length)
{
    char *bytes = out->bytes;
    *length = out->length;
    if (out->failed) {
        free(bytes);
        bytes = NULL;
    }
    *out = (struct exposition){ .failed = true };
    return bytes;
}
