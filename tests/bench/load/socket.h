/* TCP and Unix sockets as the benchmark needs them. Every failure is printed to standard error with its reason. */
#ifndef LOAD_SOCKET_H
#define LOAD_SOCKET_H

#include <stdbool.h>
#include <stddef.h>

/* Connect to "127.0.0.1:80" or "[::1]:80", and wait for that. Nagle's delay is off. receive_buffer: bytes of SO_RCVBUF;
 * 0 leaves it to the kernel. Returns a socket that blocks, or -1. */
int socket_connect(const char *address, int receive_buffer);

/* Connect to a Unix stream socket. Returns a socket that blocks, or -1. */
int socket_connect_unix(const char *path);

/* Listen on such an address. Returns a socket that blocks, or -1. */
int socket_listen(const char *address);

bool socket_nonblocking(int fd);
bool socket_without_delay(int fd);

/* Send all bytes on a socket that blocks. */
bool socket_send_all(int fd, const void *bytes, size_t length);

/* Raise the limit of descriptors to the hard limit: each client needs one. */
void socket_raise_limit(void);

#endif
