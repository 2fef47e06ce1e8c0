/* module: evapid's peer. It attaches as Kamailio's module does, with a ring and one worker. It runs no routes, and says
 * so immediately. docs/protocol.md has the rules. */
#ifndef LOAD_MODULE_H
#define LOAD_MODULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "evapid/lane.h"

struct module {
    int link, wake[2]; /* wake: ours, and the one that evapid gets */
    struct ring_header *ring;
    struct ring_lane *lane; /* shared with processes that this one forks */
    unsigned slot;          /* of this process */
    uint32_t session;       /* of the evapid it is attached to */
    uint64_t full;          /* pushes that found no room and were repeated */
    uint64_t wakes;         /* bytes sent to wake evapid */
    bool tags;              /* give client N the tag tN */
    uint32_t first_client;  /* the connection that was announced first; 0: none yet */
    size_t length;          /* bytes of a frame that is not complete yet */
    unsigned char buffer[1 << 16];
};

/* Attach to the evapid at socket, with a ring of so many bytes. Ask for a listener at address for so many clients.
 * Returns false if that fails or evapid refuses it, after printing the reason. */
bool module_attach(struct module *module, const char *socket, size_t ring, const char *address, uint32_t clients);

/* Answer the frames that have come. Wait up to wait_ms for one. Returns false if the link has ended. */
bool module_serve(struct module *module, int wait_ms);

/* How many clients have been admitted. */
uint32_t module_clients(const struct module *module);

/* Call it in a process that has been forked after module_attach, before its first push. */
void module_join(struct module *module);

/* Push a record, and wake evapid if it sleeps. If the ring is full, try again until there is room. Returns false if the
 * link ends meanwhile, or if the ring can never accept the record. */
bool module_push(struct module *module, struct ring_record record, const char *tag, const char *payload, size_t length);

/* Has evapid read everything that was pushed? */
bool module_drained(const struct module *module);

#endif
