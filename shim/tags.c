/* Tags that may be on their way to evapid: a table by connection. */
#define HASH_NONFATAL_OOM 1 /* uthash: a failed allocation leaves the table as it was */
#include <stdlib.h>
#include <uthash.h>

#include "tags.h"

struct kept {
    uint32_t connection;
    struct tag tag;
    UT_hash_handle hh;
};

static struct kept *table;

static struct kept *find(uint32_t connection)
{
    struct kept *kept = NULL;
    HASH_FIND(hh, table, &connection, sizeof(connection), kept);
    return kept;
}

static struct kept *add(uint32_t connection)
{
    struct kept *kept = calloc(1, sizeof(*kept));
    if (kept == NULL)
        return NULL;
    kept->connection = connection;
    HASH_ADD(hh, table, connection, sizeof(kept->connection), kept);
    if (kept->hh.tbl != NULL)
        return kept;
    free(kept);
    return NULL;
}

void tags_keep(uint32_t connection, const struct tag *tag)
{
    struct kept *kept = find(connection);
    if (kept == NULL)
        kept = add(connection);
    if (kept != NULL)
        kept->tag = *tag;
}

const struct tag *tags_recall(uint32_t connection)
{
    const struct kept *kept = find(connection);
    return kept != NULL ? &kept->tag : NULL;
}

static void drop(struct kept *kept)
{
    HASH_DEL(table, kept); /* NOLINT(clang-analyzer-unix.Malloc): HASH_ITER reads the next before it drops one */
    free(kept);
}

void tags_forget(uint32_t connection)
{
    struct kept *kept = find(connection);
    if (kept != NULL)
        drop(kept);
}

void tags_forget_all(void)
{
    struct kept *kept = NULL;
    struct kept *next = NULL;
    HASH_ITER(hh, table, kept, next)
    drop(kept);
}
