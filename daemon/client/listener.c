/* TCP listening sockets. */
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
#include "base/state.h"
#include "base/store.h"
#include "base/watch.h"
#include "net/port.h"
#include "net/acceptor.h"

#define BACKLOG 511
#define ACCEPT_BATCH 64 /* connections accepted in one loop turn: connected clients come first */

static const char socket_name[] = "listener-"; /* followed by its number, in the descriptors and the store */

/* One for each reason, so that a flood of one kind does not hide the others. */
static struct log_limit refusals[REFUSALS] = {
    [REFUSAL_FULL] = { .kind = "listeners: clients refused, max_clients" },
    [REFUSAL_DENIED] = { .kind = "listeners: clients refused, not allowed" },
    [REFUSAL_ADDRESS] = { .kind = "listeners: clients refused, max_clients_per_address" },
    [REFUSAL_RATE] = { .kind = "listeners: clients refused, max_connects_per_second" },
    [REFUSAL_MEMORY] = { .kind = "listeners: clients refused, no memory" },
    [REFUSAL_ADMISSION] = { .kind = "listeners: clients not admitted in time" },
    [REFUSAL_REVOKED] = { .kind = "listeners: clients closed, not allowed any more" },
};
static struct log_limit failures = { .kind = "listeners: failed accepts" };
static struct log_limit declared = { .kind = "listeners: begun and ended by the module" };

const char *listener_state_name(enum listener_state state)
{
    static const char *const names[] = { "failed", "prepared", "listening", "paused", "closed" };
    return names[state];
}

const char *listener_name(const struct listener *listener)
{
    return listener->name;
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
    if (listener == NULL)
        return NULL;
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
    free(listener);
}

/* Why this peer cannot connect now. Peers that are not allowed at all don't use up the others' limits. Only a
 * connection that passes all other checks counts for the rate. */
static enum refusal listener_objection(struct listener *listener, const struct sockaddr_storage *peer)
{
    const struct access *access = listener->access;
    const struct network host = network_of(peer);
    const struct network origin = origin_of(peer);
    if (!access_admits(access, &host))
        return REFUSAL_DENIED;
    if (listener->clients >= listener->max_clients)
        return REFUSAL_FULL;
    if (access->max_clients_per_address > 0 &&
        origin_clients(listener->origins, &origin) >= access->max_clients_per_address)
        return REFUSAL_ADDRESS;
    if (access->max_connects_per_second > 0 &&
        !bucket_take(&listener->bucket, access->max_connects_per_second, uv_now(listener->all->loop)))
        return REFUSAL_RATE;
    return REFUSAL_NONE;
}

static void listener_log_refusal(const struct listener *listener, enum refusal refusal,
                                 const struct sockaddr_storage *peer)
{
    struct log_limit *limit = &refusals[refusal];
    const struct access *access = listener->access;
    const uint16_t port = address_port(peer);
    char host[EVAPID_ADDRESS_MAX];
    address_host(peer, host);
    if (refusal == REFUSAL_DENIED)
        log_limited(limit, LEVEL_WARNING, listener->subject, "refused %s port %u: its address is %s (access)", host,
                    port, access->allow.count > 0 ? "not allowed" : "denied");
    else if (refusal == REFUSAL_FULL)
        log_limited(
            limit, LEVEL_WARNING, listener->subject,
            "refused %s port %u: %u places are taken (max_clients), %u of them by clients that have gone and whose "
            "routes have not ended",
            host, port, listener->clients, listener->gone);
    else if (refusal == REFUSAL_ADDRESS)
        log_limited(limit, LEVEL_WARNING, listener->subject,
                    "refused %s port %u: its address has %u places already (max_clients_per_address)", host, port,
                    access->max_clients_per_address);
    else if (refusal == REFUSAL_RATE)
        log_limited(limit, LEVEL_WARNING, listener->subject,
                    "refused %s port %u: more than %u connect in a second (max_connects_per_second)", host, port,
                    access->max_connects_per_second);
    else
        log_limited(limit, LEVEL_ERROR, listener->subject, "refused %s port %u: no memory for another client", host,
                    port);
}

/* Close it immediately, so that the application sees a refusal instead of silence. */
static void listener_refuse(struct listener *listener, int fd, const struct sockaddr_storage *peer,
                            enum refusal refusal)
{
    close(fd);
    listener->refused[refusal]++;
    listener_log_refusal(listener, refusal, peer);
}

static void listener_admit(struct listener *listener, int fd, const struct sockaddr_storage *peer)
{
    const struct network origin = origin_of(peer);
    const enum refusal refusal = listener_objection(listener, peer);
    if (refusal != REFUSAL_NONE || !listener_enter(listener, &origin)) {
        listener_refuse(listener, fd, peer, refusal != REFUSAL_NONE ? refusal : REFUSAL_MEMORY);
        return;
    }
    const struct listener_host *host = &listener->all->host;
    if (host->connected(host->owner, listener, fd, peer)) {
        listener->accepted++;
        return;
    }
    listener_leave(listener, &origin); /* the host has closed the socket */
    listener->refused[REFUSAL_MEMORY]++;
    listener_log_refusal(listener, REFUSAL_MEMORY, peer);
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
    listener_note_accept(listener);
    listener_admit(listener, fd, peer);
    return listener->state == LISTENER_LISTENING;
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
    const bool watched = watch_start(listener->poll, UV_READABLE, listener_on_poll) == 0;
    listener->state = watched ? LISTENER_LISTENING : LISTENER_PAUSED;
}

static void listener_drop_socket(struct listener *listener)
{
    watch_close(listener->poll);
    listener->poll = NULL;
    if (listener->number != 0)
        store_end(listener->fd, "%s%u", socket_name, listener->number);
    listener->number = 0;
    if (listener->fd >= 0)
        close(listener->fd);
    listener->fd = -1;
}

/* Use the socket that the evapid before us left at this address, if any. */
static bool listener_take_spare(struct listener *listener)
{
    struct spare_socket *spare = NULL;
    LL_FOREACH(listener->all->spares, spare)
    if (address_equal(&spare->address, &listener->address)) {
        listener->fd = spare->fd;
        listener->number = spare->number;
        LL_DELETE(listener->all->spares, spare);
        free(spare);
        return true;
    }
    return false;
}

/* Leaving listeners, and spares that no listener has used, let another socket have the same port, at the same address
 * or an overlapping one; or no longer. */
static void listeners_share_port(const struct listeners *all, uint16_t port, bool share)
{
    const struct listener *listener = NULL;
    const struct spare_socket *spare = NULL;
    DL_FOREACH(all->first, listener)
    if (listener->leaves && listener->fd >= 0 && address_port(&listener->address) == port)
        port_share(listener->fd, share);
    LL_FOREACH(all->spares, spare)
    if (address_port(&spare->address) == port && listener_find(all, &spare->address) == NULL)
        port_share(spare->fd, share);
    if (all->other_leaving != NULL)
        port_share(*all->other_leaving, share);
}

static void listeners_drop_spare(struct listeners *all, struct spare_socket *spare)
{
    store_end(spare->fd, "%s%u", socket_name, spare->number);
    close(spare->fd);
    LL_DELETE(all->spares, spare);
    free(spare);
}

/* Close the spares that made way: the kernel must not give them any more connections. */
static void listeners_drop_spares_behind(struct listeners *all, const struct sockaddr_storage *address)
{
    struct spare_socket *spare = NULL;
    struct spare_socket *next = NULL;
    LL_FOREACH_SAFE(all->spares, spare, next)
    if (spare->address.ss_family == address->ss_family && address_port(&spare->address) == address_port(address) &&
        listener_find(all, &spare->address) == NULL)
        listeners_drop_spare(all, spare);
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

const char *listener_prepare(struct listeners *all, const struct sockaddr_storage *address)
{
    struct listener *listener = listener_of_old(all, address);
    if (listener == NULL)
        return "no memory";
    listener->before = listener->state;
    listener->state = LISTENER_PREPARED;
    const char *why = listener_take_socket(listener);
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
        if (listener->state == LISTENER_PREPARED)
            listener_cancel(listener);
    }
}

void listener_begin(struct listener *listener)
{
    if (listener->number == 0) {
        listener->number = ++listener->all->last_number;
        store_keep(listener->fd, "%s%u", socket_name, listener->number);
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

void listener_turn_away(struct listener *listener, const struct client *client)
{
    listener->refused[REFUSAL_ADMISSION]++;
    log_limited(&refusals[REFUSAL_ADMISSION], LEVEL_WARNING, listener->subject,
                "closing %s port %u: connection-new has not let it in within %u ms (admission_timeout_ms)",
                client->address, client->port, listener->limits.admission_timeout_ms);
}

/* Ask the kernel for the peer: the client itself only has its address as text. */
bool listener_denies(const struct listener *listener, const struct client *client)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);
    if (listener->state == LISTENER_CLOSED || getpeername(client->stream.fd, (struct sockaddr *)&peer, &size) != 0)
        return false;
    const struct network host = network_of(&peer);
    return !access_admits(listener->access, &host);
}

void listener_revoke(struct listener *listener, const struct client *client)
{
    listener->refused[REFUSAL_REVOKED]++;
    log_limited(&refusals[REFUSAL_REVOKED], LEVEL_WARNING, listener->subject,
                "closing %s port %u: its address is %s by now (access)", client->address, client->port,
                listener->access->allow.count > 0 ? "not allowed" : "denied");
}

uint64_t listener_refused(const struct listener *listener)
{
    uint64_t refused = 0;
    for (int refusal = 0; refusal < REFUSALS; refusal++)
        refused += listener->refused[refusal];
    return refused;
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
    return network_is_public(&host) && listener->access->allow.count == 0;
}

static void listener_tick(struct listener *listener)
{
    if (listener->state == LISTENER_PAUSED)
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

static void listeners_keep_spare(struct listeners *all, int fd, uint32_t number)
{
    struct spare_socket *spare = calloc(1, sizeof(*spare));
    socklen_t size = sizeof(spare->address);
    if (spare == NULL || getsockname(fd, (struct sockaddr *)&spare->address, &size) != 0) {
        free(spare);
        close(fd);
        return;
    }
    spare->fd = fd;
    spare->number = number;
    LL_PREPEND(all->spares, spare);
    if (number > all->last_number)
        all->last_number = number;
}

void listeners_inherit(struct listeners *all, struct descriptors *descriptors)
{
    struct descriptor *descriptor = NULL;
    struct descriptor *next = NULL;
    HASH_ITER(hh, descriptors->all, descriptor, next)
    {
        if (strncmp(descriptor->name, socket_name, sizeof(socket_name) - 1) != 0)
            continue;
        const uint32_t number = (uint32_t)strtoul(descriptor->name + sizeof(socket_name) - 1, NULL, 10);
        listeners_keep_spare(all, descriptors_remove(descriptors, "%s%u", socket_name, number), number);
    }
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
    struct spare_socket *spare = NULL;
    struct spare_socket *next = NULL;
    LL_FOREACH_SAFE(all->spares, spare, next)
    listeners_drop_spare(all, spare);
}

struct listener *listener_named(const struct listeners *all, const char *name)
{
    struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    if (strcmp(listener->name, name) == 0)
        return listener;
    return NULL;
}

struct listener *listener_remember(struct listeners *all, const char *name, const struct client_limits *limits,
                                   const struct access *access)
{
    struct sockaddr_storage address;
    if (address_parse(name, &address) != NULL)
        return NULL;
    struct listener *listener = listener_add(all, &address, limits, access, 0, LISTENER_MODULE);
    if (listener != NULL)
        listener->state = LISTENER_CLOSED;
    return listener;
}

void listeners_save(const struct listeners *all, struct state_out *out)
{
    const struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    {
        state_put_record(out, "listener");
        state_put_text(out, "name", listener->name);
        state_put(out, "source", (uint64_t)listener->source);
        state_put(out, "closed", listener->state == LISTENER_CLOSED);
        state_put(out, "framing", (uint64_t)listener->limits.framing);
        state_put(out, "max-clients", listener->max_clients);
        state_put(out, "accepted", listener->accepted);
        state_put_record(out, "refused");
        for (int refusal = 0; refusal < REFUSALS; refusal++)
            state_put(out, refusal_name((enum refusal)refusal), listener->refused[refusal]);
        state_put_end(out);
        state_put_end(out);
    }
    state_put(out, "refused-before", all->refused_before);
}

/* A listener that is not in the configuration: the module's is reopened; any other only stands for its clients. */
static struct listener *listener_load(struct listeners *all, const char *name, const struct client_limits *limits,
                                      const struct access *access, uint32_t max_clients, bool goes_on)
{
    struct listener *listener = listener_remember(all, name, limits, access);
    if (listener == NULL || !goes_on)
        return listener;
    listener->max_clients = max_clients;
    listener->state = LISTENER_IDLE; /* tried again every second, if it fails now */
    const char *why = listener_start(listener);
    if (why != NULL)
        log_line(LEVEL_ERROR, listener->subject, "%s; trying again every second", why);
    return listener;
}

bool listeners_load(struct listeners *all, struct state_in *in, const struct client_limits *limits,
                    const struct access *access, bool module_may, struct listener **module)
{
    while (state_get_next(in, "listener")) {
        char name[ADDRESS_TEXT];
        wire_text_copy(name, sizeof(name), state_get_bytes(in, "name"));
        const bool of_module = state_get(in, "source", LISTENER_CONFIG) == LISTENER_MODULE;
        const bool goes_on = state_get(in, "closed", 0) == 0 && of_module && module_may;
        struct client_limits theirs = *limits;
        theirs.framing = state_get(in, "framing", theirs.framing) == FRAMING_RAW ? FRAMING_RAW : FRAMING_NETSTRING;
        const uint32_t max_clients = (uint32_t)state_get(in, "max-clients", 1);
        struct listener *listener = listener_named(all, name);
        if (listener == NULL) {
            listener = listener_load(all, name, &theirs, access, max_clients, goes_on);
            if (listener == NULL)
                return state_fail(in);
            listener->source = of_module ? LISTENER_MODULE : LISTENER_CONFIG;
            if (goes_on)
                *module = listener;
        }
        listener->accepted += state_get(in, "accepted", 0);
        state_get_record(in, "refused");
        for (int refusal = 0; refusal < REFUSALS; refusal++)
            listener->refused[refusal] += state_get(in, refusal_name((enum refusal)refusal), 0);
        state_get_end(in);
        state_get_end(in);
    }
    all->refused_before += state_get(in, "refused-before", 0);
    return !in->at.failed;
}

bool listeners_list_sockets(const struct listeners *all, struct descriptors *descriptors)
{
    const struct listener *listener = NULL;
    bool held = true;
    DL_FOREACH(all->first, listener)
    held =
        held && (listener->fd < 0 || descriptors_add(descriptors, listener->fd, "%s%u", socket_name, listener->number));
    return held;
}
