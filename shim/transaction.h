/* Transactions of tm that wait for an application's answer.
 *
 * An async call suspends the transaction of its request. When it can't, it tells the script so and leaves the transaction
 * alone, so that the script can answer or relay the request. A script that does neither is one that does not look at what
 * the call returns: at its end the transaction is suspended after all, and tm's timer ends it, with all that a script may
 * have set for that (failure routes), and with CANCEL answered. */
#ifndef EVAPI_TRANSACTION_H
#define EVAPI_TRANSACTION_H

#include <stdbool.h>

#include "core/parser/msg_parser.h"
#include "modules/tm/tm_load.h"

/* A transaction suspended by us, and what tm's t_cancel_suspend would not put back. */
struct suspension {
    struct cell *cell;
    unsigned index, label; /* $T(id_index), $T(id_label) */
    bool resumed;          /* the script runs because an earlier suspension of the transaction has ended */
    struct async_state before;
};

/* Call it once, before Kamailio forks, when tm is initialized: the end of a script must be seen before tm sees it. Returns
 * false when there is no memory for that. tm stays the caller's. */
bool transaction_init(const tm_api_t *tm);

/* Can tm suspend the request that the script works on here? If not, the log has function and the reason. */
bool transaction_possible(sip_msg_t *msg, const char *function);

/* Find msg's transaction, or make one, for function. 1: it may be suspended, or is already; 0: msg is a retransmission, or
 * the ACK of a failure, that tm has dealt with; -1: the log says why not. */
int transaction_find(sip_msg_t *msg, const char *function, struct cell **cell);

bool transaction_is_suspended(const struct cell *cell);

/* Suspend the transaction that suspension->cell names. Returns false, with the reason in the log, if tm doesn't. */
bool transaction_suspend(sip_msg_t *msg, struct suspension *suspension);

/* Make the transaction as if it had never been suspended, as far as tm can. */
void transaction_take_back(const struct suspension *suspension);

/* An async call for msg has failed, and its transaction is not suspended: what shall be done if the script ends so? */
void transaction_refused(const sip_msg_t *msg, struct cell *cell);

#endif
