/* The HTTP endpoint: what a monitoring system asks of this evapid. GET and HEAD of /metrics (metrics.h), /healthz
 * and /readyz.
 *
 * HTTP is libmicrohttpd's, which runs on evapid's loop: it has a descriptor that tells when there is something to
 * do, and does it without waiting. Who connects is ours to take, so that there are never more connections than we
 * let there be: one is for one request and lasts for some seconds; one more than the limit takes the place of the
 * oldest. So nobody can keep others out by holding connections, and what all of them cost is bounded. */
#ifndef EVAPID_HTTP_H
#define EVAPID_HTTP_H

#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

#include "net/address.h"
#include "views/status.h"

#define HTTP_CONNECTIONS 64U        /* at a time */
#define HTTP_LIFETIME_MS 10000U     /* of one */
#define HTTP_CONNECTION_BYTES 8192U /* of memory for its request: one that is longer gets an error */

struct http;
struct holdings;

/* What its log lines are about: "metrics 127.0.0.1:9464". */
#define HTTP_SUBJECT (ADDRESS_TEXT + 10)
void http_subject(const struct sockaddr_storage *address, char out[HTTP_SUBJECT]);

/* Is the descriptor a socket at that address? */
bool http_is_at(int fd, const struct sockaddr_storage *address);

/* Listen at the address, on the socket of the evapid before us (inherited: its descriptor, which is at that address and
 * ours from here on), or a new one (-1). A public address is warned of. NULL, and *why, if it can't be. subject
 * outlives it. */
struct http *http_open(uv_loop_t *loop, const struct sockaddr_storage *address, int inherited,
                       const struct status_subject *subject, const char **why);

/* The listening socket, if it is to be given up for another address, or for none; NULL: it stays, or there is none. */
const int *http_leaving(const struct http *http, const struct sockaddr_storage *address);

/* Listen at another address from now on, or begin (*http is NULL), or end (family AF_UNSPEC). Returns NULL; or why
 * it can't be, and then all is as it was. */
const char *http_reconfigure(struct http **http, uv_loop_t *loop, const struct sockaddr_storage *address,
                             const struct status_subject *subject);

/* Once a second: end connections whose time is over; take others again, if there was no descriptor. */
void http_tick(struct http *http);

/* Somebody else is going to take over: answer those who have connected, as far as that is a matter of a moment. */
void http_settle(struct http *http);

/* Add the listening socket to the holdings. False: no memory. */
bool http_hold(const struct http *http, struct holdings *holdings);

/* End all connections, and free it. In all of these, http may be NULL: there is none. */
void http_close(struct http *http);

#endif
