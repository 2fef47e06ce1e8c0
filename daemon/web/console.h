/* The console: what the status page asks for, as JSON. Each answer is written in one turn, so the clients and tags in it
 * are limited in number.
 *
 *     /status.json   the status (docs/protocol.md) without the clients; ready; the history
 *     /clients.json  clients: sort, state, tag, address, slow and limit, as `evapictl clients` has them
 *     /tags.json     the most used tags: limit
 *     /tail.json     events and messages that passed: from, the number of the first line (recent.h) */
#ifndef EVAPID_CONSOLE_H
#define EVAPID_CONSOLE_H

#include <stddef.h>

#include "views/history.h"
#include "views/status.h"
#include "web/recent.h"

#define CONSOLE_ITEMS 100U /* clients or tags in an answer, unless limit says otherwise */
#define CONSOLE_ITEMS_MAX 500U

struct console {
    const struct status_subject *subject;
    struct history history;
    struct recent recent;
};

/* The value of a parameter of the request; NULL: it has none. */
typedef const char *console_parameter(void *request, const char *name);

/* Each returns the answer's text, which the caller frees, and its bytes. NULL: *why says what is wrong with the request;
 * it stays NULL if memory is short. */
char *console_status(struct console *console, console_parameter *parameter, void *request, size_t *length,
                     const char **why);
char *console_clients(struct console *console, console_parameter *parameter, void *request, size_t *length,
                      const char **why);
char *console_tags(struct console *console, console_parameter *parameter, void *request, size_t *length,
                   const char **why);
char *console_tail(struct console *console, console_parameter *parameter, void *request, size_t *length,
                   const char **why);

/* Call it once a second. */
void console_tick(struct console *console);

/* No page is answered any more. */
void console_end(struct console *console);

#endif
