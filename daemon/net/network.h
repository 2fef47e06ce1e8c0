/* IP networks as text: "10.0.0.0/8", "2001:db8::/32", or an address for the network of only that address. */
#ifndef EVAPID_NETWORK_H
#define EVAPID_NETWORK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Can be compared and hashed as bytes: there is no padding, and bits after the prefix are 0. An IPv4 address that an
 * IPv6 socket shows as ::ffff:a.b.c.d is IPv4 here. */
struct network {
    unsigned char bytes[16]; /* the address in network order; IPv4 uses the first four */
    uint8_t version;         /* 4, 6; NETWORK_USER: a user of this machine; 0: something else; both are in no network */
    uint8_t prefix;          /* leading bits that count: up to 32 for IPv4, 128 for IPv6 */
};

#define NETWORK_USER 1 /* bytes has the user's number, in network order */

_Static_assert(sizeof(struct network) == 18, "struct network is a key: it may have no padding");

/* Read text into *out. Returns NULL, or why it is not a network. */
const char *network_parse(const char *text, struct network *out);

/* The network of only this address; port and scope do not count. */
struct network network_of(const struct sockaddr_storage *address);

/* A user of this machine. */
struct network network_of_user(uint32_t user);

/* The larger network of this prefix around it. A prefix not smaller than its own changes nothing. */
struct network network_widen(struct network network, uint8_t prefix);

/* Is all of inner in outer? */
bool network_covers(const struct network *outer, const struct network *inner);

/* Is the address link-local: 169.254.0.0/16 or fe80::/10? */
bool network_is_link_local(const struct network *host);

/* Can the internet have a route to it? False for loopback, private (RFC 1918, RFC 4193) and link-local addresses. The
 * unspecified addresses stand for all addresses of this machine, and count as public. */
bool network_is_public(const struct network *host);

/* Is it an address that only this machine reaches: 127.0.0.0/8 or ::1? */
bool network_is_loopback(const struct network *host);

#endif
