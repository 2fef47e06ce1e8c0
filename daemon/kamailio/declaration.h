/* The declaration: the listener that kamailio.cfg asks for (bind_addr, netstring_format, max_clients).
 *
 * The module makes it when it attaches. The listener stays when Kamailio detaches, so that clients can connect and wait;
 * the next declaration replaces it. A listener of the same address in evapid's own configuration wins. */
#ifndef EVAPID_DECLARATION_H
#define EVAPID_DECLARATION_H

#include "client/listener.h"
#include "config/config.h"
#include "kamailio/worker.h"

struct state_in;
struct state_out;

struct declaration {
    struct listeners *listeners;
    const struct config *config;
    struct listener *listener; /* the one that stands, NULL: none */

    /* What was declared last, whether a listener of its own stands for it or one of the configuration. */
    bool made;
    struct sockaddr_storage address;
    enum framing framing;
    uint32_t max_clients;
};

/* Open what the HELLO declares, in place of what was declared before. What Kamailio's operator should know of it is sent
 * to the worker as notices. False: there is no memory for the listener, and none stands. */
bool declaration_take(struct declaration *declaration, struct worker *worker, const struct wire_hello *hello);

/* Does a configuration leave it to the module to have a listener at that address, and has the module declared it? */
bool declaration_claims(const struct declaration *declaration, const struct config *config,
                        const struct sockaddr_storage *address);

/* A reload has put the configuration in the place of the one before: the listener stands for what was declared from now on,
 * NULL: none does. */
void declaration_set(struct declaration *declaration, struct listener *listener);

/* That listener stood for it in the evapid before us; NULL: none. */
void declaration_restore(struct declaration *declaration, struct listener *listener);

/* Write what was declared for a successor; read it back. And then, when all listeners are open: open the one that was declared
 * if no other stands for it any more. False: it makes no sense. */
void declaration_save(const struct declaration *declaration, struct state_out *out);
bool declaration_load(struct declaration *declaration, struct state_in *in);
void declaration_go_on(struct declaration *declaration);

#endif
