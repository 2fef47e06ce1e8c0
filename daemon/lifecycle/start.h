/* The start of an evapid: alone, after a hand-over, or after a kill. */
#ifndef EVAPID_START_H
#define EVAPID_START_H

#include <stdbool.h>

#include "base/holding.h"
#include "lifecycle/evapid.h"

/* Open evapid with what is in the holdings, of which nothing need be there; but to replace an evapid that runs, all of it must.
 * Returns NULL, or what is wrong, and with what in *subject. Then nothing has been taken over, and the process is to end without
 * closing anything. */
const char *evapid_start(struct evapid *evapid, struct holdings *holdings, bool replace, const char **subject);

#endif
