/* Watching descriptors without the risk that libuv ends the process. It does so in two cases (uv__io_start in its
 * src/unix/core.c, uv__io_poll in src/unix/linux-core.c or linux.c, all versions of 1.x):
 *
 * - The table of all that it watches, by descriptor number, must grow and memory is short.
 * - The kernel refuses another watch: ENOSPC, the limit fs.epoll.max_user_watches (epoll(7)), or ENOMEM. libuv asks the
 *   kernel not when a handle is started but when it next waits. So we ask first. libuv then finds the descriptor there,
 *   and changes what it is watched for. */
#ifndef EVAPID_WATCH_H
#define EVAPID_WATCH_H

#include <errno.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <uv.h>

/* Make libuv take the memory for its table from what watch_has_room has reserved. Call it once, before libuv is
 * used. */
void watch_prepare(void);

/* Could the loop begin to watch fd now? Ask before uv_poll_init or uv_pipe_open. Reserves the memory that libuv's table
 * then needs: a block that was free a moment ago may not be there for realloc. */
bool watch_has_room(const uv_loop_t *loop, int fd);

/* A handle with which the loop can watch fd, not started; its data is owner. NULL if memory is short or the loop
 * refuses it. It is memory of its own, because libuv may still be closing the owner's last handle: so a listener can
 * leave and come back within one turn of the loop. */
uv_poll_t *watch_open(uv_loop_t *loop, int fd, void *owner);

/* Stop watching, and free the handle when libuv has released it; owner may be gone by then. NULL is allowed. */
void watch_close(uv_poll_t *poll);

/* Ask the kernel for the watch that libuv will need when it next waits. Returns 0, or an errno value if the kernel
 * refuses. */
static inline int watch_reserve(uv_loop_t *loop, int fd)
{
    struct epoll_event nothing = { .data.fd = fd };
    return epoll_ctl(uv_backend_fd(loop), EPOLL_CTL_ADD, fd, &nothing) == 0 || errno == EEXIST ? 0 : errno;
}

/* As uv_poll_start, with events other than 0. Returns 0, or an errno value if the kernel refuses; poll is then
 * stopped. */
static inline int watch_start(uv_poll_t *poll, int events, uv_poll_cb callback)
{
    uv_os_fd_t fd = -1;
    uv_poll_start(poll, events, callback); /* this removes the descriptor from the kernel's set, so reserve after it */
    uv_fileno((const uv_handle_t *)poll, &fd);
    const int error = watch_reserve(poll->loop, fd);
    if (error != 0)
        uv_poll_stop(poll);
    return error;
}

#endif
