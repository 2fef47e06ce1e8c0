/* A question to evapid from any process of Kamailio: a connection of its own to evapid's socket, a QUERY on it, and the
 * ANSWER. The one thing of the module that waits for evapid, and not for long. */
#ifndef EVAPI_QUERY_H
#define EVAPI_QUERY_H

#include <stddef.h>
#include <stdint.h>

#include "evapid/wire.h"

#define QUERY_MS 500U /* that it takes at most, from the connect to the last byte */

/* Ask at that socket. Returns NULL, and *answer is a good one (evapid/answer.h) that stays until the next call; or why there
 * is none, in words that end a sentence about evapid: "it ...". */
const char *query_ask(const char *socket, const struct wire_query *query, struct wire_text *answer);

/* Read the answer that comes on fd, until a time of CLOCK_MONOTONIC: the half of query_ask that reads what somebody else has
 * written. */
const char *query_receive(int fd, uint64_t until_ms, struct wire_text *answer);

#endif
