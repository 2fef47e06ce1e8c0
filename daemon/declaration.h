/* The declaration: the listener that kamailio.cfg asks for (bind_addr, netstring_format, max_clients).
 *
 * The module makes it when it attaches. The listener stays when Kamailio detaches, so that clients can connect and wait;
 * the next declaration replaces it. A listener of the same address in evapid's own configuration wins. */
#ifndef EVAPID_DECLARATION_H
#define EVAPID_DECLARATION_H

#include "config.h"
#include "listener.h"
#include "worker.h"

struct declaration {
    struct listeners *listeners;
    const struct config *config;
    struct listener *listener; /* the one that stands, NULL: none */
};

/* Open what the HELLO declares, in place of what was declared before. What Kamailio's operator should know of it is sent
 * to the worker as notices. False: there is no memory for the listener, and none stands. */
bool declaration_take(struct declaration *declaration, struct worker *worker, const struct wire_hello *hello);

#endif
