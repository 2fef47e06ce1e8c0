/* Counts clients by their origin. */
#define HASH_NONFATAL_OOM 1 /* uthash: a failed allocation leaves the table as it was */
#include "net/origin.h"

#include <assert.h>
#include <stdlib.h>

#define V6_PREFIX 64

struct network origin_of(const struct sockaddr_storage *address)
{
    const struct network host = network_of(address);
    return host.version == 6 && !network_is_link_local(&host) ? network_widen(host, V6_PREFIX) : host;
}

static struct origin *origin_find(struct origin *table, const struct network *network)
{
    struct origin *origin = NULL;
    HASH_FIND(hh, table, network, sizeof(*network), origin);
    return origin;
}

uint32_t origin_clients(struct origin *table, const struct network *network)
{
    const struct origin *origin = origin_find(table, network);
    return origin != NULL ? origin->clients : 0;
}

bool origin_enter(struct origin **table, const struct network *network)
{
    struct origin *origin = origin_find(*table, network);
    if (origin == NULL) {
        origin = calloc(1, sizeof(*origin));
        if (origin == NULL)
            return false;
        origin->network = *network;
        HASH_ADD(hh, *table, network, sizeof(origin->network), origin);
        if (origin->hh.tbl == NULL) {
            free(origin);
            return false;
        }
    }
    origin->clients++;
    return true;
}

void origin_leave(struct origin **table, const struct network *network)
{
    struct origin *origin = origin_find(*table, network);
    assert(origin != NULL);
    if (--origin->clients > 0)
        return;
    HASH_DEL(*table, origin);
    free(origin);
}
