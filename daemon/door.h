/* A door: a Unix socket that evapid listens on. A file left behind by an evapid that has died is replaced; one that
 * somebody answers on is not. */
#ifndef EVAPID_DOOR_H
#define EVAPID_DOOR_H

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "evapid/limits.h"

/* A connection has come in on fd, which now belongs to the callee. */
typedef void door_opened(void *owner, int fd);

struct holdings;
struct state_in;
struct state_out;

struct door {
    char path[EVAPID_PATH_MAX + 1];
    int fd;       /* -1: closed */
    bool paused;  /* out of descriptors: listens again at the next tick */
    dev_t device; /* of our file, so that another's is never removed */
    ino_t inode;
    bool inherited;                 /* it was open before us: on a failed start it may still be another's */
    char left[EVAPID_PATH_MAX + 1]; /* where the inherited socket was, if that is another path: to be removed */
    dev_t left_device;
    ino_t left_inode;
    uv_poll_t poll;
    door_opened *opened;
    void *owner;
};

/* Listen at path, whose file gets mode 0660. Returns NULL, or why it can't. inherited: a socket that listens there and its
 * file (door_load), which are gone on with; its fd is -1 when there is none. */
struct inherited_door {
    int fd;
    dev_t device;
    ino_t inode;
};
const char *door_open(struct door *door, uv_loop_t *loop, const char *path, struct inherited_door inherited,
                      door_opened *opened, void *owner);

/* Once a second: listen again after a pause, and tidy up where the door was before. */
void door_tick(struct door *door);

/* Listen no more and remove the file. */
void door_close(struct door *door);

/* Write the door for a successor; read it back, and take its socket out of the holdings, where it is called name. */
void door_save(const struct door *door, struct state_out *out);
void door_load(struct inherited_door *inherited, struct state_in *in, struct holdings *holdings, const char *name);

#endif
