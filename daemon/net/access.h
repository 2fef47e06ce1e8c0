/* Access: who may connect at a listener by its configuration, and why a connection can be refused. */
#ifndef EVAPID_ACCESS_H
#define EVAPID_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/door.h"
#include "net/network.h"

#define ACCESS_NETWORKS_MAX 256U /* networks in a list; each connection searches it from its start */

enum refusal {
    REFUSAL_FULL,      /* the listener has its maximum of clients */
    REFUSAL_DENIED,    /* the address is denied, or not allowed */
    REFUSAL_ADDRESS,   /* the address has its maximum of clients */
    REFUSAL_RATE,      /* too many connected in too short a time */
    REFUSAL_MEMORY,    /* memory was short */
    REFUSAL_ADMISSION, /* the client was accepted, but no connection-new route has admitted it in time */
    REFUSAL_REVOKED,   /* the client was accepted, but its address is now denied, or no longer allowed */
    REFUSALS,
    REFUSAL_NONE = REFUSALS
};

struct network_list {
    size_t count;
    struct network networks[ACCESS_NETWORKS_MAX];
};

struct access {
    struct network_list allow;        /* empty: every address */
    struct network_list deny;         /* wins over allow */
    uint32_t max_clients_per_address; /* clients of one origin (origin.h); 0: no limit */
    uint32_t max_connects_per_second; /* clients accepted; 0: no limit */
    struct door_access door;          /* of a Unix socket, in place of allow and deny */
};

/* May this address connect at all? */
bool access_admits(const struct access *access, const struct network *host);

/* The name in the status: "full", "denied", ... */
const char *refusal_name(enum refusal refusal);

#endif
