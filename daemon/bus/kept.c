/* Keeping tags. */
#include "bus/kept.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/state.h"
#include "client/books.h"
#include "client/ledger.h"

#define SUBJECT "bus"
#define NAME (EVAPID_TAG_MAX + 1)
#define HALF 2U /* a full queue of which the oldest events are dropped keeps this part of its limit */

static struct log_limit begins = { .kind = "tags: kept" };
static struct log_limit ends = { .kind = "tags: kept no more" };
static struct log_limit overflows = { .kind = "tags: kept, and no more can wait" };

/* The tag, for the log: bytes that are no text become question marks. */
static const char *kept_name(const struct kept *kept, char name[NAME])
{
    for (size_t i = 0; i < kept->tag->length; i++) {
        const unsigned char byte = (unsigned char)kept->tag->name[i];
        name[i] = (char)(byte >= ' ' && byte < 0x7f ? byte : '?');
    }
    name[kept->tag->length] = '\0';
    return name;
}

static void kept_count_dropped(struct bus *bus, struct kept *kept, enum drop_reason reason, uint64_t events)
{
    books_count_kept_dropped(bus->ledger, kept->slot, &bus->totals, reason, events);
}

/* ---- beginning -------------------------------------------------------------------------------------------------- */

static void kept_apply(struct kept *kept, const struct client_limits *limits)
{
    outq_set_limit(&kept->out, limits->max_queued_bytes);
    kept->policy = limits->slow_policy;
    kept->keep_ms = limits->keep_absent_ms;
}

/* Its time began at that moment of CLOCK_MONOTONIC. */
static void kept_time(const struct bus *bus, struct kept *kept, uint64_t since_ns)
{
    const uint64_t gone_ms = histogram_since_ns(since_ns, histogram_clock_ns()) / 1000000;
    kept->until_ms = uv_now(bus->loop) + (kept->keep_ms > gone_ms ? kept->keep_ms - gone_ms : 0);
}

static void kept_enter_place(struct keeping *keeping, struct kept *kept)
{
    while (kept->place < WAITING_PLACES && keeping->places[kept->place] != NULL)
        kept->place++;
    if (kept->place < WAITING_PLACES)
        keeping->places[kept->place] = kept;
    else
        keeping->unplaced++;
}

static void kept_leave_place(struct keeping *keeping, const struct kept *kept)
{
    if (kept->place < WAITING_PLACES)
        keeping->places[kept->place] = NULL;
    else
        keeping->unplaced--;
}

/* In order of time: the first is the one kept longest. */
static void kept_enlist(struct keeping *keeping, struct kept *kept)
{
    struct kept *before = keeping->first != NULL ? keeping->first->prev : NULL;
    while (before != NULL && before->slot->connected_ns > kept->slot->connected_ns)
        before = before != keeping->first ? before->prev : NULL;
    if (before != NULL)
        DL_APPEND_ELEM(keeping->first, before, kept);
    else
        DL_PREPEND(keeping->first, kept);
}

/* One that is kept in this slot, which says of which tag, and since when. NULL: no memory. */
static struct kept *kept_new(struct bus *bus, struct ledger_slot *slot)
{
    struct keeping *keeping = &bus->keeping;
    struct kept *kept = calloc(1, sizeof(*kept));
    if (kept == NULL)
        return NULL;
    kept->tag = tag_keep(&bus->tags, slot->tag, slot->tag_length, kept);
    if (kept->tag == NULL) {
        free(kept);
        return NULL;
    }
    kept->slot = slot;
    outq_init(&kept->out, slot->framing, 0);
    kept_enter_place(keeping, kept);
    kept_enlist(keeping, kept);
    keeping->count++;
    return kept;
}

static struct ledger_slot *kept_claim(struct bus *bus, const struct client *client)
{
    static const char nowhere[EVAPID_ADDRESS_MAX];
    const struct tag *tag = client->tagging.tag;
    struct ledger_slot *slot = ledger_claim(bus->ledger, LEDGER_KEPT);
    if (slot == NULL)
        return NULL;
    ledger_introduce(slot, &(struct ledger_newcomer){ .framing = client->out.framing,
                                                      .address = nowhere,
                                                      .connected_ns = histogram_clock_ns() });
    ledger_note_tag(bus->ledger, slot, tag->name, tag->length);
    return slot;
}

static struct kept *kept_open(struct bus *bus, const struct client *client)
{
    if (bus->keeping.count >= KEPT_MAX)
        kept_close(bus, bus->keeping.first, "too many tags are kept");
    struct ledger_slot *slot = kept_claim(bus, client);
    struct kept *kept = slot != NULL ? kept_new(bus, slot) : NULL;
    if (kept == NULL && slot != NULL)
        ledger_release(bus->ledger, slot);
    return kept;
}

struct kept *kept_begin(struct bus *bus, const struct client *client)
{
    struct kept *kept = client->tagging.tag->kept;
    struct keeping *keeping = &bus->keeping;
    const uint64_t now_ns = histogram_clock_ns();
    if (kept == NULL)
        kept = kept_open(bus, client);
    if (kept == NULL)
        return NULL;
    DL_DELETE(keeping->first, kept);
    kept->begin = ++keeping->begins;
    ledger_keep(kept->slot, clock_wall_ms(), now_ns);
    kept_enlist(keeping, kept);
    ledger_note_listener(kept->slot, client->slot->listener);
    kept_apply(kept, &(struct client_limits){ .max_queued_bytes = client->out.limit,
                                              .slow_policy = client->pace.policy,
                                              .keep_absent_ms = client->keep_absent_ms });
    kept_time(bus, kept, now_ns);
    tag_note_waits(&bus->tags, kept->tag, !kept->full);
    bus->upstream.kept(bus->upstream.owner);
    return kept;
}

/* ---- what waits ------------------------------------------------------------------------------------------------- */

static void kept_set_full(struct bus *bus, struct kept *kept, bool full)
{
    struct keeping *keeping = &bus->keeping;
    keeping->full += full;
    keeping->full -= kept->full;
    kept->full = full;
    tag_note_waits(&bus->tags, kept->tag, !full);
    bus->upstream.kept(bus->upstream.owner);
}

static void kept_note_full(struct bus *bus, struct kept *kept)
{
    char name[NAME];
    if (kept->full)
        return;
    kept_set_full(bus, kept, true);
    log_limited(&overflows, LEVEL_WARNING, SUBJECT,
                "%llu events (%zu bytes, limit %zu) wait for tag %s, which no client has: no more can wait",
                (unsigned long long)kept_waiting(kept), outq_bytes(&kept->out), kept->out.limit, kept_name(kept, name));
}

static void kept_translate(struct bus *bus, struct kept *kept, enum framing framing)
{
    if (kept->out.framing == framing)
        return;
    const uint64_t dropped = outq_translate(&kept->out, framing);
    kept_count_dropped(bus, kept, DROP_MEMORY, dropped);
}

void kept_take(struct bus *bus, struct kept *kept, struct client *client, bool full)
{
    char name[NAME];
    books_note_given(client);
    const uint64_t events = outq_events(&client->out);
    books_move(bus->ledger, client->slot, kept->slot, events);
    kept_translate(bus, kept, client->out.framing);
    if (!outq_append(&kept->out, &client->out))
        kept_count_dropped(bus, kept, DROP_MEMORY, outq_clear(&client->out));
    log_limited(&begins, LEVEL_INFO, SUBJECT,
                "the last client of tag %s has gone: it is kept for %u ms, %llu events wait", kept_name(kept, name),
                kept->keep_ms, (unsigned long long)kept_waiting(kept));
    if (full && kept->policy == SLOW_DISCONNECT)
        kept_note_full(bus, kept);
}

/* Is there room for an event of size bytes? If not, make some if the policy has a way. */
static bool kept_has_room(struct bus *bus, struct kept *kept, size_t size)
{
    const size_t limit = kept->out.limit;
    if (size <= outq_room(&kept->out))
        return true;
    if (kept->policy != SLOW_DROP_OLDEST)
        return false;
    const size_t keep = limit - size < limit / HALF ? limit - size : limit / HALF;
    kept_count_dropped(bus, kept, DROP_ABSENT, outq_drop_oldest(&kept->out, keep));
    return size <= outq_room(&kept->out);
}

void kept_give(struct bus *bus, struct kept *kept, struct chunk *chunk)
{
    books_count_kept(bus->ledger, kept->slot, &bus->totals);
    if (chunk != NULL && chunk->used > kept->out.limit) {
        kept_count_dropped(bus, kept, DROP_LARGE, 1);
    } else if (kept->full) {
        kept_count_dropped(bus, kept, DROP_ABSENT, 1);
    } else if (chunk != NULL && !kept_has_room(bus, kept, chunk->used)) {
        kept_count_dropped(bus, kept, DROP_ABSENT, 1);
        kept_note_full(bus, kept);
    } else if (chunk == NULL || !outq_push(&kept->out, chunk)) {
        kept_count_dropped(bus, kept, DROP_MEMORY, 1);
    }
}

void kept_shed(struct bus *bus, struct kept *kept)
{
    const size_t half = outq_bytes(&kept->out) / HALF;
    if (kept->out.count == 0)
        return;
    uint64_t dropped = 0;
    if (kept->policy == SLOW_DROP_OLDEST)
        dropped = outq_drop_oldest(&kept->out, half);
    else if (kept->policy == SLOW_DROP_NEWEST)
        dropped = outq_drop_newest(&kept->out, half);
    if (dropped == 0)
        dropped = outq_clear(&kept->out);
    kept_count_dropped(bus, kept, DROP_ABSENT, dropped);
    kept_set_full(bus, kept, false);
}

/* ---- the next client -------------------------------------------------------------------------------------------- */

/* The client's own queue holds what its connection-new route has sent. If that was for all clients, it waits for the
 * kept tag, too, and comes once. A client that was admitted before is older than what waits. */
bool kept_hand_on(struct bus *bus, struct kept *kept, struct client *client)
{
    const bool first = client->slot->standing == STANDING_NEW;
    const size_t bytes = outq_bytes(&kept->out);
    char subject[CLIENT_SUBJECT];
    char name[NAME];
    books_note_given(client);
    kept_translate(bus, kept, client->out.framing);
    if (first)
        books_count_dropped(client, DROP_ABSENT, outq_drop_repeated(&client->out, &kept->out));
    const uint64_t events = kept_waiting(kept);
    if (first ? !outq_prepend(&client->out, &kept->out) : !outq_append(&client->out, &kept->out))
        return false;
    books_move(bus->ledger, kept->slot, client->slot, events);
    client_subject(client, subject);
    log_limited(&ends, LEVEL_INFO, subject, "it has tag %s, and gets the %llu events (%zu bytes) that waited for it",
                kept_name(kept, name), (unsigned long long)events, bytes);
    return true;
}

/* ---- ending ----------------------------------------------------------------------------------------------------- */

void kept_close(struct bus *bus, struct kept *kept, const char *why)
{
    struct keeping *keeping = &bus->keeping;
    char name[NAME];
    const size_t bytes = outq_bytes(&kept->out);
    const uint64_t dropped = outq_clear(&kept->out);
    kept_count_dropped(bus, kept, DROP_ABSENT, dropped);
    if (why != NULL)
        log_limited(&ends, dropped > 0 ? LEVEL_WARNING : LEVEL_INFO, SUBJECT,
                    "tag %s is kept no more, %s: %llu events (%zu bytes) that waited are dropped",
                    kept_name(kept, name), why, (unsigned long long)dropped, bytes);
    kept_leave_place(keeping, kept);
    DL_DELETE(keeping->first, kept);
    keeping->count--;
    keeping->full -= kept->full;
    tag_keep_no_more(&bus->tags, kept->tag);
    ledger_release(bus->ledger, kept->slot);
    free(kept);
    bus->upstream.kept(bus->upstream.owner);
}

void kept_close_all(struct bus *bus)
{
    while (bus->keeping.first != NULL)
        kept_close(bus, bus->keeping.first, NULL);
}

/* The time does not end while a client is about to get what waits. To close one may mean to free a hundred thousand small
 * chunks, so the clock is read after each. */
void kept_tick(struct bus *bus, uint64_t until_ns)
{
    struct kept *kept = NULL;
    struct kept *next = NULL;
    DL_FOREACH_SAFE(bus->keeping.first, kept, next)
    {
        if (uv_now(bus->loop) < kept->until_ms || tag_has_newcomer(kept->tag, NULL))
            continue;
        kept_close(bus, kept, "nobody came in time");
        if (histogram_clock_ns() >= until_ns)
            return;
    }
}

void kept_set_limits(struct bus *bus, struct kept *kept, const struct client_limits *limits)
{
    kept_apply(kept, limits);
    kept_time(bus, kept, kept->slot->connected_ns);
    if (kept->full && kept->policy != SLOW_DISCONNECT && outq_room(&kept->out) > 0)
        kept_set_full(bus, kept, false); /* but with disconnect there is never a gap in the middle */
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

const char *kept_listener(const struct kept *kept)
{
    return ledger_listener_name(kept->slot);
}

uint64_t kept_waiting(const struct kept *kept)
{
    const struct tally *tally = &kept->slot->tally;
    return tally->relayed - tally->delivered - tally_dropped(tally);
}

uint64_t kept_events(const struct bus *bus)
{
    const struct kept *kept = NULL;
    uint64_t events = 0;
    DL_FOREACH(bus->keeping.first, kept)
    events += kept_waiting(kept);
    return events;
}

size_t kept_bytes(const struct bus *bus)
{
    const struct kept *kept = NULL;
    size_t bytes = 0;
    DL_FOREACH(bus->keeping.first, kept)
    bytes += outq_bytes(&kept->out);
    return bytes;
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

struct kept *kept_adopt(struct bus *bus, struct ledger_slot *slot, const struct client_limits *limits)
{
    const struct tag *there =
        slot->tag_length <= EVAPID_TAG_MAX ? tag_find(&bus->tags, slot->tag, slot->tag_length) : NULL;
    if (bus->keeping.count >= KEPT_MAX || slot->tag_length == 0 || slot->tag_length > EVAPID_TAG_MAX ||
        slot->framing >= FRAMINGS || (there != NULL && there->kept != NULL))
        return NULL;
    struct kept *kept = kept_new(bus, slot);
    if (kept == NULL)
        return NULL;
    kept_apply(kept, limits);
    kept_time(bus, kept, slot->connected_ns);
    tag_note_waits(&bus->tags, kept->tag, true);
    bus->upstream.kept(bus->upstream.owner);
    return kept;
}

void kept_save(const struct bus *bus, const struct kept *kept, struct state_out *out)
{
    state_put(out, "slot", ledger_number(bus->ledger, kept->slot));
    state_put(out, "framing", kept->out.framing);
    state_put(out, "full", kept->full);
    state_put_record(out, "output");
    outq_save(&kept->out, out);
    state_put_end(out);
}

bool kept_load(struct bus *bus, struct kept *kept, struct state_in *in)
{
    const uint64_t framing = state_get(in, "framing", kept->out.framing);
    const bool full = state_get(in, "full", 0) == 1;
    if (framing >= FRAMINGS || kept->out.count > 0)
        return state_fail(in);
    outq_init(&kept->out, (enum framing)framing, kept->out.limit);
    state_get_record(in, "output");
    if (!outq_load(&kept->out, in) || kept->out.followed)
        return state_fail(in);
    state_get_end(in);
    if (full)
        kept_note_full(bus, kept);
    return !in->at.failed;
}
