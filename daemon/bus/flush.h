/* The end of a turn for clients: each is sent what it was given in the turn. With very many clients that is long work, and done in
 * slices (slice.h). A client that was not reached keeps its place, as if it read slowly, and comes first in the next turn. Until all
 * have been reached, evapid reads no more from the ring, except one batch a turn for somebody who waits until a part of it has
 * been read. So new events wait in the ring, and no client gets far ahead of the others.
 *
 * Clients that are to be closed, many at once, are closed in slices too. They get no more events from the moment at which that was
 * decided. Their messages are not taken either, unless they are cut off as too slow. */
#ifndef EVAPID_FLUSH_H
#define EVAPID_FLUSH_H

#include <stdbool.h>

struct bus;
struct client;

/* It has something to send; or it has not, or was sent it. */
void flush_mark_dirty(struct bus *bus, struct client *client);
void flush_mark_clean(struct bus *bus, struct client *client);

/* Serve clients whose sockets were ready when a turn had no more time. Call it before the workers are written to: it may bring
 * messages for them. */
void flush_attend(struct bus *bus);

/* Close the client gracefully, as bus_finish does, when its turn comes; drop it then if it is being flushed. */
void flush_leave(struct bus *bus, struct client *client);

/* Cut it off when its turn comes, because an event finds no room in its queue. */
void flush_cut_off(struct bus *bus, struct client *client);

/* It has gone: nobody need close it any more, or attend to it. */
void flush_forget(struct bus *bus, struct client *client);

/* Close all of those now: nobody waits any more. */
void flush_settle_leaving(struct bus *bus);

/* Is there more to do in the next turn, though nothing comes? */
bool flush_is_behind(const struct bus *bus);

#endif
