/* Memory that runs out. */
#include "memory.h"

#include <stdbool.h>
#include <stdlib.h>

static struct {
    bool limited;
    long calls; /* calls that still get memory */
    size_t refused;
} memory;

void memory_limit(long calls)
{
    memory.limited = calls >= 0;
    memory.calls = calls;
    memory.refused = 0;
}

size_t memory_refused(void)
{
    return memory.refused;
}

static bool memory_is_out(void)
{
    if (!memory.limited || memory.calls-- > 0)
        return false;
    memory.calls = 0;
    memory.refused++;
    return true;
}

/* The linker's names: a call reaches __wrap_, and __real_ is the original function. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *bytes, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *bytes, size_t size);

void *__wrap_malloc(size_t size)
{
    return memory_is_out() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return memory_is_out() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *bytes, size_t size)
{
    return memory_is_out() ? NULL : __real_realloc(bytes, size);
}
