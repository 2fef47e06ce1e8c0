/* Values: the kinds of value that a key can have. A kind's reader checks a value by the key's rule and stores it. */
#ifndef EVAPID_VALUES_H
#define EVAPID_VALUES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/reading.h"

struct value_rule;

/* Store the value at `to` if it follows the rule. False: it does not, and the error is written. */
typedef bool value_reader(struct reading *in, const json_t *value, const struct value_rule *rule, void *to);

struct value_kind {
    const char *name;
    const char *type;   /* in JSON, as the documents name it: "string or integer" */
    value_reader *read; /* NULL: the value contains keys, and config.c reads them */
};

/* The rule for one key's value. */
struct value_rule {
    const struct value_kind *kind;
    uint64_t least, most; /* number, mode, bytes of a path, elements of a list; most: also the last word's number */
    const char *(*word)(unsigned); /* the word for a number, from 0 */
    const char *unit;              /* of a number, if the key's name does not tell it; else NULL */
    size_t width;                  /* bytes where it is stored */
};

extern const struct value_kind value_object;   /* an object of keys */
extern const struct value_kind value_objects;  /* a list of such objects */
extern const struct value_kind value_number;   /* stored in 4 or 8 bytes */
extern const struct value_kind value_boolean;  /* stored in a bool */
extern const struct value_kind value_word;     /* one of several; stored in an enum */
extern const struct value_kind value_path;     /* stored in a char[] of most + 1 bytes */
extern const struct value_kind value_address;  /* stored in a struct sockaddr_storage */
extern const struct value_kind value_socket;   /* the same; also a Unix socket */
extern const struct value_kind value_networks; /* stored in a struct network_list, replacing its contents */
extern const struct value_kind value_mode;     /* of a file; stored in a mode_t */
extern const struct value_kind value_group;    /* stored in a gid_t */
extern const struct value_kind value_users;    /* stored in a struct door_access, which they restrict */

#endif
