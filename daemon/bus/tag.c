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

static bool tag_is_present(const struct tag *tag)
{
    return tag->receivers > 0 || tag->waits;
}

static void tag_tell(const struct tag_index *index, const struct tag *tag, bool before)
{
    if (tag_is_present(tag) != before)
        index->watch(index->owner, tag->hash, !before);
}

void tag_note_receiver(struct tag_index *index, struct client *client, bool receives)
{
    struct tag *tag = client->tagging.tag;
    if (tag == NULL)
        return;
    const bool before = tag_is_present(tag);
    if (receives)
        tag->receivers++;
    else
        tag->receivers--;
    tag_tell(index, tag, before);
}

/* Nobody has the tag: free it. */
static void tag_free_unused(struct tag_index *index, struct tag *tag)
{
    if (tag->clients > 0 || tag->kept != NULL)
        return;
    HASH_DEL(index->tags, tag);
    free(tag);
}

struct tag *tag_keep(struct tag_index *index, const char *name, size_t length, struct kept *kept)
{
    struct tag *tag = tag_find(index, name, length);
    if (tag == NULL)
        tag = tag_new(index, name, length);
    if (tag != NULL)
        tag->kept = kept;
    return tag;
}

void tag_keep_no_more(struct tag_index *index, struct tag *tag)
{
    tag_note_waits(index, tag, false);
    tag->kept = NULL;
    tag_free_unused(index, tag);
}

void tag_note_waits(struct tag_index *index, struct tag *tag, bool waits)
{
    const bool before = tag_is_present(tag);
    tag->waits = waits;
    tag_tell(index, tag, before);
}

bool tag_has_newcomer(const struct tag *tag, const struct client *but)
{
    const struct client *client = tag->first;
    while (client != NULL &&
           (client == but || client->state != CLIENT_ADMITTING || client->input.over || client->roster.leaving))
        client = client->tagging.next;
    return client != NULL;
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
    tag->clients--;
    tag_free_unused(index, tag);
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
