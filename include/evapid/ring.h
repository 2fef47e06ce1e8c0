/* The ring: the one ordered queue from Kamailio's processes to evapid.
 *
 * A sealed memfd holds a header and then capacity bytes, a power of two. Positions are byte counts that only grow; the
 * place of a position is its value modulo the capacity. Kamailio's processes write records, each at the place that it
 * has claimed. evapid reads at tail. Both sides live on one host, so integers are in its own byte order.
 *
 *     header (RING_DATA_OFFSET bytes)                                                | records ...
 *     shape, refusals | tail | sleeping | workers | presence | figures | waiting | slots |
 *
 * No producer waits for another one. It claims its bytes by moving lane.head, in one atomic step, copies its record, and
 * publishes it by its stamp, the record's first word. evapid reads up to the first record that is not published, so
 * records take effect in the order of their claims.
 *
 * The stamp of position p is p ^ key. The key is a random number of this ring. So an old stamp at that place is never
 * taken for the new one: it belongs to another position. Other old bytes (an event of a client that wishes us ill, say)
 * are equal to it only if they guess the key: nobody outside of the two programs has it, and a record's other bytes do
 * not depend on it, so that each time the chance is 1 in 2^63. The key is odd and positions are even: zeros are no stamp.
 *
 * A producer notes in its slot what it is about to claim. If it dies before it has published, its record is a hole, at
 * which evapid waits. Another process of Kamailio closes the hole (ring_mend), or evapid itself when all of them have
 * gone (ring_skip). Whether a producer lives is known by a robust mutex, which its slot's owner keeps locked: others
 * only try it.
 *
 * Neither side trusts the other. What a producer relies on (head, the capacity, the key, the owners) lies in memory that
 * evapid never sees: struct ring_lane. evapid keeps its own tail, capacity and key. It reads each record's header once,
 * checks it, and copies a payload before it uses it. What it writes into slots could only spoil records.
 *
 * Nothing here makes a system call, except for the end of a slot's owner. The caller wakes evapid: it writes to the wake
 * when ring_sleeper() says that evapid sleeps. */
#ifndef EVAPID_RING_H
#define EVAPID_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "evapid/figures.h"
#include "evapid/histogram.h"
#include "evapid/limits.h"
#include "evapid/presence.h"
#include "evapid/waiting.h"

#define RING_MAGIC 0x676e697264697661U /* "avidring" */
#define RING_VERSION 6U
#define RING_LINE 64U /* the size of a cache line in bytes: fields of different writers keep this distance */
#ifndef RING_SLOTS
#define RING_SLOTS 1024U /* threads of Kamailio's processes that push: one more is refused */
#endif

/* What follows happens in one step for everybody else. Nothing by default: a test stops here. */
#ifndef RING_STEP
#define RING_STEP() ((void)0)
#endif
#ifndef RING_STEP_OWN /* the same, for what others look at only when this producer has died, or has published */
#define RING_STEP_OWN() ((void)0)
#endif

/* How long the clients' messages waited for their event routes: from the time at which evapid had read the whole
 * message (it is in the frame) until the route began. Only one worker writes here, just before a route. If it takes the
 * place of an earlier process, it continues that one's counts. */
struct ring_starts {
    _Alignas(RING_LINE) _Atomic uint64_t counts[HISTOGRAM_BUCKETS]; /* evapid/histogram.h */
    _Atomic uint64_t sum_ns;
};

/* What one evapi worker and evapid tell each other.
 *
 * started: the sequence number of the last frame whose route has begun. The worker writes it just before a route
 * starts. evapid reads it after the worker has died: a route that began is never run again.
 * awaited: written by evapid. A DONE for a frame up to this sequence number must wake evapid, because a client waits
 * for it. Any other DONE need not. */
struct ring_worker {
    _Alignas(RING_LINE) _Atomic uint64_t started;
    _Atomic uint64_t awaited;
    struct ring_starts starts;
};

/* What one producer has claimed. Its owner writes it; ring_mend, too, after the owner's death.
 *
 * noted, end: the bytes that the producer claimed last, or is about to claim. claimed: the end of its last claim. So if
 * that is after the noted position, it has claimed what it noted. */
struct ring_slot {
    _Alignas(RING_LINE) _Atomic uint64_t noted; /* where, plus 1; 0: nowhere */
    _Atomic uint64_t end;
    _Atomic uint64_t claimed;
};

struct ring_header {
    uint64_t magic;
    uint32_t version;
    uint32_t reserved;
    uint64_t capacity; /* bytes of records, a power of two */
    uint64_t key;      /* odd */

    /* Written by producers. */
    _Alignas(RING_LINE) _Atomic uint64_t slots_used; /* the first so many slots have had an owner */
    _Atomic uint64_t refused_full;                   /* records refused for lack of room */
    _Atomic uint64_t refused_large;                  /* records refused as over the limit of one record */

    /* Written by evapid. A producer reads it only when the ring seems full. */
    _Alignas(RING_LINE) _Atomic uint64_t tail;
    _Atomic uint64_t lost; /* records whose producers died before they had published them */

    /* sleeping is written by both; a producer reads it with every record. */
    _Alignas(RING_LINE) _Atomic uint64_t sleeping; /* 0: awake; else the number of this sleep, with RING_AT_HOLE */
    _Atomic uint64_t sleeps;                       /* the number of the last sleep: the next evapid continues from it */
    _Atomic uint64_t hole; /* the position of the record that evapid waits for, if it sleeps at a hole */

    struct ring_worker workers[EVAPID_WORKERS_MAX];
    _Alignas(RING_LINE) struct presence presence;
    _Alignas(RING_LINE) struct figures figures;
    _Alignas(RING_LINE) struct waiting waiting;
    struct ring_slot slots[RING_SLOTS];
};

#define RING_AT_HOLE ((uint64_t)1 << 63) /* in sleeping: only the record at hole has to wake evapid */

#define RING_DATA_OFFSET ((sizeof(struct ring_header) + 4095) & ~(size_t)4095)

enum ring_type {
    RING_RELAY = 1, /* payload to every client */
    RING_MULTICAST, /* payload to every client with the tag */
    RING_UNICAST,   /* payload to one client with the tag */
    RING_CLOSE,     /* close connection target */
    RING_TAG,       /* give connection target the tag; an empty tag removes its tag */
    RING_DONE,      /* worker has finished the routes of its frames up to sequence number target */
    RING_SEND,      /* payload to connection target */
    RING_TYPES,     /* one after the last type of a record that a process issues */
    RING_LOST = 255 /* nothing: the record of a producer that died before it had published it */
};

/* A record: this header, the tag, the payload, and up to 7 bytes that align the next one. */
struct ring_record {
    uint64_t stamp; /* written last: ring_stamp of the record's position */
    uint32_t size;  /* bytes of the whole record, a multiple of RING_ALIGN */
    uint8_t type;   /* enum ring_type */
    uint8_t tag_length;
    uint16_t worker;         /* DONE: index of the worker; SEND: RING_GUEST, or 0 */
    uint32_t payload_length; /* RELAY, MULTICAST, UNICAST, SEND */
    uint32_t session;        /* the evapid that assigned target; another one ignores target, and a CLOSE, TAG or DONE */
    uint64_t target;         /* CLOSE, TAG, SEND: connection index; DONE: sequence number; other events: index of the
                                connection whose connection-new route issues the event (the client may get it after its
                                admission), else 0 */
};

#define RING_GUEST 1U /* SEND: the target's own connection-new route issues it: it gets the event after its admission */

#define RING_ALIGN 8U

_Static_assert(sizeof(struct ring_record) == 32, "a record's header is part of the format");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "positions are shared between processes");

static inline bool ring_type_is_known(uint8_t type)
{
    return (type >= RING_RELAY && type < RING_TYPES) || type == RING_LOST;
}

static inline bool ring_type_is_control(uint8_t type)
{
    return type == RING_CLOSE || type == RING_TAG || type == RING_DONE;
}

/* The bytes of a ring that only control records may use. With them a script that floods the ring with events can still
 * refuse a client, and a worker can still report that it has finished. */
static inline size_t ring_reserve(size_t capacity)
{
    return capacity / 16;
}

/* The largest record of a ring, in bytes: half the ring. */
static inline size_t ring_record_max(size_t capacity)
{
    return capacity / 2;
}

/* The largest payload for a ring of this capacity, with any tag. */
static inline size_t ring_payload_max(size_t capacity)
{
    return ring_record_max(capacity) - sizeof(struct ring_record) - EVAPID_TAG_MAX - RING_ALIGN;
}

/* The memfd's size for a ring of this capacity, in bytes. */
static inline size_t ring_bytes(size_t capacity)
{
    return RING_DATA_OFFSET + capacity;
}

static inline unsigned char *ring_records(struct ring_header *header)
{
    return (unsigned char *)header + RING_DATA_OFFSET;
}

/* Count a message whose route is about to start in the worker that owns starts. Only that worker writes there, so no
 * locked instruction is needed. */
static inline void ring_note_start(struct ring_starts *starts, uint64_t waited_ns)
{
    _Atomic uint64_t *count = &starts->counts[histogram_bucket(waited_ns)];
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
    atomic_store_explicit(&starts->sum_ns, atomic_load_explicit(&starts->sum_ns, memory_order_relaxed) + waited_ns,
                          memory_order_relaxed);
}

/* ---- stamps ---------------------------------------------------------------------------------------------------- */

/* The first word of a record at this position, once it is published. */
static inline uint64_t ring_stamp(uint64_t key, uint64_t at)
{
    return at ^ key;
}

/* The word at this position, a multiple of RING_ALIGN: so it does not wrap. */
static inline _Atomic uint64_t *ring_word(struct ring_header *header, size_t capacity, uint64_t at)
{
    return (_Atomic uint64_t *)(void *)(ring_records(header) + ((size_t)at & (capacity - RING_ALIGN)));
}

static inline bool ring_is_published(struct ring_header *header, size_t capacity, uint64_t key, uint64_t at)
{
    RING_STEP();
    return atomic_load_explicit(ring_word(header, capacity, at), memory_order_seq_cst) == ring_stamp(key, at);
}

/* Is position a after b? They are never further from each other than the ring is long, or b is long past. */
static inline bool ring_is_after(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) > 0;
}

/* Can a record at this position end there? */
static inline bool ring_can_end(size_t capacity, uint64_t at, uint64_t end)
{
    const uint64_t size = end - at;
    return size >= sizeof(struct ring_record) && size % RING_ALIGN == 0 && size <= ring_record_max(capacity);
}

/* Has a slot noted this position? That is always the start of a record, or of the next one: it has been head. */
static inline bool ring_is_noted(struct ring_header *header, size_t slots, uint64_t at)
{
    for (size_t i = 0; i < slots; i++)
        if (atomic_load_explicit(&header->slots[i].noted, memory_order_acquire) == at + 1)
            return true;
    return false;
}

/* Where does the record end that was claimed at this position and will never be published? Every producer whose slot
 * has noted the position has died. head: what lane.head is, or at if that is not known. Returns 0 if nothing shows it:
 * then nothing comes after the record.
 *
 * A producer that died between its claim and the note of that (claimed) looks like one that died just before the claim.
 * If several have noted the position, one of them has claimed it, and the next record starts where its claim ends. So
 * of the ends that they noted it is the first one at which a record starts, or head is. */
static inline uint64_t ring_hole_end(struct ring_header *header, size_t slots, size_t capacity, uint64_t key,
                                     uint64_t at, uint64_t head)
{
    uint64_t first = 0;
    for (size_t i = 0; i < slots; i++) {
        struct ring_slot *slot = &header->slots[i];
        if (atomic_load_explicit(&slot->noted, memory_order_acquire) != at + 1)
            continue;
        const uint64_t claimed = atomic_load_explicit(&slot->claimed, memory_order_acquire);
        if (ring_can_end(capacity, at, claimed) &&
            atomic_load_explicit(&slot->noted, memory_order_acquire) == at + 1) /* else it claims elsewhere by now */
            return claimed;
        const uint64_t end = atomic_load_explicit(&slot->end, memory_order_relaxed);
        if (ring_can_end(capacity, at, end) && (first == 0 || end - at < first - at) &&
            (end == head || ring_is_noted(header, slots, end) || ring_is_published(header, capacity, key, end)))
            first = end;
    }
    return first;
}

/* ---- evapid's side --------------------------------------------------------------------------------------------- */

/* evapid's view of a mapped ring. */
struct ring_reader {
    struct ring_header *header;
    size_t capacity;
    uint64_t key;
    uint64_t head;   /* the end of the last claim that is known. Records up to there have been published, or will be */
    uint64_t tail;   /* all before it is consumed; the caller advances it, and ring_release tells producers */
    uint64_t sleeps; /* the number of the last sleep */
};

static inline size_t ring_slots_used(struct ring_header *header)
{
    const uint64_t used = atomic_load_explicit(&header->slots_used, memory_order_acquire);
    return used < RING_SLOTS ? (size_t)used : RING_SLOTS;
}

/* Look for later claims: head is then after every record whose push has ended. False if a claim is impossible: the ring
 * is corrupt. */
static inline bool ring_refresh(struct ring_reader *reader)
{
    RING_STEP(); /* one step for all claims: each only grows */
    const size_t slots = ring_slots_used(reader->header);
    for (size_t i = 0; i < slots; i++) {
        const uint64_t claimed = atomic_load_explicit(&reader->header->slots[i].claimed, memory_order_acquire);
        if (!ring_is_after(claimed, reader->head))
            continue;
        if (claimed % RING_ALIGN != 0 || claimed - reader->tail > reader->capacity)
            return false;
        reader->head = claimed;
    }
    return true;
}

/* What the header of every version begins with. */
struct ring_start {
    uint64_t magic;
    uint32_t version;
    uint32_t reserved;
};

_Static_assert(sizeof(struct ring_start) == offsetof(struct ring_header, capacity), "it is the header's start");

/* Is this the start of a ring whose header is not ours? The size of its memory then says nothing. */
static inline bool ring_is_of_another_version(const struct ring_start *start)
{
    return start->magic == RING_MAGIC && start->version != RING_VERSION;
}

#define RING_OTHER_VERSION                                                                                             \
    "the queue is of another version: install evapid and the module together, and restart Kamailio"

/* Begin to read the ring mapped at header, from a memfd of this many bytes (sealed against a change of size). Returns
 * NULL, or why the ring cannot be read. */
static inline const char *ring_open(struct ring_reader *reader, struct ring_header *header, size_t bytes)
{
    if (bytes < ring_bytes(EVAPID_RING_MIN) || header->magic != RING_MAGIC)
        return "not a ring of evapid's";
    if (header->version != RING_VERSION)
        return RING_OTHER_VERSION;
    const uint64_t capacity = header->capacity;
    if (capacity < EVAPID_RING_MIN || capacity > EVAPID_RING_MAX || (capacity & (capacity - 1)) != 0 ||
        bytes != ring_bytes((size_t)capacity))
        return "the ring's capacity does not fit its size";
    const uint64_t tail = atomic_load_explicit(&header->tail, memory_order_acquire);
    *reader = (struct ring_reader){ .header = header,
                                    .capacity = (size_t)capacity,
                                    .key = header->key,
                                    .head = tail,
                                    .tail = tail,
                                    .sleeps = atomic_load_explicit(&header->sleeps, memory_order_relaxed) };
    if (tail % RING_ALIGN != 0 || !ring_refresh(reader))
        return "the ring's claims and tail do not fit each other";
    return reader->key % 2 == 1 ? NULL : "the ring's key is none";
}

/* Copy len bytes from position at. The caller has checked that they lie between tail and head. */
static inline void ring_copy(const struct ring_reader *reader, uint64_t at, void *out, size_t len)
{
    const size_t place = (size_t)at & (reader->capacity - 1);
    const size_t first = len < reader->capacity - place ? len : reader->capacity - place;
    memcpy(out, ring_records(reader->header) + place, first);
    if (first < len)
        memcpy((char *)out + first, ring_records(reader->header), len - first);
}

enum ring_read {
    RING_RECORD, /* *record holds a checked copy of the header at the position */
    RING_EMPTY,  /* no record is published there */
    RING_CORRUPT /* no record stands there; *why says what is wrong */
};

/* Read the header of the record at position at: tail, or the end of an earlier record. Its tag and payload follow the
 * header; ring_copy fetches them. */
static inline enum ring_read ring_peek(struct ring_reader *reader, uint64_t at, struct ring_record *record,
                                       const char **why)
{
    if (!ring_is_published(reader->header, reader->capacity, reader->key, at))
        return RING_EMPTY;
    ring_copy(reader, at, record, sizeof(*record));
    *why = "a record's size does not fit what was claimed";
    if (record->size > reader->head - at && !ring_refresh(reader))
        return RING_CORRUPT;
    if (!ring_can_end(reader->capacity, at, at + record->size) || record->size > reader->head - at)
        return RING_CORRUPT;
    *why = "a record's tag or payload is longer than the record";
    if (record->tag_length > EVAPID_TAG_MAX || record->payload_length > record->size - sizeof(*record) ||
        record->tag_length > record->size - sizeof(*record) - record->payload_length)
        return RING_CORRUPT;
    *why = "a record has an unknown type";
    if (!ring_type_is_known(record->type))
        return RING_CORRUPT;
    *why = NULL;
    return RING_RECORD;
}

/* Has a record been claimed at position at that is not published? Call it when ring_peek has found none there. */
static inline bool ring_is_hole(struct ring_reader *reader, uint64_t at)
{
    return ring_refresh(reader) && reader->head != at;
}

/* All of Kamailio's processes have ended. Where does the hole at position at end? Returns 0 if nothing comes after it. */
static inline uint64_t ring_skip(struct ring_reader *reader, uint64_t at)
{
    const uint64_t end =
        ring_hole_end(reader->header, ring_slots_used(reader->header), reader->capacity, reader->key, at, at);
    if (end - reader->tail > reader->capacity)
        return 0;
    if (ring_is_after(end, reader->head))
        reader->head = end;
    return end;
}

/* Give the room before tail back to producers. Call it once for many records: producers read that cache line too. */
static inline void ring_release(struct ring_reader *reader)
{
    RING_STEP();
    atomic_store_explicit(&reader->header->tail, reader->tail, memory_order_release);
}

/* evapid ends its own sleep: it reads on without a wake. */
static inline void ring_wake(struct ring_reader *reader)
{
    RING_STEP();
    atomic_store_explicit(&reader->header->sleeping, 0, memory_order_seq_cst);
}

/* Mark evapid as asleep. True: no record is published at position at, and the push that changes this will wake evapid.
 * False: there is more to read, and evapid counts as awake. */
static inline bool ring_sleep(struct ring_reader *reader, uint64_t at)
{
    if (++reader->sleeps == 0 || reader->sleeps >= RING_AT_HOLE)
        reader->sleeps = 1;
    const bool hole = ring_is_hole(reader, at);
    atomic_store_explicit(&reader->header->sleeps, reader->sleeps, memory_order_relaxed);
    atomic_store_explicit(&reader->header->hole, at, memory_order_relaxed);
    RING_STEP();
    atomic_store_explicit(&reader->header->sleeping, hole ? reader->sleeps | RING_AT_HOLE : reader->sleeps,
                          memory_order_seq_cst);
    if (!ring_is_published(reader->header, reader->capacity, reader->key, at))
        return true;
    ring_wake(reader);
    return false;
}

#endif
