/* Talks to the service manager without ever waiting for it. */
#include "base/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <uthash.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/descriptors.h"
#include "base/log.h"

#define TEXT_MAX 256U
#define PAUSE_MS 5 /* between two attempts while we wait: nothing shows when it has read */

enum notice_kind { NOTICE_STATE, NOTICE_ALIVE, NOTICE_KEEP, NOTICE_FORGET };

/* Something to be sent. */
struct notice {
    enum notice_kind kind;
    int fd;                          /* KEEP */
    char name[HOLDING_NAME_MAX + 1]; /* KEEP, FORGET */
    struct notice *prev, *next;      /* in the order of notices */
    UT_hash_handle hh;               /* KEEP: by name */
    char text[];                     /* STATE */
};

static struct {
    int fd; /* -1: there is no service manager */
    struct sockaddr_un address;
    socklen_t address_size;
    struct notice *notices; /* the waiting notices */
    struct notice *keeps;   /* uthash of those of kind KEEP */
    struct notice *alive;   /* the one of kind ALIVE */
    unsigned states;
} notify = { .fd = -1 };

static struct log_limit failures = { .kind = "service manager: messages it did not get" };

void notify_close(void)
{
    if (notify.fd >= 0)
        close(notify.fd);
    notify.fd = -1;
}

bool notify_open(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    const size_t length = path != NULL ? strlen(path) : 0;
    notify_close();
    if ((length == 0 || (path[0] != '/' && path[0] != '@')) || length >= sizeof(notify.address.sun_path))
        return false;
    notify.address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(notify.address.sun_path, path, length);
    if (path[0] == '@')
        notify.address.sun_path[0] = '\0';
    notify.address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (path[0] == '/'));
    notify.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return notify.fd >= 0;
}

/* Send a text, and a descriptor if there is one. False: errno says why. */
static bool send_text(const char *text, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { .bytes = { 0 } };
    struct iovec iov = { (void *)(uintptr_t)text, strlen(text) };
    struct msghdr message = {
        .msg_name = &notify.address, .msg_namelen = notify.address_size, .msg_iov = &iov, .msg_iovlen = 1
    };
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
    }
    return sendmsg(notify.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

static bool send_notice(const struct notice *notice)
{
    char text[TEXT_MAX];
    switch (notice->kind) {
    case NOTICE_STATE: return send_text(notice->text, -1);
    case NOTICE_ALIVE: return send_text("WATCHDOG=1", -1);
    case NOTICE_KEEP: snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", notice->name); break;
    case NOTICE_FORGET: snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", notice->name); break;
    }
    return send_text(text, notice->fd);
}

/* Does the service manager, or the kernel on its behalf, have no room now? */
static bool is_for_later(int error)
{
    return error == EAGAIN || error == EINTR || error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS;
}

/* ---- what waits ------------------------------------------------------------------------------------------------- */

static void drop(struct notice *notice)
{
    DL_DELETE(notify.notices, notice);
    if (notice->kind == NOTICE_KEEP)
        HASH_DEL(notify.keeps, notice);
    if (notice->kind == NOTICE_STATE)
        notify.states--;
    if (notice == notify.alive)
        notify.alive = NULL;
    free(notice);
}

static void drop_oldest_state(void)
{
    struct notice *notice = NULL;
    DL_FOREACH(notify.notices, notice)
    if (notice->kind == NOTICE_STATE) {
        drop(notice);
        return;
    }
}

static struct notice *make(enum notice_kind kind, int fd, const char *name, const char *text)
{
    struct notice *notice = malloc(sizeof(*notice) + strlen(text) + 1);
    if (notice == NULL)
        return NULL;
    *notice = (struct notice){ .kind = kind, .fd = fd };
    snprintf(notice->name, sizeof(notice->name), "%s", name);
    memcpy(notice->text, text, strlen(text) + 1);
    return notice;
}

static void append(struct notice *notice)
{
    DL_APPEND(notify.notices, notice);
    if (notice->kind == NOTICE_KEEP)
        HASH_ADD_STR(notify.keeps, name, notice);
    if (notice->kind == NOTICE_ALIVE)
        notify.alive = notice;
    if (notice->kind == NOTICE_STATE && ++notify.states > NOTIFY_STATES)
        drop_oldest_state();
}

/* False: memory is short. */
static bool say(enum notice_kind kind, int fd, const char *name, const char *text)
{
    struct notice *notice = make(kind, fd, name, text);
    if (notice == NULL)
        return false;
    append(notice);
    notify_flush();
    return true;
}

/* ---- sending
 * -------------------------------------------------------------------------------------------------------- */

/* The service manager's socket accepts nothing, now or later. */
static void fail(const struct notice *notice, int error)
{
    const char *what = notice->name;
    if (notice->kind == NOTICE_KEEP)
        log_limited(&failures, LEVEL_WARNING, what, "the service manager can't be told to keep it: %s",
                    strerror(error));
}

bool notify_flush(void)
{
    bool some = false;
    while (notify.notices != NULL) {
        if (send_notice(notify.notices))
            some = true;
        else if (is_for_later(errno))
            return some;
        else
            fail(notify.notices, errno);
        drop(notify.notices);
    }
    return false;
}

void notify_state(const char *format, ...)
{
    char text[TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (notify.fd >= 0)
        say(NOTICE_STATE, -1, "", text);
}

void notify_alive(void)
{
    if (notify.fd >= 0 && notify.alive == NULL)
        say(NOTICE_ALIVE, -1, "", "");
}

bool notify_keep(int fd, const char *name)
{
    return notify.fd < 0 || say(NOTICE_KEEP, fd, name, "");
}

void notify_forget(const char *name)
{
    struct notice *waiting = NULL;
    HASH_FIND_STR(notify.keeps, name, waiting);
    if (waiting != NULL)
        drop(waiting);
    else if (notify.fd >= 0)
        say(NOTICE_FORGET, -1, name, "");
}

/* ---- waiting, where it is allowed
 * ----------------------------------------------------------------------------------- */

static bool is_before(uint64_t end_ms)
{
    return clock_monotonic_ms() < end_ms;
}

static void pause_a_little(void)
{
    const struct timespec pause = { .tv_nsec = PAUSE_MS * 1000000L };
    nanosleep(&pause, NULL);
}

/* The service manager closes the descriptor of BARRIER=1 when it has done all that it was told before
 * (sd_notify_barrier(3)). */
static void await_barrier(uint64_t end_ms)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return;
    bool sent = false;
    while (!(sent = send_text("BARRIER=1", ends[1])) && is_for_later(errno) && is_before(end_ms))
        pause_a_little();
    close(ends[1]);
    struct pollfd closed = { .fd = ends[0] };
    const uint64_t now_ms = clock_monotonic_ms();
    if (sent && now_ms < end_ms)
        poll(&closed, 1, (int)(end_ms - now_ms));
    close(ends[0]);
}

void notify_drain(unsigned limit_ms)
{
    const uint64_t end_ms = clock_monotonic_ms() + limit_ms;
    if (notify.fd < 0)
        return;
    notify_flush();
    while (notify.notices != NULL && is_before(end_ms)) {
        pause_a_little();
        notify_flush();
    }
    if (notify.notices == NULL)
        await_barrier(end_ms);
    while (notify.notices != NULL) {
        const char *what = notify.notices->name;
        if (notify.notices->kind == NOTICE_KEEP)
            log_limited(&failures, LEVEL_WARNING, what, "not kept: the service manager has not taken it in %u s",
                        limit_ms / 1000);
        drop(notify.notices);
    }
}
