#include "peer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "socket.h"

bool peer_open(struct peer *peer, const char *address, int epoll, void *pointer)
{
    *peer = (struct peer){ .epoll = epoll, .fd = socket_connect(address, 0) };
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = pointer };
    return peer->fd >= 0 && socket_nonblocking(peer->fd) && epoll_ctl(epoll, EPOLL_CTL_ADD, peer->fd, &event) == 0;
}

bool peer_room(const struct peer *peer, size_t length)
{
    return PEER_OUT - (peer->out_length - peer->sent) >= NETSTRING_HEADER_MAX + length + 1;
}

void peer_say(struct peer *peer, const char *payload, size_t length)
{
    if (peer->sent > 0) {
        memmove(peer->out, peer->out + peer->sent, peer->out_length - peer->sent);
        peer->out_length -= peer->sent;
        peer->sent = 0;
    }
    char *at = peer->out + peer->out_length;
    at += netstring_header(at, length);
    memcpy(at, payload, length);
    at[length] = ',';
    peer->out_length = (size_t)(at + length + 1 - peer->out);
}

static bool peer_gone(const char *why)
{
    fprintf(stderr, "a connection is gone: %s\n", why);
    return false;
}

/* Make epoll report room to write, or stop that. */
static bool peer_poll_out(struct peer *peer, bool wanted, void *pointer)
{
    if (peer->polled_out == wanted)
        return true;
    struct epoll_event event = { .events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = pointer };
    peer->polled_out = wanted;
    return epoll_ctl(peer->epoll, EPOLL_CTL_MOD, peer->fd, &event) == 0 || peer_gone(strerror(errno));
}

bool peer_flush(struct peer *peer, void *pointer)
{
    while (peer->sent < peer->out_length) {
        const ssize_t n = send(peer->fd, peer->out + peer->sent, peer->out_length - peer->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return peer_poll_out(peer, true, pointer);
        if (n < 0 && errno != EINTR)
            return peer_gone(strerror(errno));
        peer->sent += n > 0 ? (size_t)n : 0;
    }
    return peer_poll_out(peer, false, pointer);
}

bool peer_read(struct peer *peer)
{
    memmove(peer->in, peer->in + peer->taken, peer->in_length - peer->taken);
    peer->in_length -= peer->taken;
    peer->taken = 0;
    if (peer->in_length == PEER_IN)
        return true;
    const ssize_t n = recv(peer->fd, peer->in + peer->in_length, PEER_IN - peer->in_length, 0);
    if (n == 0)
        return peer_gone("closed by the server");
    if (n < 0)
        return errno == EAGAIN || errno == EINTR || peer_gone(strerror(errno));
    peer->in_length += (size_t)n;
    return true;
}

int peer_next(struct peer *peer, struct netstring *frame)
{
    switch (netstring_scan(peer->in + peer->taken, peer->in_length - peer->taken, PEER_MESSAGE_MAX, frame)) {
    case NETSTRING_FRAME: peer->taken += frame->used; return 1;
    case NETSTRING_MORE: return 0;
    default: return -1;
    }
}
