/* Identities: the numbers of users and groups, by name.
 *
 * Asking the system for a name may mean waiting for a directory service. evapid has time for that only at its start.
 * Later a name must be in this machine's own files, or have been answered before. */
#ifndef EVAPID_IDENTITY_H
#define EVAPID_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

enum identity_kind { IDENTITY_USER, IDENTITY_GROUP };

/* The number of the user or group of this name. False: it is unknown. */
bool identity_find(enum identity_kind kind, const char *name, uint32_t *id);

/* From now on, never ask the system. */
void identity_stop_asking(void);
bool identity_asks(void);

/* Forget what the system has answered. */
void identity_forget(void);

#endif
