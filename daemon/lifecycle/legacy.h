/* The legacy: what the evapid before us has left in the holdings: its ledger, and a state that goes with it. */
#ifndef EVAPID_LEGACY_H
#define EVAPID_LEGACY_H

#include <stdbool.h>

#include "base/holding.h"
#include "base/state.h"
#include "lifecycle/evapid.h"

/* What things are called in the holdings. */
#define LEGACY_LEDGER "ledger"
#define LEGACY_KAMAILIO_DOOR "kamailio-socket"
#define LEGACY_CONTROL_DOOR "control-socket"
#define LEGACY_WORKER_LINK "worker-"

struct legacy {
    bool adopted; /* the ledger is its */
    bool stated;  /* and there is a state, which is being read */
    struct state_in in;
};

/* Is there its ledger, and a state that goes with it? Opens a ledger in any case, but replaces nobody with a new one. Returns NULL, or
 * why nothing can be begun with that. */
const char *legacy_open(struct evapid *evapid, struct holdings *holdings, bool replace, struct legacy *legacy);
void legacy_close(struct legacy *legacy);

/* Is the descriptor of that name in the store all the time, and not only for a hand-over? */
bool legacy_is_stored(const char *name);

/* What was stored for the hand-over alone has been taken, or is of no use: whatever becomes of us, it is not used twice. */
void legacy_forget(struct evapid *evapid);

/* Nobody knows what to do with what is left. */
void legacy_drop_rest(struct holdings *holdings);

#endif
