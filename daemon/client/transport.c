/* Plain TCP. */
#include "client/transport.h"

#include <errno.h>
#include <linux/tcp.h> /* the C library's struct tcp_info ends before the byte counts */
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/address.h"

static ssize_t tcp_read(int fd, void *bytes, size_t room)
{
    return recv(fd, bytes, room, MSG_DONTWAIT);
}

static ssize_t tcp_write(int fd, const struct iovec *iov, int count)
{
    const struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count };
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Closing a socket with unread input makes the kernel send a reset, which may overtake the last bytes written. So read
 * that input away first, up to 256 KiB. */
static int tcp_close(int fd)
{
    char unread[4096];
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 64 && recv(fd, unread, sizeof(unread), MSG_DONTWAIT) > 0; i++)
        continue;
    return close(fd);
}

/* One call returns all counts, so that no segment is counted twice or missed. */
static uint64_t tcp_position(int fd)
{
    struct tcp_info info = { 0 };
    socklen_t size = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return 0;
    return info.tcpi_bytes_sent - info.tcpi_bytes_retrans + info.tcpi_notsent_bytes;
}

static uint64_t socket_cookie(int fd)
{
    uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

const struct transport transport_tcp = {
    .read = tcp_read, .write = tcp_write, .close = tcp_close, .position = tcp_position, .cookie = socket_cookie
};

void transport_share(int fd, bool share)
{
    const int on = share;
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
}

int transport_listen(const struct sockaddr_storage *address, int backlog, bool shared)
{
    const int on = 1;
    const int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (shared)
        transport_share(fd, true);
    if (address->ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (bind(fd, (const struct sockaddr *)address, address_size(address)) == 0 && listen(fd, backlog) == 0)
        return fd;
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
}
