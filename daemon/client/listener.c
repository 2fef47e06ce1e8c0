/* Listening sockets: those of TCP, and doors. */
#include "client/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/descriptors.h"
#include "base/log.h"
#include "base/passed.h"
#include "base/store.h"
#include "base/watch.h"
#include "client/refusal.h"
#include "net/port.h"
#include "net/acceptor.h"

#define BACKLOG 511
#define ACCEPT_BATCH 64 /* connections accepted in one loop turn: connected clients come first */

static struct log_limit failures = { .kind = "listeners: failed accepts" };
static struct log_limit declared = { .kind = "listeners: begun and ended by the module" };

const char *listener_state_name(enum listener_state state)
{
    static const char *const names[] = { "failed", "prepared", "listening", "paused", "closed" };
    return names[state];
}

struct listener *listener_find(const struct listeners *all, const struct sockaddr_storage *address)
{
    struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    if (listener->state != LISTENER_CLOSED && address_equal(&listener->address, address))
        return listener;
    return NULL;
}

struct listener *listener_add(struct listeners *all, const struct sockaddr_storage *address,
                              const struct client_limits *limits, const struct access *access, uint32_t max_clients,
                              enum listener_source source)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    struct door *door = address_is_unix(address) ? calloc(1, sizeof(*door)) : NULL;
    if (listener == NULL || (door == NULL && address_is_unix(address))) {
        free(listener);
        free(door);
        return NULL;
    }
    if (door != NULL)
        door_init(door);
    listener->door = door;
    listener->address = *address;
    listener->limits = *limits;
    listener->access = access;
    listener->max_clients = max_clients;
    listener->source = source;
    listener->all = all;
    listener->fd = -1;
    address_print(address, listener->name);
    snprintf(listener->subject, sizeof(listener->subject), "listener %s", listener->name);
    DL_APPEND(all->first, listener);
    return listener;
}

static struct listener *listener_closed(const struct listeners *all, const struct sockaddr_storage *address)
{
    struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    if (listener->state == LISTENER_CLOSED && address_equal(&listener->address, address))
        return listener;
    return NULL;
}

void listener_set(struct listener *listener, const struct client_limits *limits, const struct access *access,
                  uint32_t max_clients, enum listener_source source)
{
    listener->limits = *limits;
    listener->access = access;
    listener->max_clients = max_clients;
    listener->source = source;
    if (listener->door != NULL)
        listener->door->access = &access->door;
}

struct listener *listener_revive(struct listeners *all, const struct sockaddr_storage *address,
                                 const struct client_limits *limits, const struct access *access, uint32_t max_clients)
{
    struct listener *listener = listener_closed(all, address);
    if (listener == NULL)
        return NULL;
    listener_set(listener, limits, access, max_clients, LISTENER_MODULE);
    listener->state = LISTENER_IDLE;
    return listener;
}

/* Free a listener that is closed and has no clients. */
static void listener_free(struct listener *listener)
{
    listener->all->refused_before += listener_refused(listener);
    DL_DELETE(listener->all->first, listener);
    free(listener->door);
    free(listener->change);
    free(listener);
}

/* Why this remote cannot connect now. Those that are not allowed at all don't use up the others' limits. Only a
 * connection that passes all other checks counts for the rate. The door has checked a user already. */
static enum refusal listener_objection(struct listener *listener, const struct remote *remote)
{
    const struct access *access = listener->access;
    if (listener->door == NULL && !access_admits(access, &remote->host))
        return REFUSAL_DENIED;
    if (listener->clients >= listener->max_clients)
        return REFUSAL_FULL;
    if (access->max_clients_per_address > 0 &&
        origin_clients(listener->origins, &remote->origin) >= access->max_clients_per_address)
        return REFUSAL_ADDRESS;
    if (access->max_connects_per_second > 0 &&
        !bucket_take(&listener->bucket, access->max_connects_per_second, uv_now(listener->all->loop)))
        return REFUSAL_RATE;
    return REFUSAL_NONE;
}

static void listener_note_refusal(struct listener *listener, enum refusal refusal, const struct remote *remote)
{
    const struct refusal_facts facts = { .subject = listener->subject,
                                         .access = listener->access,
                                         .places = listener->clients,
                                         .gone = listener->gone,
                                         .admission_timeout_ms = listener->limits.admission_timeout_ms };
    listener->refused[refusal]++;
    refusal_log(refusal, remote, &facts);
}

/* Close it immediately, so that the application sees a refusal instead of silence. */
static void listener_hang_up(const struct listener *listener, int fd)
{
    if (listener->door != NULL)
        passed_end(fd); /* descriptors may wait in it */
    else
        close(fd);
}

static void listener_admit(struct listener *listener, int fd, const struct remote *remote)
{
    const enum refusal refusal = listener_objection(listener, remote);
    if (refusal != REFUSAL_NONE || !listener_enter(listener, &remote->origin)) {
        listener_hang_up(listener, fd);
        listener_note_refusal(listener, refusal != REFUSAL_NONE ? refusal : REFUSAL_MEMORY, remote);
        return;
    }
    const struct listener_host *host = &listener->all->host;
    if (host->connected(host->owner, listener, fd, remote)) {
        listener->accepted++;
        return;
    }
    listener_leave(listener, &remote->origin); /* the host has closed the socket */
    listener_note_refusal(listener, REFUSAL_MEMORY, remote);
}

/* Out of descriptors or memory: a level-triggered poll would spin, so wait for the next tick. */
static void listener_pause(struct listener *listener, int error)
{
    if (!listener->exhausted)
        log_limited(&failures, LEVEL_ERROR, listener->subject, "cannot accept clients: %s; trying again every second",
                    strerror(error));
    listener->exhausted = true;
    listener->state = LISTENER_PAUSED;
    uv_poll_stop(listener->poll);
}

static void listener_note_accept(struct listener *listener)
{
    if (listener->exhausted)
        log_limited(&failures, LEVEL_NOTICE, listener->subject, "accepts clients again");
    listener->exhausted = false;
}

static bool listener_take(void *owner, int fd, const struct sockaddr_storage *peer)
{
    struct listener *listener = owner;
    const struct remote remote = remote_of_address(peer);
    listener_note_accept(listener);
    listener_admit(listener, fd, &remote);
    return listener->state == LISTENER_LISTENING;
}

/* The door has accepted a user that it admits. */
static void listener_on_opened(void *owner, int fd)
{
    struct ucred peer = { .uid = (uid_t)-1 };
    socklen_t size = sizeof(peer);
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    const struct remote remote = remote_of_user(peer.uid);
    listener_admit(owner, fd, &remote);
}

static void listener_on_poll(uv_poll_t *poll, int status, int events)
{
    struct listener *listener = poll->data;
    (void)status;
    (void)events;
    if (listener->state != LISTENER_LISTENING)
        return;
    const int error = acceptor_run(listener->fd, ACCEPT_BATCH, listener_take, listener);
    if (error != 0)
        listener_pause(listener, error);
}

/* Accept clients, or wait for the next tick if the kernel has no room to watch the socket. */
static void listener_watch(struct listener *listener)
{
    if (listener->door != NULL) {
        door_tick(listener->door);
        listener->state = listener->door->paused ? LISTENER_PAUSED : LISTENER_LISTENING;
        return;
    }
    const bool watched = watch_start(listener->poll, UV_READABLE, listener_on_poll) == 0;
    listener->state = watched ? LISTENER_LISTENING : LISTENER_PAUSED;
}

static void listener_keep_door(const struct door *door)
{
    store_keep(door->fd, SPARE_UNIX, SPARE_UNIX_OF(door));
}

static void listener_drop_socket(struct listener *listener)
{
    struct door *door = listener->door;
    if (door != NULL && door->fd >= 0) {
        store_end(door->fd, SPARE_UNIX, SPARE_UNIX_OF(door));
        door_close(door);
    }
    watch_close(listener->poll);
    listener->poll = NULL;
    if (listener->number != 0)
        store_end(listener->fd, SPARE_TCP, listener->number);
    listener->number = 0;
    if (listener->fd >= 0)
        close(listener->fd);
    listener->fd = -1;
}

/* Use the socket that the evapid before us left at this address, if any. */
static bool listener_take_spare(struct listener *listener)
{
    struct spare *spare = spare_take(&listener->all->spares, &listener->address);
    if (spare == NULL)
        return false;
    listener->fd = spare->fd;
    listener->number = spare->number;
    free(spare);
    return true;
}

/* Open the door, with the socket that the evapid before us left if its file is still there. Returns NULL, or why it
 * cannot. */
static const char *listener_open_door(struct listener *listener)
{
    struct door *door = listener->door;
    struct inherited_door inherited = { .fd = -1 };
    struct spare *spare = spare_take(&listener->all->spares, &listener->address);
    if (spare != NULL)
        inherited = (struct inherited_door){ spare->fd, spare->door.device, spare->door.inode, 0 };
    inherited.refused = door->refused;
    const char *why = door_open(door, listener->all->loop, address_path(&listener->address), &listener->access->door,
                                inherited, listener_on_opened, listener);
    if (spare != NULL && (door->device != inherited.device || door->inode != inherited.inode))
        store_forget(SPARE_UNIX, SPARE_UNIX_OF(&inherited));
    free(spare);
    return why;
}

/* Leaving listeners, and spares that no listener has used, let another socket have the same port, at the same address
 * or an overlapping one; or no longer. */
static void listeners_share_port(const struct listeners *all, uint16_t port, bool share)
{
    const struct listener *listener = NULL;
    const struct spare *spare = NULL;
    DL_FOREACH(all->first, listener)
    if (listener->leaves && listener->fd >= 0 && address_port(&listener->address) == port)
        port_share(listener->fd, share);
    LL_FOREACH(all->spares, spare)
    if (address_port(&spare->address) == port && listener_find(all, &spare->address) == NULL)
        port_share(spare->fd, share);
    if (all->other_leaving != NULL)
        port_share(*all->other_leaving, share);
}

/* Close the spares that made way: the kernel must not give them any more connections. */
static void listeners_drop_spares_behind(struct listeners *all, const struct sockaddr_storage *address)
{
    struct spare *spare = NULL;
    struct spare *next = NULL;
    LL_FOREACH_SAFE(all->spares, spare, next)
    if (spare->address.ss_family == address->ss_family && address_port(&spare->address) == address_port(address) &&
        listener_find(all, &spare->address) == NULL)
        spare_drop(&all->spares, spare);
}

int listeners_open_socket(struct listeners *all, const struct sockaddr_storage *address)
{
    int fd = port_listen(address, BACKLOG, false);
    if (fd >= 0 || errno != EADDRINUSE)
        return fd;
    listeners_share_port(all, address_port(address), true);
    fd = port_listen(address, BACKLOG, true);
    const int error = errno;
    listeners_share_port(all, address_port(address), false);
    if (fd >= 0) {
        port_share(fd, false);
        listeners_drop_spares_behind(all, address);
    }
    errno = error;
    return fd;
}

/* Get a listening socket and a handle to watch it. Returns NULL, or why it cannot. */
static const char *listener_take_socket(struct listener *listener)
{
    if (listener->door != NULL)
        return listener_open_door(listener);
    if (!listener_take_spare(listener))
        listener->fd = listeners_open_socket(listener->all, &listener->address);
    if (listener->fd < 0)
        return errno == EADDRINUSE ? "address in use" : strerror(errno);
    listener->poll = watch_open(listener->all->loop, listener->fd, listener);
    if (listener->poll != NULL)
        return NULL;
    listener_drop_socket(listener);
    return "no memory to watch it";
}

const char *listener_start(struct listener *listener)
{
    const char *why = listener_take_socket(listener);
    if (why == NULL)
        listener_begin(listener);
    return why;
}

void listener_mark(struct listener *listener, bool leaves)
{
    listener->leaves = leaves;
}

/* The listener for an address at which nobody listens now: one whose address was not available so far, a closed one
 * that has clients, or a new one. NULL: no memory. */
static struct listener *listener_of_old(struct listeners *all, const struct sockaddr_storage *address)
{
    static const struct client_limits no_limits;
    struct listener *listener = listener_find(all, address);
    if (listener == NULL)
        listener = listener_closed(all, address);
    if (listener != NULL)
        return listener;
    listener = listener_add(all, address, &no_limits, NULL, 0, LISTENER_CONFIG);
    if (listener != NULL)
        listener->state = LISTENER_CLOSED;
    return listener;
}

static void listener_cancel(struct listener *listener)
{
    listener_drop_socket(listener);
    listener->state = listener->before;
    if (listener->state == LISTENER_CLOSED && listener->clients == 0)
        listener_free(listener);
}

const char *listener_prepare_door(struct listener *listener, const struct access *access)
{
    if (listener->door == NULL || listener->door->fd < 0)
        return NULL;
    listener->change = calloc(1, sizeof(*listener->change));
    if (listener->change == NULL)
        return "no memory";
    const char *why =
        door_prepare(listener->change, listener->all->loop, listener->door, listener->door->path, &access->door);
    if (why == NULL)
        return NULL;
    free(listener->change);
    listener->change = NULL;
    return why;
}

void listener_commit_door(struct listener *listener)
{
    struct door *door = listener->door;
    if (listener->change == NULL)
        return;
    const bool moves = listener->change->moves;
    if (moves)
        store_end(door->fd, SPARE_UNIX, SPARE_UNIX_OF(door));
    door_commit(listener->change, door);
    if (moves)
        listener_keep_door(door);
    free(listener->change);
    listener->change = NULL;
}

const char *listener_prepare(struct listeners *all, const struct sockaddr_storage *address, const struct access *access)
{
    struct listener *listener = listener_of_old(all, address);
    if (listener == NULL)
        return "no memory";
    listener->before = listener->state;
    listener->state = LISTENER_PREPARED;
    const struct access *own = listener->access;
    listener->access = access;
    const char *why = listener_take_socket(listener);
    listener->access = own;
    if (why != NULL)
        listener_cancel(listener);
    return why;
}

void listeners_cancel(struct listeners *all)
{
    struct listener *listener = NULL;
    struct listener *next = NULL;
    DL_FOREACH_SAFE(all->first, listener, next)
    {
        listener->leaves = false;
        if (listener->change != NULL)
            door_cancel(listener->change, listener->door);
        free(listener->change);
        listener->change = NULL;
        if (listener->state == LISTENER_PREPARED)
            listener_cancel(listener);
    }
}

void listener_begin(struct listener *listener)
{
    if (listener->door != NULL) {
        if (!listener->door->inherited) /* else it is kept already */
            listener_keep_door(listener->door);
    } else if (listener->number == 0) {
        listener->number = ++listener->all->last_number;
        store_keep(listener->fd, SPARE_TCP, listener->number);
    }
    listener_watch(listener);
    if (listener->source == LISTENER_CONFIG)
        log_line(LEVEL_NOTICE, listener->subject, "listening: %s framing, at most %u clients, from the configuration",
                 framing_name(listener->limits.framing), listener->max_clients);
    else
        log_limited(&declared, LEVEL_NOTICE, listener->subject,
                    "listening: %s framing, at most %u clients, from the module",
                    framing_name(listener->limits.framing), listener->max_clients);
}

void listener_stop(struct listener *listener)
{
    const bool listens = listener->state == LISTENER_LISTENING || listener->state == LISTENER_PAUSED;
    if (listens && listener->source == LISTENER_CONFIG)
        log_line(LEVEL_NOTICE, listener->subject, "no longer listening");
    else if (listens)
        log_limited(&declared, LEVEL_NOTICE, listener->subject, "no longer listening");
    listener_drop_socket(listener);
    listener->state = LISTENER_CLOSED;
}

bool listener_enter(struct listener *listener, const struct network *origin)
{
    if (!origin_enter(&listener->origins, origin))
        return false;
    listener->clients++;
    return true;
}

void listener_leave(struct listener *listener, const struct network *origin)
{
    origin_leave(&listener->origins, origin);
    listener->clients--;
}

void listener_note_gone(struct listener *listener)
{
    listener->gone++;
}

void listener_release(struct listener *listener, const struct network *origin)
{
    listener->gone--;
    listener_leave(listener, origin);
}

static struct remote remote_of_client(const struct client *client)
{
    struct remote remote = { .port = client->port, .origin = client->origin };
    memcpy(remote.address, client->address, sizeof(remote.address));
    return remote;
}

void listener_turn_away(struct listener *listener, const struct client *client)
{
    const struct remote remote = remote_of_client(client);
    listener_note_refusal(listener, REFUSAL_ADMISSION, &remote);
}

/* Ask the kernel for the peer: the client itself only has its address as text. */
bool listener_denies(const struct listener *listener, const struct client *client)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);
    if (listener->state == LISTENER_CLOSED)
        return false;
    if (listener->door != NULL)
        return !door_admits(&listener->access->door, client->port);
    if (getpeername(client->stream.fd, (struct sockaddr *)&peer, &size) != 0)
        return false;
    const struct network host = network_of(&peer);
    return !access_admits(listener->access, &host);
}

void listener_revoke(struct listener *listener, const struct client *client)
{
    const struct remote remote = remote_of_client(client);
    listener_note_refusal(listener, REFUSAL_REVOKED, &remote);
}

uint64_t listeners_refused(const struct listeners *all)
{
    const struct listener *listener = NULL;
    uint64_t refused = all->refused_before;
    DL_FOREACH(all->first, listener)
    refused += listener_refused(listener);
    return refused;
}

bool listener_is_exposed(const struct listener *listener)
{
    const struct network host = network_of(&listener->address);
    return listener->door == NULL && network_is_public(&host) && listener->access->allow.count == 0;
}

static void listener_tick(struct listener *listener)
{
    if (listener->state == LISTENER_PAUSED || (listener->door != NULL && listener->state == LISTENER_LISTENING))
        listener_watch(listener);
    if (listener->state == LISTENER_IDLE)
        listener_start(listener);
    if (listener->state == LISTENER_CLOSED && listener->clients == 0)
        listener_free(listener);
}

void listeners_tick(struct listeners *all)
{
    struct listener *listener = NULL;
    struct listener *next = NULL;
    DL_FOREACH_SAFE(all->first, listener, next)
    listener_tick(listener);
}

void listeners_stop(struct listeners *all)
{
    struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    listener_stop(listener);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void listeners_inherit(struct listeners *all, struct descriptors *descriptors)
{
    const uint32_t last = spares_inherit(&all->spares, descriptors);
    if (last > all->last_number)
        all->last_number = last;
}

void listeners_expect(const struct listeners *all)
{
    const struct listener *listener = NULL;
    uint64_t clients = 0;
    unsigned sockets = 1; /* the metrics' socket */
    DL_FOREACH(all->first, listener)
    {
        if (listener->state == LISTENER_CLOSED)
            continue;
        clients += listener->max_clients;
        sockets++;
    }
    store_expect(clients, sockets);
}

void listeners_drop_spares(struct listeners *all)
{
    struct spare *spare = NULL;
    struct spare *next = NULL;
    LL_FOREACH_SAFE(all->spares, spare, next)
    if (!address_is_unix(&spare->address))
        spare_drop(&all->spares, spare);
}

void listeners_adopt(struct listeners *all)
{
    const struct listener *listener = NULL;
    struct spare *spare = NULL;
    struct spare *next = NULL;
    DL_FOREACH(all->first, listener)
    if (listener->door != NULL && listener->door->fd >= 0)
        door_adopt(listener->door);
    LL_FOREACH_SAFE(all->spares, spare, next)
    if (address_is_unix(&spare->address))
        spare_drop(&all->spares, spare);
}

void listeners_withdraw(struct listeners *all)
{
    const struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    if (listener->door != NULL && !listener->door->inherited)
        door_close(listener->door);
}

struct listener *listener_named(const struct listeners *all, const char *name)
{
    struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    if (strcmp(listener->name, name) == 0)
        return listener;
    return NULL;
}

bool listeners_list_sockets(const struct listeners *all, struct descriptors *descriptors)
{
    const struct listener *listener = NULL;
    bool held = true;
    DL_FOREACH(all->first, listener)
    {
        const struct door *door = listener->door;
        if (door != NULL && door->fd >= 0)
            held = held && descriptors_add(descriptors, door->fd, SPARE_UNIX, SPARE_UNIX_OF(door));
        else
            held =
                held && (listener->fd < 0 || descriptors_add(descriptors, listener->fd, SPARE_TCP, listener->number));
    }
    return held;
}

struct listener *listener_remember(struct listeners *all, const char *name, const struct client_limits *limits,
                                   const struct access *access)
{
    struct sockaddr_storage address;
    if (address_parse_any(name, &address) != NULL)
        return NULL;
    struct listener *listener = listener_add(all, &address, limits, access, 0, LISTENER_MODULE);
    if (listener != NULL)
        listener->state = LISTENER_CLOSED;
    return listener;
}

void listener_reopen(struct listener *listener, uint32_t max_clients)
{
    listener->max_clients = max_clients;
    listener->state = LISTENER_IDLE; /* tried again every second, if it fails now */
    const char *why = listener_start(listener);
    if (why != NULL)
        log_line(LEVEL_ERROR, listener->subject, "%s; trying again every second", why);
}

void listener_add_past(struct listener *listener, uint64_t accepted, const uint64_t refused[REFUSALS])
{
    listener->accepted += accepted;
    for (int refusal = 0; refusal < REFUSALS; refusal++)
        listener->refused[refusal] += refused[refusal];
}

void listeners_add_refused(struct listeners *all, uint64_t refused)
{
    all->refused_before += refused;
}
