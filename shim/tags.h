/* The tags that this worker's routes have given.
 *
 * An event carries its client's tag as evapid knew it when it sent the event. A tag that a route has given since may
 * still be on its way up. All routes of a client run in one worker, so what that worker remembers is newer. */
#ifndef EVAPI_TAGS_H
#define EVAPI_TAGS_H

#include <stddef.h>
#include <stdint.h>

#include "evapid/limits.h"

struct tag {
    char bytes[EVAPID_TAG_MAX];
    size_t length; /* 0: no tag */
};

/* Remember the tag of a connection. If memory is short, events show evapid's tag. */
void tags_keep(uint32_t connection, const struct tag *tag);

/* The tag last given to tags_keep for the connection, or NULL. */
const struct tag *tags_recall(uint32_t connection);

/* The connection is gone. */
void tags_forget(uint32_t connection);

/* The link is gone. evapid knows all tags before the next link begins. */
void tags_forget_all(void);

#endif
