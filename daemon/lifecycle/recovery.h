/* Recovery: evapid was killed, and there is no state. Clients whose streams stand between two frames go on by the ledger, the others
 * are closed, and what was in memory counts as lost. */
#ifndef EVAPID_RECOVERY_H
#define EVAPID_RECOVERY_H

#include "base/holding.h"
#include "lifecycle/evapid.h"

void evapid_recover(struct evapid *evapid, struct holdings *holdings);

#endif
