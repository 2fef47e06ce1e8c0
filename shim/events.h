/* Events: what comes down from evapid, as event routes of the script.
 *
 * One event is current while its route runs, and none outside. The variables $evapi(...) read the current one. */
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
    uint32_t session;    /* the evapid that gave out connection */
    uint32_t connection; /* index of the client's connection */
    uint16_t port;       /* the client's */
    bool again;          /* NEW: a connection-new route has let it in before */
    str address;         /* the client's, without brackets */
    str message;         /* MESSAGE: any bytes; a NUL, which is no part of it, stands behind them */
    struct tag tag;
};

/* Look up the routes. callback is the script function to call for an event that has no route, or empty. Call it once, from mod_init. */
void events_init(str callback);

/* Run the route or the function of an event, if the script has one. The event need not outlive the call. */
void events_run(struct event *event);

/* The event whose route runs in this process, or NULL. */
const struct event *events_current(void);

/* Is that the request that stands for an event in its route? */
bool events_is_request(const sip_msg_t *msg);

/* The current event's client got another tag. */
void events_retag(const struct tag *tag);

/* For pv_export_t: the variables $evapi(name). */
int events_parse_variable(pv_spec_p spec, str *name);
int events_get_variable(sip_msg_t *msg, pv_param_t *param, pv_value_t *value);
int events_set_variable(sip_msg_t *msg, pv_param_t *param, int op, pv_value_t *value);

#endif
