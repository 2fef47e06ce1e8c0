/* Connections of the HTTP endpoint. */
#include "web/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/descriptors.h"
#include "base/log.h"
#include "base/store.h"
#include "base/watch.h"
#include "net/acceptor.h"
#include "net/network.h"
#include "web/pages.h"

#define ACCEPT_BATCH 16 /* connections accepted in one turn of the loop */
#define DRAIN_MS 20     /* the longest wait for open connections before another evapid takes over */

static const char socket_name[] = "metrics";

static struct log_limit failures = { .kind = "http: failed accepts" };

/* One connection; libmicrohttpd owns its socket. */
struct visit {
    int fd;
    bool begun;        /* libmicrohttpd has reported its start, and will report its end */
    uint64_t began_ms; /* loop time */
    struct visit *prev, *next;
};

struct http {
    uv_loop_t *loop;
    struct sockaddr_storage address;
    char subject[HTTP_SUBJECT];
    struct pages pages;
    struct MHD_Daemon *daemon;
    int fd; /* the listening socket */
    uv_poll_t door, work;
    uv_timer_t again; /* libmicrohttpd has more work that no descriptor shows */
    unsigned open_handles;
    bool paused;          /* no descriptor for another connection: tries again in a second */
    bool unwatched;       /* the kernel had no room to watch libmicrohttpd's descriptor */
    struct visit *visits; /* list, the oldest first */
    unsigned count;
};

static void http_work(struct http *http);

static enum MHD_Result http_on_request(void *owner, struct MHD_Connection *connection, const char *url,
                                       const char *method, const char *version, const char *upload, size_t *upload_size,
                                       void **request)
{
    struct http *http = owner;
    (void)version;
    (void)upload;
    (void)upload_size;
    (void)request;
    return pages_answer(&http->pages, connection, url, method);
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static struct visit *visit_of(const struct http *http, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct visit *visit = NULL;
    DL_FOREACH(http->visits, visit)
    if (info != NULL && visit->fd == info->connect_fd)
        return visit;
    return NULL;
}

static void http_drop(struct http *http, struct visit *visit)
{
    DL_DELETE(http->visits, visit);
    http->count--;
    free(visit);
}

/* libmicrohttpd has begun with a connection, or is about to close it. */
static void http_on_connection(void *owner, struct MHD_Connection *connection, void **context,
                               enum MHD_ConnectionNotificationCode what)
{
    struct http *http = owner;
    struct visit *visit = what == MHD_CONNECTION_NOTIFY_STARTED ? visit_of(http, connection) : *context;
    *context = NULL;
    if (visit == NULL)
        return;
    if (what != MHD_CONNECTION_NOTIFY_STARTED) {
        http_drop(http, visit);
        return;
    }
    visit->begun = true;
    *context = visit;
}

/* Its time is over: libmicrohttpd sees the end of the connection, and closes it. */
static void visit_end(const struct visit *visit)
{
    shutdown(visit->fd, SHUT_RDWR);
}

/* Give a new connection to libmicrohttpd. */
static bool http_take(void *owner, int fd, const struct sockaddr_storage *peer)
{
    struct http *http = owner;
    if (http->count >= HTTP_CONNECTIONS) {
        visit_end(http->visits);
        http_work(http);
    }
    struct visit *visit = http->count < HTTP_CONNECTIONS ? calloc(1, sizeof(*visit)) : NULL;
    if (visit == NULL) {
        close(fd);
        return true;
    }
    visit->fd = fd;
    visit->began_ms = uv_now(http->loop);
    DL_APPEND(http->visits, visit);
    http->count++;
    MHD_add_connection(http->daemon, fd, (const struct sockaddr *)peer, address_size(peer));
    return true;
}

/* Out of descriptors: the socket would stay readable, so wait for the next tick. */
static void http_pause(struct http *http, int error)
{
    log_limited(&failures, LEVEL_ERROR, http->subject, "cannot accept connections: %s; trying again every second",
                strerror(error));
    http->paused = true;
    uv_poll_stop(&http->door);
}

static void http_accept(struct http *http)
{
    const int error = http->paused ? 0 : acceptor_run(http->fd, ACCEPT_BATCH, http_take, http);
    if (error != 0)
        http_pause(http, error);
}

/* ---- the loop --------------------------------------------------------------------------------------------------- */

static void http_on_again(uv_timer_t *timer)
{
    http_work(timer->data);
}

/* Forget connections that libmicrohttpd has not begun with: it had no memory for them and has closed them. */
static void http_drop_unbegun(struct http *http)
{
    struct visit *visit = NULL;
    struct visit *next = NULL;
    DL_FOREACH_SAFE(http->visits, visit, next)
    if (!visit->begun)
        http_drop(http, visit);
}

/* Let libmicrohttpd do its waiting work. */
static void http_work(struct http *http)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
    MHD_run(http->daemon);
    http_drop_unbegun(http);
    if (MHD_get_timeout(http->daemon, &timeout_ms) == MHD_YES)
        uv_timer_start(&http->again, http_on_again, timeout_ms, 0);
    else
        uv_timer_stop(&http->again);
}

static void http_on_work(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    http_work(poll->data);
}

static void http_on_door(uv_poll_t *poll, int status, int events)
{
    struct http *http = poll->data;
    (void)status;
    (void)events;
    http_accept(http);
    http_work(http);
}

static void http_watch_door(struct http *http)
{
    http->paused = watch_start(&http->door, UV_READABLE, http_on_door) != 0;
}

static void http_watch_work(struct http *http)
{
    http->unwatched = watch_start(&http->work, UV_READABLE, http_on_work) != 0;
}

void http_tick(struct http *http)
{
    struct visit *visit = NULL;
    if (http == NULL)
        return;
    console_tick(&http->pages.console);
    DL_FOREACH(http->visits, visit)
    if (uv_now(http->loop) - visit->began_ms >= HTTP_LIFETIME_MS)
        visit_end(visit);
    if (http->paused)
        http_watch_door(http);
    if (http->unwatched)
        http_watch_work(http);
    http_work(http);
}

void http_drain(struct http *http)
{
    if (http == NULL)
        return;
    const uint64_t until_ns = uv_hrtime() + DRAIN_MS * 1000000U;
    http_work(http);
    while (http->count > 0 && uv_hrtime() < until_ns) {
        const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
        struct pollfd work = { .fd = info->epoll_fd, .events = POLLIN };
        poll(&work, 1, 1);
        http_work(http);
    }
}

void http_subject(const struct sockaddr_storage *address, char out[HTTP_SUBJECT])
{
    char name[ADDRESS_TEXT];
    address_print(address, name);
    snprintf(out, HTTP_SUBJECT, "http %s", name);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

bool http_is_at(int fd, const struct sockaddr_storage *address)
{
    struct sockaddr_storage bound;
    socklen_t size = sizeof(bound);
    return getsockname(fd, (struct sockaddr *)&bound, &size) == 0 && address_equal(&bound, address);
}

/* Returns NULL, or why there is no listening socket. inherited: a socket that is already open, or -1. */
static const char *http_take_socket(struct http *http, int inherited)
{
    http->fd =
        inherited >= 0 ? inherited : listeners_open_socket(http->pages.console.subject->listeners, &http->address);
    if (http->fd < 0)
        return errno == EADDRINUSE ? "address in use" : strerror(errno);
    return NULL;
}

static const char *http_start_daemon(struct http *http)
{
    const unsigned flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET;
    http->daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, http_on_request, http, MHD_OPTION_CONNECTION_LIMIT,
                         HTTP_CONNECTIONS + 1U, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_BYTES,
                         MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, http, MHD_OPTION_END);
    return http->daemon != NULL ? NULL : "libmicrohttpd can't be started";
}

static void http_on_closed(uv_handle_t *handle)
{
    struct http *http = handle->data;
    if (--http->open_handles == 0)
        free(http);
}

/* Watch the descriptor. False: there is no room for that. */
static bool http_begin_poll(struct http *http, uv_poll_t *poll, int fd)
{
    if (!watch_has_room(http->loop, fd) || uv_poll_init(http->loop, poll, fd) != 0)
        return false;
    poll->data = http;
    http->open_handles++;
    return true;
}

static const char *http_begin(struct http *http)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    uv_timer_init(http->loop, &http->again);
    http->again.data = http;
    http->open_handles = 1;
    if (info == NULL || !http_begin_poll(http, &http->door, http->fd) ||
        !http_begin_poll(http, &http->work, info->epoll_fd))
        return "no memory";
    http_watch_door(http);
    http_watch_work(http);
    return NULL;
}

/* Free all that exists of it. The socket is closed here, but the service manager keeps its copy, as with an inherited
 * one. */
static void http_free(struct http *http)
{
    const unsigned handles = http->open_handles;
    if (handles > 1)
        uv_close((uv_handle_t *)&http->door, http_on_closed);
    if (handles > 2)
        uv_close((uv_handle_t *)&http->work, http_on_closed);
    if (handles > 0)
        uv_close((uv_handle_t *)&http->again, http_on_closed);
    console_end(&http->pages.console);
    if (http->daemon != NULL)
        MHD_stop_daemon(http->daemon);
    if (http->fd >= 0)
        close(http->fd);
    if (handles == 0)
        free(http);
}

static struct http *http_make(uv_loop_t *loop, const struct sockaddr_storage *address, int inherited,
                              const struct config_http *config, const struct status_subject *subject, const char **why)
{
    struct http *http = calloc(1, sizeof(*http));
    if (http == NULL) {
        *why = "no memory";
        return NULL;
    }
    const struct network host = network_of(address);
    http->loop = loop;
    http->address = *address;
    http->pages = (struct pages){ .config = config, .console.subject = subject };
    http_subject(address, http->subject);
    *why = http_take_socket(http, inherited);
    if (*why == NULL)
        *why = http_start_daemon(http);
    if (*why == NULL)
        *why = http_begin(http);
    if (*why != NULL) {
        http_free(http);
        return NULL;
    }
    log_line(LEVEL_NOTICE, http->subject, "listening: /metrics for Prometheus, /healthz and /readyz");
    if (network_is_public(&host))
        log_line(LEVEL_WARNING, http->subject,
                 "reachable from public networks: whoever can reach it learns how much passes here");
    return http;
}

struct http *http_open(uv_loop_t *loop, const struct config_http *config, int inherited,
                       const struct status_subject *subject, const char **why)
{
    struct http *http = http_make(loop, &config->address, inherited, config, subject, why);
    if (http != NULL && inherited < 0)
        store_keep(http->fd, "%s", socket_name);
    return http;
}

const int *http_leaving(const struct http *http, const struct sockaddr_storage *address)
{
    return http == NULL || address_equal(&http->address, address) ? NULL : &http->fd;
}

const char *http_reconfigure(struct http **http, uv_loop_t *loop, const struct sockaddr_storage *address,
                             const struct config_http *config, const struct status_subject *subject)
{
    const bool wanted = address->ss_family != AF_UNSPEC;
    const char *why = NULL;
    if (wanted && *http != NULL && address_equal(&(*http)->address, address))
        return NULL;
    struct http *next = wanted ? http_make(loop, address, -1, config, subject, &why) : NULL;
    if (why != NULL)
        return why;
    http_close(*http);
    if (next != NULL)
        store_keep(next->fd, "%s", socket_name);
    *http = next;
    return NULL;
}

bool http_list_socket(const struct http *http, struct descriptors *descriptors)
{
    return http == NULL || descriptors_add(descriptors, http->fd, "%s", socket_name);
}

void http_close(struct http *http)
{
    if (http == NULL)
        return;
    store_end(http->fd, "%s", socket_name);
    http_free(http);
}
