/* A connection on which netstrings go out and come in, and that never blocks. */
#ifndef LOAD_PEER_H
#define LOAD_PEER_H

#include <stdbool.h>
#include <stddef.h>

#include "evapid/netstring.h"

enum {
    PEER_MESSAGE_MAX = 4096, /* bytes of the largest message, either way */
    PEER_OUT = 1 << 16,      /* bytes that wait to be sent */
    PEER_IN = 1 << 16,       /* bytes that have come and not been looked at yet */
};

struct peer {
    int fd, epoll;
    bool polled_out; /* epoll tells when it can be written to */
    size_t sent, out_length;
    size_t taken, in_length;
    char out[PEER_OUT], in[PEER_IN];
};

/* Connect, and let epoll tell of it with pointer. The whole program does nothing else meanwhile. */
bool peer_open(struct peer *peer, const char *address, int epoll, void *pointer);

/* Is there room for one more message of that length? */
bool peer_room(const struct peer *peer, size_t length);

/* Put a message, for which there is room, behind those that wait to be sent. */
void peer_say(struct peer *peer, const char *payload, size_t length);

/* Send as much as the kernel takes; epoll tells of the rest. False when the connection is gone, with a line on standard
 * error. */
bool peer_flush(struct peer *peer, void *pointer);

/* Read what has come, once, as far as there is room. False when the connection is gone. */
bool peer_read(struct peer *peer);

/* The next whole message that has come: 1 and frame is set until peer_read is called again, 0 there is none, -1 what came
 * is no netstring. */
int peer_next(struct peer *peer, struct netstring *frame);

#endif
