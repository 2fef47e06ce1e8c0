/* Saving an evapid's state, and continuing from it. */
#include "lifecycle/handover.h"

#include <sys/random.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/state.h"
#include "bus/kept.h"
#include "bus/roster.h"
#include "client/listener_state.h"
#include "kamailio/seat.h"
#include "kamailio/succession.h"
#include "lifecycle/adoption.h"
#include "lifecycle/legacy.h"

#define SUBJECT "handover"

/* ---- leaving ---------------------------------------------------------------------------------------------------- */

/* After the clients: what waits for both is written where an earlier evapid finds it. */
static void save_kept(const struct evapid *evapid, struct state_out *out)
{
    const struct kept *kept = NULL;
    DL_FOREACH(evapid->bus.keeping.first, kept)
    {
        state_put_record(out, "tag");
        kept_save(&evapid->bus, kept, out);
        state_put_end(out);
    }
}

/* Write each part in a record of its own; its owner fills it in. */
static void save_all(struct evapid *evapid, uint64_t number, struct state_out *out)
{
    state_put(out, "number", number);
    state_put_record(out, LEGACY_KAMAILIO_DOOR);
    door_save(&evapid->kamailio.door, out);
    state_put_end(out);
    state_put_record(out, LEGACY_CONTROL_DOOR);
    door_save(&evapid->control.door, out);
    state_put_end(out);
    state_put_record(out, "listeners");
    listeners_save(&evapid->listeners, out);
    state_put_end(out);
    state_put_record(out, "kamailio");
    succession_save(&evapid->kamailio, out);
    state_put_end(out);
    state_put_record(out, "bus");
    bus_save(&evapid->bus, out);
    state_put_end(out);
    state_put_record(out, "stats");
    stats_save(&evapid->control.stats, out);
    state_put_end(out);
    state_put_record(out, "clients");
    for (struct client *client = evapid->bus.roster.clients; client != NULL; client = client->hh.next) {
        state_put_record(out, "client");
        state_put(out, "index", client->index);
        state_put(out, "slot", ledger_number(&evapid->ledger, client->slot));
        bus_save_client(client, out);
        state_put_record(out, "seat");
        seat_save(client->seat, out);
        state_put_end(out);
        state_put_end(out);
    }
    state_put_end(out);
    state_put_record(out, "kept");
    save_kept(evapid, out);
    state_put_end(out);
    state_put_record(out, "links");
    succession_save_links(&evapid->kamailio, out);
    state_put_end(out);
}

static bool hold_all(const struct evapid *evapid, struct descriptors *descriptors)
{
    bool held = descriptors_add(descriptors, evapid->ledger.memfd, LEGACY_LEDGER) &&
                descriptors_add(descriptors, evapid->kamailio.door.fd, LEGACY_KAMAILIO_DOOR) &&
                descriptors_add(descriptors, evapid->control.door.fd, LEGACY_CONTROL_DOOR) &&
                listeners_list_sockets(&evapid->listeners, descriptors) &&
                succession_list_sockets(&evapid->kamailio, descriptors) && http_list_socket(evapid->http, descriptors);
    for (const struct client *client = evapid->bus.roster.clients; held && client != NULL; client = client->hh.next)
        held = client->stream.fd < 0 || descriptors_add(descriptors, client->stream.fd, "client-%u", client->index);
    return held;
}

bool handover_save(struct evapid *evapid, struct descriptors *descriptors)
{
    struct state_out out;
    uint64_t number = 0;
    while (number == 0)
        if (getrandom(&number, sizeof(number), 0) < 0)
            return false;
    if (!state_begin(&out))
        return false;
    save_all(evapid, number, &out);
    const int memfd = state_end(&out);
    if (memfd < 0)
        return false;
    if (!descriptors_add(descriptors, memfd, "state") || !hold_all(evapid, descriptors)) {
        close(memfd);
        descriptors_clear(descriptors, false);
        return false;
    }
    evapid->ledger.header->state = number;
    return true;
}

void handover_cancel(struct evapid *evapid, struct descriptors *descriptors)
{
    ledger_go_on(&evapid->ledger);
    evapid->ledger.header->state = 0;
    close(descriptors_remove(descriptors, "state"));
    descriptors_clear(descriptors, false);
}

/* ---- coming ----------------------------------------------------------------------------------------------------- */

static bool load_client(struct evapid *evapid, struct state_in *in, struct descriptors *descriptors)
{
    const uint32_t index = (uint32_t)state_get(in, "index", 0);
    struct ledger_slot *slot = ledger_at(&evapid->ledger, (uint32_t)state_get(in, "slot", LEDGER_NONE));
    if (slot == NULL || slot->index != index || roster_find(&evapid->bus, index) != NULL)
        return false;
    struct client *client = evapid_adopt(evapid, slot, descriptors_remove(descriptors, "client-%u", index));
    if (client == NULL || !bus_load_client(&evapid->bus, client, in))
        return false;
    state_get_record(in, "seat");
    if (!seat_load(&evapid->kamailio, client->seat, in))
        return false;
    state_get_end(in);
    return true;
}

static bool load_clients(struct evapid *evapid, struct state_in *in, struct descriptors *descriptors)
{
    state_get_record(in, "clients");
    while (state_get_next(in, "client")) {
        if (!load_client(evapid, in, descriptors))
            return state_fail(in);
        state_get_end(in);
    }
    state_get_end(in);
    return !in->at.failed;
}

/* The ledger says which tags are kept; what waits for them is in the state. An evapid in between that does not know them
 * leaves only the ledger's slots. */
static bool load_kept(struct evapid *evapid, struct state_in *in)
{
    struct ledger *ledger = &evapid->ledger;
    for (struct ledger_slot *slot = ledger_next(ledger, NULL); slot != NULL; slot = ledger_next(ledger, slot))
        if (slot->index == LEDGER_KEPT)
            evapid_adopt_kept(evapid, slot);
    state_get_record(in, "kept");
    while (state_get_next(in, "tag")) {
        const struct ledger_slot *slot = ledger_at(ledger, (uint32_t)state_get(in, "slot", LEDGER_NONE));
        struct kept *kept = evapid->bus.keeping.first;
        while (kept != NULL && kept->slot != slot)
            kept = kept->next;
        if (kept == NULL || !kept_load(&evapid->bus, kept, in))
            return state_fail(in);
        state_get_end(in);
    }
    state_get_end(in);
    return !in->at.failed;
}

static bool load_listeners(struct evapid *evapid, struct state_in *in, struct listener **module)
{
    state_get_record(in, "listeners");
    const bool loaded = listeners_load(&evapid->listeners, in, &evapid->config.limits, &evapid->config.access,
                                       evapid->config.module_listener, module);
    state_get_end(in);
    return loaded;
}

static bool load_kamailio(struct evapid *evapid, struct state_in *in, struct descriptors *descriptors)
{
    state_get_record(in, "kamailio");
    const bool loaded = succession_load(&evapid->kamailio, in, descriptors);
    state_get_end(in);
    return loaded;
}

static bool load_bus(struct evapid *evapid, struct state_in *in, struct descriptors *descriptors)
{
    state_get_record(in, "bus");
    if (!bus_load(&evapid->bus, in))
        return false;
    state_get_end(in);
    state_get_record(in, "stats");
    if (!stats_load(&evapid->control.stats, in))
        return false;
    state_get_end(in);
    return load_clients(evapid, in, descriptors) && load_kept(evapid, in);
}

static bool load_links(struct evapid *evapid, struct state_in *in, struct descriptors *descriptors)
{
    state_get_record(in, "links");
    const bool loaded = succession_load_links(&evapid->kamailio, in, descriptors);
    state_get_end(in);
    return loaded;
}

/* Log the fields that we don't know: we cannot continue with them. */
static void say_unknown(const struct state_in *in)
{
    for (unsigned i = 0; i < in->unknown_count; i++)
        log_line(LEVEL_WARNING, SUBJECT,
                 "the evapid before kept %s in its state, which this one does not know: %zu bytes skipped",
                 in->unknown[i].name, in->unknown[i].bytes);
}

const char *handover_load(struct evapid *evapid, struct state_in *in, struct descriptors *descriptors)
{
    struct listener *module = NULL;
    struct bus *bus = &evapid->bus;
    if (!load_listeners(evapid, in, &module))
        return "the state of the listeners makes no sense";
    declaration_restore(&evapid->kamailio.declaration, module);
    if (!load_kamailio(evapid, in, descriptors))
        return "the state of the workers makes no sense";
    declaration_go_on(&evapid->kamailio.declaration);
    if (!load_bus(evapid, in, descriptors))
        return "the state of the clients makes no sense";
    const struct event_counts events = bus->events;
    bus_restore_books(bus, &events);
    if (!load_links(evapid, in, descriptors) || !state_finish(in))
        return "the state of the links makes no sense";
    say_unknown(in);
    bus_report_gone(bus);
    listeners_drop_spares(&evapid->listeners);
    log_line(LEVEL_NOTICE, SUBJECT, "taken over: %u clients", HASH_COUNT(bus->roster.clients));
    if (bus->lost > 0)
        log_line(LEVEL_WARNING, SUBJECT, "%u clients are closed: their connections were not kept", bus->lost);
    return NULL;
}
