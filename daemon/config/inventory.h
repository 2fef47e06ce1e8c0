/* Inventory: every key with the value that holds, and where that value is from. */
#ifndef EVAPID_INVENTORY_H
#define EVAPID_INVENTORY_H

#include <jansson.h>

#include "config/config_type.h"

/* Every key in the order of the table, each as {"key", "value", "default", "from"}; a listener's keys once for each
 * listener ("listeners[0].framing"). value: null if it is unset. default: whether it is the key's default. from: "file";
 * "default"; the key whose value a listener shares, as "limits.slow_policy"; or "evapictl", for a log level that was set
 * while evapid runs. NULL: memory is short. */
json_t *inventory_make(const struct config *config);

/* The names of the keys whose values differ, as they are in `after`. Listeners are compared by their addresses; if one has
 * come or gone, "listeners" is among the names. NULL: memory is short. */
json_t *inventory_changes(const struct config *before, const struct config *after);

#endif
