/* Descriptors that somebody passes by a Unix socket (SCM_RIGHTS, unix(7)): closing one of them may take as long as its sender
 * says, and the loop is not to wait for that.
 *
 * A TCP socket that is full and has SO_LINGER holds up who closes it last; the kernel closes what nobody has received, in the
 * name of who reads on, or closes the connection. So none is let in where none is expected (SO_PASSRIGHTS, Linux 6.16; an
 * earlier kernel does not know it, and takes them all), none is left to the kernel, and each is robbed of SO_LINGER before it
 * is closed. docs/security.md says what remains. */
#ifndef EVAPID_PASSED_H
#define EVAPID_PASSED_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* May descriptors be passed to us by this socket, and by those who connect to it if it listens? */
void passed_allow(int socket, bool allowed);

/* As recv(2) with MSG_DONTWAIT. Descriptors that come with the bytes fill the places of kept, of which there are so many, that
 * are free (-1); the others are closed. *curtailed becomes true when some were lost, because no more may be open. */
ssize_t passed_receive(int socket, void *bytes, size_t room, int *kept, size_t places, bool *curtailed);

/* Close a descriptor that was passed. */
void passed_close(int fd);

/* Close a connection, with all that waits in it. */
void passed_end(int socket);

#endif
