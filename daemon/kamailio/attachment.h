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

#define BACK_MS 5000U  /* how long evapid expects a Kamailio back that may still live (attachment_await_return) */
#define GATHER_MS 250U /* how long evapid waits for an attaching Kamailio's next worker before it spreads the clients */

/* Begin with no Kamailio attached; the caller has set kamailio.intake_host and worker_host. Returns NULL, or why it
 * cannot. */
const char *attachment_open(struct kamailio *kamailio);

/* Attach the Kamailio whose first worker has sent this HELLO. Both descriptors now belong to the attachment. Returns
 * NULL, or why it cannot. */
const char *attachment_begin(struct kamailio *kamailio, const struct wire_hello *hello, int memfd, int wake_fd);

/* Undo attachment_begin: the next HELLO begins a new attachment. */
void attachment_cancel(struct kamailio *kamailio);

/* Add an attached worker under this number. */
void attachment_add(struct kamailio *kamailio, struct worker *worker, uint16_t index);

/* An attached worker has gone. evapid first reads all that its Kamailio had written by now, over several turns if
 * needed. The ring may prove corrupt; then every worker is closed. */
void attachment_depart(struct kamailio *kamailio, struct worker *worker, const char *why);

/* Call these at the end of each turn, and once a second. */
void attachment_turn(struct kamailio *kamailio);
void attachment_tick(struct kamailio *kamailio);

/* The ring is corrupt at this position. owner is the kamailio. */
void attachment_on_corrupt(void *owner, uint64_t at, const char *why);

/* Close every worker immediately, with this reason. */
void attachment_drop(struct kamailio *kamailio, const char *why);

/* Close the ring and the timer. The caller has closed the workers. */
void attachment_close(struct kamailio *kamailio);

/* ---- hand-over (succession.h) ---- */

/* Write the attachment for a successor, and read it. False: the state is invalid. */
void attachment_save(const struct kamailio *kamailio, struct state_out *out);
bool attachment_load(struct kamailio *kamailio, struct state_in *in);

/* Read a worker with its link fd; -1: the link was not kept. False: the state is invalid, or memory ran out. */
bool attachment_load_worker(struct kamailio *kamailio, uint16_t index, int fd, struct state_in *in);

/* Begin to read a ring; the intake starts held. Returns NULL, or why it cannot be read. */
const char *attachment_open_queue(struct kamailio *kamailio, int memfd, int wake_fd);

/* set_instance: the opened ring belongs to this instance. lose: the ring cannot be taken over; close it and remember why. */
void attachment_set_instance(struct kamailio *kamailio, uint64_t instance);
void attachment_lose_queue(struct kamailio *kamailio, const char *why);

/* Continue in this state. */
void attachment_go_on(struct kamailio *kamailio, enum attachment_state state);

/* A Kamailio that is not attached may still live: this evapid has just started with its clients, or has abandoned its
 * attachment. If it is not back in BACK_MS, it counts as gone. */
void attachment_await_return(struct kamailio *kamailio);

/* The attachment cannot be taken over. It ends, but its workers live, and run all messages that were sent to them
 * whole. */
void attachment_abandon(struct kamailio *kamailio);

#endif
