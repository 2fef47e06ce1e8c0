/* Taking connections from a socket that listens: one loop, and one rule for what can go wrong, whoever listens. */
#ifndef EVAPID_ACCEPTOR_H
#define EVAPID_ACCEPTOR_H

#include <stdbool.h>
#include <sys/socket.h>

/* Somebody has connected; fd is the callee's, non-blocking and closed on exec. False: take nobody else now. */
typedef bool acceptor_take(void *owner, int fd, const struct sockaddr_storage *peer);

/* Take those who wait at the listening socket, at most so many. 0; or an errno: descriptors or memory have run out. The
 * socket stays readable then, so the caller must not watch it for a while. */
int acceptor_run(int listening, unsigned most, acceptor_take *take, void *owner);

#endif
