/* Descriptors passed through a Unix socket (SCM_RIGHTS, unix(7)). Their sender can make the closing of one last
 * arbitrarily long, and the loop must not wait for that.
 *
 * The last process to close a full TCP socket with SO_LINGER is held up. The kernel closes passed descriptors that
 * nobody has received; the process that reads on, or closes the connection, then waits. So three things are done. Where
 * none are expected, none are let in (SO_PASSRIGHTS, Linux 6.16; earlier kernels lack it and accept them all). None are
 * left to the kernel to close. Before one is closed, its SO_LINGER is switched off. docs/security.md says what
 * remains. */
#ifndef EVAPID_PASSED_H
#define EVAPID_PASSED_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Allow or forbid descriptors on this socket, and on its connections if it listens. */
void passed_allow(int socket, bool allowed);

/* As recv(2) with MSG_DONTWAIT. Descriptors that arrive with the bytes fill the free places (-1) among the `places` of
 * kept; the others are closed. *curtailed becomes true if some were lost because no more may be open. */
ssize_t passed_receive(int socket, void *bytes, size_t room, int *kept, size_t places, bool *curtailed);

/* Close a descriptor that was passed. */
void passed_close(int fd);

/* Close a connection, and everything that waits in it. */
void passed_end(int socket);

#endif
