/* Where evapid shall listen: the text of bind_addr as addresses.
 *
 * evapid takes numbers only, so a name becomes an address here, when the configuration is read. EVAPI asks getaddrinfo(3), and
 * so does this, but in a process of its own: a name server that does not answer delays Kamailio's start by a few seconds at most.
 * Needs nothing of Kamailio. */
#ifndef EVAPI_BINDING_H
#define EVAPI_BINDING_H

#include <stdbool.h>
#include <stddef.h>

#include "evapid/limits.h"

#define BINDING_PORT 8448       /* where the text names no port: EVAPI's default */
#define BINDING_LOOK_UP_MS 3000 /* the longest that the addresses of a name are waited for */
#define BINDING_TEXT (EVAPID_ADDRESS_MAX + 10)
#define BINDING_ALL 512

struct binding {
    bool is_name;          /* the host is a name */
    char at[BINDING_TEXT]; /* the first address, as evapid reads it; "": no listener, or a name that has none */
    char all[BINDING_ALL]; /* each address of the name once, with commas */
    unsigned addresses;    /* how many these are */
};

/* Read text: ADDRESS, NAME, either of them with ":PORT", or empty for no listener; IPv6 in brackets. Returns NULL, or what is
 * wrong; then binding->is_name says whether that is only that the name can't be resolved now. */
const char *binding_read(const char *text, struct binding *binding);

#endif
