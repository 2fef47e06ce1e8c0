/* Tells the service manager what to keep, and decides who gets a place. */
#define HASH_NONFATAL_OOM 1 /* uthash: a failed allocation leaves the table as it was */
#include "base/store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/log.h"
#include "base/notify.h"
#include "evapid/limits.h"

#define SETTLE_MS 5000U
#define CLIENT_NAME_BYTES 18U /* "client-4294967295" and a colon */
#define NAMES_MAX                                                                                                      \
    120000U /* bytes of all names: they come back in one environment variable (MAX_ARG_STRLEN, execve(2)) */

/* Every evapid needs these places when it is restarted, whether they are in use now or not. The links to Kamailio's
 * workers come in addition (store_reserve). */
static const char *const needed[] = { "state", "ledger", "ring", "ring-wake", "kamailio-socket", "control-socket" };

/* A connected client. */
struct stored_client {
    uint32_t index;
    int fd; /* the client's own; stays open until store_forget_client */
    UT_hash_handle hh;
};

static struct {
    unsigned most;              /* the most descriptors; 0: there is no store */
    struct descriptors kept;    /* their names; the service manager has the descriptors */
    size_t names;               /* bytes of the names, plus a colon for each */
    unsigned links, links_kept; /* of workers: how many places are reserved, and how many links are kept */

    /* uthash by index, in order of arrival. Those before waiting are kept, the others are not. */
    struct stored_client *clients, *waiting;
    unsigned waiting_count;
    uint64_t expected; /* clients for which a warning was logged; 0: no warning yet */
} store;

static struct log_limit failures = { .kind = "store: descriptors that are not kept" };
static struct log_limit changes = { .kind = "store: clients that are kept now, or no more" };

static bool is_kept(const char *name)
{
    struct descriptor *kept = NULL;
    HASH_FIND_STR(store.kept.all, name, kept);
    return kept != NULL;
}

static bool is_link(const char *name)
{
    return strncmp(name, "worker-", strlen("worker-")) == 0;
}

static void free_names(char **names)
{
    for (char **name = names; name != NULL && *name != NULL; name++)
        free(*name);
    free(names);
}

bool store_open(struct descriptors *descriptors)
{
    const char *most = getenv("FDSTORE");
    char **names = NULL;
    store.most = notify_open() && most != NULL ? (unsigned)strtoul(most, NULL, 10) : 0;
    const int count = sd_listen_fds_with_names(1, &names);
    for (int i = 0; i < count; i++) {
        const int fd = SD_LISTEN_FDS_START + i;
        if (names == NULL || !descriptors_add(descriptors, fd, "%s", names[i]))
            close(fd); /* a duplicate name, or memory is short */
        else if (descriptors_add(&store.kept, -1, "%s", names[i])) {
            store.names += strlen(names[i]) + 1;
            store.links_kept += is_link(names[i]);
        }
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

/* Write the whole name. False: there is no store, so nobody needs it. */
static bool store_name(char what[HOLDING_NAME_MAX + 1], const char *name, va_list args)
{
    if (store.most > 0)
        vsnprintf(what, HOLDING_NAME_MAX + 1, name, args);
    return store.most > 0;
}

/* ---- places ----------------------------------------------------------------------------------------------------- */

/* Places that are reserved and still free, without the one for this name. */
static unsigned places_reserved(const char *name)
{
    const unsigned taken = store.links_kept + is_link(name);
    unsigned reserved = store.links > taken ? store.links - taken : 0;
    for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++)
        reserved += !is_kept(needed[i]) && strcmp(needed[i], name) != 0;
    return reserved;
}

/* Is there room for one more descriptor of this name beside so many others, each with the longest name? */
static bool has_room(const char *name, unsigned reserved)
{
    return HASH_COUNT(store.kept.all) + reserved < store.most &&
           store.names + strlen(name) + 1 + (size_t)reserved * (HOLDING_NAME_MAX + 1) <= NAMES_MAX;
}

/* Tell the service manager to keep it. False: it cannot be told, or memory is short. */
static bool put(int fd, const char *name)
{
    if (!descriptors_add(&store.kept, -1, "%s", name))
        return false;
    if (notify_keep(fd, name)) {
        store.names += strlen(name) + 1;
        store.links_kept += is_link(name);
        return true;
    }
    descriptors_remove(&store.kept, "%s", name);
    log_limited(&failures, LEVEL_WARNING, name, "no memory to tell the service manager to keep it");
    return false;
}

/* Returns whether it was kept. */
static bool take_back(const char *name)
{
    if (!is_kept(name))
        return false;
    descriptors_remove(&store.kept, "%s", name);
    store.names -= strlen(name) + 1;
    store.links_kept -= is_link(name);
    notify_forget(name);
    return true;
}

static void say_full(const char *name)
{
    log_limited(&failures, LEVEL_WARNING, name,
                "not kept by the service manager, which has %u of %u (FDSTORE), with names of %zu of %u bytes",
                HASH_COUNT(store.kept.all), store.most, store.names, NAMES_MAX);
}

static void client_name(const struct stored_client *client, char name[HOLDING_NAME_MAX + 1])
{
    snprintf(name, HOLDING_NAME_MAX + 1, "client-%u", client->index);
}

/* Remove the stored client that came last. False: there is none. */
static bool displace_client(void)
{
    char name[HOLDING_NAME_MAX + 1];
    struct stored_client *last = store.waiting != NULL ? store.waiting->hh.prev
                                 : store.clients != NULL
                                     ? ELMT_FROM_HH(store.clients->hh.tbl, store.clients->hh.tbl->tail)
                                     : NULL;
    if (last == NULL)
        return false;
    store.waiting = last;
    store.waiting_count++;
    client_name(last, name);
    take_back(name);
    log_limited(&changes, LEVEL_WARNING, name, "no longer kept by the service manager: its place is needed");
    return true;
}

/* Give free places to waiting clients, in order of arrival. */
static void place_clients(void)
{
    char name[HOLDING_NAME_MAX + 1];
    while (store.waiting != NULL) {
        client_name(store.waiting, name);
        if (!has_room(name, places_reserved(name)) || !put(store.waiting->fd, name))
            return;
        store.waiting = store.waiting->hh.next;
        store.waiting_count--;
        log_limited(&changes, LEVEL_INFO, name, "kept by the service manager now");
    }
}

/* ---- what is kept ----------------------------------------------------------------------------------------------- */

void store_keep(int fd, const char *name, ...)
{
    char what[HOLDING_NAME_MAX + 1];
    va_list args;
    va_start(args, name);
    const bool stored = store_name(what, name, args);
    va_end(args);
    if (!stored)
        return;
    while (!has_room(what, places_reserved(what)) && displace_client())
        ;
    if (has_room(what, 0))
        put(fd, what);
    else
        say_full(what);
}

void store_keep_client(int fd, uint32_t index)
{
    char name[HOLDING_NAME_MAX + 1];
    struct stored_client *client = store.most > 0 ? calloc(1, sizeof(*client)) : NULL;
    if (client == NULL)
        return;
    *client = (struct stored_client){ .index = index, .fd = fd };
    HASH_ADD(hh, store.clients, index, sizeof(index), client);
    if (client->hh.tbl == NULL) {
        free(client);
        return;
    }
    client_name(client, name);
    if (is_kept(name) || (store.waiting == NULL && has_room(name, places_reserved(name)) && put(fd, name)))
        return;
    say_full(name);
    store.waiting_count++;
    if (store.waiting == NULL)
        store.waiting = client;
}

void store_forget_client(uint32_t index)
{
    struct stored_client *client = NULL;
    HASH_FIND(hh, store.clients, &index, sizeof(index), client);
    if (client != NULL) {
        char name[HOLDING_NAME_MAX + 1];
        client_name(client, name);
        store.waiting_count -= !is_kept(name);
        if (store.waiting == client)
            store.waiting = client->hh.next;
        HASH_DEL(store.clients, client);
        free(client);
    }
    store_forget("client-%u", index);
}

void store_reserve(unsigned links)
{
    store.links = links;
    while (store.most > 0 && HASH_COUNT(store.kept.all) + places_reserved("") > store.most && displace_client())
        ;
    place_clients();
}

unsigned store_clients_waiting(void)
{
    return store.waiting_count;
}

void store_expect(uint64_t clients, unsigned sockets)
{
    const uint64_t others = sizeof(needed) / sizeof(*needed) + sockets + EVAPID_WORKERS_MAX;
    const uint64_t most_named = NAMES_MAX / CLIENT_NAME_BYTES;
    if (store.most == 0 || clients == store.expected || clients + others <= store.most)
        return;
    store.expected = clients;
    log_line(
        LEVEL_WARNING, "store",
        "%llu clients may connect (max_clients), but the service manager keeps %u descriptors: a restart disconnects "
        "clients that have no place; set FileDescriptorStoreMax= and FDSTORE to %llu%s",
        (unsigned long long)clients, store.most,
        (unsigned long long)(clients + others < most_named ? clients + others : most_named),
        clients + others < most_named ? "" : ", which is the most, and lower max_clients");
}

/* Returns whether it was kept. */
static bool store_remove(const char *name, va_list args)
{
    char what[HOLDING_NAME_MAX + 1];
    if (!store_name(what, name, args) || !take_back(what))
        return false;
    place_clients();
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
    store.waiting = NULL; /* nobody gets a place any more */
    while (store.kept.all != NULL)
        store_forget("%s", store.kept.all->name);
}

void store_drain(void)
{
    if (store.most > 0)
        notify_drain(SETTLE_MS);
}
