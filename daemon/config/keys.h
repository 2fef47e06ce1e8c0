/* Keys: one table with a row for each key of the file. What a value may be, its default and where it is kept all come
 * from the row; the documents are checked against it (tests/system/docs/test_docs.py). */
#ifndef EVAPID_KEYS_H
#define EVAPID_KEYS_H

#include <stddef.h>

#include "config/values.h"

/* What a changed value does when the configuration is read again. */
enum key_reload {
    RELOAD_NOTHING,         /* it is an object: each of its keys says what happens */
    RELOAD_AT_ONCE,         /* it holds from now on */
    RELOAD_NEW_CLIENTS,     /* it holds for clients that connect from now on */
    RELOAD_ALL_CLIENTS,     /* also for clients that are connected */
    RELOAD_NEW_CONNECTIONS, /* for connections to a Unix socket that are made from now on */
    RELOAD_OPENS,           /* something is opened or closed */
    RELOAD_MOVES            /* something is opened at another place, and closed where it was */
};

/* As docs/configuration.md says it. */
static inline const char *key_reload_name(enum key_reload reload)
{
    static const char *const names[] = {
        "", "immediately", "new clients", "all clients", "new connections", "opened or closed", "moves",
    };
    return names[reload];
}

/* A key of the file. A listener's key that overrides one of the whole file has its rule, its default and its reload.
 *
 * A default is written as in the file. A key without one is not set unless the file sets it; if it is an object, it turns
 * something on, and its keys get their defaults when it is there. */
struct key {
    const char *name; /* its path: "limits.linger_ms"; "listeners[].address" is one of each listener */
    struct value_rule rule;
    const char *by_default; /* NULL: none */
    const char *overrides;  /* NULL: none */
    size_t offset;          /* where it is kept: a listener's in struct config_listener, another in struct config */
    enum key_reload reload;
};

/* In the order of docs/configuration.md; the last one has no name. */
extern const struct key keys[];

/* The key called name in an object: "listeners[]", "limits"; "" is the file's own. NULL: there is none. */
const struct key *key_find(const char *object, const char *name);

/* Does the key lie in that object itself? */
bool key_is_in(const struct key *key, const char *object);

/* The row that has the key's rule, and says what a reload does: its own, or that of the key which it overrides. */
const struct key *key_model(const struct key *key);

#endif
