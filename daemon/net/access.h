/* Access: who may connect at a listener. What the configuration says of it, and why a connection can be refused. */
#ifndef EVAPID_ACCESS_H
#define EVAPID_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/network.h"

#define ACCESS_NETWORKS_MAX 256U /* that a list may have; it is searched from its begin for each connection */

enum refusal {
    REFUSAL_FULL,      /* the listener has all the clients it may have */
    REFUSAL_DENIED,    /* the address is denied, or not allowed */
    REFUSAL_ADDRESS,   /* the address has all the clients it may have */
    REFUSAL_RATE,      /* too many have connected in too short a time */
    REFUSAL_MEMORY,    /* there was no memory */
    REFUSAL_ADMISSION, /* the client was accepted, and no connection-new route has let it in within its time */
    REFUSAL_REVOKED,   /* the client was accepted, and its address is denied, or not allowed, by now */
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
};

/* May that address connect at all? */
bool access_admits(const struct access *access, const struct network *host);

/* As in the status: "full", "denied", ... */
const char *refusal_name(enum refusal refusal);

#endif
