/* Freeing memory for queues when it is short. */
#include "bus/shed.h"

#include <uthash.h>
#include <utlist.h>

#include "base/log.h"
#include "bus/flush.h"
#include "bus/heritage.h"
#include "bus/kept.h"
#include "bus/roster.h"
#include "client/books.h"
#include "client/pace.h"

#define SHED_PART 16U /* this part of the limit is then free, so that the next event need not shed again */
/* Queues that are shorter than the longest by at most this part of it are cut with it: they share chunks, which are
 * freed only when no queue holds them. */
#define PEERS_PART 8U

static struct log_limit crowded = { .kind = "bus: short of memory for queues" };
static struct log_limit broken_off = { .kind = "clients: closed for want of memory" };

size_t shed_queue_memory(void)
{
    return chunk_memory() + outq_memory();
}

/* Memory that the event would add, to the runs or in chunks of its own. */
static size_t shed_cost(const struct bus *bus, const struct event *event)
{
    const size_t length = payload_length(event->payload);
    const bool to_all = event->kind == EVENT_RELAY;
    const struct client *guest = event->guest;
    const uint32_t kept = bus->keeping.count;
    size_t cost = 0;
    if (!to_all || guest != NULL || kept > 0)
        cost = outq_growth(kept + (to_all ? 1 : bus->roster.receiver_count + 1));
    for (int framing = 0; framing < FRAMINGS; framing++) {
        const struct run *run = &bus->runs[framing];
        const size_t size = framing_size((enum framing)framing, length);
        if (size == 0 || size > bus->max_total_queued_bytes)
            continue; /* nobody gets it */
        if (to_all && run->followers > 0)
            cost += run_cost(run, size);
        if ((!to_all && run->followers > 0) || kept > 0 ||
            (guest != NULL && guest->out.framing == (enum framing)framing))
            cost += chunk_cost(0, size);
    }
    return cost;
}

static size_t shed_longest_queue(const struct bus *bus)
{
    size_t longest = 0;
    for (const struct client *client = bus->roster.clients; client != NULL; client = client->hh.next)
        if (outq_bytes(&client->out) > longest)
            longest = outq_bytes(&client->out);
    return longest;
}

/* The only way to get this memory back is to drop the half-sent frame, and so the connection. */
static void shed_break_off(struct bus *bus, struct client *client)
{
    char subject[CLIENT_SUBJECT];
    client_subject(client, subject);
    log_limited(&broken_off, LEVEL_WARNING, subject,
                "%s %s %u has not read the rest of a frame (%zu bytes wait), and memory is short: closing it at once",
                client->address, remote_noun(&client->origin), client->port, outq_bytes(&client->out));
    heritage_leave_all(bus, client, DROP_SLOW);
    client_drop(client, DROP_SLOW);
}

/* Drop part of the client's queue: whole events, by its policy. If it holds no whole event, close the connection. This
 * may free the client. */
static void shed_client(struct bus *bus, struct client *client)
{
    const bool parts = outq_bytes(&client->out) > outq_begun(&client->out);
    if (parts && client->state == CLIENT_FLUSHING)
        books_count_dropped(client, DROP_SLOW, outq_keep_begun(&client->out));
    else if (parts && client->pace.policy == SLOW_DISCONNECT)
        flush_cut_off_short(bus, client);
    else if (!parts || !pace_shed(client, client->roster.receives ? &bus->runs[client->out.framing] : NULL))
        shed_break_off(bus, client);
}

static size_t shed_longest_kept(const struct bus *bus)
{
    size_t longest = 0;
    const struct kept *kept = NULL;
    DL_FOREACH(bus->keeping.first, kept)
    if (outq_bytes(&kept->out) > longest)
        longest = outq_bytes(&kept->out);
    return longest;
}

/* What waits for nobody that is here goes first. */
static void shed_kept(struct bus *bus, size_t memory)
{
    struct kept *kept = NULL;
    for (size_t longest = 1; shed_queue_memory() > memory && longest > 0;) {
        longest = shed_longest_kept(bus);
        DL_FOREACH(bus->keeping.first, kept)
        {
            if (longest == 0 || outq_bytes(&kept->out) < longest - longest / PEERS_PART)
                continue;
            kept_shed(bus, kept);
            if (shed_queue_memory() <= memory)
                return;
        }
    }
}

/* Shed until the queues take at most this much memory, or nothing waits. Each step leaves less to shed. */
static void shed_until(struct bus *bus, size_t memory)
{
    struct client *client = NULL;
    struct client *next = NULL;
    shed_kept(bus, memory);
    for (size_t longest = 1; shed_queue_memory() > memory && longest > 0;) {
        longest = shed_longest_queue(bus);
        HASH_ITER(hh, bus->roster.clients, client, next)
        {
            if (longest == 0 || outq_bytes(&client->out) < longest - longest / PEERS_PART)
                continue;
            shed_client(bus, client);
            flush_trim_runs(bus);
            if (shed_queue_memory() <= memory)
                return;
        }
    }
}

/* Is there room whatever the event costs? Nearly always; then its exact cost need not be computed. */
static inline bool shed_is_far_off(const struct bus *bus, size_t length)
{
    const size_t most = FRAMINGS * 2 * chunk_cost(RUN_CHUNK, length + FRAMING_MAX) +
                        outq_growth(bus->roster.receiver_count + bus->keeping.count + 1);
    return most <= bus->max_total_queued_bytes && shed_queue_memory() <= bus->max_total_queued_bytes - most;
}

struct client *shed_make_room(struct bus *bus, const struct event *event)
{
    if (shed_is_far_off(bus, payload_length(event->payload)))
        return event->guest;
    const uint32_t index = event->guest != NULL ? event->guest->index : 0;
    const size_t limit = bus->max_total_queued_bytes;
    const size_t free_part = limit / SHED_PART;
    const size_t cost = shed_cost(bus, event);
    if (cost <= limit && shed_queue_memory() <= limit - cost)
        return event->guest;
    bus->upstream.commit(bus->upstream.owner);
    flush_turn(bus); /* what can be sent need not be shed, and the runs free it */
    if (shed_queue_memory() + cost > limit - free_part) {
        log_limited(
            &crowded, LEVEL_WARNING, "bus",
            "the queues of all clients take %zu bytes (max_total_queued_bytes %zu): dropping what waits for the "
            "slowest",
            shed_queue_memory(), limit);
        shed_until(bus, limit - free_part > cost ? limit - free_part - cost : 0);
    }
    return event->guest != NULL ? roster_find(bus, index) : NULL;
}
