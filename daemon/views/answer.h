/* Answers to processes of Kamailio (WIRE_QUERY): a short status, and the clients, for RPC. docs/module.md explains the
 * names; include/evapid/answer.h has the form. */
#ifndef EVAPID_DAEMON_ANSWER_H
#define EVAPID_DAEMON_ANSWER_H

#include "evapid/answer.h"
#include "kamailio/kamailio.h"
#include "views/status.h"

#define ANSWER_CLIENTS_MAX 100U /* in one answer; the asker then asks for those after the last one */

/* Write the whole frame of an answer into out[0..room). Returns its bytes, or 0 if it does not fit. */
size_t answer_write(const struct status_subject *subject, const struct wire_query *query, void *out, size_t room);

/* Answer a process that asks without being a worker. The status is about Kamailio's answerer.subject. */
void answer_query(struct worker *worker, const struct wire_query *query);

#endif
