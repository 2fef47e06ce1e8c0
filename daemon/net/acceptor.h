/* Accepts connections from a listening socket: one loop, and one rule for errors, for all its users. */
#ifndef EVAPID_ACCEPTOR_H
#define EVAPID_ACCEPTOR_H

#include <stdbool.h>
#include <sys/socket.h>

/* A connection was accepted. fd belongs to the callee; it is non-blocking and closed on exec. Return false to accept no
 * more now. */
typedef bool acceptor_take(void *owner, int fd, const struct sockaddr_storage *peer);

/* Accept waiting connections, at most this many. Returns 0, or an errno if descriptors or memory have run out. The
 * socket then stays readable, so the caller must not watch it for a while. */
int acceptor_run(int listening, unsigned most, acceptor_take *take, void *owner);

#endif
