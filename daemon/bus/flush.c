/* Sending to clients, and closing them, at the end of a turn. */
#include "bus/flush.h"

#include <utlist.h>

#include "base/slice.h"
#include "bus/bus.h"
#include "client/listener.h"
#include "client/output.h"
#include "client/pace.h"

/* ---- who has something to be sent ------------------------------------------------------------------------------- */

void flush_mark_dirty(struct bus *bus, struct client *client)
{
    if (client->dirty)
        return;
    client->dirty = true;
    DL_APPEND2(bus->dirty, client, dirty_prev, dirty_next);
}

void flush_mark_clean(struct bus *bus, struct client *client)
{
    if (!client->dirty)
        return;
    client->dirty = false;
    DL_DELETE2(bus->dirty, client, dirty_prev, dirty_next);
}

static void flush_client(struct client *client)
{
    if (client->output.blocked)
        pace_note(client);
    else if (client->state != CLIENT_ADMITTING)
        client_flush(client);
}

/* The end of a turn for those who follow the runs. One that was not sent everything keeps its place. */
static void flush_followers(struct bus *bus, struct slice *slice)
{
    struct client *client = NULL;
    struct client *next = NULL;
    DL_FOREACH_SAFE(bus->listening, client, next)
    {
        if (outq_is_empty(&client->out))
            continue;
        if (slice_is_over(slice)) {
            outq_pin(&client->out);
            if (!client->output.blocked)
                flush_mark_dirty(bus, client);
            continue;
        }
        flush_mark_clean(bus, client);
        flush_client(client);
        if (client->output.blocked)
            outq_pin(&client->out);
    }
}

/* Those that the turn before had no time for come first. */
static void flush_dirty(struct bus *bus, struct slice *slice)
{
    while (bus->dirty != NULL && !slice_is_over(slice)) {
        struct client *client = bus->dirty;
        flush_mark_clean(bus, client);
        flush_client(client);
    }
}

static void flush_unlist_postponed(struct bus *bus, struct client *client)
{
    if (!client->postponed)
        return;
    client->postponed = false;
    DL_DELETE2(bus->postponed, client, due_prev, due_next);
}

void flush_attend(struct bus *bus)
{
    struct slice slice = slice_begin();
    while (bus->postponed != NULL && !slice_is_over(&slice)) {
        struct client *client = bus->postponed;
        flush_unlist_postponed(bus, client);
        client_attend(client);
    }
}

void bus_settle(struct bus *bus)
{
    for (int framing = 0; framing < FRAMINGS; framing++)
        run_settle(&bus->runs[framing]);
}

static void flush_leaving(struct bus *bus, struct slice *slice);

void bus_flush(struct bus *bus)
{
    bool grown = false;
    struct slice slice = slice_begin();
    bus->polls = (struct slice){ .over = false };
    bus->cut_off = 0;
    waits_refresh(&bus->waits);
    for (int framing = 0; framing < FRAMINGS; framing++)
        grown |= bus->runs[framing].bytes != bus->runs[framing].mark;
    flush_dirty(bus, &slice);
    if (grown)
        flush_followers(bus, &slice);
    bus->behind = bus->dirty != NULL;
    bus_settle(bus);
    if (bus->leaving == NULL)
        return;
    slice = slice_begin();
    flush_leaving(bus, &slice);
}

bool flush_is_behind(const struct bus *bus)
{
    return bus->dirty != NULL || bus->leaving != NULL || bus->postponed != NULL;
}

/* ---- who is to be closed ---------------------------------------------------------------------------------------- */

void flush_leave(struct bus *bus, struct client *client)
{
    if (client->leaving || client->state == CLIENT_GONE)
        return;
    client->leaving = true;
    bus_delist(bus, client);
    DL_APPEND2(bus->leaving, client, leaving_prev, leaving_next);
}

void flush_cut_off(struct bus *bus, struct client *client)
{
    client->too_slow = true;
    flush_leave(bus, client);
}

static void flush_unlist_leaving(struct bus *bus, struct client *client)
{
    if (!client->leaving)
        return;
    client->leaving = false;
    DL_DELETE2(bus->leaving, client, leaving_prev, leaving_next);
}

void flush_forget(struct bus *bus, struct client *client)
{
    flush_unlist_leaving(bus, client);
    flush_unlist_postponed(bus, client);
}

static void flush_leaving(struct bus *bus, struct slice *slice)
{
    while (bus->leaving != NULL && !slice_is_over(slice)) {
        struct client *client = bus->leaving;
        flush_unlist_leaving(bus, client);
        if (client->too_slow && client->state != CLIENT_FLUSHING)
            client_cut_off(client, DROP_SLOW);
        else if (client->state == CLIENT_FLUSHING && uv_now(bus->loop) >= client->deadline_ms)
            client_drop(client, DROP_CLOSED);
        else
            bus_finish(bus, client);
    }
}

void flush_settle_leaving(struct bus *bus)
{
    while (bus->leaving != NULL) {
        struct slice slice = slice_begin();
        flush_leaving(bus, &slice);
    }
}

/* ---- once a second ---------------------------------------------------------------------------------------------- */

void bus_tick(struct bus *bus)
{
    struct client *client = NULL;
    struct client *next = NULL;
    const uint64_t now = uv_now(bus->loop);
    HASH_ITER(hh, bus->clients, client, next)
    {
        client_tick(client);
        pace_note(client);
        client_check_deadline(client);
        if (client->leaving)
            continue;
        if (client->state == CLIENT_FLUSHING && now >= client->deadline_ms) {
            flush_leave(bus, client);
        } else if (client_is_overdue(client, now)) {
            listener_turn_away(client->listener, client);
            flush_leave(bus, client);
        }
    }
}
