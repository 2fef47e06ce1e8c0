/* The roster: all clients, and the lists of those that need something done.
 *
 * It owns struct roster and each client's struct roster_place. */
#ifndef EVAPID_ROSTER_H
#define EVAPID_ROSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/bus_type.h"

/* Add a new client. False: no memory. Remove one that is about to be freed. */
bool roster_add(struct bus *bus, struct client *client);
void roster_remove(struct bus *bus, struct client *client);

/* The client with this index, or NULL. */
struct client *roster_find(const struct bus *bus, uint32_t index);

/* enlist: the client receives events from now on. suspend: none until it is enlisted again. delist: none any more. */
void roster_enlist(struct bus *bus, struct client *client);
void roster_suspend(struct bus *bus, struct client *client);
void roster_delist(struct bus *bus, struct client *client);

/* A client that was taken over receives events, and is at its old place in its run. False: the run has no such
 * place. */
bool roster_restore(struct bus *bus, struct client *client);

/* Was a client that was taken over there for the evapid before us, although it gets no events yet? Upstream is not told:
 * its ring says so. */
void roster_restore_there(struct client *client);

/* dirty: the client has something to send that is not in its run. clean: it has nothing like that any more. */
void roster_mark_dirty(struct bus *bus, struct client *client);
void roster_mark_clean(struct bus *bus, struct client *client);

/* postpone: there is no time for the client in this turn. pop_postponed: remove the first such client from its list
 * and return it, or NULL. */
void roster_postpone(struct bus *bus, struct client *client);
struct client *roster_pop_postponed(struct bus *bus);

/* leave: the client is to be closed, as too slow or not, and receives nothing more. pop_leaving: remove the first such
 * client from its list and return it, or NULL. */
void roster_leave(struct bus *bus, struct client *client, bool too_slow);
struct client *roster_pop_leaving(struct bus *bus);

/* The client is gone: remove it from all lists of work. */
void roster_forget(struct bus *bus, struct client *client);

#endif
