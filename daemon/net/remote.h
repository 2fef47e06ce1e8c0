/* A remote: who is at the other end of a client's connection, as Kamailio's script, limits and logs see it.
 *
 * Of a Unix socket it is a user of this machine, whom the kernel names. */
#ifndef EVAPID_REMOTE_H
#define EVAPID_REMOTE_H

#include <stdint.h>
#include <sys/socket.h>

#include "evapid/limits.h"
#include "net/network.h"

#define REMOTE_UNIX "unix"

struct remote {
    char address[EVAPID_ADDRESS_MAX]; /* the host, without brackets; of a user REMOTE_UNIX */
    uint32_t port;                    /* of a user: its number */
    struct network host;              /* only this address, or this user */
    struct network origin;            /* as limits count it (origin.h) */
};

struct remote remote_of_address(const struct sockaddr_storage *address);
struct remote remote_of_user(uint32_t user);

/* Read whom to look for: an address, a network, "unix" for every user, or "unix:1000" for one. *out covers the hosts of
 * those remotes (network_covers). Returns NULL, or why text is none of these. */
const char *remote_parse(const char *text, struct network *out);

/* What the port of a remote of this origin is: "192.0.2.1 port 4711", "unix user 1000". */
static inline const char *remote_noun(const struct network *origin)
{
    return origin->version == NETWORK_USER ? "user" : "port";
}

#endif
