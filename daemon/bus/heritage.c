/* Passing on what waits. */
#include "bus/heritage.h"

#include "bus/group.h"
#include "bus/kept.h"
#include "bus/roster.h"
#include "client/books.h"
#include "client/ledger.h"
#include "client/output.h"
#include "client/subscription.h"

#define HERITAGE_DEPTH 8U /* a client may be found broken when it inherits, and so on: deeper, the events are dropped */

/* A new Kamailio is about to admit it again: it gets no events until then, but has its tag and its queue. */
static bool comes_again(const struct client *client)
{
    return client->state == CLIENT_ADMITTING && client->slot->standing == STANDING_AGAIN &&
           !client->subscription.failed && !client->roster.leaving;
}

static bool heritage_concerns(const struct client *client)
{
    return client->keep_absent_ms > 0 && client->tagging.tag != NULL &&
           (client->roster.receives || comes_again(client));
}

static bool is_last(const struct client *client)
{
    return client->tagging.tag->receivers == (client->roster.receives ? 1 : 0);
}

/* Does another client of the tag come again? It has its own part of what was given to all of them. */
static bool another_comes_again(const struct client *client)
{
    const struct client *other = client->tagging.tag->first;
    while (other != NULL && (other == client || !comes_again(other)))
        other = other->tagging.next;
    return other != NULL;
}

/* ---- a group ---------------------------------------------------------------------------------------------------- */

/* The event of a chunk in a chunk with this framing; NULL: no memory. */
static struct chunk *heritage_chunk(struct chunk *chunk, enum framing from, enum framing to,
                                    const struct payload *payload)
{
    struct chunk *own = from == to ? chunk_ref(chunk) : chunk_of_event(to, payload);
    if (own != NULL)
        chunk_mark(own, CHUNK_FOR_ANY, chunk->tag_hash);
    return own;
}

static void heritage_give(struct bus *bus, struct client *heir, struct chunk *own)
{
    enum drop_reason reason = DROP_MEMORY;
    if (own == NULL)
        output_refuse(heir, DROP_MEMORY);
    else if (client_give(heir, own, &reason)) /* it is counted as dropped if there is no room */
        roster_mark_dirty(bus, heir);
}

/* Pass one unicast on: to another client of the tag, or to the tag's next one if the others have gone meanwhile. False:
 * nobody is there. */
static bool heritage_pass(struct bus *bus, struct client *client, struct chunk *chunk)
{
    struct tag *tag = client->tagging.tag;
    const struct payload payload = chunk_payload(chunk, 0, client->out.framing);
    const size_t length = payload_length(&payload);
    struct client *heir = group_choose(tag, NULL, length);
    if (heir == NULL && !tag_awaits(tag))
        return false;
    const enum framing framing = heir != NULL ? heir->out.framing : tag->kept->out.framing;
    books_uncount(client);
    if (framing_size(framing, length) == 0)
        return true; /* nobody gets what has no bytes */
    struct chunk *own = heritage_chunk(chunk, client->out.framing, framing, &payload);
    if (heir != NULL)
        heritage_give(bus, heir, own);
    else
        kept_give(bus, tag->kept, own);
    if (own != NULL)
        chunk_unref(own);
    return true;
}

/* The client, which gets no events any more, leaves others behind. */
static void heritage_share(struct bus *bus, struct client *client, enum drop_reason reason)
{
    struct heritage *heritage = &bus->heritage;
    struct chunk *chunk = NULL;
    heritage->depth++;
    while (client->out.count > 0) {
        const uint32_t events = outq_pop(&client->out, &chunk);
        if (chunk->meant_for != CHUNK_FOR_ANY || heritage->depth > HERITAGE_DEPTH || !heritage_pass(bus, client, chunk))
            books_count_dropped(client, reason, events);
        chunk_unref(chunk);
    }
    heritage->depth--;
}

/* ---- leaving ---------------------------------------------------------------------------------------------------- */

/* The tag is kept before the client loses it, so that at every moment somebody is there for an event. */
static void heritage_pass_on(struct bus *bus, struct client *client, enum drop_reason reason, bool queue)
{
    struct kept *kept = is_last(client) ? kept_begin(bus, client) : NULL;
    const bool whole = kept != NULL && !another_comes_again(client);
    roster_delist(bus, client);
    subscription_end(client);
    books_note_given(client);
    books_count_dropped(client, reason, outq_drop_foreign(&client->out, client->tagging.tag->hash));
    if (whole && queue)
        kept_take(bus, kept, client, reason == DROP_SLOW);
    else if (queue)
        heritage_share(bus, client, reason);
    books_note_given(client);
    books_count_dropped(client, reason, outq_clear(&client->out));
    bus->upstream.commit(bus->upstream.owner); /* the books of two queues have changed together */
}

void heritage_leave(struct bus *bus, struct client *client, enum drop_reason reason)
{
    if (heritage_concerns(client))
        heritage_pass_on(bus, client, reason, true);
}

void heritage_leave_all(struct bus *bus, struct client *client, enum drop_reason reason)
{
    if (heritage_concerns(client))
        heritage_pass_on(bus, client, reason, false);
}

/* ---- coming ----------------------------------------------------------------------------------------------------- */

struct kept *heritage_inherit(struct bus *bus, struct client *client)
{
    struct kept *kept = client->tagging.tag != NULL ? client->tagging.tag->kept : NULL;
    if (kept == NULL || client->state != CLIENT_ADMITTING || client->input.over || client->subscription.failed ||
        client->roster.leaving || !kept_hand_on(bus, kept, client))
        return NULL;
    bus->upstream.commit(bus->upstream.owner); /* before any of it is sent */
    return kept;
}
