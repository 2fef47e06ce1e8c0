/* The console: what the status page asks for, as JSON. Each answer is written in one turn, so the clients and tags in it
 * are limited in number.
 *
 *     /status.json   the status (docs/protocol.md) without the clients; ready; the history
 *     /clients.json  clients: sort, state, tag, address, slow, idle and limit, as `evapictl clients` has them
 *     /tags.json     the most used tags: limit
 *     /tail.json     events and messages that passed: from, the number of the first line (recent.h) */
#ifndef EVAPID_CONSOLE_H
#define EVAPID_CONSOLE_H

#include <microhttpd.h>
#include <stddef.h>

#include "views/history.h"
#include "views/status.h"
#include "web/recent.h"

#define CONSOLE_ITEMS 100U /* clients or tags in an answer, unless limit says otherwise */
#define CONSOLE_ITEMS_MAX 500

struct console {
    const struct status_subject *subject;
    struct history history;
    struct recent recent;
};

/* An answer's text, which the caller frees, and its bytes; the connection has the request's parameters. NULL: *why says
 * what is wrong with them; it stays NULL if memory is short. */
typedef char *console_answer(struct console *console, struct MHD_Connection *connection, size_t *length,
                             const char **why);

console_answer console_status, console_clients, console_tags, console_tail;

/* Call it once a second. */
void console_tick(struct console *console);

/* No page is answered any more. */
void console_end(struct console *console);

#endif
