/* Asks evapid. */
#include "evapictl/ask.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "evapictl/text.h"
#include "evapid/limits.h"

#define TIMEOUT_S 10
#define READ_BYTES 65536U

static char *failure; /* where fail writes; NULL: standard error */
static size_t failure_room;

void fail_into(char *text, size_t room)
{
    failure = text;
    failure_room = room;
}

int fail(int status, const char *what, const char *why)
{
    if (failure != NULL) {
        snprintf(failure, failure_room, "%s: %s", what, why);
        return status;
    }
    fflush(stdout);
    fprintf(stderr, "evapictl: %s: %s\n", what, why);
    return status;
}

static const char *unreachable_reason(int error)
{
    switch (error) {
    case ENOENT: return "evapid is not running (there is no such socket)";
    case ENOTDIR: return "evapid is not running (there is no such folder)";
    case ENOTSOCK: return "this is no socket: the path of evapid's control socket was expected";
    case ECONNREFUSED: return "evapid is not running (nobody listens on its socket)";
    case EPROTOTYPE: return "this is a socket, but not evapid's";
    case EACCES: return "permission denied: ask as root or as a member of the socket's group";
    case EAGAIN: return "evapid does not answer";
    case ECONNRESET:
    case EPIPE: return "evapid has closed the connection";
    case EBADMSG: return "the answer is not evapid's, or was cut off";
    default: return strerror(error);
    }
}

int report_broken(const struct line_to *line, int error)
{
    return fail(EXIT_UNREACHABLE, line->path, unreachable_reason(error));
}

/* The kernel refuses a connection in the same way to a file that is no socket, and to a socket on which nobody listens.
 * They differ for who has mistyped a path. */
static int connect_error(const char *path, int error)
{
    struct stat file;
    return error == ECONNREFUSED && stat(path, &file) == 0 && !S_ISSOCK(file.st_mode) ? ENOTSOCK : error;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    const int error = connect_error(path, errno);
    close(fd);
    errno = error;
    return -1;
}

int line_open(struct line_to *line, const char *path)
{
    *line = (struct line_to){ .path = path, .fd = -1 };
    if (strlen(path) > EVAPID_PATH_MAX)
        return fail(EXIT_USAGE, path, "the path is too long for a socket");
    line->fd = connect_to(path);
    if (line->fd < 0)
        return report_broken(line, errno);
    line_set_patience(line, TIMEOUT_S);
    return EXIT_FINE;
}

void line_close(struct line_to *line)
{
    if (line->fd >= 0)
        close(line->fd);
    free(line->bytes);
    *line = (struct line_to){ .path = line->path, .fd = -1 };
}

void line_set_patience(const struct line_to *line, int seconds)
{
    const struct timeval limit = { .tv_sec = seconds };
    setsockopt(line->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(line->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

ssize_t line_fill(struct line_to *line)
{
    if (line->used > 0) {
        line->length -= line->used;
        memmove(line->bytes, line->bytes + line->used, line->length);
        line->used = 0;
    }
    if (line->room - line->length < READ_BYTES) {
        line->room = line->room * 2 + READ_BYTES;
        char *more = realloc(line->bytes, line->room);
        if (more == NULL)
            out_of_memory();
        line->bytes = more;
    }
    const ssize_t n = recv(line->fd, line->bytes + line->length, line->room - line->length, 0);
    if (n > 0)
        line->length += (size_t)n;
    if (n == 0)
        errno = line->length > 0 ? EBADMSG : ECONNRESET;
    return n > 0 ? n : -1;
}

const char *line_next(struct line_to *line, size_t *length)
{
    const char *begin = line->bytes + line->used;
    const char *end = line->length > line->used ? memchr(begin, '\n', line->length - line->used) : NULL;
    if (end == NULL)
        return NULL;
    *length = (size_t)(end - begin);
    line->used += *length + 1;
    return begin;
}

json_t *read_answer(const char *line, size_t length)
{
    json_t *answer = json_loadb(line, length, JSON_ALLOW_NUL, NULL);
    if (json_is_object(answer))
        return answer;
    json_decref(answer);
    return NULL;
}

int report_error(const struct line_to *line, json_t *answer)
{
    make_printable(answer);
    const char *error = json_string_value(json_object_get(answer, "error"));
    if (error == NULL)
        return report_broken(line, EBADMSG);
    return fail(EXIT_ANSWERED_ERROR, error, text_at(answer, "detail"));
}

static bool send_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        const ssize_t n = send(fd, text, length, MSG_NOSIGNAL);
        if (n < 0)
            return false;
        text += n;
        length -= (size_t)n;
    }
    return true;
}

static bool line_send(const struct line_to *line, json_t *request)
{
    char *text = request != NULL ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    const size_t length = text != NULL ? strlen(text) : 0;
    char *whole = text != NULL ? realloc(text, length + 1) : NULL;
    if (whole == NULL)
        out_of_memory();
    whole[length] = '\n';
    const bool sent = send_all(line->fd, whole, length + 1);
    free(whole);
    return sent;
}

/* Any program's JSON may have a member "version", but evapid's is a text. The other keys are evapid's own. */
static bool is_answer(const json_t *answer, const char *key)
{
    const json_t *value = json_object_get(answer, key);
    return strcmp(key, "version") == 0 ? json_is_string(value) : value != NULL;
}

json_t *line_ask(struct line_to *line, json_t *request, const char *key, int *status)
{
    size_t length = 0;
    const char *text = NULL;
    bool good = line_send(line, request);
    while (good && (text = line_next(line, &length)) == NULL)
        good = line_fill(line) > 0;
    *status = EXIT_FINE;
    if (!good) {
        *status = report_broken(line, errno);
        return NULL;
    }
    json_t *answer = read_answer(text, length);
    if (is_answer(answer, key) && json_object_get(answer, "error") == NULL)
        return answer;
    *status = report_error(line, answer);
    json_decref(answer);
    return NULL;
}

json_t *ask(const struct options *options, json_t *request, const char *key, int *status)
{
    struct line_to line;
    *status = line_open(&line, options->socket);
    if (*status != EXIT_FINE) {
        json_decref(request);
        return NULL;
    }
    json_t *answer = line_ask(&line, request, key, status);
    line_close(&line);
    return answer;
}
