/* The metrics: an exposition for the operator's monitoring. docs/metrics.md describes each metric.
 *
 * Their number depends on the listeners and on Kamailio's workers, not on the clients: `evapictl status` shows each
 * client. */
#ifndef EVAPID_METRICS_H
#define EVAPID_METRICS_H

#include <stddef.h>

#include "views/status.h"

/* The exposition, which the caller frees, and its bytes. NULL: memory was short. */
char *metrics_describe(const struct status_subject *subject, size_t *length);

/* Why clients cannot work with this evapid now; NULL: they can. The text is valid until the next call. */
const char *metrics_objection(const struct status_subject *subject);

#endif
