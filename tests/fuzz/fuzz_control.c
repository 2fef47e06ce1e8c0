/* Fuzzing the control socket: the bytes of a connection, cut at random places, to the real control.c on a real loop.
 * Each line gets one answer, a JSON object on a line, of the kind that the request calls for; the first bad request gets
 * the last answer, and the connection ends behind it. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "input.h"

#define ANSWERS_MAX (4U << 20)

static uv_loop_t loop;
static struct bus bus;
static struct kamailio kamailio; /* detached */
static struct listeners listeners;
static struct ledger ledger;
static struct control control;
static char answers[ANSWERS_MAX];
static size_t answered;
static bool closed;

static const char *on_replace(void *owner, int fd)
{
    assert(owner == &control && fd >= 0);
    return "not here";
}

static const char *on_reload(void *owner, struct reload_outcome *outcome)
{
    assert(owner == &control && outcome != NULL);
    return "not here";
}

static void begin(void)
{
    static const struct door_access access = { .mode = 0600, .group = DOOR_OWN_GROUP };
    static const struct status_subject subject = {
        .bus = &bus, .kamailio = &kamailio, .listeners = &listeners, .control = &control.door
    };
    char path[64];
    assert(uv_loop_init(&loop) == 0);
    loop.data = &loop;
    assert(ledger_open(&ledger) == NULL);
    bus_open(&bus, &loop, &ledger);
    kamailio.door.access = &access;
    control.replace = on_replace;
    control.reload = on_reload;
    control.owner = &control;
    snprintf(path, sizeof(path), "/tmp/fuzz-control-%d.sock", (int)getpid());
    assert(control_open(&control, &loop, path, &access, (struct inherited_door){ .fd = -1 }, &subject) == NULL);
    unlink(path); /* connections are handed to it by themselves */
}

/* Read what has been answered. */
static void listen_to(int peer)
{
    while (!closed) {
        const ssize_t n = recv(peer, answers + answered, sizeof(answers) - answered, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return;
        closed = n <= 0;
        answered += n > 0 ? (size_t)n : 0;
    }
}

static void turns(int peer, int count)
{
    for (int i = 0; i < count; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        listen_to(peer);
    }
}

static void send_stream(int peer, struct input *cuts, const uint8_t *stream, size_t length)
{
    for (size_t at = 0; at < length && !closed;) {
        const size_t cut = input_left(cuts) > 0 ? 1 + input_number(cuts, 1) : length - at;
        const size_t size = cut < length - at ? cut : length - at;
        const ssize_t n = send(peer, stream + at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        at += n > 0 ? (size_t)n : 0;
        turns(peer, 1);
        if (n < 0 && errno != EAGAIN)
            return;
    }
}

/* What a request is to be answered with: the value of "error", "" for the status. */
static const char *expected(const char *line, size_t length)
{
    json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
    const char *command = json_string_value(json_object_get(request, "command"));
    const char *error = request == NULL                   ? "not JSON"
                        : command == NULL                 ? "no command"
                        : strcmp(command, "reload") == 0  ? "not reloaded"
                        : strcmp(command, "replace") == 0 ? "not replaced"
                        : strcmp(command, "status") != 0  ? "unknown command"
                                                          : "";
    json_decref(request);
    return error;
}

/* The next answer; its "error", "" when it is a status. */
static void check_answer(const char **at, const char *error)
{
    const char *end = memchr(*at, '\n', (size_t)(answers + answered - *at));
    assert(end != NULL);
    json_t *answer = json_loadb(*at, (size_t)(end - *at), JSON_REJECT_DUPLICATES, NULL);
    assert(json_is_object(answer));
    const char *said = json_string_value(json_object_get(answer, "error"));
    assert(strcmp(said != NULL ? said : "", error) == 0);
    assert((said == NULL) == json_is_object(json_object_get(answer, "totals")));
    assert(said == NULL || json_is_string(json_object_get(answer, "detail")));
    json_decref(answer);
    *at = end + 1;
}

/* A request has at most CONTROL_REQUEST_MAX bytes, with its newline. */
static void check_answers(const char *stream, size_t length)
{
    const char *answer = answers;
    const char *end = stream + length;
    for (const char *at = stream; at < end;) {
        const char *over = memchr(at, '\n', (size_t)(end - at));
        const size_t size = (size_t)((over != NULL ? over + 1 : end) - at);
        const bool large = over == NULL ? size >= CONTROL_REQUEST_MAX : size > CONTROL_REQUEST_MAX;
        if (over == NULL && !large)
            break;
        const char *error = large ? "too long" : expected(at, size - 1);
        check_answer(&answer, error);
        if (error[0] != '\0')
            break;
        at = over + 1;
    }
    assert(answer == answers + answered);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct input in = input_of(bytes, length);
    if (loop.data == NULL)
        begin();
    size_t cut_count = 0;
    const uint8_t *cut_bytes = input_take(&in, input_below(&in, 32), &cut_count);
    struct input cuts = input_of(cut_bytes, cut_count);
    const size_t size = input_left(&in);
    char *stream = copy_of(in.at, size);
    int pair[2];
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    answered = 0;
    closed = false;
    control.door.opened(control.door.owner, pair[0]);
    send_stream(pair[1], &cuts, (const uint8_t *)stream, size);
    shutdown(pair[1], SHUT_WR);
    for (int i = 0; i < 10000 && !closed; i++)
        turns(pair[1], 1);
    assert(closed && control.count == 0 && control.inquiries == NULL);
    check_answers(stream, size);
    close(pair[1]);
    turns(pair[1], 2);
    free(stream);
    return 0;
}
