/* TCP listening sockets. */
#include "listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "bus.h"
#include "holding.h"
#include "log.h"
#include "state.h"
#include "store.h"

#define BACKLOG 511
#define ACCEPT_BATCH 64 /* connections taken in one loop turn: the clients that are there come first */

static struct log_limit refusals = { .kind = "listeners: clients refused" };
static struct log_limit failures = { .kind = "listeners: failed accepts" };

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
                              const struct client_limits *limits, uint32_t max_clients, enum listener_source source)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL)
        return NULL;
    listener->address = *address;
    listener->limits = *limits;
    listener->max_clients = max_clients;
    listener->source = source;
    listener->bus = all->bus;
    listener->all = all;
    listener->fd = -1;
    address_print(address, listener->name);
    snprintf(listener->subject, sizeof(listener->subject), "listener %s", listener->name);
    DL_APPEND(all->first, listener);
    return listener;
}

struct listener *listener_revive(struct listeners *all, const struct sockaddr_storage *address,
                                 const struct client_limits *limits, uint32_t max_clients)
{
    struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    if (listener->state == LISTENER_CLOSED && !listener->poll_closing && address_equal(&listener->address, address)) {
        listener->source = LISTENER_MODULE;
        listener->limits = *limits;
        listener->max_clients = max_clients;
        listener->state = LISTENER_IDLE;
        return listener;
    }
    return NULL;
}

/* A connection beyond the limit is closed at once, so that the application sees a refusal and not silence. */
static void listener_take(struct listener *listener, int fd, const struct sockaddr_storage *peer)
{
    if (listener->clients >= listener->max_clients) {
        char host[EVAPID_ADDRESS_MAX];
        address_host(peer, host);
        listener->refused++;
        close(fd);
        log_limited(&refusals, LEVEL_WARNING, listener->subject,
                    "refused %s port %u: %u clients are connected (max_clients)", host, address_port(peer),
                    listener->clients);
        return;
    }
    listener->clients++;
    if (bus_connect(listener->bus, fd, peer, &listener->limits, listener)) {
        listener->accepted++;
        return;
    }
    listener->clients--;
    listener->refused++;
    log_limited(&failures, LEVEL_ERROR, listener->subject, "no memory for another client");
}

/* Out of descriptors or memory: a level-triggered poll would spin, so wait for the next tick. */
static void listener_pause(struct listener *listener, int error)
{
    log_limited(&failures, LEVEL_ERROR, listener->subject, "cannot accept a client: %s; trying again in a second",
                strerror(error));
    listener->state = LISTENER_PAUSED;
    uv_poll_stop(&listener->poll);
}

static void listener_on_poll(uv_poll_t *poll, int status, int events)
{
    struct listener *listener = poll->data;
    (void)status;
    (void)events;
    for (int i = 0; i < ACCEPT_BATCH && listener->state == LISTENER_LISTENING; i++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof(peer);
        const int fd = accept4(listener->fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            listener_take(listener, fd, &peer);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            listener_pause(listener, errno);
        if (errno != ECONNABORTED && errno != EINTR)
            return;
    }
}

static int open_socket(const struct sockaddr_storage *address)
{
    const int on = 1;
    const int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address->ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (bind(fd, (const struct sockaddr *)address, address_size(address)) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* The socket of the evapid before us at that address, if it has left one. */
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

/* NULL, or why there is no listening socket. */
static const char *listener_take_socket(struct listener *listener)
{
    if (listener_take_spare(listener))
        return NULL;
    listener->fd = open_socket(&listener->address);
    if (listener->fd < 0)
        return errno == EADDRINUSE ? "address in use" : strerror(errno);
    listener->number = ++listener->all->last_number;
    store_keep(listener->fd, "listener-%u", listener->number);
    return NULL;
}

const char *listener_start(struct listener *listener)
{
    const char *why = listener_take_socket(listener);
    if (why != NULL)
        return why;
    const int error = uv_poll_init(listener->bus->loop, &listener->poll, listener->fd);
    if (error != 0) {
        close(listener->fd);
        listener->fd = -1;
        return uv_strerror(error);
    }
    listener->poll.data = listener;
    listener->state = LISTENER_LISTENING;
    uv_poll_start(&listener->poll, UV_READABLE, listener_on_poll);
    log_line(LEVEL_NOTICE, listener->subject, "listening: %s framing, at most %u clients, from %s",
             framing_name(listener->limits.framing), listener->max_clients,
             listener->source == LISTENER_CONFIG ? "the configuration" : "the module");
    return NULL;
}

static void listener_on_poll_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    listener->poll_closing = false;
}

void listener_stop(struct listener *listener)
{
    if (listener->fd >= 0) {
        log_line(LEVEL_NOTICE, listener->subject, "no longer listening");
        listener->poll_closing = true;
        uv_close((uv_handle_t *)&listener->poll, listener_on_poll_closed);
        store_forget("listener-%u", listener->number);
        close(listener->fd);
        listener->fd = -1;
    }
    listener->state = LISTENER_CLOSED;
}

void listener_enter(struct listener *listener)
{
    listener->clients++;
}

void listener_leave(struct listener *listener)
{
    listener->clients--;
}

static void listener_tick(struct listeners *all, struct listener *listener)
{
    if (listener->state == LISTENER_PAUSED) {
        listener->state = LISTENER_LISTENING;
        uv_poll_start(&listener->poll, UV_READABLE, listener_on_poll);
    }
    if (listener->state == LISTENER_IDLE)
        listener_start(listener);
    if (listener->state == LISTENER_CLOSED && listener->clients == 0 && !listener->poll_closing) {
        DL_DELETE(all->first, listener);
        free(listener);
    }
}

void listeners_tick(struct listeners *all)
{
    struct listener *listener = NULL;
    struct listener *next = NULL;
    DL_FOREACH_SAFE(all->first, listener, next)
    listener_tick(all, listener);
}

void listeners_stop(struct listeners *all)
{
    struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    listener_stop(listener);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

static const char socket_name[] = "listener-";

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

void listeners_inherit(struct listeners *all, struct holdings *holdings)
{
    struct holding *holding = NULL;
    struct holding *next = NULL;
    HASH_ITER(hh, holdings->all, holding, next)
    {
        if (strncmp(holding->name, socket_name, sizeof(socket_name) - 1) != 0)
            continue;
        const uint32_t number = (uint32_t)strtoul(holding->name + sizeof(socket_name) - 1, NULL, 10);
        listeners_keep_spare(all, holdings_take(holdings, "%s%u", socket_name, number), number);
    }
}

void listeners_drop_spares(struct listeners *all)
{
    struct spare_socket *spare = NULL;
    struct spare_socket *next = NULL;
    LL_FOREACH_SAFE(all->spares, spare, next)
    {
        store_forget("listener-%u", spare->number);
        close(spare->fd);
        LL_DELETE(all->spares, spare);
        free(spare);
    }
}

struct listener *listener_named(const struct listeners *all, const char *name)
{
    struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    if (strcmp(listener->name, name) == 0)
        return listener;
    return NULL;
}

struct listener *listener_remember(struct listeners *all, const char *name, const struct client_limits *limits)
{
    struct sockaddr_storage address;
    if (address_parse(name, &address) != NULL)
        return NULL;
    struct listener *listener = listener_add(all, &address, limits, 0, LISTENER_MODULE);
    if (listener != NULL)
        listener->state = LISTENER_CLOSED;
    return listener;
}

void listeners_save(const struct listeners *all, struct state_out *out)
{
    const struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    {
        state_put_bytes(out, listener->name, strlen(listener->name));
        state_put(out, (uint64_t)listener->source, 1);
        state_put(out, listener->state == LISTENER_CLOSED, 1);
        state_put(out, (uint64_t)listener->limits.framing, 1);
        state_put(out, listener->max_clients, 4);
        state_put(out, listener->accepted, 8);
        state_put(out, listener->refused, 8);
    }
    state_put_bytes(out, "", 0);
}

/* One that the configuration doesn't have: the module's goes on, of any other only its clients do. */
static struct listener *listener_load(struct listeners *all, const char *name, const struct client_limits *limits,
                                      uint32_t max_clients, bool goes_on)
{
    struct listener *listener = listener_remember(all, name, limits);
    if (listener == NULL || !goes_on)
        return listener;
    listener->max_clients = max_clients;
    listener->state = LISTENER_IDLE; /* tried again every second, should it fail now */
    const char *why = listener_start(listener);
    if (why != NULL)
        log_line(LEVEL_ERROR, listener->subject, "%s; trying again every second", why);
    return listener;
}

bool listeners_load(struct listeners *all, struct state_in *in, const struct client_limits *limits, bool module_may,
                    struct listener **module)
{
    for (struct wire_text text; (text = state_take_bytes(in)).length > 0;) {
        char name[ADDRESS_TEXT];
        snprintf(name, sizeof(name), "%.*s", (int)text.length, text.bytes);
        const bool of_module = state_take(in, 1) == LISTENER_MODULE;
        const bool goes_on = state_take(in, 1) == 0 && of_module && module_may;
        struct client_limits theirs = *limits;
        theirs.framing = state_take(in, 1) == FRAMING_RAW ? FRAMING_RAW : FRAMING_NETSTRING;
        const uint32_t max_clients = (uint32_t)state_take(in, 4);
        struct listener *listener = listener_named(all, name);
        if (listener == NULL) {
            listener = listener_load(all, name, &theirs, max_clients, goes_on);
            if (listener == NULL)
                return state_fail(in);
            listener->source = of_module ? LISTENER_MODULE : LISTENER_CONFIG;
            if (goes_on)
                *module = listener;
        }
        listener->accepted += state_take(in, 8);
        listener->refused += state_take(in, 8);
    }
    return !in->at.failed;
}

bool listeners_hold(const struct listeners *all, struct holdings *holdings)
{
    const struct listener *listener = NULL;
    bool held = true;
    DL_FOREACH(all->first, listener)
    held = held && (listener->fd < 0 || holdings_add(holdings, listener->fd, "%s%u", socket_name, listener->number));
    return held;
}
