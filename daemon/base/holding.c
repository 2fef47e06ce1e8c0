/* Descriptors by name. */
#define HASH_NONFATAL_OOM 1 /* uthash: a failed allocation leaves the table as it was */
#include "base/holding.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool holdings_add(struct holdings *holdings, int fd, const char *name, ...)
{
    struct holding *there = NULL;
    struct holding *holding = calloc(1, sizeof(*holding));
    if (holding == NULL)
        return false;
    va_list args;
    va_start(args, name);
    const int length = vsnprintf(holding->name, sizeof(holding->name), name, args);
    va_end(args);
    HASH_FIND_STR(holdings->all, holding->name, there);
    if (length < 0 || length > HOLDING_NAME_MAX || there != NULL) {
        free(holding);
        return false;
    }
    holding->fd = fd;
    HASH_ADD_STR(holdings->all, name, holding);
    if (holding->hh.tbl != NULL)
        return true;
    free(holding);
    return false;
}

int holdings_take(struct holdings *holdings, const char *name, ...)
{
    char wanted[HOLDING_NAME_MAX + 1];
    struct holding *holding = NULL;
    va_list args;
    va_start(args, name);
    vsnprintf(wanted, sizeof(wanted), name, args);
    va_end(args);
    HASH_FIND_STR(holdings->all, wanted, holding);
    if (holding == NULL)
        return -1;
    const int fd = holding->fd;
    HASH_DEL(holdings->all, holding);
    free(holding);
    return fd;
}

void holdings_clear(struct holdings *holdings, bool close_them)
{
    struct holding *holding = NULL;
    struct holding *next = NULL;
    HASH_ITER(hh, holdings->all, holding, next)
    {
        HASH_DEL(holdings->all, holding); /* NOLINT(clang-analyzer-unix.Malloc): next is not freed yet */
        if (close_them)
            close(holding->fd);
        free(holding);
    }
}
