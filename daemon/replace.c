/* Both ends of a replacement. They block, with a time limit on every step: nothing else may happen meanwhile. */
#include "replace.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "evapid/limits.h"

#define BATCH 128                     /* descriptors of a message; the kernel takes 253 (SCM_MAX_FD, unix(7)) */
#define LINE_MAX_BYTES 1024           /* of an answer */
#define RECORD (HOLDING_NAME_MAX + 1) /* bytes of a name on the wire, filled up with NULs */

static const char ready[] = "ready\n";
static const char go[] = "go\n";

/* ---- both ------------------------------------------------------------------------------------------------------- */

static void set_patience(int fd)
{
    const struct timeval limit = { .tv_sec = REPLACE_MS / 1000 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

static bool send_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        const ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

/* Read a line of less than room bytes, and not a byte more: descriptors may follow. */
static bool receive_line(int fd, char *line, size_t room)
{
    for (size_t length = 0; length + 1 < room;) {
        const ssize_t n = recv(fd, line + length, 1, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        length++;
        line[length] = '\0';
        if (line[length - 1] == '\n')
            return true;
    }
    return false;
}

/* ---- the one that runs ------------------------------------------------------------------------------------------ */

const char *replace_permit(int fd)
{
    struct ucred peer = { 0 };
    socklen_t size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return "it can't be told who you are";
    return peer.uid == 0 || peer.uid == geteuid() ? NULL : "only root and evapid's own user may take over";
}

union batch_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(BATCH * sizeof(int))];
};

/* Send count descriptors with their names, beginning with holding; returns the one behind them, and whether it could. */
static const struct holding *give_batch(int fd, const struct holding *holding, size_t count, bool *sent)
{
    char names[BATCH * RECORD];
    union batch_control control;
    memset(&control, 0, sizeof(control));
    struct iovec iov = { names, count * RECORD };
    struct msghdr message = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(count * sizeof(int));
    memset(names, 0, sizeof(names));
    for (size_t i = 0; i < count; i++, holding = holding->hh.next) {
        memcpy(names + i * RECORD, holding->name, strlen(holding->name));
        memcpy(CMSG_DATA(c) + i * sizeof(int), &holding->fd, sizeof(int));
    }
    ssize_t n = -1;
    do
        n = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    *sent = n > 0 && send_all(fd, names + n, count * RECORD - (size_t)n);
    return holding;
}

static const char *give(int fd, const struct holdings *holdings)
{
    char line[LINE_MAX_BYTES];
    size_t left = HASH_COUNT(holdings->all);
    bool sent = true;
    const int length =
        snprintf(line, sizeof(line), "{\"replace\":{\"pid\":%ld,\"descriptors\":%zu}}\n", (long)getpid(), left);
    if (!send_all(fd, line, (size_t)length))
        return "the answer could not be sent";
    for (const struct holding *holding = holdings->all; holding != NULL && sent;) {
        const size_t count = left < BATCH ? left : BATCH;
        holding = give_batch(fd, holding, count, &sent);
        left -= count;
    }
    if (!sent)
        return "the descriptors could not be sent";
    if (!receive_line(fd, line, sizeof(line)) || strcmp(line, ready) != 0)
        return "the successor did not get ready";
    return send_all(fd, go, sizeof(go) - 1) ? NULL : "the successor has gone";
}

const char *replace_give(int fd, const struct holdings *holdings)
{
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0)
        return "the connection can't be waited on";
    set_patience(fd);
    const char *why = give(fd, holdings);
    fcntl(fd, F_SETFL, flags);
    return why;
}

/* ---- the successor ---------------------------------------------------------------------------------------------- */

/* Receive count descriptors and their names into the holdings. */
static const char *take_batch(int fd, size_t count, struct holdings *holdings)
{
    char names[BATCH * RECORD];
    union batch_control control;
    size_t length = 0;
    int fds[BATCH];
    size_t taken = 0;
    while (length < count * RECORD) {
        struct iovec iov = { names + length, count * RECORD - length };
        struct msghdr message = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
        };
        const ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return "the running evapid broke off";
        const struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        if (c != NULL && c->cmsg_type == SCM_RIGHTS) {
            taken = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(c), taken * sizeof(int));
        }
        length += (size_t)n;
    }
    for (size_t i = 0; i < taken; i++) {
        names[(i + 1) * RECORD - 1] = '\0';
        if (!holdings_add(holdings, fds[i], "%s", names + i * RECORD))
            return "no memory for its descriptors";
    }
    return taken == count ? NULL : "not all descriptors have come: too few may be open (ulimit -n)";
}

/* What the running evapid said to the request: the number of descriptors that follow, or why it refuses. */
static const char *read_answer(const char *line, size_t *descriptors)
{
    static char why[256];
    json_t *answer = json_loads(line, 0, NULL);
    const json_t *count = json_object_get(json_object_get(answer, "replace"), "descriptors");
    const char *detail = json_string_value(json_object_get(answer, "detail"));
    *descriptors = json_is_integer(count) ? (size_t)json_integer_value(count) : 0;
    const bool given = *descriptors > 0;
    snprintf(why, sizeof(why), "the running evapid refuses: %s", detail != NULL ? detail : "it does not say why");
    json_decref(answer);
    return given ? NULL : why;
}

static const char *take(int fd, struct holdings *holdings)
{
    static const char request[] = "{\"command\":\"replace\"}\n";
    char line[LINE_MAX_BYTES];
    size_t left = 0;
    if (!send_all(fd, request, sizeof(request) - 1) || !receive_line(fd, line, sizeof(line)))
        return "the running evapid does not answer";
    const char *why = read_answer(line, &left);
    while (why == NULL && left > 0) {
        const size_t count = left < BATCH ? left : BATCH;
        why = take_batch(fd, count, holdings);
        left -= count;
    }
    return why;
}

const char *replace_ask(const char *path, struct holdings *holdings, int *fd)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return strerror(errno);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    set_patience(*fd);
    if (connect(*fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return errno == ENOENT || errno == ECONNREFUSED ? "no evapid runs there: start without --replace"
                                                        : strerror(errno);
    return take(*fd, holdings);
}

const char *replace_begin(int fd)
{
    char line[LINE_MAX_BYTES];
    const bool begun =
        send_all(fd, ready, sizeof(ready) - 1) && receive_line(fd, line, sizeof(line)) && strcmp(line, go) == 0;
    close(fd);
    return begun ? NULL : "the running evapid goes on";
}
