/* The control socket: requests of evapictl and other programs, a JSON object on a line each, answered likewise.
 *
 * It owns the connections; what requests mean is in requests.h, and docs/protocol.md lists them. A connection may ask any
 * number of times. Two requests change what it is for: from then on it is shown what passes (tail.h), or what it sends are
 * events (publication.h). */
#ifndef EVAPID_CONTROL_H
#define EVAPID_CONTROL_H

#include <uv.h>

#include "control/requests.h"
#include "net/door.h"
#include "views/stats.h"
#include "views/status.h"
#include "views/tail.h"

#define CONTROL_REQUEST_MAX 4096U /* bytes of a request's line */
#define CONTROL_CONNECTIONS 32U   /* at a time: one more takes the place of one of the user who has the most */

struct inquiry;

/* Somebody on fd asks to take over. NULL: it has been done, and he is the one who goes on (does not return, in a daemon); or
 * why not. */
typedef const char *control_replace(void *owner, int fd);

struct control {
    uv_loop_t *loop;
    struct door door;
    const struct status_subject *subject;
    control_replace *replace;
    request_reload *reload;
    void *owner;               /* of both */
    struct inquiry *inquiries; /* list of the connections */
    unsigned count, publications;
    struct stats stats;
    struct tails tails;
};

/* Listen at path, going on with an inherited socket if there is one. NULL, or why it can't. access and subject outlive it. */
const char *control_open(struct control *control, uv_loop_t *loop, const char *path, const struct door_access *access,
                         struct inherited_door inherited, const struct status_subject *subject);

/* The end of a loop turn, before the bus's: do a request, or write a slice of an answer. One in a turn for all connections together,
 * which take turns, so that whoever asks, however much and how often, holds nobody up. Is there more to do in the next turn? */
void control_serve(struct control *control);
bool control_is_busy(const struct control *control);

/* The end of a loop turn, behind the bus's: show what has passed, and go on with publications. */
void control_flush(struct control *control);

/* Once a second. */
void control_tick(struct control *control);

void control_close(struct control *control);

#endif
