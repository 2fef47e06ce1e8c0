/* Events from the control socket. */
#include "control/publication.h"

#include <stdlib.h>
#include <string.h>

#include "bus/roster.h"
#include "bus/shed.h"
#include "evapid/netstring.h"

#define TURN_WORK 20000U /* per turn: events, and with a tag also each client that was given one */

uint32_t publish(struct bus *bus, const struct address_label *to, const char *bytes, size_t length)
{
    const struct payload payload = { .part = { bytes, NULL }, .length = { length, 0 } };
    return bus_issue(
        bus,
        &(struct event){
            .kind = to->kind, .payload = &payload, .tag = to->tag, .tag_length = to->tag_length, .index = to->index });
}

void publish_commit(struct bus *bus)
{
    bus->upstream.commit(bus->upstream.owner);
}

struct publication *publication_open(const struct address_label *to)
{
    struct publication *publication = calloc(1, sizeof(*publication));
    if (publication != NULL)
        publication->to = *to;
    return publication;
}

void publication_close(struct publication *publication)
{
    if (publication != NULL)
        free(publication->bytes);
    free(publication);
}

/* The buffer grows with the bytes that arrive, not with those announced. */
char *publication_room(struct publication *publication, size_t *room)
{
    if (publication->room - publication->length < PUBLICATION_BATCH / 2) {
        const size_t larger = publication->room == 0 ? PUBLICATION_BATCH : publication->room * 2;
        char *bytes = realloc(publication->bytes, larger);
        if (bytes == NULL)
            return NULL;
        publication->bytes = bytes;
        publication->room = larger;
    }
    *room = publication->room - publication->length;
    if (*room > PUBLICATION_BATCH)
        *room = PUBLICATION_BATCH;
    return publication->bytes + publication->length;
}

const char *publication_publish(struct publication *publication, struct bus *bus, size_t length)
{
    size_t used = 0;
    struct netstring frame;
    enum netstring_status status = NETSTRING_FRAME;
    size_t work = 0;
    publication->length += length;
    publication->more = false;
    while (status == NETSTRING_FRAME && !publication->more) {
        status = netstring_scan(publication->bytes + used, publication->length - used, PUBLICATION_EVENT_MAX, &frame);
        if (status == NETSTRING_FRAME) {
            publication->events++;
            publication->event_bytes += frame.length;
            const uint32_t receivers = publish(bus, &publication->to, frame.payload, frame.length);
            publication->received += receivers > 0;
            publication->receivers += receivers;
            work += publication->to.kind == EVENT_MULTICAST ? receivers : 1;
            work += publication->to.kind == EVENT_RELAY ? bus->keeping.count : 0;
            publication->more = work >= TURN_WORK;
        }
        if (status == NETSTRING_FRAME || status == NETSTRING_MORE)
            used += frame.used;
    }
    publish_commit(bus);
    publication->length -= used;
    memmove(publication->bytes, publication->bytes + used, publication->length);
    return status == NETSTRING_MORE || status == NETSTRING_FRAME ? NULL : netstring_reason(status);
}

bool publication_is_whole(const struct publication *publication)
{
    return publication->length == 0;
}

/* A skipped client gets no events, so nobody needs to wait for it. */
static bool is_behind(const struct client *client)
{
    return client->subscription.skipped_by == NULL && outq_bytes(&client->out) > client->out.limit / 2;
}

static bool somebody_is_behind(const struct bus *bus)
{
    if (shed_queue_memory() > bus->max_total_queued_bytes / 2)
        return true;
    for (const struct client *client = bus->roster.receivers; client != NULL; client = client->roster.next)
        if (is_behind(client))
            return true;
    return false;
}

bool publication_may_go_on(struct publication *publication, const struct bus *bus)
{
    const uint64_t now = uv_now(bus->loop);
    if (!somebody_is_behind(bus)) {
        publication->behind_since_ms = 0;
        return true;
    }
    if (publication->behind_since_ms == 0)
        publication->behind_since_ms = now;
    return now - publication->behind_since_ms >= PUBLICATION_PATIENCE_MS;
}
