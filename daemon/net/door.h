/* A door: a Unix socket that evapid listens on. A file left behind by an evapid that has died is replaced; one that
 * somebody answers on is not.
 *
 * Who may come in is said twice: by the mode and group of the file, which the kernel checks when somebody connects, and by
 * a list of users, which the door checks against the kernel's word (SO_PEERCRED) on who it was. */
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
    bool restricted; /* only evapid's own user, root and these may come in; else whoever can open the file */
    size_t user_count;
    uid_t users[DOOR_USERS_MAX];
    bool passes; /* they have descriptors to hand over */
};

#define DOOR_OWN_GROUP ((gid_t)-1)

/* A connection has come in on fd, which now belongs to the callee. */
typedef void door_opened(void *owner, int fd);

struct holdings;
struct state_in;
struct state_out;

struct door {
    char path[EVAPID_PATH_MAX + 1];
    int fd;         /* -1: closed */
    bool paused;    /* out of descriptors: listens again at the next tick */
    bool exhausted; /* the last accept found none, which has been logged */
    dev_t device;   /* of our file, so that another's is never removed */
    ino_t inode;
    bool inherited;                 /* it was open before us: on a failed start it may still be another's */
    char left[EVAPID_PATH_MAX + 1]; /* where the inherited socket was, if that is another path: to be removed */
    dev_t left_device;
    ino_t left_inode;
    uv_poll_t *poll;
    const struct door_access *access;
    uint64_t refused; /* connections of users who may not come in */
    door_opened *opened;
    void *owner;
};

/* It is closed, and may be opened. */
static inline void door_init(struct door *door)
{
    door->fd = -1;
}

/* A socket of the evapid before us that listens at its path, and its file (door_load); fd -1: there is none. */
struct inherited_door {
    int fd;
    dev_t device;
    ino_t inode;
    uint64_t refused; /* up to now */
};

/* Listen at path, going on with an inherited socket if it is still there; access outlives the door. Returns NULL, or why it
 * can't: text that stays valid until the next call. */
const char *door_open(struct door *door, uv_loop_t *loop, const char *path, const struct door_access *access,
                      struct inherited_door inherited, door_opened *opened, void *owner);

/* May a process of that user come in? */
bool door_admits(const struct door_access *access, uid_t user);

/* It is ours for good: give an inherited socket's file the mode and group that the configuration says, and remove the file
 * of one that was elsewhere. Not before, for until then both may still be another's. */
void door_settle(struct door *door);

/* Once a second: listen again after a pause. */
void door_tick(struct door *door);

/* What a reload prepares for a door: another socket, or another mode and group of its file. */
struct door_change {
    struct door next;   /* moves: the other socket; path and access in any case */
    bool moves;         /* it is to be elsewhere, or its file has gone */
    struct stat before; /* else: the file as it was */
};

/* Prepare to have the door at that path with that access. Returns NULL, and either door_commit or door_cancel is to follow
 * before the loop runs; or why it can't be, and nothing has changed. Its access is the caller's to change. */
const char *door_prepare(struct door_change *change, uv_loop_t *loop, struct door *door, const char *path,
                         const struct door_access *access);
void door_commit(struct door_change *change, struct door *door);
void door_cancel(struct door_change *change, const struct door *door);

/* Listen no more and remove the file. */
void door_close(struct door *door);

/* Write the door for a successor; read it back, and take its socket out of the holdings, where it is called name. */
void door_save(const struct door *door, struct state_out *out);
void door_load(struct inherited_door *inherited, struct state_in *in, struct holdings *holdings, const char *name);

#endif
