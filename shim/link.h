/* The link: one evapi worker's connection to evapid.
 *
 * A worker only keeps this connection and runs the routes of the events that arrive on it. It sends one frame, HELLO,
 * with the queue's file descriptors. Everything else goes up through the queue. docs/protocol.md describes the
 * conversation. */
#ifndef EVAPI_LINK_H
#define EVAPI_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "evapid/ring.h"

/* What a worker tells evapid when it attaches, and where it does so. */
struct link_settings {
    const char *socket;    /* path of evapid's Unix socket */
    const char *bind_addr; /* the listener to declare, or "" */
    bool netstrings;       /* the listener's framing: netstrings, or raw */
    uint32_t max_clients;  /* the listener's limit */
    bool keep_clients;     /* evapid's clients stay when this Kamailio is gone */
    uint16_t workers;      /* evapi workers of this Kamailio */
    uint64_t instance;     /* random, the same for all workers of this start of Kamailio */
    pid_t kamailio;        /* the main process, parent of the workers */
};

/* Run as worker number index. Never returns. Ends the process when Kamailio's main process has ended. */
void link_work(uint16_t index, const struct link_settings *settings) __attribute__((noreturn));

/* Push a control record. An evapi worker whose evapid is attached waits for room: evapid soon empties the queue. In any
 * other process, and without an evapid, a full queue is an error at once. */
enum ring_push link_push_control(struct ring_record record, const char *tag, size_t tag_length);

#endif
