/* Answering control requests. */
#include "control.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "log.h"
#include "reload.h"
#include "watch.h"

#define SUBJECT "control"

/* One connection. It is read only while no answer is on its way, so that it holds one answer at most. */
struct inquiry {
    struct control *control;
    uv_pipe_t pipe;
    uv_write_t write;
    char *answer; /* being written, NULL: none */
    char request[CONTROL_REQUEST_MAX];
    size_t length;
    bool last; /* close when the answer is written */
    struct inquiry *prev, *next;
};

static struct log_limit refusals = { .kind = "control: refused connections" };

static void inquiry_look(struct inquiry *inquiry);

static void inquiry_on_closed(uv_handle_t *handle)
{
    struct inquiry *inquiry = handle->data;
    free(inquiry->answer);
    free(inquiry);
}

static void inquiry_close(struct inquiry *inquiry)
{
    if (uv_is_closing((uv_handle_t *)&inquiry->pipe))
        return;
    DL_DELETE(inquiry->control->inquiries, inquiry);
    inquiry->control->count--;
    uv_close((uv_handle_t *)&inquiry->pipe, inquiry_on_closed);
}

/* May the connection be waited for? */
static bool inquiry_watch(struct inquiry *inquiry)
{
    uv_os_fd_t fd = -1;
    return uv_fileno((const uv_handle_t *)&inquiry->pipe, &fd) == 0 && watch_reserve(inquiry->control->loop, fd) == 0;
}

static void inquiry_on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct inquiry *inquiry = handle->data;
    (void)suggested;
    *buf = uv_buf_init(inquiry->request + inquiry->length, (unsigned)(sizeof(inquiry->request) - inquiry->length));
}

static void inquiry_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct inquiry *inquiry = stream->data;
    (void)buf;
    if (n < 0) {
        inquiry_close(inquiry);
        return;
    }
    inquiry->length += (size_t)n;
    inquiry_look(inquiry);
}

static void inquiry_on_written(uv_write_t *write, int status)
{
    struct inquiry *inquiry = write->data;
    free(inquiry->answer);
    inquiry->answer = NULL;
    if (status < 0 || inquiry->last) {
        inquiry_close(inquiry);
        return;
    }
    DL_DELETE(inquiry->control->inquiries, inquiry);
    DL_APPEND(inquiry->control->inquiries, inquiry);
    if (!inquiry_watch(inquiry)) {
        inquiry_close(inquiry);
        return;
    }
    uv_read_start((uv_stream_t *)&inquiry->pipe, inquiry_on_allocate, inquiry_on_read);
    inquiry_look(inquiry);
}

/* Send an object on a line; takes the reference. */
static void inquiry_answer(struct inquiry *inquiry, json_t *object)
{
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    const size_t length = text != NULL ? strlen(text) : 0;
    inquiry->answer = text != NULL ? realloc(text, length + 1) : NULL;
    if (inquiry->answer == NULL) {
        free(text);
        inquiry_close(inquiry);
        return;
    }
    inquiry->answer[length] = '\n';
    uv_buf_t buf = uv_buf_init(inquiry->answer, (unsigned)length + 1);
    inquiry->write.data = inquiry;
    uv_read_stop((uv_stream_t *)&inquiry->pipe);
    if (!inquiry_watch(inquiry) ||
        uv_write(&inquiry->write, (uv_stream_t *)&inquiry->pipe, &buf, 1, inquiry_on_written) != 0)
        inquiry_close(inquiry);
}

static void inquiry_reject(struct inquiry *inquiry, const char *error, const char *detail)
{
    inquiry->last = true;
    inquiry_answer(inquiry, json_pack("{s:s, s:s}", "error", error, "detail", detail));
}

static void inquiry_answer_status(struct inquiry *inquiry)
{
    kamailio_catch_up(inquiry->control->subject->kamailio);
    json_t *status = status_describe(inquiry->control->subject);
    if (status != NULL)
        inquiry_answer(inquiry, status);
    else
        inquiry_reject(inquiry, "no memory", "for the status");
}

/* The one who asks gets descriptors on the connection itself, so that nothing may be left to be written on it. */
static void inquiry_replace(struct inquiry *inquiry)
{
    uv_os_fd_t fd = -1;
    const struct control *control = inquiry->control;
    uv_read_stop((uv_stream_t *)&inquiry->pipe);
    uv_fileno((const uv_handle_t *)&inquiry->pipe, &fd);
    const char *why = control->replace(control->owner, fd);
    inquiry_reject(inquiry, "not replaced", why != NULL ? why : "");
}

static void inquiry_reload(struct inquiry *inquiry)
{
    const struct control *control = inquiry->control;
    struct reload_outcome outcome = { 0 };
    const char *why = control->reload(control->owner, &outcome);
    if (why != NULL)
        inquiry_reject(inquiry, "not reloaded", why);
    else
        inquiry_answer(inquiry, json_pack("{s:{s:I, s:I, s:I}}", "reload", "listeners_added", (json_int_t)outcome.added,
                                          "listeners_removed", (json_int_t)outcome.removed, "clients_closed",
                                          (json_int_t)outcome.revoked));
}

static void inquiry_do(struct inquiry *inquiry, const char *line, size_t length)
{
    json_error_t bad;
    json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES, &bad);
    const char *command = json_string_value(json_object_get(request, "command"));
    if (request == NULL)
        inquiry_reject(inquiry, "not JSON", bad.text);
    else if (command == NULL)
        inquiry_reject(inquiry, "no command", "expected {\"command\": \"...\"}");
    else if (strcmp(command, "status") == 0)
        inquiry_answer_status(inquiry);
    else if (strcmp(command, "replace") == 0)
        inquiry_replace(inquiry);
    else if (strcmp(command, "reload") == 0)
        inquiry_reload(inquiry);
    else
        inquiry_reject(inquiry, "unknown command", command);
    json_decref(request);
}

/* Is a whole request there? */
static void inquiry_look(struct inquiry *inquiry)
{
    char line[CONTROL_REQUEST_MAX];
    const char *end = memchr(inquiry->request, '\n', inquiry->length);
    if (end == NULL) {
        if (inquiry->length == sizeof(inquiry->request))
            inquiry_reject(inquiry, "too long", "a request is one line of less than 4096 bytes");
        return;
    }
    const size_t length = (size_t)(end - inquiry->request);
    memcpy(line, inquiry->request, length);
    inquiry->length -= length + 1;
    memmove(inquiry->request, end + 1, inquiry->length);
    inquiry_do(inquiry, line, length);
}

/* Connections stand in the order of their last request; one with an answer on its way is at work. */
static void control_drop_idle(struct control *control)
{
    struct inquiry *inquiry = NULL;
    DL_FOREACH(control->inquiries, inquiry)
    if (inquiry->answer == NULL) {
        log_limited(&refusals, LEVEL_WARNING, SUBJECT, "%u connections are open: closed the idlest", control->count);
        inquiry_close(inquiry);
        return;
    }
}

static void control_on_connect(void *owner, int fd)
{
    struct control *control = owner;
    if (control->count == CONTROL_CONNECTIONS)
        control_drop_idle(control);
    const bool room = control->count < CONTROL_CONNECTIONS && watch_has_room(control->loop, fd);
    struct inquiry *inquiry = room ? calloc(1, sizeof(*inquiry)) : NULL;
    if (inquiry == NULL) {
        log_limited(&refusals, LEVEL_WARNING, SUBJECT, "refused a connection: %u are open", control->count);
        close(fd);
        return;
    }
    inquiry->control = control;
    inquiry->pipe.data = inquiry;
    uv_pipe_init(control->loop, &inquiry->pipe, 0);
    DL_APPEND(control->inquiries, inquiry);
    control->count++;
    if (uv_pipe_open(&inquiry->pipe, fd) != 0) {
        close(fd);
        inquiry_close(inquiry);
        return;
    }
    if (inquiry_watch(inquiry))
        uv_read_start((uv_stream_t *)&inquiry->pipe, inquiry_on_allocate, inquiry_on_read);
    else
        inquiry_close(inquiry);
}

const char *control_open(struct control *control, uv_loop_t *loop, const char *path, const struct door_access *access,
                         struct inherited_door inherited, const struct status_subject *subject)
{
    control->loop = loop;
    control->subject = subject;
    return door_open(&control->door, loop, path, access, inherited, control_on_connect, control);
}

void control_tick(struct control *control)
{
    door_tick(&control->door);
}

void control_close(struct control *control)
{
    door_close(&control->door);
    while (control->inquiries != NULL)
        inquiry_close(control->inquiries);
}
