/* Adoption: a client, or a kept tag, of the evapid before us becomes ours, at the listener where it connected. */
#ifndef EVAPID_ADOPTION_H
#define EVAPID_ADOPTION_H

#include "lifecycle/evapid.h"

/* Adopt the client of a slot; fd -1: its socket was not kept, or it is GONE. NULL: no memory; fd is closed. */
struct client *evapid_adopt(struct evapid *evapid, struct ledger_slot *slot, int fd);

/* The limits of the listener of this name; those for all if there is none. */
const struct client_limits *adoption_limits(const struct evapid *evapid, const char *name);

/* Continue to keep the tag in a slot, whose listener decides for how long. NULL: no memory, or it is invalid. */
struct kept *evapid_adopt_kept(struct evapid *evapid, struct ledger_slot *slot);

#endif
