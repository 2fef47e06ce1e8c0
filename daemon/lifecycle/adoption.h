/* Adoption: a client of the evapid before us becomes ours, at the listener where it connected. */
#ifndef EVAPID_ADOPTION_H
#define EVAPID_ADOPTION_H

#include "lifecycle/evapid.h"

/* Adopt the client of a slot; fd -1: its socket was not kept, or it is GONE. NULL: no memory; fd is closed. */
struct client *evapid_adopt(struct evapid *evapid, struct ledger_slot *slot, int fd);

#endif
