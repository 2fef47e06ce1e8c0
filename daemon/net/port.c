/* Opening and sharing TCP ports. */
#include "net/port.h"

#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#include "net/address.h"

void port_share(int fd, bool share)
{
    const int on = share;
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
}

int port_listen(const struct sockaddr_storage *address, int backlog, bool shared)
{
    const int on = 1;
    const int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (shared)
        port_share(fd, true);
    if (address->ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (bind(fd, (const struct sockaddr *)address, address_size(address)) == 0 && listen(fd, backlog) == 0)
        return fd;
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
}
