/* One path for every event: who receives it, and what happens to a client that cannot take it. */
#include "bus/delivery.h"

#include <utlist.h>

#include "base/log.h"
#include "bus/flush.h"
#include "bus/group.h"
#include "bus/kept.h"
#include "bus/roster.h"
#include "bus/shed.h"
#include "client/output.h"
#include "client/pace.h"
#include "client/subscription.h"

static struct log_limit unfit = { .kind = "clients: events dropped for their size" };

/* An event of size bytes did not fit into a client's queue. */
static void delivery_refused(struct bus *bus, struct client *client, size_t size, enum drop_reason reason)
{
    char subject[CLIENT_SUBJECT];
    if (reason == DROP_SLOW && client->pace.policy == SLOW_DISCONNECT) {
        flush_cut_off(bus, client);
        return;
    }
    if (reason == DROP_SLOW) {
        if (client->pace.policy == SLOW_DROP_NEWEST && client->roster.receives)
            pace_skip(client, &bus->runs[client->out.framing]);
        return;
    }
    if (reason == DROP_CLOSED)
        return; /* its socket has just failed, and that was logged */
    client_subject(client, subject);
    log_limited(&unfit, LEVEL_WARNING, subject, "an event of %zu bytes is dropped: %s (max_queued_bytes %zu)", size,
                reason == DROP_LARGE ? "it is larger than the queue may be" : "no memory", client->out.limit);
}

/* ---- to every client ------------------------------------------------------------------------------------------- */

/* An event of size bytes is about to be appended, and may be too much for a follower of the run. Followers that cannot
 * take it leave the run. Returns whether any of them follows again after the event. */
static bool delivery_review(struct bus *bus, struct run *run, size_t size)
{
    struct client *client = NULL;
    struct client *next = NULL;
    bool skipped = false;
    enum drop_reason reason = DROP_SLOW;
    run_begin_review(run);
    DL_FOREACH_SAFE2(bus->roster.receivers, client, next, roster.next)
    {
        if (client->out.run != run)
            continue;
        if (client_can_accept(client, size, &reason)) {
            run_review_at(run, outq_review_at(&client->out));
            continue;
        }
        if (reason == DROP_LARGE || (reason == DROP_SLOW && client->pace.policy != SLOW_DISCONNECT)) {
            subscription_leave(client);
            skipped = true;
        }
        delivery_refused(bus, client, size, reason); /* may free it */
    }
    return skipped;
}

/* There was no memory to append an event: none of the run's followers gets it. */
static void delivery_count_unappended(struct bus *bus, const struct run *run, size_t size)
{
    struct client *client = NULL;
    DL_FOREACH2(bus->roster.receivers, client, roster.next)
    if (client->out.run == run) {
        output_refuse(client, DROP_MEMORY);
        delivery_refused(bus, client, size, DROP_MEMORY);
    }
}

static void delivery_append(struct bus *bus, struct run *run, const struct payload *payload)
{
    const size_t size = framing_size(run->framing, payload_length(payload));
    if (size == 0)
        return; /* an empty event without framing has no bytes to send */
    struct tally *totals = bus->host.totals;
    run_offer(run);
    totals->relayed += run->skipped;
    totals->dropped[DROP_SLOW] += run->skipped;
    const bool skipped = run->bytes + size > run->review_at && delivery_review(bus, run, size);
    struct client *client = NULL;
    if (run->followers > 0 && !run_append(run, payload))
        delivery_count_unappended(bus, run, size);
    else
        totals->relayed += run->followers;
    if (!skipped)
        return;
    DL_FOREACH2(bus->roster.receivers, client, roster.next)
    if (client->out.run == NULL && client->subscription.skipped_by == NULL)
        subscription_follow(client, &bus->runs[client->out.framing]);
}

/* ---- to some --------------------------------------------------------------------------------------------------- */

/* An event for a few, framed when the first client of a framing gets it. */
struct parcel {
    const struct payload *payload;
    enum chunk_for meant_for;
    uint64_t tag_hash; /* 0: for clients whatever their tag */
    struct chunk *chunks[FRAMINGS];
};

/* The event in this framing; NULL: no memory. */
static struct chunk *parcel_chunk(struct parcel *parcel, enum framing framing)
{
    struct chunk **chunk = &parcel->chunks[framing];
    if (*chunk == NULL) {
        *chunk = chunk_of_event(framing, parcel->payload);
        if (*chunk != NULL)
            chunk_mark(*chunk, parcel->meant_for, parcel->tag_hash);
    }
    return *chunk;
}

static void parcel_clear(struct parcel *parcel)
{
    for (int framing = 0; framing < FRAMINGS; framing++)
        if (parcel->chunks[framing] != NULL)
            chunk_unref(parcel->chunks[framing]);
}

/* Does the guest get what is issued now with all that waits for its tag, once it is admitted? If others are about to be
 * admitted with the tag, one of them may come first and get all that. */
static bool delivery_is_heir(const struct client *guest, const struct parcel *parcel)
{
    const struct tag *tag = guest->tagging.tag;
    if (parcel->meant_for == CHUNK_FOR_ONE || tag == NULL || !tag_awaits(tag))
        return false;
    return parcel->meant_for == CHUNK_FOR_ANY || !tag_has_newcomer(tag, guest);
}

static enum chunk_for delivery_meant_for(enum event_kind kind)
{
    if (kind == EVENT_SEND)
        return CHUNK_FOR_ONE;
    return kind == EVENT_UNICAST ? CHUNK_FOR_ANY : CHUNK_FOR_ALL;
}

/* False: the client does not receive the event. */
static bool delivery_give_to(struct bus *bus, struct client *client, struct parcel *parcel, const struct client *guest)
{
    enum drop_reason reason = DROP_MEMORY;
    if (!client_receives(client, guest) || (client == guest && delivery_is_heir(guest, parcel)))
        return false;
    if (framing_size(client->out.framing, payload_length(parcel->payload)) == 0)
        return true;
    struct chunk *chunk = parcel_chunk(parcel, client->out.framing);
    if (chunk == NULL)
        output_refuse(client, DROP_MEMORY);
    if (chunk != NULL && client_give(client, chunk, &reason))
        roster_mark_dirty(bus, client);
    else
        delivery_refused(bus, client, payload_length(parcel->payload), reason);
    return true;
}

/* ---- to kept tags ----------------------------------------------------------------------------------------------- */

static void delivery_keep(struct bus *bus, struct kept *kept, struct parcel *parcel)
{
    if (framing_size(kept->out.framing, payload_length(parcel->payload)) > 0)
        kept_give(bus, kept, parcel_chunk(parcel, kept->out.framing));
}

/* Returns for how many tags the event now waits. A client that was cut off for this event, after so many begins of kept
 * tags, has it in its books. */
static uint32_t delivery_keep_for_all(struct bus *bus, struct parcel *parcel, uint64_t begins)
{
    uint32_t tags = 0;
    struct kept *kept = NULL;
    DL_FOREACH(bus->keeping.first, kept)
    {
        if (!tag_awaits(kept->tag) || (kept->full && kept->begin > begins))
            continue;
        delivery_keep(bus, kept, parcel);
        tags++;
    }
    return tags;
}

/* If the tag is kept, the event waits for its next client. Returns how many were meant to get it, that one too. */
static uint32_t delivery_keep_for(struct bus *bus, struct parcel *parcel, const struct event *event, uint32_t receivers)
{
    const struct tag *tag = bus->keeping.count > 0 ? tag_find(&bus->tags, event->tag, event->tag_length) : NULL;
    if (tag == NULL || !tag_awaits(tag) || (receivers > 0 && tag->kept->full))
        return receivers; /* a client that was cut off for this event has it in its books */
    delivery_keep(bus, tag->kept, parcel);
    return receivers > 0 ? receivers : 1;
}

/* ---- receivers -------------------------------------------------------------------------------------------------- */

/* Kept tags come last: a client that could not be sent the event may have left its tag to be kept. */

static uint32_t delivery_relay(struct bus *bus, struct parcel *parcel, struct client *guest)
{
    const uint64_t begins = bus->keeping.begins;
    uint32_t receivers = bus->roster.receiver_count;
    if (guest != NULL && !guest->roster.receives)
        receivers += delivery_give_to(bus, guest, parcel, guest);
    for (int framing = 0; framing < FRAMINGS; framing++)
        if (bus->runs[framing].followers + bus->runs[framing].skipped > 0)
            delivery_append(bus, &bus->runs[framing], parcel->payload);
    return bus->keeping.count > 0 ? receivers + delivery_keep_for_all(bus, parcel, begins) : receivers;
}

static uint32_t delivery_multicast(struct bus *bus, struct parcel *parcel, const struct event *event,
                                   const struct client *guest)
{
    uint32_t receivers = 0;
    const struct tag *tag = tag_find(&bus->tags, event->tag, event->tag_length);
    struct client *client = tag != NULL ? tag->first : NULL;
    parcel->tag_hash = tag != NULL ? tag->hash : 0;
    while (client != NULL) {
        struct client *next = client->tagging.next; /* a slow client leaves the tag, which may be freed with it */
        receivers += delivery_give_to(bus, client, parcel, guest);
        client = next;
    }
    return delivery_keep_for(bus, parcel, event, receivers);
}

static uint32_t delivery_unicast(struct bus *bus, struct parcel *parcel, const struct event *event,
                                 const struct client *guest)
{
    struct tag *tag = tag_find(&bus->tags, event->tag, event->tag_length);
    struct client *client = tag != NULL ? group_choose(tag, guest, payload_length(event->payload)) : NULL;
    parcel->tag_hash = tag != NULL ? tag->hash : 0;
    const bool given = client != NULL && delivery_give_to(bus, client, parcel, guest);
    return delivery_keep_for(bus, parcel, event, given);
}

/* To one client by its index. */
static uint32_t delivery_send(struct bus *bus, struct parcel *parcel, uint32_t index, const struct client *guest)
{
    struct client *client = index != 0 ? roster_find(bus, index) : NULL;
    return client != NULL && delivery_give_to(bus, client, parcel, guest);
}

uint32_t delivery_give(struct bus *bus, const struct event *event)
{
    struct parcel parcel = { .payload = event->payload, .meant_for = delivery_meant_for(event->kind) };
    struct client *guest = shed_make_room(bus, event);
    uint32_t receivers = 0;
    if (event->kind == EVENT_RELAY)
        receivers = delivery_relay(bus, &parcel, guest);
    else if (event->kind == EVENT_MULTICAST)
        receivers = delivery_multicast(bus, &parcel, event, guest);
    else if (event->kind == EVENT_SEND)
        receivers = delivery_send(bus, &parcel, event->index, guest);
    else
        receivers = delivery_unicast(bus, &parcel, event, guest);
    parcel_clear(&parcel);
    return receivers;
}
