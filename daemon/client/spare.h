/* Spares: listening sockets of the evapid before us that no listener uses yet.
 *
 * In the descriptors and the store, a TCP socket's name has a number. That of a Unix socket has device and inode of its
 * file, so that the next evapid knows, even after a kill, whether a file at its path still is the socket's. */
#ifndef EVAPID_SPARE_H
#define EVAPID_SPARE_H

#include <stdint.h>
#include <sys/socket.h>

#include "net/door.h"

struct descriptors;

#define SPARE_TCP "listener-%u"
#define SPARE_UNIX "unix-%llx-%llx"
#define SPARE_UNIX_OF(door) (unsigned long long)(door)->device, (unsigned long long)(door)->inode

struct spare {
    struct sockaddr_storage address;
    int fd;
    uint32_t number;            /* TCP */
    struct inherited_door door; /* Unix */
    struct spare *next;
};

/* Take the listening sockets out of the descriptors. Returns the highest number of one. */
uint32_t spares_inherit(struct spare **all, struct descriptors *descriptors);

/* Take the spare of this address out of the list; NULL: there is none. The caller frees it. */
struct spare *spare_take(struct spare **all, const struct sockaddr_storage *address);

/* Close it, and forget it in the store. A Unix socket's file is removed. */
void spare_drop(struct spare **all, struct spare *spare);

#endif
