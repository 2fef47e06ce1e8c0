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
 * during a rewrite sees it in written, and takes the tag for present.
 *
 * Connections are a table of slots. A slot with one client names it. A slot that several share tells only that they are
 * there. */
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

/* A connection's slot is its index modulo this number, a power of two. Indexes count up, so clients share a slot only if
 * there are more of them, or some stay while so many others come and go. */
#define PRESENCE_CONNECTION_SLOTS 65536U
/* A slot is the XOR of its clients' indexes, and so often this for each client, and for each of them that gets events. */
#define PRESENCE_THERE (UINT64_C(1) << 32)
#define PRESENCE_RECEIVES (UINT64_C(1) << 48)

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
    _Atomic uint32_t before;   /* the session of an earlier evapid whose connections this one goes on with; 0: none */
    _Atomic uint32_t kept;     /* tags whose clients have gone and for which more events may wait */
    uint32_t reserved[7];
    _Atomic uint64_t hashes[PRESENCE_TAG_SLOTS];
    _Atomic uint64_t connections[PRESENCE_CONNECTION_SLOTS]; /* of clients that have been admitted */
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

/* Would a relayed event reach any client, now or when it comes back for its kept tag? */
static inline bool presence_anyone(const struct presence *p)
{
    return atomic_load_explicit(&p->attached, memory_order_acquire) != 0 &&
           (atomic_load_explicit(&p->clients, memory_order_acquire) != 0 ||
            atomic_load_explicit(&p->kept, memory_order_acquire) != 0);
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

/* Does a client carry the tag, or is it kept? Also true when the set is too full to tell, or is being rewritten. */
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

/* Is the connection with this index among those of the slot? True as well if the slot cannot tell. */
static inline bool presence_slot_has(uint64_t slot, uint32_t index)
{
    const uint64_t there = slot / PRESENCE_THERE % (PRESENCE_RECEIVES / PRESENCE_THERE);
    return there > 1 || (there == 1 && (uint32_t)slot == index);
}

/* Is there a connection with this index whose client has been admitted, as far as the last evapid published? A new
 * Kamailio or evapid may have it admitted once more. Also true when its slot is shared, or evapid is writing all slots
 * anew. Whether an evapid is attached is another question. */
static inline bool presence_connected(const struct presence *p, uint32_t index)
{
    const _Atomic uint64_t *slot = &p->connections[index % PRESENCE_CONNECTION_SLOTS];
    const uint32_t written = atomic_load_explicit(&p->written, memory_order_acquire);
    if (presence_slot_has(atomic_load_explicit(slot, memory_order_acquire), index))
        return true;
    atomic_thread_fence(memory_order_acquire); /* reads the slot before this */
    return written % 2 != 0 || atomic_load_explicit(&p->written, memory_order_relaxed) != written;
}

/* Would an event reach the connection with this index now? */
static inline bool presence_receives(const struct presence *p, uint32_t index)
{
    const uint64_t slot =
        atomic_load_explicit(&p->connections[index % PRESENCE_CONNECTION_SLOTS], memory_order_acquire);
    return presence_anyone(p) && presence_slot_has(slot, index) && slot >= PRESENCE_RECEIVES;
}

/* Did this session, or one whose connections it goes on with, assign the connections that the presence tells about? */
static inline bool presence_knows(const struct presence *p, uint32_t session)
{
    return session != 0 && (atomic_load_explicit(&p->session, memory_order_acquire) == session ||
                            atomic_load_explicit(&p->before, memory_order_acquire) == session);
}

static inline void presence_change(struct presence *p, uint32_t index, uint64_t by, uint32_t mark)
{
    _Atomic uint64_t *slot = &p->connections[index % PRESENCE_CONNECTION_SLOTS];
    const uint64_t seen = atomic_load_explicit(slot, memory_order_relaxed);
    atomic_store_explicit(slot, (seen ^ mark) + by, memory_order_release);
}

/* The client with this index has been admitted; or it has gone. */
static inline void presence_connect(struct presence *p, uint32_t index, bool there)
{
    presence_change(p, index, there ? PRESENCE_THERE : -PRESENCE_THERE, index);
}

/* It gets events from now on; or none until it is admitted once more, or since it goes. */
static inline void presence_receive(struct presence *p, uint32_t index, bool receives)
{
    presence_change(p, index, receives ? PRESENCE_RECEIVES : -PRESENCE_RECEIVES, 0);
}

/* Remove all connections. Call it between presence_begin and presence_end. */
static inline void presence_disconnect_all(struct presence *p)
{
    for (uint32_t i = 0; i < PRESENCE_CONNECTION_SLOTS; i++)
        atomic_store_explicit(&p->connections[i], 0, memory_order_relaxed);
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
