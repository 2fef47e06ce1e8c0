/* Values: the kinds of value that a key can have. A kind has a reader, which checks a value by the key's rule and keeps
 * it. */
#ifndef EVAPID_VALUES_H
#define EVAPID_VALUES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/reading.h"

struct value_rule;

/* Keep the value at to, if it follows the rule. False: it doesn't, and the error is written. */
typedef bool value_reader(struct reading *in, const json_t *value, const struct value_rule *rule, void *to);

struct value_kind {
    const char *name;
    const char *type;   /* of JSON, as the documents say it: "string or integer" */
    value_reader *read; /* NULL: the value holds keys of its own, and config.c reads them */
};

/* What one key's value may be. */
struct value_rule {
    const struct value_kind *kind;
    uint64_t least, most; /* of a number and a mode; bytes of a path, elements of a list; the most also the last word */
    const char *(*word)(unsigned); /* the name of a word by its number, from 0 on */
    const char *unit;              /* of a number, where the key's name doesn't say it; else NULL */
    size_t width;                  /* bytes of what it is kept in */
};

extern const struct value_kind value_object;   /* of keys */
extern const struct value_kind value_objects;  /* a list of such objects */
extern const struct value_kind value_number;   /* kept in 4 or 8 bytes */
extern const struct value_kind value_boolean;  /* kept in a bool */
extern const struct value_kind value_word;     /* one of some; kept in an enum */
extern const struct value_kind value_path;     /* kept in a char[] of most + 1 bytes */
extern const struct value_kind value_address;  /* kept in a struct sockaddr_storage */
extern const struct value_kind value_networks; /* kept in a struct network_list, in place of those that were there */
extern const struct value_kind value_mode;     /* of a file; kept in a mode_t */
extern const struct value_kind value_group;    /* kept in a gid_t */
extern const struct value_kind value_users;    /* kept in a struct door_access, which they restrict */

#endif
