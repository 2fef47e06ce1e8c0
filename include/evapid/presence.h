/* Presence: what evapid tells the routing script about its clients without being asked.
 *
 * It lies in the ring's shared header. evapid is its only writer, but for attached, which an evapi worker also clears
 * when it finds its evapid gone. Kamailio's processes read it before they suspend a transaction for an answer, so that
 * an async call fails at once when nobody is there to give one. Every field stands on its own; a reader that comes while
 * evapid writes sees the state before or after.
 *
 * Tags are kept as an open-addressed set of their 64-bit hashes (FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/).
 * A hash never moves while it is in the set, so that readers need no lock. As tags come and go, places that were left gather in
 * the set and probes become long; so evapid writes it anew now and then. Whoever looks meanwhile, and finds nothing, can tell
 * by written, and takes the tag for present. */
#ifndef EVAPID_PRESENCE_H
#define EVAPID_PRESENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRESENCE_TAG_SLOTS 32768U                      /* a power of two */
#define PRESENCE_TAGS_MAX (PRESENCE_TAG_SLOTS / 4 * 3) /* more distinct tags than this: every tag counts as present */

#define PRESENCE_REVIEW 1024U   /* after so many removals it is worth a look how many places have been left */
#define PRESENCE_LEFT_MAX 2048U /* more of them than this are worth writing the set anew */

#define PRESENCE_EMPTY 0U /* ends a probe */
#define PRESENCE_LEFT 1U  /* a hash was here: a probe goes on, an insertion may use it */

struct presence {
    _Atomic uint32_t attached; /* 1 while an evapid reads the ring */
    _Atomic uint32_t session;  /* the attached evapid's number: never the same for two starts in a row */
    _Atomic uint32_t clients;  /* admitted clients */
    _Atomic uint32_t
        crowded; /* 1 once there have been more distinct tags than the set holds; 0 when it is written anew, and
                                 holds them all */
    _Atomic uint32_t tags;     /* distinct tags in the set */
    _Atomic uint32_t expected; /* clients that are there, or were before evapid's last restart and are waited for; it
                                  stays when evapid ends, and tells the next one how many may come back */
    _Atomic uint32_t written;  /* how often the set was begun to be written anew, and was ready: odd in between */
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

/* Is anybody there who would get a relayed event now? */
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

/* Is a client there that carries the tag? True as well when the set is too full to tell, or is being written anew. */
static inline bool presence_tagged(const struct presence *p, const char *tag, size_t len)
{
    if (!presence_anyone(p))
        return false;
    const uint32_t written = atomic_load_explicit(&p->written, memory_order_acquire);
    if (atomic_load_explicit(&p->crowded, memory_order_acquire) != 0 || presence_has(p, presence_hash(tag, len)))
        return true;
    atomic_thread_fence(memory_order_acquire); /* the slots were read before this */
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

/* Take out the hash of a tag whose last client has gone. A hash that is not in the set is left alone. */
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
    /* Nothing stands behind it: no probe has to pass here any more, nor through those that have left in front of it. */
    for (uint32_t i = 0; i < PRESENCE_TAG_SLOTS; i++) {
        _Atomic uint64_t *slot = &p->hashes[(found - i) & (PRESENCE_TAG_SLOTS - 1)];
        if (atomic_load_explicit(slot, memory_order_relaxed) != PRESENCE_LEFT)
            return;
        atomic_store_explicit(slot, PRESENCE_EMPTY, memory_order_release);
    }
}

/* Places that were left, and lengthen the probes that pass them. */
static inline uint32_t presence_left(const struct presence *p)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < PRESENCE_TAG_SLOTS; i++)
        left += atomic_load_explicit(&p->hashes[i], memory_order_relaxed) == PRESENCE_LEFT;
    return left;
}

/* Forget every tag: those that there are are about to be added, up to presence_end. Until then every tag counts as present,
 * also for readers of older modules, which do not look at written. */
static inline void presence_begin(struct presence *p)
{
    const uint32_t written = atomic_load_explicit(&p->written, memory_order_relaxed);
    atomic_store_explicit(&p->written, written | 1, memory_order_relaxed);
    atomic_store_explicit(&p->crowded, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* no slot is written before this */
    for (uint32_t i = 0; i < PRESENCE_TAG_SLOTS; i++)
        atomic_store_explicit(&p->hashes[i], PRESENCE_EMPTY, memory_order_relaxed);
    atomic_store_explicit(&p->tags, 0, memory_order_relaxed);
}

/* So many have been added, or would have been if they had found room. */
static inline void presence_end(struct presence *p, size_t tags)
{
    const uint32_t written = atomic_load_explicit(&p->written, memory_order_relaxed);
    atomic_store_explicit(&p->crowded, tags > PRESENCE_TAGS_MAX, memory_order_release);
    atomic_store_explicit(&p->written, written + 1, memory_order_release);
}

#endif
