/* The roster: all clients, and the lists of those with whom something is to be done.
 *
 * It owns struct roster and each client's struct roster_place. */
#ifndef EVAPID_ROSTER_H
#define EVAPID_ROSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/bus_type.h"

/* Add a client that has come. False: no memory. Take one away that is about to be freed. */
bool roster_add(struct bus *bus, struct client *client);
void roster_remove(struct bus *bus, struct client *client);

/* The client of that index, or NULL. */
struct client *roster_find(const struct bus *bus, uint32_t index);

/* The client receives events from now on; or none any more. */
void roster_enlist(struct bus *bus, struct client *client);
void roster_delist(struct bus *bus, struct client *client);

/* A client that was taken over receives events, and stands in its run where it stood. False: it doesn't stand there. */
bool roster_restore(struct bus *bus, struct client *client);

/* The client has something to be sent that its run has not; or nothing any more. */
void roster_mark_dirty(struct bus *bus, struct client *client);
void roster_mark_clean(struct bus *bus, struct client *client);

/* There is no time for the client in this turn; and the first of those, which is no longer one of them, or NULL. */
void roster_postpone(struct bus *bus, struct client *client);
struct client *roster_take_postponed(struct bus *bus);

/* The client is to be closed, as too slow or not, and receives nothing more; and the first of those, which is no longer one of
 * them, or NULL. */
void roster_leave(struct bus *bus, struct client *client, bool too_slow);
struct client *roster_take_leaving(struct bus *bus);

/* The client is gone: nothing is left to be done with it. */
void roster_forget(struct bus *bus, struct client *client);

#endif
