/* Listeners: the TCP addresses at which clients connect.
 *
 * They come from evapid's own configuration, and one from the module (Kamailio's bind_addr). Each has its framing and
 * limits. A listener that cannot have its address is tried again every second. */
#ifndef EVAPID_LISTENER_H
#define EVAPID_LISTENER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "address.h"
#include "client.h"

struct bus;

enum listener_source { LISTENER_CONFIG, LISTENER_MODULE };
enum listener_state {
    LISTENER_IDLE,      /* not begun, or its address could not be had: tried again */
    LISTENER_LISTENING, /* takes clients */
    LISTENER_PAUSED,    /* out of descriptors: takes clients again in a second */
    LISTENER_CLOSED     /* no more clients; lives on while some are connected */
};

struct listener {
    struct sockaddr_storage address;
    char name[ADDRESS_TEXT];
    char subject[ADDRESS_TEXT + 10]; /* of its log lines */
    struct client_limits limits;     /* of clients that connect from now on */
    uint32_t max_clients;
    enum listener_source source;
    enum listener_state state;
    struct bus *bus;
    int fd; /* -1 when there is none */
    uv_poll_t poll;
    uint32_t clients; /* connected now */
    uint64_t accepted, refused;
    bool poll_closing;
    bool exhausted; /* the last accept found no descriptor, which has been logged */
    struct listener *prev, *next;
};

struct listeners {
    struct listener *first; /* list */
    struct bus *bus;
};

/* Add a listener that is not listening yet. NULL when there is no memory. */
struct listener *listener_add(struct listeners *all, const struct sockaddr_storage *address,
                              const struct client_limits *limits, uint32_t max_clients, enum listener_source source);

/* Begin to listen. NULL, or why it can't: text that stays valid until the next call. */
const char *listener_start(struct listener *listener);

/* Take no more clients. The listener is freed when its last client has gone. */
void listener_stop(struct listener *listener);

/* A client of the listener has gone. */
void listener_leave(struct listener *listener);

/* The listener at that address that is not closed, or NULL. */
struct listener *listener_find(const struct listeners *all, const struct sockaddr_storage *address);

/* Once a second: begin again what could not be begun or was paused. */
void listeners_tick(struct listeners *all);

/* Stop all. */
void listeners_stop(struct listeners *all);

const char *listener_name(const struct listener *listener);

#endif
