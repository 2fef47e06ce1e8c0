/* Counts since somebody last reset them. evapid's own counts only grow; this keeps their values at the reset. */
#ifndef EVAPID_STATS_H
#define EVAPID_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/bus.h"

struct stats {
    uint64_t since_ms; /* wall clock, milliseconds since the epoch; 0: since the start */
    struct tally totals;
    struct event_counts events;
    uint64_t accepted, closed; /* clients */
};

/* Count from now on. */
void stats_reset(struct stats *stats, const struct bus *bus);

/* The counts since then. Values that show what is in the books now are passed on as they are. */
struct stats stats_since(const struct stats *stats, const struct bus *bus);

/* Write it for a successor; read it back. False: the data is invalid. */
void stats_save(const struct stats *stats, struct state_out *out);
bool stats_load(struct stats *stats, struct state_in *in);

#endif
