/* Taking over a ledger and a state, or continuing without them. */
#include "lifecycle/legacy.h"

#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/store.h"

#define SUBJECT "handover"

static const char *const ledger_names[] = { LEGACY_LEDGER, "ledger-2" }; /* in turn: one is made from the other */

bool legacy_is_stored(const char *name)
{
    static const char *const brought[] = { "state", LEGACY_WORKER_LINK, LEGACY_KAMAILIO_DOOR, LEGACY_CONTROL_DOOR };
    for (size_t i = 0; i < sizeof(brought) / sizeof(*brought); i++)
        if (strncmp(name, brought[i], strlen(brought[i])) == 0)
            return false;
    return true;
}

/* The ledger of the evapid before us; -1: there is none. After a start that broke off there may be two, and either will
 * do. *name: its name in the store. */
static int take_ledger(struct descriptors *descriptors, const char **name)
{
    const int memfd = descriptors_remove(descriptors, "%s", ledger_names[0]);
    const int other = descriptors_remove(descriptors, "%s", ledger_names[1]);
    *name = ledger_names[memfd < 0];
    if (memfd < 0 || other < 0)
        return memfd < 0 ? other : memfd;
    close(other);
    store_forget("%s", ledger_names[1]);
    return memfd;
}

/* Our ledger was made from the one stored under this name, and replaces it there. At any time at least one of them is
 * stored. */
static void exchange_ledger(const struct ledger *ledger, const char *name)
{
    for (unsigned i = 0; i < ledger->unknown_count; i++)
        log_line(LEVEL_WARNING, SUBJECT,
                 "the evapid before kept %s in its ledger, which this one does not know: %llu bytes skipped",
                 ledger->unknown[i].name, (unsigned long long)ledger->unknown[i].bytes);
    store_keep(ledger->memfd, "%s", ledger_names[name == ledger_names[0]]);
    store_forget("%s", name);
}

/* Open the ledger of the evapid before us, or else a new one. A new one cannot replace a running evapid whose ledger is
 * unusable. Returns NULL, or why there is no ledger. *adopted: it is the old one. */
static const char *open_ledger(struct evapid *evapid, struct descriptors *descriptors, bool replace, bool *adopted)
{
    const char *name = ledger_names[0];
    const int memfd = take_ledger(descriptors, &name);
    const char *why = memfd >= 0 ? ledger_adopt(&evapid->ledger, memfd) : NULL;
    *adopted = memfd >= 0 && why == NULL;
    if (*adopted && ledger_was_made(&evapid->ledger))
        exchange_ledger(&evapid->ledger, name);
    if (*adopted || (replace && why != NULL))
        return why;
    if (memfd >= 0) {
        log_line(LEVEL_ERROR, SUBJECT, "the ledger can't be taken over: %s; all clients are closed", why);
        store_forget("%s", name);
    }
    why = ledger_open(&evapid->ledger);
    if (why == NULL)
        store_keep(evapid->ledger.memfd, "%s", ledger_names[0]);
    return why;
}

/* Open the state that belongs to the ledger; an older state is not used. Returns NULL, or why it cannot be used. */
static const char *open_state(struct evapid *evapid, struct descriptors *descriptors, struct state_in *in)
{
    const int memfd = descriptors_remove(descriptors, "state");
    const uint64_t number = evapid->ledger.header->state;
    if (memfd < 0)
        return "there is none";
    const char *why = state_open(in, memfd);
    if (why != NULL)
        return why;
    if (number != 0 && state_get(in, "number", 0) == number)
        return NULL;
    state_close(in);
    return "it is of another time";
}

void legacy_forget(struct evapid *evapid)
{
    evapid->ledger.header->state = 0;
    store_forget("state");
    store_forget(LEGACY_KAMAILIO_DOOR);
    store_forget(LEGACY_CONTROL_DOOR);
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        store_forget(LEGACY_WORKER_LINK "%u", i);
}

/* Without a state we cannot continue with the doors and worker links of the evapid before us. While they stay open
 * anywhere, we cannot open the doors, and workers don't come back. */
static void drop_brought(struct evapid *evapid, struct descriptors *descriptors)
{
    struct descriptor *descriptor = NULL;
    struct descriptor *next = NULL;
    bool dropped = false;
    HASH_ITER(hh, descriptors->all, descriptor, next)
    {
        if (legacy_is_stored(descriptor->name))
            continue;
        dropped = true;
        close(descriptors_remove(descriptors, "%s", descriptor->name));
    }
    legacy_forget(evapid);
    if (dropped)
        store_drain();
}

void legacy_drop_rest(struct descriptors *descriptors)
{
    for (const struct descriptor *descriptor = descriptors->all; descriptor != NULL; descriptor = descriptor->hh.next)
        store_forget("%s", descriptor->name);
    descriptors_clear(descriptors, true);
}

const char *legacy_open(struct evapid *evapid, struct descriptors *descriptors, bool replace, struct legacy *legacy)
{
    const char *why = open_ledger(evapid, descriptors, replace, &legacy->adopted);
    if (why != NULL)
        return why;
    why = legacy->adopted ? open_state(evapid, descriptors, &legacy->in) : "its ledger is of no use";
    legacy->stated = why == NULL;
    if (replace)
        return why;
    if (why != NULL && evapid->ledger.header->state != 0)
        log_line(LEVEL_ERROR, SUBJECT, "the state can't be taken over: %s", why);
    if (!legacy->stated)
        drop_brought(evapid, descriptors);
    return NULL;
}

void legacy_close(struct legacy *legacy)
{
    if (legacy->stated)
        state_close(&legacy->in);
}
