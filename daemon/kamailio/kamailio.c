/* Passing on what routes send and what clients send, turn by turn. */
#include "kamailio/kamailio.h"

#include "bus/flush.h"
#include "bus/roster.h"
#include "client/ledger.h"
#include "kamailio/attachment.h"
#include "kamailio/gate.h"
#include "kamailio/hold.h"
#include "kamailio/progress.h"
#include "kamailio/publish.h"
#include "kamailio/seat.h"

/* ---- what routes say -------------------------------------------------------------------------------------------- */

static enum event_kind event_kind_of(const struct ring_record *record)
{
    switch (record->type) {
    case RING_RELAY: return EVENT_RELAY;
    case RING_MULTICAST: return EVENT_MULTICAST;
    case RING_UNICAST: return EVENT_UNICAST;
    default: return EVENT_SEND;
    }
}

/* The index of the connection that an event names; 0: it names none, or one of an evapid whose clients we don't have. */
static uint32_t index_in(const struct kamailio *kamailio, const struct ring_record *record)
{
    const struct attachment *attachment = &kamailio->attachment;
    const bool ours = record->session == attachment->session ||
                      (record->type == RING_SEND && attachment->before != 0 && record->session == attachment->before);
    return ours && record->target <= INT32_MAX ? (uint32_t)record->target : 0;
}

static void kamailio_on_event(void *owner, const struct ring_record *record, const char *tag,
                              const struct payload *payload)
{
    struct kamailio *kamailio = owner;
    const uint32_t index = index_in(kamailio, record);
    const bool has_guest = index != 0 && record->session == kamailio->attachment.session &&
                           (record->type != RING_SEND || record->worker == RING_GUEST);
    const struct event event = { .kind = event_kind_of(record),
                                 .payload = payload,
                                 .tag = tag,
                                 .tag_length = record->tag_length,
                                 .index = index,
                                 .guest = has_guest ? roster_find(kamailio->bus, index) : NULL };
    const uint32_t receivers = bus_issue(kamailio->bus, &event);
    if (event.kind == EVENT_MULTICAST)
        intake_note_work(kamailio->attachment.intake, receivers);
    else if (event.kind == EVENT_RELAY)
        intake_note_work(kamailio->attachment.intake, kamailio->bus->keeping.count);
}

static void kamailio_on_done(struct kamailio *kamailio, const struct ring_record *record)
{
    struct worker *worker = record->worker < EVAPID_WORKERS_MAX ? kamailio->attachment.workers[record->worker] : NULL;
    struct post *post = NULL;
    while (worker != NULL && (post = worker_pop_done(worker, record->target)) != NULL)
        seat_answered(kamailio, post);
    kamailio->resume_wanted = true;
}

/* A tag or a close that is read ahead only matters for a client that is being admitted: the events in the ring wait for
 * its admission. For other clients it comes again, after the events that were issued before it. */
static void kamailio_on_control(void *owner, const struct ring_record *record, const char *tag, bool ahead)
{
    struct kamailio *kamailio = owner;
    if (record->session != kamailio->attachment.session) {
        kamailio->stale += !ahead;
        return;
    }
    if (record->type == RING_DONE) {
        kamailio_on_done(kamailio, record);
        return;
    }
    struct client *client = record->target <= INT32_MAX ? roster_find(kamailio->bus, (uint32_t)record->target) : NULL;
    if (client == NULL || (ahead && client->state != CLIENT_ADMITTING))
        return; /* it has gone, or the record comes again in its turn */
    if (record->type == RING_TAG)
        bus_tag(kamailio->bus, client, tag, record->tag_length);
    else
        flush_finish(kamailio->bus, client);
}

static void kamailio_on_crowded(void *owner)
{
    hold_end(owner, "the queue is nearly full");
}

static bool kamailio_on_busy(void *owner)
{
    const struct kamailio *kamailio = owner;
    return kamailio->bus->flush.behind;
}

static void kamailio_on_commit(void *owner, uint64_t tail)
{
    const struct kamailio *kamailio = owner;
    bus_commit(kamailio->bus, kamailio->attachment.instance, tail);
}

/* A message that has reached its worker is not lost if we are killed. */
static void kamailio_on_written(struct worker *worker, struct post *post)
{
    (void)worker;
    ledger_note_written(post->seat->client->slot, post->type == WIRE_MESSAGE);
}

/* ---- what the bus tells us -------------------------------------------------------------------------------------- */

static bool upstream_opened(void *owner, struct client *client)
{
    return seat_open(owner, client);
}

static bool upstream_message(void *owner, struct client *client, const char *bytes, size_t length)
{
    return seat_message(owner, client->seat, bytes, length);
}

static void upstream_settle(void *owner, struct client *client)
{
    seat_advance(owner, client->seat);
}

static void upstream_present(void *owner, uint64_t hash, bool present)
{
    publish_tag(owner, hash, present);
}

static void upstream_connected(void *owner, const struct client *client, bool there)
{
    publish_connection(owner, client->index, there);
}

static void upstream_admitted(void *owner, const struct client *client, bool receives)
{
    publish_receiver(owner, client->index, receives);
    hold_publish_clients(owner);
}

static void upstream_kept(void *owner)
{
    publish_kept(owner);
}

static void upstream_commit(void *owner)
{
    const struct kamailio *kamailio = owner;
    if (kamailio->attachment.intake != NULL)
        intake_commit(kamailio->attachment.intake);
    else
        bus_commit(kamailio->bus, 0, 0); /* events that came another way */
}

struct bus_upstream kamailio_upstream(struct kamailio *kamailio)
{
    return (struct bus_upstream){ .owner = kamailio,
                                  .opened = upstream_opened,
                                  .message = upstream_message,
                                  .ended = upstream_settle,
                                  .gone = upstream_settle,
                                  .present = upstream_present,
                                  .connected = upstream_connected,
                                  .admitted = upstream_admitted,
                                  .kept = upstream_kept,
                                  .commit = upstream_commit };
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

const char *kamailio_open(struct kamailio *kamailio, uv_loop_t *loop, const struct config *config, struct bus *bus,
                          struct listeners *listeners, struct kamailio_answerer answerer,
                          struct inherited_door inherited)
{
    kamailio->answerer = answerer;
    kamailio->loop = loop;
    kamailio->config = config;
    kamailio->bus = bus;
    kamailio->declaration = (struct declaration){ .listeners = listeners, .config = config };
    kamailio->worker_host = (struct worker_host){ .owner = kamailio,
                                                  .hello = gate_on_hello,
                                                  .query = answerer.answer != NULL ? gate_on_query : NULL,
                                                  .bad_hello = gate_on_bad_hello,
                                                  .lost = gate_on_lost,
                                                  .written = kamailio_on_written };
    kamailio->intake_host = (struct intake_host){ .owner = kamailio,
                                                  .busy = kamailio_on_busy,
                                                  .event = kamailio_on_event,
                                                  .control = kamailio_on_control,
                                                  .crowded = kamailio_on_crowded,
                                                  .corrupt = attachment_on_corrupt,
                                                  .commit = kamailio_on_commit };
    hold_open(kamailio);
    const char *why = attachment_open(kamailio);
    if (why != NULL)
        return why;
    return door_open(&kamailio->door, loop, config->kamailio_socket, &config->kamailio_access, inherited,
                     gate_on_connect, kamailio);
}

void kamailio_flush(struct kamailio *kamailio)
{
    bool awaited = false;
    bool posted = false;
    attachment_turn(kamailio);
    gate_serve(kamailio);
    seat_go_on_placing(kamailio);
    hold_check(kamailio);
    publish_waiting(kamailio); /* a route that is about to run may read it */
    for (unsigned i = 0; i < kamailio->attachment.workers_declared; i++) {
        struct worker *worker = kamailio->attachment.workers[i];
        if (worker == NULL || worker->state == WORKER_DEPARTED)
            continue;
        if (kamailio->resume_wanted && !kamailio->stopping)
            seat_serve_waiting(kamailio, worker);
        awaited |= worker->posts != NULL;
        if (worker->unsent == NULL || worker->blocked)
            continue;
        posted = true;
        worker_flush(worker);
    }
    kamailio->resume_wanted = false;
    if (kamailio->attachment.intake != NULL)
        intake_await_answers(kamailio->attachment.intake, awaited, posted);
}

void kamailio_tick(struct kamailio *kamailio)
{
    door_tick(&kamailio->door);
    gate_tick(kamailio);
    attachment_tick(kamailio);
    kamailio->resume_wanted = true; /* for messages that could not be posted for lack of memory */
}

/* Control records for routes that have begun still count; events stay in the ring for the next evapid. */
void kamailio_stop(struct kamailio *kamailio)
{
    const bool silent = publish_presence(kamailio) == NULL;
    kamailio->stopping = true;
    door_close(&kamailio->door);
    if (silent)
        return;
    publish_attached(kamailio, false);
    intake_hold(kamailio->attachment.intake);
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->attachment.workers[i] != NULL)
            progress_await_done(kamailio, kamailio->attachment.workers[i]);
}

bool kamailio_is_idle(const struct kamailio *kamailio)
{
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->attachment.workers[i] != NULL && kamailio->attachment.workers[i]->posts != NULL)
            return false;
    return true;
}

void kamailio_go_on(struct kamailio *kamailio, uint64_t stale)
{
    kamailio->stale = stale;
    kamailio->resume_wanted = true;
}

void kamailio_close(struct kamailio *kamailio)
{
    attachment_drop(kamailio, "evapid is stopping");
    gate_close(kamailio);
    seat_free_all(kamailio);
    attachment_close(kamailio);
    hold_close(kamailio);
}
