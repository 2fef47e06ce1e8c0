/* Heritage: what becomes of the queue of a client that goes, and who gets what waits for a kept tag (kept.h).
 *
 * It concerns clients that have a tag and whose listener keeps tags (keep_absent_ms). Such a client goes when its input
 * ends, when nothing more can be sent to it, or when it is cut off as slow; not when a route or an operator closes it.
 * If it was the last one that gets events for its tag, the tag is kept, with all that it has not been sent. Otherwise the
 * unicasts that it has not been sent go to other clients of the tag. If none of these gets events, but one of them is about
 * to be admitted again, the tag is kept with only the unicasts: that one has the rest in its own queue. An event of which
 * a part was sent is sent again whole. */
#ifndef EVAPID_HERITAGE_H
#define EVAPID_HERITAGE_H

#include <stdbool.h>

#include "bus/bus_type.h"

/* The client goes: it gets nothing more, and nothing is sent to it any more. What is left of its queue is dropped for this
 * reason. Changes nothing if the client is none of those. */
void heritage_leave(struct bus *bus, struct client *client, enum drop_reason reason);

/* The same for a client whose queue is to be dropped, because memory is short. */
void heritage_leave_all(struct bus *bus, struct client *client, enum drop_reason reason);

/* The client is about to be admitted: what waits for its tag is its own from now on. Returns the kept tag, to be ended with
 * kept_close when the client gets events; NULL: there is none. */
struct kept *heritage_inherit(struct bus *bus, struct client *client);

#endif
