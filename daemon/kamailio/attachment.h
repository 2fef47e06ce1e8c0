/* The attachment of one Kamailio: it begins with the HELLO of its first worker and ends with its last worker.
 *
 *     DETACHED ──first worker──▶ GATHERING ──all are here, or GATHER_MS──▶ ATTACHED ──last worker gone──▶ DETACHED
 *
 * It owns struct attachment: the workers, the ring, and who Kamailio is. */
#ifndef EVAPID_ATTACHMENT_H
#define EVAPID_ATTACHMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "kamailio/kamailio_type.h"

#define BACK_MS 5000U /* for how long an evapid that has just begun takes a Kamailio for alive that has not come back */
#define GATHER_MS 250U /* how long an attaching Kamailio's other workers are waited for before clients are spread */

/* Begin without one. NULL, or why it can't. kamailio.queue_host and worker_host have been set. */
const char *attachment_open(struct kamailio *kamailio);

/* The first worker of a Kamailio says HELLO, with two descriptors that now belong to the attachment. NULL, or why it can't attach. */
const char *attachment_begin(struct kamailio *kamailio, const struct wire_hello *hello, int memfd, int wake_fd);

/* It can't after all: whoever comes next begins anew. */
void attachment_cancel(struct kamailio *kamailio);

/* The worker has that number from now on. */
void attachment_add(struct kamailio *kamailio, struct worker *worker, uint16_t index);

/* An attached worker has gone. All that its Kamailio had written by now counts: it is read first, as many turns as that takes. It
 * may be corrupt, which closes every worker. */
void attachment_depart(struct kamailio *kamailio, struct worker *worker, const char *why);

/* The end of a turn; and once a second. */
void attachment_turn(struct kamailio *kamailio);
void attachment_tick(struct kamailio *kamailio);

/* The ring holds nonsense at that position. owner is the kamailio. */
void attachment_on_corrupt(void *owner, uint64_t at, const char *why);

/* Close every worker at once, for that reason. */
void attachment_drop(struct kamailio *kamailio, const char *why);

/* Close the ring and the rest; the workers have been closed before. */
void attachment_close(struct kamailio *kamailio);

/* ---- hand-over (succession.h) ---- */

/* Write who is attached for a successor, and read it. False: it makes no sense. */
void attachment_save(const struct kamailio *kamailio, struct state_out *out);
bool attachment_load(struct kamailio *kamailio, struct state_in *in);

/* Read a worker whose link is fd; -1: the link was not kept. */
bool attachment_load_worker(struct kamailio *kamailio, uint16_t index, int fd, struct state_in *in);

/* Begin to read a ring; the queue is held. NULL, or why it can't be read. */
const char *attachment_open_queue(struct kamailio *kamailio, int memfd, int wake_fd);

/* The ring that has been opened is that instance's. Or it can't be taken over. */
void attachment_reopen_queue(struct kamailio *kamailio, uint64_t instance);
void attachment_lose_queue(struct kamailio *kamailio, const char *why);

/* Go on in that state. */
void attachment_go_on(struct kamailio *kamailio, enum attachment_state state);

/* This evapid has begun with clients of a Kamailio that is not attached: if it does not come back, it has gone. */
void attachment_await_return(struct kamailio *kamailio);

/* The attachment can't be taken over: it ends, though its workers live. What they have been sent they run. */
void attachment_abandon(struct kamailio *kamailio);

#endif
