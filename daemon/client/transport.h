/* Between a client and its wire: how bytes enter and leave a connected socket. Today plain TCP. TLS and WebSocket would
 * be further structs of this kind; framing and bus would not notice. */
#ifndef EVAPID_TRANSPORT_H
#define EVAPID_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

/* read, write and close return what read(2), writev(2) and close(2) return on a non-blocking socket: bytes, 0 at the
 * end of the input, or -1 with errno. position: how many bytes the kernel has ever taken to send, 0: unknown. cookie: a
 * number that no other socket of this host has, 0: unknown. */
struct transport {
    ssize_t (*read)(int fd, void *bytes, size_t room);
    ssize_t (*write)(int fd, const struct iovec *iov, int count);
    int (*close)(int fd);
    uint64_t (*position)(int fd);
    uint64_t (*cookie)(int fd);
};

extern const struct transport transport_tcp;

/* Open a TCP socket that listens at the address; an IPv6 one takes IPv6 only. shared: it may overlap with another
 * shared socket of ours. -1: it cannot, see errno. */
int transport_listen(const struct sockaddr_storage *address, int backlog, bool shared);

/* May another shared socket overlap with this one from now on? Sockets that already do stay. */
void transport_share(int fd, bool share);

#endif
