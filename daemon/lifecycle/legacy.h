/* The legacy: what the evapid before us has left in the descriptors: its ledger, and a state that belongs to it. */
#ifndef EVAPID_LEGACY_H
#define EVAPID_LEGACY_H

#include <stdbool.h>

#include "base/descriptors.h"
#include "base/state.h"
#include "lifecycle/evapid.h"

/* The names of things in the descriptors. */
#define LEGACY_LEDGER "ledger"
#define LEGACY_KAMAILIO_DOOR "kamailio-socket"
#define LEGACY_CONTROL_DOOR "control-socket"
#define LEGACY_WORKER_LINK "worker-"

struct legacy {
    bool adopted; /* the ledger is the old one */
    bool stated;  /* there is also a state, which is being read */
    struct state_in in;
};

/* Take over the old ledger, and the state that belongs to it. Without an old ledger a new one is opened. But to replace
 * a running evapid both must be usable. Returns NULL, or why we cannot start. */
const char *legacy_open(struct evapid *evapid, struct descriptors *descriptors, bool replace, struct legacy *legacy);
void legacy_close(struct legacy *legacy);

/* Is the descriptor of this name always in the store, and not only for a hand-over? */
bool legacy_is_stored(const char *name);

/* What was stored only for the hand-over has been taken, or is useless. Remove it, so that it is never used twice, even
 * if we end now. */
void legacy_forget(struct evapid *evapid);

/* Close the remaining descriptors, which no part of evapid uses, and remove them from the store. */
void legacy_drop_rest(struct descriptors *descriptors);

#endif
