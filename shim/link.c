/* An evapi worker's life: attach to evapid, run the events that arrive, and when evapid is gone, log it and try again.
 * Owns the worker's socket, and which events it has run and acknowledged. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/dprint.h"
#include "core/ver.h"

#include "events.h"
#include "inbox.h"
#include "link.h"
#include "queue.h"
#include "tags.h"

/* Pauses between attempts double from the first to the last: a worker attaches again well within a second. */
#define RETRY_FIRST_MS 20U
#define RETRY_LAST_MS 500U
#define STEADY_MS 1000U /* after a link that lasted this long, pauses start with the first again */

#define ADMIT_RETRY_MS 1U /* how often a worker checks whether evapid has accepted its connection */
#define FULL_RETRY_MS 1U  /* how often a worker checks for room in a full queue */
#define DONE_MAX 16U      /* messages that may run before evapid is told */

static const char look_there[] = "see evapid's log";

static struct {
    const struct link_settings *settings;
    uint16_t index;
    int fd;           /* -1: not connected */
    uint32_t session; /* of the evapid that welcomed us; 0: not attached */
    uint64_t run;     /* sequence number of the last frame whose route has ended */
    uint64_t told;    /* the last one that evapid knows of */
    struct inbox inbox;
    const char *advice;  /* what to do about the last failure */
    uint64_t absent_for; /* presence_hash of the reason for the last failure; 0: the last attempt succeeded */
} worker = { .fd = -1, .advice = look_there };

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_ms(unsigned ms)
{
    const struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
    nanosleep(&pause, NULL);
}

/* Only the first worker logs what all workers would log at once. */
static bool is_speaker(void)
{
    return worker.index == 0;
}

/* ---- up, through the queue ------------------------------------------------------------------------------------- */

static bool is_connected(void)
{
    if (worker.fd < 0)
        return false;
    struct pollfd end = { .fd = worker.fd, .events = POLLRDHUP };
    return poll(&end, 1, 0) == 0;
}

/* While evapid is there to empty a full queue, wait for room. */
static enum ring_push put_control(struct ring_record record, const char *tag, size_t tag_length)
{
    for (;;) {
        const enum ring_push pushed = queue_put(record, tag, tag_length, "", 0);
        if (pushed != RING_FULL || !is_connected())
            return pushed;
        queue_forgive();
        queue_wake();
        pause_ms(FULL_RETRY_MS);
    }
}

enum ring_push link_push_control(struct ring_record record, const char *tag, size_t tag_length)
{
    const enum ring_push pushed = put_control(record, tag, tag_length);
    queue_wake();
    return pushed;
}

/* Tell evapid which routes have ended. If evapid is gone, it need not know. If nothing waits for the news, evapid need
 * not be woken; but if it waits at a hole, this record may be the one there. */
static void tell_done(void)
{
    const struct ring_record record = {
        .type = RING_DONE, .worker = worker.index, .session = worker.session, .target = worker.run
    };
    put_control(record, "", 0);
    if (queue_awaited(worker.index) > worker.told || queue_waits_at_hole())
        queue_wake();
    worker.told = worker.run;
}

/* ---- down, from the socket ------------------------------------------------------------------------------------- */

/* Run the route of an event. Some of Kamailio's functions need a NUL after the message. That byte may be the first of
 * the next frame, so it is restored afterwards. */
static void run_event(const struct inbox_frame *frame, const struct wire_event *wire)
{
    uint32_t user = 0;
    const bool is_user = wire_event_is_of_user(wire, &user);
    struct event event = {
        .type = frame->type,
        .session = worker.session,
        .connection = wire->connection,
        .port = is_user ? user : wire->port,
        .again = wire->again,
        .address = { .s = (char *)(uintptr_t)wire->address.bytes,
                     .len = is_user ? (int)strlen("unix") : (int)wire->address.length },
        .message = { .s = (char *)(uintptr_t)wire->message.bytes, .len = (int)wire->message.length },
        .tag = { .length = wire->tag.length },
    };
    memcpy(event.tag.bytes, wire->tag.bytes, wire->tag.length);
    const struct tag *newer = tags_recall(wire->connection);
    if (newer != NULL)
        event.tag = *newer;
    unsigned char *end = frame->body + frame->length;
    const unsigned char next = *end;
    *end = '\0';
    queue_started(worker.index, wire->sequence);
    if (frame->type == WIRE_MESSAGE)
        queue_note_start(worker.index, wire->read_ns);
    events_run(&event);
    *end = next;
    if (frame->type == WIRE_CLOSED)
        tags_forget(wire->connection);
    worker.run = wire->sequence;
}

static const char *take_event(const struct inbox_frame *frame)
{
    struct wire_event wire;
    if (!wire_read_event(frame->body, frame->length, &wire))
        return "it sent a malformed event";
    if (wire.sequence != worker.run + 1)
        return "it sent an event out of sequence";
    run_event(frame, &wire);
    /* A client waits for the end of its connection-new route, so tell evapid now. Messages are acknowledged in batches,
     * at the latest when this worker has nothing more to run. */
    if (frame->type != WIRE_MESSAGE || worker.run - worker.told >= DONE_MAX || !inbox_ready(&worker.inbox))
        tell_done();
    return NULL;
}

static const char *take_notice(const struct inbox_frame *frame)
{
    uint8_t level;
    struct wire_text text;
    if (!wire_read_notice(frame->body, frame->length, &level, &text))
        return "it sent a malformed notice";
    if (level == WIRE_NOTICE_ERROR)
        LM_ERR("evapid: %.*s\n", (int)text.length, text.bytes);
    else if (level == WIRE_NOTICE_WARNING)
        LM_WARN("evapid: %.*s\n", (int)text.length, text.bytes);
    else
        LM_INFO("evapid: %.*s\n", (int)text.length, text.bytes);
    return NULL;
}

static const char *take_frame(const struct inbox_frame *frame)
{
    switch (frame->type) {
    case WIRE_NEW:
    case WIRE_CLOSED:
    case WIRE_MESSAGE: return take_event(frame);
    case WIRE_NOTICE: return take_notice(frame);
    default: return "it sent a frame that has no place in the conversation";
    }
}

/* ---- attaching ------------------------------------------------------------------------------------------------- */

static const char *advice_about(int error)
{
    if (error == ENOENT || error == ECONNREFUSED)
        return "start evapid, or name its kamailio_socket in the parameter socket";
    if (error == EACCES)
        return "have Kamailio run in the group of the socket, or name its own in evapid's kamailio_access";
    return look_there;
}

static const char *connect_socket(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", worker.settings->socket);
    worker.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool connected = worker.fd >= 0 && connect(worker.fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    worker.advice = connected ? look_there : advice_about(errno);
    return connected ? NULL : strerror(errno);
}

static struct wire_text text_of(const char *string)
{
    return (struct wire_text){ .bytes = string, .length = strlen(string) };
}

/* Send one frame with the queue's file descriptors. */
static const char *send_with_queue(const void *frame, size_t size)
{
    union {
        char bytes[CMSG_SPACE(QUEUE_FDS * sizeof(int))];
        struct cmsghdr align;
    } control = { .bytes = { 0 } };
    struct iovec vector = { .iov_base = (void *)(uintptr_t)frame, .iov_len = size };
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(QUEUE_FDS * sizeof(int));
    memcpy(CMSG_DATA(rights), queue_fds(), QUEUE_FDS * sizeof(int));
    ssize_t sent = -1;
    /* The kernel refuses to pass descriptors until evapid has checked who we are. */
    while ((sent = sendmsg(worker.fd, &message, MSG_NOSIGNAL)) < 0 && errno == EPERM)
        pause_ms(ADMIT_RETRY_MS);
    if (sent < 0)
        return strerror(errno);
    return (size_t)sent == size ? NULL : "it took only a part of the greeting";
}

static const char *send_hello(void)
{
    const struct link_settings *settings = worker.settings;
    const struct wire_hello hello = {
        .version = WIRE_VERSION,
        .instance = settings->instance,
        .pid = (uint32_t)settings->kamailio,
        .worker = worker.index,
        .workers = settings->workers,
        .max_clients = settings->max_clients,
        .framing = settings->netstrings ? WIRE_FRAMING_NETSTRING : WIRE_FRAMING_RAW,
        .keep_clients = settings->keep_clients,
        .bind_addr = text_of(settings->bind_addr),
        .module_version = text_of(EVAPID_VERSION),
        .kamailio_version = text_of(ver_version),
    };
    char frame[WIRE_HEADER + WIRE_HELLO_MAX];
    const size_t size = wire_write_hello(frame, sizeof(frame), &hello);
    return size > 0 ? send_with_queue(frame, size) : "the greeting is too long";
}

static const char *take_welcome(const struct inbox_frame *frame)
{
    struct wire_welcome welcome;
    if (!wire_read_welcome(frame->body, frame->length, &welcome) || welcome.session == 0)
        return "it sent a malformed welcome";
    if (welcome.version != WIRE_VERSION)
        return "it speaks another version of the protocol";
    worker.session = welcome.session;
    worker.absent_for = 0;
    queue_first_to_say("", 0);
    if (is_speaker())
        LM_NOTICE("attached to evapid %.*s (pid %u) at %s\n", (int)welcome.evapid_version.length,
                  welcome.evapid_version.bytes, welcome.pid, worker.settings->socket);
    return NULL;
}

static const char refused[] = "it refuses this Kamailio";

/* Why evapid refused us. The first worker that is told logs it, once for all. */
static const char *take_refused(const struct inbox_frame *frame)
{
    uint32_t version;
    struct wire_text reason;
    if (!wire_read_refused(frame->body, frame->length, &version, &reason))
        return "it sent a malformed refusal";
    if (queue_first_to_say(reason.bytes, reason.length))
        LM_ERR("evapid at %s refuses this Kamailio: %.*s; trying on\n", worker.settings->socket, (int)reason.length,
               reason.bytes);
    return refused;
}

static const char *await_welcome(void)
{
    struct inbox_frame frame;
    for (;;) {
        const char *why = inbox_next(&worker.inbox, worker.fd, &frame);
        if (why != NULL)
            return why;
        if (frame.type == WIRE_WELCOME)
            return take_welcome(&frame);
        if (frame.type == WIRE_REFUSED)
            return take_refused(&frame);
        why = frame.type == WIRE_NOTICE ? take_notice(&frame) : "it didn't answer the greeting";
        if (why != NULL)
            return why;
    }
}

static const char *attach(void)
{
    worker.run = worker.told = 0;
    const char *why = connect_socket();
    if (why == NULL)
        why = send_hello();
    if (why == NULL)
        why = await_welcome();
    return why;
}

/* ---- the worker ------------------------------------------------------------------------------------------------ */

static const char *serve(void)
{
    struct inbox_frame frame;
    const char *why = NULL;
    while (why == NULL) {
        why = inbox_next(&worker.inbox, worker.fd, &frame);
        if (why == NULL)
            why = take_frame(&frame);
    }
    return why;
}

/* Clear attached, so that scripts know that nobody will answer, unless another worker has found a newer evapid
 * already. */
static void leave_presence(void)
{
    struct presence *presence = queue_presence();
    if (atomic_load_explicit(&presence->session, memory_order_acquire) == worker.session)
        atomic_store_explicit(&presence->attached, 0, memory_order_release);
}

/* Log a failed attempt, but not if the one before failed for the same reason. A missing bus is an error, so that a
 * Kamailio that shows nothing else (debug=-1) shows it. */
static void log_absent(const char *why)
{
    const uint64_t hash = presence_hash(why, strlen(why));
    if (is_speaker() && why != refused && hash != worker.absent_for)
        LM_ERR("evapid is not there (%s: %s); %s; trying on\n", worker.settings->socket, why, worker.advice);
    worker.absent_for = hash;
}

static void log_lost(const char *why)
{
    if (is_speaker() || why != inbox_closed)
        LM_ERR("lost evapid at %s (%s): events wait in the queue until it is back\n", worker.settings->socket, why);
}

static void detach(const char *why)
{
    if (worker.session != 0) {
        leave_presence();
        log_lost(why);
    } else {
        log_absent(why);
    }
    worker.session = 0;
    if (worker.fd >= 0) {
        shutdown(worker.fd, SHUT_RDWR); /* a child forked by a script may hold the socket too */
        close(worker.fd);
    }
    worker.fd = -1;
    inbox_clear(&worker.inbox);
    tags_forget_all();
}

/* Kamailio's children survive when its main process is killed. A surviving worker would keep the place at evapid that
 * the next Kamailio wants. */
static void end_with_kamailio(void)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != worker.settings->kamailio)
        _exit(0);
}

void link_work(uint16_t index, const struct link_settings *settings)
{
    worker.index = index;
    worker.settings = settings;
    end_with_kamailio();
    unsigned pause = RETRY_FIRST_MS;
    for (;;) {
        const uint64_t began = now_ms();
        const char *why = attach();
        if (why == NULL)
            why = serve();
        if (worker.session != 0 && now_ms() - began >= STEADY_MS)
            pause = RETRY_FIRST_MS;
        detach(why);
        pause_ms(pause);
        pause = pause * 2 < RETRY_LAST_MS ? pause * 2 : RETRY_LAST_MS;
    }
}
