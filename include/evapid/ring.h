/* The ring: the one ordered queue from Kamailio's processes to evapid.
 *
 * A sealed memfd holds a header and then capacity bytes, a power of two. Positions are byte counts that only grow; the
 * place of a position is its value modulo the capacity. Kamailio's processes write records at head, one at a time under
 * a lock. evapid reads at tail. Both sides live on one host, so integers are in its own byte order.
 *
 *     header (RING_DATA_OFFSET bytes)                          | records ...
 *     shape, head, refusals | tail | sleeping | workers | presence | figures | waiting |
 *
 * Neither side trusts the other. What a producer relies on (the lock, its own head, the capacity) lies in memory that
 * evapid never sees: struct ring_lane. evapid keeps its own tail and capacity. It reads head and each record's header
 * once, checks them, and copies a payload before it uses it.
 *
 * Nothing here makes a system call, except the mutex when it is contended. The caller wakes evapid: it writes to the
 * wake when ring_sleeper() says that evapid sleeps. */
#ifndef EVAPID_RING_H
#define EVAPID_RING_H

#include <errno.h>
#include <pthread.h>
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
#define RING_VERSION 5U
#define RING_LINE 64U /* the size of a cache line in bytes: fields of different writers keep this distance */

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

struct ring_header {
    uint64_t magic;
    uint32_t version;
    uint32_t reserved;
    uint64_t capacity; /* bytes of records, a power of two */

    /* Written by producers. */
    _Alignas(RING_LINE) _Atomic uint64_t head;
    _Atomic uint64_t refused_full;  /* records refused for lack of room */
    _Atomic uint64_t refused_large; /* records refused as over the limit of one record */

    /* Written by evapid. A producer reads it only when the ring seems full. */
    _Alignas(RING_LINE) _Atomic uint64_t tail;

    /* Written by both. A producer reads it with every record. */
    _Alignas(RING_LINE) _Atomic uint64_t sleeping; /* 0: awake; else the number of this sleep */
    _Atomic uint64_t sleeps;                       /* the number of the last sleep: the next evapid continues from it */

    struct ring_worker workers[EVAPID_WORKERS_MAX];
    _Alignas(RING_LINE) struct presence presence;
    _Alignas(RING_LINE) struct figures figures;
    _Alignas(RING_LINE) struct waiting waiting;
};

#define RING_DATA_OFFSET ((sizeof(struct ring_header) + 4095) & ~(size_t)4095)

enum ring_type {
    RING_RELAY = 1, /* payload to every client */
    RING_MULTICAST, /* payload to every client with the tag */
    RING_UNICAST,   /* payload to one client with the tag */
    RING_CLOSE,     /* close connection target */
    RING_TAG,       /* give connection target the tag; an empty tag removes its tag */
    RING_DONE,      /* worker has finished the routes of its frames up to sequence number target */
    RING_SEND,      /* payload to connection target */
    RING_TYPES
};

/* A record: this header, the tag, the payload, and up to 7 bytes that align the next one. */
struct ring_record {
    uint32_t size; /* bytes of the whole record, a multiple of RING_ALIGN */
    uint8_t type;  /* enum ring_type */
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

_Static_assert(RING_DATA_OFFSET == 823296, "what is added to the header has its place in front of the records");
_Static_assert(sizeof(struct ring_record) == 24, "a record's header is part of the format");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "positions are shared between processes");

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

/* ---- Kamailio's side ------------------------------------------------------------------------------------------- */

/* What producers share and evapid never sees. It lies in shared anonymous memory, made before the fork. */
struct ring_lane {
    pthread_mutex_t lock; /* process-shared and robust */
    _Atomic bool held;    /* a hint: a process holds the lock, or was killed while it did */
    uint64_t head;
    uint64_t tail_seen; /* tail when a producer last read it; read again only when the ring seems full */
    size_t capacity;
};

#define RING_LOCK_PAUSES 100 /* of the processor, before a producer sleeps: shorter than a sleep and a wake */

/* Let the processor's other thread run, or the memory catch up. */
static inline void ring_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

enum ring_push {
    RING_PUSHED,
    RING_FULL,  /* no room now */
    RING_LARGE, /* would never fit, or a tag over EVAPID_TAG_MAX */
    RING_BROKEN /* the lock is unusable; nothing was written */
};

/* Make an empty ring in zeroed memory of ring_bytes(capacity) bytes. capacity is a power of two from EVAPID_RING_MIN to
 * EVAPID_RING_MAX. Returns 0, or an errno value when the lock cannot be made. */
static inline int ring_make(struct ring_header *header, struct ring_lane *lane, size_t capacity)
{
    pthread_mutexattr_t shared;
    int error = pthread_mutexattr_init(&shared);
    if (error != 0)
        return error;
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
    error = pthread_mutex_init(&lane->lock, &shared);
    pthread_mutexattr_destroy(&shared);
    if (error != 0)
        return error;
    lane->head = 0;
    lane->tail_seen = 0;
    lane->capacity = capacity;
    header->magic = RING_MAGIC;
    header->version = RING_VERSION;
    header->capacity = capacity;
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

/* Is there room for size more bytes? Control records may use the reserve too. */
static inline bool ring_has_room(struct ring_header *header, struct ring_lane *lane, size_t size, bool control)
{
    const size_t room = control ? lane->capacity : lane->capacity - ring_reserve(lane->capacity);
    if (lane->head - lane->tail_seen <= room && size <= room - (lane->head - lane->tail_seen))
        return true;
    lane->tail_seen = atomic_load_explicit(&header->tail, memory_order_acquire);
    return lane->head - lane->tail_seen <= room && size <= room - (lane->head - lane->tail_seen);
}

/* Lock the lane; ring_unlock unlocks it. A producer holds the lock only for a copy, so a short spin usually ends before
 * a sleep would have begun. (Not pthread_mutex_trylock: glibc's keeps a robust mutex that cannot be recovered.) Returns
 * as pthread_mutex_lock does. */
static inline int ring_lock(struct ring_lane *lane)
{
    for (int i = 0; i < RING_LOCK_PAUSES && atomic_load_explicit(&lane->held, memory_order_relaxed); i++)
        ring_pause();
    const int locked = pthread_mutex_lock(&lane->lock);
    if (locked == 0 || locked == EOWNERDEAD)
        atomic_store_explicit(&lane->held, true, memory_order_relaxed);
    return locked;
}

static inline void ring_unlock(struct ring_lane *lane)
{
    atomic_store_explicit(&lane->held, false, memory_order_relaxed);
    pthread_mutex_unlock(&lane->lock);
}

/* Append a record: record's type, worker, session and target, with a tag and a payload. Waits only for another
 * producer's copy. A producer killed during a copy has published nothing: the next one overwrites it. */
static inline enum ring_push ring_push(struct ring_header *header, struct ring_lane *lane, struct ring_record record,
                                       const char *tag, size_t tag_length, const char *payload, size_t payload_length)
{
    if (tag_length > EVAPID_TAG_MAX || payload_length > ring_payload_max(lane->capacity)) {
        atomic_fetch_add_explicit(&header->refused_large, 1, memory_order_relaxed);
        return RING_LARGE;
    }
    const size_t size = (sizeof(record) + tag_length + payload_length + RING_ALIGN - 1) & ~(size_t)(RING_ALIGN - 1);
    record.size = (uint32_t)size;
    record.tag_length = (uint8_t)tag_length;
    record.payload_length = (uint32_t)payload_length;
    const int locked = ring_lock(lane);
    if (locked == EOWNERDEAD)
        pthread_mutex_consistent(&lane->lock);
    else if (locked != 0)
        return RING_BROKEN;
    if (!ring_has_room(header, lane, size, ring_type_is_control(record.type))) {
        ring_unlock(lane);
        atomic_fetch_add_explicit(&header->refused_full, 1, memory_order_relaxed);
        return RING_FULL;
    }
    const uint64_t at = lane->head;
    ring_write(header, lane->capacity, at, &record, sizeof(record));
    ring_write(header, lane->capacity, at + sizeof(record), tag, tag_length);
    ring_write(header, lane->capacity, at + sizeof(record) + tag_length, payload, payload_length);
    lane->head = at + size;
    /* This store and the load in ring_sleeper are in this order: either evapid sees the record before it sleeps, or the
     * producer sees it sleep. */
    atomic_store_explicit(&header->head, at + size, memory_order_seq_cst);
    ring_unlock(lane);
    return RING_PUSHED;
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

/* Call it after a push. 0: evapid is awake. Else evapid sleeps: write a byte to the wake, then call ring_woken with the
 * returned number. If a producer is killed between the two, evapid stays marked asleep and the next producer wakes it
 * again. */
static inline uint64_t ring_sleeper(struct ring_header *header)
{
    return atomic_load_explicit(&header->sleeping, memory_order_seq_cst);
}

/* End the sleep that ring_sleeper returned. A later sleep has another number and is left alone. */
static inline void ring_woken(struct ring_header *header, uint64_t sleep)
{
    atomic_compare_exchange_strong(&header->sleeping, &sleep, 0);
}

/* ---- evapid's side --------------------------------------------------------------------------------------------- */

/* evapid's view of a mapped ring. */
struct ring_reader {
    struct ring_header *header;
    size_t capacity;
    uint64_t head;   /* last value read and found valid */
    uint64_t tail;   /* all before it is consumed; the caller advances it, and ring_release tells producers */
    uint64_t sleeps; /* the number of the last sleep */
};

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
    const uint64_t head = atomic_load_explicit(&header->head, memory_order_acquire);
    if (tail % RING_ALIGN != 0 || head % RING_ALIGN != 0 || head - tail > capacity)
        return "the ring's head and tail do not fit each other";
    *reader = (struct ring_reader){ .header = header,
                                    .capacity = (size_t)capacity,
                                    .head = head,
                                    .tail = tail,
                                    .sleeps = atomic_load_explicit(&header->sleeps, memory_order_relaxed) };
    return NULL;
}

/* Read head again. False if its value is impossible: the ring is corrupt. */
static inline bool ring_refresh(struct ring_reader *reader)
{
    const uint64_t head = atomic_load_explicit(&reader->header->head, memory_order_seq_cst);
    if (head % RING_ALIGN != 0 || head - reader->tail > reader->capacity || head - reader->head > reader->capacity)
        return false;
    reader->head = head;
    return true;
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
    RING_EMPTY,  /* the position is at head */
    RING_CORRUPT /* no record stands there; *why says what is wrong */
};

/* Read the header of the record at position at: tail, or the end of an earlier record. Its tag and payload follow the
 * header; ring_copy fetches them. */
static inline enum ring_read ring_peek(struct ring_reader *reader, uint64_t at, struct ring_record *record,
                                       const char **why)
{
    *why = "head is out of range";
    if (at == reader->head && !ring_refresh(reader))
        return RING_CORRUPT;
    if (at == reader->head)
        return RING_EMPTY;
    ring_copy(reader, at, record, sizeof(*record));
    *why = "a record's size does not fit what was written";
    if (record->size < sizeof(*record) || record->size % RING_ALIGN != 0 || record->size > reader->head - at)
        return RING_CORRUPT;
    *why = "a record's tag or payload is longer than the record";
    if (record->tag_length > EVAPID_TAG_MAX || record->payload_length > record->size - sizeof(*record) ||
        record->tag_length > record->size - sizeof(*record) - record->payload_length)
        return RING_CORRUPT;
    *why = "a record has an unknown type";
    if (record->type < RING_RELAY || record->type >= RING_TYPES)
        return RING_CORRUPT;
    *why = NULL;
    return RING_RECORD;
}

/* Give the room before tail back to producers. Call it once for many records: producers read that cache line too. */
static inline void ring_release(struct ring_reader *reader)
{
    atomic_store_explicit(&reader->header->tail, reader->tail, memory_order_release);
}

/* evapid ends its own sleep: it reads on without a wake. */
static inline void ring_wake(struct ring_reader *reader)
{
    atomic_store_explicit(&reader->header->sleeping, 0, memory_order_seq_cst);
}

/* Mark evapid as asleep. True: nothing waits after position at, and the next push will wake evapid. False: there is
 * more to read (or head has become impossible, which ring_peek reports), and evapid counts as awake. */
static inline bool ring_sleep(struct ring_reader *reader, uint64_t at)
{
    if (++reader->sleeps == 0)
        reader->sleeps = 1;
    atomic_store_explicit(&reader->header->sleeps, reader->sleeps, memory_order_relaxed);
    atomic_store_explicit(&reader->header->sleeping, reader->sleeps, memory_order_seq_cst);
    if (atomic_load_explicit(&reader->header->head, memory_order_seq_cst) == at)
        return true;
    ring_wake(reader);
    return false;
}

#endif
