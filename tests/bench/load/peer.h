/* A connection that sends and receives netstrings, and never blocks. */
#ifndef LOAD_PEER_H
#define LOAD_PEER_H

#include <stdbool.h>
#include <stddef.h>

#include "evapid/netstring.h"

enum {
    PEER_MESSAGE_MAX = 4096, /* bytes of the largest message, either way */
    PEER_OUT = 1 << 16,      /* bytes that wait to be sent */
    PEER_IN = 1 << 16,       /* bytes received and not handed out yet */
};

struct peer {
    int fd, epoll;
    bool polled_out; /* epoll reports room to write */
    size_t sent, out_length;
    size_t taken, in_length;
    char out[PEER_OUT], in[PEER_IN];
};

/* Connect (this blocks), and add the connection to epoll with pointer. */
bool peer_open(struct peer *peer, const char *address, int epoll, void *pointer);

/* Is there room for one more message of that length? */
bool peer_room(const struct peer *peer, size_t length);

/* Put a message behind those that wait to be sent. There must be room for it. */
void peer_say(struct peer *peer, const char *payload, size_t length);

/* Send as much as the kernel takes; epoll reports room for the rest. Returns false, with a line on standard error, if
 * the connection is gone. */
bool peer_flush(struct peer *peer, void *pointer);

/* Read once, as much as there is room for. Returns false if the connection is gone. */
bool peer_read(struct peer *peer);

/* The next complete message. Returns 1 with frame, which is valid until the next peer_read; 0 if none is complete; -1
 * if the input is no netstring. */
int peer_next(struct peer *peer, struct netstring *frame);

#endif
