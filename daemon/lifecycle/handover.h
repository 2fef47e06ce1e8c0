/* The hand-over: what evapid is goes from one process to the next, and clients and Kamailio notice nothing.
 *
 * What goes over are descriptors (holding.h): listening sockets and Unix sockets, clients, links to workers, the ring, the
 * ledger, and a state (state.h). They go either through the service manager's store (store.h), when the service is
 * restarted, or straight to the successor (replace.h). The one that leaves only writes down how it stands; if the successor
 * does not come, it goes on as if nothing had been. */
#ifndef EVAPID_HANDOVER_H
#define EVAPID_HANDOVER_H

#include <stdbool.h>

#include "base/holding.h"
#include "base/state.h"
#include "lifecycle/evapid.h"

/* Put everything into holdings; the state, too, which is ours to close. It was flushed, and stands still until it has been
 * taken over or handover_cancel. False: there is no memory for it. */
bool handover_save(struct evapid *evapid, struct holdings *holdings);
void handover_cancel(struct evapid *evapid, struct holdings *holdings);

/* Go on with a state of the evapid before us and with what is in the holdings. Returns NULL, or what in it makes no sense. */
const char *handover_load(struct evapid *evapid, struct state_in *in, struct holdings *holdings);

#endif
