/* Writes lines without ever waiting for their reader. */
#include "base/outlet.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"

/* Open another file description of the same pipe or terminal: its O_NONBLOCK affects only us. */
static int open_own(int fd)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static void drop_own(struct outlet *outlet)
{
    if (outlet->kind == OUTLET_OWN)
        close(outlet->fd);
}

void outlet_open(struct outlet *outlet, int fd)
{
    struct stat file;
    drop_own(outlet);
    outlet->kind = OUTLET_FILE;
    outlet->fd = fd;
    if (fstat(fd, &file) != 0 || S_ISREG(file.st_mode))
        return;
    outlet->kind = S_ISSOCK(file.st_mode) ? OUTLET_SOCKET : OUTLET_SHARED;
    if (!S_ISFIFO(file.st_mode) && !S_ISCHR(file.st_mode))
        return;
    const int own = open_own(fd);
    if (own < 0)
        return;
    outlet->kind = OUTLET_OWN;
    outlet->fd = own;
}

/* The file description is shared and may be blocking. Pipes support RWF_NOWAIT (Linux 6.4). Otherwise a pipe that polls
 * writable accepts PIPE_BUF bytes, unless another process fills it in between; a terminal accepts one byte. */
static ssize_t write_shared(int fd, const char *bytes, size_t length)
{
    const struct iovec iov = { (void *)(uintptr_t)bytes, length };
    struct pollfd writable = { .fd = fd, .events = POLLOUT };
    const ssize_t n = pwritev2(fd, &iov, 1, -1, RWF_NOWAIT);
    if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL))
        return n;
    if (poll(&writable, 1, 0) > 0)
        return write(fd, bytes, isatty(fd) ? 1 : length);
    errno = EAGAIN;
    return -1;
}

static ssize_t write_piece(const struct outlet *outlet, const char *bytes, size_t length)
{
    switch (outlet->kind) {
    case OUTLET_SOCKET: return send(outlet->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    case OUTLET_SHARED: return write_shared(outlet->fd, bytes, length);
    case OUTLET_FILE:
    case OUTLET_OWN: break;
    }
    return write(outlet->fd, bytes, length);
}

/* As many whole lines as fit in PIPE_BUF bytes; of a longer line, a part. */
static size_t piece_length(const char *bytes, size_t length)
{
    if (length <= PIPE_BUF)
        return length;
    const char *end = memrchr(bytes, '\n', PIPE_BUF);
    return end != NULL ? (size_t)(end + 1 - bytes) : PIPE_BUF;
}

static uint64_t count_lines(const char *bytes, size_t length)
{
    uint64_t lines = 0;
    for (size_t i = 0; i < length; i++)
        lines += bytes[i] == '\n';
    return lines;
}

/* Nobody will read what waits: the reader is gone, or the disk is full. Reports of missed lines are lost with it, so
 * those lines are to be reported again. */
static void drop_all(struct outlet *outlet, size_t from)
{
    outlet->missed += count_lines(outlet->bytes + from, outlet->used - from) - outlet->parted;
    outlet->missed += outlet->told - outlet->tells;
    outlet->told = outlet->tells = 0;
    outlet->used = 0;
    outlet->cut = outlet->begun;
    outlet->parted = false;
}

size_t outlet_flush(struct outlet *outlet)
{
    size_t done = 0;
    while (done < outlet->used) {
        const ssize_t n =
            write_piece(outlet, outlet->bytes + done, piece_length(outlet->bytes + done, outlet->used - done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            drop_all(outlet, done);
        if (n <= 0)
            break;
        done += (size_t)n;
        outlet->begun = outlet->bytes[done - 1] != '\n';
        outlet->parted = false;
    }
    if (done == 0 || outlet->used == 0) /* nothing was written, or the rest was dropped */
        return done;
    outlet->used -= done;
    memmove(outlet->bytes, outlet->bytes + done, outlet->used);
    if (outlet->used == 0)
        outlet->told = outlet->tells = 0;
    return done;
}

static bool outlet_add(struct outlet *outlet, const char *line, size_t length)
{
    if (length + outlet->cut > OUTLET_ROOM - outlet->used)
        outlet_flush(outlet);
    if (length + outlet->cut > OUTLET_ROOM - outlet->used)
        return false;
    if (outlet->cut)
        outlet->bytes[outlet->used++] = '\n'; /* fits: nothing waits, all was dropped */
    outlet->parted = outlet->parted || outlet->cut;
    outlet->cut = false;
    memcpy(outlet->bytes + outlet->used, line, length);
    outlet->used += length;
    return true;
}

void outlet_put(struct outlet *outlet, const char *line, size_t length)
{
    /* After a missed line the report of it comes first, before any other line. */
    if (outlet->missed > 0 || !outlet_add(outlet, line, length))
        outlet->missed++;
    else
        outlet_flush(outlet);
}

bool outlet_tell(struct outlet *outlet, const char *line, size_t length)
{
    if (!outlet_add(outlet, line, length))
        return false;
    outlet->told += outlet->missed;
    outlet->tells++;
    outlet->missed = 0;
    outlet_flush(outlet);
    return outlet->missed == 0;
}

void outlet_close(struct outlet *outlet, unsigned limit_ms)
{
    const uint64_t end_ms = clock_monotonic_ms() + limit_ms;
    outlet_flush(outlet);
    for (uint64_t now_ms = clock_monotonic_ms(); outlet->used > 0 && now_ms < end_ms; now_ms = clock_monotonic_ms()) {
        struct pollfd writable = { .fd = outlet->fd, .events = POLLOUT };
        poll(&writable, 1, (int)(end_ms - now_ms));
        outlet_flush(outlet);
    }
    drop_own(outlet);
    outlet->kind = OUTLET_FILE;
    outlet->fd = -1;
}
