/* Connections to the control socket. */
#include "control/control.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/passed.h"
#include "base/watch.h"
#include "control/publication.h"
#include "kamailio/progress.h"
#include "net/crowd.h"

#define SUBJECT "control"

/* What a connection is doing. */
enum inquiry_state {
    INQUIRY_ASKING,     /* requests; read only while no answer is being sent, so that it holds one answer at most */
    INQUIRY_WAITING,    /* a whole request has arrived and waits for its turn */
    INQUIRY_HEARING,    /* a report answers it, a slice in each of its turns */
    INQUIRY_TAILING,    /* it is shown what passes; whatever it sends is dropped */
    INQUIRY_PUBLISHING, /* events; reading goes on at the end of a turn, if allowed */
    INQUIRY_ENDING,     /* no more reading; its last answer follows the one being written */
    INQUIRY_LEAVING     /* the last answer is being written; then it is closed */
};

struct inquiry {
    struct control *control;
    uid_t user; /* the user of the process that has connected */
    bool asked; /* it has sent a request */
    enum inquiry_state state;
    uv_pipe_t pipe;
    uv_write_t write;
    char *answer;          /* being written; NULL: none */
    struct report *report; /* HEARING */
    bool in_turn;          /* WAITING: all before mark must be read first */
    struct kamailio_mark mark;
    char request[CONTROL_REQUEST_MAX];
    size_t length;
    struct tail *tail;               /* TAILING */
    struct publication *publication; /* PUBLISHING, and until its end */
    uint64_t told;                   /* events of the publication that were acknowledged */
    bool resting;                    /* PUBLISHING: reading is stopped */
    bool behind;                     /* PUBLISHING: `pending` bytes were read and will be published after mark */
    size_t pending;
    const char *error, *detail; /* why the publication failed; NULL: it did not */
    struct inquiry *prev, *next;
};

static struct log_limit refusals = { .kind = "control: refused connections" };

static void inquiry_look(struct inquiry *inquiry);
static void inquiry_go_on(struct inquiry *inquiry);

/* ---- the connection --------------------------------------------------------------------------------------------- */

static void inquiry_on_closed(uv_handle_t *handle)
{
    struct inquiry *inquiry = handle->data;
    free(inquiry->answer);
    free(inquiry);
}

static void inquiry_close(struct inquiry *inquiry)
{
    struct control *control = inquiry->control;
    if (uv_is_closing((uv_handle_t *)&inquiry->pipe))
        return;
    report_close(inquiry->report);
    if (inquiry->tail != NULL)
        tail_close(&control->tails, inquiry->tail);
    if (inquiry->publication != NULL) {
        publication_close(inquiry->publication);
        control->publications--;
    }
    DL_DELETE(control->inquiries, inquiry);
    control->count--;
    uv_close((uv_handle_t *)&inquiry->pipe, inquiry_on_closed);
}

/* Can the loop watch the connection? */
static bool inquiry_watch(struct inquiry *inquiry)
{
    uv_os_fd_t fd = -1;
    return uv_fileno((const uv_handle_t *)&inquiry->pipe, &fd) == 0 && watch_reserve(inquiry->control->loop, fd) == 0;
}

static void inquiry_on_written(uv_write_t *write, int status)
{
    struct inquiry *inquiry = write->data;
    free(inquiry->answer);
    inquiry->answer = NULL;
    if (status < 0)
        inquiry_close(inquiry);
    else
        inquiry_go_on(inquiry);
}

/* Send these bytes; the inquiry owns them from now on. */
static void inquiry_write(struct inquiry *inquiry, char *bytes, size_t length)
{
    uv_buf_t buf = uv_buf_init(bytes, (unsigned)length);
    inquiry->answer = bytes;
    inquiry->write.data = inquiry;
    if (!inquiry_watch(inquiry) ||
        uv_write(&inquiry->write, (uv_stream_t *)&inquiry->pipe, &buf, 1, inquiry_on_written) != 0)
        inquiry_close(inquiry);
}

/* Send an object on one line; takes the reference. */
static void inquiry_answer(struct inquiry *inquiry, json_t *object)
{
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    const size_t length = text != NULL ? strlen(text) : 0;
    char *line = text != NULL ? realloc(text, length + 1) : NULL;
    if (line == NULL) {
        free(text);
        inquiry_close(inquiry);
        return;
    }
    line[length] = '\n';
    inquiry_write(inquiry, line, length + 1);
}

/* Send the last answer. */
static void inquiry_reject(struct inquiry *inquiry, const char *error, const char *detail)
{
    inquiry->state = INQUIRY_LEAVING;
    uv_read_stop((uv_stream_t *)&inquiry->pipe);
    inquiry_answer(inquiry, json_pack("{s:s, s:s}", "error", error, "detail", detail));
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static void inquiry_on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct inquiry *inquiry = handle->data;
    (void)suggested;
    if (inquiry->state == INQUIRY_PUBLISHING) {
        size_t room = 0;
        char *bytes = publication_room(inquiry->publication, &room);
        *buf = uv_buf_init(bytes, bytes != NULL ? (unsigned)room : 0); /* 0: reading fails with UV_ENOBUFS */
        return;
    }
    if (inquiry->state == INQUIRY_TAILING)
        inquiry->length = 0;
    *buf = uv_buf_init(inquiry->request + inquiry->length, (unsigned)(sizeof(inquiry->request) - inquiry->length));
}

static void inquiry_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

static void inquiry_read(struct inquiry *inquiry)
{
    if (inquiry_watch(inquiry))
        uv_read_start((uv_stream_t *)&inquiry->pipe, inquiry_on_allocate, inquiry_on_read);
    else
        inquiry_close(inquiry);
}

/* ---- publishing ------------------------------------------------------------------------------------------------- */

static json_t *inquiry_describe_published(struct inquiry *inquiry)
{
    const struct publication *publication = inquiry->publication;
    inquiry->told = publication->events;
    return json_pack("{s:I, s:I, s:I, s:I}", "events", (json_int_t)publication->events, "bytes",
                     (json_int_t)publication->event_bytes, "received", (json_int_t)publication->received, "receivers",
                     (json_int_t)publication->receivers);
}

/* Report progress. */
static void inquiry_acknowledge(struct inquiry *inquiry)
{
    inquiry_answer(inquiry, json_pack("{s:o}", "published", inquiry_describe_published(inquiry)));
}

/* Report the final result. */
static void inquiry_conclude(struct inquiry *inquiry)
{
    json_t *published = inquiry_describe_published(inquiry);
    inquiry->state = INQUIRY_LEAVING;
    if (inquiry->error == NULL)
        inquiry_answer(inquiry, json_pack("{s:o, s:b}", "published", published, "end", true));
    else
        inquiry_answer(inquiry, json_pack("{s:s, s:s, s:o}", "error", inquiry->error, "detail", inquiry->detail,
                                          "published", published));
}

/* No more events will arrive: after an error, or because that was all. Only one answer is sent at a time. */
static void inquiry_end_publication(struct inquiry *inquiry, const char *error, const char *detail)
{
    inquiry->state = INQUIRY_ENDING;
    inquiry->error = error;
    inquiry->detail = detail;
    uv_read_stop((uv_stream_t *)&inquiry->pipe);
    if (inquiry->answer == NULL)
        inquiry_conclude(inquiry);
}

/* Publish what was read, once everything that Kamailio had said before is read. The rest of the turn is left to the
 * clients. */
static void inquiry_publish_in_turn(struct inquiry *inquiry)
{
    struct publication *publication = inquiry->publication;
    const struct status_subject *subject = inquiry->control->subject;
    if (!progress_can_go_on(subject->kamailio, inquiry->mark) || subject->bus->flush.behind)
        return;
    const char *why = publication_publish(publication, subject->bus, inquiry->pending);
    inquiry->pending = 0;
    inquiry->behind = publication->more;
    if (why != NULL) {
        inquiry_end_publication(inquiry, "bad stream", why);
        return;
    }
    if (inquiry->answer == NULL && publication->events > inquiry->told)
        inquiry_acknowledge(inquiry);
}

/* This many bytes of events have arrived. */
static void inquiry_publish(struct inquiry *inquiry, size_t length)
{
    uv_read_stop((uv_stream_t *)&inquiry->pipe);
    inquiry->resting = inquiry->behind = true;
    inquiry->pending = length;
    inquiry->mark = progress_catch_up_to(inquiry->control->subject->kamailio);
    inquiry_publish_in_turn(inquiry);
}

/* Bytes after the request are its first events. */
static void inquiry_begin_publication(struct inquiry *inquiry)
{
    size_t room = 0;
    char *bytes = publication_room(inquiry->publication, &room);
    if (bytes == NULL) {
        inquiry_close(inquiry);
        return;
    }
    memcpy(bytes, inquiry->request, inquiry->length); /* a batch has more room than a request */
    inquiry_publish(inquiry, inquiry->length);
}

static void inquiry_on_end(struct inquiry *inquiry, ssize_t error)
{
    if (inquiry->state != INQUIRY_PUBLISHING || error != UV_EOF)
        inquiry_close(inquiry);
    else if (publication_is_whole(inquiry->publication))
        inquiry_end_publication(inquiry, NULL, NULL);
    else
        inquiry_end_publication(inquiry, "bad stream", "it ended in the middle of an event");
}

static void inquiry_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct inquiry *inquiry = stream->data;
    (void)buf;
    if (n < 0) {
        inquiry_on_end(inquiry, n);
    } else if (inquiry->state == INQUIRY_PUBLISHING) {
        if (n > 0)
            inquiry_publish(inquiry, (size_t)n);
    } else if (inquiry->state == INQUIRY_ASKING) {
        inquiry->length += (size_t)n;
        inquiry_look(inquiry);
    }
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

/* The requester gets descriptors on this connection, so no other bytes may still wait to be written on it. */
static void inquiry_replace(struct inquiry *inquiry)
{
    uv_os_fd_t fd = -1;
    const struct control *control = inquiry->control;
    uv_read_stop((uv_stream_t *)&inquiry->pipe);
    uv_fileno((const uv_handle_t *)&inquiry->pipe, &fd);
    const char *why = control->replace(control->owner, fd);
    inquiry_reject(inquiry, "not replaced", why != NULL ? why : "");
}

/* Write the next slice of the report; further slices follow in later turns. */
static void inquiry_hear(struct inquiry *inquiry)
{
    size_t length = 0;
    char *slice = report_write(inquiry->report, &length);
    if (slice == NULL) {
        inquiry_close(inquiry);
        return;
    }
    if (report_is_over(inquiry->report)) {
        report_close(inquiry->report);
        inquiry->report = NULL;
        inquiry->state = INQUIRY_ASKING;
    }
    inquiry_write(inquiry, slice, length);
}

/* Act on the result of the request. */
static void inquiry_reply(struct inquiry *inquiry, struct request_reply *reply)
{
    struct control *control = inquiry->control;
    inquiry->state = INQUIRY_ASKING;
    if (reply->replace) {
        inquiry_replace(inquiry);
        return;
    }
    if (reply->report != NULL) {
        inquiry->state = INQUIRY_HEARING;
        inquiry->report = reply->report;
        inquiry_hear(inquiry);
        return;
    }
    if (reply->tail != NULL) {
        inquiry->state = INQUIRY_TAILING;
        inquiry->tail = reply->tail;
        inquiry_read(inquiry); /* to notice its end */
    }
    if (reply->publication != NULL) {
        inquiry->state = INQUIRY_PUBLISHING;
        inquiry->publication = reply->publication;
        control->publications++;
    }
    if (uv_is_closing((uv_handle_t *)&inquiry->pipe))
        return;
    inquiry_answer(inquiry, reply->answer != NULL
                                ? reply->answer
                                : json_pack("{s:s, s:s}", "error", reply->error, "detail", reply->detail));
    if (reply->publication != NULL && !uv_is_closing((uv_handle_t *)&inquiry->pipe))
        inquiry_begin_publication(inquiry);
}

/* The request's turn has come. */
static void inquiry_do(struct inquiry *inquiry)
{
    struct control *control = inquiry->control;
    struct request_reply reply;
    const char *end = memchr(inquiry->request, '\n', inquiry->length);
    const size_t length = (size_t)(end - inquiry->request);
    const struct request_subject subject = { .status = control->subject,
                                             .stats = &control->stats,
                                             .tails = &control->tails,
                                             .publications = control->publications,
                                             .in_turn = inquiry->in_turn,
                                             .reload = control->reload,
                                             .owner = control->owner };
    request_do(&subject, inquiry->request, length, &reply);
    inquiry->asked = true;
    inquiry->in_turn = reply.later;
    inquiry->mark = reply.mark;
    if (reply.later)
        return;
    inquiry->length -= length + 1;
    memmove(inquiry->request, end + 1, inquiry->length);
    inquiry_reply(inquiry, &reply);
}

/* Has a whole request arrived? */
static void inquiry_look(struct inquiry *inquiry)
{
    if (memchr(inquiry->request, '\n', inquiry->length) != NULL) {
        uv_read_stop((uv_stream_t *)&inquiry->pipe);
        inquiry->state = INQUIRY_WAITING;
        inquiry->in_turn = false;
    } else if (inquiry->length == sizeof(inquiry->request)) {
        inquiry_reject(inquiry, "too long", "a request is one line of less than 4096 bytes");
    }
}

/* An answer has been written: decide what is next. */
static void inquiry_go_on(struct inquiry *inquiry)
{
    struct control *control = inquiry->control;
    switch (inquiry->state) {
    case INQUIRY_ASKING:
        DL_DELETE(control->inquiries, inquiry);
        DL_APPEND(control->inquiries, inquiry);
        inquiry_read(inquiry);
        if (!uv_is_closing((uv_handle_t *)&inquiry->pipe))
            inquiry_look(inquiry);
        break;
    case INQUIRY_WAITING:
    case INQUIRY_HEARING:        /* waits for its turn */
    case INQUIRY_TAILING: break; /* the end of the turn shows more */
    case INQUIRY_PUBLISHING:
        if (inquiry->publication->events > inquiry->told)
            inquiry_acknowledge(inquiry);
        break;
    case INQUIRY_ENDING: inquiry_conclude(inquiry); break;
    case INQUIRY_LEAVING: inquiry_close(inquiry); break;
    }
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

static void inquiry_show(struct inquiry *inquiry)
{
    size_t length = 0;
    char *lines = inquiry->answer == NULL ? tail_collect(inquiry->tail, &length) : NULL;
    if (lines != NULL)
        inquiry_write(inquiry, lines, length);
}

/* Continue reading, if allowed. An endless publication must not keep evapid from stopping. */
static void inquiry_resume(struct inquiry *inquiry)
{
    const struct status_subject *subject = inquiry->control->subject;
    if (subject->kamailio->stopping) {
        inquiry_end_publication(inquiry, "stopping", "evapid is ending");
    } else if (!inquiry->behind && publication_may_go_on(inquiry->publication, subject->bus)) {
        inquiry->resting = false;
        inquiry_read(inquiry);
    }
}

/* Can the request be done, or more of its answer be written? */
static bool inquiry_is_ready(const struct inquiry *inquiry)
{
    const struct kamailio *kamailio = inquiry->control->subject->kamailio;
    return (inquiry->state == INQUIRY_WAITING && (!inquiry->in_turn || progress_can_go_on(kamailio, inquiry->mark))) ||
           (inquiry->state == INQUIRY_HEARING && inquiry->answer == NULL);
}

static struct inquiry *control_next(const struct control *control)
{
    struct inquiry *inquiry = NULL;
    DL_FOREACH(control->inquiries, inquiry)
    if (inquiry_is_ready(inquiry))
        return inquiry;
    return NULL;
}

/* A connection that was served moves behind the others. */
static void control_serve_one(struct control *control)
{
    struct inquiry *inquiry = control_next(control);
    if (inquiry == NULL)
        return;
    DL_DELETE(control->inquiries, inquiry);
    DL_APPEND(control->inquiries, inquiry);
    if (inquiry->state == INQUIRY_HEARING)
        inquiry_hear(inquiry);
    else
        inquiry_do(inquiry);
}

void control_serve(struct control *control)
{
    struct inquiry *inquiry = NULL;
    struct inquiry *next = NULL;
    DL_FOREACH_SAFE(control->inquiries, inquiry, next)
    if (inquiry->state == INQUIRY_PUBLISHING && inquiry->behind)
        inquiry_publish_in_turn(inquiry);
    control_serve_one(control);
}

bool control_is_busy(const struct control *control)
{
    const struct inquiry *inquiry = NULL;
    DL_FOREACH(control->inquiries, inquiry)
    if (inquiry->state == INQUIRY_PUBLISHING && inquiry->behind)
        return true;
    return control_next(control) != NULL;
}

void control_flush(struct control *control)
{
    struct inquiry *inquiry = NULL;
    struct inquiry *next = NULL;
    DL_FOREACH_SAFE(control->inquiries, inquiry, next)
    {
        if (inquiry->state == INQUIRY_TAILING)
            inquiry_show(inquiry);
        else if (inquiry->state == INQUIRY_PUBLISHING && (inquiry->resting || control->subject->kamailio->stopping))
            inquiry_resume(inquiry);
    }
}

/* The user with the most connections, including the newcomer's. On a tie it is the newcomer's user. */
static uid_t user_of_most(const struct control *control, uid_t newcomer)
{
    uid_t users[CONTROL_CONNECTIONS + 1] = { newcomer };
    unsigned count = 1;
    unsigned most = 0;
    const struct inquiry *inquiry = NULL;
    DL_FOREACH(control->inquiries, inquiry)
    users[count++] = inquiry->user;
    return crowd_user(users, count, &most);
}

/* How much is lost with a connection, from least to most: it has asked nothing yet; it has asked and may ask again; it
 * is being answered, is shown what passes, or publishes. */
enum use { USE_NONE, USE_IDLE, USE_AT_WORK };

static enum use inquiry_use(const struct inquiry *inquiry)
{
    if (inquiry->answer != NULL || inquiry->state != INQUIRY_ASKING)
        return USE_AT_WORK;
    return inquiry->asked ? USE_IDLE : USE_NONE;
}

/* Close one connection of the user with the most: first one that never asked, then the longest idle (connections stand
 * in the order of their last request). Close a working one only to admit another user. So silent connections do not
 * push out the one that an operator is watching, and a user with many connections only keeps himself out. */
static void control_make_room(struct control *control, uid_t newcomer)
{
    struct inquiry *inquiry = NULL;
    struct inquiry *leaves = NULL;
    const uid_t user = user_of_most(control, newcomer);
    DL_FOREACH(control->inquiries, inquiry)
    if (inquiry->user == user && (leaves == NULL || inquiry_use(inquiry) < inquiry_use(leaves)))
        leaves = inquiry;
    if (leaves == NULL || (user == newcomer && inquiry_use(leaves) == USE_AT_WORK))
        return;
    log_limited(&refusals, LEVEL_WARNING, SUBJECT, "%u connections are open: closed one of user %u, who has the most",
                control->count, (unsigned)user);
    inquiry_close(leaves);
}

static uid_t user_of(int fd)
{
    struct ucred peer = { .uid = (uid_t)-1 };
    socklen_t size = sizeof(peer);
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer.uid;
}

static void control_on_connect(void *owner, int fd)
{
    struct control *control = owner;
    const uid_t user = user_of(fd);
    if (control->count == CONTROL_CONNECTIONS)
        control_make_room(control, user);
    const bool room = control->count < CONTROL_CONNECTIONS && watch_has_room(control->loop, fd);
    struct inquiry *inquiry = room ? calloc(1, sizeof(*inquiry)) : NULL;
    if (inquiry == NULL) {
        log_limited(&refusals, LEVEL_WARNING, SUBJECT, "refused a connection: %u are open", control->count);
        passed_end(fd);
        return;
    }
    inquiry->control = control;
    inquiry->user = user;
    inquiry->pipe.data = inquiry;
    uv_pipe_init(control->loop, &inquiry->pipe, 0);
    DL_APPEND(control->inquiries, inquiry);
    control->count++;
    if (uv_pipe_open(&inquiry->pipe, fd) != 0) {
        close(fd);
        inquiry_close(inquiry);
        return;
    }
    inquiry_read(inquiry);
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
