/* Handing an attached Kamailio from one evapid to the next. Kamailio notices nothing (docs/handover.md). */
#ifndef EVAPID_SUCCESSION_H
#define EVAPID_SUCCESSION_H

#include "base/descriptors.h"
#include "base/state.h"
#include "kamailio/kamailio.h"

/* save and load: the attachment and its workers, with their sockets. After them come the clients with their seats, then
 * save_links and load_links: the intake, the posts on the way to workers, and the waiting seats. Only then is Kamailio
 * attached. list_sockets: add the sockets to the descriptors. False: the state is invalid (list_sockets: no memory). */
void succession_save(const struct kamailio *kamailio, struct state_out *out);
bool succession_load(struct kamailio *kamailio, struct state_in *in, struct descriptors *descriptors);
void succession_save_links(const struct kamailio *kamailio, struct state_out *out);
bool succession_load_links(struct kamailio *kamailio, struct state_in *in, struct descriptors *descriptors);
bool succession_list_sockets(const struct kamailio *kamailio, struct descriptors *descriptors);

/* Everything loaded is ours now, and sockets may be used. If the intake or a link could not be taken over, the
 * attachment ends. Its workers live, and attach again. They run the messages that were sent to them whole, as after a
 * kill; the others go to the workers that attach. */
void succession_adopt(struct kamailio *kamailio);

/* The evapid before us was killed. reopen_queue: open the ring that it was reading; sets *tail, or returns why it
 * cannot be read. go_on_alone: once the clients have been adopted, continue to read the ring as if its Kamailio had
 * just detached. Hold it if clients are awaited that Kamailio has not admitted again yet. */
const char *succession_reopen_queue(struct kamailio *kamailio, uint64_t instance, struct descriptors *descriptors,
                                    uint64_t *tail);
void succession_go_on_alone(struct kamailio *kamailio, uint32_t awaited);

#endif
