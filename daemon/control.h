/* The control socket: requests of evapictl and other programs, a JSON object on a line each, answered likewise.
 * docs/protocol.md lists them. A connection may ask any number of times; an error in a request ends the connection. */
#ifndef EVAPID_CONTROL_H
#define EVAPID_CONTROL_H

#include <uv.h>

#include "door.h"
#include "status.h"

#define CONTROL_REQUEST_MAX 4096U /* bytes of a request's line */
#define CONTROL_CONNECTIONS 32U   /* at a time: one more takes the place of the one that has been idle longest */

struct inquiry;

/* Somebody on fd asks to take over. NULL: it has been done, and he is the one who goes on (does not return, in a daemon); or
 * why not. */
typedef const char *control_replace(void *owner, int fd);

/* Somebody asks for the configuration to be read again. NULL, and what has changed in *outcome; or why nothing has. */
struct reload_outcome;
typedef const char *control_reload(void *owner, struct reload_outcome *outcome);

struct control {
    uv_loop_t *loop;
    struct door door;
    const struct status_subject *subject;
    control_replace *replace;
    control_reload *reload;
    void *owner;               /* of both */
    struct inquiry *inquiries; /* list of the connections */
    unsigned count;
};

/* Listen at path, going on with an inherited socket if there is one. NULL, or why it can't. access and subject outlive it. */
const char *control_open(struct control *control, uv_loop_t *loop, const char *path, const struct door_access *access,
                         struct inherited_door inherited, const struct status_subject *subject);

/* Once a second. */
void control_tick(struct control *control);

void control_close(struct control *control);

#endif
