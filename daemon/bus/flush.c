/* Sending to clients, and closing them, at the end of a turn. */
#include "bus/flush.h"

#include <utlist.h>

#include "base/log.h"
#include "base/slice.h"
#include "bus/heritage.h"
#include "bus/roster.h"
#include "client/output.h"
#include "client/pace.h"

#define CUT_OFF_MOST 500U /* clients cut off immediately in one turn: some milliseconds */

static struct log_limit slow = { .kind = "clients: disconnected for being slow" };

/* ---- sending ---------------------------------------------------------------------------------------------------- */

static void flush_client(struct client *client)
{
    if (output_is_blocked(client))
        pace_note(client);
    else if (client->state != CLIENT_ADMITTING)
        client_flush(client);
}

/* Send to the followers of the runs at the end of a turn. One that was not sent everything keeps its place. */
static void flush_receivers(struct bus *bus, struct slice *slice)
{
    struct client *client = NULL;
    struct client *next = NULL;
    DL_FOREACH_SAFE2(bus->roster.receivers, client, next, roster.next)
    {
        if (outq_is_empty(&client->out))
            continue;
        if (slice_is_over(slice)) {
            outq_pin(&client->out);
            if (!output_is_blocked(client))
                roster_mark_dirty(bus, client);
            continue;
        }
        roster_mark_clean(bus, client);
        flush_client(client);
        if (output_is_blocked(client))
            outq_pin(&client->out);
    }
}

/* Clients for which the last turn had no time come first. */
static void flush_dirty(struct bus *bus, struct slice *slice)
{
    while (bus->roster.dirty != NULL && !slice_is_over(slice)) {
        struct client *client = bus->roster.dirty;
        roster_mark_clean(bus, client);
        flush_client(client);
    }
}

void flush_attend(struct bus *bus)
{
    struct slice slice = slice_begin();
    while (bus->roster.postponed != NULL && !slice_is_over(&slice))
        client_attend(roster_pop_postponed(bus));
}

void flush_trim_runs(struct bus *bus)
{
    for (int framing = 0; framing < FRAMINGS; framing++)
        run_trim(&bus->runs[framing]);
}

/* ---- closing ---------------------------------------------------------------------------------------------------- */

void flush_finish(struct bus *bus, struct client *client)
{
    roster_delist(bus, client);
    if (!outq_is_empty(&client->out))
        roster_mark_dirty(bus, client); /* events that it was given in this turn */
    client_finish(client);
}

void flush_leave(struct bus *bus, struct client *client)
{
    roster_leave(bus, client, false);
}

static void flush_say_slow(const struct client *client)
{
    char subject[CLIENT_SUBJECT];
    client_subject(client, subject);
    log_limited(&slow, LEVEL_WARNING, subject,
                "%s %s %u does not keep up: %llu events (%zu bytes, limit %zu) wait for it; disconnecting it",
                client->address, remote_noun(&client->origin), client->port,
                (unsigned long long)outq_events(&client->out), outq_bytes(&client->out), client->out.limit);
}

void flush_cut_off_now(struct bus *bus, struct client *client)
{
    flush_say_slow(client);
    heritage_leave(bus, client, DROP_SLOW);
    roster_delist(bus, client);
    client_cut_off(client, DROP_SLOW);
}

void flush_cut_off_short(struct bus *bus, struct client *client)
{
    flush_say_slow(client);
    heritage_leave_all(bus, client, DROP_SLOW);
    roster_delist(bus, client);
    client_cut_off(client, DROP_SLOW);
}

void flush_cut_off(struct bus *bus, struct client *client)
{
    struct flush *flush = &bus->flush;
    if (++flush->cut_off <= CUT_OFF_MOST) {
        flush_cut_off_now(bus, client);
        return;
    }
    flush_say_slow(client);
    heritage_leave(bus, client, DROP_SLOW);
    roster_leave(bus, client, true);
}

static void flush_leaving(struct bus *bus, struct slice *slice)
{
    while (bus->roster.leaving != NULL && !slice_is_over(slice)) {
        struct client *client = roster_pop_leaving(bus);
        if (client->roster.too_slow && client->state != CLIENT_FLUSHING)
            client_cut_off(client, DROP_SLOW);
        else if (client->state == CLIENT_FLUSHING && uv_now(bus->loop) >= client->deadline_ms)
            client_drop(client, DROP_CLOSED);
        else
            flush_finish(bus, client);
    }
}

void flush_close_leaving(struct bus *bus)
{
    while (bus->roster.leaving != NULL) {
        struct slice slice = slice_begin();
        flush_leaving(bus, &slice);
    }
}

/* ---- a turn ----------------------------------------------------------------------------------------------------- */

void flush_turn(struct bus *bus)
{
    struct flush *flush = &bus->flush;
    bool grown = false;
    struct slice slice = slice_begin();
    flush->polls = (struct slice){ .over = false };
    flush->cut_off = 0;
    waits_refresh(&bus->waits);
    for (int framing = 0; framing < FRAMINGS; framing++)
        grown |= bus->runs[framing].bytes != bus->runs[framing].mark;
    flush_dirty(bus, &slice);
    if (grown)
        flush_receivers(bus, &slice);
    flush->behind = bus->roster.dirty != NULL;
    flush_trim_runs(bus);
    if (bus->roster.leaving == NULL)
        return;
    slice = slice_begin();
    flush_leaving(bus, &slice);
}

bool flush_is_behind(const struct bus *bus)
{
    return bus->roster.dirty != NULL || bus->roster.leaving != NULL || bus->roster.postponed != NULL;
}

bool flush_is_done(const struct bus *bus)
{
    for (const struct client *client = bus->roster.clients; client != NULL; client = client->hh.next)
        if (!outq_is_empty(&client->out))
            return false;
    return true;
}
