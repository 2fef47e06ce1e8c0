/* The lane: Kamailio's side of the ring (evapid/ring.h). Producers claim, write and publish records here, and close the
 * holes of those that have died.
 *
 * Nothing here makes a system call, except for the kernel's when a slot's owner ends. The locks are only ever tried. */
#ifndef EVAPID_LANE_H
#define EVAPID_LANE_H

#include <errno.h>
#include <pthread.h>

#include "evapid/ring.h"

/* What producers share and evapid never sees. It lies in shared anonymous memory, made before the fork. */
struct ring_lane {
    _Alignas(RING_LINE) _Atomic uint64_t head; /* the end of the last claim */
    _Atomic uint64_t tail_seen; /* tail when a producer last read it; read again only when the ring seems full */
    _Alignas(RING_LINE) size_t capacity; /* apart from head: each push reads it, and nobody writes it */
    uint64_t key;
    _Atomic uint64_t slots_used;
    pthread_mutex_t mending;           /* only one process mends */
    pthread_mutex_t owner[RING_SLOTS]; /* of a slot: locked as long as its owner lives. All are robust and shared */
};

enum ring_push {
    RING_PUSHED,
    RING_FULL,   /* no room now */
    RING_LARGE,  /* would never fit, or a tag over EVAPID_TAG_MAX */
    RING_CROWDED /* RING_SLOTS others push: this one has no slot. Nothing was written */
};

/* The locks of the lane, which are only ever tried. A test has its own. */
#ifndef RING_TRYLOCK
#define RING_TRYLOCK(mutex) pthread_mutex_trylock(mutex)
#define RING_CONSISTENT(mutex) pthread_mutex_consistent(mutex)
#define RING_UNLOCK(mutex) pthread_mutex_unlock(mutex)
#endif

/* Lock it if nobody has it, or if its owner has died. It is made consistent before it is ever unlocked: glibc's trylock
 * would keep a mutex that can't be recovered. */
static inline bool ring_trylock(pthread_mutex_t *mutex)
{
    RING_STEP();
    const int locked = RING_TRYLOCK(mutex);
    if (locked == EOWNERDEAD)
        RING_CONSISTENT(mutex);
    return locked == 0 || locked == EOWNERDEAD;
}

static inline int ring_make_locks(struct ring_lane *lane)
{
    pthread_mutexattr_t shared;
    int error = pthread_mutexattr_init(&shared);
    if (error != 0)
        return error;
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
    error = pthread_mutex_init(&lane->mending, &shared);
    for (size_t i = 0; i < RING_SLOTS && error == 0; i++)
        error = pthread_mutex_init(&lane->owner[i], &shared);
    pthread_mutexattr_destroy(&shared);
    return error;
}

/* Make an empty ring in zeroed memory of ring_bytes(capacity) bytes, with zeroed memory for the lane. capacity is a
 * power of two from EVAPID_RING_MIN to EVAPID_RING_MAX, key a random number. Returns 0, or an errno value when the locks
 * cannot be made. */
static inline int ring_make(struct ring_header *header, struct ring_lane *lane, size_t capacity, uint64_t key)
{
    const int error = ring_make_locks(lane);
    if (error != 0)
        return error;
    lane->capacity = capacity;
    lane->key = key | 1;
    header->magic = RING_MAGIC;
    header->version = RING_VERSION;
    header->capacity = capacity;
    header->key = lane->key;
    return 0;
}

/* Copy len bytes to position at. Where the ring ends, continue at its start. */
static inline void ring_write(struct ring_header *header, size_t capacity, uint64_t at, const void *bytes, size_t len)
{
    if (len == 0)
        return; /* bytes may then be NULL, which memcpy forbids */
    const size_t place = (size_t)at & (capacity - 1);
    const size_t first = len < capacity - place ? len : capacity - place;
    memcpy(ring_records(header) + place, bytes, first);
    if (first < len)
        memcpy(ring_records(header), (const char *)bytes + first, len - first);
}

/* Is there room for size more bytes, if at is head? Control records may use the reserve too. */
static inline bool ring_has_room(struct ring_header *header, struct ring_lane *lane, uint64_t at, size_t size,
                                 bool control)
{
    const size_t room = control ? lane->capacity : lane->capacity - ring_reserve(lane->capacity);
    uint64_t used = at - atomic_load_explicit(&lane->tail_seen, memory_order_acquire);
    if (used <= room && size <= room - used)
        return true;
    RING_STEP();
    const uint64_t tail = atomic_load_explicit(&header->tail, memory_order_acquire);
    atomic_store_explicit(&lane->tail_seen, tail, memory_order_release);
    used = at - tail;
    return used <= room && size <= room - used;
}

/* Claim size bytes for the slot's owner, from *at on. False: the ring is full. If another producer is faster, this one
 * tries again at the new head. So somebody always gets on, and nobody waits for one that does not.
 *
 * Room never shrinks but by claims: tail only grows. So if head still is the position for which there was room, there
 * still is. */
static inline bool ring_claim(struct ring_header *header, struct ring_lane *lane, unsigned slot, size_t size,
                              bool control, uint64_t *at)
{
    struct ring_slot *mine = &header->slots[slot];
    RING_STEP();
    *at = atomic_load_explicit(&lane->head, memory_order_acquire);
    for (;;) {
        if (!ring_has_room(header, lane, *at, size, control)) {
            RING_STEP();
            const uint64_t now = atomic_load_explicit(&lane->head, memory_order_acquire);
            if (now == *at) {
                atomic_store_explicit(&mine->noted, 0, memory_order_release);
                return false;
            }
            *at = now; /* others have claimed meanwhile, and evapid may have read all that */
            continue;
        }
        RING_STEP_OWN();
        atomic_store_explicit(&mine->noted, *at + 1, memory_order_release);
        RING_STEP_OWN();
        atomic_store_explicit(&mine->end, *at + size, memory_order_release);
        RING_STEP();
        if (atomic_compare_exchange_weak_explicit(&lane->head, at, *at + size, memory_order_acq_rel,
                                                  memory_order_acquire))
            break;
    }
    RING_STEP();
    atomic_store_explicit(&mine->claimed, *at + size, memory_order_release);
    return true;
}

/* The record at this position is complete. This store and the load in ring_sleeper are in this order: either evapid sees
 * the record before it sleeps, or the producer sees it sleep. */
static inline void ring_publish(struct ring_header *header, struct ring_lane *lane, uint64_t at)
{
    RING_STEP();
    atomic_store_explicit(ring_word(header, lane->capacity, at), ring_stamp(lane->key, at), memory_order_seq_cst);
}

#define RING_STAMPED sizeof(uint64_t) /* the part of a record's header that is published last */

/* Append a record: record's type, worker, session and target, with a tag and a payload. slot is the caller's own
 * (ring_join). Waits for nobody. */
static inline enum ring_push ring_push(struct ring_header *header, struct ring_lane *lane, unsigned slot,
                                       struct ring_record record, const char *tag, size_t tag_length,
                                       const char *payload, size_t payload_length)
{
    if (tag_length > EVAPID_TAG_MAX || payload_length > ring_payload_max(lane->capacity)) {
        atomic_fetch_add_explicit(&header->refused_large, 1, memory_order_relaxed);
        return RING_LARGE;
    }
    if (slot >= RING_SLOTS) {
        atomic_fetch_add_explicit(&header->refused_full, 1, memory_order_relaxed);
        return RING_CROWDED;
    }
    const size_t size = (sizeof(record) + tag_length + payload_length + RING_ALIGN - 1) & ~(size_t)(RING_ALIGN - 1);
    record.size = (uint32_t)size;
    record.tag_length = (uint8_t)tag_length;
    record.payload_length = (uint32_t)payload_length;
    uint64_t at = 0;
    if (!ring_claim(header, lane, slot, size, ring_type_is_control(record.type), &at)) {
        atomic_fetch_add_explicit(&header->refused_full, 1, memory_order_relaxed);
        return RING_FULL;
    }
    RING_STEP_OWN();
    ring_write(header, lane->capacity, at + RING_STAMPED, (const char *)&record + RING_STAMPED,
               sizeof(record) - RING_STAMPED);
    ring_write(header, lane->capacity, at + sizeof(record), tag, tag_length);
    ring_write(header, lane->capacity, at + sizeof(record) + tag_length, payload, payload_length);
    ring_publish(header, lane, at);
    return RING_PUSHED;
}

/* ---- slots, and holes ------------------------------------------------------------------------------------------- */

/* Is there no hole where this slot has noted a position?
 *
 * The order counts: if the record was published and its bytes have been used again since, tail is after it by then. */
static inline bool ring_is_settled(struct ring_header *header, struct ring_lane *lane, uint64_t noted)
{
    const uint64_t at = noted - 1;
    if (noted == 0 || ring_is_published(header, lane->capacity, lane->key, at))
        return true;
    RING_STEP();
    return ring_is_after(atomic_load_explicit(&header->tail, memory_order_acquire), at);
}

/* Raise a number of slots to at least this. Others only raise it, too, each time by one slot or more: so it ends, even if
 * evapid writes there. Two of us that come at once must not put the lower number last, nor one that dies in between. */
static inline void ring_raise(_Atomic uint64_t *slots, uint64_t least)
{
    RING_STEP();
    uint64_t seen = atomic_load(slots);
    for (unsigned tries = 0; seen < least && tries < RING_SLOTS; tries++) {
        RING_STEP();
        if (atomic_compare_exchange_strong(slots, &seen, least))
            return;
    }
}

/* Get a slot for the calling thread, which keeps it until it ends. Returns RING_SLOTS if all have owners. */
static inline unsigned ring_join(struct ring_header *header, struct ring_lane *lane)
{
    for (unsigned i = 0; i < RING_SLOTS; i++) {
        if (!ring_trylock(&lane->owner[i]))
            continue;
        /* A hole that the last owner has left is ring_mend's. */
        if (!ring_is_settled(header, lane, atomic_load_explicit(&header->slots[i].noted, memory_order_acquire))) {
            RING_UNLOCK(&lane->owner[i]);
            continue;
        }
        ring_raise(&lane->slots_used, i + 1);
        ring_raise(&header->slots_used, i + 1);
        return i;
    }
    return RING_SLOTS;
}

/* Give the calling thread's slot back. A thread that ends need not. */
static inline void ring_leave(struct ring_lane *lane, unsigned slot)
{
    if (slot < RING_SLOTS)
        RING_UNLOCK(&lane->owner[slot]);
}

enum ring_claimant {
    RING_NOBODY_ELSE, /* all others that have noted the position are dead */
    RING_ANOTHER,     /* another slot has claimed it */
    RING_UNDECIDED    /* a producer that lives has noted it, and may have claimed it */
};

static inline enum ring_claimant ring_other_claimant(struct ring_header *header, struct ring_lane *lane, size_t slots,
                                                     size_t dead, uint64_t at)
{
    for (size_t i = 0; i < slots; i++) {
        RING_STEP();
        if (i == dead || atomic_load_explicit(&header->slots[i].noted, memory_order_acquire) != at + 1)
            continue;
        RING_STEP();
        const bool claimed = ring_is_after(atomic_load_explicit(&header->slots[i].claimed, memory_order_acquire), at);
        RING_STEP();
        if (atomic_load_explicit(&header->slots[i].noted, memory_order_acquire) != at + 1)
            continue; /* it was not this position's, and is elsewhere by now; or this one's is published */
        if (claimed)
            return RING_ANOTHER;
        if (!ring_trylock(&lane->owner[i]))
            return RING_UNDECIDED;
        RING_UNLOCK(&lane->owner[i]);
    }
    return RING_NOBODY_ELSE;
}

/* Publish the bytes from at to end, which nobody alive has claimed, as a lost record of this slot's. */
static inline void ring_close_hole(struct ring_header *header, struct ring_lane *lane, struct ring_slot *slot,
                                   uint64_t at, uint64_t end)
{
    const struct ring_record lost = { .size = (uint32_t)(end - at), .type = RING_LOST };
    RING_STEP();
    atomic_store_explicit(&slot->claimed, end, memory_order_release); /* its owner may have died before it could */
    RING_STEP();
    ring_write(header, lane->capacity, at + RING_STAMPED, (const char *)&lost + RING_STAMPED,
               sizeof(lost) - RING_STAMPED);
    ring_publish(header, lane, at);
}

/* A slot whose owner has died, and which we have locked. False: it cannot be decided yet.
 *
 * The slot's owner may have claimed the position, or died before that, and another producer has claimed it. The latter
 * shows in that producer's slot: it noted the position before it claimed it, and notes another one only after it has
 * published. So if head is past the position, nobody alive has noted it, and it is unpublished still, then its owner is
 * dead. */
static inline bool ring_settle(struct ring_header *header, struct ring_lane *lane, size_t slots, size_t dead,
                               bool *closed)
{
    struct ring_slot *slot = &header->slots[dead];
    const uint64_t noted = atomic_load_explicit(&slot->noted, memory_order_acquire);
    const uint64_t at = noted - 1;
    if (ring_is_settled(header, lane, noted))
        return true;
    RING_STEP();
    const uint64_t head = atomic_load_explicit(&lane->head, memory_order_acquire);
    if (!ring_is_after(head, at))
        return true;
    uint64_t end = atomic_load_explicit(&slot->claimed, memory_order_acquire);
    if (!ring_is_after(end, at)) {
        const enum ring_claimant other = ring_other_claimant(header, lane, slots, dead, at);
        if (other != RING_NOBODY_ELSE)
            return other == RING_ANOTHER;
        if (ring_is_settled(header, lane, noted))
            return true;
        end = ring_hole_end(header, slots, lane->capacity, lane->key, at, head);
    }
    if (ring_can_end(lane->capacity, at, end)) { /* else evapid has written here: its loss */
        ring_close_hole(header, lane, slot, at, end);
        *closed = true;
    }
    return true;
}

/* Close the holes of producers that have died. Waits for nobody. Returns whether there was one: wake evapid then. */
static inline bool ring_mend(struct ring_header *header, struct ring_lane *lane)
{
    bool closed = false;
    if (!ring_trylock(&lane->mending))
        return false;
    const size_t slots = (size_t)atomic_load_explicit(&lane->slots_used, memory_order_acquire);
    for (size_t i = 0; i < slots; i++) {
        if (!ring_trylock(&lane->owner[i]))
            continue;
        if (ring_settle(header, lane, slots, i, &closed)) {
            RING_STEP();
            atomic_store_explicit(&header->slots[i].noted, 0, memory_order_release);
        }
        RING_UNLOCK(&lane->owner[i]);
    }
    RING_UNLOCK(&lane->mending);
    return closed;
}

/* Does evapid sleep at a hole? Then ring_mend may have something to do, and a record that was published before this call
 * may be the one that evapid waits for. */
static inline bool ring_waits_at_hole(struct ring_header *header)
{
    RING_STEP();
    return (atomic_load_explicit(&header->sleeping, memory_order_seq_cst) & RING_AT_HOLE) != 0;
}

/* Call it after a push. 0: nobody has to wake evapid. Else write a byte to the wake, then call ring_woken with the
 * returned number. If a producer is killed between the two, evapid stays marked asleep and the next producer wakes it
 * again.
 *
 * At a hole, evapid can read on only when the record there is published. Whoever finds it published wakes evapid; the
 * one that publishes it always does. */
static inline uint64_t ring_sleeper(struct ring_header *header, struct ring_lane *lane)
{
    RING_STEP();
    const uint64_t sleep = atomic_load_explicit(&header->sleeping, memory_order_seq_cst);
    if ((sleep & RING_AT_HOLE) == 0)
        return sleep;
    RING_STEP();
    const uint64_t hole = atomic_load_explicit(&header->hole, memory_order_seq_cst);
    return ring_is_published(header, lane->capacity, lane->key, hole) ? sleep : 0;
}

/* End the sleep that ring_sleeper returned. A later sleep has another number and is left alone. */
static inline void ring_woken(struct ring_header *header, uint64_t sleep)
{
    RING_STEP();
    atomic_compare_exchange_strong(&header->sleeping, &sleep, 0);
}

#endif
