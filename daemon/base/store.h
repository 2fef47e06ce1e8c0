/* The store: descriptors that the service manager keeps for us while we are not there.
 *
 * systemd does so for a unit with FileDescriptorStoreMax (systemd.service(5), sd_pid_notify_with_fds(3)): what is kept there
 * comes back when the service is restarted, whether it ended by itself or was killed. FDSTORE in the environment says how
 * many it keeps (systemd sets it from version 254 on, our unit for earlier ones). Without a service manager, or FDSTORE,
 * keeping and forgetting do nothing. */
#ifndef EVAPID_STORE_H
#define EVAPID_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/holding.h"

/* Look into the environment for a store, and put what it kept for us into holdings. Returns whether there is a store. */
bool store_open(struct holdings *holdings);

/* Is there a store? Is there a service manager, whether it has one or not? */
bool store_is_there(void);
bool store_is_managed(void);

/* Keep a copy of the descriptor under that name (holding.h), which is none that is kept already; or let go of it, if it is
 * kept. A peer that hangs up does not end it (FDPOLL=0): what it has sent is still to be read. A store that is full, with no
 * client that could make way, keeps no more: that is logged, and those are lost when evapid is restarted. */
__attribute__((format(printf, 2, 3))) void store_keep(int fd, const char *name, ...);
__attribute__((format(printf, 1, 2))) void store_forget(const char *name, ...);

/* Likewise the socket of a client, which stays open until it is forgotten. Clients get only the places that nothing else has need
 * of: the state, the ledger, the ring, the Unix sockets, the links to workers and the listeners come first, and the client
 * that came last of those that are kept makes way for them. One that finds no place waits: when one becomes free, it goes to
 * the client that came first. One that the evapid before us had stored keeps its place. */
void store_keep_client(int fd, uint32_t index);
void store_forget_client(uint32_t index);

/* Kamailio has that many links: as many places are reserved. */
void store_reserve(unsigned links);

/* How many clients wait for a place: a restart disconnects them. */
unsigned store_clients_waiting(void);

/* So many clients may come, at that many listening sockets: warn when there is no place for all of them. */
void store_expect(uint64_t clients, unsigned sockets);

/* Let go of a socket that listens, which the caller closes. The service manager has its copy until it gets round to closing
 * it: that is not to take clients, nor to be in the way of who is next at that address. */
__attribute__((format(printf, 2, 3))) void store_end(int fd, const char *name, ...);

/* Let go of all that is kept: nobody is to go on with it. */
void store_forget_all(void);

/* Wait until the service manager has all that it was told, 5 seconds at most: before the loop runs, or when it has ended. */
void store_settle(void);

#endif
