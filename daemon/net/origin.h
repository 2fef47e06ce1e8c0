/* Origins: where clients come from, and how many clients each origin has now.
 *
 * An IPv4 address is an origin. For IPv6 a /64 is one: a host there has 2^64 addresses and takes new ones as it likes
 * (RFC 8981), so a limit for each address would be no limit. A link-local address is an origin by itself, because all
 * hosts of a link share fe80::/64. At a Unix socket a user is an origin. The table has one entry for each origin with a
 * client, so the number of clients bounds it. */
#ifndef EVAPID_ORIGIN_H
#define EVAPID_ORIGIN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uthash.h>

#include "net/network.h"

struct origin {
    struct network network;
    uint32_t clients;
    UT_hash_handle hh;
};

/* The origin of this address. */
struct network origin_of(const struct sockaddr_storage *address);

/* How many clients this origin has. *table is a uthash, NULL at first. */
uint32_t origin_clients(struct origin *table, const struct network *network);

/* Count one more client. False if memory is short. */
bool origin_enter(struct origin **table, const struct network *network);

/* A counted client has gone. */
void origin_leave(struct origin **table, const struct network *network);

#endif
