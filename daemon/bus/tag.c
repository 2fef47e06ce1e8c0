/* The tag index. */
#define HASH_NONFATAL_OOM 1 /* uthash: an allocation that fails leaves the table as it was */
#include "bus/tag.h"

#include <stdlib.h>
#include <utlist.h>

#include "client/client.h"
#include "evapid/presence.h"

struct tag *tag_find(const struct tag_index *index, const char *name, size_t length)
{
    struct tag *tag = NULL;
    HASH_FIND(hh, index->tags, name, length, tag);
    return tag;
}

static struct tag *tag_new(struct tag_index *index, const char *name, size_t length)
{
    struct tag *tag = calloc(1, sizeof(*tag));
    if (tag == NULL)
        return NULL;
    tag->length = (uint8_t)length;
    tag->hash = presence_hash(name, length);
    memcpy(tag->name, name, length);
    HASH_ADD_KEYPTR(hh, index->tags, tag->name, length, tag);
    if (tag->hh.tbl == NULL) {
        free(tag);
        return NULL;
    }
    return tag;
}

void tag_note_listed(struct tag_index *index, struct client *client, bool listed)
{
    struct tag *tag = client->tag;
    if (tag == NULL)
        return;
    if (listed && tag->listed++ == 0)
        index->watch(index->owner, tag->hash, true);
    else if (!listed && --tag->listed == 0)
        index->watch(index->owner, tag->hash, false);
}

void tag_take(struct tag_index *index, struct client *client)
{
    struct tag *tag = client->tag;
    if (tag == NULL)
        return;
    if (client->listed)
        tag_note_listed(index, client, false);
    client->tag = NULL;
    if (tag->turn == client)
        tag->turn = client->tag_next;
    DL_DELETE2(tag->first, client, tag_prev, tag_next);
    if (--tag->clients > 0)
        return;
    HASH_DEL(index->tags, tag);
    free(tag);
}

void tag_set_turn(struct client *client)
{
    if (client->tag != NULL)
        client->tag->turn = client;
}

bool tag_has_turn(const struct client *client)
{
    return client->tag != NULL && client->tag->turn == client;
}

bool tag_give(struct tag_index *index, struct client *client, const char *name, size_t length)
{
    struct tag *tag = tag_find(index, name, length);
    if (tag != NULL && tag == client->tag)
        return true;
    tag_take(index, client);
    if (tag == NULL)
        tag = tag_new(index, name, length);
    if (tag == NULL)
        return false;
    client->tag = tag;
    DL_APPEND2(tag->first, client, tag_prev, tag_next);
    tag->clients++;
    if (client->listed)
        tag_note_listed(index, client, true);
    return true;
}
