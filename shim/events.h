/* Events: what evapid sends, run as event routes of the script.
 *
 * An event is current while its route runs; otherwise there is none. The variables $evapi(...) read the current
 * event. */
#ifndef EVAPI_EVENTS_H
#define EVAPI_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/pvar.h"
#include "core/str.h"
#include "evapid/wire.h"

#include "tags.h"

struct event {
    enum wire_type type; /* WIRE_NEW, WIRE_CLOSED or WIRE_MESSAGE */
    uint32_t session;    /* the evapid that assigned connection */
    uint32_t connection; /* index of the client's connection */
    uint32_t port;       /* the client's; of a Unix socket, its user's number */
    bool again;          /* NEW: a connection-new route has admitted the client before */
    str address;         /* the client's, without brackets; "unix" of a Unix socket */
    str message;         /* MESSAGE: any bytes; after them stands a NUL that is not part of the message */
    struct tag tag;
};

/* Look up the routes. callback is the script function for events without a route, or empty. Call it once, from
 * mod_init. */
void events_init(str callback);

/* Run the event's route or function, if the script has one. The event may be freed after the call. */
void events_run(struct event *event);

/* The event whose route runs in this process, or NULL. */
const struct event *events_current(void);

/* Is this the request that stands for an event in its route? */
bool events_is_request(const sip_msg_t *msg);

/* The current event's client has got another tag. */
void events_retag(const struct tag *tag);

/* For pv_export_t: the variables $evapi(name). */
int events_parse_variable(pv_spec_p spec, str *name);
int events_get_variable(sip_msg_t *msg, pv_param_t *param, pv_value_t *value);
int events_set_variable(sip_msg_t *msg, pv_param_t *param, int op, pv_value_t *value);

#endif
