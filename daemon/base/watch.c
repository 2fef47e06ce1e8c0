/* The memory for libuv's table of watched descriptors, and handles that outlive their owners. */
#include "base/watch.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* Memory for the next growth of the table. */
static struct {
    void *memory; /* NULL: none is reserved */
    size_t size;
} spare;

/* libuv grows only one block with realloc: that table. */
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

/* The table's size is a power of two; libuv uses two entries itself. */
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

uv_poll_t *watch_open(uv_loop_t *loop, int fd, void *owner)
{
    uv_poll_t *poll = watch_has_room(loop, fd) ? calloc(1, sizeof(*poll)) : NULL;
    if (poll == NULL || uv_poll_init(loop, poll, fd) != 0) {
        free(poll);
        return NULL;
    }
    poll->data = owner;
    return poll;
}

static void watch_on_closed(uv_handle_t *poll)
{
    free(poll);
}

void watch_close(uv_poll_t *poll)
{
    if (poll != NULL)
        uv_close((uv_handle_t *)poll, watch_on_closed);
}
