/* The tag index. */
#define HASH_NONFATAL_OOM 1 /* uthash: a failed allocation leaves the table unchanged */
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

void tag_note_receiver(struct tag_index *index, struct client *client, bool receives)
{
    struct tag *tag = client->tagging.tag;
    if (tag == NULL)
        return;
    if (receives && tag->receivers++ == 0)
        index->watch(index->owner, tag->hash, true);
    else if (!receives && --tag->receivers == 0)
        index->watch(index->owner, tag->hash, false);
}

void tag_remove(struct tag_index *index, struct client *client)
{
    struct tagging *tagging = &client->tagging;
    struct tag *tag = tagging->tag;
    if (tag == NULL)
        return;
    if (client->roster.receives)
        tag_note_receiver(index, client, false);
    tagging->tag = NULL;
    if (tag->turn == client)
        tag->turn = tagging->next;
    DL_DELETE2(tag->first, client, tagging.prev, tagging.next);
    if (--tag->clients > 0)
        return;
    HASH_DEL(index->tags, tag);
    free(tag);
}

void tag_await_turn(struct client *client, bool has_turn)
{
    struct tagging *tagging = &client->tagging;
    tagging->has_turn = has_turn;
}

void tag_restore_turn(struct client *client)
{
    struct tagging *tagging = &client->tagging;
    if (tagging->has_turn && tagging->tag != NULL)
        tagging->tag->turn = client;
}

bool tag_has_turn(const struct client *client)
{
    return client->tagging.tag != NULL && client->tagging.tag->turn == client;
}

bool tag_give(struct tag_index *index, struct client *client, const char *name, size_t length)
{
    struct tagging *tagging = &client->tagging;
    struct tag *tag = tag_find(index, name, length);
    if (tag != NULL && tag == tagging->tag)
        return true;
    tag_remove(index, client);
    if (tag == NULL)
        tag = tag_new(index, name, length);
    if (tag == NULL)
        return false;
    tagging->tag = tag;
    DL_APPEND2(tag->first, client, tagging.prev, tagging.next);
    tag->clients++;
    if (client->roster.receives)
        tag_note_receiver(index, client, true);
    return true;
}
