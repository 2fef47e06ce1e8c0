/* The end of a turn for clients: each is sent what it was given in it. With very many clients that is long work, and done in slices
 * (slice.h): those whose turn did not come stand where they stood, as if they read slowly, and come first in the turns that
 * follow. No more is read from the ring before all have had their turn, so that nobody gets far ahead of the others, and what is
 * issued meanwhile waits in the ring, as ever.
 *
 * Those that are to be closed, many at once, are closed in slices as well: they get nothing more and are not heard any more from
 * the moment on at which that was decided. */
#ifndef EVAPID_FLUSH_H
#define EVAPID_FLUSH_H

#include <stdbool.h>

struct bus;
struct client;

/* It has something to send; or it has not, or was sent it. */
void flush_mark_dirty(struct bus *bus, struct client *client);
void flush_mark_clean(struct bus *bus, struct client *client);

/* Attend to clients that had something for which there was no time in the turn in which it came. Before workers are written to,
 * for which messages may be among that. */
void flush_attend(struct bus *bus);

/* Close the client in order, as bus_finish does, when its turn comes; one that is being flushed at once. */
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
