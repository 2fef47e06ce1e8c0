/* Recovery: evapid was killed, and there is no state. Clients whose streams are between two frames continue, as the
 * ledger describes them. The others are closed, and what was in memory counts as lost. */
#ifndef EVAPID_RECOVERY_H
#define EVAPID_RECOVERY_H

#include "base/descriptors.h"
#include "lifecycle/evapid.h"

void evapid_recover(struct evapid *evapid, struct descriptors *descriptors);

#endif
