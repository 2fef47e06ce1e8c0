/* Holdings: open descriptors by name, on their way from one evapid to the next.
 *
 * The one that leaves lists what it has; the one that comes takes what it knows, and closes the rest. Names are as the
 * service manager wants them (FDNAME, sd_pid_notify_with_fds(3)): printable ASCII without a colon. */
#ifndef EVAPID_HOLDING_H
#define EVAPID_HOLDING_H

#include <stdbool.h>
#include <uthash.h>

#define HOLDING_NAME_MAX 31 /* bytes of a name */

struct holding {
    int fd;
    char name[HOLDING_NAME_MAX + 1];
    UT_hash_handle hh;
};

struct holdings {
    struct holding *all; /* uthash by name, in the order in which they were added */
};

/* Note the descriptor under that name. False when there is no memory, or the name is taken or too long. */
__attribute__((format(printf, 3, 4))) bool holdings_add(struct holdings *holdings, int fd, const char *name, ...);

/* Take the descriptor of that name out: it is the caller's. -1: there is none. */
__attribute__((format(printf, 2, 3))) int holdings_take(struct holdings *holdings, const char *name, ...);

/* Forget all. close_them: they are ours, and nobody has taken them. */
void holdings_clear(struct holdings *holdings, bool close_them);

#endif
