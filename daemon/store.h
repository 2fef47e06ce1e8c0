/* The store: descriptors that the service manager keeps for us while we are not there.
 *
 * systemd does so for a unit with FileDescriptorStoreMax (systemd.service(5), sd_pid_notify_with_fds(3)): what is kept there
 * comes back when the service is restarted, whether it ended by itself or was killed. FDSTORE in the environment says how
 * many it keeps (systemd sets it from version 254 on, our unit for earlier ones). Without a service manager, or FDSTORE,
 * keeping and forgetting do nothing. */
#ifndef EVAPID_STORE_H
#define EVAPID_STORE_H

#include <stdbool.h>

#include "holding.h"

/* Look into the environment for a store, and put what it kept for us into holdings. Returns whether there is a store. */
bool store_open(struct holdings *holdings);

/* Is there a store? Is there a service manager, whether it has one or not? */
bool store_is_there(void);
bool store_is_managed(void);

/* Keep a copy of the descriptor under that name (holding.h), which is none that is kept already; or let go of it, if it is
 * kept. A peer that hangs up does not end it (FDPOLL=0): what it has sent is still to be read. A store that is full keeps no
 * more: that is logged, and those are lost when evapid is restarted. */
__attribute__((format(printf, 2, 3))) void store_keep(int fd, const char *name, ...);
__attribute__((format(printf, 1, 2))) void store_forget(const char *name, ...);

/* Let go of a socket that listens, which the caller closes. The service manager has its copy until it gets round to closing
 * it: that is not to take clients, nor to be in the way of who is next at that address. */
__attribute__((format(printf, 2, 3))) void store_end(int fd, const char *name, ...);

/* Let go of all that is kept: nobody is to go on with it. */
void store_forget_all(void);

/* Wait until the service manager has all that it was told, 5 seconds at most: before the loop runs, or when it has ended. */
void store_settle(void);

#endif
