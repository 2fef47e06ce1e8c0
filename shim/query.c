/* Asks evapid. Owns the answer's buffer. Needs nothing of Kamailio, so it is tested and fuzzed without it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "evapid/answer.h"

#include "query.h"

static unsigned char frame[WIRE_HEADER + WIRE_ANSWER_MAX];

static const char late[] = "it does not answer";

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Wait until more can be read, or the time is over. */
static const char *await_input(int fd, uint64_t until_ms)
{
    struct pollfd input = { .fd = fd, .events = POLLIN };
    for (;;) {
        const uint64_t now = now_ms();
        const int ready = now < until_ms ? poll(&input, 1, (int)(until_ms - now)) : 0;
        if (ready > 0)
            return NULL;
        if (ready == 0)
            return late;
        if (errno != EINTR)
            return strerror(errno);
    }
}

/* Connect without waiting. EAGAIN: too many connections already wait to be accepted. */
static const char *connect_at(int fd, const char *socket)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return NULL;
    return errno == EAGAIN ? late : strerror(errno);
}

static const char *send_query(int fd, const struct wire_query *query)
{
    char out[64];
    const size_t size = wire_write_query(out, sizeof(out), query);
    const ssize_t sent = send(fd, out, size, MSG_NOSIGNAL);
    if (sent < 0)
        return strerror(errno);
    return (size_t)sent == size ? NULL : "it took only a part of the question";
}

/* Repeats the text of a refusal. */
static const char *take_refused(const unsigned char *body, size_t length)
{
    static char why[WIRE_TEXT_MAX + 32];
    uint32_t version;
    struct wire_text reason;
    if (!wire_read_refused(body, length, &version, &reason) || reason.length > WIRE_TEXT_MAX)
        return "it sent a malformed refusal";
    snprintf(why, sizeof(why), "it refuses: %.*s", (int)reason.length, reason.bytes);
    return why;
}

static const char *take_frame(enum wire_type type, size_t length, struct wire_text *answer)
{
    const unsigned char *body = frame + WIRE_HEADER;
    if (type == WIRE_REFUSED)
        return take_refused(body, length);
    if (type != WIRE_ANSWER || !answer_is_good(body, length))
        return "it sent no answer that can be read";
    *answer = (struct wire_text){ (const char *)body, length };
    return NULL;
}

const char *query_receive(int fd, uint64_t until_ms, struct wire_text *answer)
{
    size_t end = 0;
    for (;;) {
        enum wire_type type = WIRE_ANSWER;
        size_t length = 0;
        const enum wire_status status = wire_header(frame, end, WIRE_ANSWER_MAX, &type, &length);
        if (status == WIRE_BAD)
            return "it sent no answer that can be read";
        if (status == WIRE_FRAME && end >= WIRE_HEADER + length)
            return take_frame(type, length, answer);
        const char *why = await_input(fd, until_ms);
        if (why != NULL)
            return why;
        const ssize_t got = recv(fd, frame + end, sizeof(frame) - end, MSG_DONTWAIT);
        if (got == 0)
            return "it closed the connection";
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            return strerror(errno);
        end += got > 0 ? (size_t)got : 0;
    }
}

const char *query_ask(const char *socket_path, const struct wire_query *query, struct wire_text *answer)
{
    const uint64_t until_ms = now_ms() + QUERY_MS;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return strerror(errno);
    const char *why = connect_at(fd, socket_path);
    if (why == NULL)
        why = send_query(fd, query);
    if (why == NULL)
        why = query_receive(fd, until_ms, answer);
    close(fd);
    return why;
}
