/* The tags that this worker's routes have given.
 *
 * An event comes with its client's tag as evapid knew it when it put the event on the link; a tag that a route has given
 * since may still be on its way up. A client's routes all run in one worker, so what that worker remembers is newer. */
#ifndef EVAPI_TAGS_H
#define EVAPI_TAGS_H

#include <stddef.h>
#include <stdint.h>

#include "evapid/limits.h"

struct tag {
    char bytes[EVAPID_TAG_MAX];
    size_t length; /* 0: no tag */
};

/* Remember the tag of a connection. Without memory for it, events show evapid's. */
void tags_keep(uint32_t connection, const struct tag *tag);

/* What tags_keep was last told of the connection, or NULL. */
const struct tag *tags_recall(uint32_t connection);

/* The connection is gone. */
void tags_forget(uint32_t connection);

/* The link is gone: evapid has heard of all tags before the next one begins. */
void tags_forget_all(void);

#endif
