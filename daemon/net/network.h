/* IP networks as people write them: "10.0.0.0/8", "2001:db8::/32", or an address for the network of just that one. */
#ifndef EVAPID_NETWORK_H
#define EVAPID_NETWORK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Compares and hashes as bytes: there is no padding, and bits behind the prefix are 0. An IPv4 address that an IPv6 socket
 * shows as ::ffff:a.b.c.d is IPv4 here. */
struct network {
    unsigned char bytes[16]; /* the address in network order; of IPv4 the first four */
    uint8_t version;         /* 4, 6, or 0: no IP, in no network */
    uint8_t prefix;          /* leading bits that count: up to 32 of IPv4, 128 of IPv6 */
};

_Static_assert(sizeof(struct network) == 18, "struct network is a key: it may have no padding");

/* Read text into *out. Returns NULL, or why it is no network. */
const char *network_parse(const char *text, struct network *out);

/* The network of just that address; port and scope don't count. */
struct network network_of(const struct sockaddr_storage *address);

/* The larger network of that prefix around it; a prefix that is no smaller than its own leaves it as it is. */
struct network network_widen(struct network network, uint8_t prefix);

/* Is all of inner in outer? */
bool network_covers(const struct network *outer, const struct network *inner);

/* Is the address link-local: 169.254.0.0/16 or fe80::/10? */
bool network_is_link_local(const struct network *host);

/* Can somebody in the internet have a route to it? Not so: loopback, private (RFC 1918, RFC 4193) and link-local
 * addresses. The unspecified addresses, all of this machine's, count as public. */
bool network_is_public(const struct network *host);

#endif
