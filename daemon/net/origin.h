/* Origins: whom clients come from, and how many each has connected now.
 *
 * An IPv4 address is an origin. Of IPv6 a /64 is one: a host there has 2^64 addresses and takes new ones as it likes
 * (RFC 8981), so that a limit for each of them would be none. A link-local address is one by itself, for all hosts of a
 * link share fe80::/64. The table has an entry for each origin with a client: clients bound it. */
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

/* The origin that the address belongs to. */
struct network origin_of(const struct sockaddr_storage *address);

/* Clients of that origin; *table is a uthash, NULL at first. */
uint32_t origin_clients(struct origin *table, const struct network *network);

/* Count one more client. False when there is no memory. */
bool origin_enter(struct origin **table, const struct network *network);

/* One that has been counted has gone. */
void origin_leave(struct origin **table, const struct network *network);

#endif
