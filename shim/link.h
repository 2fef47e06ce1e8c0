/* The link: one evapi worker's connection to evapid.
 *
 * A worker does nothing but keep this connection and run the routes of what comes down on it. It sends one frame, HELLO,
 * with the queue's file descriptors; all else goes up through the queue. docs/protocol.md describes the conversation. */
#ifndef EVAPI_LINK_H
#define EVAPI_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "evapid/ring.h"

/* What a worker tells evapid when it attaches, and where. */
struct link_settings {
    const char *socket;    /* path of evapid's Unix socket */
    const char *bind_addr; /* the listener to declare, or "" */
    bool netstrings;       /* its framing: netstrings, or raw */
    uint32_t max_clients;  /* its limit */
    bool keep_clients;     /* evapid's clients stay when this Kamailio has gone */
    uint16_t workers;      /* evapi workers of this Kamailio */
    uint64_t instance;     /* random, the same for all workers of this start of Kamailio */
    pid_t kamailio;        /* the main process, parent of the workers */
};

/* Be worker index. Never returns; ends the process when Kamailio's main process has ended. */
void link_work(uint16_t index, const struct link_settings *settings) __attribute__((noreturn));

/* Push a control record. In an evapi worker whose evapid is there, wait for room: evapid empties the queue soon. In any
 * other process, and when evapid is gone, a full queue is an error at once. */
enum ring_push link_push_control(struct ring_record record, const char *tag, size_t tag_length);

#endif
