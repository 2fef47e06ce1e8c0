/* The process at the other end of a Unix socket: who it is, by the kernel's word, and whether it is still there.
 *
 * A socket does not end with the process that has connected by it: a child that it has forked, and that has not become
 * another program, holds it too. So who lives is asked of the kernel by a descriptor of the process itself (pidfd_open(2)),
 * which becomes readable when the process has ended. Where there is none (a Linux before 5.3; before 6.5 also for a process of
 * another pid namespace, which has no number here) only the socket's end says so. */
#ifndef EVAPID_LIFETIME_H
#define EVAPID_LIFETIME_H

#include <stdint.h>
#include <uv.h>

struct lifetime {
    int pidfd;       /* -1: its end is not watched */
    uv_poll_t *poll; /* NULL likewise */
};

enum lifetime_sight {
    LIFETIME_WATCHED, /* its end is going to be noticed */
    LIFETIME_UNSEEN,  /* it is not: it can't be seen, or not now */
    LIFETIME_ENDED    /* it has ended already */
};

/* The number of the process that has connected on fd; 0: it has none here. */
uint32_t lifetime_pid(int fd);

/* Have on_end called, with owner as the handle's data, when the process that has connected on fd has ended. Once more is no
 * harm. */
enum lifetime_sight lifetime_watch(struct lifetime *lifetime, uv_loop_t *loop, int fd, uv_poll_cb on_end, void *owner);

/* Watch it no more. */
void lifetime_forget(struct lifetime *lifetime);

#endif
