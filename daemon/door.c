/* Listening Unix sockets. */
#include "door.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "watch.h"

#define DOOR_MODE 0660 /* the owner and its group: the unit's group is Kamailio's */
#define BACKLOG 128

static struct log_limit failures = { .kind = "unix sockets: failed accepts" };

static void door_on_poll(uv_poll_t *poll, int status, int events)
{
    struct door *door = poll->data;
    (void)status;
    (void)events;
    const int fd = accept4(door->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        door->exhausted = false;
        door->opened(door->owner, fd);
        return;
    }
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
        return;
    if (!door->exhausted)
        log_limited(&failures, LEVEL_ERROR, door->path, "cannot accept: %s; trying again every second",
                    strerror(errno));
    door->exhausted = true;
    door->paused = true;
    uv_poll_stop(&door->poll);
}

void door_tick(struct door *door)
{
    if (!door->paused || door->fd < 0)
        return;
    door->paused = watch_start(&door->poll, UV_READABLE, door_on_poll) != 0;
}

/* Is the file at the address one that nobody listens on any more? Returns NULL when the path is free to bind. */
static const char *clear_stale(const struct sockaddr_un *address)
{
    struct stat file;
    if (lstat(address->sun_path, &file) != 0)
        return errno == ENOENT ? NULL : strerror(errno);
    if (!S_ISSOCK(file.st_mode))
        return "there is a file of that name, and it is no socket";
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return strerror(errno);
    const bool stale = connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 && errno == ECONNREFUSED;
    close(fd);
    if (!stale)
        return "another process listens there";
    log_line(LEVEL_NOTICE, address->sun_path, "replacing a socket that nobody listens on");
    return unlink(address->sun_path) == 0 ? NULL : strerror(errno);
}

static const char *bind_and_listen(struct door *door, const struct sockaddr_un *address)
{
    struct stat file;
    door->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (door->fd < 0 || bind(door->fd, (const struct sockaddr *)address, sizeof(*address)) != 0 ||
        chmod(address->sun_path, DOOR_MODE) != 0 || lstat(address->sun_path, &file) != 0 ||
        listen(door->fd, BACKLOG) != 0)
        return strerror(errno);
    door->device = file.st_dev;
    door->inode = file.st_ino;
    return NULL;
}

const char *door_open(struct door *door, uv_loop_t *loop, const char *path, door_opened *opened, void *owner)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    *door = (struct door){ .fd = -1, .opened = opened, .owner = owner };
    snprintf(door->path, sizeof(door->path), "%s", path);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    const char *why = clear_stale(&address);
    if (why == NULL)
        why = bind_and_listen(door, &address);
    if (why == NULL && uv_poll_init(loop, &door->poll, door->fd) != 0)
        why = "the event loop does not take it";
    if (why != NULL) {
        if (door->fd >= 0)
            close(door->fd);
        door->fd = -1;
        return why;
    }
    door->poll.data = door;
    door->paused = watch_start(&door->poll, UV_READABLE, door_on_poll) != 0;
    return NULL;
}

void door_close(struct door *door)
{
    struct stat file;
    if (door->fd < 0)
        return;
    uv_close((uv_handle_t *)&door->poll, NULL);
    close(door->fd);
    door->fd = -1;
    if (lstat(door->path, &file) == 0 && file.st_dev == door->device && file.st_ino == door->inode)
        unlink(door->path);
}
