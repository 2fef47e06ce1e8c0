/* An exposition: figures in the text format of Prometheus, version 0.0.4.
 *
 *     # HELP evapid_clients Clients that are connected now.
 *     # TYPE evapid_clients gauge
 *     evapid_clients{listener="127.0.0.1:8448",state="open"} 3
 *
 * Families follow each other, each with all of its values. If memory is short, the whole exposition fails: a figure is
 * never left out. */
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
    const char *family; /* the family of the next values */
};

struct label {
    const char *name;  /* NULL ends a list */
    const char *value; /* any bytes: those that are not printable ASCII are shown as \xNN */
};

/* Begin a family. name, kind and help are constant. kind: "counter", "gauge" or "histogram". */
void exposition_family(struct exposition *out, const char *name, const char *kind, const char *help);

/* Write one value of the family. labels: NULL for none. */
void exposition_value(struct exposition *out, const struct label *labels, uint64_t value);
void exposition_decimal(struct exposition *out, const struct label *labels, double value);

/* Write a family with one value. */
void exposition_counter(struct exposition *out, const char *name, const char *help, uint64_t value);
void exposition_gauge(struct exposition *out, const char *name, const char *help, uint64_t value);

/* Write a family with one histogram, in seconds. */
void exposition_histogram(struct exposition *out, const char *name, const char *help,
                          const struct histogram *histogram);

/* The text, which the caller frees, and its bytes. NULL: memory was short. */
char *exposition_finish(struct exposition *out, size_t *length);

#endif
