/* Too many connections at a door: which user loses one. A user who holds many connections only keeps himself out. */
#ifndef EVAPID_CROWD_H
#define EVAPID_CROWD_H

#include <sys/types.h>

/* The user with the most connections. users has the user of each connection. On a tie, the first of them in users.
 * count is at least 1. *most is set to that user's number of connections. */
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
