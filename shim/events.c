/* Runs event routes, and serves the variables that they read. Owns the current event. Also owns the process's state
 * between two events: what a route leaves (header changes, branches, AVPs, ...) is removed before the next one
 * begins. */
#include <stdio.h>
#include <string.h>

#include "core/action.h"
#include "core/cfg/cfg_struct.h"
#include "core/dprint.h"
#include "core/fmsg.h"
#include "core/kemi.h"
#include "core/receive.h"
#include "core/route.h"
#include "core/script_cb.h"

#include "events.h"
#include "queue.h"

static str new_name = str_init("evapi:connection-new");
static str closed_name = str_init("evapi:connection-closed");
static str message_name = str_init("evapi:message-received");

static struct action *new_route, *closed_route, *message_route;
static str kemi_callback; /* for events without a route; empty: no callback */
static struct event *current;
static sip_msg_t request; /* what the current event's routes see as their request */
static char request_text[1024];

/* ---- routes ---------------------------------------------------------------------------------------------------- */

static struct action *look_up(const str *name)
{
    const int route = route_lookup(&event_rt, name->s);
    return route >= 0 ? event_rt.rlist[route] : NULL;
}

void events_init(str callback)
{
    new_route = look_up(&new_name);
    closed_route = look_up(&closed_name);
    message_route = look_up(&message_name);
    if (callback.len <= 0)
        return;
    if (sr_kemi_eng_get() != NULL)
        kemi_callback = callback;
    else
        LM_ERR(
            "parameter event_callback is \"%.*s\", but no KEMI script is loaded (cfgengine): only event routes are run\n",
            callback.len, callback.s);
}

static str *event_name(enum wire_type type)
{
    return type == WIRE_NEW ? &new_name : type == WIRE_CLOSED ? &closed_name : &message_name;
}

static struct action *event_route(enum wire_type type)
{
    return type == WIRE_NEW ? new_route : type == WIRE_CLOSED ? closed_route : message_route;
}

/* The script's own route runs first, separately for each event, as with EVAPI. */
static void run_script(sip_msg_t *msg, enum wire_type type)
{
    run_act_ctx_t context;
    init_run_actions_ctx(&context);
    if (event_route(type) != NULL) {
        run_top_route(event_route(type), msg, &context);
        return;
    }
    str *name = event_name(type);
    if (sr_kemi_ctx_route(sr_kemi_eng_get(), &context, msg, EVENT_ROUTE, &kemi_callback, name) < 0)
        LM_ERR("the function %.*s failed on %.*s\n", kemi_callback.len, kemi_callback.s, name->len, name->s);
}

/* Modules prepare for a request and clean up after it in the callbacks around the script: tm, for example, forgets the
 * failure and reply routes that were set. A callback may also prevent the script from running. */
static void run_with_callbacks(sip_msg_t *msg, enum wire_type type)
{
    const int outer = get_route_type();
    if (exec_pre_script_cb(msg, REQUEST_CB_TYPE) != 0) {
        set_route_type(EVENT_ROUTE);
        run_script(msg, type);
        exec_post_script_cb(msg, REQUEST_CB_TYPE);
    }
    set_route_type(outer);
}

/* Write the request's text: Kamailio's faked request with a branch of its own. Without it tm would take every event for
 * a retransmission of the last one, and a route that creates a transaction, as async_task_route does, would run only
 * sometimes. */
static int write_request(const sip_msg_t *model)
{
    const char *via = strstr(model->buf, "\r\nVia:");
    const char *end = via != NULL ? strstr(via + 2, "\r\n") : NULL;
    const int before = end != NULL ? (int)(end - model->buf) : (int)model->len;
    return snprintf(request_text, sizeof(request_text), "%.*s;branch=z9hG4bKevapi-%d-%u%.*s", before, model->buf,
                    model->pid, model->id, (int)model->len - before, model->buf + before);
}

/* A route runs for a request that belongs to its event alone. Kamailio's shared faked request would not do: functions
 * that continue a request later, in another process, refuse it. */
static bool make_request(void)
{
    sip_msg_t model;
    if (faked_msg_get_new(&model) < 0)
        return false;
    request = (sip_msg_t){ .buf = request_text,
                           .len = (unsigned)write_request(&model),
                           .id = model.id,
                           .pid = model.pid,
                           .rcv = model.rcv,
                           .set_global_address = model.set_global_address,
                           .set_global_port = model.set_global_port };
    free_sip_msg(&model);
    return request.len < sizeof(request_text) && parse_msg(request_text, request.len, &request) == 0;
}

bool events_is_request(const sip_msg_t *msg)
{
    return msg == &request;
}

void events_run(struct event *event)
{
    if (kemi_callback.len == 0 && event_route(event->type) == NULL)
        return;
    cfg_update();
    if (make_request()) {
        current = event;
        run_with_callbacks(&request, event->type);
        current = NULL;
    } else {
        LM_ERR("%s is not run: its request can't be made\n", event_name(event->type)->s);
    }
    /* A route may have added header changes or destinations. */
    ksr_msg_env_reset();
    free_sip_msg(&request);
    request = (sip_msg_t){ .buf = NULL };
}

const struct event *events_current(void)
{
    return current;
}

void events_retag(const struct tag *tag)
{
    current->tag = *tag;
    tags_keep(current->connection, tag);
}

/* ---- variables ------------------------------------------------------------------------------------------------- */

enum variable {
    VARIABLE_SRCADDR,
    VARIABLE_SRCPORT,
    VARIABLE_MSG,
    VARIABLE_CONIDX,
    VARIABLE_TAG,
    VARIABLE_AGAIN,
    VARIABLE_KEPT,
    VARIABLES
};

static const char *const variable_names[VARIABLES] = { "srcaddr", "srcport", "msg", "conidx", "tag", "again", "kept" };

int events_parse_variable(pv_spec_p spec, str *name)
{
    for (int variable = 0; variable < VARIABLES; variable++) {
        const char *known = variable_names[variable];
        if (name->len != (int)strlen(known) || memcmp(name->s, known, strlen(known)) != 0)
            continue;
        spec->pvp.pvn.type = PV_NAME_INTSTR;
        spec->pvp.pvn.u.isname.type = 0;
        spec->pvp.pvn.u.isname.name.n = variable;
        return 0;
    }
    LM_ERR("$evapi(%.*s) is unknown: there are srcaddr, srcport, msg, conidx, tag, again and kept\n", name->len,
           name->s);
    return -1;
}

static int get_tag(sip_msg_t *msg, pv_param_t *param, pv_value_t *value)
{
    if (current->tag.length == 0)
        return pv_get_null(msg, param, value);
    str tag = { .s = current->tag.bytes, .len = (int)current->tag.length };
    return pv_get_strval(msg, param, value, &tag);
}

/* How many events wait for the tag that the client has now. */
static int get_kept(sip_msg_t *msg, pv_param_t *param, pv_value_t *value)
{
    uint32_t events = 0;
    if (current->type != WIRE_NEW)
        return pv_get_null(msg, param, value);
    if (current->tag.length > 0 &&
        !waiting_get(&queue_ring()->waiting, presence_hash(current->tag.bytes, current->tag.length), &events))
        return pv_get_null(msg, param, value);
    return pv_get_uintval(msg, param, value, events);
}

int events_get_variable(sip_msg_t *msg, pv_param_t *param, pv_value_t *value)
{
    if (current == NULL)
        return pv_get_null(msg, param, value);
    switch ((enum variable)param->pvn.u.isname.name.n) {
    case VARIABLE_SRCADDR: return pv_get_strval(msg, param, value, &current->address);
    case VARIABLE_SRCPORT: return pv_get_uintval(msg, param, value, current->port);
    case VARIABLE_CONIDX: return pv_get_uintval(msg, param, value, current->connection);
    case VARIABLE_MSG:
        if (current->type == WIRE_MESSAGE)
            return pv_get_strval(msg, param, value, &current->message);
        break;
    case VARIABLE_TAG: return get_tag(msg, param, value);
    case VARIABLE_AGAIN:
        if (current->type == WIRE_NEW)
            return pv_get_uintval(msg, param, value, current->again);
        break;
    case VARIABLE_KEPT: return get_kept(msg, param, value);
    case VARIABLES: break;
    }
    return pv_get_null(msg, param, value);
}

/* EVAPI accepts an assignment to any of its variables and ignores it. */
int events_set_variable(sip_msg_t *msg, pv_param_t *param, int op, pv_value_t *value)
{
    (void)msg;
    (void)op;
    (void)value;
    if (queue_is_made() && queue_first_notice(QUEUE_NOTICE_ASSIGNED))
        LM_WARN("$evapi(%s) can't be changed: what the script assigns to it, or to another of these, is lost\n",
                variable_names[param->pvn.u.isname.name.n]);
    return 0;
}
