/* What the tests of kept tags share: clients of a listener that keeps tags, and the books of clients and kept tags. */
#ifndef EVAPID_TEST_KEPT_RIG_H
#define EVAPID_TEST_KEPT_RIG_H

#include "bus/bus_rig.h"

#include "bus/heritage.h"
#include "bus/kept.h"

#define TAG "t"
#define FRAME 4U /* bytes of a framed event of one byte: "1:x," */

static inline struct client_limits keeping(const struct client_limits *from)
{
    struct client_limits limits = *from;
    limits.keep_absent_ms = 60000;
    return limits;
}

/* A client that has the tag before it is admitted, as its connection-new route gives it. */
static inline struct peer arriving(const struct client_limits *from)
{
    const struct client_limits limits = keeping(from);
    struct peer peer = connect_pair(&limits);
    give_tag(&peer, TAG);
    return peer;
}

static inline struct peer carrier(const struct client_limits *from)
{
    return admitted(arriving(from));
}

/* It has little room, and nothing can be sent to it. */
static inline struct peer stalled(enum slow_policy policy, size_t events)
{
    struct client_limits limits = netstring_limits;
    limits.slow_policy = policy;
    limits.max_queued_bytes = events * FRAME;
    struct peer peer = through_narrow(carrier(&limits));
    wire_block();
    return peer;
}

static inline void go(struct peer *peer)
{
    hang_up(peer);
    turn();
}

static inline struct kept *kept_one(void)
{
    assert_int_equal(bus->keeping.count, 1);
    return bus->keeping.first;
}

static inline uint64_t waiting(void)
{
    return outq_events(&kept_one()->out);
}

/* In all and in the ledger, of which those that are kept are a part. */
static inline void assert_all_books(void)
{
    struct tally sum = ledger.header->gone;
    uint64_t queued = kept_events(bus);
    for (struct client *client = bus->roster.clients; client != NULL; client = client->hh.next) {
        queued += outq_events(&client->out);
        add_tally(&sum, subscription_tally(client));
    }
    for (const struct kept *kept = bus->keeping.first; kept != NULL; kept = kept->next) {
        assert_int_equal(kept_waiting(kept), outq_events(&kept->out));
        add_tally(&sum, &kept->slot->tally);
    }
    assert_int_equal(bus->totals.relayed, bus->totals.delivered + queued + all_dropped(&bus->totals));
    assert_memory_equal(&bus->totals, &sum, sizeof(sum));
}

static inline void assert_dropped(uint64_t absent)
{
    assert_all_books();
    assert_int_equal(bus->totals.dropped[DROP_ABSENT], absent);
    assert_int_equal(all_dropped(&bus->totals), absent);
}

#endif
