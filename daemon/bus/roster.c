/* All clients, and the lists of those whose turn comes. */
#define HASH_NONFATAL_OOM 1 /* uthash: a failed allocation leaves the table unchanged */
#include "bus/roster.h"

#include <utlist.h>

#include "client/subscription.h"

bool roster_add(struct bus *bus, struct client *client)
{
    struct roster *roster = &bus->roster;
    HASH_ADD(hh, roster->clients, index, sizeof(client->index), client);
    return client->hh.tbl != NULL;
}

void roster_remove(struct bus *bus, struct client *client)
{
    struct roster *roster = &bus->roster;
    HASH_DEL(roster->clients, client);
}

struct client *roster_find(const struct bus *bus, uint32_t index)
{
    struct client *client = NULL;
    HASH_FIND(hh, bus->roster.clients, &index, sizeof(index), client);
    return client;
}

/* ---- receivers -------------------------------------------------------------------------------------------------- */

static void roster_add_receiver(struct bus *bus, struct client *client)
{
    struct roster *roster = &bus->roster;
    struct roster_place *place = &client->roster;
    place->receives = true;
    DL_APPEND2(roster->receivers, client, roster.prev, roster.next);
    roster->receiver_count++;
}

static void roster_note_there(struct bus *bus, struct client *client, bool there)
{
    struct roster_place *place = &client->roster;
    if (place->there == there)
        return;
    place->there = there;
    bus->upstream.connected(bus->upstream.owner, client, there);
}

void roster_enlist(struct bus *bus, struct client *client)
{
    if (client->roster.receives)
        return;
    roster_note_there(bus, client, true);
    roster_add_receiver(bus, client);
    subscription_follow(client, &bus->runs[client->out.framing]);
    tag_note_receiver(&bus->tags, client, true);
    bus->upstream.admitted(bus->upstream.owner, client, true);
}

void roster_suspend(struct bus *bus, struct client *client)
{
    struct roster *roster = &bus->roster;
    struct roster_place *place = &client->roster;
    if (!place->receives)
        return;
    tag_note_receiver(&bus->tags, client, false);
    place->receives = false;
    DL_DELETE2(roster->receivers, client, roster.prev, roster.next);
    subscription_leave(client);
    roster->receiver_count--;
    bus->upstream.admitted(bus->upstream.owner, client, false);
}

void roster_delist(struct bus *bus, struct client *client)
{
    roster_suspend(bus, client);
    roster_note_there(bus, client, false);
}

void roster_restore_there(struct client *client)
{
    struct roster_place *place = &client->roster;
    place->there = client->state == CLIENT_ADMITTING && client->slot->standing == STANDING_AGAIN;
}

bool roster_restore(struct bus *bus, struct client *client)
{
    struct run *run = &bus->runs[client->out.framing];
    struct roster_place *place = &client->roster;
    if (client->out.followed == (client->subscription.skipped_by != NULL) || !outq_resume(&client->out, run))
        return false;
    place->there = true;
    roster_add_receiver(bus, client);
    return true;
}

/* ---- lists of a turn -------------------------------------------------------------------------------------------- */

void roster_mark_dirty(struct bus *bus, struct client *client)
{
    struct roster *roster = &bus->roster;
    struct roster_place *place = &client->roster;
    if (place->dirty)
        return;
    place->dirty = true;
    DL_APPEND2(roster->dirty, client, roster.dirty_prev, roster.dirty_next);
}

void roster_mark_clean(struct bus *bus, struct client *client)
{
    struct roster *roster = &bus->roster;
    struct roster_place *place = &client->roster;
    if (!place->dirty)
        return;
    place->dirty = false;
    DL_DELETE2(roster->dirty, client, roster.dirty_prev, roster.dirty_next);
}

void roster_postpone(struct bus *bus, struct client *client)
{
    struct roster *roster = &bus->roster;
    struct roster_place *place = &client->roster;
    if (place->postponed)
        return;
    place->postponed = true;
    DL_APPEND2(roster->postponed, client, roster.postponed_prev, roster.postponed_next);
}

static void roster_end_postponed(struct bus *bus, struct client *client)
{
    struct roster *roster = &bus->roster;
    struct roster_place *place = &client->roster;
    if (!place->postponed)
        return;
    place->postponed = false;
    DL_DELETE2(roster->postponed, client, roster.postponed_prev, roster.postponed_next);
}

struct client *roster_pop_postponed(struct bus *bus)
{
    struct client *client = bus->roster.postponed;
    if (client != NULL)
        roster_end_postponed(bus, client);
    return client;
}

void roster_leave(struct bus *bus, struct client *client, bool too_slow)
{
    struct roster *roster = &bus->roster;
    struct roster_place *place = &client->roster;
    place->too_slow |= too_slow;
    if (place->leaving || client->state == CLIENT_GONE)
        return;
    place->leaving = true;
    roster_delist(bus, client);
    DL_APPEND2(roster->leaving, client, roster.leaving_prev, roster.leaving_next);
}

static void roster_end_leaving(struct bus *bus, struct client *client)
{
    struct roster *roster = &bus->roster;
    struct roster_place *place = &client->roster;
    if (!place->leaving)
        return;
    place->leaving = false;
    DL_DELETE2(roster->leaving, client, roster.leaving_prev, roster.leaving_next);
}

struct client *roster_pop_leaving(struct bus *bus)
{
    struct client *client = bus->roster.leaving;
    if (client != NULL)
        roster_end_leaving(bus, client);
    return client;
}

void roster_forget(struct bus *bus, struct client *client)
{
    roster_delist(bus, client);
    roster_mark_clean(bus, client);
    roster_end_leaving(bus, client);
    roster_end_postponed(bus, client);
}
