/* Reload: a running evapid is to be as its configuration says now.
 *
 * Either all of it takes effect or nothing does: what can fail (the file, addresses, sockets, memory) comes first, and can be
 * undone; what follows can't fail. All that between two turns of the loop, so that nobody sees the one half. */
#ifndef EVAPID_RELOAD_H
#define EVAPID_RELOAD_H

#include "lifecycle/evapid.h"

/* Read the file again and take it over. NULL, or why nothing has changed: text that stays valid until the next call. */
const char *reload_config(struct evapid *evapid, const char *path, struct reload_outcome *outcome);

/* Hold the clients to what the configuration says: to the limits of their listeners, and to who may be connected. Returns how
 * many are closed for that. Also for clients that were taken over. */
unsigned reload_clients(struct evapid *evapid);

#endif
