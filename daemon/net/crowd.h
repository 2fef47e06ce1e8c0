/* Too many connections at a door: whose makes way. Whoever holds connections keeps out nobody but himself. */
#ifndef EVAPID_CROWD_H
#define EVAPID_CROWD_H

#include <sys/types.h>

/* The user who has most of the connections; users has the user of each. On a tie, the one who comes first in users. count is at least
 * 1; *most gets how many that user has. */
static inline uid_t crowd_user(const uid_t *users, unsigned count, unsigned *most)
{
    uid_t found = users[0];
    *most = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned has = 0;
        for (unsigned j = 0; j < count; j++)
            has += users[j] == users[i];
        if (has <= *most)
            continue;
        *most = has;
        found = users[i];
    }
    return found;
}

#endif
