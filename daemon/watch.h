/* Watching descriptors: what has to be known before one is given to libuv.
 *
 * libuv keeps a table of all that it watches, by their numbers. It grows when a descriptor is first watched, and libuv
 * aborts when there is no memory for that (uv__io_start in its src/unix/core.c, all versions of 1.x). */
#ifndef EVAPID_WATCH_H
#define EVAPID_WATCH_H

#include <stdbool.h>
#include <stdlib.h>
#include <uv.h>

/* Could the loop begin to watch fd now? To be asked before uv_poll_init or uv_pipe_open; nothing else may take memory
 * before the handle is started. */
static inline bool watch_has_room(const uv_loop_t *loop, int fd)
{
    size_t entries = 4;
    if ((unsigned)fd < loop->nwatchers)
        return true;
    while (entries < (size_t)fd + 3)
        entries *= 2;
    void *volatile probe = malloc(entries * sizeof(void *)); /* volatile: else it is optimized away */
    free(probe);
    return probe != NULL;
}

#endif
