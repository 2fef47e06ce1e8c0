/* Transactions that wait for an application's answer: what tm allows, tm's suspensions, and the requests that a script
 * leaves without an answer. Owns the one request of this process whose async call has failed while its script still
 * runs. */
#include <dlfcn.h>

#include "core/dprint.h"
#include "core/fmsg.h"
#include "core/route.h"
#include "core/script_cb.h"
#include "core/sr_module.h"
#include "modules/sl/sl.h"

#include "events.h"
#include "transaction.h"

static const tm_api_t *tm;

/* ---- what tm says ---------------------------------------------------------------------------------------------- */

/* tm's own variable: the error of a relay that failed in this script, which tm answers when the script ends. It is not
 * in tm's API. NULL: this tm hides it, and such a request looks as if nothing was done with it. */
static const int *tm_relay_error;

static bool relay_failed(const struct cell *cell)
{
    /* With this flag tm leaves the answer to the script. */
    return tm_relay_error != NULL && *tm_relay_error != 0 && (cell->flags & T_DISABLE_INTERNAL_REPLY) == 0;
}

static const int *find_relay_error(void)
{
    const struct sr_module *module = find_module_by_name("tm");
    return module != NULL && module->handle != NULL ? dlsym(module->handle, "tm_error") : NULL;
}

bool transaction_is_suspended(const struct cell *cell)
{
    return (cell->flags & T_ASYNC_SUSPENDED) != 0;
}

/* Does the script run because a suspension has ended? */
static bool is_resumed(const struct cell *cell)
{
    return (cell->flags & T_ASYNC_CONTINUE) != 0;
}

/* Has the request been relayed to somebody whose reply will end the transaction? In a request route an answered branch
 * counts too: another process may be about to pass that answer on. In a failure route, as which tm also runs a resumed
 * script, it does not: all earlier relays have failed, and no reply can arrive in between. */
static bool is_relayed(const struct cell *cell)
{
    const bool in_request_route = is_route_type(REQUEST_ROUTE);
    for (int branch = 0; branch < cell->nr_of_outgoings; branch++) {
        const struct ua_client *client = &cell->uac[branch];
        if (client->last_received < 200)
            return true;
        if (in_request_route && (client->flags & TM_UAC_FLAG_BLIND) == 0 && !relay_failed(cell))
            return true;
    }
    return false;
}

/* ---- where an async call may be -------------------------------------------------------------------------------- */

static const char *route_name(int type)
{
    switch (type) {
    case BRANCH_ROUTE: return "a branch_route";
    case TM_ONREPLY_ROUTE:
    case CORE_ONREPLY_ROUTE: return "an onreply_route";
    case ONSEND_ROUTE: return "an onsend_route";
    case ERROR_ROUTE: return "an error_route";
    case BRANCH_FAILURE_ROUTE: return "a branch-failure route";
    case LOCAL_ROUTE: return "a route for Kamailio's own requests and replies";
    default: return "this route";
    }
}

/* The script's parser only checks the block that contains the call; that may be a route[...] called by a branch_route.
 * It does not check KEMI scripts at all. */
bool transaction_possible(sip_msg_t *msg, const char *function)
{
    if (!is_route_type(REQUEST_ROUTE | FAILURE_ROUTE)) {
        LM_ERR("%s can't suspend in %s: it is for request routes, failure routes and what t_continue runs\n", function,
               route_name(get_route_type()));
        return false;
    }
    if (msg != NULL && msg->first_line.type == SIP_REQUEST && !events_is_request(msg) && !faked_msg_match(msg))
        return true;
    LM_ERR("%s: there is no SIP request here that could be suspended\n", function);
    return false;
}

static bool has_transaction(struct cell **cell)
{
    *cell = tm->t_gett();
    return *cell != NULL && *cell != T_UNDEFINED;
}

/* Find msg's transaction, or create one. 1; 0: tm has dealt with msg; -1. */
static int have_transaction(sip_msg_t *msg, const char *function, struct cell **cell)
{
    if (has_transaction(cell))
        return 1;
    const int made = tm->t_newtran(msg);
    if (made == 0)
        return 0;
    if (made > 0 && has_transaction(cell))
        return 1;
    if (msg->REQ_METHOD != METHOD_ACK)
        LM_ERR("%s: no transaction can be made for this request (%d)\n", function, made);
    else
        LM_ERR("%s: nobody waits for an answer to an ACK: it is not suspended\n", function);
    return -1;
}

int transaction_find(sip_msg_t *msg, const char *function, struct cell **cell)
{
    const int found = have_transaction(msg, function, cell);
    if (found <= 0)
        return found;
    if (msg->REQ_METHOD == METHOD_ACK) {
        LM_ERR("%s: nobody waits for an answer to an ACK: it is not suspended\n", function);
        return -1;
    }
    if (transaction_is_suspended(*cell) || !is_relayed(*cell))
        return 1;
    LM_ERR("%s: the request has been relayed, and its replies end it: it is not suspended\n", function);
    return -1;
}

/* ---- suspensions ----------------------------------------------------------------------------------------------- */

/* The results of t_suspend. */
static const char *why_not_suspended(int failed)
{
    return failed > 0 ? "it was cancelled" : failed == -3 ? "it has been answered" : "tm refuses";
}

bool transaction_suspend(sip_msg_t *msg, struct suspension *suspension)
{
    suspension->resumed = is_resumed(suspension->cell);
    suspension->before = suspension->cell->async_backup;
    const int failed = tm->t_suspend(msg, &suspension->index, &suspension->label);
    if (failed != 0)
        LM_ERR("the transaction can't be suspended: %s\n", why_not_suspended(failed));
    return failed == 0;
}

/* tm stops the timer and ends the branch that t_suspend added. But it keeps the "suspended" mark, which would hold back
 * every reply of a later t_relay, and it does not restore the mark of a resumed script. */
void transaction_cancel_suspension(const struct suspension *suspension)
{
    if (tm->t_cancel_suspend(suspension->index, suspension->label) < 0)
        LM_ERR("the suspension of transaction %u:%u can't be cancelled\n", suspension->index, suspension->label);
    struct cell *cell = suspension->cell;
    cell->flags &= ~T_ASYNC_SUSPENDED;
    if (suspension->resumed)
        cell->flags |= T_ASYNC_CONTINUE;
    cell->async_backup = suspension->before;
}

/* ---- requests that a script leaves without an answer ----------------------------------------------------------- */

/* The request whose async call has failed. The cell is only compared with tm's current one, never used: tm references
 * it only while the script of this very request runs. */
static struct {
    unsigned id;
    int pid;
    struct cell *cell; /* NULL: no such request */
} left;

static bool is_of(const sip_msg_t *msg, unsigned id, int pid)
{
    return msg->id == id && msg->pid == pid;
}

/* In a failure route, a script that does nothing lets tm pass on the reply that it has. A script may also have looked
 * up a retransmission itself: that is left to the process that has the request. */
void transaction_refused(const sip_msg_t *msg, struct cell *cell)
{
    const sip_msg_t *first = cell->uas.request;
    const bool is_first = is_route_type(REQUEST_ROUTE) && first != NULL && is_of(msg, first->id, first->pid);
    if (!is_first && !is_resumed(cell))
        return;
    left.id = msg->id;
    left.pid = msg->pid;
    left.cell = cell;
}

/* Has the script done nothing that will end the transaction? Another suspension is a branch of its own, as if the
 * request were relayed. wait_start: tm has finished with it. */
static bool is_unanswered(const struct cell *cell)
{
    return cell->uas.status < 200 && cell->wait_start == 0 && !is_relayed(cell) && !relay_failed(cell);
}

/* tm would now release the transaction without a word to the caller. */
static int end_of_script(sip_msg_t *msg, unsigned flags, void *unused)
{
    (void)flags;
    (void)unused;
    if (left.cell == NULL || !is_of(msg, left.id, left.pid))
        return 1;
    struct suspension suspension = { .cell = left.cell };
    left.cell = NULL;
    if (suspension.cell != tm->t_gett() || !is_unanswered(suspension.cell))
        return 1;
    if (transaction_suspend(msg, &suspension))
        LM_INFO("the script has neither answered nor relayed a request whose async call failed: tm's fr_timer ends "
                "transaction %u:%u\n",
                suspension.index, suspension.label);
    return 1;
}

/* The script replies without the transaction; tm knows nothing of that. */
static void replied_statelessly(sl_cbp_t *reply)
{
    if (left.cell != NULL && reply->code >= 200 && is_of(reply->req, left.id, left.pid))
        left.cell = NULL;
}

static bool watch_stateless_replies(void)
{
    sl_api_t sl;
    sl_cbelem_t callback = { .type = SLCB_REPLY_READY, .cbf = replied_statelessly };
    if (find_export("bind_sl", 0, 0) == NULL)
        return true;
    return sl_load_api(&sl) == 0 && sl.register_cb(&callback) == 0;
}

/* Kamailio calls the callback registered last first: ours, then tm's. */
bool transaction_init(const tm_api_t *api)
{
    tm = api;
    tm_relay_error = find_relay_error();
    return register_script_cb(end_of_script, POST_SCRIPT_CB | REQUEST_CB | FAILURE_CB, NULL) == 0 &&
           watch_stateless_replies();
}
