/* The module's parameters: their values, and the errors for values that make no sense.
 *
 * Each parameter is checked when its line is read, because `kamailio -c` runs no mod_init. A value with which EVAPI
 * starts is accepted, and the log says what it means here. */
#ifndef EVAPI_PARAMETERS_H
#define EVAPI_PARAMETERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/sr_module.h"
#include "core/str.h"

struct parameters {
    const char *socket;    /* path of evapid's Unix socket */
    const char *bind_addr; /* the listener to declare, in numbers; "": no listener */
    size_t queue_size;     /* bytes, a power of two */
    uint16_t workers;
    bool netstrings;
    uint32_t max_clients;
    bool keep_clients;  /* clients stay when this Kamailio is gone */
    str event_callback; /* empty: only event routes */
};

/* The values read so far. */
const struct parameters *parameters_read(void);

/* For struct module_exports. */
extern param_export_t parameters[];

#endif
