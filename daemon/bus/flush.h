/* The end of a turn for clients: each is sent what it was given in the turn. With very many clients that is long work, and done in
 * slices (slice.h). A client that was not reached keeps its place, as if it read slowly, and comes first in the next turn. Until all
 * have been reached (bus.flush.behind), evapid reads no more from the ring, except one batch a turn for somebody who waits until a
 * part of it has been read. So new events wait in the ring, and no client gets far ahead of the others.
 *
 * Clients that are to be closed, many at once, are closed in slices too. They get no more events from the moment at which that was
 * decided. Their messages are not taken either, unless they are cut off as too slow. */
#ifndef EVAPID_FLUSH_H
#define EVAPID_FLUSH_H

#include <stdbool.h>

#include "bus/bus_type.h"

/* The end of a turn: send each client what it was given in it, with as few system calls as the kernel allows. */
void flush_turn(struct bus *bus);

/* Is work left that there was no time for? */
bool flush_is_behind(const struct bus *bus);

/* Has every client been sent all it was given? */
bool flush_is_done(const struct bus *bus);

/* Serve clients whose sockets were ready when a turn had no more time. Call it before the workers are written to: it may bring
 * messages for them. */
void flush_attend(struct bus *bus);

/* Close the client after it has been sent what it was given. */
void flush_finish(struct bus *bus, struct client *client);

/* Likewise, when its turn comes; it gets no more events at once. One that is being flushed is dropped then, if it is overdue. */
void flush_leave(struct bus *bus, struct client *client);

/* Cut off a client that is too slow, and with it all that it had not read: by that it can tell that it missed something. Very many
 * in one turn are cut off when their turn comes; flush_cut_off_now doesn't wait. */
void flush_cut_off(struct bus *bus, struct client *client);
void flush_cut_off_now(struct bus *bus, struct client *client);

/* Close all that are to be closed now, however long it takes. */
void flush_settle_leaving(struct bus *bus);

/* Let the runs go of what nobody waits for. */
void flush_settle(struct bus *bus);

#endif
