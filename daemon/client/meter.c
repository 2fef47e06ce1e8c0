/* Adding up what Kamailio's processes count. */
#include "client/meter.h"

#include <stdatomic.h>

void meter_begin(struct meter *meter, uint64_t instance)
{
    if (meter->instance == instance)
        return; /* it is being read already, perhaps since the evapid before us */
    meter->instance = instance;
    meter->seen_full = meter->seen_large = meter->seen_lost = 0;
    meter->seen_starts = (struct histogram){ .sum_ns = 0 };
}

#define COUNT_MAX (UINT64_MAX / HISTOGRAM_BUCKETS) /* so that a histogram's buckets can be added up */

/* Add to total by how much the count exceeds the highest value seen; total grows to `most` at most. A count may go back
 * a little: a refusal that is tried again is taken back (queue_forgive). */
static void catch_up(uint64_t *total, uint64_t *seen, uint64_t now, uint64_t most)
{
    if (now <= *seen)
        return;
    const uint64_t grown = now - *seen;
    *total = grown < most - *total ? *total + grown : most;
    *seen = now;
}

static uint64_t count_of(const _Atomic uint64_t *shared)
{
    return atomic_load_explicit(shared, memory_order_relaxed);
}

void meter_read(struct meter *meter, const struct ring_header *ring)
{
    struct histogram starts = { .sum_ns = 0 };
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++) {
        const struct ring_starts *of_worker = &ring->workers[i].starts;
        for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++)
            starts.counts[bucket] += count_of(&of_worker->counts[bucket]);
        starts.sum_ns += count_of(&of_worker->sum_ns);
    }
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++)
        catch_up(&meter->route_start.counts[bucket], &meter->seen_starts.counts[bucket], starts.counts[bucket],
                 COUNT_MAX);
    catch_up(&meter->route_start.sum_ns, &meter->seen_starts.sum_ns, starts.sum_ns, UINT64_MAX);
    catch_up(&meter->refused_full, &meter->seen_full, count_of(&ring->refused_full), COUNT_MAX);
    catch_up(&meter->refused_large, &meter->seen_large, count_of(&ring->refused_large), COUNT_MAX);
    catch_up(&meter->lost, &meter->seen_lost, count_of(&ring->lost), COUNT_MAX);
}
