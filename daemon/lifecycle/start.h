/* Starting an evapid: on its own, after a hand-over, or after a kill. */
#ifndef EVAPID_START_H
#define EVAPID_START_H

#include <stdbool.h>

#include "base/descriptors.h"
#include "lifecycle/evapid.h"

/* Open evapid with what is in the descriptors. They may lack anything, except when we replace a running evapid. Returns
 * NULL, or what is wrong, with its subject in *subject. Then nothing has been taken over, and the process must end
 * without closing anything. */
const char *evapid_start(struct evapid *evapid, struct descriptors *descriptors, bool replace, const char **subject);

#endif
