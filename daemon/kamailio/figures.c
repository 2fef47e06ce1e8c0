/* Writing the totals into the ring: some twenty stores a turn, into memory that nobody else writes. It adds no work per
 * event or per client. */
#include "kamailio/figures.h"

#include "bus/shed.h"

static void put(_Atomic uint64_t *figure, uint64_t value)
{
    atomic_store_explicit(figure, value, memory_order_relaxed);
}

static void publish_clients(struct figures *figures, const struct bus *bus)
{
    put(&figures->clients_accepted, bus->accepted);
    put(&figures->clients_closed, bus->closed);
}

static void publish_events(struct figures *figures, const struct event_counts *events)
{
    put(&figures->events_relay, events->relay);
    put(&figures->events_multicast, events->multicast);
    put(&figures->events_unicast, events->unicast);
    put(&figures->events_send, events->send);
    put(&figures->events_no_receiver, events->no_receiver);
}

static void publish_output(struct figures *figures, const struct tally *totals)
{
    put(&figures->relayed, totals->relayed);
    put(&figures->delivered, totals->delivered);
    put(&figures->delivered_bytes, totals->delivered_bytes);
    put(&figures->queued, totals->relayed - totals->delivered - tally_dropped(totals));
    put(&figures->queued_memory, shed_queue_memory());
    put(&figures->dropped_slow, totals->dropped[DROP_SLOW]);
    put(&figures->dropped_closed, totals->dropped[DROP_CLOSED]);
    put(&figures->dropped_large, totals->dropped[DROP_LARGE]);
    put(&figures->dropped_memory, totals->dropped[DROP_MEMORY]);
    put(&figures->dropped_lost, totals->dropped[DROP_LOST]);
    put(&figures->dropped_absent, totals->dropped[DROP_ABSENT]);
}

static void publish_input(struct figures *figures, const struct tally *totals)
{
    put(&figures->messages, totals->messages);
    put(&figures->message_bytes, totals->message_bytes);
    put(&figures->messages_delivered, totals->messages_delivered);
    put(&figures->messages_waiting, tally_messages_waiting(totals));
    put(&figures->messages_dropped_closed, totals->messages_dropped[LOSS_CLOSED]);
    put(&figures->messages_dropped_memory, totals->messages_dropped[LOSS_MEMORY]);
    put(&figures->messages_dropped_lost, totals->messages_dropped[LOSS_LOST]);
}

void figures_publish(const struct kamailio *kamailio)
{
    if (kamailio->attachment.intake == NULL)
        return;
    struct figures *figures = &kamailio->attachment.intake->ring.header->figures;
    const struct bus *bus = kamailio->bus;
    publish_clients(figures, bus);
    publish_events(figures, &bus->events);
    publish_output(figures, &bus->totals);
    publish_input(figures, &bus->totals);
}
