/* Names the figures, and reads them when Kamailio asks. */
#include <limits.h>

#include "core/counters.h"
#include "core/dprint.h"

#include "queue.h"
#include "statistics.h"

#define GROUP "evapi"

/* What the module knows itself, or sees in the queue. */
enum own { OWN_ATTACHED, OWN_CLIENTS, OWN_TAGS, OWN_CAPACITY, OWN_USED, OWN_FULL, OWN_LARGE, OWN_LOST, OWNS };

static long read_own(enum own own)
{
    const struct ring_header *ring = queue_ring();
    const struct presence *presence = &ring->presence;
    const bool attached = atomic_load_explicit(&presence->attached, memory_order_acquire) != 0;
    switch (own) {
    case OWN_ATTACHED: return attached;
    case OWN_CLIENTS: return attached ? (long)atomic_load_explicit(&presence->clients, memory_order_relaxed) : 0;
    case OWN_TAGS: return attached ? (long)atomic_load_explicit(&presence->tags, memory_order_relaxed) : 0;
    case OWN_CAPACITY: return (long)queue_capacity();
    case OWN_USED: return (long)queue_used();
    case OWN_FULL: return (long)atomic_load_explicit(&ring->refused_full, memory_order_relaxed);
    case OWN_LARGE: return (long)atomic_load_explicit(&ring->refused_large, memory_order_relaxed);
    case OWN_LOST: return (long)atomic_load_explicit(&ring->lost, memory_order_relaxed);
    case OWNS: break;
    }
    return 0;
}

/* One of our own figures, or the one at an offset in struct figures. */
struct figure {
    const char *name;
    size_t at;
    const char *meaning;
};

static const struct figure own_figures[OWNS] = {
    [OWN_ATTACHED] = { "attached", OWN_ATTACHED, "1 while an evapid reads the queue" },
    [OWN_CLIENTS] = { "clients", OWN_CLIENTS, "clients that are let in, now" },
    [OWN_TAGS] = { "tags", OWN_TAGS, "different tags that they have, now" },
    [OWN_CAPACITY] = { "queue_capacity", OWN_CAPACITY, "bytes that the queue to evapid holds" },
    [OWN_USED] = { "queue_used", OWN_USED, "bytes that wait in it, now" },
    [OWN_FULL] = { "queue_refused_full", OWN_FULL, "events and commands that found no room in it" },
    [OWN_LARGE] = { "queue_refused_large", OWN_LARGE, "events that were too large for it" },
    [OWN_LOST] = { "queue_lost", OWN_LOST, "events and commands whose process died before it had written them whole" },
};

#define FIGURE(name, meaning)                                                                                          \
    {                                                                                                                  \
#name, offsetof(struct figures, name), meaning                                                                 \
    }

static const struct figure evapid_figures[] = {
    FIGURE(clients_accepted, "clients that have connected"),
    FIGURE(clients_closed, "clients whose connection has ended"),
    FIGURE(events_relay, "events for all clients, of scripts or published at evapid's control socket"),
    FIGURE(events_multicast, "events for the clients with a tag, of scripts or published"),
    FIGURE(events_unicast, "events for one client with a tag, of scripts or published"),
    FIGURE(events_send, "events for one connection, of scripts or published"),
    FIGURE(events_no_receiver, "of these four, those that nobody was there to get"),
    FIGURE(relayed, "events meant for a client, one for each receiver"),
    FIGURE(delivered, "of these, those that were sent whole"),
    FIGURE(delivered_bytes, "bytes that were sent, framing included"),
    FIGURE(queued, "events that wait for clients to read, now"),
    FIGURE(queued_memory, "bytes of memory that these take, now"),
    FIGURE(dropped_slow, "events dropped for a client because its queue was full"),
    FIGURE(dropped_closed, "events that were queued when the connection ended"),
    FIGURE(dropped_large, "events larger than a client's queue may be"),
    FIGURE(dropped_memory, "events for which there was no memory"),
    FIGURE(dropped_lost, "events that were in the memory of an evapid that was killed"),
    FIGURE(messages, "messages that came from clients"),
    FIGURE(message_bytes, "bytes of these"),
    FIGURE(messages_delivered, "messages whose event routes have ended"),
    FIGURE(messages_waiting, "messages whose event routes have not ended, now"),
    FIGURE(messages_dropped_closed, "messages thrown away when their client was closed"),
    FIGURE(messages_dropped_memory, "messages for which there was no memory"),
    FIGURE(messages_dropped_lost, "messages that were with an evapid that was killed"),
    FIGURE(dropped_absent, "events that waited for a kept tag, and nobody came for them"),
};

#define EVAPID_FIGURES (sizeof(evapid_figures) / sizeof(*evapid_figures))

static long read_evapid(size_t offset)
{
    const char *figures = (const char *)&queue_ring()->figures;
    const uint64_t value =
        atomic_load_explicit((const _Atomic uint64_t *)(const void *)(figures + offset), memory_order_relaxed);
    return value < LONG_MAX ? (long)value : LONG_MAX;
}

static counter_val_t count_own(counter_handle_t handle, void *figure)
{
    (void)handle;
    return read_own((enum own)((const struct figure *)figure)->at);
}

static counter_val_t count_evapid(counter_handle_t handle, void *figure)
{
    (void)handle;
    return read_evapid(((const struct figure *)figure)->at);
}

static bool add(const struct figure *figure, counter_cbk_f read)
{
    counter_handle_t handle;
    if (counter_register(&handle, GROUP, figure->name, CNT_F_NO_RESET, read, (void *)(uintptr_t)figure, figure->meaning,
                         0) >= 0)
        return true;
    LM_ERR("the statistic %s can't be registered\n", figure->name);
    return false;
}

bool statistics_init(void)
{
    for (size_t i = 0; i < OWNS; i++)
        if (!add(&own_figures[i], count_own))
            return false;
    for (size_t i = 0; i < EVAPID_FIGURES; i++)
        if (!add(&evapid_figures[i], count_evapid))
            return false;
    return true;
}

bool statistics_read(size_t n, struct statistic *statistic)
{
    if (n >= OWNS + EVAPID_FIGURES)
        return false;
    const bool own = n < OWNS;
    const struct figure *figure = own ? &own_figures[n] : &evapid_figures[n - OWNS];
    *statistic = (struct statistic){ figure->name, own ? read_own((enum own)figure->at) : read_evapid(figure->at) };
    return true;
}
