/* Asks the kernel about the other end. */
#include "base/lifetime.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/watch.h"

/* Linux 6.5 and later; the headers of the build may be older. */
#if !defined(SO_PEERPIDFD) && !defined(__hppa__) && !defined(__sparc__)
#define SO_PEERPIDFD 77
#endif

uint32_t lifetime_pid(int fd)
{
    struct ucred peer = { 0 };
    socklen_t size = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? (uint32_t)peer.pid : 0;
}

/* A descriptor of the process, or -1, with ESRCH if it has ended. Found by its number, it may be another process that
 * has got the number since. Then ours has ended, and its link lasts no longer than that other process. */
static int lifetime_open(int fd)
{
#ifdef SO_PEERPIDFD
    int pidfd = -1;
    socklen_t size = sizeof(pidfd);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0 && pidfd >= 0)
        return pidfd;
#endif
    const uint32_t pid = lifetime_pid(fd);
    errno = ENOENT;
    return pid == 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
}

enum lifetime_sight lifetime_watch(struct lifetime *lifetime, uv_loop_t *loop, int fd, uv_poll_cb on_end, void *owner)
{
    if (lifetime->pidfd >= 0)
        return LIFETIME_WATCHED;
    lifetime->pidfd = lifetime_open(fd);
    if (lifetime->pidfd < 0)
        return errno == ESRCH ? LIFETIME_ENDED : LIFETIME_UNSEEN;
    lifetime->poll = watch_open(loop, lifetime->pidfd, owner);
    if (lifetime->poll != NULL && watch_start(lifetime->poll, UV_READABLE, on_end) == 0)
        return LIFETIME_WATCHED;
    lifetime_forget(lifetime);
    return LIFETIME_UNSEEN;
}

void lifetime_forget(struct lifetime *lifetime)
{
    watch_close(lifetime->poll);
    lifetime->poll = NULL;
    if (lifetime->pidfd >= 0)
        close(lifetime->pidfd);
    lifetime->pidfd = -1;
}
