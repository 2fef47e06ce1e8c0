/* TCP and Unix sockets as the benchmark needs them. Every failure is printed to standard error with its reason. */
#ifndef LOAD_SOCKET_H
#define LOAD_SOCKET_H

#include <stdbool.h>
#include <stddef.h>

/* Connect to "127.0.0.1:80" or "[::1]:80", waiting for it; Nagle's delay is off. receive_buffer: bytes of SO_RCVBUF, 0
 * leaves it to the kernel. The socket blocks. Returns it, or -1. */
int socket_connect(const char *address, int receive_buffer);

/* Connect to a Unix stream socket. Returns a socket that blocks, or -1. */
int socket_connect_unix(const char *path);

/* Listen at such an address. Returns a socket that blocks, or -1. */
int socket_listen(const char *address);

bool socket_nonblocking(int fd);
bool socket_without_delay(int fd);

/* Send all of it on a socket that blocks. */
bool socket_send_all(int fd, const void *bytes, size_t length);

/* Allow as many descriptors as the hard limit does: each client is one. */
void socket_raise_limit(void);

#endif
