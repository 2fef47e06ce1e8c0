/* Memory that runs out when a test wants it to. evapid's own calls of malloc, calloc and realloc pass here, those of
 * libraries don't: the linker wraps them (CMakeLists.txt). */
#ifndef EVAPID_TEST_MEMORY_H
#define EVAPID_TEST_MEMORY_H

#include <stddef.h>

/* From here on, that many calls get memory and all that follow none; a negative number: all get some. */
void memory_limit(long calls);

/* How many calls got none since the limit was set. */
size_t memory_refused(void);

#endif
