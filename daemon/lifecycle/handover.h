/* The hand-over: an evapid passes from one process to the next, and clients and Kamailio notice nothing.
 *
 * It hands over descriptors (descriptor.h): listening sockets and Unix sockets, clients, links to workers, the ring, the
 * ledger, and a state (state.h). They go through the service manager's store (store.h) when the service is restarted,
 * or directly to the successor (replace.h). The leaving evapid only saves its state. If the successor does not come, it
 * continues as if nothing had happened. */
#ifndef EVAPID_HANDOVER_H
#define EVAPID_HANDOVER_H

#include <stdbool.h>

#include "base/descriptors.h"
#include "base/state.h"
#include "lifecycle/evapid.h"

/* save: put everything into the descriptors, including the state, which is ours to close. The caller has flushed evapid,
 * which then stands still until it is taken over or handover_cancel is called. False: no memory. */
bool handover_save(struct evapid *evapid, struct descriptors *descriptors);
void handover_cancel(struct evapid *evapid, struct descriptors *descriptors);

/* Continue from the state of the evapid before us and from the descriptors. Returns NULL, or which part of the state is
 * invalid. */
const char *handover_load(struct evapid *evapid, struct state_in *in, struct descriptors *descriptors);

#endif
