/* Open descriptors by name, on their way from one evapid to the next.
 *
 * The leaving evapid lists its descriptors. The next one takes those that it knows, and closes the rest. A name has the
 * form that the service manager requires (FDNAME, sd_pid_notify_with_fds(3)): printable ASCII without a colon. */
#ifndef EVAPID_HOLDING_H
#define EVAPID_HOLDING_H

#include <stdbool.h>
#include <uthash.h>

#define HOLDING_NAME_MAX 31 /* bytes of a name */

struct descriptor {
    int fd;
    char name[HOLDING_NAME_MAX + 1];
    UT_hash_handle hh;
};

struct descriptors {
    struct descriptor *all; /* uthash by name, in the order of their addition */
};

/* Add the descriptor under this name. False if memory is short, or the name is in use or too long. */
__attribute__((format(printf, 3, 4))) bool descriptors_add(struct descriptors *descriptors, int fd, const char *name,
                                                           ...);

/* Remove the descriptor of this name and give it to the caller. -1: there is none. */
__attribute__((format(printf, 2, 3))) int descriptors_remove(struct descriptors *descriptors, const char *name, ...);

/* Remove all. close_them: they are ours and nobody has taken them, so close them. */
void descriptors_clear(struct descriptors *descriptors, bool close_them);

#endif
