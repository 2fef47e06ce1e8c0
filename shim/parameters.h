/* The module's parameters: their values, and what is said when one can't be meant.
 *
 * Each is checked when the line with it is read, so that `kamailio -c` finds what is wrong: it runs no mod_init. A value that
 * EVAPI starts with is taken, and the log says what it means here. */
#ifndef EVAPI_PARAMETERS_H
#define EVAPI_PARAMETERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/sr_module.h"
#include "core/str.h"

struct parameters {
    const char *socket;    /* path of evapid's Unix socket */
    const char *bind_addr; /* the listener to declare, in numbers; "": none */
    size_t queue_size;     /* bytes, a power of two */
    uint16_t workers;
    bool netstrings;
    uint32_t max_clients;
    bool keep_clients;  /* they stay when this Kamailio has gone */
    str event_callback; /* empty: event routes alone */
};

/* The values, as far as they have been read. */
const struct parameters *parameters_read(void);

/* For struct module_exports. */
extern param_export_t parameters[];

#endif
