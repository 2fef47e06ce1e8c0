/* Where evapid shall listen: the text of bind_addr as addresses.
 *
 * evapid accepts numeric addresses only, so the module resolves a name when it reads the configuration. Like EVAPI it
 * asks getaddrinfo(3), but in a separate process: a name server that does not answer delays Kamailio's start by a few
 * seconds at most. Needs nothing of Kamailio. */
#ifndef EVAPI_BINDING_H
#define EVAPI_BINDING_H

#include <stdbool.h>
#include <stddef.h>

#include "evapid/limits.h"

#define BINDING_PORT 8448       /* when the text names no port: EVAPI's default */
#define BINDING_LOOK_UP_MS 3000 /* the longest wait for the addresses of a name */
#define BINDING_TEXT (EVAPID_ADDRESS_MAX + 10)
#define BINDING_ALL 512

struct binding {
    bool is_name;          /* the host is a name */
    char at[BINDING_TEXT]; /* the first address, as evapid reads it; "": no listener, or a name without an address */
    char all[BINDING_ALL]; /* each address of the name once, separated by commas */
    unsigned addresses;    /* how many addresses */
};

/* Read text: ADDRESS or NAME, either with ":PORT", or empty for no listener; IPv6 in brackets. Returns NULL, or what is
 * wrong. After an error binding->is_name is true if the name just cannot be resolved now. */
const char *binding_read(const char *text, struct binding *binding);

#endif
