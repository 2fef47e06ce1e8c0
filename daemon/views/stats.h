/* What has been counted since somebody last set the counts to zero. evapid's own counts only ever grow: what is kept is how
 * far they were then. */
#ifndef EVAPID_STATS_H
#define EVAPID_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/bus.h"

struct stats {
    uint64_t since_ms; /* wall clock, milliseconds of the epoch; 0: since the beginning */
    struct tally totals;
    struct event_counts events;
    uint64_t accepted, closed; /* clients */
};

/* Count from now on. */
void stats_reset(struct stats *stats, const struct bus *bus);

/* What has been counted since: of what is in the books now, as such. */
struct stats stats_since(const struct stats *stats, const struct bus *bus);

/* Write it for a successor; read it back. False: it makes no sense. */
void stats_save(const struct stats *stats, struct state_out *out);
bool stats_load(struct stats *stats, struct state_in *in);

#endif
