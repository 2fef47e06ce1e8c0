/* The meter: how long things take, and what Kamailio's processes count in the ring, as counts that only grow.
 *
 * It is in the ledger, so that it continues where the last evapid was, however that ended. The ring's counts start at 0
 * with each Kamailio, and its processes may write anything there. So the meter adds only what exceeds the highest value
 * seen. */
#ifndef EVAPID_METER_H
#define EVAPID_METER_H

#include <stdint.h>

#include "evapid/histogram.h"
#include "evapid/ring.h"

struct meter {
    struct histogram
        queue_wait;             /* of each event that a client's kernel has taken: since it was taken out of the ring */
    struct histogram admission; /* of each admitted client: since its connection was accepted */
    struct histogram route_start;         /* of each message whose route has begun: since it had been read completely */
    uint64_t refused_full, refused_large; /* records of Kamailio's processes that found no room, or were too large */
    uint64_t lost;                        /* records whose processes died before they had written them whole */

    /* The highest values seen in that instance's ring. */
    uint64_t instance;
    uint64_t seen_full, seen_large, seen_lost;
    struct histogram seen_starts; /* of all its workers */
};

/* From now on this ring is read. The ring of a new instance is counted from 0. */
void meter_begin(struct meter *meter, uint64_t instance);

/* Add what the ring's counts have grown by. */
void meter_read(struct meter *meter, const struct ring_header *ring);

#endif
