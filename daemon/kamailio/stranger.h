/* Strangers: connections to Kamailio's socket that are no worker's, or not yet.
 *
 * A stranger says HELLO and becomes a worker, or asks (QUERY) and is answered, or says nothing and is closed. There are so many
 * at a time. One more takes the place of another: the one that has been there longest of the user who has most, so that whoever
 * holds connections, however many and however often, holds them against himself and not against Kamailio. One question is answered in a
 * turn of the loop, in the order in which they came, so that events go out in between. */
#ifndef EVAPID_STRANGER_H
#define EVAPID_STRANGER_H

#include "kamailio/kamailio.h"

#define STRANGERS_MAX 256U /* at a time */
#define HELLO_MS 5000U     /* for how long each may say nothing, or not read its answer */

/* Somebody has connected. owner is the kamailio. */
void strangers_on_connect(void *owner, int fd);

/* A stranger has asked. */
void strangers_on_query(struct worker *worker, const struct wire_query *query);

/* The end of a loop turn: hear those again who wait, as far as their time has come. */
void strangers_serve(struct kamailio *kamailio);

/* Is there more to hear in the next turn? */
static inline bool strangers_wait(const struct kamailio *kamailio)
{
    return kamailio->waiting > 0;
}

/* Once a second: close those whose time is over. */
void strangers_tick(struct kamailio *kamailio);

#endif
