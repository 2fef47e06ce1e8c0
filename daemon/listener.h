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
struct holdings;
struct state_in;
struct state_out;

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
    struct listeners *all;
    int fd;          /* -1 when there is none */
    uint32_t number; /* of the socket, as it is called in the store and in a hand-over */
    uv_poll_t poll;
    uint32_t clients; /* connected now */
    uint64_t accepted, refused;
    bool poll_closing;
    struct listener *prev, *next;
};

/* A listening socket of the evapid before us that no listener has asked for yet. */
struct spare_socket {
    int fd;
    uint32_t number;
    struct sockaddr_storage address;
    struct spare_socket *next;
};

struct listeners {
    struct listener *first; /* list */
    struct bus *bus;
    struct spare_socket *spares; /* list */
    uint32_t last_number;
};

/* Add a listener that is not listening yet. NULL when there is no memory. */
struct listener *listener_add(struct listeners *all, const struct sockaddr_storage *address,
                              const struct client_limits *limits, uint32_t max_clients, enum listener_source source);

/* Make the listener that was closed at that address, and still has clients, the module's, and one that is to begin again.
 * NULL: there is none. */
struct listener *listener_revive(struct listeners *all, const struct sockaddr_storage *address,
                                 const struct client_limits *limits, uint32_t max_clients);

/* Begin to listen. NULL, or why it can't: text that stays valid until the next call. */
const char *listener_start(struct listener *listener);

/* Take no more clients. The listener is freed when its last client has gone. */
void listener_stop(struct listener *listener);

/* A client has come to the listener by a hand-over; a client of the listener has gone. */
void listener_enter(struct listener *listener);
void listener_leave(struct listener *listener);

/* The listener at that address that is not closed, or NULL. */
struct listener *listener_find(const struct listeners *all, const struct sockaddr_storage *address);

/* Once a second: begin again what could not be begun or was paused. */
void listeners_tick(struct listeners *all);

/* Stop all. */
void listeners_stop(struct listeners *all);

/* Take the listening sockets out of the holdings: who begins to listen at such an address goes on with that socket, and
 * with the connections that wait in it. Nobody has asked for the rest: close them. */
void listeners_inherit(struct listeners *all, struct holdings *holdings);
void listeners_drop_spares(struct listeners *all);

/* A listener of that name that is closed, and stands for the clients that it had; NULL: no memory, or it is no name. */
struct listener *listener_remember(struct listeners *all, const char *name, const struct client_limits *limits);

/* The listener of that name, closed or not, or NULL. */
struct listener *listener_named(const struct listeners *all, const char *name);

/* Write all for a successor; read them back, behind those of the configuration. module_may: the one that the module had
 * declared is opened again, and is then *module. False: it makes no sense. */
void listeners_save(const struct listeners *all, struct state_out *out);
bool listeners_load(struct listeners *all, struct state_in *in, const struct client_limits *limits, bool module_may,
                    struct listener **module);

/* Add the listening sockets to the holdings. */
bool listeners_hold(const struct listeners *all, struct holdings *holdings);

const char *listener_name(const struct listener *listener);

#endif
