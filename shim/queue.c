/* The ring's memory, this process' slot in it, and the wake. Owns Kamailio's side of them; evapid's view of the ring is in
 * include/evapid/ring.h. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "queue.h"

/* Shared by Kamailio's processes alone: evapid never sees it. */
struct queue_shared {
    struct ring_lane lane;
    _Atomic unsigned notices; /* one bit for each enum queue_notice already given */
    _Atomic uint64_t said;    /* presence_hash of the last text given to queue_first_to_say */
};

static struct ring_header *ring;
static struct queue_shared *shared;
static int fds[QUEUE_FDS] = { -1, -1 };
static int wake_end = -1; /* our end, which wakes evapid */
static bool made;

/* Of this thread. A process gets it with its first push: a fork must not share its parent's. */
static _Thread_local unsigned slot = RING_SLOTS;

/* Make a memfd whose size nobody can change, so that evapid may read it without risk of SIGBUS. */
static const char *open_memory(size_t bytes)
{
    fds[QUEUE_RING_FD] = memfd_create("evapi-queue", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fds[QUEUE_RING_FD] < 0)
        return "memfd_create";
    if (ftruncate(fds[QUEUE_RING_FD], (off_t)bytes) != 0)
        return "ftruncate";
    if (fcntl(fds[QUEUE_RING_FD], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return "sealing";
    ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[QUEUE_RING_FD], 0);
    return ring != MAP_FAILED ? NULL : "mmap";
}

/* A pair of datagram sockets, not one eventfd for both sides: evapid could make a shared eventfd blocking and fill it.
 * Nothing that evapid does to its own end can block ours. */
static const char *open_wake(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        return "socketpair";
    wake_end = ends[0];
    fds[QUEUE_WAKE_FD] = ends[1];
    return NULL;
}

static void forget_slot(void)
{
    slot = RING_SLOTS;
}

const char *queue_make(size_t capacity)
{
    const char *failed = open_memory(ring_bytes(capacity));
    if (failed != NULL)
        return failed;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return "mmap";
    failed = open_wake();
    if (failed != NULL)
        return failed;
    uint64_t key = 0;
    if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key))
        return "getrandom";
    errno = ring_make(ring, &shared->lane, capacity, key);
    if (errno == 0)
        errno = pthread_atfork(NULL, NULL, forget_slot);
    made = errno == 0;
    return made ? NULL : "the locks of its slots";
}

bool queue_is_made(void)
{
    return made;
}

bool queue_first_notice(enum queue_notice notice)
{
    const unsigned bit = 1U << notice;
    return (atomic_fetch_or_explicit(&shared->notices, bit, memory_order_relaxed) & bit) == 0;
}

size_t queue_payload_max(void)
{
    return ring_payload_max(shared->lane.capacity);
}

size_t queue_capacity(void)
{
    return shared->lane.capacity;
}

void queue_wake(void)
{
    const uint64_t sleep = ring_sleeper(ring, &shared->lane);
    if (sleep == 0)
        return;
    /* EAGAIN: other bytes lie there unread, so evapid has been woken already. */
    if (send(wake_end, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1 && errno != EAGAIN)
        return;
    ring_woken(ring, sleep);
}

enum ring_push queue_put(struct ring_record record, const char *tag, size_t tag_length, const char *payload,
                         size_t payload_length)
{
    if (slot == RING_SLOTS)
        slot = ring_join(ring, &shared->lane);
    return ring_push(ring, &shared->lane, slot, record, tag, tag_length, payload, payload_length);
}

enum ring_push queue_push(struct ring_record record, const char *tag, size_t tag_length, const char *payload,
                          size_t payload_length)
{
    const enum ring_push pushed = queue_put(record, tag, tag_length, payload, payload_length);
    if (pushed == RING_PUSHED || pushed == RING_FULL)
        queue_wake(); /* full: evapid may not have been woken for the records in it */
    return pushed;
}

enum ring_push queue_probe(size_t tag_length, size_t payload_length)
{
    const size_t capacity = queue_capacity();
    if (tag_length > EVAPID_TAG_MAX || payload_length > ring_payload_max(capacity)) {
        atomic_fetch_add_explicit(&ring->refused_large, 1, memory_order_relaxed);
        return RING_LARGE;
    }
    const size_t size = sizeof(struct ring_record) + tag_length + payload_length + RING_ALIGN;
    if (queue_used() + size <= capacity - ring_reserve(capacity))
        return RING_PUSHED;
    atomic_fetch_add_explicit(&ring->refused_full, 1, memory_order_relaxed);
    return RING_FULL;
}

void queue_mend(void)
{
    if (ring_waits_at_hole(ring) && ring_mend(ring, &shared->lane))
        queue_wake();
}

bool queue_waits_at_hole(void)
{
    return ring_waits_at_hole(ring);
}

void queue_forgive(void)
{
    atomic_fetch_sub_explicit(&ring->refused_full, 1, memory_order_relaxed);
}

struct presence *queue_presence(void)
{
    return &ring->presence;
}

const struct ring_header *queue_ring(void)
{
    return ring;
}

/* Reads tail first: head only grows, so it is never before tail, if evapid is honest. */
size_t queue_used(void)
{
    const uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    const uint64_t used = atomic_load_explicit(&shared->lane.head, memory_order_acquire) - tail;
    return used < queue_capacity() ? (size_t)used : queue_capacity();
}

void queue_started(unsigned worker, uint64_t sequence)
{
    atomic_store_explicit(&ring->workers[worker].started, sequence, memory_order_release);
}

void queue_note_start(unsigned worker, uint64_t read_ns)
{
    ring_note_start(&ring->workers[worker].starts, histogram_since_ns(read_ns, histogram_clock_ns()));
}

uint64_t queue_awaited(unsigned worker)
{
    return atomic_load_explicit(&ring->workers[worker].awaited, memory_order_seq_cst);
}

const int *queue_fds(void)
{
    return fds;
}

bool queue_first_to_say(const char *text, size_t length)
{
    const uint64_t hash = presence_hash(text, length);
    return atomic_exchange(&shared->said, hash) != hash;
}
