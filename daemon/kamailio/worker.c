/* The Unix socket of one evapi worker: its HELLO in, frames out. */
#include "kamailio/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "base/passed.h"
#include "base/state.h"
#include "base/watch.h"

#define FLUSH_IOVECS 128

static const char ended[] = "its process has ended";

static void worker_on_poll(uv_poll_t *poll, int status, int events);

void worker_watch(struct worker *worker)
{
    const int events = UV_READABLE | (worker->blocked ? UV_WRITABLE : 0);
    if (events == worker->watched || worker->state == WORKER_DEPARTED)
        return; /* otherwise libuv would ask the kernel again */
    worker->watched = watch_start(&worker->poll, events, worker_on_poll) == 0 ? events : 0;
}

static void worker_on_process_end(uv_poll_t *poll, int status, int events)
{
    struct worker *worker = poll->data;
    (void)status;
    (void)events;
    worker->host->lost(worker, ended);
}

void worker_watch_process(struct worker *worker)
{
    const enum lifetime_sight sight =
        lifetime_watch(&worker->lifetime, worker->poll.loop, worker->fd, worker_on_process_end, worker);
    if (sight == LIFETIME_ENDED)
        worker->host->lost(worker, ended);
}

static void worker_know_peer(struct worker *worker)
{
    struct ucred peer = { .uid = (uid_t)-1 };
    socklen_t size = sizeof(peer);
    getsockopt(worker->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    worker->pid = (uint32_t)peer.pid;
    worker->user = (uint32_t)peer.uid;
}

struct worker *worker_open(uv_loop_t *loop, int fd, const struct worker_host *host)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL || !watch_has_room(loop, fd) || uv_poll_init(loop, &worker->poll, fd) != 0) {
        free(worker);
        passed_end(fd);
        return NULL;
    }
    worker->poll.data = worker;
    worker->host = host;
    worker->fd = fd;
    worker_know_peer(worker);
    worker->lifetime.pidfd = -1;
    worker->opened_ms = uv_now(loop);
    worker->passed[0] = worker->passed[1] = -1;
    worker_watch(worker);
    if (worker->watched != 0)
        return worker;
    worker_close(worker);
    return NULL;
}

struct worker *worker_open_lost(uv_loop_t *loop, const struct worker_host *host)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        return NULL;
    close(ends[1]);
    struct worker *worker = worker_open(loop, ends[0], host);
    if (worker != NULL)
        worker->lost = true;
    return worker;
}

/* ---- in -------------------------------------------------------------------------------------------------------- */

static void close_passed(struct worker *worker)
{
    for (int i = 0; i < 2; i++) {
        if (worker->passed[i] >= 0)
            passed_close(worker->passed[i]);
        worker->passed[i] = -1;
    }
}

static ssize_t worker_receive(struct worker *worker)
{
    return passed_receive(worker->fd, worker->input + worker->input_length,
                          sizeof(worker->input) - worker->input_length, worker->passed, 2, &worker->curtailed);
}

static void worker_note_query(struct worker *worker, size_t body)
{
    struct wire_hello hello = { 0 };
    struct wire_query query = { 0 };
    if (worker->host->query != NULL && wire_read_query(worker->input + WIRE_HEADER, body, &query, &hello.version))
        worker->host->query(worker, &query);
    else
        worker->host->bad_hello(worker, &hello);
}

/* Look for a complete HELLO or QUERY in the input. */
static void worker_parse(struct worker *worker)
{
    struct wire_hello hello = { 0 };
    enum wire_type type = WIRE_HELLO;
    size_t body = 0;
    const enum wire_status status = wire_header(worker->input, worker->input_length, WIRE_HELLO_MAX, &type, &body);
    if (status == WIRE_MORE)
        return;
    if (status == WIRE_BAD || (type != WIRE_HELLO && type != WIRE_QUERY)) {
        worker->host->bad_hello(worker, &hello);
        return;
    }
    if (worker->input_length < WIRE_HEADER + body)
        return;
    if (type == WIRE_QUERY) {
        worker_note_query(worker, body);
        return;
    }
    if (!wire_read_hello(worker->input + WIRE_HEADER, body, &hello) || worker->passed[1] < 0) {
        worker->host->bad_hello(worker, &hello);
        return;
    }
    const int memfd = worker->passed[0];
    const int wake_fd = worker->passed[1];
    worker->passed[0] = worker->passed[1] = -1;
    passed_allow(worker->fd, false); /* it has no more descriptors to send */
    worker->host->hello(worker, &hello, memfd, wake_fd);
}

static void worker_read(struct worker *worker)
{
    const ssize_t n = worker_receive(worker);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        worker->host->lost(worker, n < 0 ? strerror(errno) : "it has gone");
        return;
    }
    if (worker->state != WORKER_GREETING) {
        worker->host->lost(worker, "it sent something after its HELLO");
        return;
    }
    worker->input_length += (size_t)n;
    worker_parse(worker);
}

static void worker_on_poll(uv_poll_t *poll, int status, int events)
{
    struct worker *worker = poll->data;
    if (status < 0)
        worker->watched = 0; /* libuv has stopped the handle */
    if (worker->blocked && (events & UV_WRITABLE) != 0)
        worker_flush(worker);
    if (worker->state != WORKER_CLOSED && worker->state != WORKER_DEPARTED &&
        (status < 0 || (events & UV_READABLE) != 0))
        worker_read(worker);
}

void worker_wait(struct worker *worker, int memfd, int wake_fd)
{
    worker->state = WORKER_WAITING;
    if (memfd < 0)
        return;
    worker->passed[0] = memfd;
    worker->passed[1] = wake_fd;
}

void worker_hear_again(struct worker *worker)
{
    worker_parse(worker);
}

void worker_set_mark(struct worker *worker, struct kamailio_mark mark)
{
    worker->mark = mark;
}

void worker_attach(struct worker *worker, uint16_t index)
{
    worker->state = WORKER_ATTACHED;
    worker->index = index;
}

void worker_depart(struct worker *worker, const char *why, struct kamailio_mark mark)
{
    worker->state = WORKER_DEPARTED;
    worker->why = why;
    worker->mark = mark;
    worker->watched = 0;
    uv_poll_stop(&worker->poll);
    lifetime_forget(&worker->lifetime);
    shutdown(worker->fd, SHUT_RDWR); /* a successor that inherits the link finds it ended */
}

/* ---- out ------------------------------------------------------------------------------------------------------- */

struct post *post_new(enum wire_type type, struct seat *seat, const char *message, size_t length)
{
    struct post *post = malloc(sizeof(*post) + length);
    if (post == NULL)
        return NULL;
    post->type = type;
    post->seat = seat;
    post->sequence = 0;
    post->read_ns = 0;
    post->written = false;
    post->head_length = 0;
    post->length = length;
    if (length > 0)
        memcpy(post->message, message, length);
    return post;
}

static void worker_append(struct worker *worker, struct post *post)
{
    DL_APPEND(worker->posts, post);
    if (worker->unsent == NULL) {
        worker->unsent = post;
        worker->unsent_sent = 0;
    }
}

void worker_post(struct worker *worker, struct post *post, const struct wire_event *event)
{
    struct wire_event numbered = *event;
    numbered.sequence = ++worker->last_sequence;
    numbered.read_ns = post->read_ns;
    numbered.message = (struct wire_text){ post->message, post->length };
    post->sequence = numbered.sequence;
    post->written = false;
    post->head_length = wire_write_event(post->head, sizeof(post->head), post->type, &numbered);
    if (post->type == WIRE_MESSAGE) {
        worker->in_flight++;
        worker->in_flight_bytes += post->length;
    }
    worker_append(worker, post);
}

bool worker_say(struct worker *worker, const void *frame, size_t length)
{
    struct post *post = length > 0 ? post_new(WIRE_NOTICE, NULL, frame, length) : NULL;
    if (post != NULL)
        worker_append(worker, post);
    return post != NULL;
}

static struct post *worker_take(struct worker *worker, struct post *post)
{
    if (post == worker->unsent)
        worker->unsent = post->next;
    if (post->sequence > 0 && post->type == WIRE_MESSAGE) {
        worker->in_flight--;
        worker->in_flight_bytes -= post->length;
    }
    DL_DELETE(worker->posts, post);
    return post;
}

struct post *worker_pop_last(struct worker *worker)
{
    return worker->posts == NULL ? NULL : worker_take(worker, worker->posts->prev);
}

struct post *worker_pop_done(struct worker *worker, uint64_t up_to)
{
    struct post *post = worker->posts;
    if (post == NULL || post == worker->unsent || post->sequence == 0 || post->sequence > up_to)
        return NULL;
    return worker_take(worker, post);
}

static int worker_gather(const struct worker *worker, struct iovec iov[FLUSH_IOVECS])
{
    size_t skip = worker->unsent_sent;
    int n = 0;
    for (struct post *post = worker->unsent; post != NULL && n < FLUSH_IOVECS - 1; post = post->next) {
        if (skip < post->head_length)
            iov[n++] = (struct iovec){ post->head + skip, post->head_length - skip };
        skip = skip > post->head_length ? skip - post->head_length : 0;
        if (skip < post->length)
            iov[n++] = (struct iovec){ post->message + skip, post->length - skip };
        skip = 0;
    }
    return n;
}

/* bytes more have been written: advance unsent, and free posts that are not events. */
static void worker_sent(struct worker *worker, size_t bytes)
{
    bytes += worker->unsent_sent;
    while (worker->unsent != NULL && bytes >= worker->unsent->head_length + worker->unsent->length) {
        struct post *post = worker->unsent;
        bytes -= post->head_length + post->length;
        worker->unsent = post->next;
        if (post->sequence > 0) {
            post->written = true;
            worker->host->written(worker, post);
            continue;
        }
        DL_DELETE(worker->posts, post);
        free(post);
    }
    worker->unsent_sent = bytes;
}

void worker_flush(struct worker *worker)
{
    struct iovec iov[FLUSH_IOVECS];
    if (worker->state == WORKER_CLOSED || worker->state == WORKER_DEPARTED)
        return;
    worker->blocked = false;
    while (worker->unsent != NULL) {
        const struct msghdr message = { .msg_iov = iov, .msg_iovlen = (size_t)worker_gather(worker, iov) };
        const ssize_t n = sendmsg(worker->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            worker->blocked = errno == EAGAIN; /* other errors show when we read */
            break;
        }
        worker_sent(worker, (size_t)n);
    }
    if (worker->state == WORKER_ANSWERED && worker->unsent == NULL)
        worker->host->lost(worker, NULL);
    else
        worker_watch(worker);
}

void worker_answer(struct worker *worker, const void *frame, size_t length)
{
    worker->state = WORKER_ANSWERED;
    worker_say(worker, frame, length);
    worker_flush(worker);
}

void worker_refuse(struct worker *worker, const char *reason)
{
    unsigned char frame[WIRE_HEADER + WIRE_TEXT_MAX + 16];
    const struct wire_text text = { reason, strnlen(reason, WIRE_TEXT_MAX) };
    worker_say(worker, frame, wire_write_refused(frame, sizeof(frame), WIRE_VERSION, text));
    worker_flush(worker);
    worker->host->lost(worker, NULL);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void worker_save(const struct worker *worker, struct state_out *out)
{
    state_put(out, "pid", worker->pid);
    state_put(out, "last-sequence", worker->last_sequence);
    state_put(out, "unsent-sent", worker->unsent_sent);
    state_put(out, "blocked", worker->blocked);
}

bool worker_load(struct worker *worker, uint16_t index, struct state_in *in)
{
    worker_attach(worker, index);
    worker->pid = (uint32_t)state_get(in, "pid", 0);
    worker->last_sequence = state_get(in, "last-sequence", 0);
    worker->unsent_sent = (size_t)state_get(in, "unsent-sent", 0);
    worker->blocked = state_get(in, "blocked", 0) == 1;
    worker_watch(worker);
    return !in->at.failed;
}

void worker_save_post(const struct worker *worker, const struct post *post, struct state_out *out)
{
    state_put(out, "sequence", post->sequence);
    state_put(out, "read-ns", post->read_ns);
    state_put(out, "unsent", post == worker->unsent);
    state_put(out, "written", post->written);
    state_put_bytes(out, "head", post->head, post->head_length);
}

void worker_load_post(struct worker *worker, struct post *post, struct state_in *in)
{
    post->sequence = state_get(in, "sequence", 0);
    post->read_ns = state_get(in, "read-ns", 0);
    const bool unsent = state_get(in, "unsent", 0) == 1;
    post->written = state_get(in, "written", 0) == 1;
    const struct wire_text head = state_get_bytes(in, "head");
    if (head.length > sizeof(post->head))
        state_fail(in);
    else if (head.length > 0)
        memcpy(post->head, head.bytes, head.length);
    post->head_length = head.length <= sizeof(post->head) ? head.length : 0;
    if (post->sequence > 0 && post->type == WIRE_MESSAGE) {
        worker->in_flight++;
        worker->in_flight_bytes += post->length;
    }
    DL_APPEND(worker->posts, post);
    if (unsent)
        worker->unsent = post;
    if (unsent && worker->unsent_sent > post->head_length + post->length)
        state_fail(in);
}

static void worker_on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void worker_close(struct worker *worker)
{
    struct post *post = NULL;
    struct post *next = NULL;
    worker->state = WORKER_CLOSED;
    DL_FOREACH_SAFE(worker->posts, post, next)
    free(post);
    close_passed(worker);
    lifetime_forget(&worker->lifetime);
    uv_close((uv_handle_t *)&worker->poll, worker_on_closed);
    passed_end(worker->fd);
}
