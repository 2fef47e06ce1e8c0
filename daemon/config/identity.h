/* Identities: the numbers of users and groups by their names.
 *
 * Whoever asks the system for a name may have to wait for a directory service. At the start evapid has that time, later it
 * has not: then a name is one of this machine's own files, or one that the system has answered before. */
#ifndef EVAPID_IDENTITY_H
#define EVAPID_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

enum identity_kind { IDENTITY_USER, IDENTITY_GROUP };

/* The number of the user or group of that name. False: nobody knows it. */
bool identity_find(enum identity_kind kind, const char *name, uint32_t *id);

/* From now on, don't wait for anybody. */
void identity_stop_asking(void);
bool identity_asks(void);

/* Forget what the system has answered. */
void identity_forget(void);

#endif
