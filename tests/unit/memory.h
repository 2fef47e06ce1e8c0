/* Memory that runs out when a test wants it to. This affects evapid's own calls of malloc, calloc and realloc, not
 * those of libraries: the linker wraps them (CMakeLists.txt). */
#ifndef EVAPID_TEST_MEMORY_H
#define EVAPID_TEST_MEMORY_H

#include <stddef.h>

/* From now on this many calls get memory and all later ones none. A negative number: all get memory. */
void memory_limit(long calls);

/* How many calls got none since the limit was set. */
size_t memory_refused(void);

#endif
