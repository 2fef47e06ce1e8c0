/* Keys: one table with a row for each key of the file. The row has the rule for the value, its default and its place in
 * memory. The documents are checked against it (tests/system/docs/test_docs.py). */
#ifndef EVAPID_KEYS_H
#define EVAPID_KEYS_H

#include <stddef.h>

#include "config/values.h"

/* What a changed value does after a reload. */
enum key_reload {
    RELOAD_NOTHING,         /* an object: each of its keys has its own entry */
    RELOAD_AT_ONCE,         /* it applies from now on */
    RELOAD_NEW_CLIENTS,     /* it applies to clients that connect from now on */
    RELOAD_ALL_CLIENTS,     /* it also applies to connected clients */
    RELOAD_NEW_CONNECTIONS, /* it applies to connections to a Unix socket that are made from now on */
    RELOAD_OPENS,           /* something is opened or closed */
    RELOAD_MOVES            /* something is opened at another place, and closed at the old one */
};

/* As written in docs/configuration.md. */
static inline const char *key_reload_name(enum key_reload reload)
{
    static const char *const names[] = {
        "", "immediately", "new clients", "all clients", "new connections", "opened or closed", "moves",
    };
    return names[reload];
}

/* A key of the file. A listener's key that overrides a key of the whole file shares its rule, default and reload.
 *
 * A default is written as in the file. A key without a default is unset unless the file sets it. If it is an object, it
 * turns something on, and its keys get their defaults if it is there. */
struct key {
    const char *name; /* its path: "limits.linger_ms"; "listeners[].address" is in each listener */
    struct value_rule rule;
    const char *by_default; /* NULL: none */
    const char *overrides;  /* NULL: none */
    size_t offset;          /* in struct config_listener for a listener's key, else in struct config */
    enum key_reload reload;
};

/* In the order of docs/configuration.md. The last row has no name. */
extern const struct key keys[];

/* The key of this name in an object: "listeners[]", "limits"; "" is the whole file. NULL: there is none. */
const struct key *key_find(const char *object, const char *name);

/* The last part of its path: "linger_ms". */
const char *key_own_name(const struct key *key);

/* Is the key directly in this object? */
bool key_is_in(const struct key *key, const char *object);

/* The row with the key's rule and reload: its own, or that of the key that it overrides. */
const struct key *key_model(const struct key *key);

#endif
