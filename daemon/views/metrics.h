/* The metrics: what an operator's monitoring wants to know of this evapid, as an exposition. docs/metrics.md has each of them.
 *
 * Their number depends on the listeners and Kamailio's workers, and not on the clients: `evapictl status` tells of each of
 * those. */
#ifndef EVAPID_METRICS_H
#define EVAPID_METRICS_H

#include <stddef.h>

#include "views/status.h"

/* The exposition, which is the caller's to free, and its bytes; NULL: there was no memory. */
char *metrics_describe(const struct status_subject *subject, size_t *length);

/* Why clients could not work with this evapid now; NULL: they could. The text stays valid until the next call. */
const char *metrics_objection(const struct status_subject *subject);

#endif
