/* Builds the metrics. Like the status it only reads, except for the meter, which it updates. */
#include "views/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "bus/kept.h"
#include "bus/shed.h"
#include "kamailio/hold.h"
#include "views/exposition.h"
#include "views/process.h"

#define LABELS(...)                                                                                                    \
    (const struct label[])                                                                                             \
    {                                                                                                                  \
        __VA_ARGS__,                                                                                                   \
        {                                                                                                              \
            NULL, NULL                                                                                                 \
        }                                                                                                              \
    }

const char *metrics_objection(const struct status_subject *subject)
{
    static char why[ADDRESS_TEXT + 64];
    const struct kamailio *kamailio = subject->kamailio;
    const struct listener *listener = NULL;
    if (kamailio->stopping)
        return "evapid is stopping";
    if (kamailio->attachment.state != ATTACHED)
        return "no Kamailio is attached";
    if (hold_is_on(kamailio))
        return "events are held until the clients are there";
    bool listening = false;
    DL_FOREACH(subject->listeners->first, listener)
    {
        listening |= listener->state == LISTENER_LISTENING;
        if (listener->state != LISTENER_IDLE && listener->state != LISTENER_PAUSED)
            continue;
        snprintf(why, sizeof(why), "%s takes no clients", listener->subject);
        return why;
    }
    return listening ? NULL : "there is no listener";
}

/* ---- clients and listeners -------------------------------------------------------------------------------------- */

#define STATES ((unsigned)CLIENT_GONE) /* of connected clients */

/* One listener's clients by state. */
struct crowd {
    const struct listener *listener;
    uint32_t clients[STATES];
};

/* The result of looking at every client once. */
struct census {
    struct crowd *crowds; /* one for each listener; NULL: memory was short */
    size_t count;
    uint64_t slow, queued_bytes;
    double fullest; /* the fullest queue, as a fraction of its limit */
};

static void census_add(struct census *census, const struct client *client)
{
    if (client->state == CLIENT_GONE)
        return;
    const size_t bytes = outq_bytes(&client->out);
    const double full = (double)bytes / (double)client->out.limit;
    census->slow += client->pace.slow_since_ms != 0;
    census->queued_bytes += bytes;
    census->fullest = full > census->fullest ? full : census->fullest;
    for (size_t i = 0; i < census->count; i++)
        if (census->crowds[i].listener == client->listener)
            census->crowds[i].clients[client->state]++;
}

static struct census take_census(const struct status_subject *subject)
{
    struct census census = { .count = 0 };
    const struct listener *listener = NULL;
    size_t listeners = 0;
    DL_FOREACH(subject->listeners->first, listener)
    listeners++;
    census.crowds = calloc(listeners + 1, sizeof(*census.crowds));
    if (census.crowds == NULL)
        return census;
    DL_FOREACH(subject->listeners->first, listener)
    census.crowds[census.count++].listener = listener;
    for (const struct client *client = subject->bus->roster.clients; client != NULL; client = client->hh.next)
        census_add(&census, client);
    return census;
}

static void expose_crowds(struct exposition *out, const struct census *census)
{
    exposition_family(out, "evapid_clients", "gauge", "Clients that are connected, by the listener they came to.");
    for (size_t i = 0; i < census->count; i++)
        for (unsigned state = 0; state < STATES; state++)
            exposition_value(out,
                             LABELS({ "listener", listener_name(census->crowds[i].listener) },
                                    { "state", client_state_name((enum client_state)state) }),
                             census->crowds[i].clients[state]);
    exposition_gauge(out, "evapid_clients_slow", "Clients that do not keep up.", census->slow);
    exposition_gauge(out, "evapid_queued_bytes", "Bytes that wait for clients, those of each client added up.",
                     census->queued_bytes);
    exposition_family(out, "evapid_fullest_queue_ratio", "gauge",
                      "The longest queue of a client, as a part of max_queued_bytes.");
    exposition_decimal(out, NULL, census->fullest);
}

static uint64_t listener_up(const struct listener *listener)
{
    return listener->state == LISTENER_LISTENING;
}

static uint64_t listener_max_clients(const struct listener *listener)
{
    return listener->max_clients;
}

static uint64_t listener_accepted(const struct listener *listener)
{
    return listener->accepted;
}

static void expose_each_listener(struct exposition *out, const struct listeners *all,
                                 uint64_t (*value)(const struct listener *listener))
{
    const struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    exposition_value(out, LABELS({ "listener", listener_name(listener) }), value(listener));
}

static void expose_listeners(struct exposition *out, const struct listeners *all)
{
    const struct listener *listener = NULL;
    exposition_family(out, "evapid_listener_up", "gauge", "Whether the listener takes clients.");
    expose_each_listener(out, all, listener_up);
    exposition_family(out, "evapid_listener_max_clients", "gauge", "Clients that may be connected to the listener.");
    expose_each_listener(out, all, listener_max_clients);
    exposition_family(out, "evapid_listener_accepted_total", "counter", "Clients whose connection was taken.");
    expose_each_listener(out, all, listener_accepted);
    exposition_family(out, "evapid_listener_refused_total", "counter", "Clients that were refused, by the reason.");
    DL_FOREACH(all->first, listener)
    for (int refusal = 0; refusal < REFUSALS; refusal++)
        exposition_value(
            out, LABELS({ "listener", listener_name(listener) }, { "reason", refusal_name((enum refusal)refusal) }),
            listener_refusals(listener, (enum refusal)refusal));
}

/* ---- the books -------------------------------------------------------------------------------------------------- */

static void expose_events(struct exposition *out, const struct bus *bus)
{
    const struct event_counts *events = &bus->events;
    const struct tally *totals = &bus->totals;
    exposition_family(out, "evapid_events_total", "counter",
                      "Events of scripts, and published at the control socket, by their kind.");
    exposition_value(out, LABELS({ "kind", "relay" }), events->relay);
    exposition_value(out, LABELS({ "kind", "multicast" }), events->multicast);
    exposition_value(out, LABELS({ "kind", "unicast" }), events->unicast);
    exposition_value(out, LABELS({ "kind", "send" }), events->send);
    exposition_counter(out, "evapid_events_without_receiver_total", "Events that nobody was there to get.",
                       events->no_receiver);
    exposition_counter(out, "evapid_deliveries_begun_total",
                       "Events that a client was meant to get, one for each client.", totals->relayed);
    exposition_counter(out, "evapid_deliveries_done_total",
                       "Events that a client's kernel has taken whole, one for each client.", totals->delivered);
    exposition_family(out, "evapid_deliveries_dropped_total", "counter",
                      "Events that a client did not get, one for each client, by the reason.");
    for (int reason = 0; reason < DROP_REASONS; reason++)
        exposition_value(out, LABELS({ "reason", drop_reason_name((enum drop_reason)reason) }),
                         totals->dropped[reason]);
    exposition_gauge(out, "evapid_deliveries_queued", "Events that wait for a client, one for each client.",
                     totals->relayed - totals->delivered - tally_dropped(totals));
    exposition_counter(out, "evapid_delivered_bytes_total", "Bytes that clients' kernels have taken.",
                       totals->delivered_bytes);
}

static void expose_messages(struct exposition *out, const struct tally *totals)
{
    exposition_counter(out, "evapid_messages_total",
                       "Messages of clients that came whole, and were handed on or dropped.", totals->messages);
    exposition_counter(out, "evapid_messages_done_total", "Messages whose event routes have ended.",
                       totals->messages_delivered);
    exposition_family(out, "evapid_messages_dropped_total", "counter",
                      "Messages that never start a route, by the reason.");
    for (int reason = 0; reason < MESSAGE_LOSSES; reason++)
        exposition_value(out, LABELS({ "reason", message_loss_name((enum message_loss)reason) }),
                         totals->messages_dropped[reason]);
    exposition_gauge(out, "evapid_messages_waiting", "Messages whose event routes have not ended.",
                     tally_messages_waiting(totals));
    exposition_counter(out, "evapid_message_bytes_total", "Bytes of the messages, without framing.",
                       totals->message_bytes);
}

static void expose_kept(struct exposition *out, const struct bus *bus)
{
    const struct kept *kept = NULL;
    uint64_t oldest_ms = 0;
    DL_FOREACH(bus->keeping.first, kept)
    {
        const uint64_t since_ms = kept->slot->since_ms;
        oldest_ms = oldest_ms == 0 || since_ms < oldest_ms ? since_ms : oldest_ms;
    }
    exposition_gauge(out, "evapid_kept_tags", "Tags whose clients have gone, and which are kept.", bus->keeping.count);
    exposition_gauge(out, "evapid_kept_tags_full", "Kept tags for which no more events may wait.", bus->keeping.full);
    exposition_gauge(out, "evapid_kept_events", "Events that wait for the next clients of kept tags.",
                     kept_events(bus));
    exposition_gauge(out, "evapid_kept_bytes", "Bytes of these, framing included.", kept_bytes(bus));
    exposition_family(out, "evapid_kept_since_seconds", "gauge",
                      "Since when the first of the kept tags is kept, since the epoch; 0: none is kept.");
    exposition_decimal(out, NULL, (double)oldest_ms / 1000);
}

static void expose_bus(struct exposition *out, const struct bus *bus)
{
    exposition_counter(out, "evapid_clients_accepted_total", "Clients whose connection was taken, at any listener.",
                       bus->accepted);
    exposition_counter(out, "evapid_clients_closed_total", "Clients whose connection has ended.", bus->closed);
    exposition_gauge(out, "evapid_clients_listening", "Clients that get events now.", bus->roster.receiver_count);
    exposition_gauge(out, "evapid_queue_memory_bytes", "Memory that all that waits for clients takes, each event once.",
                     shed_queue_memory());
    exposition_gauge(out, "evapid_queue_memory_limit_bytes", "The most that it may take (max_total_queued_bytes).",
                     bus->max_total_queued_bytes);
}

/* ---- Kamailio --------------------------------------------------------------------------------------------------- */

static uint64_t worker_clients(const struct worker *worker)
{
    return worker->seats.count;
}

static uint64_t worker_in_flight(const struct worker *worker)
{
    return worker->in_flight;
}

static uint64_t worker_waiting(const struct worker *worker)
{
    return worker->seats.waiting_count;
}

static void expose_each_worker(struct exposition *out, const struct kamailio *kamailio,
                               uint64_t (*value)(const struct worker *worker))
{
    for (unsigned i = 0; i < kamailio->attachment.workers_declared; i++) {
        const struct worker *worker = kamailio->attachment.workers[i];
        char index[8];
        snprintf(index, sizeof(index), "%u", i);
        if (worker != NULL)
            exposition_value(out, LABELS({ "worker", index }), value(worker));
    }
}

static void expose_workers(struct exposition *out, const struct kamailio *kamailio)
{
    const bool attached = kamailio->attachment.state != DETACHED;
    exposition_gauge(out, "evapid_kamailio_attached", "Kamailios that are attached: 0 or 1.", attached);
    exposition_family(out, "evapid_kamailio_info", "gauge", "The Kamailio that is attached.");
    if (attached)
        exposition_value(out,
                         LABELS({ "version", kamailio->attachment.kamailio_version },
                                { "module", kamailio->attachment.module_version }),
                         1);
    exposition_gauge(out, "evapid_workers", "Kamailio's evapi workers that are attached.",
                     kamailio->attachment.workers_attached);
    exposition_gauge(out, "evapid_workers_declared", "Evapi workers that the attached Kamailio has.",
                     attached ? kamailio->attachment.workers_declared : 0);
    exposition_family(out, "evapid_worker_clients", "gauge", "Clients that belong to the worker.");
    expose_each_worker(out, kamailio, worker_clients);
    exposition_family(out, "evapid_worker_messages_in_flight", "gauge",
                      "Messages that the worker was sent and whose routes have not ended.");
    expose_each_worker(out, kamailio, worker_in_flight);
    exposition_family(out, "evapid_worker_clients_waiting", "gauge",
                      "Clients that have a message for the worker and find its window closed.");
    expose_each_worker(out, kamailio, worker_waiting);
}

static void expose_ring(struct exposition *out, const struct kamailio *kamailio, const struct meter *meter)
{
    const struct intake *intake = kamailio->attachment.intake;
    exposition_gauge(out, "evapid_ring_capacity_bytes", "Size of Kamailio's queue; 0: there is none.",
                     intake != NULL ? intake->ring.capacity : 0);
    exposition_gauge(out, "evapid_ring_used_bytes", "Bytes that wait in Kamailio's queue.",
                     intake != NULL ? intake_used(intake) : 0);
    exposition_gauge(out, "evapid_ring_high_water_bytes", "The most bytes that evapid has found waiting there.",
                     intake != NULL ? intake->high_water : 0);
    exposition_gauge(out, "evapid_ring_held", "Whether events wait there for the clients to be there.",
                     intake != NULL && intake->state == INTAKE_HELD);
    exposition_gauge(out, "evapid_ring_corrupt", "Whether it can't be read any more: Kamailio must be restarted.",
                     intake != NULL && intake->state == INTAKE_CORRUPT);
    exposition_gauge(out, "evapid_ring_stuck", "Whether a process of Kamailio was stopped while it wrote there.",
                     intake != NULL && intake_is_stuck(intake));
    exposition_family(out, "evapid_ring_refused_total", "counter",
                      "Events and commands of scripts that found no room in it or were too large.");
    exposition_value(out, LABELS({ "reason", "full" }), meter->refused_full);
    exposition_value(out, LABELS({ "reason", "large" }), meter->refused_large);
    exposition_counter(out, "evapid_ring_lost_total",
                       "Events and commands whose processes died before they had written them whole.", meter->lost);
    exposition_counter(out, "evapid_ring_stale_total", "Commands that were meant for an earlier evapid, and ignored.",
                       kamailio->stale);
}

static void expose_doors(struct exposition *out, const struct status_subject *subject)
{
    exposition_family(out, "evapid_socket_refused_total", "counter",
                      "Connections to a Unix socket of users who may not connect.");
    exposition_value(out, LABELS({ "socket", "control" }), subject->control->refused);
    exposition_value(out, LABELS({ "socket", "kamailio" }), subject->kamailio->door.refused);
}

static void expose_latencies(struct exposition *out, const struct meter *meter)
{
    exposition_histogram(out, "evapid_queue_wait_seconds",
                         "From taking an event out of the ring until a client's kernel has taken it whole.",
                         &meter->queue_wait);
    exposition_histogram(out, "evapid_admission_seconds",
                         "From taking a client's connection until a connection-new route has let it in.",
                         &meter->admission);
    exposition_histogram(out, "evapid_route_start_seconds",
                         "From reading a client's message whole until its event route has begun.", &meter->route_start);
}

/* ---- this process ----------------------------------------------------------------------------------------------- */

static void expose_process(struct exposition *out)
{
    const struct process process = process_look();
    exposition_family(out, "process_cpu_seconds_total", "counter", "User and system time of evapid.");
    exposition_decimal(out, NULL, process.cpu_s);
    exposition_family(out, "process_start_time_seconds", "gauge", "When evapid was started, since the epoch.");
    exposition_decimal(out, NULL, process.started_s);
    exposition_gauge(out, "process_resident_memory_bytes", "Memory of evapid that is resident.",
                     process.resident_bytes);
    exposition_gauge(out, "process_virtual_memory_bytes", "Memory of evapid that is mapped.", process.virtual_bytes);
    exposition_gauge(out, "process_open_fds", "File descriptors that evapid has open.", process.descriptors);
    exposition_gauge(out, "process_max_fds", "File descriptors that evapid may have open.", process.descriptors_limit);
}

static void expose_turns(struct exposition *out, const struct turn *turn)
{
    exposition_histogram(out, "evapid_turn_seconds",
                         "Processor time of evapid in a turn of its loop: for so long others waited.",
                         &turn->histogram);
}

static void expose_evapid(struct exposition *out, const struct status_subject *subject)
{
    exposition_family(out, "evapid_build_info", "gauge", "The version of evapid.");
    exposition_value(out, LABELS({ "version", EVAPID_VERSION }), 1);
    exposition_gauge(out, "evapid_ready", "Whether /readyz says that evapid is ready.",
                     metrics_objection(subject) == NULL);
}

char *metrics_describe(const struct status_subject *subject, size_t *length)
{
    struct exposition out = { .failed = false };
    struct meter *meter = &subject->bus->ledger->header->meter;
    struct census census = take_census(subject);
    if (census.crowds == NULL)
        return NULL;
    if (subject->kamailio->attachment.intake != NULL)
        meter_read(meter, subject->kamailio->attachment.intake->ring.header);
    expose_evapid(&out, subject);
    expose_crowds(&out, &census);
    expose_listeners(&out, subject->listeners);
    expose_bus(&out, subject->bus);
    expose_kept(&out, subject->bus);
    expose_events(&out, subject->bus);
    expose_messages(&out, &subject->bus->totals);
    expose_workers(&out, subject->kamailio);
    expose_ring(&out, subject->kamailio, meter);
    expose_doors(&out, subject);
    expose_latencies(&out, meter);
    expose_turns(&out, subject->turn);
    expose_process(&out);
    free(census.crowds);
    return exposition_finish(&out, length);
}
