/* Listeners: the addresses at which clients connect, of TCP or of a Unix socket (a door).
 *
 * They come from evapid's own configuration, and one comes from the module (Kamailio's bind_addr). Each has its framing
 * and limits. A listener whose address is not available is tried again every second. */
#ifndef EVAPID_LISTENER_H
#define EVAPID_LISTENER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "client/client.h"
#include "client/spare.h"
#include "net/access.h"
#include "net/address.h"
#include "net/bucket.h"
#include "net/door.h"
#include "net/origin.h"
#include "net/remote.h"

struct descriptors;

enum listener_source { LISTENER_CONFIG, LISTENER_MODULE };
enum listener_state {
    LISTENER_IDLE,      /* not started, or its address is not available: tried again */
    LISTENER_PREPARED,  /* has its address, but accepts nobody yet: a reload is under way */
    LISTENER_LISTENING, /* accepts clients */
    LISTENER_PAUSED,    /* out of descriptors: accepts again in a second */
    LISTENER_CLOSED     /* accepts no more clients; lives on while some are connected */
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
    int fd;                               /* -1: none */
    uint32_t number;                      /* of the socket, its name in the store and in a hand-over; 0: not yet */
    uv_poll_t *poll;                      /* NULL: there is no socket */
    struct door *door;                    /* of a Unix socket, in place of these three; NULL: it is TCP */
    struct door_change *change;           /* a reload is under way for the door; NULL: none is */
    uint32_t clients;                     /* with a place: connected, or gone but not released yet */
    uint32_t gone;                        /* of these */
    struct origin *origins;               /* clients by origin; uthash */
    struct bucket bucket;                 /* limits the rate of accepted clients */
    uint64_t accepted, refused[REFUSALS]; /* without those that the door has refused */
    bool exhausted;                       /* the last accept found no descriptor, and that was logged */
    bool leaves;                          /* it is not in the configuration that a reload is about to apply */
    enum listener_state before;           /* PREPARED: the state before */
    struct listener *prev, *next;
};

/* Told about each connection that is allowed. connected: take over fd. False: no memory, and fd is closed. */
struct listener_host {
    void *owner;
    bool (*connected)(void *owner, struct listener *listener, int fd, const struct remote *remote);
};

struct listeners {
    struct listener *first; /* list */
    uv_loop_t *loop;
    struct listener_host host;
    struct spare *spares;     /* list */
    const int *other_leaving; /* a leaving listening socket that is not a listener's; NULL: none */
    uint32_t last_number;
    uint64_t refused_before; /* by listeners that are freed */
};

/* Add a listener that does not listen yet; access outlives it. NULL: no memory. */
struct listener *listener_add(struct listeners *all, const struct sockaddr_storage *address,
                              const struct client_limits *limits, const struct access *access, uint32_t max_clients,
                              enum listener_source source);

/* Reopen a closed listener at this address, which still has clients, as the module's. The caller starts it. NULL: there
 * is none. */
struct listener *listener_revive(struct listeners *all, const struct sockaddr_storage *address,
                                 const struct client_limits *limits, const struct access *access, uint32_t max_clients);

/* Apply these values, also to clients that connect a moment later. access outlives it. */
void listener_set(struct listener *listener, const struct client_limits *limits, const struct access *access,
                  uint32_t max_clients, enum listener_source source);

/* Listen. Returns NULL, or why it cannot: text that is valid until the next call. */
const char *listener_start(struct listener *listener);

/* For a reload: is it going to leave? */
void listener_mark(struct listener *listener, bool leaves);

/* For a reload: prepare a listener at this address that accepts nobody yet. Leaving listeners don't block the address.
 * access: what it will have.
 * Returns NULL: it is PREPARED, or why the address is not available. Before the loop runs, the caller either sets its
 * values (listener_set) and begins it, or cancels all that are prepared. */
const char *listener_prepare(struct listeners *all, const struct sockaddr_storage *address,
                             const struct access *access);
void listener_begin(struct listener *listener);
void listeners_cancel(struct listeners *all);

/* For a reload: prepare other access to the door of a listener that listens, or does nothing if it has none. Returns
 * NULL, or why it cannot, and nothing has changed. listener_commit_door or listeners_cancel follows. */
const char *listener_prepare_door(struct listener *listener, const struct access *access);
void listener_commit_door(struct listener *listener);

/* Accept no more clients. The listener is freed when its last client is released. */
void listener_stop(struct listener *listener);

/* Count one more client of this origin (client.origin). False: no memory; nothing has changed. */
bool listener_enter(struct listener *listener, const struct network *origin);

/* A counted client could not be created. */
void listener_leave(struct listener *listener, const struct network *origin);

/* note_gone: a counted client has gone. It keeps its place until it is released, because evapid still stores it. So
 * peers that come and go while routes hang cannot make evapid store more than max_clients. release: its place is
 * free. */
void listener_note_gone(struct listener *listener);
void listener_release(struct listener *listener, const struct network *origin);

/* A client is about to be closed because no route has admitted it: count and log it. */
void listener_turn_away(struct listener *listener, const struct client *client);

/* Would the client be refused, as denied or not allowed, if it connected now? A closed listener denies nobody. */
bool listener_denies(const struct listener *listener, const struct client *client);

/* A client is about to be closed because the listener denies it: count and log it. */
void listener_revoke(struct listener *listener, const struct client *client);

/* How often it has refused or closed somebody for this reason, the door's refusals included; and for any reason. */
static inline uint64_t listener_refusals(const struct listener *listener, enum refusal refusal)
{
    const bool counts_too = listener->door != NULL && refusal == REFUSAL_DENIED;
    return listener->refused[refusal] + (counts_too ? listener->door->refused : 0);
}

static inline uint64_t listener_refused(const struct listener *listener)
{
    uint64_t refused = 0;
    for (int refusal = 0; refusal < REFUSALS; refusal++)
        refused += listener_refusals(listener, (enum refusal)refusal);
    return refused;
}

/* The same for all listeners, including freed ones. */
uint64_t listeners_refused(const struct listeners *all);

/* Does it listen at an address that the internet may reach, without any allowed network? */
bool listener_is_exposed(const struct listener *listener);

/* The warning for that; "listener 192.0.2.1:8448: " goes before it. */
#define LISTENER_EXPOSED "reachable from public networks and no allow is set: whoever can reach it gets every event"

/* The listener at this address that is not closed, or NULL. */
struct listener *listener_find(const struct listeners *all, const struct sockaddr_storage *address);

/* Tell the store how many clients may come. */
void listeners_expect(const struct listeners *all);

/* Call it once a second: start listeners that could not start or are paused. */
void listeners_tick(struct listeners *all);

/* Stop all. */
void listeners_stop(struct listeners *all);

/* Open a listening socket; -1: none, see errno. Leaving listeners and spares don't block it, even if their address is
 * the same or overlaps, like "0.0.0.0:8448" and "127.0.0.1:8448". The kernel allows both sockets at once if both ask
 * for it. So the old one is kept until the new one is certain. */
int listeners_open_socket(struct listeners *all, const struct sockaddr_storage *address);

/* inherit: take the listening sockets out of the descriptors. A listener that starts at such an address continues with
 * that socket and the connections that wait in it. drop_spares: close the sockets that no listener has used. */
void listeners_inherit(struct listeners *all, struct descriptors *descriptors);
void listeners_drop_spares(struct listeners *all);

/* All is ours for good (door_adopt): the files of Unix sockets that no listener uses are removed. */
void listeners_adopt(struct listeners *all);

/* The start has failed: remove the files that we have made. */
void listeners_withdraw(struct listeners *all);

/* Make a closed listener of this name, for the clients that it had. NULL: no memory, or the name is invalid. */
struct listener *listener_remember(struct listeners *all, const char *name, const struct client_limits *limits,
                                   const struct access *access);

/* Open the module's remembered listener again. */
void listener_reopen(struct listener *listener, uint32_t max_clients);

/* Add what the evapid before us had counted. */
void listener_add_past(struct listener *listener, uint64_t accepted, const uint64_t refused[REFUSALS]);
void listeners_add_refused(struct listeners *all, uint64_t refused);

/* The listener of this name, closed or not, or NULL. */
struct listener *listener_named(const struct listeners *all, const char *name);

/* Add the listening sockets to the descriptors. */
bool listeners_list_sockets(const struct listeners *all, struct descriptors *descriptors);

static inline const char *listener_name(const struct listener *listener)
{
    return listener->name;
}

/* As shown in the status. */
const char *listener_state_name(enum listener_state state);

#endif
