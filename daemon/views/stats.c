/* Counts from a moment on. */
#include "views/stats.h"

#include <string.h>

#include "base/clock.h"
#include "base/state.h"

static struct stats stats_now(const struct bus *bus)
{
    return (struct stats){ .since_ms = clock_wall_ms(),
                           .totals = bus->totals,
                           .events = bus->events,
                           .accepted = bus->accepted,
                           .closed = bus->closed };
}

void stats_reset(struct stats *stats, const struct bus *bus)
{
    *stats = stats_now(bus);
}

static void tally_subtract(struct tally *tally, const struct tally *less)
{
    tally->relayed -= less->relayed;
    tally->delivered -= less->delivered;
    tally->delivered_bytes -= less->delivered_bytes;
    for (int reason = 0; reason < DROP_REASONS; reason++)
        tally->dropped[reason] -= less->dropped[reason];
    tally->messages -= less->messages;
    tally->message_bytes -= less->message_bytes;
    tally->messages_delivered -= less->messages_delivered;
    for (int reason = 0; reason < MESSAGE_LOSSES; reason++)
        tally->messages_dropped[reason] -= less->messages_dropped[reason];
}

struct stats stats_since(const struct stats *stats, const struct bus *bus)
{
    struct stats since = stats_now(bus);
    since.since_ms = stats->since_ms;
    tally_subtract(&since.totals, &stats->totals);
    since.events.relay -= stats->events.relay;
    since.events.multicast -= stats->events.multicast;
    since.events.unicast -= stats->events.unicast;
    since.events.send -= stats->events.send;
    since.events.no_receiver -= stats->events.no_receiver;
    since.accepted -= stats->accepted;
    since.closed -= stats->closed;
    return since;
}

void stats_save(const struct stats *stats, struct state_out *out)
{
    state_put(out, "since-ms", stats->since_ms);
    state_put_record(out, "totals");
    tally_save(&stats->totals, out);
    state_put_end(out);
    state_put_record(out, "events");
    events_save(&stats->events, out);
    state_put_end(out);
    state_put(out, "accepted", stats->accepted);
    state_put(out, "closed", stats->closed);
}

bool stats_load(struct stats *stats, struct state_in *in)
{
    stats->since_ms = state_get(in, "since-ms", 0);
    state_get_record(in, "totals");
    tally_load(&stats->totals, in);
    state_get_end(in);
    state_get_record(in, "events");
    events_load(&stats->events, in);
    state_get_end(in);
    stats->accepted = state_get(in, "accepted", 0);
    stats->closed = state_get(in, "closed", 0);
    return !in->at.failed;
}
