/* Opening all parts of an evapid, in order. */
#include "lifecycle/start.h"

#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/store.h"
#include "lifecycle/handover.h"
#include "lifecycle/legacy.h"
#include "lifecycle/recovery.h"
#include "views/answer.h"

#define SUBJECT "handover"

/* Add all listeners before one starts: an inherited socket that none of them uses may then make way for one that
 * overlaps it. */
static const char *open_listeners(struct evapid *evapid, const char **subject)
{
    struct listener *listener = NULL;
    for (size_t i = 0; i < evapid->config.listener_count; i++) {
        const struct config_listener *from = &evapid->config.listeners[i];
        *subject = SUBJECT;
        if (listener_add(&evapid->listeners, &from->address, &from->limits, &from->access, from->max_clients,
                         LISTENER_CONFIG) == NULL)
            return "no memory";
    }
    DL_FOREACH(evapid->listeners.first, listener)
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

static const char *open_http(struct evapid *evapid, int inherited, const char **subject)
{
    static char name[HTTP_SUBJECT];
    const char *why = NULL;
    if (evapid->config.http.address.ss_family == AF_UNSPEC)
        return NULL;
    http_subject(&evapid->config.http.address, name);
    *subject = name;
    evapid->http = http_open(&evapid->loop, &evapid->config.http, inherited, &evapid->subject, &why);
    return why;
}

/* Continue with the inherited metrics socket if its address is ours. Otherwise it makes way for other sockets. */
static const char *open_tcp(struct evapid *evapid, struct descriptors *descriptors, const char **subject)
{
    const int metrics = descriptors_remove(descriptors, "metrics");
    const bool leaves = metrics >= 0 && !http_is_at(metrics, &evapid->config.http.address);
    if (leaves) {
        store_end(metrics, "metrics");
        evapid->listeners.other_leaving = &metrics;
    }
    const char *why = open_listeners(evapid, subject);
    if (why == NULL)
        why = open_http(evapid, leaves ? -1 : metrics, subject);
    evapid->listeners.other_leaving = NULL;
    if (leaves)
        close(metrics);
    return why;
}

static const char *open_doors(struct evapid *evapid, struct inherited_door kamailio, struct inherited_door control,
                              const char **subject)
{
    *subject = evapid->config.control_socket;
    const char *why = control_open(&evapid->control, &evapid->loop, *subject, &evapid->config.control_access, control,
                                   &evapid->subject);
    if (why != NULL)
        return why;
    *subject = evapid->config.kamailio_socket;
    return kamailio_open(&evapid->kamailio, &evapid->loop, &evapid->config, &evapid->bus, &evapid->listeners,
                         (struct kamailio_answerer){ .answer = answer_query, .subject = &evapid->subject }, kamailio);
}

/* First open doors and listeners, because their errors can be put right. Then take over what the evapid before us has
 * left. */
static const char *open_all(struct evapid *evapid, struct descriptors *descriptors, struct legacy *legacy,
                            const char **subject)
{
    struct inherited_door kamailio = { .fd = -1 };
    struct inherited_door control = { .fd = -1 };
    if (legacy->stated) {
        state_get_record(&legacy->in, LEGACY_KAMAILIO_DOOR);
        door_load(&kamailio, &legacy->in, descriptors, LEGACY_KAMAILIO_DOOR);
        state_get_end(&legacy->in);
        state_get_record(&legacy->in, LEGACY_CONTROL_DOOR);
        door_load(&control, &legacy->in, descriptors, LEGACY_CONTROL_DOOR);
        state_get_end(&legacy->in);
    }
    bus_open(&evapid->bus, &evapid->loop, &evapid->ledger);
    bus_set_limits(&evapid->bus, evapid->config.max_total_queued_bytes);
    bus_set_upstream(&evapid->bus, kamailio_upstream(&evapid->kamailio));
    evapid->listeners.loop = &evapid->loop;
    evapid->listeners.host = (struct listener_host){ .owner = &evapid->bus, .connected = bus_on_connection };
    evapid->subject = (struct status_subject){ .bus = &evapid->bus,
                                               .kamailio = &evapid->kamailio,
                                               .listeners = &evapid->listeners,
                                               .control = &evapid->control.door,
                                               .config = &evapid->config,
                                               .turn = &evapid->turn,
                                               .started_ms = uv_now(&evapid->loop) };
    listeners_inherit(&evapid->listeners, descriptors);
    const char *why = open_doors(evapid, kamailio, control, subject);
    if (why == NULL)
        why = open_tcp(evapid, descriptors, subject);
    if (why != NULL)
        return why;
    *subject = SUBJECT;
    if (legacy->stated) {
        legacy_forget(evapid);
        return handover_load(evapid, &legacy->in, descriptors);
    }
    if (legacy->adopted)
        evapid_recover(evapid, descriptors);
    return NULL;
}

const char *evapid_start(struct evapid *evapid, struct descriptors *descriptors, bool replace, const char **subject)
{
    struct legacy legacy = { .stated = false };
    *subject = SUBJECT;
    const char *why = legacy_open(evapid, descriptors, replace, &legacy);
    if (why == NULL)
        why = open_all(evapid, descriptors, &legacy, subject);
    legacy_close(&legacy);
    if (why == NULL)
        legacy_drop_rest(descriptors);
    return why;
}
