/* TCP and Unix sockets. */
#include "client/stream.h"

#include <limits.h>
#include <linux/tcp.h> /* the C library's struct tcp_info ends before the byte counts */
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/passed.h"
#include "base/state.h"

/* ---- TCP -------------------------------------------------------------------------------------------------------- */

static ssize_t tcp_read(struct stream *stream, void *bytes, size_t room)
{
    return recv(stream->fd, bytes, room, MSG_DONTWAIT);
}

static ssize_t socket_write(struct stream *stream, const struct iovec *iov, int count)
{
    const struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count };
    return sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Closing a socket with unread input makes the kernel send a reset, which may overtake the last bytes written. So read
 * that input away first, up to 256 KiB. */
static void tcp_close(struct stream *stream)
{
    char unread[4096];
    shutdown(stream->fd, SHUT_WR);
    for (int i = 0; i < 64 && recv(stream->fd, unread, sizeof(unread), MSG_DONTWAIT) > 0; i++)
        continue;
    close(stream->fd);
}

static void tcp_begin(struct stream *stream)
{
    const int on = 1;
    setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* One call returns all counts, so that no segment is counted twice or missed. */
static uint64_t tcp_position(const struct stream *stream)
{
    struct tcp_info info = { 0 };
    socklen_t size = sizeof(info);
    if (getsockopt(stream->fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return 0;
    return info.tcpi_bytes_sent - info.tcpi_bytes_retrans + info.tcpi_notsent_bytes;
}

static void tcp_probe(const struct stream *stream)
{
    const int on = stream->keepalive.idle_s > 0;
    const int idle = (int)stream->keepalive.idle_s;
    const int interval = (int)stream->keepalive.interval_s;
    const int probes = (int)stream->keepalive.probes;
    setsockopt(stream->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    if (idle == 0)
        return;
    setsockopt(stream->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(stream->fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(stream->fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

const struct stream_kind stream_tcp = { .name = "tcp",
                                        .read = tcp_read,
                                        .write = socket_write,
                                        .close = tcp_close,
                                        .begin = tcp_begin,
                                        .position = tcp_position,
                                        .probe = tcp_probe };

/* ---- Unix sockets ------------------------------------------------------------------------------------------------ */

/* A client may pass descriptors: they are closed. */
static ssize_t unix_read(struct stream *stream, void *bytes, size_t room)
{
    bool curtailed = false;
    return passed_receive(stream->fd, bytes, room, NULL, 0, &curtailed);
}

/* What was written is in the peer's queue already. */
static void unix_close(struct stream *stream)
{
    passed_end(stream->fd);
}

const struct stream_kind stream_unix = {
    .name = "unix", .read = unix_read, .write = socket_write, .close = unix_close
};

/* ---- all kinds --------------------------------------------------------------------------------------------------- */

struct stream stream_of(int fd)
{
    int domain = AF_INET;
    socklen_t size = sizeof(domain);
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
    return (struct stream){ .kind = domain == AF_UNIX ? &stream_unix : &stream_tcp,
                            .fd = fd,
                            .keepalive = { .idle_s = UINT_MAX } };
}

void stream_set_keepalive(struct stream *stream, struct stream_keepalive keepalive)
{
    const struct stream_keepalive *now = &stream->keepalive;
    if (now->idle_s == keepalive.idle_s && now->interval_s == keepalive.interval_s && now->probes == keepalive.probes)
        return; /* the socket has them already */
    stream->keepalive = keepalive;
    if (stream->kind->probe != NULL)
        stream->kind->probe(stream);
}

uint64_t stream_position(const struct stream *stream)
{
    return stream_has_position(stream) ? stream->kind->position(stream) : 0;
}

uint64_t stream_cookie(const struct stream *stream)
{
    uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    return getsockopt(stream->fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

bool stream_is_quiet(const struct stream *stream)
{
    int unread = 0;
    return ioctl(stream->fd, FIONREAD, &unread) != 0 || unread == 0;
}

void stream_shut(struct stream *stream)
{
    shutdown(stream->fd, SHUT_RDWR);
}

void stream_close(struct stream *stream)
{
    stream->kind->close(stream);
    stream->fd = -1;
}

void stream_abandon(struct stream *stream)
{
    close(stream->fd);
    stream->fd = -1;
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void stream_save(const struct stream *stream, struct state_out *out)
{
    state_put_text(out, "kind", stream->kind->name);
    state_put(out, "keepalive-idle-s", stream->keepalive.idle_s);
    state_put(out, "keepalive-interval-s", stream->keepalive.interval_s);
    state_put(out, "keepalive-probes", stream->keepalive.probes);
}

/* An evapid before this one's format says nothing of the stream: it is of the socket's kind. */
bool stream_load(struct stream *stream, struct state_in *in)
{
    const struct wire_text kind = state_get_bytes(in, "kind");
    const size_t length = strlen(stream->kind->name);
    stream->keepalive.idle_s = (unsigned)state_get(in, "keepalive-idle-s", UINT_MAX);
    stream->keepalive.interval_s = (unsigned)state_get(in, "keepalive-interval-s", 0);
    stream->keepalive.probes = (unsigned)state_get(in, "keepalive-probes", 0);
    const bool same = kind.length == length && memcmp(kind.bytes, stream->kind->name, length) == 0;
    return !in->at.failed && (same || kind.length == 0 || stream->fd < 0);
}
