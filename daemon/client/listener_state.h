/* Listeners, from one evapid to the next: their names, sources and counts. Their sockets go by listener.h. */
#ifndef EVAPID_LISTENER_STATE_H
#define EVAPID_LISTENER_STATE_H

#include <stdbool.h>

#include "client/listener.h"

struct state_in;
struct state_out;

/* Write all for a successor; read them back, after those of the configuration. module_may: reopen the listener that the
 * module had declared, and return it in *module. False: the state is invalid. */
void listeners_save(const struct listeners *all, struct state_out *out);
bool listeners_load(struct listeners *all, struct state_in *in, const struct client_limits *limits,
                    const struct access *access, bool module_may, struct listener **module);

#endif
