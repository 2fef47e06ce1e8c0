/* A group: the clients of one tag, and which of them gets a unicast.
 *
 * Of the tag's clients that get events, take the one that has had the tag longest: its listener's mode counts for the
 * tag. The modes that take turns skip clients that cannot keep up or are about to go, as long as another can take the
 * event. Joining or leaving clients don't change whose turn it is. */
#ifndef EVAPID_GROUP_H
#define EVAPID_GROUP_H

#include <stddef.h>

struct client;
struct tag;

/* Choose the client for an event of length bytes. guest counts as a receiver (client_receives). Then it is the next
 * client's turn. If its queue has no room, it is sent what the kernel takes; if its connection turns out to be broken,
 * another one is chosen. NULL: nobody gets the event. */
struct client *group_choose(struct tag *tag, const struct client *guest, size_t length);

#endif
