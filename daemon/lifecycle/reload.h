/* Reload: change a running evapid to match its configuration file.
 *
 * Either all of it takes effect or nothing does. The steps that can fail (the file, addresses, sockets, memory) come
 * first and can be undone. The steps after them cannot fail. All this happens between two turns of the loop, so nobody
 * sees half of it. */
#ifndef EVAPID_RELOAD_H
#define EVAPID_RELOAD_H

#include "lifecycle/evapid.h"

/* Read the file again and apply it. Returns NULL, or why nothing has changed: text that is valid until the next
 * call. */
const char *reload_config(struct evapid *evapid, const char *path, struct reload_outcome *outcome);

/* Apply the configuration to the clients, also to those that were taken over: the limits of their listeners, and who
 * may be connected. Returns how many are closed as no longer allowed. */
unsigned reload_clients(struct evapid *evapid);

#endif
