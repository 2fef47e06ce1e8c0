/* The control socket: requests of evapictl and other programs. Each request and each answer is a JSON object on one
 * line.
 *
 * This file owns the connections. requests.h says what requests mean, and docs/protocol.md lists them. A connection may
 * send any number of requests. Two requests change its purpose: then it is shown what passes (tail.h), or what it sends
 * are events (publication.h). */
#ifndef EVAPID_CONTROL_H
#define EVAPID_CONTROL_H

#include <uv.h>

#include "control/requests.h"
#include "net/door.h"
#include "views/stats.h"
#include "views/status.h"
#include "views/tail.h"

#define CONTROL_REQUEST_MAX 4096U /* bytes of a request's line */
#define CONTROL_CONNECTIONS 32U   /* at a time; one more replaces one of the user with the most */

struct inquiry;

/* The client on fd asks to take over. NULL: it has taken over and goes on (in a daemon this call then does not return).
 * Else why not. */
typedef const char *control_replace(void *owner, int fd);

struct control {
    uv_loop_t *loop;
    struct door door;
    const struct status_subject *subject;
    control_replace *replace;
    request_reload *reload;
    void *owner;               /* of both functions */
    struct inquiry *inquiries; /* list of the connections */
    unsigned count, publications;
    struct stats stats;
    struct tails tails;
};

/* Listen at path, with an inherited socket if there is one. Returns NULL, or why it cannot. access and subject outlive
 * it. */
const char *control_open(struct control *control, uv_loop_t *loop, const char *path, const struct door_access *access,
                         struct inherited_door inherited, const struct status_subject *subject);

/* control_serve: call it at the end of a loop turn, before the bus's. Does one request, or writes one slice of an
 * answer. A turn does one for all connections together, and connections take turns, so no connection holds others up by
 * asking much or often. control_is_busy: is there more to do in the next turn? */
void control_serve(struct control *control);
bool control_is_busy(const struct control *control);

/* Call it at the end of a loop turn, after the bus's: shows what has passed, and continues publications. */
void control_flush(struct control *control);

/* Call it once a second. */
void control_tick(struct control *control);

void control_close(struct control *control);

#endif
