/* Presence: what the routing script can know about evapid's clients without asking.
 *
 * It lies in the ring's shared header. Only evapid writes it, with one exception: an evapi worker clears attached when
 * its evapid is gone. Kamailio's processes read it before they suspend a transaction for an answer, so an async call
 * fails at once when no client is there to answer. Each field stands alone: a reader sees the state before or after a
 * write.
 *
 * Tags are an open-addressed set of their 64-bit hashes (FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/). A hash
 * never moves while it is in the set, so readers need no lock. As tags come and go, the set fills with slots that
 * hashes have left, and probes become long. evapid therefore rewrites the set now and then. A reader that finds nothing
 * during a rewrite sees it in written, and takes the tag for present. */
#ifndef EVAPID_PRESENCE_H
#define EVAPID_PRESENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRESENCE_TAG_SLOTS 32768U                      /* a power of two */
#define PRESENCE_TAGS_MAX (PRESENCE_TAG_SLOTS / 4 * 3) /* with more distinct tags, every tag counts as present */

#define PRESENCE_REVIEW 1024U   /* after so many removals, count the slots that were left */
#define PRESENCE_LEFT_MAX 2048U /* over this number, rewrite the set */

#define PRESENCE_EMPTY 0U /* ends a probe */
#define PRESENCE_LEFT 1U  /* a hash was here: a probe continues, an insertion may use it */

struct presence {
    _Atomic uint32_t attached; /* 1 while an evapid reads the ring */
    _Atomic uint32_t session;  /* the attached evapid's number: two starts in a row never share one */
    _Atomic uint32_t clients;  /* admitted clients */
    _Atomic uint32_t crowded;  /* 1: more distinct tags than the set can hold; 0 after a rewrite that holds all */
    _Atomic uint32_t tags;     /* distinct tags in the set */
    _Atomic uint32_t expected; /* clients connected, or connected before evapid's last restart and awaited; stays when
                                  evapid ends, to tell the next one how many may return */
    _Atomic uint32_t written;  /* counts the start and the end of each rewrite: odd during one */
    uint32_t reserved[9];
    _Atomic uint64_t hashes[PRESENCE_TAG_SLOTS];
};

/* Hash of a tag of len bytes; never PRESENCE_EMPTY or PRESENCE_LEFT. */
static inline uint64_t presence_hash(const char *tag, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325U;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)tag[i]) * 0x100000001b3U;
    return hash > PRESENCE_LEFT ? hash : hash + 2;
}

static inline uint32_t presence_slot(uint64_t hash, uint32_t step)
{
    return (uint32_t)((hash ^ hash >> 32) + step) & (PRESENCE_TAG_SLOTS - 1);
}

/* Would a relayed event reach any client now? */
static inline bool presence_anyone(const struct presence *p)
{
    return atomic_load_explicit(&p->attached, memory_order_acquire) != 0 &&
           atomic_load_explicit(&p->clients, memory_order_acquire) != 0;
}

static inline bool presence_has(const struct presence *p, uint64_t hash)
{
    for (uint32_t step = 0; step < PRESENCE_TAG_SLOTS; step++) {
        const uint64_t seen = atomic_load_explicit(&p->hashes[presence_slot(hash, step)], memory_order_acquire);
        if (seen == hash)
            return true;
        if (seen == PRESENCE_EMPTY)
            return false;
    }
    return false;
}

/* Does a client carry the tag? Also true when the set is too full to tell, or is being rewritten. */
static inline bool presence_tagged(const struct presence *p, const char *tag, size_t len)
{
    if (!presence_anyone(p))
        return false;
    const uint32_t written = atomic_load_explicit(&p->written, memory_order_acquire);
    if (atomic_load_explicit(&p->crowded, memory_order_acquire) != 0 || presence_has(p, presence_hash(tag, len)))
        return true;
    atomic_thread_fence(memory_order_acquire); /* reads the slots before this */
    return written % 2 != 0 || atomic_load_explicit(&p->written, memory_order_relaxed) != written;
}

/* Add the hash of a tag that had no client before. */
static inline void presence_add(struct presence *p, uint64_t hash)
{
    const uint32_t tags = atomic_load_explicit(&p->tags, memory_order_relaxed);
    if (tags >= PRESENCE_TAGS_MAX) {
        atomic_store_explicit(&p->crowded, 1, memory_order_release);
        return;
    }
    for (uint32_t step = 0; step < PRESENCE_TAG_SLOTS; step++) {
        _Atomic uint64_t *slot = &p->hashes[presence_slot(hash, step)];
        if (atomic_load_explicit(slot, memory_order_relaxed) > PRESENCE_LEFT)
            continue;
        atomic_store_explicit(slot, hash, memory_order_release);
        atomic_store_explicit(&p->tags, tags + 1, memory_order_relaxed);
        return;
    }
}

/* Remove the hash of a tag whose last client has gone. Does nothing if the set does not hold it. */
static inline void presence_remove(struct presence *p, uint64_t hash)
{
    uint32_t step = 0;
    for (;; step++) {
        if (step == PRESENCE_TAG_SLOTS)
            return;
        const uint64_t seen = atomic_load_explicit(&p->hashes[presence_slot(hash, step)], memory_order_relaxed);
        if (seen == PRESENCE_EMPTY)
            return;
        if (seen == hash)
            break;
    }
    atomic_fetch_sub_explicit(&p->tags, 1, memory_order_relaxed);
    const uint32_t found = presence_slot(hash, step);
    atomic_store_explicit(&p->hashes[found], PRESENCE_LEFT, memory_order_release);
    if (atomic_load_explicit(&p->hashes[(found + 1) & (PRESENCE_TAG_SLOTS - 1)], memory_order_relaxed) !=
        PRESENCE_EMPTY)
        return;
    /* The next slot is empty, so no probe needs this slot, nor the slots before it that hashes have left. */
    for (uint32_t i = 0; i < PRESENCE_TAG_SLOTS; i++) {
        _Atomic uint64_t *slot = &p->hashes[(found - i) & (PRESENCE_TAG_SLOTS - 1)];
        if (atomic_load_explicit(slot, memory_order_relaxed) != PRESENCE_LEFT)
            return;
        atomic_store_explicit(slot, PRESENCE_EMPTY, memory_order_release);
    }
}

/* Counts the slots that hashes have left. They lengthen the probes that pass them. */
static inline uint32_t presence_left(const struct presence *p)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < PRESENCE_TAG_SLOTS; i++)
        left += atomic_load_explicit(&p->hashes[i], memory_order_relaxed) == PRESENCE_LEFT;
    return left;
}

/* Empty the set. The caller then adds all current tags and calls presence_end. Until then every tag counts as present,
 * also for readers of older modules, which do not read written. */
static inline void presence_begin(struct presence *p)
{
    const uint32_t written = atomic_load_explicit(&p->written, memory_order_relaxed);
    atomic_store_explicit(&p->written, written | 1, memory_order_relaxed);
    atomic_store_explicit(&p->crowded, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* writes no slot before this */
    for (uint32_t i = 0; i < PRESENCE_TAG_SLOTS; i++)
        atomic_store_explicit(&p->hashes[i], PRESENCE_EMPTY, memory_order_relaxed);
    atomic_store_explicit(&p->tags, 0, memory_order_relaxed);
}

/* The caller has added this many tags, or tried to: the set may have been full. */
static inline void presence_end(struct presence *p, size_t tags)
{
    const uint32_t written = atomic_load_explicit(&p->written, memory_order_relaxed);
    atomic_store_explicit(&p->crowded, tags > PRESENCE_TAGS_MAX, memory_order_release);
    atomic_store_explicit(&p->written, written + 1, memory_order_release);
}

#endif
