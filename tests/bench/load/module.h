/* module: evapid's peer. It attaches as Kamailio's module does, with a ring and one worker, runs no routes, and says so at
 * once; docs/protocol.md has the rules. */
#ifndef LOAD_MODULE_H
#define LOAD_MODULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "evapid/ring.h"

struct module {
    int link, wake[2]; /* wake: ours, and the one that evapid gets */
    struct ring_header *ring;
    struct ring_lane lane;
    uint32_t session;      /* of the evapid it is attached to */
    uint64_t full;         /* pushes that found no room, and were made again */
    uint64_t wakes;        /* bytes sent to wake evapid */
    bool tags;             /* give client N the tag tN */
    uint32_t first_client; /* connection that was announced first; 0: none yet */
    size_t length;         /* bytes of a frame that has not come whole */
    unsigned char buffer[1 << 16];
};

/* Attach to the evapid at socket, with a ring of so many bytes, and ask for a listener at address for so many clients.
 * False when it does not work, or is refused: the reason has been printed. */
bool module_attach(struct module *module, const char *socket, size_t ring, const char *address, uint32_t clients);

/* Answer the frames that have come, waiting for one up to wait_ms. False when the link has ended. */
bool module_serve(struct module *module, int wait_ms);

/* Clients that have been let in. */
uint32_t module_clients(const struct module *module);

/* Push a record and wake evapid where it sleeps; a full ring is tried again until there is room. False when the link has
 * ended meanwhile, or the record can never be pushed. */
bool module_push(struct module *module, struct ring_record record, const char *tag, const char *payload, size_t length);

/* Has evapid taken all that was pushed? */
bool module_drained(const struct module *module);

#endif
