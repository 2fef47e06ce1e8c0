/* An exposition: figures in the text format of Prometheus, version 0.0.4.
 *
 *     # HELP evapid_clients Clients that are connected now.
 *     # TYPE evapid_clients gauge
 *     evapid_clients{listener="127.0.0.1:8448",state="open"} 3
 *
 * Families are begun one behind the other, each with all of its values. Without memory it fails as a whole: a figure
 * is never left out. */
#ifndef EVAPID_EXPOSITION_H
#define EVAPID_EXPOSITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "evapid/histogram.h"

struct exposition {
    char *bytes;
    size_t length, room;
    bool failed;
    const char *family; /* whose values come now */
};

struct label {
    const char *name;  /* NULL ends a list */
    const char *value; /* any bytes: what is not printable ASCII is shown as \xNN */
};

/* Begin a family. name, kind and help are constant; kind: "counter", "gauge" or "histogram". */
void exposition_family(struct exposition *out, const char *name, const char *kind, const char *help);

/* A value of it. labels: NULL for none. */
void exposition_value(struct exposition *out, const struct label *labels, uint64_t value);
void exposition_decimal(struct exposition *out, const struct label *labels, double value);

/* A family of one value. */
void exposition_counter(struct exposition *out, const char *name, const char *help, uint64_t value);
void exposition_gauge(struct exposition *out, const char *name, const char *help, uint64_t value);

/* A family of one histogram, in seconds. */
void exposition_histogram(struct exposition *out, const char *name, const char *help,
                          const struct histogram *histogram);

/* The text, which is the caller's to free, and its bytes; NULL: there was no memory. */
char *exposition_finish(struct exposition *out, size_t *length);

#endif
