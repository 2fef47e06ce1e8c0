/* The end of a turn: each client is sent what it was given in the turn. With very many clients this takes long, and is
 * done in slices (slice.h). A client that was not reached keeps its place, as if it read slowly, and comes first in the
 * next turn. Until all have been reached (bus.flush.behind), evapid reads no more from the ring, except one batch a
 * turn while somebody waits for a part of it to be read. So new events wait in the ring, and no client gets far ahead
 * of the others.
 *
 * Clients to be closed, if there are many, are closed in slices too. Once that is decided they get no more events.
 * Their messages are not taken either, unless they are cut off as too slow. */
#ifndef EVAPID_FLUSH_H
#define EVAPID_FLUSH_H

#include <stdbool.h>

#include "bus/bus_type.h"

/* At the end of a turn, send each client what it was given in it, with as few system calls as the kernel allows. */
void flush_turn(struct bus *bus);

/* Is work left for which there was no time? */
bool flush_is_behind(const struct bus *bus);

/* Has every client been sent all it was given? */
bool flush_is_done(const struct bus *bus);

/* Serve clients whose sockets were ready when a turn had no more time. Call it before writing to the workers: it may
 * bring messages for them. */
void flush_attend(struct bus *bus);

/* Close the client after it has been sent what it was given. */
void flush_finish(struct bus *bus, struct client *client);

/* The same, when its turn comes; from now on it gets no more events. A client that is being flushed is dropped then, if
 * it is overdue. */
void flush_leave(struct bus *bus, struct client *client);

/* Cut off a client that is too slow, and drop its queue: the end of the connection shows the client that it missed
 * something. If there are very many in one turn, the rest are cut off when their turn comes; flush_cut_off_now does not
 * wait. */
void flush_cut_off(struct bus *bus, struct client *client);
void flush_cut_off_now(struct bus *bus, struct client *client);

/* The same, because memory is short: its queue is dropped, even if its tag is kept. */
void flush_cut_off_short(struct bus *bus, struct client *client);

/* Close all clients that are to be closed, however long it takes. */
void flush_close_leaving(struct bus *bus);

/* Let the runs free what no client waits for. */
void flush_trim_runs(struct bus *bus);

#endif
