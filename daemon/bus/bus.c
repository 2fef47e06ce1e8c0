/* The life of clients on the bus, and the entry of every event. */
#include "bus/bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/log.h"
#include "base/slice.h"
#include "base/state.h"
#include "base/store.h"
#include "bus/delivery.h"
#include "bus/flush.h"
#include "bus/heritage.h"
#include "bus/kept.h"
#include "bus/roster.h"
#include "client/books.h"
#include "client/pace.h"
#include "client/subscription.h"

static struct log_limit comings = { .kind = "clients: connected and closed" };

/* The host of every client is a bus. */
static struct bus *bus_of(const struct client *client)
{
    return (struct bus *)((char *)(uintptr_t)client->host - offsetof(struct bus, host));
}

/* A successor continues from these counts. */
static void bus_note_counts(const struct bus *bus)
{
    struct ledger_header *header = bus->ledger->header;
    header->last_index = bus->last_index;
    header->accepted = bus->accepted;
    header->closed = bus->closed;
}

/* ---- observers -------------------------------------------------------------------------------------------------- */

void bus_observe(struct bus *bus, struct observer *observer)
{
    DL_APPEND(bus->observers, observer);
}

void bus_unobserve(struct bus *bus, struct observer *observer)
{
    DL_DELETE(bus->observers, observer);
}

static void bus_show_message(const struct bus *bus, const struct client *client, const char *bytes, size_t length)
{
    const struct observer *observer = NULL;
    DL_FOREACH(bus->observers, observer)
    observer->message(observer->owner, client, bytes, length);
}

/* ---- what clients tell us -------------------------------------------------------------------------------------- */

static bool bus_on_message(struct client *client, const char *bytes, size_t length)
{
    struct bus *bus = bus_of(client);
    if (client->roster.leaving && !client->roster.too_slow)
        return false;
    const bool taken = bus->upstream.message(bus->upstream.owner, client, bytes, length);
    if (taken && bus->observers != NULL)
        bus_show_message(bus, client, bytes, length);
    return taken;
}

static void bus_on_ended(struct client *client)
{
    struct bus *bus = bus_of(client);
    heritage_leave(bus, client, DROP_CLOSED);
    bus->upstream.ended(bus->upstream.owner, client);
}

static void bus_on_failed(struct client *client)
{
    struct bus *bus = bus_of(client);
    heritage_leave(bus, client, DROP_CLOSED);
    roster_delist(bus, client);
}

static void bus_on_commit(struct client *client)
{
    struct bus *bus = bus_of(client);
    bus->upstream.commit(bus->upstream.owner);
}

static void bus_on_gone(struct client *client)
{
    struct bus *bus = bus_of(client);
    char subject[CLIENT_SUBJECT];
    client_subject(client, subject);
    log_limited(&comings, LEVEL_INFO, subject, "%s %s %u closed", client->address, remote_noun(&client->origin),
                client->port);
    bus->closed++;
    ledger_note_closed(client->slot, true);
    bus_note_counts(bus);
    store_forget_client(client->index);
    roster_forget(bus, client);
    if (client->listener != NULL)
        listener_note_gone(client->listener);
    bus->upstream.gone(bus->upstream.owner, client);
}

static void bus_on_postponed(struct client *client)
{
    roster_postpone(bus_of(client), client);
}

static void bus_on_tag(void *owner, uint64_t hash, bool present)
{
    struct bus *bus = owner;
    bus->upstream.present(bus->upstream.owner, hash, present);
}

/* ---- life of a client ------------------------------------------------------------------------------------------ */

/* Indexes count up; after 2^31 - 1 (an int in the routing script) they start again at 1, skipping those in use. */
static uint32_t bus_next_index(struct bus *bus)
{
    do
        bus->last_index = bus->last_index >= INT32_MAX ? 1 : bus->last_index + 1;
    while (roster_find(bus, bus->last_index) != NULL);
    return bus->last_index;
}

/* No queue may exceed the limit for all queues. */
static void bus_bound_queue(const struct bus *bus, struct client_limits *limits)
{
    if (limits->max_queued_bytes > bus->max_total_queued_bytes)
        limits->max_queued_bytes = bus->max_total_queued_bytes;
}

bool bus_connect(struct bus *bus, int fd, const struct remote *remote, const struct client_limits *limits,
                 struct listener *listener)
{
    struct client_limits own = *limits;
    bus_bound_queue(bus, &own);
    struct client *client = client_open(bus->loop, fd, bus_next_index(bus), remote, &own, &bus->host);
    if (client == NULL)
        return false;
    char subject[CLIENT_SUBJECT];
    client_set_listener(client, listener);
    ledger_note_listener(client->slot, listener_name(listener));
    if (!roster_add(bus, client)) {
        client_discard(client);
        return false;
    }
    if (!bus->upstream.opened(bus->upstream.owner, client)) {
        roster_remove(bus, client);
        client_discard(client);
        return false;
    }
    bus->accepted++;
    bus_note_counts(bus);
    store_keep_client(fd, client->index);
    client_subject(client, subject);
    log_limited(&comings, LEVEL_INFO, subject, "%s %s %u connected to %s", client->address,
                remote_noun(&client->origin), client->port, listener_name(listener));
    return true;
}

/* What waited for its tag is the client's before it can be given anything else. If it has hung up meanwhile, it goes. */
void bus_admit(struct bus *bus, struct client *client)
{
    struct kept *inherited = heritage_inherit(bus, client);
    client_admit(client);
    if (client_may_receive(client))
        roster_enlist(bus, client);
    if (inherited != NULL)
        kept_close(bus, inherited, NULL);
    if (client->input.over)
        heritage_leave(bus, client, DROP_CLOSED);
    if (!outq_is_empty(&client->out))
        roster_mark_dirty(bus, client);
}

void bus_readmit(struct bus *bus, struct client *client)
{
    roster_suspend(bus, client);
    client_readmit(client);
}

void bus_set_admits(struct bus *bus, bool admits)
{
    bus->host.admits = admits;
    for (struct client *client = bus->roster.clients; client != NULL; client = client->hh.next)
        client_time_admission(client);
}

void bus_release(struct bus *bus, struct client *client)
{
    tag_remove(&bus->tags, client);
    roster_remove(bus, client);
    if (client->listener != NULL)
        listener_release(client->listener, &client->origin);
    client_free(client);
}

void bus_tag(struct bus *bus, struct client *client, const char *tag, size_t tag_length)
{
    const struct tag *now = client->tagging.tag;
    if (now != NULL && tag_find(&bus->tags, tag, tag_length) == now)
        return; /* it keeps its place among the tag's clients */
    if (tag_length == 0)
        tag_remove(&bus->tags, client);
    else if (!tag_give(&bus->tags, client, tag, tag_length))
        log_line(LEVEL_ERROR, "bus", "no memory for the tag of client %u", client->index);
    now = client->tagging.tag;
    ledger_note_tag(bus->ledger, client->slot, now != NULL ? now->name : NULL, now != NULL ? now->length : 0);
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

/* Most of the time nobody observes. */
__attribute__((noinline)) static void bus_show_event(const struct bus *bus, const struct event *event,
                                                     uint32_t receivers)
{
    struct event shown = *event;
    const struct observer *observer = NULL;
    shown.guest = NULL; /* it may be freed by now */
    DL_FOREACH(bus->observers, observer)
    observer->event(observer->owner, &shown, receivers);
}

uint32_t bus_issue(struct bus *bus, const struct event *event)
{
    const uint32_t receivers = delivery_give(bus, event);
    bus->events.relay += event->kind == EVENT_RELAY;
    bus->events.multicast += event->kind == EVENT_MULTICAST;
    bus->events.unicast += event->kind == EVENT_UNICAST;
    bus->events.send += event->kind == EVENT_SEND;
    bus->events.no_receiver += receivers == 0;
    if (bus->observers != NULL)
        bus_show_event(bus, event, receivers);
    return receivers;
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */

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
                                      .commit = bus_on_commit,
                                      .postpone = bus_on_postponed,
                                      .ledger = ledger,
                                      .totals = &bus->totals,
                                      .waits = &bus->waits,
                                      .polls = &bus->flush.polls,
                                      .scratch = bus->scratch };
    for (int framing = 0; framing < FRAMINGS; framing++)
        run_open(&bus->runs[framing], (enum framing)framing);
    bus->tags = (struct tag_index){ .watch = bus_on_tag, .owner = bus };
}

void bus_set_upstream(struct bus *bus, struct bus_upstream upstream)
{
    bus->upstream = upstream;
}

void bus_close(struct bus *bus)
{
    struct client *client = NULL;
    struct client *next = NULL;
    HASH_ITER(hh, bus->roster.clients, client, next)
    client_drop(client, DROP_CLOSED);
    kept_close_all(bus);
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
    client_set_listener(client, listener);
    const bool added = roster_add(bus, client);
    if (added && bus->upstream.opened(bus->upstream.owner, client)) {
        if (fd >= 0)
            store_keep_client(fd, client->index);
        roster_restore_there(client);
        return client;
    }
    if (added)
        roster_remove(bus, client);
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

/* Give the clients their tags back, in the order in which they had got them. */
static void bus_restore_tags(struct bus *bus)
{
    size_t count = 0;
    struct client **clients = malloc((HASH_COUNT(bus->roster.clients) + 1) * sizeof(struct client *));
    for (struct client *client = bus->roster.clients; clients != NULL && client != NULL; client = client->hh.next)
        if (client->slot->tag_length > 0 && client->slot->tag_length <= EVAPID_TAG_MAX)
            clients[count++] = client;
    if (count > 0)
        qsort(clients, count, sizeof(struct client *), by_tag_order);
    for (size_t i = 0; i < count; i++)
        if (!tag_give(&bus->tags, clients[i], clients[i]->slot->tag, clients[i]->slot->tag_length))
            log_line(LEVEL_ERROR, "bus", "no memory for the tag of client %u", clients[i]->index);
        else
            tag_restore_turn(clients[i]);
    free(clients);
}

/* What the last evapid has counted as waiting and did not leave us is lost. */
static void bus_restore_kept_books(struct bus *bus)
{
    const struct kept *kept = NULL;
    DL_FOREACH(bus->keeping.first, kept)
    {
        struct tally *tally = &kept->slot->tally;
        const uint64_t waiting = tally->relayed - tally->delivered - tally_dropped(tally);
        tally_add(&bus->totals, tally);
        books_count_kept_dropped(bus->ledger, kept->slot, &bus->totals, DROP_LOST, waiting - outq_events(&kept->out));
    }
}

void bus_restore_books(struct bus *bus, const struct event_counts *events)
{
    const struct ledger_header *header = bus->ledger->header;
    bus_restore_tags(bus);
    bus->last_index = header->last_index;
    bus->accepted = header->accepted;
    bus->closed = header->closed;
    bus->totals = header->gone;
    bus->events = *events;
    for (struct client *client = bus->roster.clients; client != NULL; client = client->hh.next)
        tally_add(&bus->totals, subscription_tally(client));
    bus_restore_kept_books(bus);
}

void bus_set_limits(struct bus *bus, size_t max_total_queued_bytes)
{
    bus->max_total_queued_bytes = max_total_queued_bytes;
    for (struct client *client = bus->roster.clients; client != NULL; client = client->hh.next) {
        if (client->listener == NULL)
            continue;
        struct client_limits own = client->listener->limits;
        bus_bound_queue(bus, &own);
        client_set_limits(client, &own);
    }
}

void bus_set_kept_limits(struct bus *bus, struct kept *kept, const struct client_limits *limits)
{
    struct client_limits own = *limits;
    bus_bound_queue(bus, &own);
    kept_set_limits(bus, kept, &own);
}

void bus_report_gone(struct bus *bus)
{
    struct client *client = NULL;
    struct client *next = NULL;
    HASH_ITER(hh, bus->roster.clients, client, next)
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
        state_get_record(in, framing_name((enum framing)framing));
        if (!run_load(&bus->runs[framing], in))
            return false;
        state_get_end(in);
    }
    events_load(&bus->events, in);
    bus->host.admits = state_get(in, "admits", 0) == 1;
    return !in->at.failed;
}

void bus_save_client(struct client *client, struct state_out *out)
{
    state_put(out, "listed", client->roster.receives);
    state_put(out, "has-turn", tag_has_turn(client));
    client_save(client, out);
    state_put_record(out, "pace");
    pace_save(client, out);
    state_put_end(out);
}

/* A client that gets events continues at its place in its run: it does not start to follow it. */
bool bus_load_client(struct bus *bus, struct client *client, struct state_in *in)
{
    const bool listed = state_get(in, "listed", 0) == 1;
    tag_await_turn(client, state_get(in, "has-turn", 0) == 1);
    bool lost = false;
    if (!client_load(client, in, &lost))
        return false;
    state_get_record(in, "pace");
    if (!pace_load(client, &bus->runs[client->out.framing], in))
        return false;
    state_get_end(in);
    bus->lost += lost;
    bus->ledger->header->closed += lost;
    ledger_note_closed(client->slot, client->state == CLIENT_GONE);
    roster_restore_there(client);
    if (!listed || client->state == CLIENT_GONE)
        return true;
    if (!client_may_receive(client) || !roster_restore(bus, client))
        return state_fail(in);
    pace_note_limits(client);
    return true;
}

/* ---- once a second ---------------------------------------------------------------------------------------------- */

void bus_tick(struct bus *bus)
{
    struct client *client = NULL;
    struct client *next = NULL;
    const uint64_t now = uv_now(bus->loop);
    kept_tick(bus, histogram_clock_ns() + SLICE_NS);
    HASH_ITER(hh, bus->roster.clients, client, next)
    {
        client_tick(client);
        pace_note(client);
        client_check_deadline(client);
        if (client->roster.leaving)
            continue;
        if (client->state == CLIENT_FLUSHING && now >= client->deadline_ms) {
            flush_leave(bus, client);
        } else if (client_is_overdue(client, now)) {
            listener_turn_away(client->listener, client);
            flush_leave(bus, client);
        }
    }
}
