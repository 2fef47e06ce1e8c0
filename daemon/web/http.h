/* The HTTP endpoint, for monitoring systems and browsers: GET and HEAD of its pages (pages.h).
 *
 * libmicrohttpd speaks HTTP. It runs on evapid's loop: its descriptor shows when there is work, and it works without
 * waiting. evapid itself accepts connections, to limit their number. Each connection serves one request and lasts some
 * seconds at most. A connection over the limit replaces the oldest. So nobody can keep others out by holding
 * connections, and their total cost is bounded. */
#ifndef EVAPID_HTTP_H
#define EVAPID_HTTP_H

#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

#include "config/config_type.h"
#include "net/address.h"
#include "views/status.h"

#define HTTP_CONNECTIONS 64U        /* at a time */
#define HTTP_LIFETIME_MS 10000U     /* of one connection */
#define HTTP_CONNECTION_BYTES 8192U /* of memory for its request: a longer request gets an error */

struct http;
struct descriptors;

/* The subject of its log lines: "http 127.0.0.1:9464". */
#define HTTP_SUBJECT (ADDRESS_TEXT + 10)
void http_subject(const struct sockaddr_storage *address, char out[HTTP_SUBJECT]);

/* Is the descriptor a socket at this address? */
bool http_is_at(int fd, const struct sockaddr_storage *address);

/* Listen at config->address. inherited: the descriptor of the previous evapid's socket, which is at that address and ours
 * from now on; or -1 for a new socket. Logs a warning for a public address. Returns NULL, and *why, if it cannot.
 * config and subject outlive the result, and config says at any time which pages there are. */
struct http *http_open(uv_loop_t *loop, const struct config_http *config, int inherited,
                       const struct status_subject *subject, const char **why);

/* The listening socket, if it will be given up for another address or for none; NULL: it stays, or there is none. */
const int *http_leaving(const struct http *http, const struct sockaddr_storage *address);

/* Listen at another address from now on; or begin (*http is NULL), or end (family AF_UNSPEC). Returns NULL, or why it
 * cannot; then nothing has changed. config is that of http_open. */
const char *http_reconfigure(struct http **http, uv_loop_t *loop, const struct sockaddr_storage *address,
                             const struct config_http *config, const struct status_subject *subject);

/* Call it once a second: ends connections that are too old, and accepts again after a lack of descriptors. */
void http_tick(struct http *http);

/* Another evapid is going to take over: answer the connections that can be answered in a moment. */
void http_drain(struct http *http);

/* Add the listening socket to the descriptors. False: memory is short. */
bool http_list_socket(const struct http *http, struct descriptors *descriptors);

/* End all connections, and free it. In all of these functions http may be NULL: there is no endpoint. */
void http_close(struct http *http);

#endif
