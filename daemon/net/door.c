/* Listening Unix sockets. */
#include "net/door.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "base/log.h"
#include "base/passed.h"
#include "base/state.h"
#include "base/watch.h"
#include "net/acceptor.h"

#define BACKLOG 511 /* a client that does not wait fails with EAGAIN when it is full */

static struct log_limit failures = { .kind = "unix sockets: failed accepts" };
static struct log_limit refusals = { .kind = "unix sockets: users refused" };

bool door_admits(const struct door_access *access, uid_t user)
{
    if (!access->restricted || user == 0 || user == geteuid())
        return true;
    for (size_t i = 0; i < access->user_count; i++)
        if (access->users[i] == user)
            return true;
    return false;
}

/* The user's name from this machine's own list: a directory service could keep evapid waiting. */
static void name_user(uid_t user, char *out, size_t room)
{
    FILE *list = fopen("/etc/passwd", "re");
    const struct passwd *entry = NULL;
    snprintf(out, room, "unknown");
    if (list == NULL)
        return;
    while ((entry = fgetpwent(list)) != NULL) /* NOLINT(concurrency-mt-unsafe): there is one thread */
        if (entry->pw_uid == user) {
            snprintf(out, room, "%s", entry->pw_name);
            break;
        }
    fclose(list);
}

static void door_refuse(struct door *door, const struct ucred *peer)
{
    char name[64];
    name_user(peer->uid, name, sizeof(name));
    door->refused++;
    log_limited(&refusals, LEVEL_WARNING, door->path, "refused pid %d of user %u (%s): it is not among users",
                (int)peer->pid, (unsigned)peer->uid, name);
}

/* The only place that checks who has connected. */
static bool door_take(void *owner, int fd, const struct sockaddr_storage *address)
{
    struct door *door = owner;
    struct ucred peer = { .uid = (uid_t)-1 };
    socklen_t size = sizeof(peer);
    (void)address;
    door->exhausted = false;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && door_admits(door->access, peer.uid)) {
        passed_allow(fd, door->access->passes);
        door->opened(door->owner, fd);
        return true;
    }
    passed_end(fd);
    door_refuse(door, &peer);
    return true;
}

static void door_on_poll(uv_poll_t *poll, int status, int events)
{
    struct door *door = poll->data;
    (void)status;
    (void)events;
    const int error = acceptor_run(door->fd, 1, door_take, door);
    if (error == 0)
        return;
    if (!door->exhausted)
        log_limited(&failures, LEVEL_ERROR, door->path, "cannot accept: %s; trying again every second",
                    strerror(error));
    door->exhausted = true;
    door->paused = true;
    uv_poll_stop(door->poll);
}

/* Remove a door's file if it is still the same file. */
void door_remove(const char *path, dev_t device, ino_t inode)
{
    struct stat file;
    if (lstat(path, &file) == 0 && file.st_dev == device && file.st_ino == inode)
        unlink(path);
}

static void door_watch(struct door *door)
{
    door->paused = watch_start(door->poll, UV_READABLE, door_on_poll) != 0;
}

void door_tick(struct door *door)
{
    if (!door->paused || door->fd < 0)
        return;
    door_watch(door);
}

/* The names of evapid's own user and of a group, in the form for install: from this machine's own lists, else their
 * numbers. */
static void name_owners(gid_t group, char user[64], char group_name[64])
{
    FILE *list = fopen("/etc/group", "re");
    const struct group *entry = NULL;
    name_user(geteuid(), user, 64);
    if (strcmp(user, "unknown") == 0)
        snprintf(user, 64, "%u", (unsigned)geteuid());
    snprintf(group_name, 64, "%u", (unsigned)group);
    if (list == NULL)
        return;
    while ((entry = fgetgrent(list)) != NULL) /* NOLINT(concurrency-mt-unsafe): there is one thread */
        if (entry->gr_gid == group) {
            snprintf(group_name, 64, "%s", entry->gr_name);
            break;
        }
    fclose(list);
}

static gid_t door_group(const struct door_access *access)
{
    return access->group != DOOR_OWN_GROUP ? access->group : getegid();
}

/* Write a path's folder to out; "." for a path without a slash. */
static void folder_of(const char *path, char out[EVAPID_PATH_MAX + 1])
{
    const char *slash = strrchr(path, '/');
    const char *from = slash != NULL ? path : ".";
    const size_t length = slash == NULL || slash == path ? 1 : (size_t)(slash - path);
    memcpy(out, from, length);
    out[length] = '\0';
}

/* Why the door's file cannot be made. If the folder is the cause, the text says what to do. */
static const char *door_failed(const struct door *door, int error)
{
    static char why[3 * EVAPID_PATH_MAX + 256];
    char folder[EVAPID_PATH_MAX + 1], user[64], group[64];
    folder_of(door->path, folder);
    name_owners(door_group(door->access), user, group);
    switch (error) {
    case ENOENT:
        snprintf(why, sizeof(why), "the folder %s is missing; make it as root: install -d -m 750 -o %s -g %s %s",
                 folder, user, group, folder);
        return why;
    case ENOTDIR: snprintf(why, sizeof(why), "%s is not a folder, or lies below a file", folder); return why;
    case EACCES: snprintf(why, sizeof(why), "user %s may not make a file in the folder %s", user, folder); return why;
    case ENOSPC:
    case EDQUOT: snprintf(why, sizeof(why), "no space is left in the folder %s", folder); return why;
    case EROFS: snprintf(why, sizeof(why), "the folder %s is on a file system that is read-only", folder); return why;
    default: return strerror(error);
    }
}

/* Does the file at the address have no listener any more? Returns NULL if the path is free to bind. */
static const char *clear_stale(const struct door *door, const struct sockaddr_un *address)
{
    struct stat file;
    if (lstat(address->sun_path, &file) != 0)
        return errno == ENOENT ? NULL : door_failed(door, errno);
    if (!S_ISSOCK(file.st_mode))
        return "a file of that name exists and is not a socket";
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

/* Make the file without rights for anybody: at no time may a user connect whom its mode and group will exclude. */
static int bind_shut(int fd, const struct sockaddr_un *address)
{
    const mode_t before = umask(0777);
    const int result = bind(fd, (const struct sockaddr *)address, sizeof(*address));
    const int error = errno;
    umask(before);
    errno = error;
    return result;
}

/* Give the file its configured mode and group, which may differ from those set by the evapid before. In between it has
 * only the rights that both allow. */
static const char *door_set_access(const struct door *door, const struct stat *file)
{
    static char why[128];
    const struct door_access *access = door->access;
    const gid_t group = door_group(access);
    const mode_t before = file->st_mode & 07777;
    if ((before & ~access->mode) != 0 && chmod(door->path, before & access->mode) != 0)
        return strerror(errno);
    if (file->st_gid != group && chown(door->path, (uid_t)-1, group) != 0) {
        snprintf(why, sizeof(why), "cannot give it to group %u (group): %s", (unsigned)group, strerror(errno));
        return why;
    }
    return chmod(door->path, access->mode) == 0 ? NULL : strerror(errno);
}

/* A connection inherits this from its listening socket before its first byte, and it may be of a user who will be
 * refused. */
static void door_guard(const struct door *door)
{
    passed_allow(door->fd, door->access->passes && !door->access->restricted);
}

static const char *bind_and_listen(struct door *door, const struct sockaddr_un *address)
{
    struct stat file;
    door->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (door->fd < 0)
        return strerror(errno);
    if (bind_shut(door->fd, address) != 0 || lstat(address->sun_path, &file) != 0)
        return door_failed(door, errno);
    door->device = file.st_dev;
    door->inode = file.st_ino;
    door_guard(door);
    /* Nobody can connect before the file has its final access. */
    const char *why = door_set_access(door, &file);
    if (why == NULL && listen(door->fd, BACKLOG) != 0)
        why = strerror(errno);
    return why;
}

/* The door had another path before. Its file is removed once the loop runs: until then it may still be another's. */
static void door_leave(struct door *door, const char *path, const struct inherited_door *inherited)
{
    snprintf(door->left, sizeof(door->left), "%s", path);
    door->left_device = inherited->device;
    door->left_inode = inherited->inode;
}

/* Is the inherited socket's file still at this path? Then keep both. */
static bool door_inherit(struct door *door, const struct inherited_door *inherited)
{
    struct stat file;
    struct sockaddr_un address = { 0 };
    socklen_t size = sizeof(address) - 1;
    if (inherited->fd < 0)
        return false;
    const bool named = getsockname(inherited->fd, (struct sockaddr *)&address, &size) == 0;
    const bool moved = named && strcmp(address.sun_path, door->path) != 0;
    if (moved)
        door_leave(door, address.sun_path, inherited);
    if (!named || moved || lstat(door->path, &file) != 0 || file.st_dev != inherited->device ||
        file.st_ino != inherited->inode) {
        close(inherited->fd);
        return false;
    }
    door->inherited = true;
    door->fd = inherited->fd;
    door_guard(door);
    door->device = file.st_dev;
    door->inode = file.st_ino;
    return true;
}

/* Watch the open socket from now on, with who as the handle's owner. Returns NULL, or why it cannot. */
static const char *door_begin(struct door *door, uv_loop_t *loop, struct door *who)
{
    door->poll = watch_open(loop, door->fd, who);
    return door->poll != NULL ? NULL : "no memory to watch it";
}

/* Close what is open. remove_it: remove the file too, if it is still ours. */
static void door_drop(struct door *door, bool remove_it)
{
    watch_close(door->poll);
    door->poll = NULL;
    if (door->fd >= 0)
        close(door->fd);
    door->fd = -1;
    if (remove_it)
        door_remove(door->path, door->device, door->inode);
}

const char *door_open(struct door *door, uv_loop_t *loop, const char *path, const struct door_access *access,
                      struct inherited_door inherited, door_opened *opened, void *owner)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    *door = (struct door){ .fd = -1, .access = access, .refused = inherited.refused, .opened = opened, .owner = owner };
    snprintf(door->path, sizeof(door->path), "%s", path);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    const bool goes_on = door_inherit(door, &inherited);
    const char *why = goes_on ? NULL : clear_stale(door, &address);
    if (why == NULL && !goes_on)
        why = bind_and_listen(door, &address);
    if (why == NULL)
        why = door_begin(door, loop, door);
    if (why != NULL) {
        door_drop(door, !goes_on);
        return why;
    }
    door_watch(door);
    return NULL;
}

void door_adopt(struct door *door)
{
    struct stat file;
    if (door->left[0] != '\0')
        door_remove(door->left, door->left_device, door->left_inode);
    door->left[0] = '\0';
    if (!door->inherited || lstat(door->path, &file) != 0)
        return;
    const char *why = door_set_access(door, &file);
    if (why != NULL)
        log_line(LEVEL_ERROR, door->path, "%s", why);
}

void door_close(struct door *door)
{
    if (door->fd < 0)
        return;
    door_drop(door, true);
}

/* ---- reload ----------------------------------------------------------------------------------------------------- */

static bool door_has_its_file(const struct door *door, struct stat *file)
{
    return lstat(door->path, file) == 0 && file->st_dev == door->device && file->st_ino == door->inode;
}

/* Open another socket at the path of change->next. Returns NULL, or why it cannot. */
static const char *door_prepare_move(struct door_change *change, uv_loop_t *loop, struct door *door)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", change->next.path);
    const char *why = clear_stale(&change->next, &address);
    if (why != NULL)
        return why;
    why = bind_and_listen(&change->next, &address);
    if (why == NULL)
        why = door_begin(&change->next, loop, door);
    if (why != NULL)
        door_drop(&change->next, true);
    return why;
}

const char *door_prepare(struct door_change *change, uv_loop_t *loop, struct door *door, const char *path,
                         const struct door_access *access)
{
    *change = (struct door_change){ .next = { .fd = -1, .access = access } };
    snprintf(change->next.path, sizeof(change->next.path), "%s", path);
    change->moves = strcmp(path, door->path) != 0 || !door_has_its_file(door, &change->before);
    if (change->moves)
        return door_prepare_move(change, loop, door);
    const char *why = door_set_access(&change->next, &change->before);
    if (why != NULL)
        door_cancel(change, door);
    return why;
}

void door_cancel(struct door_change *change, const struct door *door)
{
    const struct door_access was = { .mode = change->before.st_mode & 07777, .group = change->before.st_gid };
    struct stat now;
    if (change->moves) {
        door_drop(&change->next, true);
        return;
    }
    change->next.access = &was;
    const char *why = lstat(change->next.path, &now) == 0 ? door_set_access(&change->next, &now) : strerror(errno);
    if (why != NULL)
        log_line(LEVEL_ERROR, door->path, "cannot give it back its group and mode: %s", why);
}

void door_commit(struct door_change *change, struct door *door)
{
    if (!change->moves) {
        door_guard(door);
        return;
    }
    door_drop(door, true);
    memcpy(door->path, change->next.path, sizeof(door->path));
    door->fd = change->next.fd;
    door->device = change->next.device;
    door->inode = change->next.inode;
    door->poll = change->next.poll;
    door->exhausted = false;
    log_line(LEVEL_NOTICE, door->path, "listening");
    door_watch(door);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void door_save(const struct door *door, struct state_out *out)
{
    state_put(out, "device", (uint64_t)door->device);
    state_put(out, "inode", (uint64_t)door->inode);
    state_put(out, "refused", door->refused);
}

void door_load(struct inherited_door *inherited, struct state_in *in, struct descriptors *descriptors, const char *name)
{
    inherited->device = (dev_t)state_get(in, "device", 0);
    inherited->inode = (ino_t)state_get(in, "inode", 0);
    inherited->refused = state_get(in, "refused", 0);
    inherited->fd = descriptors_remove(descriptors, "%s", name);
}
