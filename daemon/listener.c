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
#include "log.h"
#include "watch.h"

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
    listener->fd = -1;
    address_print(address, listener->name);
    snprintf(listener->subject, sizeof(listener->subject), "listener %s", listener->name);
    DL_APPEND(all->first, listener);
    return listener;
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
    if (!listener->exhausted)
        log_limited(&failures, LEVEL_ERROR, listener->subject, "cannot accept clients: %s; trying again every second",
                    strerror(error));
    listener->exhausted = true;
    listener->state = LISTENER_PAUSED;
    uv_poll_stop(&listener->poll);
}

static void listener_note_accept(struct listener *listener)
{
    if (listener->exhausted)
        log_limited(&failures, LEVEL_NOTICE, listener->subject, "accepts clients again");
    listener->exhausted = false;
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
            listener_note_accept(listener);
            listener_take(listener, fd, &peer);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            listener_pause(listener, errno);
        if (errno != ECONNABORTED && errno != EINTR)
            return;
    }
}

/* Take clients, or wait for the next tick when the kernel has no room to watch for them. */
static void listener_watch(struct listener *listener)
{
    const bool watched = watch_start(&listener->poll, UV_READABLE, listener_on_poll) == 0;
    listener->state = watched ? LISTENER_LISTENING : LISTENER_PAUSED;
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

const char *listener_start(struct listener *listener)
{
    listener->fd = open_socket(&listener->address);
    if (listener->fd < 0)
        return errno == EADDRINUSE ? "address in use" : strerror(errno);
    const bool room = watch_has_room(listener->bus->loop, listener->fd);
    const int error = room ? uv_poll_init(listener->bus->loop, &listener->poll, listener->fd) : UV_ENOMEM;
    if (error != 0) {
        close(listener->fd);
        listener->fd = -1;
        return uv_strerror(error);
    }
    listener->poll.data = listener;
    listener_watch(listener);
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
        close(listener->fd);
        listener->fd = -1;
    }
    listener->state = LISTENER_CLOSED;
}

void listener_leave(struct listener *listener)
{
    listener->clients--;
}

static void listener_tick(struct listeners *all, struct listener *listener)
{
    if (listener->state == LISTENER_PAUSED) {
        listener_watch(listener);
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
