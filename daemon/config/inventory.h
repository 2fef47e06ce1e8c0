/* Inventory: every key with the value that holds, and where that value is from. */
#ifndef EVAPID_INVENTORY_H
#define EVAPID_INVENTORY_H

#include <jansson.h>

#include "config/config_type.h"

/* How many rows the inventory has: one for each key of the whole file in the order of the table, and after these one for
 * each key of each listener ("listeners[0].framing"). */
size_t inventory_count(const struct config *config);

/* One of these rows, as {"key", "value", "default", "from"}. value: null if it is unset. default: whether it is the key's
 * default. from: "file"; "default"; the key whose value a listener shares, as "limits.slow_policy"; or "evapictl", for a
 * log level that was set while evapid runs. NULL: memory is short. */
json_t *inventory_describe(const struct config *config, size_t row);

/* The names of the keys whose values differ, as they are in `after`. Listeners are compared by their addresses; if one has
 * come or gone, "listeners" is among the names. NULL: memory is short. */
json_t *inventory_changes(const struct config *before, const struct config *after);

#endif
