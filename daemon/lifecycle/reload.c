/* Preparing another configuration, and then applying it or leaving everything as it was. */
#include "lifecycle/reload.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>

#include "base/log.h"
#include "bus/flush.h"
#include "bus/kept.h"
#include "config/inventory.h"
#include "lifecycle/adoption.h"

/* The change being prepared. */
struct change {
    struct evapid *evapid;
    const struct config *config;
    char *error; /* CONFIG_ERROR bytes */
    struct door_change kamailio, control;
};

/* ---- what can fail ---------------------------------------------------------------------------------------------- */

static bool fail(const struct change *change, const char *kind, const char *name, const char *why)
{
    snprintf(change->error, CONFIG_ERROR, "%s%s: %s", kind, name, why);
    return false;
}

static bool prepare_listener(const struct change *change, const struct sockaddr_storage *address,
                             const struct access *access)
{
    struct listeners *all = &change->evapid->listeners;
    char name[ADDRESS_TEXT];
    const char *why = listener_prepare(all, address, access);
    address_print(address, name);
    return why == NULL || fail(change, "listener ", name, why);
}

/* Prepare the file's listeners at addresses where nobody listens yet. */
static bool prepare_listeners(const struct change *change)
{
    const struct config *config = change->config;
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *wanted = &config->listeners[i];
        struct listener *there = listener_find(&change->evapid->listeners, &wanted->address);
        if (there == NULL || there->state == LISTENER_IDLE) {
            if (!prepare_listener(change, &wanted->address, &wanted->access))
                return false;
            continue;
        }
        const char *why = listener_prepare_door(there, &wanted->access);
        if (why != NULL)
            return fail(change, "listener ", there->name, why);
    }
    return true;
}

/* Prepare the listener that the module has declared, if only the new configuration allows it. */
static bool prepare_declared(const struct change *change)
{
    const struct declaration *declaration = &change->evapid->kamailio.declaration;
    if (!declaration_claims(declaration, change->config, &declaration->address) ||
        listener_find(&change->evapid->listeners, &declaration->address) != NULL)
        return true;
    return prepare_listener(change, &declaration->address, &change->config->access);
}

/* Last, because others can see files while they are changed. */
static bool prepare_doors(struct change *change)
{
    struct evapid *evapid = change->evapid;
    const struct config *config = change->config;
    const char *why = door_prepare(&change->control, &evapid->loop, &evapid->control.door, config->control_socket,
                                   &config->control_access);
    if (why != NULL)
        return fail(change, "", config->control_socket, why);
    why = door_prepare(&change->kamailio, &evapid->loop, &evapid->kamailio.door, config->kamailio_socket,
                       &config->kamailio_access);
    if (why == NULL)
        return true;
    fail(change, "", config->kamailio_socket, why);
    door_cancel(&change->control, &evapid->control.door);
    return false;
}

static const struct config_listener *config_of(const struct config *config, const struct listener *listener)
{
    for (size_t i = 0; i < config->listener_count; i++)
        if (address_equal(&config->listeners[i].address, &listener->address))
            return &config->listeners[i];
    return NULL;
}

/* After everything else that can fail, because this takes effect immediately. */
static bool change_metrics(struct change *change)
{
    struct evapid *evapid = change->evapid;
    char name[HTTP_SUBJECT];
    const char *why = http_reconfigure(&evapid->http, &evapid->loop, &change->config->http.address,
                                       &evapid->config.http, &evapid->subject);
    if (why == NULL)
        return true;
    door_cancel(&change->control, &evapid->control.door);
    door_cancel(&change->kamailio, &evapid->kamailio.door);
    http_subject(&change->config->http.address, name);
    return fail(change, "", name, why);
}

static bool has_place(const struct change *change, const struct listener *listener)
{
    return config_of(change->config, listener) != NULL ||
           declaration_claims(&change->evapid->kamailio.declaration, change->config, &listener->address);
}

/* True: everything is prepared. False: nothing has changed. */
static bool prepare(struct change *change)
{
    struct evapid *evapid = change->evapid;
    struct listener *listener = NULL;
    DL_FOREACH(evapid->listeners.first, listener)
    listener_mark(listener, !has_place(change, listener));
    evapid->listeners.other_leaving = http_leaving(evapid->http, &change->config->http.address);
    const bool prepared =
        prepare_listeners(change) && prepare_declared(change) && prepare_doors(change) && change_metrics(change);
    evapid->listeners.other_leaving = NULL;
    if (!prepared)
        listeners_cancel(&evapid->listeners);
    return prepared;
}

/* ---- what can't ------------------------------------------------------------------------------------------------- */

/* Apply the listener's new values. If the configuration no longer has it, close it; its clients stay, under the limits
 * for all. */
static void commit_listener(struct evapid *evapid, struct listener *listener)
{
    const struct config *config = &evapid->config;
    const struct config_listener *from = config_of(config, listener);
    struct declaration *declaration = &evapid->kamailio.declaration;
    if (from != NULL) {
        listener_set(listener, &from->limits, &from->access, from->max_clients, LISTENER_CONFIG);
        listener_commit_door(listener);
    } else if (declaration_claims(declaration, config, &listener->address)) {
        declaration_set(declaration, listener);
    } else {
        struct client_limits limits = config->limits;
        limits.framing = listener->limits.framing;
        listener_set(listener, &limits, &config->access, listener->max_clients, listener->source);
        listener_stop(listener);
    }
}

static void commit_listeners(struct evapid *evapid, struct reload_outcome *outcome)
{
    struct listener *listener = NULL;
    declaration_set(&evapid->kamailio.declaration, NULL);
    DL_FOREACH(evapid->listeners.first, listener)
    {
        outcome->removed += listener->leaves && listener->state != LISTENER_CLOSED;
        commit_listener(evapid, listener);
        if (listener->state == LISTENER_PREPARED) {
            outcome->added++;
            listener_begin(listener);
        }
        listener_mark(listener, false);
        if (listener->state != LISTENER_CLOSED && listener_is_exposed(listener))
            log_line(LEVEL_WARNING, listener->subject, LISTENER_EXPOSED);
    }
    listeners_tick(&evapid->listeners); /* frees removed listeners that have no clients */
}

/* Kept tags have the limits of the listener of their last client. */
static void reload_kept(struct evapid *evapid)
{
    struct kept *kept = NULL;
    DL_FOREACH(evapid->bus.keeping.first, kept)
    bus_set_kept_limits(&evapid->bus, kept, adoption_limits(evapid, kept_listener(kept)));
}

unsigned reload_clients(struct evapid *evapid)
{
    struct bus *bus = &evapid->bus;
    struct client *client = NULL;
    struct client *next = NULL;
    unsigned closed = 0;
    bus_set_limits(bus, evapid->config.max_total_queued_bytes);
    reload_kept(evapid);
    HASH_ITER(hh, bus->roster.clients, client, next)
    {
        if (client->state == CLIENT_FLUSHING || client->state == CLIENT_GONE || client->roster.leaving ||
            !listener_denies(client->listener, client))
            continue;
        listener_revoke(client->listener, client);
        flush_leave(bus, client);
        closed++;
    }
    return closed;
}

/* Everything refers to evapid's own struct config, so the new contents are copied there. Only listeners have copies,
 * and pointers into the old one, so each gets its new values. */
static void commit(struct change *change, struct reload_outcome *outcome)
{
    struct evapid *evapid = change->evapid;
    struct config before = evapid->config;
    evapid->config = *change->config;
    commit_listeners(evapid, outcome);
    door_commit(&change->control, &evapid->control.door);
    door_commit(&change->kamailio, &evapid->kamailio.door);
    outcome->revoked = reload_clients(evapid);
    log_open(evapid->config.log_level);
    config_free(&before);
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

/* Reading a pipe would block. */
static bool is_file(const char *path)
{
    struct stat file;
    return stat(path, &file) != 0 || S_ISREG(file.st_mode);
}

const char *reload_config(struct evapid *evapid, const char *path, struct reload_outcome *outcome)
{
    static char error[CONFIG_ERROR];
    struct config config;
    struct change change = { .evapid = evapid, .config = &config, .error = error };
    *outcome = (struct reload_outcome){ 0 };
    if (!is_file(path)) {
        fail(&change, "", path, "it is no file, and can be read only once");
        return error;
    }
    if (!config_read(&config, path, error))
        return error;
    outcome->changed = inventory_changes(&evapid->config, &config);
    const bool named = outcome->changed != NULL || fail(&change, "", path, "no memory");
    if (!named || !prepare(&change)) {
        config_free(&config);
        json_decref(outcome->changed);
        outcome->changed = NULL;
        return error;
    }
    commit(&change, outcome);
    return NULL;
}
