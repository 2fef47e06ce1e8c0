/* A question to evapid from any process of Kamailio: a separate connection to evapid's socket, a QUERY on it, and the
 * ANSWER. Nothing else in the module waits for evapid, and this not for long. */
#ifndef EVAPI_QUERY_H
#define EVAPI_QUERY_H

#include <stddef.h>
#include <stdint.h>

#include "evapid/wire.h"

#define QUERY_MS 500U /* the longest time from the connect to the last byte */

/* Ask evapid at this socket. Returns NULL and a valid *answer (evapid/answer.h), which stays until the next call. Else
 * returns why there is no answer, as the end of a sentence about evapid: "it ...". */
const char *query_ask(const char *socket, const struct wire_query *query, struct wire_text *answer);

/* Read the answer on fd until this time of CLOCK_MONOTONIC. This is the half of query_ask that reads bytes from
 * outside. */
const char *query_receive(int fd, uint64_t until_ms, struct wire_text *answer);

#endif
