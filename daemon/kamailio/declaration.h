/* The declaration: the listener that kamailio.cfg asks for (bind_addr, netstring_format, max_clients).
 *
 * The module declares it when it attaches. The listener stays when Kamailio detaches, so that clients can connect and
 * wait. The next declaration replaces it. A listener of the same address in evapid's own configuration wins. */
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
    struct listener *listener; /* the open listener, NULL: none */

    /* The last declaration. Its listener may be our own or one of the configuration. */
    bool made;
    struct sockaddr_storage address;
    enum framing framing;
    uint32_t max_clients;
};

/* Open the listener that the HELLO declares, in place of the last one. Notices to the worker tell Kamailio's operator
 * about problems. False: no memory for the listener; none is open. */
bool declaration_accept(struct declaration *declaration, struct worker *worker, const struct wire_hello *hello);

/* Does this configuration leave the listener at this address to the module, and has the module declared it? */
bool declaration_claims(const struct declaration *declaration, const struct config *config,
                        const struct sockaddr_storage *address);

/* A reload has replaced the configuration: this listener is now the declared one, NULL: none is. */
void declaration_set(struct declaration *declaration, struct listener *listener);

/* This listener was the declared one in the evapid before us; NULL: none was. */
void declaration_restore(struct declaration *declaration, struct listener *listener);

/* save and load: write the declaration for a successor, and read it; false: the state is invalid. go_on: when all
 * listeners are open, open the declared one if no listener has its address. */
void declaration_save(const struct declaration *declaration, struct state_out *out);
bool declaration_load(struct declaration *declaration, struct state_in *in);
void declaration_go_on(struct declaration *declaration);

#endif
