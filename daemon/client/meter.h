/* The meter: how long things take, and what Kamailio's processes count in the ring, as counts that only grow.
 *
 * It lies in the ledger, so that it goes on where the evapid before us was, however that ended. What the ring has
 * begins at 0 with each Kamailio, and anybody there may write anything into it: the meter adds up by how much it has
 * grown beyond the most that it had. */
#ifndef EVAPID_METER_H
#define EVAPID_METER_H

#include <stdint.h>

#include "evapid/histogram.h"
#include "evapid/ring.h"

struct meter {
    struct histogram
        queue_wait;             /* of each event that a client's kernel has taken: since it was taken out of the ring */
    struct histogram admission; /* of each client that was let in: since its connection was taken */
    struct histogram route_start;         /* of each message whose route has begun: since it had been read whole */
    uint64_t refused_full, refused_large; /* records that Kamailio's processes found no room for, or too large */

    /* The most that the ring of that instance had. */
    uint64_t instance;
    uint64_t seen_full, seen_large;
    struct histogram seen_starts; /* of all its workers */
};

/* From now on that ring is read. One that is another's than the last has been counted from nothing. */
void meter_begin(struct meter *meter, uint64_t instance);

/* Bring the counts up to what the ring has now. */
void meter_read(struct meter *meter, const struct ring_header *ring);

#endif
