/* What becomes of an attached Kamailio when one evapid follows another: it notices nothing (docs/handover.md). */
#ifndef EVAPID_SUCCESSION_H
#define EVAPID_SUCCESSION_H

#include "base/holding.h"
#include "base/state.h"
#include "kamailio/kamailio.h"

/* Write for a successor who is attached and which workers there are; and read it, with their sockets. Then come the clients
 * with their seats, and then the links: the queue, what is on its way to the workers, and who waits for them. Only then is
 * anybody attached. hold: add the sockets to the holdings. False: it makes no sense (hold: no memory). */
void succession_save(const struct kamailio *kamailio, struct state_out *out);
bool succession_load(struct kamailio *kamailio, struct state_in *in, struct holdings *holdings);
void succession_save_links(const struct kamailio *kamailio, struct state_out *out);
bool succession_load_links(struct kamailio *kamailio, struct state_in *in, struct holdings *holdings);
bool succession_hold(const struct kamailio *kamailio, struct holdings *holdings);

/* All that was loaded is ours now, and sockets may be spoken to. When the queue or a link could not be taken over, the attachment
 * ends: its workers live, and attach anew. What they have been sent whole they run all the same, as after a kill; the rest is
 * for those that attach. */
void succession_settle(struct kamailio *kamailio);

/* The evapid before us was killed: open the ring that it had read. Returns its tail in *tail, or why it can't be read. And
 * then, when the clients have been adopted: go on reading it, as if its Kamailio had just detached; but hold it if clients are
 * awaited that its Kamailio has not let in again yet. */
const char *succession_reopen_queue(struct kamailio *kamailio, uint64_t instance, struct holdings *holdings,
                                    uint64_t *tail);
void succession_go_on_alone(struct kamailio *kamailio, uint32_t awaited);

#endif
