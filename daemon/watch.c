/* The memory for libuv's table of what it watches. */
#include "watch.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* For the table when it grows next. */
static struct {
    void *memory; /* NULL: none is laid by */
    size_t size;
} spare;

/* libuv has one block that grows: that table. */
static void *watch_realloc(void *memory, size_t size)
{
    if (spare.memory == NULL || size > spare.size)
        return realloc(memory, size);
    void *grown = spare.memory;
    const size_t had = memory != NULL ? malloc_usable_size(memory) : 0;
    if (had > 0)
        memcpy(grown, memory, had < size ? had : size);
    free(memory);
    spare.memory = NULL;
    return grown;
}

void watch_prepare(void)
{
    uv_replace_allocator(malloc, watch_realloc, calloc, free);
}

/* The table has a power of two of entries, two of which libuv uses itself. */
bool watch_has_room(const uv_loop_t *loop, int fd)
{
    size_t entries = 4;
    if ((unsigned)fd < loop->nwatchers)
        return true;
    while (entries < (size_t)fd + 3)
        entries *= 2;
    if (spare.memory != NULL && spare.size >= entries * sizeof(void *))
        return true;
    free(spare.memory);
    spare.size = entries * sizeof(void *);
    spare.memory = malloc(spare.size);
    return spare.memory != NULL;
}
