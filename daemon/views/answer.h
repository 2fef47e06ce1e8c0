/* Answers to what processes of Kamailio ask (WIRE_QUERY): the status in short, and the clients, for RPC. What the names mean
 * is in docs/module.md; the form is include/evapid/answer.h. */
#ifndef EVAPID_DAEMON_ANSWER_H
#define EVAPID_DAEMON_ANSWER_H

#include "evapid/answer.h"
#include "kamailio/kamailio.h"
#include "views/status.h"

#define ANSWER_CLIENTS_MAX 100U /* of one answer; who asks goes on behind the last one */

/* Write the whole frame of an answer into out[0..room). Returns its bytes, 0 when it does not fit. */
size_t answer_write(const struct status_subject *subject, const struct wire_query *query, void *out, size_t room);

/* Answer a stranger of kamailio's, whose subject's status it is (struct kamailio: asked). */
void answer_query(struct worker *worker, const struct wire_query *query);

#endif
