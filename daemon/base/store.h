/* The store: descriptors that the service manager keeps for us while we are not running.
 *
 * systemd does so for a unit with FileDescriptorStoreMax (systemd.service(5), sd_pid_notify_with_fds(3)): it returns
 * the descriptors when the service is restarted, whether the service ended or was killed. FDSTORE in the environment
 * says how many it keeps (systemd sets it since version 254, our unit does for earlier ones). Without a service manager
 * or without FDSTORE, keeping and forgetting do nothing. */
#ifndef EVAPID_STORE_H
#define EVAPID_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/descriptors.h"

/* Look for a store in the environment, and put what it kept for us into descriptors. Returns whether there is a store. */
bool store_open(struct descriptors *descriptors);

/* Is there a store? Is there a service manager, with a store or without one? */
bool store_is_there(void);
bool store_is_managed(void);

/* Keep a copy of the descriptor under this name (descriptor.h), which is not kept yet; or forget it, if it is kept. A peer
 * that hangs up does not end it (FDPOLL=0), because what it has sent is still to be read. If the store is full and no
 * client can make way, the descriptor is not kept: that is logged, and it is lost when evapid is restarted. */
__attribute__((format(printf, 2, 3))) void store_keep(int fd, const char *name, ...);
__attribute__((format(printf, 1, 2))) void store_forget(const char *name, ...);

/* The same for a client's socket, which stays open until it is forgotten. Clients get only the places that nothing else
 * needs. The state, the ledger, the ring, the Unix sockets, the links to workers and the listeners come first; for them
 * the client that came last makes way. A client without a place waits. A free place goes to the waiting client that
 * came first. A client that the previous evapid had stored keeps its place. */
void store_keep_client(int fd, uint32_t index);
void store_forget_client(uint32_t index);

/* Reserve places for this many links of Kamailio. */
void store_reserve(unsigned links);

/* How many clients wait for a place: a restart disconnects them. */
unsigned store_clients_waiting(void);

/* This many clients may connect, at this many listening sockets: warn if there is no place for all of them. */
void store_expect(uint64_t clients, unsigned sockets);

/* Forget a listening socket, which the caller closes. The service manager's copy stays open until it closes it. Until
 * then that copy must accept no clients, and must not block the next socket at that address. */
__attribute__((format(printf, 2, 3))) void store_end(int fd, const char *name, ...);

/* Forget everything: no evapid is to continue from it. */
void store_forget_all(void);

/* Wait until the service manager has everything it was told, 5 seconds at most. For the time before the loop runs, and
 * after it has ended. */
void store_drain(void);

#endif
