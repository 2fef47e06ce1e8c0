/* Descriptors by name. */
#define HASH_NONFATAL_OOM 1 /* uthash: a failed allocation leaves the table as it was */
#include "base/descriptors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool descriptors_add(struct descriptors *descriptors, int fd, const char *name, ...)
{
    struct descriptor *there = NULL;
    struct descriptor *descriptor = calloc(1, sizeof(*descriptor));
    if (descriptor == NULL)
        return false;
    va_list args;
    va_start(args, name);
    const int length = vsnprintf(descriptor->name, sizeof(descriptor->name), name, args);
    va_end(args);
    HASH_FIND_STR(descriptors->all, descriptor->name, there);
    if (length < 0 || length > HOLDING_NAME_MAX || there != NULL) {
        free(descriptor);
        return false;
    }
    descriptor->fd = fd;
    HASH_ADD_STR(descriptors->all, name, descriptor);
    if (descriptor->hh.tbl != NULL)
        return true;
    free(descriptor);
    return false;
}

int descriptors_remove(struct descriptors *descriptors, const char *name, ...)
{
    char wanted[HOLDING_NAME_MAX + 1];
    struct descriptor *descriptor = NULL;
    va_list args;
    va_start(args, name);
    vsnprintf(wanted, sizeof(wanted), name, args);
    va_end(args);
    HASH_FIND_STR(descriptors->all, wanted, descriptor);
    if (descriptor == NULL)
        return -1;
    const int fd = descriptor->fd;
    HASH_DEL(descriptors->all, descriptor);
    free(descriptor);
    return fd;
}

void descriptors_clear(struct descriptors *descriptors, bool close_them)
{
    struct descriptor *descriptor = NULL;
    struct descriptor *next = NULL;
    HASH_ITER(hh, descriptors->all, descriptor, next)
    {
        HASH_DEL(descriptors->all, descriptor); /* NOLINT(clang-analyzer-unix.Malloc): next is not freed yet */
        if (close_them)
            close(descriptor->fd);
        free(descriptor);
    }
}
