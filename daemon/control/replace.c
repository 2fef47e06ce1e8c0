/* Both ends of a replacement. They block, with a time limit on every step: nothing else may happen meanwhile. */
#include "control/replace.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "evapid/limits.h"

#define BATCH 128                     /* descriptors in a message; the kernel accepts 253 (SCM_MAX_FD, unix(7)) */
#define LINE_MAX_BYTES 1024           /* of an answer */
#define RECORD (HOLDING_NAME_MAX + 1) /* bytes of a name on the wire, padded with NULs */

static const char ready[] = "ready\n";
static const char go[] = "go\n";
static const char running[] = "running\n";
static const char goes_on[] = "the running evapid goes on";

/* ---- both ------------------------------------------------------------------------------------------------------- */

/* One end of the conversation, and the deadline of the current step. A peer that sends a byte now and then must not
 * hold us up longer than a silent one. */
struct talk {
    int fd;
    int64_t end_ms;       /* by CLOCK_MONOTONIC */
    const sigset_t *mask; /* signals blocked while we wait; NULL: those that are blocked anyway */
    bool ended;           /* the peer has closed the connection, or died */
};

static int64_t now_ms(void)
{
    return (int64_t)clock_monotonic_ms();
}

static struct talk begin_step(int fd)
{
    return (struct talk){ .fd = fd, .end_ms = now_ms() + REPLACE_MS };
}

/* The attempt would have blocked, or was interrupted: may it be tried again? */
static bool try_again(const struct talk *talk, short events)
{
    if (errno != EAGAIN && errno != EINTR)
        return false;
    const int64_t left_ms = talk->end_ms - now_ms();
    struct pollfd peer = { .fd = talk->fd, .events = events };
    const struct timespec left = { .tv_sec = left_ms / 1000, .tv_nsec = left_ms % 1000 * 1000000 };
    return left_ms > 0 && (ppoll(&peer, 1, &left, talk->mask) > 0 || errno == EINTR);
}

static bool send_all(const struct talk *talk, const char *bytes, size_t length)
{
    while (length > 0) {
        const ssize_t n = send(talk->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && try_again(talk, POLLOUT))
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

/* Read a line shorter than room bytes, and not a byte more: descriptors may follow. */
static bool receive_line(struct talk *talk, char *line, size_t room)
{
    for (size_t length = 0; length + 1 < room;) {
        const ssize_t n = recv(talk->fd, line + length, 1, MSG_DONTWAIT);
        if (n < 0 && try_again(talk, POLLIN))
            continue;
        if (n <= 0) {
            talk->ended = n == 0 || errno == ECONNRESET;
            return false;
        }
        length++;
        line[length] = '\0';
        if (line[length - 1] == '\n')
            return true;
    }
    return false;
}

/* ---- the running one
 * ----------------------------------------------------------------------------------------------- */

const char *replace_permit(int fd)
{
    struct ucred peer = { 0 };
    socklen_t size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return "your user cannot be determined";
    return peer.uid == 0 || peer.uid == geteuid() ? NULL : "only root and evapid's own user may take over";
}

union batch_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(BATCH * sizeof(int))];
};

/* Send count descriptors with their names, starting with descriptor. Returns the one after them; *sent: whether it
 * worked. */
static const struct descriptor *give_batch(const struct talk *talk, const struct descriptor *descriptor, size_t count,
                                           bool *sent)
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
    for (size_t i = 0; i < count; i++, descriptor = descriptor->hh.next) {
        memcpy(names + i * RECORD, descriptor->name, strlen(descriptor->name));
        memcpy(CMSG_DATA(c) + i * sizeof(int), &descriptor->fd, sizeof(int));
    }
    ssize_t n = -1;
    do
        n = sendmsg(talk->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && try_again(talk, POLLOUT));
    *sent = n > 0 && send_all(talk, names + n, count * RECORD - (size_t)n);
    return descriptor;
}

static const char *give(struct talk *talk, const struct descriptors *descriptors)
{
    char line[LINE_MAX_BYTES];
    size_t left = HASH_COUNT(descriptors->all);
    bool sent = true;
    const int length =
        snprintf(line, sizeof(line), "{\"replace\":{\"pid\":%ld,\"descriptors\":%zu}}\n", (long)getpid(), left);
    if (!send_all(talk, line, (size_t)length))
        return "the answer could not be sent";
    for (const struct descriptor *descriptor = descriptors->all; descriptor != NULL && sent;) {
        const size_t count = left < BATCH ? left : BATCH;
        descriptor = give_batch(talk, descriptor, count, &sent);
        left -= count;
    }
    if (!sent)
        return "the descriptors could not be sent";
    *talk = begin_step(talk->fd);
    if (!receive_line(talk, line, sizeof(line)) || strcmp(line, ready) != 0)
        return "the successor did not get ready";
    if (!send_all(talk, go, sizeof(go) - 1))
        return "the successor has gone";
    *talk = begin_step(talk->fd);
    if (receive_line(talk, line, sizeof(line)) && strcmp(line, running) == 0)
        return NULL;
    return talk->ended ? "the successor died before it ran" : "the successor did not begin to run";
}

/* After an error: do we own everything again? If the successor has claimed it and its connection has ended, it died in
 * between and has changed nothing: we do. If it has claimed it and is still connected, it goes on, and its "running" is
 * just late. */
static bool withdraw(const struct talk *talk, replace_word *offer)
{
    uint32_t offered = REPLACE_OFFERED;
    if (!atomic_compare_exchange_strong(offer, &offered, REPLACE_KEPT) && !talk->ended)
        return false;
    atomic_store(offer, REPLACE_KEPT);
    return true;
}

const char *replace_give(int fd, const struct descriptors *descriptors, replace_word *offer)
{
    struct talk talk = begin_step(fd);
    atomic_store(offer, REPLACE_OFFERED);
    const char *why = give(&talk, descriptors);
    return why != NULL && withdraw(&talk, offer) ? why : NULL;
}

/* ---- the successor ---------------------------------------------------------------------------------------------- */

/* Receive count descriptors and their names into the descriptors. */
static const char *take_batch(const struct talk *talk, size_t count, struct descriptors *descriptors)
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
        const ssize_t n = recvmsg(talk->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n < 0 && try_again(talk, POLLIN))
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
    for (size_t i = 0; i < taken && i < count; i++) {
        names[(i + 1) * RECORD - 1] = '\0';
        if (!descriptors_add(descriptors, fds[i], "%s", names + i * RECORD))
            return "no memory for its descriptors";
    }
    return taken == count ? NULL : "not all descriptors have arrived: too few may be open (ulimit -n)";
}

/* Read the running evapid's answer: how many descriptors follow, or why it refuses. */
static const char *read_answer(const char *line, size_t *descriptors)
{
    static char why[256];
    json_t *answer = json_loads(line, 0, NULL);
    const json_t *count = json_object_get(json_object_get(answer, "replace"), "descriptors");
    const char *detail = json_string_value(json_object_get(answer, "detail"));
    *descriptors = json_integer_value(count) > 0 ? (size_t)json_integer_value(count) : 0;
    const bool given = *descriptors > 0;
    snprintf(why, sizeof(why), "the running evapid refuses: %s", detail != NULL ? detail : "it does not say why");
    json_decref(answer);
    return given ? NULL : why;
}

static const char *take(int fd, struct descriptors *descriptors)
{
    static const char request[] = "{\"command\":\"replace\"}\n";
    struct talk talk = begin_step(fd);
    sigset_t mask;
    talk.mask = &mask; /* signals may still end us at once: we own nothing yet */
    sigprocmask(SIG_BLOCK, NULL, &mask);
    sigdelset(&mask, SIGTERM);
    sigdelset(&mask, SIGINT);
    char line[LINE_MAX_BYTES];
    size_t left = 0;
    if (!send_all(&talk, request, sizeof(request) - 1) || !receive_line(&talk, line, sizeof(line)))
        return "the running evapid does not answer";
    const char *why = read_answer(line, &left);
    while (why == NULL && left > 0) {
        const size_t count = left < BATCH ? left : BATCH;
        why = take_batch(&talk, count, descriptors);
        left -= count;
    }
    return why;
}

const char *replace_ask(const char *path, struct descriptors *descriptors, int *fd)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const struct timeval limit = { .tv_sec = REPLACE_MS / 1000 };
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return strerror(errno);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    setsockopt(*fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)); /* in case nobody accepts */
    if (connect(*fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return errno == ENOENT || errno == ECONNREFUSED ? "no evapid runs there: start without --replace"
                                                        : strerror(errno);
    return take(*fd, descriptors);
}

const char *replace_begin(int fd)
{
    char line[LINE_MAX_BYTES];
    struct talk talk = begin_step(fd);
    send_all(&talk, ready, sizeof(ready) - 1);
    const bool told = receive_line(&talk, line, sizeof(line));
    /* A running one that goes on withdraws its offer first. If it was killed instead, the offer can still be
     * claimed. */
    return (told && strcmp(line, go) == 0) || talk.ended ? NULL : goes_on;
}

const char *replace_claim(int fd, replace_word *offer)
{
    uint32_t offered = REPLACE_OFFERED;
    const struct talk talk = begin_step(fd);
    const bool claimed = offer != NULL && atomic_compare_exchange_strong(offer, &offered, REPLACE_CLAIMED);
    if (claimed)
        send_all(&talk, running, sizeof(running) - 1);
    close(fd);
    return claimed ? NULL : goes_on;
}
