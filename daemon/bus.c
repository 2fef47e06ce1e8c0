/* Delivery: one place decides who gets an event. */
#define HASH_NONFATAL_OOM 1 /* uthash: an allocation that fails leaves the table as it was */
#include "bus.h"

#include <stdio.h>
#include <utlist.h>

#include "listener.h"
#include "log.h"

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
    tag_note_listed(&bus->tags, client, true);
    bus->listening_count++;
    bus->upstream.admitted(bus->upstream.owner);
}

static void bus_delist(struct bus *bus, struct client *client)
{
    if (!client->listed)
        return;
    tag_note_listed(&bus->tags, client, false);
    client->listed = false;
    DL_DELETE(bus->listening, client);
    bus->listening_count--;
    bus->upstream.admitted(bus->upstream.owner);
}

static void bus_mark_dirty(struct bus *bus, struct client *client)
{
    if (client->dirty)
        return;
    client->dirty = true;
    DL_APPEND2(bus->dirty, client, dirty_prev, dirty_next);
}

static void bus_mark_clean(struct bus *bus, struct client *client)
{
    if (!client->dirty)
        return;
    client->dirty = false;
    DL_DELETE2(bus->dirty, client, dirty_prev, dirty_next);
}

/* ---- what clients tell us -------------------------------------------------------------------------------------- */

static bool bus_on_message(struct client *client, const char *bytes, size_t length)
{
    struct bus *bus = bus_of(client);
    return bus->upstream.message(bus->upstream.owner, client, bytes, length);
}

static void bus_on_ended(struct client *client)
{
    struct bus *bus = bus_of(client);
    bus->upstream.ended(bus->upstream.owner, client);
}

static void bus_on_gone(struct client *client)
{
    struct bus *bus = bus_of(client);
    char subject[32];
    snprintf(subject, sizeof(subject), "client %u", client->index);
    log_limited(&comings, LEVEL_INFO, subject, "%s port %u closed", client->address, client->port);
    bus->closed++;
    bus_delist(bus, client);
    bus_mark_clean(bus, client);
    listener_leave(client->listener);
    client->listener = NULL;
    bus->upstream.gone(bus->upstream.owner, client);
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

bool bus_connect(struct bus *bus, int fd, const struct sockaddr_storage *peer, const struct client_limits *limits,
                 struct listener *listener)
{
    struct client *client = client_open(bus->loop, fd, peer, limits, &bus->host);
    if (client == NULL)
        return false;
    char subject[32];
    client->index = bus_next_index(bus);
    client->listener = listener;
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
    snprintf(subject, sizeof(subject), "client %u", client->index);
    log_limited(&comings, LEVEL_INFO, subject, "%s port %u connected to %s", client->address, client->port,
                listener_name(listener));
    return true;
}

void bus_admit(struct bus *bus, struct client *client)
{
    client_admit(client);
    if (client_listens(client))
        bus_enlist(bus, client);
    if (client->out.count > 0)
        bus_mark_dirty(bus, client);
}

void bus_readmit(struct bus *bus, struct client *client)
{
    bus_delist(bus, client);
    client_readmit(client);
}

void bus_finish(struct bus *bus, struct client *client)
{
    bus_delist(bus, client);
    client_finish(client);
}

void bus_release(struct bus *bus, struct client *client)
{
    tag_take(&bus->tags, client);
    HASH_DEL(bus->clients, client);
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
    if (tag_length == 0)
        tag_take(&bus->tags, client);
    else if (!tag_give(&bus->tags, client, tag, tag_length))
        log_line(LEVEL_ERROR, "bus", "no memory for the tag of client %u", client->index);
}

/* ---- delivery -------------------------------------------------------------------------------------------------- */

/* A client whose queue is full is closed, and with it all that it had not read: it can tell that it has missed
 * something only by that. */
static void bus_disconnect_slow(struct bus *bus, struct client *client)
{
    char subject[32];
    snprintf(subject, sizeof(subject), "client %u", client->index);
    log_limited(&slow, LEVEL_WARNING, subject,
                "%s port %u does not keep up: %zu events (%zu bytes, limit %zu) wait for it; disconnecting it",
                client->address, client->port, client->out.count, client->out.bytes, client->out.limit);
    bus_delist(bus, client);
    client_cut_off(client, DROP_SLOW);
}

/* An event did not fit into a client's queue. */
static void bus_on_refused(struct bus *bus, struct client *client, const struct frame *frame, enum drop_reason reason)
{
    char subject[32];
    if (reason == DROP_SLOW) {
        bus_disconnect_slow(bus, client);
        return;
    }
    snprintf(subject, sizeof(subject), "client %u", client->index);
    log_limited(&unfit, LEVEL_WARNING, subject, "an event of %zu bytes is dropped: %s (max_queued_bytes %zu)",
                frame->length, reason == DROP_LARGE ? "it is larger than the queue may be" : "no memory",
                client->out.limit);
}

static bool bus_reaches(const struct client *client, const struct client *guest)
{
    return client_listens(client) || (client == guest && client->state == CLIENT_ADMITTING);
}

static bool bus_deliver(struct bus *bus, struct client *client, struct frame *frame, const struct client *guest)
{
    enum drop_reason reason = DROP_SLOW;
    if (!bus_reaches(client, guest)) {
        bus_delist(bus, client); /* it is in the list and deaf: its socket has failed */
        return false;
    }
    if (client_give(client, frame, &reason))
        bus_mark_dirty(bus, client);
    else
        bus_on_refused(bus, client, frame, reason);
    return true;
}

void bus_relay(struct bus *bus, struct frame *frame, struct client *guest)
{
    struct client *client = NULL;
    struct client *next = NULL;
    bool received = guest != NULL && !guest->listed && bus_deliver(bus, guest, frame, guest);
    bus->events.relay++;
    DL_FOREACH_SAFE(bus->listening, client, next)
    received |= bus_deliver(bus, client, frame, guest);
    bus->events.no_receiver += !received;
}

void bus_multicast(struct bus *bus, struct frame *frame, const char *tag, size_t tag_length, struct client *guest)
{
    const struct tag *found = tag_find(&bus->tags, tag, tag_length);
    struct client *client = found != NULL ? found->first : NULL;
    bool received = false;
    bus->events.multicast++;
    while (client != NULL) {
        struct client *next = client->tag_next; /* a slow client leaves the tag, and may take the tag with it */
        received |= bus_deliver(bus, client, frame, guest);
        client = next;
    }
    bus->events.no_receiver += !received;
}

void bus_unicast(struct bus *bus, struct frame *frame, const char *tag, size_t tag_length, struct client *guest)
{
    const struct tag *found = tag_find(&bus->tags, tag, tag_length);
    struct client *client = found != NULL ? found->first : NULL;
    bus->events.unicast++;
    while (client != NULL && !bus_reaches(client, guest))
        client = client->tag_next;
    if (client == NULL || !bus_deliver(bus, client, frame, guest))
        bus->events.no_receiver++;
}

void bus_flush(struct bus *bus)
{
    while (bus->dirty != NULL) {
        struct client *client = bus->dirty;
        bus_mark_clean(bus, client);
        if (!client->blocked && client->state != CLIENT_ADMITTING)
            client_flush(client);
    }
}

void bus_tick(struct bus *bus)
{
    struct client *client = NULL;
    struct client *next = NULL;
    const uint64_t now = uv_now(bus->loop);
    HASH_ITER(hh, bus->clients, client, next)
    if (client->state == CLIENT_FLUSHING && now >= client->deadline_ms)
        client_drop(client, DROP_CLOSED);
}

bool bus_is_flushed(const struct bus *bus)
{
    for (const struct client *client = bus->clients; client != NULL; client = client->hh.next)
        if (client->out.count > 0)
            return false;
    return true;
}

void bus_open(struct bus *bus, uv_loop_t *loop)
{
    bus->loop = loop;
    bus->host = (struct client_host){ .message = bus_on_message,
                                      .ended = bus_on_ended,
                                      .gone = bus_on_gone,
                                      .totals = &bus->totals,
                                      .scratch = bus->scratch };
    bus->tags = (struct tag_index){ .watch = bus_on_tag, .owner = bus };
}

void bus_close(struct bus *bus)
{
    struct client *client = NULL;
    struct client *next = NULL;
    HASH_ITER(hh, bus->clients, client, next)
    client_drop(client, DROP_CLOSED);
}
