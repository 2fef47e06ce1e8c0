/* The hand-over: what evapid is goes from one process to the next, and clients and Kamailio notice nothing.
 *
 * What goes over are descriptors (holding.h): listening sockets and Unix sockets, clients, links to workers, the ring, the
 * ledger, and a state (state.h). They go either through the service manager's store (store.h), when the service is
 * restarted, or straight to the successor (replace.h). The one that leaves only writes down how it stands; if the successor
 * does not come, it goes on as if nothing had been.
 *
 * When evapid was killed there is no state. Clients whose streams stand between two frames go on by the ledger, the others
 * are closed, and what was in memory counts as lost. */
#ifndef EVAPID_HANDOVER_H
#define EVAPID_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/holding.h"
#include "base/turn.h"
#include "bus/bus.h"
#include "client/listener.h"
#include "config/config.h"
#include "control/control.h"
#include "kamailio/kamailio.h"
#include "web/http.h"

/* All that an evapid is. */
struct household {
    uv_loop_t loop;
    struct config config;
    struct ledger ledger;
    struct bus bus;
    struct listeners listeners;
    struct kamailio kamailio;
    struct control control;
    struct status_subject subject;
    struct turn turn;
    struct http *http; /* NULL: there is none */
};

/* Put everything into holdings; the state, too, which is ours to close. It was flushed, and stands still until it has been
 * taken over or handover_cancel. False: there is no memory for it. */
bool handover_save(struct household *household, struct holdings *holdings);
void handover_cancel(struct household *household, struct holdings *holdings);

/* Is the descriptor of that name in the store all the time, and not only for a hand-over? */
bool handover_is_stored(const char *name);

/* Open the household with what is in the holdings, of which nothing need be there; but to replace an evapid that runs, all of
 * it must. Returns NULL, or what is wrong, and with what in *subject. Then nothing has been taken over, and the process is to
 * end without closing anything. */
const char *handover_open(struct household *household, struct holdings *holdings, bool replace, const char **subject);

#endif
