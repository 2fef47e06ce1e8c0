/* Tags: names that the routing script gives to clients, and the index that finds a tag's clients.
 *
 * A client has at most one tag. A tag's clients are in the order in which they got it; group.h chooses the one for a
 * unicast. A tag exists while a client has it, even one that is being admitted or has gone, because its last routes may
 * read the tag; and while it is kept (kept.h). The tag has receivers only if some of its clients get events
 * (client.roster.receives). */
#ifndef EVAPID_TAG_H
#define EVAPID_TAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

#include "evapid/limits.h"

struct client;
struct kept;

struct tag {
    struct client *first;      /* list of its clients, linked through client.tagging (utlist's DL) */
    struct client *turn;       /* the search for whose turn it is begins here (group.h); NULL: with the first */
    size_t clients, receivers; /* all; those that get events */
    struct kept *kept;         /* what waits for its next client; NULL: it is not kept */
    bool waits;                /* it is kept, and more events may wait for it */
    uint64_t hash;             /* presence_hash of the name */
    uint8_t length;
    char name[EVAPID_TAG_MAX]; /* any bytes, no NUL at the end */
    UT_hash_handle hh;
};

/* Called when a tag has got its first receiver (present) or lost its last. Events that may wait for a kept tag count as a
 * receiver. */
typedef void tag_watch(void *owner, uint64_t hash, bool present);

struct tag_index {
    struct tag *tags; /* uthash by name */
    tag_watch *watch;
    void *owner;
};

/* Give the client the tag of length bytes (1 to EVAPID_TAG_MAX) instead of the one it had. False: no memory; it has
 * none now. */
bool tag_give(struct tag_index *index, struct client *client, const char *name, size_t length);

/* Remove the client's tag, if it has one. */
void tag_remove(struct tag_index *index, struct client *client);

/* Does the next event for its tag go to this client first? */
bool tag_has_turn(const struct client *client);

/* await: did a client that was taken over have the turn? restore: it has its tag again, so give it back the turn. */
void tag_await_turn(struct client *client, bool has_turn);
void tag_restore_turn(struct client *client);

/* Does the client receive events from now on? */
void tag_note_receiver(struct tag_index *index, struct client *client, bool receives);

/* tag_keep: the tag of this name, made if need be, is kept. NULL: no memory. tag_keep_no_more: it is not kept any more,
 * and freed if no client has it. */
struct tag *tag_keep(struct tag_index *index, const char *name, size_t length, struct kept *kept);
void tag_keep_no_more(struct tag_index *index, struct tag *tag);

/* May more events wait for the kept tag? */
void tag_note_waits(struct tag_index *index, struct tag *tag, bool waits);

/* Is a client, besides this one, about to be admitted with the tag? but NULL: any client. */
bool tag_has_newcomer(const struct tag *tag, const struct client *but);

/* Do events for the tag wait now? A kept tag that has receivers gets nothing. */
static inline bool tag_awaits(const struct tag *tag)
{
    return tag->kept != NULL && tag->receivers == 0;
}

/* The tag of this name, or NULL. */
struct tag *tag_find(const struct tag_index *index, const char *name, size_t length);

#endif
