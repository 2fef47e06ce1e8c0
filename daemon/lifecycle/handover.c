/* Writing down how evapid stands, and standing so again. */
#include "lifecycle/handover.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/state.h"
#include "base/store.h"
#include "bus/flush.h"
#include "bus/roster.h"
#include "client/transport.h"
#include "kamailio/seat.h"
#include "kamailio/succession.h"
#include "views/answer.h"

#define SUBJECT "handover"

static const char kamailio_door[] = "kamailio-socket";
static const char control_door[] = "control-socket";
static const char worker_link[] = "worker-";
static const char *const ledger_names[] = { "ledger", "ledger-2" }; /* in turn, when one is made of the other */

/* ---- leaving ---------------------------------------------------------------------------------------------------- */

/* Each in a record of its own, by whoever owns it. */
static void save_all(struct household *household, uint64_t number, struct state_out *out)
{
    state_put(out, "number", number);
    state_put_record(out, kamailio_door);
    door_save(&household->kamailio.door, out);
    state_put_end(out);
    state_put_record(out, control_door);
    door_save(&household->control.door, out);
    state_put_end(out);
    state_put_record(out, "listeners");
    listeners_save(&household->listeners, out);
    state_put_end(out);
    state_put_record(out, "kamailio");
    succession_save(&household->kamailio, out);
    state_put_end(out);
    state_put_record(out, "bus");
    bus_save(&household->bus, out);
    state_put_end(out);
    state_put_record(out, "stats");
    stats_save(&household->control.stats, out);
    state_put_end(out);
    state_put_record(out, "clients");
    for (struct client *client = household->bus.roster.clients; client != NULL; client = client->hh.next) {
        state_put_record(out, "client");
        state_put(out, "index", client->index);
        state_put(out, "slot", ledger_number(&household->ledger, client->slot));
        bus_save_client(client, out);
        state_put_record(out, "seat");
        seat_save(client->seat, out);
        state_put_end(out);
        state_put_end(out);
    }
    state_put_end(out);
    state_put_record(out, "links");
    succession_save_links(&household->kamailio, out);
    state_put_end(out);
}

static bool hold_all(const struct household *household, struct holdings *holdings)
{
    bool held = holdings_add(holdings, household->ledger.memfd, "%s", ledger_names[0]) &&
                holdings_add(holdings, household->kamailio.door.fd, "%s", kamailio_door) &&
                holdings_add(holdings, household->control.door.fd, "%s", control_door) &&
                listeners_hold(&household->listeners, holdings) && succession_hold(&household->kamailio, holdings) &&
                http_hold(household->http, holdings);
    for (const struct client *client = household->bus.roster.clients; held && client != NULL; client = client->hh.next)
        held = client->fd < 0 || holdings_add(holdings, client->fd, "client-%u", client->index);
    return held;
}

bool handover_save(struct household *household, struct holdings *holdings)
{
    struct state_out out;
    uint64_t number = 0;
    while (number == 0)
        if (getrandom(&number, sizeof(number), 0) < 0)
            return false;
    if (!state_begin(&out))
        return false;
    save_all(household, number, &out);
    const int memfd = state_end(&out);
    if (memfd < 0)
        return false;
    if (!holdings_add(holdings, memfd, "state") || !hold_all(household, holdings)) {
        close(memfd);
        holdings_clear(holdings, false);
        return false;
    }
    household->ledger.header->state = number;
    return true;
}

void handover_cancel(struct household *household, struct holdings *holdings)
{
    ledger_go_on(&household->ledger);
    household->ledger.header->state = 0;
    close(holdings_take(holdings, "state"));
    holdings_clear(holdings, false);
}

bool handover_is_stored(const char *name)
{
    static const char *const brought[] = { "state", worker_link, kamailio_door, control_door };
    for (size_t i = 0; i < sizeof(brought) / sizeof(*brought); i++)
        if (strncmp(name, brought[i], strlen(brought[i])) == 0)
            return false;
    return true;
}

/* ---- coming ----------------------------------------------------------------------------------------------------- */

/* The listener that the client of a slot had come to. */
static struct listener *listener_of(struct household *household, struct ledger_slot *slot)
{
    const char *name = ledger_listener_name(slot);
    struct listener *listener = listener_named(&household->listeners, name);
    return listener != NULL
               ? listener
               : listener_remember(&household->listeners, name, &household->config.limits, &household->config.access);
}

/* Adopt the client of a slot; fd -1: its socket was not kept, or it is GONE. NULL, and fd is closed: there is no memory. */
static struct client *adopt(struct household *household, struct ledger_slot *slot, int fd)
{
    struct listener *listener = listener_of(household, slot);
    if (listener == NULL || !listener_enter(listener, &slot->peer)) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    struct client *client = bus_adopt(&household->bus, fd, slot, &listener->limits, listener);
    if (client == NULL)
        listener_leave(listener, &slot->peer);
    else if (fd < 0)
        listener_note_gone(listener);
    return client;
}

static bool load_client(struct household *household, struct state_in *in, struct holdings *holdings)
{
    const uint32_t index = (uint32_t)state_take(in, "index", 0);
    struct ledger_slot *slot = ledger_at(&household->ledger, (uint32_t)state_take(in, "slot", LEDGER_NONE));
    if (slot == NULL || slot->index != index || roster_find(&household->bus, index) != NULL)
        return false;
    struct client *client = adopt(household, slot, holdings_take(holdings, "client-%u", index));
    if (client == NULL || !bus_load_client(&household->bus, client, in))
        return false;
    state_take_record(in, "seat");
    if (!seat_load(&household->kamailio, client->seat, in))
        return false;
    state_take_end(in);
    return true;
}

static bool load_clients(struct household *household, struct state_in *in, struct holdings *holdings)
{
    state_take_record(in, "clients");
    while (state_take_next(in, "client")) {
        if (!load_client(household, in, holdings))
            return state_fail(in);
        state_take_end(in);
    }
    state_take_end(in);
    return !in->at.failed;
}

static bool load_listeners(struct household *household, struct state_in *in, struct listener **module)
{
    state_take_record(in, "listeners");
    const bool loaded = listeners_load(&household->listeners, in, &household->config.limits, &household->config.access,
                                       household->config.module_listener, module);
    state_take_end(in);
    return loaded;
}

static bool load_kamailio(struct household *household, struct state_in *in, struct holdings *holdings)
{
    state_take_record(in, "kamailio");
    const bool loaded = succession_load(&household->kamailio, in, holdings);
    state_take_end(in);
    return loaded;
}

static bool load_bus(struct household *household, struct state_in *in, struct holdings *holdings)
{
    state_take_record(in, "bus");
    if (!bus_load(&household->bus, in))
        return false;
    state_take_end(in);
    state_take_record(in, "stats");
    if (!stats_load(&household->control.stats, in))
        return false;
    state_take_end(in);
    return load_clients(household, in, holdings);
}

static bool load_links(struct household *household, struct state_in *in, struct holdings *holdings)
{
    state_take_record(in, "links");
    const bool loaded = succession_load_links(&household->kamailio, in, holdings);
    state_take_end(in);
    return loaded;
}

/* What we can't go on with, for we don't know what it means. */
static void say_unknown(const struct state_in *in)
{
    for (unsigned i = 0; i < in->unknown_count; i++)
        log_line(LEVEL_WARNING, SUBJECT,
                 "the evapid before kept %s in its state, which this one does not know: %zu bytes skipped",
                 in->unknown[i].name, in->unknown[i].bytes);
}

static const char *load_state(struct household *household, struct state_in *in, struct holdings *holdings)
{
    struct listener *module = NULL;
    struct bus *bus = &household->bus;
    if (!load_listeners(household, in, &module))
        return "the state of the listeners makes no sense";
    declaration_restore(&household->kamailio.declaration, module);
    if (!load_kamailio(household, in, holdings))
        return "the state of the workers makes no sense";
    declaration_go_on(&household->kamailio.declaration);
    if (!load_bus(household, in, holdings))
        return "the state of the clients makes no sense";
    const struct event_counts events = bus->events;
    bus_take_books(bus, &events);
    if (!load_links(household, in, holdings) || !state_finish(in))
        return "the state of the links makes no sense";
    say_unknown(in);
    bus_settle_gone(bus);
    listeners_drop_spares(&household->listeners);
    log_line(LEVEL_NOTICE, SUBJECT, "taken over: %u clients", HASH_COUNT(bus->roster.clients));
    if (bus->lost > 0)
        log_line(LEVEL_WARNING, SUBJECT, "%u clients are closed: their connections were not kept", bus->lost);
    return NULL;
}

/* ---- after a kill ----------------------------------------------------------------------------------------------- */

/* Does the client's stream stand between two frames both ways? Says in the slot what of it had been sent. */
static bool stream_is_whole(struct ledger_slot *slot, int fd)
{
    struct tally *tally = &slot->tally;
    const uint64_t sent = transport_tcp.position(fd) - slot->origin;
    if (slot->input_begun || slot->cookie != transport_tcp.cookie(fd))
        return false;
    if (slot->offered == 0 || sent != slot->offered)
        return sent == tally->delivered_bytes && !slot->output_begun;
    tally->delivered = tally->relayed - tally_dropped(tally); /* all that was offered, which was all that there was */
    tally->delivered_bytes = sent;
    ledger_note_output(slot, false);
    return true;
}

/* What of the client was in memory is lost; the messages that a worker has are run all the same. */
static void count_lost(struct ledger_slot *slot)
{
    struct tally *tally = &slot->tally;
    tally->dropped[DROP_LOST] += tally->relayed - tally->delivered - tally_dropped(tally);
    tally->messages_delivered = slot->written;
    tally->messages_dropped[LOSS_LOST] += tally_messages_waiting(tally);
}

/* The client of a slot goes on, or it is over. Returns which. */
static bool recover_client(struct household *household, struct ledger_slot *slot, int fd)
{
    char subject[32];
    snprintf(subject, sizeof(subject), "client %u", slot->index);
    const bool whole = fd >= 0 && stream_is_whole(slot, fd);
    count_lost(slot);
    struct client *client = whole ? adopt(household, slot, fd) : NULL;
    if (client != NULL) {
        if (slot->standing == STANDING_ADMITTED)
            bus_admit(&household->bus, client);
        return true;
    }
    log_line(LEVEL_WARNING, subject, "%s",
             fd < 0  ? "its connection was not kept"
             : whole ? "no memory to go on with it; closing it"
                     : "its stream stands in the middle of a frame; closing it");
    if (fd >= 0 && !whole)
        transport_tcp.close(fd);
    store_forget_client(slot->index);
    household->ledger.header->closed++;
    ledger_release(&household->ledger, slot);
    return false;
}

static void recover_clients(struct household *household, struct holdings *holdings, uint64_t instance, uint64_t tail)
{
    struct ledger *ledger = &household->ledger;
    const struct event_counts events = ledger_recover(ledger, instance, tail);
    unsigned kept = 0;
    unsigned closed = 0;
    struct ledger_slot *next = NULL;
    for (struct ledger_slot *slot = ledger_next(ledger, NULL); slot != NULL; slot = next) {
        next = ledger_next(ledger, slot);
        if (slot->closed) { /* and only its seat was still there */
            count_lost(slot);
            ledger_release(ledger, slot);
            continue;
        }
        const bool goes_on = recover_client(household, slot, holdings_take(holdings, "client-%u", slot->index));
        kept += goes_on;
        closed += !goes_on;
    }
    bus_take_books(&household->bus, &events);
    log_line(LEVEL_WARNING, SUBJECT,
             "evapid was killed: %u clients go on, %u are closed; events lost: %llu, messages: %llu", kept, closed,
             (unsigned long long)household->bus.totals.dropped[DROP_LOST],
             (unsigned long long)household->bus.totals.messages_dropped[LOSS_LOST]);
}

/* Clients that were about to be let in by a Kamailio that was new to them: they get what waits for them all the same. */
static uint32_t count_readmitting(const struct bus *bus)
{
    uint32_t count = 0;
    for (const struct client *client = bus->roster.clients; client != NULL; client = client->hh.next)
        count += client->slot->standing == STANDING_AGAIN;
    return count;
}

static void recover(struct household *household, struct holdings *holdings)
{
    const uint64_t instance = household->ledger.header->instance;
    uint64_t tail = 0;
    const char *why = "there is none";
    if (instance != 0)
        why = succession_reopen_queue(&household->kamailio, instance, holdings, &tail);
    if (why != NULL && instance != 0)
        log_line(LEVEL_WARNING, SUBJECT, "the queue of the Kamailio before can't be read: %s", why);
    if (why != NULL) { /* those of the next one get these names */
        store_forget("ring");
        store_forget("ring-wake");
    }
    recover_clients(household, holdings, why == NULL ? instance : 0, tail);
    succession_go_on_alone(&household->kamailio, count_readmitting(&household->bus));
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

/* What the evapid before us has left. */
struct legacy {
    bool adopted; /* the ledger is its */
    bool stated;  /* and there is a state, which is being read */
    struct state_in in;
};

/* The ledger of the evapid before us; -1: there is none. There may be two after a start that broke off, of which one is as
 * good as the other. *name: what it is called in the store. */
static int take_ledger(struct holdings *holdings, const char **name)
{
    const int memfd = holdings_take(holdings, "%s", ledger_names[0]);
    const int other = holdings_take(holdings, "%s", ledger_names[1]);
    *name = ledger_names[memfd < 0];
    if (memfd < 0 || other < 0)
        return memfd < 0 ? other : memfd;
    close(other);
    store_forget("%s", ledger_names[1]);
    return memfd;
}

/* Our ledger was made of one that is stored under that name: it takes that one's place, and there is always one of them. */
static void exchange_ledger(const struct ledger *ledger, const char *name)
{
    for (unsigned i = 0; i < ledger->unknown_count; i++)
        log_line(LEVEL_WARNING, SUBJECT,
                 "the evapid before kept %s in its ledger, which this one does not know: %llu bytes skipped",
                 ledger->unknown[i].name, (unsigned long long)ledger->unknown[i].bytes);
    store_keep(ledger->memfd, "%s", ledger_names[name == ledger_names[0]]);
    store_forget("%s", name);
}

/* The ledger of the evapid before us, or a new one, which is none to replace somebody with. Returns NULL, or why there is
 * none; *adopted says which it is. */
static const char *open_ledger(struct household *household, struct holdings *holdings, bool replace, bool *adopted)
{
    const char *name = ledger_names[0];
    const int memfd = take_ledger(holdings, &name);
    const char *why = memfd >= 0 ? ledger_adopt(&household->ledger, memfd) : NULL;
    *adopted = memfd >= 0 && why == NULL;
    if (*adopted && ledger_was_made(&household->ledger))
        exchange_ledger(&household->ledger, name);
    if (*adopted || (replace && why != NULL))
        return why;
    if (memfd >= 0) {
        log_line(LEVEL_ERROR, SUBJECT, "the ledger can't be taken over: %s; all clients are closed", why);
        store_forget("%s", name);
    }
    why = ledger_open(&household->ledger);
    if (why == NULL)
        store_keep(household->ledger.memfd, "%s", ledger_names[0]);
    return why;
}

/* The state that goes with the ledger. A state of an earlier time is none. Returns NULL, or why it can't be used. */
static const char *open_state(struct household *household, struct holdings *holdings, struct state_in *in)
{
    const int memfd = holdings_take(holdings, "state");
    const uint64_t number = household->ledger.header->state;
    if (memfd < 0)
        return "there is none";
    const char *why = state_open(in, memfd);
    if (why != NULL)
        return why;
    if (number != 0 && state_take(in, "number", 0) == number)
        return NULL;
    state_close(in);
    return "it is of another time";
}

/* What was stored for the hand-over alone has been taken, or is of no use: whatever becomes of us, it is not used twice. */
static void forget_brought(struct household *household)
{
    household->ledger.header->state = 0;
    store_forget("state");
    store_forget(kamailio_door);
    store_forget(control_door);
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        store_forget("%s%u", worker_link, i);
}

/* Without a state nobody can go on with the doors and links of the evapid before us. As long as anybody has them open, we
 * can't have the doors, and workers don't come back. */
static void drop_brought(struct household *household, struct holdings *holdings)
{
    struct holding *holding = NULL;
    struct holding *next = NULL;
    bool dropped = false;
    HASH_ITER(hh, holdings->all, holding, next)
    {
        if (handover_is_stored(holding->name))
            continue;
        dropped = true;
        close(holdings_take(holdings, "%s", holding->name));
    }
    forget_brought(household);
    if (dropped)
        store_settle();
}

/* All are there before one begins: what none of them asks for may leave for one that overlaps it. */
static const char *open_listeners(struct household *household, const char **subject)
{
    struct listener *listener = NULL;
    for (size_t i = 0; i < household->config.listener_count; i++) {
        const struct config_listener *from = &household->config.listeners[i];
        *subject = SUBJECT;
        if (listener_add(&household->listeners, &from->address, &from->limits, &from->access, from->max_clients,
                         LISTENER_CONFIG) == NULL)
            return "no memory";
    }
    DL_FOREACH(household->listeners.first, listener)
    {
        *subject = listener->subject;
        const char *why = listener_start(listener);
        if (why != NULL)
            return why;
        if (listener_is_exposed(listener))
            log_line(LEVEL_WARNING, listener->subject, LISTENER_EXPOSED);
    }
    return NULL;
}

static const char *open_http(struct household *household, int inherited, const char **subject)
{
    static char name[HTTP_SUBJECT];
    const char *why = NULL;
    if (household->config.metrics.ss_family == AF_UNSPEC)
        return NULL;
    http_subject(&household->config.metrics, name);
    *subject = name;
    household->http = http_open(&household->loop, &household->config.metrics, inherited, &household->subject, &why);
    return why;
}

/* The metrics' socket of the evapid before us goes on if it is where ours is to be, and makes way for others if not. */
static const char *open_tcp(struct household *household, struct holdings *holdings, const char **subject)
{
    const int metrics = holdings_take(holdings, "metrics");
    const bool leaves = metrics >= 0 && !http_is_at(metrics, &household->config.metrics);
    if (leaves) {
        store_end(metrics, "metrics");
        household->listeners.other_leaving = &metrics;
    }
    const char *why = open_listeners(household, subject);
    if (why == NULL)
        why = open_http(household, leaves ? -1 : metrics, subject);
    household->listeners.other_leaving = NULL;
    if (leaves)
        close(metrics);
    return why;
}

static const char *open_doors(struct household *household, struct inherited_door kamailio,
                              struct inherited_door control, const char **subject)
{
    *subject = household->config.control_socket;
    const char *why = control_open(&household->control, &household->loop, *subject, &household->config.control_access,
                                   control, &household->subject);
    if (why != NULL)
        return why;
    *subject = household->config.kamailio_socket;
    return kamailio_open(
        &household->kamailio, &household->loop, &household->config, &household->bus, &household->listeners,
        (struct kamailio_answerer){ .answer = answer_query, .subject = &household->subject }, kamailio);
}

/* What nobody knows what to do with. */
static void drop_rest(struct holdings *holdings)
{
    for (const struct holding *holding = holdings->all; holding != NULL; holding = holding->hh.next)
        store_forget("%s", holding->name);
    holdings_clear(holdings, true);
}

/* How the evapid before us has left: is there its ledger, and a state that goes with it? Returns NULL, or why nothing can be
 * begun with that. */
static const char *open_legacy(struct household *household, struct holdings *holdings, bool replace,
                               struct legacy *legacy)
{
    const char *why = open_ledger(household, holdings, replace, &legacy->adopted);
    if (why != NULL)
        return why;
    why = legacy->adopted ? open_state(household, holdings, &legacy->in) : "its ledger is of no use";
    legacy->stated = why == NULL;
    if (replace)
        return why;
    if (why != NULL && household->ledger.header->state != 0)
        log_line(LEVEL_ERROR, SUBJECT, "the state can't be taken over: %s", why);
    if (!legacy->stated)
        drop_brought(household, holdings);
    return NULL;
}

/* Doors and listeners first, since they may fail for what can be set right; then what the evapid before us has left. */
static const char *open_household(struct household *household, struct holdings *holdings, struct legacy *legacy,
                                  const char **subject)
{
    struct inherited_door kamailio = { .fd = -1 };
    struct inherited_door control = { .fd = -1 };
    if (legacy->stated) {
        state_take_record(&legacy->in, kamailio_door);
        door_load(&kamailio, &legacy->in, holdings, kamailio_door);
        state_take_end(&legacy->in);
        state_take_record(&legacy->in, control_door);
        door_load(&control, &legacy->in, holdings, control_door);
        state_take_end(&legacy->in);
    }
    bus_open(&household->bus, &household->loop, &household->ledger);
    bus_set_limits(&household->bus, household->config.max_total_queued_bytes);
    bus_set_upstream(&household->bus, kamailio_upstream(&household->kamailio));
    household->listeners.loop = &household->loop;
    household->listeners.host = (struct listener_host){ .owner = &household->bus, .connected = bus_on_connection };
    household->subject = (struct status_subject){ .bus = &household->bus,
                                                  .kamailio = &household->kamailio,
                                                  .listeners = &household->listeners,
                                                  .control = &household->control.door,
                                                  .turn = &household->turn,
                                                  .started_ms = uv_now(&household->loop) };
    listeners_inherit(&household->listeners, holdings);
    const char *why = open_doors(household, kamailio, control, subject);
    if (why == NULL)
        why = open_tcp(household, holdings, subject);
    if (why != NULL)
        return why;
    *subject = SUBJECT;
    if (legacy->stated) {
        forget_brought(household);
        return load_state(household, &legacy->in, holdings);
    }
    if (legacy->adopted)
        recover(household, holdings);
    return NULL;
}

const char *handover_open(struct household *household, struct holdings *holdings, bool replace, const char **subject)
{
    struct legacy legacy = { .stated = false };
    *subject = SUBJECT;
    const char *why = open_legacy(household, holdings, replace, &legacy);
    if (why == NULL)
        why = open_household(household, holdings, &legacy, subject);
    if (legacy.stated)
        state_close(&legacy.in);
    if (why == NULL)
        drop_rest(holdings);
    return why;
}
