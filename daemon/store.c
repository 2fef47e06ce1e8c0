/* Telling the service manager what to keep. */
#include "store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "log.h"
#include "notify.h"

#define SETTLE_MS 5000U
#define NAMES_MAX                                                                                                      \
    120000U /* bytes of all names: they come back in one variable of the environment (MAX_ARG_STRLEN, execve(2)) */

static struct {
    unsigned most;        /* descriptors; 0: there is no store */
    struct holdings kept; /* their names; the descriptors are the service manager's */
    size_t names;         /* bytes of the names, with a colon each */
} store;

static struct log_limit failures = { .kind = "store: descriptors that are not kept" };

static void free_names(char **names)
{
    for (char **name = names; name != NULL && *name != NULL; name++)
        free(*name);
    free(names);
}

bool store_open(struct holdings *holdings)
{
    const char *most = getenv("FDSTORE");
    char **names = NULL;
    store.most = notify_open() && most != NULL ? (unsigned)strtoul(most, NULL, 10) : 0;
    const int count = sd_listen_fds_with_names(1, &names);
    for (int i = 0; i < count; i++) {
        const int fd = SD_LISTEN_FDS_START + i;
        if (names == NULL || !holdings_add(holdings, fd, "%s", names[i]))
            close(fd); /* a name that comes twice, or no memory */
        else if (holdings_add(&store.kept, -1, "%s", names[i]))
            store.names += strlen(names[i]) + 1;
    }
    free_names(names);
    return store.most > 0;
}

bool store_is_there(void)
{
    return store.most > 0;
}

bool store_is_managed(void)
{
    return getenv("NOTIFY_SOCKET") != NULL;
}

/* Write the whole name; false: there is no store, and no need of it. */
static bool store_name(char what[HOLDING_NAME_MAX + 1], const char *name, va_list args)
{
    if (store.most > 0)
        vsnprintf(what, HOLDING_NAME_MAX + 1, name, args);
    return store.most > 0;
}

void store_keep(int fd, const char *name, ...)
{
    char what[HOLDING_NAME_MAX + 1];
    va_list args;
    va_start(args, name);
    const bool stored = store_name(what, name, args);
    va_end(args);
    if (!stored)
        return;
    const unsigned kept = HASH_COUNT(store.kept.all);
    const size_t length = strlen(what) + 1;
    if (kept >= store.most || store.names + length > NAMES_MAX || !holdings_add(&store.kept, -1, "%s", what)) {
        log_limited(&failures, LEVEL_WARNING, what,
                    "not kept by the service manager, which has %u of %u (FDSTORE), with names of %zu of %u bytes",
                    kept, store.most, store.names, NAMES_MAX);
        return;
    }
    store.names += length;
    if (notify_keep(fd, what))
        return;
    holdings_take(&store.kept, "%s", what);
    store.names -= length;
    log_limited(&failures, LEVEL_WARNING, what, "no memory to tell the service manager to keep it");
}

/* Whether it was kept. */
static bool store_remove(const char *name, va_list args)
{
    char what[HOLDING_NAME_MAX + 1];
    struct holding *kept = NULL;
    if (!store_name(what, name, args))
        return false;
    HASH_FIND_STR(store.kept.all, what, kept);
    if (kept == NULL)
        return false;
    holdings_take(&store.kept, "%s", what);
    store.names -= strlen(what) + 1;
    notify_forget(what);
    return true;
}

void store_forget(const char *name, ...)
{
    va_list args;
    va_start(args, name);
    store_remove(name, args);
    va_end(args);
}

void store_end(int fd, const char *name, ...)
{
    va_list args;
    va_start(args, name);
    if (store_remove(name, args))
        shutdown(fd, SHUT_RDWR);
    va_end(args);
}

void store_forget_all(void)
{
    while (store.kept.all != NULL)
        store_forget("%s", store.kept.all->name);
}

void store_settle(void)
{
    if (store.most > 0)
        notify_settle(SETTLE_MS);
}
