/* Plain TCP. */
#include "transport.h"

#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

static ssize_t tcp_read(int fd, void *bytes, size_t room)
{
    return recv(fd, bytes, room, MSG_DONTWAIT);
}

static ssize_t tcp_write(int fd, const struct iovec *iov, int count)
{
    const struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count };
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Closing a socket that has unread input makes the kernel send a reset, which may overtake what was written last: read
 * that input away first, as much as one read takes. */
static int tcp_close(int fd)
{
    char unread[4096];
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 64 && recv(fd, unread, sizeof(unread), MSG_DONTWAIT) > 0; i++)
        continue;
    return close(fd);
}

const struct transport transport_tcp = { .read = tcp_read, .write = tcp_write, .close = tcp_close };
