/* Watching descriptors without the risk that libuv ends the process. It does in two cases (uv__io_start in its
 * src/unix/core.c, uv__io_poll in src/unix/linux-core.c or linux.c, all versions of 1.x):
 *
 * - its table of all that it watches, by their numbers, has to grow and there is no memory for that;
 * - the kernel does not take another watch: ENOSPC, the limit fs.epoll.max_user_watches (epoll(7)), or ENOMEM. libuv asks
 *   for it not when a handle is started but when it next waits. So we ask first; libuv finds the descriptor there then,
 *   and changes what it is watched for. */
#ifndef EVAPID_WATCH_H
#define EVAPID_WATCH_H

#include <errno.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <uv.h>

/* Have libuv take the memory for its table from what watch_has_room has laid by. To be called once, before libuv is used. */
void watch_prepare(void);

/* Could the loop begin to watch fd now? To be asked before uv_poll_init or uv_pipe_open. Lays by the memory that libuv's
 * table then needs: that a block of some size was free a moment ago does not mean that realloc finds it. */
bool watch_has_room(const uv_loop_t *loop, int fd);

/* A handle by which the loop can watch fd, not started; its data is owner. NULL when there is no memory, or the loop does not
 * take it. It is memory of its own, because libuv may still be closing the owner's last handle: so a listener can go and come back
 * within one turn of the loop. */
uv_poll_t *watch_open(uv_loop_t *loop, int fd, void *owner);

/* Watch no more, and free the handle when libuv lets go of it: owner may be gone by then. NULL is none. */
void watch_close(uv_poll_t *poll);

/* See to it that libuv may watch fd when it next waits. Returns 0, or an errno value when the kernel does not take it. */
static inline int watch_reserve(uv_loop_t *loop, int fd)
{
    struct epoll_event nothing = { .data.fd = fd };
    return epoll_ctl(uv_backend_fd(loop), EPOLL_CTL_ADD, fd, &nothing) == 0 || errno == EEXIST ? 0 : errno;
}

/* As uv_poll_start with events that are not 0. Returns 0, or an errno value when the kernel does not take it: poll has been
 * stopped then. */
static inline int watch_start(uv_poll_t *poll, int events, uv_poll_cb callback)
{
    uv_os_fd_t fd = -1;
    uv_poll_start(poll, events, callback); /* takes the descriptor out of the kernel's set: reserve behind it */
    uv_fileno((const uv_handle_t *)poll, &fd);
    const int error = watch_reserve(poll->loop, fd);
    if (error != 0)
        uv_poll_stop(poll);
    return error;
}

#endif
