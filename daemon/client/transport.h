/* The seam between a client and its wire: how bytes go in and out of a connected socket. Plain TCP today; TLS and
 * WebSocket would be further structs of this kind, which neither the client's framing nor the bus could tell apart. */
#ifndef EVAPID_TRANSPORT_H
#define EVAPID_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

/* read, write and close return as read(2), writev(2) and close(2) do on a socket that doesn't block: bytes, 0 at the end of
 * the input, or -1 with errno. position: how many bytes the kernel has ever taken to send, 0 when it can't tell. cookie: a
 * number that no other socket of this host has, 0 likewise. */
struct transport {
    ssize_t (*read)(int fd, void *bytes, size_t room);
    ssize_t (*write)(int fd, const struct iovec *iov, int count);
    int (*close)(int fd);
    uint64_t (*position)(int fd);
    uint64_t (*cookie)(int fd);
};

extern const struct transport transport_tcp;

/* A TCP socket that listens at the address, of IPv6 for IPv6 alone. shared: beside another one of ours that overlaps with it. -1,
 * and errno, if it can't be had. */
int transport_listen(const struct sockaddr_storage *address, int backlog, bool shared);

/* Let another one that is shared overlap with this one, or not any more: it keeps those that it has let. */
void transport_share(int fd, bool share);

#endif
