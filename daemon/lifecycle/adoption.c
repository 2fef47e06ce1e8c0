/* Returning a client, or a kept tag, to its listener. */
#include "lifecycle/adoption.h"

#include <unistd.h>

#include "bus/kept.h"

/* The listener at which the slot's client had connected. */
static struct listener *listener_of(struct evapid *evapid, struct ledger_slot *slot)
{
    const char *name = ledger_listener_name(slot);
    struct listener *listener = listener_named(&evapid->listeners, name);
    return listener != NULL
               ? listener
               : listener_remember(&evapid->listeners, name, &evapid->config.limits, &evapid->config.access);
}

struct client *evapid_adopt(struct evapid *evapid, struct ledger_slot *slot, int fd)
{
    struct listener *listener = listener_of(evapid, slot);
    if (listener == NULL || !listener_enter(listener, &slot->peer)) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    struct client *client = bus_adopt(&evapid->bus, fd, slot, &listener->limits, listener);
    if (client == NULL)
        listener_leave(listener, &slot->peer);
    else if (fd < 0)
        listener_note_gone(listener);
    return client;
}

const struct client_limits *adoption_limits(const struct evapid *evapid, const char *name)
{
    const struct listener *listener = listener_named(&evapid->listeners, name);
    return listener != NULL ? &listener->limits : &evapid->config.limits;
}

struct kept *evapid_adopt_kept(struct evapid *evapid, struct ledger_slot *slot)
{
    return kept_adopt(&evapid->bus, slot, adoption_limits(evapid, ledger_listener_name(slot)));
}
