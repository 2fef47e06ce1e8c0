/* A door: a Unix socket that evapid listens on. A file left by a dead evapid is replaced; one whose socket is still
 * answered is not.
 *
 * Access is limited twice. The kernel checks the file's mode and group when somebody connects. The door checks the user
 * that the kernel reports (SO_PEERCRED) against a list. */
#ifndef EVAPID_DOOR_H
#define EVAPID_DOOR_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <uv.h>

#include "evapid/limits.h"

#define DOOR_USERS_MAX 64U

struct door_access {
    mode_t mode;     /* of the file */
    gid_t group;     /* of the file; DOOR_OWN_GROUP: evapid's */
    bool restricted; /* only evapid's own user, root and these users may connect; else everybody who can open the
                        file */
    size_t user_count;
    uid_t users[DOOR_USERS_MAX];
    bool passes; /* connections may pass descriptors */
};

#define DOOR_OWN_GROUP ((gid_t)-1)

/* A connection has been accepted on fd, which belongs to the callee. */
typedef void door_opened(void *owner, int fd);

struct descriptors;
struct state_in;
struct state_out;

struct door {
    char path[EVAPID_PATH_MAX + 1];
    int fd;         /* -1: closed */
    bool paused;    /* out of descriptors: accepts again at the next tick */
    bool exhausted; /* the last accept found no descriptor, which has been logged */
    dev_t device;   /* of our file, so that we never remove another's */
    ino_t inode;
    bool inherited;                 /* it was open before us: until our start succeeds it may still be another's */
    char left[EVAPID_PATH_MAX + 1]; /* the inherited socket's file, if it was at another path: to be removed */
    dev_t left_device;
    ino_t left_inode;
    uv_poll_t *poll;
    const struct door_access *access;
    uint64_t refused; /* connections of users who are not allowed */
    door_opened *opened;
    void *owner;
};

/* The door is closed, and may be opened. */
static inline void door_init(struct door *door)
{
    door->fd = -1;
}

/* A socket of the evapid before us that listens at its path, and its file (door_load). fd -1: there is none. */
struct inherited_door {
    int fd;
    dev_t device;
    ino_t inode;
    uint64_t refused; /* so far */
};

/* Listen at path, with the inherited socket if it is still there; access outlives the door. Returns NULL, or why it
 * cannot: a text that is valid until the next call. */
const char *door_open(struct door *door, uv_loop_t *loop, const char *path, const struct door_access *access,
                      struct inherited_door inherited, door_opened *opened, void *owner);

/* May a process of this user connect? */
bool door_admits(const struct door_access *access, uid_t user);

/* The door is ours for good. Give the file of an inherited socket its configured mode and group, and remove a file at
 * another path. Do not call it earlier: both may still be another's. */
void door_adopt(struct door *door);

/* Call it once a second: accepts again after a pause. */
void door_tick(struct door *door);

/* A reload's change to a door: another socket, or another mode and group of its file. */
struct door_change {
    struct door next;   /* if it moves: the other socket; path and access in any case */
    bool moves;         /* it gets another path, or its file is gone */
    struct stat before; /* else: the file before the change */
};

/* Prepare the door for this path and access. Returns NULL, and the caller then calls door_commit or door_cancel before
 * the loop runs. Or returns why it cannot, and nothing has changed. The caller changes the access itself. */
const char *door_prepare(struct door_change *change, uv_loop_t *loop, struct door *door, const char *path,
                         const struct door_access *access);
void door_commit(struct door_change *change, struct door *door);
void door_cancel(struct door_change *change, const struct door *door);

/* Remove the file at this path, if it is this one. */
void door_remove(const char *path, dev_t device, ino_t inode);

/* Stop listening and remove the file. */
void door_close(struct door *door);

/* Write the door for a successor. Read it back, and take its socket, called name, from the descriptors. */
void door_save(const struct door *door, struct state_out *out);
void door_load(struct inherited_door *inherited, struct state_in *in, struct descriptors *descriptors,
               const char *name);

#endif
