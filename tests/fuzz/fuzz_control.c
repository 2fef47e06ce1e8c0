/* Fuzzing the control socket: the bytes of a connection, cut at random places, go to the real control.c on a real loop,
 * with a client on the bus. Each line gets one answer, a JSON object on a line, as the request requires. Netstrings
 * follow a request to publish, and each counts once. In the end all connections are closed. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bus/flush.h"
#include "bus/roster.h"
#include "control/control.h"
#include "control/publication.h"
#include "evapid/netstring.h"
#include "input.h"

#define ANSWERS_MAX (16U << 20)

static uv_loop_t loop;
static struct bus bus;
static struct kamailio kamailio; /* detached */
static struct listeners listeners;
static struct ledger ledger;
static struct control control;
static char answers[ANSWERS_MAX];
static size_t answered;
static bool closed;
static struct listener listener = { .name = "here" };
static int application; /* the client's other end */

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
    bus.upstream = kamailio_upstream(&kamailio);
    kamailio.bus = &bus;
    kamailio.loop = &loop;
    kamailio.door.access = &access;
    control.replace = on_replace;
    control.reload = on_reload;
    control.owner = &control;
    snprintf(path, sizeof(path), "/tmp/fuzz-control-%d.sock", (int)getpid());
    assert(control_open(&control, &loop, path, &access, (struct inherited_door){ .fd = -1 }, &subject) == NULL);
    unlink(path); /* the target hands over its connections itself */
}

/* Connect a client with index 1, which gets events. */
static void connect_client(void)
{
    static const struct client_limits limits = { .max_message_bytes = 1024, .max_queued_bytes = 64U << 20 };
    const struct sockaddr_storage address = { .ss_family = AF_INET };
    const struct remote remote = remote_of_address(&address);
    int pair[2];
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    bus.last_index = 0;
    assert(listener_enter(&listener, &remote.origin) && bus_connect(&bus, pair[0], &remote, &limits, &listener));
    bus_admit(&bus, roster_find(&bus, 1));
    application = pair[1];
}

static void disconnect_client(void)
{
    struct client *client = roster_find(&bus, 1);
    if (client != NULL)
        client_drop(client, DROP_CLOSED);
    close(application);
    uv_run(&loop, UV_RUN_NOWAIT);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert(bus.roster.clients == NULL && bus.roster.receiver_count == 0);
}

/* Read the answers that have come. */
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
        static char events[65536];
        uv_run(&loop, UV_RUN_NOWAIT);
        control_serve(&control);
        flush_turn(&bus);
        control_flush(&control);
        while (recv(application, events, sizeof(events), MSG_DONTWAIT) > 0)
            continue;
        listen_to(peer);
    }
}

static void send_stream(int peer, struct input *cuts, const uint8_t *stream, size_t length)
{
    for (size_t at = 0; at < length && !closed;) {
        const size_t cut = input_left(cuts) > 0 ? 1 + input_number(cuts, 1) : length - at;
        const size_t size = cut < length - at ? cut : length - at;
        const ssize_t n = send(peer, stream + at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        const bool broken = n < 0 && errno != EAGAIN;
        at += n > 0 ? (size_t)n : 0;
        turns(peer, 1);
        if (broken)
            return;
    }
}

/* What follows an answer on the connection. */
enum behind { BEHIND_ANSWERS, BEHIND_PASSING, BEHIND_EVENTS, BEHIND_NOTHING };

/* The next answer. The caller gets the reference. */
static json_t *next_answer(const char **at)
{
    const char *end = memchr(*at, '\n', (size_t)(answers + answered - *at));
    assert(end != NULL);
    json_t *answer = json_loadb(*at, (size_t)(end - *at), JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    assert(json_is_object(answer));
    *at = end + 1;
    return answer;
}

/* The error that a line without a request must get, or NULL. */
static const char *expected_error(const json_t *request)
{
    const json_t *command = json_object_get(request, "command");
    return request == NULL ? "not JSON" : !json_is_string(command) ? "no command" : NULL;
}

static bool is_one_of(const char *said, const char *const *all)
{
    while (*all != NULL && strcmp(said, *all) != 0)
        all++;
    return *all != NULL;
}

static enum behind behind_answer(const char *command, const json_t *request, const json_t *answer)
{
    static const char *const keys[] = { "version", "kamailio", "listeners", "clients",   "client", "tags",
                                        "tagged",  "closed",   "log",       "published", "tail",   NULL };
    const char *key = NULL;
    json_t *value = NULL;
    bool known = false;
    json_object_foreach((json_t *)(uintptr_t)answer, key, value) known |= is_one_of(key, keys);
    assert(known);
    if (json_object_get(answer, "tail") != NULL) {
        assert(strcmp(command, "tail") == 0);
        return BEHIND_PASSING;
    }
    const bool stream = json_is_true(json_object_get(request, "stream"));
    return json_object_get(answer, "published") != NULL && stream ? BEHIND_EVENTS : BEHIND_ANSWERS;
}

/* Check the answer to a line. Returns what follows it. */
static enum behind check_answer(const char **at, const char *line, size_t length)
{
    static const char *const refusals[] = { "unknown command", "bad request",  "no such client",
                                            "not replaced",    "not reloaded", NULL };
    json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    json_t *answer = next_answer(at);
    const char *expected = expected_error(request);
    const char *said = json_string_value(json_object_get(answer, "error"));
    enum behind behind = BEHIND_ANSWERS;
    if (expected != NULL)
        assert(said != NULL && strcmp(said, expected) == 0);
    if (said == NULL)
        behind = behind_answer(json_string_value(json_object_get(request, "command")), request, answer);
    else
        assert(json_is_string(json_object_get(answer, "detail")) && (expected != NULL || is_one_of(said, refusals)));
    if (said != NULL && strcmp(said, "not replaced") == 0)
        behind = BEHIND_NOTHING;
    json_decref(request);
    json_decref(answer);
    return behind;
}

/* Events follow: evapid reports its count now and then, and at the end the count of all good events. */
static void check_events(const char **at, const char *stream, const char *end)
{
    json_int_t events = 0;
    json_int_t bytes = 0;
    struct netstring frame;
    enum netstring_status status = NETSTRING_FRAME;
    while ((status = netstring_scan(stream, (size_t)(end - stream), PUBLICATION_EVENT_MAX, &frame)) ==
           NETSTRING_FRAME) {
        events++;
        bytes += (json_int_t)frame.length;
        stream += frame.used;
    }
    const bool good = status == NETSTRING_MORE && stream + frame.used == end;
    json_int_t before = 0;
    bool last = false;
    while (!last) {
        json_t *answer = next_answer(at);
        const json_t *published = json_object_get(answer, "published");
        const json_int_t now = json_integer_value(json_object_get(published, "events"));
        const bool refused = json_object_get(answer, "error") != NULL;
        last = refused || json_is_true(json_object_get(answer, "end"));
        assert(now >= before && now <= events && refused == (last && !good));
        assert(!last || (now == events && json_integer_value(json_object_get(published, "bytes")) == bytes));
        before = now;
        json_decref(answer);
    }
}

static void check_passing(const char **at)
{
    while (*at < answers + answered) {
        json_t *answer = next_answer(at);
        assert(json_object_get(answer, "time") != NULL || json_object_get(answer, "dropped") != NULL);
        json_decref(answer);
    }
}

/* A request has at most CONTROL_REQUEST_MAX bytes, including its newline. */
static void check_answers(const char *stream, size_t length)
{
    const char *answer = answers;
    const char *end = stream + length;
    enum behind behind = BEHIND_ANSWERS;
    for (const char *at = stream; at < end && behind == BEHIND_ANSWERS;) {
        const char *over = memchr(at, '\n', (size_t)(end - at));
        const size_t size = (size_t)((over != NULL ? over + 1 : end) - at);
        if (over == NULL ? size >= CONTROL_REQUEST_MAX : size > CONTROL_REQUEST_MAX) {
            json_t *refusal = next_answer(&answer);
            assert(strcmp(json_string_value(json_object_get(refusal, "error")), "too long") == 0);
            json_decref(refusal);
            behind = BEHIND_NOTHING;
            break;
        }
        if (over == NULL)
            break;
        behind = check_answer(&answer, at, size - 1);
        at = over + 1;
        if (behind == BEHIND_EVENTS)
            check_events(&answer, at, end);
    }
    if (behind == BEHIND_PASSING)
        check_passing(&answer);
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
    connect_client();
    control.door.opened(control.door.owner, pair[0]);
    send_stream(pair[1], &cuts, (const uint8_t *)stream, size);
    shutdown(pair[1], SHUT_WR);
    for (int i = 0; i < 10000 && !closed; i++)
        turns(pair[1], 1);
    assert(closed && control.count == 0 && control.inquiries == NULL);
    assert(control.publications == 0 && control.tails.count == 0 && bus.observers == NULL);
    check_answers(stream, size);
    close(pair[1]);
    disconnect_client();
    free(stream);
    return 0;
}
