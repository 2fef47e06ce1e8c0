/* Listeners: the TCP addresses at which clients connect.
 *
 * They come from evapid's own configuration, and one from the module (Kamailio's bind_addr). Each has its framing and
 * limits. A listener that cannot have its address is tried again every second. */
#ifndef EVAPID_LISTENER_H
#define EVAPID_LISTENER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "client/client.h"
#include "net/access.h"
#include "net/address.h"
#include "net/bucket.h"
#include "net/origin.h"

struct holdings;
struct state_in;
struct state_out;

enum listener_source { LISTENER_CONFIG, LISTENER_MODULE };
enum listener_state {
    LISTENER_IDLE,      /* not begun, or its address could not be had: tried again */
    LISTENER_PREPARED,  /* has its address, and takes nobody yet: a reload is under way */
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
    const struct access *access;
    enum listener_source source;
    enum listener_state state;
    struct listeners *all;
    int fd;                 /* -1 when there is none */
    uint32_t number;        /* of the socket, as it is called in the store and in a hand-over; 0: not yet */
    uv_poll_t *poll;        /* NULL when there is no socket */
    uint32_t clients;       /* that have a place: connected now, or gone and not released yet */
    uint32_t gone;          /* of these */
    struct origin *origins; /* clients by where they come from; uthash */
    struct bucket bucket;   /* of those that are accepted */
    uint64_t accepted, refused[REFUSALS];
    bool exhausted;             /* the last accept found no descriptor, which has been logged */
    bool leaves;                /* the configuration that a reload is about to take has no place for it */
    enum listener_state before; /* PREPARED: what it was */
    struct listener *prev, *next;
};

/* A listening socket of the evapid before us that no listener has asked for yet. */
struct spare_socket {
    int fd;
    uint32_t number;
    struct sockaddr_storage address;
    struct spare_socket *next;
};

/* Whom listeners tell that somebody has connected, and may. connected: take over fd. False: there was no memory for that, and
 * fd is closed. */
struct listener_host {
    void *owner;
    bool (*connected)(void *owner, struct listener *listener, int fd, const struct sockaddr_storage *peer);
};

struct listeners {
    struct listener *first; /* list */
    uv_loop_t *loop;
    struct listener_host host;
    struct spare_socket *spares; /* list */
    const int *other_leaving;    /* a listening socket that is no listener's and leaves, too; NULL: there is none */
    uint32_t last_number;
    uint64_t refused_before; /* by listeners that have gone */
};

/* Add a listener that is not listening yet; access outlives it. NULL when there is no memory. */
struct listener *listener_add(struct listeners *all, const struct sockaddr_storage *address,
                              const struct client_limits *limits, const struct access *access, uint32_t max_clients,
                              enum listener_source source);

/* Make the listener that was closed at that address, and still has clients, the module's, and one that is to begin again.
 * NULL: there is none. */
struct listener *listener_revive(struct listeners *all, const struct sockaddr_storage *address,
                                 const struct client_limits *limits, const struct access *access, uint32_t max_clients);

/* What it is from now on, also for a client that connects a moment later. access outlives it. */
void listener_set(struct listener *listener, const struct client_limits *limits, const struct access *access,
                  uint32_t max_clients, enum listener_source source);

/* Begin to listen. NULL, or why it can't: text that stays valid until the next call. */
const char *listener_start(struct listener *listener);

/* For a reload: does it leave? */
void listener_mark(struct listener *listener, bool leaves);

/* Likewise: have a listener at that address, but take nobody yet. One that leaves is no obstacle. NULL: it is PREPARED,
 * and before the loop runs it is either told what it is (listener_set) and begins, or all those that are prepared are
 * cancelled; or why the address can't be had. */
const char *listener_prepare(struct listeners *all, const struct sockaddr_storage *address);
void listener_begin(struct listener *listener);
void listeners_cancel(struct listeners *all);

/* Take no more clients. The listener is freed when its last client has gone. */
void listener_stop(struct listener *listener);

/* Count one more client of that origin (client.origin). False, and nothing has changed, when there is no memory. */
bool listener_enter(struct listener *listener, const struct network *origin);

/* A client that was counted has not come to be. */
void listener_leave(struct listener *listener, const struct network *origin);

/* A client that was counted has gone. It keeps its place as long as anything is kept of it, so that whoever comes and goes
 * while routes hang can't have more kept than max_clients. */
void listener_note_gone(struct listener *listener);
void listener_release(struct listener *listener, const struct network *origin);

/* A client that no route has let in is about to be closed for that: count and log it. */
void listener_turn_away(struct listener *listener, const struct client *client);

/* Was the client denied, or not allowed, if it connected now? A listener that is closed denies nobody. */
bool listener_denies(const struct listener *listener, const struct client *client);

/* A client that the listener denies is about to be closed for that: count and log it. */
void listener_revoke(struct listener *listener, const struct client *client);

/* Connections that were refused, and clients turned away or closed for that, whatever the reason. */
uint64_t listener_refused(const struct listener *listener);

/* Likewise of all listeners that there have been. */
uint64_t listeners_refused(const struct listeners *all);

/* Does it listen at an address that the internet may reach, with no network that is allowed? */
bool listener_is_exposed(const struct listener *listener);

/* What to warn of then: "listener 192.0.2.1:8448: " goes before it. */
#define LISTENER_EXPOSED "reachable from public networks and no allow is set: whoever can reach it gets every event"

/* The listener at that address that is not closed, or NULL. */
struct listener *listener_find(const struct listeners *all, const struct sockaddr_storage *address);

/* Tell the store how many clients may come. */
void listeners_expect(const struct listeners *all);

/* Once a second: begin again what could not be begun or was paused. */
void listeners_tick(struct listeners *all);

/* Stop all. */
void listeners_stop(struct listeners *all);

/* A listening socket; -1 and errno when there is none. Those that leave, and spares, are no obstacle, though their address is
 * the same or overlaps, "0.0.0.0:8448" and "127.0.0.1:8448": the kernel has both at a time if both want that, and so the one
 * is kept until the other is certain. */
int listeners_open_socket(struct listeners *all, const struct sockaddr_storage *address);

/* Take the listening sockets out of the holdings: who begins to listen at such an address goes on with that socket, and
 * with the connections that wait in it. Nobody has asked for the rest: close them. */
void listeners_inherit(struct listeners *all, struct holdings *holdings);
void listeners_drop_spares(struct listeners *all);

/* A listener of that name that is closed, and stands for the clients that it had; NULL: no memory, or it is no name. */
struct listener *listener_remember(struct listeners *all, const char *name, const struct client_limits *limits,
                                   const struct access *access);

/* The listener of that name, closed or not, or NULL. */
struct listener *listener_named(const struct listeners *all, const char *name);

/* Write all for a successor; read them back, behind those of the configuration. module_may: the one that the module had
 * declared is opened again, and is then *module. False: it makes no sense. */
void listeners_save(const struct listeners *all, struct state_out *out);
bool listeners_load(struct listeners *all, struct state_in *in, const struct client_limits *limits,
                    const struct access *access, bool module_may, struct listener **module);

/* Add the listening sockets to the holdings. */
bool listeners_hold(const struct listeners *all, struct holdings *holdings);

const char *listener_name(const struct listener *listener);

/* As the status has it. */
const char *listener_state_name(enum listener_state state);

#endif
