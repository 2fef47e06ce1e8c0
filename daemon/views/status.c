/* Builds the status. It only reads; each figure is counted by its owner. */
#include "client/subscription.h"
#include "bus/kept.h"
#include "bus/shed.h"
#include "views/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

json_t *describe_bytes(const char *bytes, size_t length)
{
    char shown[EVAPID_TAG_MAX * 4 + 1];
    json_t *text = json_stringn(bytes, length);
    if (text != NULL)
        return text;
    size_t n = 0;
    for (size_t i = 0; i < length && n + 5 <= sizeof(shown); i++)
        n += (size_t)snprintf(shown + n, sizeof(shown) - n, bytes[i] >= 0x20 && bytes[i] < 0x7f ? "%c" : "\\x%02x",
                              (unsigned char)bytes[i]);
    return json_stringn(shown, n);
}

static json_t *describe_text(const char *text)
{
    return describe_bytes(text, strlen(text));
}

json_t *describe_time(uint64_t ms)
{
    char text[40];
    const time_t seconds = (time_t)(ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    const size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, sizeof(text) - n, ".%03uZ", (unsigned)(ms % 1000));
    return json_string(text);
}

/* Append item to list; takes both references. NULL if memory is short, or was short for either: a list is complete or
 * missing. */
static json_t *append(json_t *list, json_t *item)
{
    if (json_array_append_new(list, item) == 0)
        return list;
    json_decref(list);
    return NULL;
}

/* Set a count in the object; takes its reference. NULL if memory is short, or was short for the object. */
static json_t *set_count(json_t *object, const char *name, uint64_t count)
{
    if (json_object_set_new(object, name, json_integer((json_int_t)count)) == 0)
        return object;
    json_decref(object);
    return NULL;
}

static json_t *describe_dropped(const struct tally *tally)
{
    json_t *dropped = json_object();
    for (int reason = 0; reason < DROP_REASONS; reason++)
        dropped = set_count(dropped, drop_reason_name((enum drop_reason)reason), tally->dropped[reason]);
    return dropped;
}

static json_t *describe_input(const struct tally *tally)
{
    json_t *dropped = json_object();
    for (int reason = 0; reason < MESSAGE_LOSSES; reason++)
        dropped = set_count(dropped, message_loss_name((enum message_loss)reason), tally->messages_dropped[reason]);
    return json_pack("{s:I, s:I, s:I, s:I, s:o}", "frames", (json_int_t)tally->messages, "bytes",
                     (json_int_t)tally->message_bytes, "delivered", (json_int_t)tally->messages_delivered, "waiting",
                     (json_int_t)tally_messages_waiting(tally), "dropped", dropped);
}

json_t *describe_client(struct client *client)
{
    char address[EVAPID_ADDRESS_MAX + 16];
    const struct tally *tally = subscription_tally(client);
    const char *form = strchr(client->address, ':') != NULL ? "[%s]:%u" : "%s:%u";
    snprintf(address, sizeof(address), form, client->address, client->port);
    return json_pack(
        "{s:I, s:s?, s:s, s:s, s:o, s:s, s:o, s:I, s:b, s:o, s:o, s:{s:I, s:I, s:I, s:I, s:I}, s:o}", "index",
        (json_int_t)client->index, "listener", client->listener != NULL ? listener_name(client->listener) : NULL,
        "stream", client->stream.kind->name, "address", address, "tag",
        client->tagging.tag != NULL ? describe_bytes(client->tagging.tag->name, client->tagging.tag->length)
                                    : json_null(),
        "state", client_state_name(client->state), "since", describe_time(client->since_ms), "idle_s",
        (json_int_t)(client_idle_ms(client) / 1000), "slow", client->pace.slow_since_ms != 0, "slow_since",
        client->pace.slow_since_ms != 0 ? describe_time(client->pace.slow_since_ms) : json_null(), "in",
        describe_input(tally), "out", "relayed", (json_int_t)tally->relayed, "delivered", (json_int_t)tally->delivered,
        "bytes", (json_int_t)tally->delivered_bytes, "queued_frames", (json_int_t)outq_events(&client->out),
        "queued_bytes", (json_int_t)outq_bytes(&client->out), "dropped", describe_dropped(tally));
}

json_t *describe_kept(const struct kept *kept)
{
    return json_pack("{s:o, s:I, s:I, s:b}", "since", describe_time(kept->slot->since_ms), "events",
                     (json_int_t)kept_waiting(kept), "bytes", (json_int_t)outq_bytes(&kept->out), "full", kept->full);
}

static json_t *describe_refusals(const struct listener *listener)
{
    json_t *refusals = json_object();
    for (int refusal = 0; refusal < REFUSALS; refusal++)
        refusals = set_count(refusals, refusal_name((enum refusal)refusal),
                             listener_refusals(listener, (enum refusal)refusal));
    return refusals;
}

static json_t *describe_output(const struct bus *bus)
{
    const struct tally *totals = &bus->totals;
    uint64_t events = kept_events(bus);
    uint64_t bytes = kept_bytes(bus);
    for (const struct client *client = bus->roster.clients; client != NULL; client = client->hh.next) {
        events += outq_events(&client->out);
        bytes += outq_bytes(&client->out);
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "relayed", (json_int_t)totals->relayed, "delivered",
                     (json_int_t)totals->delivered, "bytes", (json_int_t)totals->delivered_bytes, "queued_frames",
                     (json_int_t)events, "queued_bytes", (json_int_t)bytes, "queued_memory",
                     (json_int_t)shed_queue_memory(), "dropped", describe_dropped(totals));
}

json_t *describe_listeners(const struct listeners *all)
{
    json_t *list = json_array();
    const struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    {
        list = append(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "address", listener->name,
                                      "framing", framing_name(listener->limits.framing), "unicast_mode",
                                      unicast_mode_name(listener->limits.unicast_mode), "source",
                                      listener->source == LISTENER_CONFIG ? "config" : "module", "state",
                                      listener_state_name(listener->state), "clients", (json_int_t)listener->clients,
                                      "max_clients", (json_int_t)listener->max_clients, "accepted",
                                      (json_int_t)listener->accepted, "refused", (json_int_t)listener_refused(listener),
                                      "refusals", describe_refusals(listener)));
    }
    return list;
}

static json_t *describe_workers(const struct kamailio *kamailio)
{
    json_t *workers = json_array();
    for (unsigned i = 0; i < kamailio->attachment.workers_declared; i++) {
        const struct worker *worker = kamailio->attachment.workers[i];
        if (worker == NULL)
            continue;
        workers = append(workers,
                         json_pack("{s:I, s:I, s:I, s:I, s:I}", "index", (json_int_t)i, "pid", (json_int_t)worker->pid,
                                   "clients", (json_int_t)worker->seats.count, "in_flight",
                                   (json_int_t)worker->in_flight, "waiting", (json_int_t)worker->seats.waiting_count));
    }
    return workers;
}

static json_t *describe_ring(const struct kamailio *kamailio)
{
    const struct intake *intake = kamailio->attachment.intake;
    static const char *const states[] = { "running", "held", "corrupt" };
    if (intake == NULL)
        return json_null();
    const struct ring_header *header = intake->ring.header;
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "state", states[intake->state], "capacity",
                     (json_int_t)intake->ring.capacity, "used", (json_int_t)intake_used(intake), "high_water",
                     (json_int_t)intake->high_water, "refused_full",
                     (json_int_t)atomic_load_explicit(&header->refused_full, memory_order_relaxed), "refused_large",
                     (json_int_t)atomic_load_explicit(&header->refused_large, memory_order_relaxed), "stale",
                     (json_int_t)kamailio->stale, "lost",
                     (json_int_t)atomic_load_explicit(&header->lost, memory_order_relaxed), "held",
                     intake->state == INTAKE_HELD, "stuck", intake_is_stuck(intake));
}

json_t *describe_kamailio(const struct kamailio *kamailio)
{
    if (kamailio->attachment.state == DETACHED)
        return json_pack("{s:s, s:[], s:o}", "state", "detached", "workers", "ring", describe_ring(kamailio));
    return json_pack(
        "{s:s, s:I, s:o, s:o, s:o, s:I, s:o, s:o}", "state", "attached", "pid", (json_int_t)kamailio->attachment.pid,
        "version", describe_text(kamailio->attachment.kamailio_version), "module",
        describe_text(kamailio->attachment.module_version), "since", describe_time(kamailio->attachment.since_ms),
        "workers_declared", (json_int_t)kamailio->attachment.workers_declared, "workers", describe_workers(kamailio),
        "ring", describe_ring(kamailio));
}

static json_t *describe_door(const struct door *door)
{
    char mode[8];
    snprintf(mode, sizeof(mode), "%04o", (unsigned)door->access->mode);
    return json_pack("{s:o, s:s, s:I}", "path", describe_text(door->path), "mode", mode, "refused",
                     (json_int_t)door->refused);
}

static json_t *describe_events(const struct event_counts *events)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "relay", (json_int_t)events->relay, "multicast",
                     (json_int_t)events->multicast, "unicast", (json_int_t)events->unicast, "send",
                     (json_int_t)events->send, "no_receiver", (json_int_t)events->no_receiver);
}

json_t *describe_totals(const struct status_subject *subject)
{
    const struct bus *bus = subject->bus;
    return json_pack("{s:{s:I, s:I, s:I}, s:o, s:o, s:o}", "clients", "accepted", (json_int_t)bus->accepted, "refused",
                     (json_int_t)listeners_refused(subject->listeners), "closed", (json_int_t)bus->closed, "events",
                     describe_events(&bus->events), "out", describe_output(bus), "in", describe_input(&bus->totals));
}

/* Shows only what grows: what waits now is not counted since any moment. */
json_t *describe_since(const struct stats *since)
{
    json_t *in = describe_input(&since->totals);
    const struct tally *totals = &since->totals;
    json_object_del(in, "waiting");
    return json_pack("{s:o, s:{s:I, s:I}, s:o, s:{s:I, s:I, s:I, s:o}, s:o}", "since",
                     since->since_ms != 0 ? describe_time(since->since_ms) : json_null(), "clients", "accepted",
                     (json_int_t)since->accepted, "closed", (json_int_t)since->closed, "events",
                     describe_events(&since->events), "out", "relayed", (json_int_t)totals->relayed, "delivered",
                     (json_int_t)totals->delivered, "bytes", (json_int_t)totals->delivered_bytes, "dropped",
                     describe_dropped(totals), "in", in);
}

json_t *status_describe(const struct status_subject *subject)
{
    const uint64_t uptime_ms = uv_now(subject->bus->loop) - subject->started_ms;
    const struct bus *bus = subject->bus;
    return json_pack("{s:s, s:I, s:I, s:I, s:o, s:{s:o, s:o}, s:o, s:{s:I, s:I, s:I}}", "version", EVAPID_VERSION,
                     "pid", (json_int_t)getpid(), "uptime_s", (json_int_t)(uptime_ms / 1000), "session",
                     (json_int_t)subject->kamailio->attachment.session, "kamailio",
                     describe_kamailio(subject->kamailio), "sockets", "kamailio",
                     describe_door(&subject->kamailio->door), "control", describe_door(subject->control), "listeners",
                     describe_listeners(subject->listeners), "kept", "tags", (json_int_t)bus->keeping.count, "events",
                     (json_int_t)kept_events(bus), "bytes", (json_int_t)kept_bytes(bus));
}

json_t *status_describe_totals(const struct status_subject *subject)
{
    return json_pack("{s:o}", "totals", describe_totals(subject));
}
