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

struct door {
    char path[EVAPID_PATH_MAX + 1];
    int fd;         /* -1: closed */
    bool paused;    /* out of descriptors: listens again at the next tick */
    bool exhausted; /* the last accept found none, which has been logged */
    dev_t device;   /* of our file, so that another's is never removed */
    ino_t inode;
    uv_poll_t poll;
    door_opened *opened;
    void *owner;
};

/* Listen at path, whose file gets mode 0660. Returns NULL, or why it can't. */
const char *door_open(struct door *door, uv_loop_t *loop, const char *path, door_opened *opened, void *owner);

/* Once a second: listen again after a pause. */
void door_tick(struct door *door);

/* Listen no more and remove the file. */
void door_close(struct door *door);

#endif
