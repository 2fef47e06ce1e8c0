/* A group: the clients of one tag, and which of them a unicast is for.
 *
 * What holds for a tag is the mode of the listener to which that of its clients has connected that has carried the tag
 * longest, of those that get events. The modes that take turns pass over who can't keep up or is about to go, as long as
 * another can take the event; and a client that comes or goes changes nothing in whose turn it is. */
#ifndef EVAPID_GROUP_H
#define EVAPID_GROUP_H

#include <stddef.h>

struct client;
struct tag;

/* The client that is to get an event of length bytes, of which guest counts as a receiver (bus.h); the next one is then
 * another's turn. NULL: nobody gets it. */
struct client *group_choose(struct tag *tag, const struct client *guest, size_t length);

#endif
