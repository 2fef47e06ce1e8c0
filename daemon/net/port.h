/* TCP ports: sockets that listen there. */
#ifndef EVAPID_PORT_H
#define EVAPID_PORT_H

#include <stdbool.h>
#include <sys/socket.h>

/* Open a TCP socket that listens at the address; an IPv6 one takes IPv6 only. shared: it may overlap with another
 * shared socket of ours. -1: it cannot, see errno. */
int port_listen(const struct sockaddr_storage *address, int backlog, bool shared);

/* May another shared socket overlap with this one from now on? Sockets that already do stay. */
void port_share(int fd, bool share);

#endif
