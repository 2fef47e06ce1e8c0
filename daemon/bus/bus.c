/* Delivery: one place decides who gets an event. */
#define HASH_NONFATAL_OOM 1 /* uthash: an allocation that fails leaves the table as it was */
#include "bus/bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/log.h"
#include "base/state.h"
#include "base/store.h"
#include "bus/flush.h"
#include "bus/group.h"
#include "bus/shed.h"
#include "client/output.h"
#include "client/pace.h"
#include "client/subscription.h"

#define CUT_OFF_MOST 500U /* clients that are cut off at once in a turn: some milliseconds */

static struct log_limit comings = { .kind = "clients: connected and closed" };
static struct log_limit unfit = { .kind = "clients: events dropped for their size" };
static struct log_limit slow = { .kind = "clients: disconnected for being slow" };

/* The host of every client is a bus. */
static struct bus *bus_of(const struct client *client)
{
    return (struct bus *)((char *)(uintptr_t)client->host - offsetof(struct bus, host));
}

/* ---- the lists ------------------------------------------------------------------------------------------------- */

static void bus_enlist(struct bus *bus, struct client *client)
{
    if (client->listed)
        return;
    client->listed = true;
    DL_APPEND(bus->listening, client);
    subscription_follow(client, &bus->runs[client->out.framing]);
    tag_note_listed(&bus->tags, client, true);
    bus->listening_count++;
    bus->upstream.admitted(bus->upstream.owner);
}

void bus_delist(struct bus *bus, struct client *client)
{
    if (!client->listed)
        return;
    tag_note_listed(&bus->tags, client, false);
    client->listed = false;
    DL_DELETE(bus->listening, client);
    subscription_leave(client);
    bus->listening_count--;
    bus->upstream.admitted(bus->upstream.owner);
}

/* A successor counts on from there. */
static void bus_note_counts(const struct bus *bus)
{
    struct ledger_header *header = bus->ledger->header;
    header->last_index = bus->last_index;
    header->accepted = bus->accepted;
    header->closed = bus->closed;
}

/* ---- what clients tell us -------------------------------------------------------------------------------------- */

static bool bus_on_message(struct client *client, const char *bytes, size_t length)
{
    struct bus *bus = bus_of(client);
    if (client->leaving && !client->too_slow)
        return false;
    const bool taken = bus->upstream.message(bus->upstream.owner, client, bytes, length);
    if (taken && bus->tap != NULL)
        bus->tap->message(bus->tap->owner, client, bytes, length);
    return taken;
}

static void bus_on_ended(struct client *client)
{
    struct bus *bus = bus_of(client);
    bus->upstream.ended(bus->upstream.owner, client);
}

static void bus_on_failed(struct client *client)
{
    bus_delist(bus_of(client), client);
}

static void bus_on_sends(struct client *client)
{
    struct bus *bus = bus_of(client);
    bus->upstream.sends(bus->upstream.owner);
}

static void bus_on_gone(struct client *client)
{
    struct bus *bus = bus_of(client);
    char subject[CLIENT_SUBJECT];
    client_subject(client, subject);
    log_limited(&comings, LEVEL_INFO, subject, "%s port %u closed", client->address, client->port);
    bus->closed++;
    client->slot->closed = true;
    bus_note_counts(bus);
    store_forget_client(client->index);
    bus_delist(bus, client);
    flush_mark_clean(bus, client);
    flush_forget(bus, client);
    if (client->listener != NULL)
        listener_note_gone(client->listener);
    bus->upstream.gone(bus->upstream.owner, client);
}

static void bus_on_postponed(struct client *client)
{
    struct bus *bus = bus_of(client);
    if (!client->postponed)
        DL_APPEND2(bus->postponed, client, due_prev, due_next);
    client->postponed = true;
}

static void bus_on_tag(void *owner, uint64_t hash, bool present)
{
    struct bus *bus = owner;
    bus->upstream.present(bus->upstream.owner, hash, present);
}

/* ---- life of a client ------------------------------------------------------------------------------------------ */

/* Indexes grow; after 2^31 - 1 (an int in the routing script) they begin anew, passing over those in use. */
static uint32_t bus_next_index(struct bus *bus)
{
    do
        bus->last_index = bus->last_index >= INT32_MAX ? 1 : bus->last_index + 1;
    while (bus_find(bus, bus->last_index) != NULL);
    return bus->last_index;
}

/* No queue may be longer than all together. */
static void bus_bound_queue(const struct bus *bus, struct client_limits *limits)
{
    if (limits->max_queued_bytes > bus->max_total_queued_bytes)
        limits->max_queued_bytes = bus->max_total_queued_bytes;
}

bool bus_connect(struct bus *bus, int fd, const struct sockaddr_storage *peer, const struct client_limits *limits,
                 struct listener *listener)
{
    struct client_limits own = *limits;
    bus_bound_queue(bus, &own);
    struct client *client = client_open(bus->loop, fd, bus_next_index(bus), peer, &own, &bus->host);
    if (client == NULL)
        return false;
    char subject[CLIENT_SUBJECT];
    client->listener = listener;
    snprintf(client->slot->listener, sizeof(client->slot->listener), "%s", listener_name(listener));
    HASH_ADD(hh, bus->clients, index, sizeof(client->index), client);
    if (client->hh.tbl == NULL) {
        client_discard(client);
        return false;
    }
    if (!bus->upstream.opened(bus->upstream.owner, client)) {
        HASH_DEL(bus->clients, client);
        client_discard(client);
        return false;
    }
    bus->accepted++;
    bus_note_counts(bus);
    store_keep_client(fd, client->index);
    client_subject(client, subject);
    log_limited(&comings, LEVEL_INFO, subject, "%s port %u connected to %s", client->address, client->port,
                listener_name(listener));
    return true;
}

void bus_admit(struct bus *bus, struct client *client)
{
    client_admit(client);
    if (client_listens(client))
        bus_enlist(bus, client);
    if (!outq_is_empty(&client->out))
        flush_mark_dirty(bus, client);
}

void bus_readmit(struct bus *bus, struct client *client)
{
    bus_delist(bus, client);
    client_readmit(client);
}

void bus_set_admits(struct bus *bus, bool admits)
{
    bus->host.admits = admits;
    for (struct client *client = bus->clients; client != NULL; client = client->hh.next)
        client_time_admission(client);
}

void bus_finish(struct bus *bus, struct client *client)
{
    bus_delist(bus, client);
    if (!outq_is_empty(&client->out))
        flush_mark_dirty(bus, client); /* what it was given in this turn */
    client_finish(client);
}

void bus_release(struct bus *bus, struct client *client)
{
    tag_take(&bus->tags, client);
    HASH_DEL(bus->clients, client);
    if (client->listener != NULL)
        listener_release(client->listener, &client->origin);
    client_free(client);
}

struct client *bus_find(const struct bus *bus, uint32_t index)
{
    struct client *client = NULL;
    HASH_FIND(hh, bus->clients, &index, sizeof(index), client);
    return client;
}

void bus_tag(struct bus *bus, struct client *client, const char *tag, size_t tag_length)
{
    struct ledger_slot *slot = client->slot;
    if (client->tag != NULL && tag_find(&bus->tags, tag, tag_length) == client->tag)
        return; /* it keeps its place among those of the tag */
    if (tag_length == 0)
        tag_take(&bus->tags, client);
    else if (!tag_give(&bus->tags, client, tag, tag_length))
        log_line(LEVEL_ERROR, "bus", "no memory for the tag of client %u", client->index);
    slot->tag_length = 0;
    if (client->tag == NULL)
        return;
    memcpy(slot->tag, client->tag->name, client->tag->length);
    slot->tag_order = ++bus->ledger->header->tag_orders;
    slot->tag_length = client->tag->length;
}

/* ---- delivery -------------------------------------------------------------------------------------------------- */

static void bus_say_slow(const struct client *client)
{
    char subject[CLIENT_SUBJECT];
    client_subject(client, subject);
    log_limited(&slow, LEVEL_WARNING, subject,
                "%s port %u does not keep up: %llu events (%zu bytes, limit %zu) wait for it; disconnecting it",
                client->address, client->port, (unsigned long long)outq_events(&client->out), outq_bytes(&client->out),
                client->out.limit);
}

void bus_disconnect_slow(struct bus *bus, struct client *client)
{
    bus_say_slow(client);
    bus_delist(bus, client);
    client_cut_off(client, DROP_SLOW);
}

/* An event of size bytes did not fit into a client's queue. */
static void bus_on_refused(struct bus *bus, struct client *client, size_t size, enum drop_reason reason)
{
    char subject[CLIENT_SUBJECT];
    if (reason == DROP_SLOW && client->pace.policy == SLOW_DISCONNECT) {
        if (++bus->cut_off <= CUT_OFF_MOST) {
            bus_disconnect_slow(bus, client);
        } else {
            bus_say_slow(client);
            flush_cut_off(bus, client);
        }
        return;
    }
    if (reason == DROP_SLOW) {
        if (client->pace.policy == SLOW_DROP_NEWEST && client->listed)
            pace_skip(client, &bus->runs[client->out.framing]);
        return;
    }
    if (reason == DROP_CLOSED)
        return; /* its socket has just failed, which was logged */
    client_subject(client, subject);
    log_limited(&unfit, LEVEL_WARNING, subject, "an event of %zu bytes is dropped: %s (max_queued_bytes %zu)", size,
                reason == DROP_LARGE ? "it is larger than the queue may be" : "no memory", client->out.limit);
}

size_t bus_queue_memory(void)
{
    return chunk_memory() + outq_memory();
}

/* ---- to every client ------------------------------------------------------------------------------------------- */

/* An event of size bytes is about to be appended, and may be too much for somebody who follows the run. Whoever can't take
 * it follows no more; returns whether any of those is to go on behind it. */
static bool bus_review(struct bus *bus, struct run *run, size_t size)
{
    struct client *client = NULL;
    struct client *next = NULL;
    bool passed_over = false;
    enum drop_reason reason = DROP_SLOW;
    run_begin_review(run);
    DL_FOREACH_SAFE(bus->listening, client, next)
    {
        if (client->out.run != run)
            continue;
        if (client_can_take(client, size, &reason)) {
            run_review_at(run, outq_review_at(&client->out));
            continue;
        }
        if (reason == DROP_LARGE || (reason == DROP_SLOW && client->pace.policy != SLOW_DISCONNECT)) {
            subscription_leave(client);
            passed_over = true;
        }
        bus_on_refused(bus, client, size, reason); /* may free it */
    }
    return passed_over;
}

/* There was no memory to append an event: nobody who follows the run gets it. */
static void bus_count_unappended(struct bus *bus, const struct run *run, size_t size)
{
    struct client *client = NULL;
    DL_FOREACH(bus->listening, client)
    if (client->out.run == run) {
        output_refuse(client, DROP_MEMORY);
        bus_on_refused(bus, client, size, DROP_MEMORY);
    }
}

static void bus_append(struct bus *bus, struct run *run, const struct payload *payload)
{
    const size_t size = framing_size(run->framing, payload_length(payload));
    if (size == 0)
        return; /* without framing there is nothing to be sent of an empty event */
    run_offer(run);
    bus->totals.relayed += run->skipped;
    bus->totals.dropped[DROP_SLOW] += run->skipped;
    const bool passed_over = run->bytes + size > run->review_at && bus_review(bus, run, size);
    struct client *client = NULL;
    if (run->followers > 0 && !run_append(run, payload))
        bus_count_unappended(bus, run, size);
    else
        bus->totals.relayed += run->followers;
    if (!passed_over)
        return;
    DL_FOREACH(bus->listening, client)
    if (client->out.run == NULL && client->subscription.skipped_by == NULL)
        subscription_follow(client, &bus->runs[client->out.framing]);
}

/* ---- to some --------------------------------------------------------------------------------------------------- */

/* An event for a few: framed when the first client of that framing gets it. */
struct parcel {
    const struct payload *payload;
    struct chunk *chunks[FRAMINGS];
};

/* The event in that framing, NULL when there is no memory. */
static struct chunk *parcel_chunk(struct parcel *parcel, enum framing framing)
{
    if (parcel->chunks[framing] == NULL)
        parcel->chunks[framing] = chunk_of_event(framing, parcel->payload);
    return parcel->chunks[framing];
}

static void parcel_clear(struct parcel *parcel)
{
    for (int framing = 0; framing < FRAMINGS; framing++)
        if (parcel->chunks[framing] != NULL)
            chunk_unref(parcel->chunks[framing]);
}

/* False: the client is none that gets it. */
static bool bus_deliver(struct bus *bus, struct client *client, struct parcel *parcel, const struct client *guest)
{
    enum drop_reason reason = DROP_MEMORY;
    if (!client_receives(client, guest))
        return false;
    if (framing_size(client->out.framing, payload_length(parcel->payload)) == 0)
        return true;
    struct chunk *chunk = parcel_chunk(parcel, client->out.framing);
    if (chunk == NULL)
        output_refuse(client, DROP_MEMORY);
    if (chunk != NULL && client_give(client, chunk, &reason))
        flush_mark_dirty(bus, client);
    else
        bus_on_refused(bus, client, payload_length(parcel->payload), reason);
    return true;
}

/* Somebody looks on. */
__attribute__((noinline)) static void bus_show(const struct bus *bus, enum event_kind kind,
                                               const struct payload *payload, const char *tag, size_t tag_length,
                                               uint32_t receivers)
{
    const struct passing passing = {
        .kind = kind, .payload = payload, .tag = tag, .tag_length = tag_length, .receivers = receivers
    };
    bus->tap->event(bus->tap->owner, &passing);
}

uint32_t bus_relay(struct bus *bus, const struct payload *payload, struct client *guest)
{
    struct parcel parcel = { .payload = payload };
    guest = shed_make_room(bus, payload, true, guest);
    uint32_t receivers = bus->listening_count;
    if (guest != NULL && !guest->listed)
        receivers += bus_deliver(bus, guest, &parcel, guest);
    for (int framing = 0; framing < FRAMINGS; framing++)
        if (bus->runs[framing].followers + bus->runs[framing].skipped > 0)
            bus_append(bus, &bus->runs[framing], payload);
    bus->events.relay++;
    bus->events.no_receiver += receivers == 0;
    parcel_clear(&parcel);
    if (bus->tap != NULL)
        bus_show(bus, EVENT_RELAY, payload, NULL, 0, receivers);
    return receivers;
}

uint32_t bus_multicast(struct bus *bus, const struct payload *payload, const char *tag, size_t tag_length,
                       struct client *guest)
{
    guest = shed_make_room(bus, payload, false, guest);
    const struct tag *found = tag_find(&bus->tags, tag, tag_length);
    struct client *client = found != NULL ? found->first : NULL;
    struct parcel parcel = { .payload = payload };
    uint32_t receivers = 0;
    while (client != NULL) {
        struct client *next = client->tag_next; /* a slow client leaves the tag, and may take the tag with it */
        receivers += bus_deliver(bus, client, &parcel, guest);
        client = next;
    }
    bus->events.multicast++;
    bus->events.no_receiver += receivers == 0;
    parcel_clear(&parcel);
    if (bus->tap != NULL)
        bus_show(bus, EVENT_MULTICAST, payload, tag, tag_length, receivers);
    return receivers;
}

uint32_t bus_unicast(struct bus *bus, const struct payload *payload, const char *tag, size_t tag_length,
                     struct client *guest)
{
    guest = shed_make_room(bus, payload, false, guest);
    struct tag *found = tag_find(&bus->tags, tag, tag_length);
    struct client *client = found != NULL ? group_choose(found, guest, payload_length(payload)) : NULL;
    struct parcel parcel = { .payload = payload };
    const bool received = client != NULL && bus_deliver(bus, client, &parcel, guest);
    bus->events.unicast++;
    bus->events.no_receiver += !received;
    parcel_clear(&parcel);
    if (bus->tap != NULL)
        bus_show(bus, EVENT_UNICAST, payload, tag, tag_length, received);
    return received;
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */

bool bus_is_flushed(const struct bus *bus)
{
    for (const struct client *client = bus->clients; client != NULL; client = client->hh.next)
        if (!outq_is_empty(&client->out))
            return false;
    return true;
}

void bus_commit(struct bus *bus, uint64_t instance, uint64_t tail)
{
    ledger_commit(bus->ledger, instance, tail, bus->runs, &bus->events);
}

void bus_open(struct bus *bus, uv_loop_t *loop, struct ledger *ledger)
{
    bus->loop = loop;
    bus->ledger = ledger;
    bus->waits = (struct waits){ .histogram = &ledger->header->meter.queue_wait };
    bus->max_total_queued_bytes = SIZE_MAX;
    bus->host = (struct client_host){ .message = bus_on_message,
                                      .ended = bus_on_ended,
                                      .failed = bus_on_failed,
                                      .gone = bus_on_gone,
                                      .sends = bus_on_sends,
                                      .postpone = bus_on_postponed,
                                      .ledger = ledger,
                                      .totals = &bus->totals,
                                      .waits = &bus->waits,
                                      .polls = &bus->polls,
                                      .scratch = bus->scratch };
    for (int framing = 0; framing < FRAMINGS; framing++)
        run_open(&bus->runs[framing], (enum framing)framing);
    bus->tags = (struct tag_index){ .watch = bus_on_tag, .owner = bus };
}

void bus_close(struct bus *bus)
{
    struct client *client = NULL;
    struct client *next = NULL;
    HASH_ITER(hh, bus->clients, client, next)
    client_drop(client, DROP_CLOSED);
    for (int framing = 0; framing < FRAMINGS; framing++)
        run_close(&bus->runs[framing]);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

struct client *bus_adopt(struct bus *bus, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                         struct listener *listener)
{
    struct client_limits own = *limits;
    bus_bound_queue(bus, &own);
    struct client *client = client_adopt(bus->loop, fd, slot, &own, &bus->host);
    if (client == NULL)
        return NULL;
    client->listener = listener;
    HASH_ADD(hh, bus->clients, index, sizeof(client->index), client);
    if (client->hh.tbl != NULL && bus->upstream.opened(bus->upstream.owner, client)) {
        if (fd >= 0)
            store_keep_client(fd, client->index);
        return client;
    }
    if (client->hh.tbl != NULL)
        HASH_DEL(bus->clients, client);
    client_abandon(client);
    return NULL;
}

static int by_tag_order(const void *a, const void *b)
{
    const struct client *const *left = a;
    const struct client *const *right = b;
    return ((*left)->slot->tag_order > (*right)->slot->tag_order) -
           ((*left)->slot->tag_order < (*right)->slot->tag_order);
}

/* Give the clients their tags, in the order in which they had got them. */
static void bus_take_tags(struct bus *bus)
{
    size_t count = 0;
    struct client **clients = malloc((HASH_COUNT(bus->clients) + 1) * sizeof(struct client *));
    for (struct client *client = bus->clients; clients != NULL && client != NULL; client = client->hh.next)
        if (client->slot->tag_length > 0 && client->slot->tag_length <= EVAPID_TAG_MAX)
            clients[count++] = client;
    if (count > 0)
        qsort(clients, count, sizeof(struct client *), by_tag_order);
    for (size_t i = 0; i < count; i++)
        if (!tag_give(&bus->tags, clients[i], clients[i]->slot->tag, clients[i]->slot->tag_length))
            log_line(LEVEL_ERROR, "bus", "no memory for the tag of client %u", clients[i]->index);
        else if (clients[i]->has_turn)
            tag_set_turn(clients[i]);
    free(clients);
}

void bus_take_books(struct bus *bus, const struct event_counts *events)
{
    const struct ledger_header *header = bus->ledger->header;
    bus_take_tags(bus);
    bus->last_index = header->last_index;
    bus->accepted = header->accepted;
    bus->closed = header->closed;
    bus->totals = header->gone;
    bus->events = *events;
    for (struct client *client = bus->clients; client != NULL; client = client->hh.next)
        tally_add(&bus->totals, subscription_tally(client));
}

void bus_set_limits(struct bus *bus, size_t max_total_queued_bytes)
{
    bus->max_total_queued_bytes = max_total_queued_bytes;
    for (struct client *client = bus->clients; client != NULL; client = client->hh.next) {
        if (client->listener == NULL)
            continue;
        struct client_limits own = client->listener->limits;
        bus_bound_queue(bus, &own);
        client_set_limits(client, &own);
    }
}

void bus_settle_gone(struct bus *bus)
{
    struct client *client = NULL;
    struct client *next = NULL;
    HASH_ITER(hh, bus->clients, client, next)
    if (client->state == CLIENT_GONE)
        bus->upstream.gone(bus->upstream.owner, client);
}

void bus_save(struct bus *bus, struct state_out *out)
{
    for (int framing = 0; framing < FRAMINGS; framing++) {
        state_put_record(out, framing_name((enum framing)framing));
        run_save(&bus->runs[framing], out);
        state_put_end(out);
    }
    events_save(&bus->events, out);
    state_put(out, "admits", bus->host.admits);
}

bool bus_load(struct bus *bus, struct state_in *in)
{
    for (int framing = 0; framing < FRAMINGS; framing++) {
        state_take_record(in, framing_name((enum framing)framing));
        if (!run_load(&bus->runs[framing], in))
            return false;
        state_take_end(in);
    }
    events_load(&bus->events, in);
    bus->host.admits = state_take(in, "admits", 0) == 1;
    return !in->at.failed;
}

void bus_save_client(struct client *client, struct state_out *out)
{
    state_put(out, "listed", client->listed);
    state_put(out, "has-turn", tag_has_turn(client));
    client_save(client, out);
    state_put_record(out, "pace");
    pace_save(client, out);
    state_put_end(out);
}

/* A client that gets events goes on where it stood in its run: it doesn't begin to follow it. */
bool bus_load_client(struct bus *bus, struct client *client, struct state_in *in)
{
    struct run *run = &bus->runs[client->out.framing];
    const bool listed = state_take(in, "listed", 0) == 1;
    client->has_turn = state_take(in, "has-turn", 0) == 1;
    bool lost = false;
    if (!client_load(client, in, &lost))
        return false;
    state_take_record(in, "pace");
    if (!pace_load(client, run, in))
        return false;
    state_take_end(in);
    bus->lost += lost;
    bus->ledger->header->closed += lost;
    client->slot->closed = client->state == CLIENT_GONE;
    if (!listed || client->state == CLIENT_GONE)
        return true;
    if (!client_listens(client) || client->out.followed == (client->subscription.skipped_by != NULL) ||
        !outq_resume(&client->out, run))
        return state_fail(in);
    client->listed = true;
    DL_APPEND(bus->listening, client);
    bus->listening_count++;
    pace_note_limits(client);
    return true;
}
