/* Tags: names that the routing script gives to clients, and the index that finds the clients of one.
 *
 * A client has at most one tag. The clients of a tag stand in the order in which they got it; which of them a unicast means
 * is said by group.h. A tag exists while a client carries it, also one that is being admitted or has gone: its last routes may
 * read it. Whether the tag reaches anybody is said by those of its clients that get events (client.roster.receives). */
#ifndef EVAPID_TAG_H
#define EVAPID_TAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

#include "evapid/limits.h"

struct client;

struct tag {
    struct client *first;      /* list of its clients, linked through client.tagging (utlist's DL) */
    struct client *turn;       /* with whom a search begins for whose turn it is (group.h); NULL: with the first */
    size_t clients, receivers; /* carriers; those of them that get events */
    uint64_t hash;             /* presence_hash of the name */
    uint8_t length;
    char name[EVAPID_TAG_MAX]; /* any bytes, no NUL at the end */
    UT_hash_handle hh;
};

/* Told when a tag has got its first client that gets events (present) or lost its last. */
typedef void tag_watch(void *owner, uint64_t hash, bool present);

struct tag_index {
    struct tag *tags; /* uthash by name */
    tag_watch *watch;
    void *owner;
};

/* Give client the tag of length bytes (1 to EVAPID_TAG_MAX) in place of the one it had. False when there is no memory:
 * the client then has none. */
bool tag_give(struct tag_index *index, struct client *client, const char *name, size_t length);

/* Take the client's tag away, if it has one. */
void tag_remove(struct tag_index *index, struct client *client);

/* Does the next event for one of its tag begin with that client? */
bool tag_has_turn(const struct client *client);

/* A client that was taken over had the turn, or not; and it has got its tag again. */
void tag_await_turn(struct client *client, bool has_turn);
void tag_restore_turn(struct client *client);

/* The client receives events from now on, or no more. */
void tag_note_receiver(struct tag_index *index, struct client *client, bool receives);

/* The tag of that name, or NULL. */
struct tag *tag_find(const struct tag_index *index, const char *name, size_t length);

#endif
