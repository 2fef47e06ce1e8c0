/* Transactions of tm that wait for an application's answer.
 *
 * An async call suspends the transaction of its request. If it cannot, it tells the script and leaves the transaction
 * alone, so that the script can answer or relay the request. A script that does neither ignores the call's result. At
 * its end the transaction is then suspended after all. tm's timer ends it, with all that a script may have set for that
 * (failure routes), and a CANCEL is answered. */
#ifndef EVAPI_TRANSACTION_H
#define EVAPI_TRANSACTION_H

#include <stdbool.h>

#include "core/parser/msg_parser.h"
#include "modules/tm/tm_load.h"

/* A transaction that we suspended, and the state that tm's t_cancel_suspend would not restore. */
struct suspension {
    struct cell *cell;
    unsigned index, label; /* $T(id_index), $T(id_label) */
    bool resumed;          /* the script runs because an earlier suspension of the transaction has ended */
    struct async_state before;
};

/* Call it once, before Kamailio forks and when tm is initialized: this module must see the end of a script before tm
 * does. Returns false if memory is short. tm stays the caller's. */
bool transaction_init(const tm_api_t *tm);

/* Can tm suspend the script's request here? If not, logs function and the reason. */
bool transaction_possible(sip_msg_t *msg, const char *function);

/* Find msg's transaction for function, or create one. 1: it may be suspended, or already is. 0: msg is a retransmission
 * or the ACK of a failure, and tm has dealt with it. -1: the log says why not. */
int transaction_find(sip_msg_t *msg, const char *function, struct cell **cell);

bool transaction_is_suspended(const struct cell *cell);

/* Suspend the transaction suspension->cell. Returns false, with the reason in the log, if tm refuses. */
bool transaction_suspend(sip_msg_t *msg, struct suspension *suspension);

/* Undo the suspension, as far as tm can. */
void transaction_cancel_suspension(const struct suspension *suspension);

/* An async call for msg has failed, and its transaction is not suspended. Remember it for the end of the script. */
void transaction_refused(const sip_msg_t *msg, struct cell *cell);

#endif
