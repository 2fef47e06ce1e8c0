/* The process at the other end of a Unix socket: which one it is, according to the kernel, and whether it still lives.
 *
 * A socket may outlive the process that connected it: a forked child that has not executed another program holds it
 * too. The kernel is therefore asked by a descriptor of the process itself (pidfd_open(2)), which becomes readable when
 * the process has ended. Sometimes there is none: on Linux before 5.3, and before 6.5 also for a process of another pid
 * namespace, which has no number here. Then only the end of the socket shows the end of the process. */
#ifndef EVAPID_LIFETIME_H
#define EVAPID_LIFETIME_H

#include <stdint.h>
#include <uv.h>

struct lifetime {
    int pidfd;       /* -1: its end is not watched */
    uv_poll_t *poll; /* NULL: its end is not watched */
};

enum lifetime_sight {
    LIFETIME_WATCHED, /* its end will be noticed */
    LIFETIME_UNSEEN,  /* its end will not be noticed: it cannot be watched, or not now */
    LIFETIME_ENDED    /* it has ended already */
};

/* The pid of the process that connected on fd; 0: it has none in this namespace. */
uint32_t lifetime_pid(int fd);

/* Call on_end, with owner as the handle's data, when the process that connected on fd has ended. A second call does no
 * harm. */
enum lifetime_sight lifetime_watch(struct lifetime *lifetime, uv_loop_t *loop, int fd, uv_poll_cb on_end, void *owner);

/* Stop watching it. */
void lifetime_forget(struct lifetime *lifetime);

#endif
