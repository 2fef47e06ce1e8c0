/* What the tests of the ring share: a ring, its records, and the processes that use it.
 *
 * Every ring is in a sealed memfd, as a real one is, between two pages that cannot be accessed. An alarm ends a test
 * that would hang. The seed of random tests is printed; EVAPID_TEST_SEED repeats a run. */
#ifndef EVAPID_TEST_RING_RIG_H
#define EVAPID_TEST_RING_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "evapid/lane.h"

#define SMALL EVAPID_RING_MIN
#define PAGE ((size_t)4096)
#define HANG_S 60 /* far more than any test takes */
#define CHILDREN 8
#define TRACED 2       /* index of the traced child */
#define STEPS 10000    /* so many single steps take well under a second */
#define UNWRITTEN 0xee /* the ring's bytes before a test writes them */

/* ---- a ring to test ---------------------------------------------------------------------------------------------- */

#define KEY 0x5ca1ab1e0ddba11dU

struct rig {
    struct ring_header *header;
    struct ring_lane *lane;
    unsigned slot; /* RING_SLOTS: none yet */
    struct ring_reader reader;
    size_t capacity;
    int memfd, eventfd;
    pid_t children[CHILDREN]; /* 0: none */
};

/* Map fd between two pages that cannot be accessed. */
static inline void *map_guarded(int fd, size_t bytes)
{
    char *place = mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(place != MAP_FAILED);
    void *mapped = mmap(place + PAGE, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    assert_true(mapped != MAP_FAILED);
    return mapped;
}

static inline struct rig *rig_open(size_t capacity)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    assert_non_null(rig);
    rig->capacity = capacity;
    rig->memfd = memfd_create("ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    rig->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(rig->memfd >= 0 && rig->eventfd >= 0);
    assert_int_equal(ftruncate(rig->memfd, (off_t)ring_bytes(capacity)), 0);
    assert_int_equal(fcntl(rig->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    rig->header = map_guarded(rig->memfd, ring_bytes(capacity));
    rig->lane = mmap(NULL, sizeof(*rig->lane), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(rig->lane != MAP_FAILED);
    assert_int_equal(ring_make(rig->header, rig->lane, capacity, KEY), 0);
    rig->slot = RING_SLOTS;
    assert_null(ring_open(&rig->reader, rig->header, ring_bytes(capacity)));
    return rig;
}

static inline void rig_kill(struct rig *rig, size_t child)
{
    if (rig->children[child] == 0)
        return;
    kill(rig->children[child], SIGKILL);
    waitpid(rig->children[child], NULL, 0);
    rig->children[child] = 0;
}

static inline void rig_close(struct rig *rig)
{
    for (size_t i = 0; i < CHILDREN; i++)
        rig_kill(rig, i);
    ring_leave(rig->lane, rig->slot); /* the C library has a list of the mutexes that we have locked */
    munmap((char *)rig->header - PAGE, ring_bytes(rig->capacity) + 2 * PAGE);
    munmap(rig->lane, sizeof(*rig->lane));
    close(rig->memfd);
    close(rig->eventfd);
    free(rig);
}

static inline int open_small(void **state)
{
    *state = rig_open(SMALL);
    alarm(HANG_S);
    return 0;
}

static inline int close_rig(void **state)
{
    rig_close(*state);
    alarm(0);
    return 0;
}

static inline void reopen(struct rig *rig)
{
    assert_null(ring_open(&rig->reader, rig->header, ring_bytes(rig->capacity)));
}

/* Empty the ring; its next record starts at position. A real ring never comes to a position twice, so the stamps of
 * earlier records go. */
static inline void rig_clear(struct rig *rig, uint64_t position)
{
    memset(ring_records(rig->header), 0, rig->capacity);
    rig->header->tail = position;
    rig->header->sleeping = 0;
    rig->lane->head = rig->lane->tail_seen = position;
    for (size_t i = 0; i < RING_SLOTS; i++) {
        rig->header->slots[i].noted = 0;
        rig->header->slots[i].claimed = position;
    }
}

static inline void rig_place(struct rig *rig, uint64_t position)
{
    rig_clear(rig, position);
    reopen(rig);
}

/* Run a function in a child; its result is the child's exit status. */
static inline void rig_fork(struct rig *rig, size_t child, int (*run)(struct rig *rig, unsigned producer))
{
    const pid_t parent = getpid(), pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        rig->slot = RING_SLOTS;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == parent ? run(rig, (unsigned)child) : 1);
    }
    rig->children[child] = pid;
}

static inline void rig_join(struct rig *rig, size_t child)
{
    int status = 0;
    assert_int_equal(waitpid(rig->children[child], &status, 0), rig->children[child]);
    rig->children[child] = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static inline unsigned print_seed(void)
{
    const char *given = getenv("EVAPID_TEST_SEED");
    const unsigned seed =
        given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL) ^ (unsigned)getpid();
    print_message("           seed %u\n", seed);
    return seed;
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static inline size_t record_size(size_t tag_length, size_t payload_length)
{
    return (sizeof(struct ring_record) + tag_length + payload_length + 7) / 8 * 8;
}

/* The slot of this process; a thread has a rig of its own. */
static inline unsigned mine(struct rig *rig)
{
    if (rig->slot == RING_SLOTS)
        rig->slot = ring_join(rig->header, rig->lane);
    return rig->slot;
}

/* The end of this process' last claim, as evapid sees it. */
static inline _Atomic uint64_t *claimed(struct rig *rig)
{
    return &rig->header->slots[mine(rig)].claimed;
}

static inline enum ring_push push(struct rig *rig, uint8_t type, const char *tag, size_t tag_length,
                                  const char *payload, size_t payload_length)
{
    const struct ring_record record = { .type = type };
    return ring_push(rig->header, rig->lane, mine(rig), record, tag, tag_length, payload, payload_length);
}

/* A record of type, without a tag, with a payload of length bytes. */
static inline enum ring_push push_length(struct rig *rig, uint8_t type, size_t length)
{
    static const char payload[(size_t)1 << 20];
    return push(rig, type, "", 0, payload, length);
}

/* Push until the ring refuses; returns how many records it accepted. */
static inline size_t push_until_full(struct rig *rig, uint8_t type, size_t length)
{
    size_t taken = 0;
    enum ring_push result;
    while ((result = push_length(rig, type, length)) == RING_PUSHED)
        taken++;
    assert_int_equal(result, RING_FULL);
    return taken;
}

/* Each byte of these records follows from their producer and number, so a torn or misplaced record is noticed. */
struct numbered {
    struct ring_record record;
    char tag[EVAPID_TAG_MAX];
    char payload[8192];
};

static inline void numbered_fill(struct numbered *n, unsigned producer, uint64_t number)
{
    const uint32_t mixed = (uint32_t)(number * 2654435761U + producer * 40503U);
    n->record = (struct ring_record){
        .type = (uint8_t)(RING_RELAY + mixed % 6),
        .tag_length = (uint8_t)(mixed >> 8 & 63),
        .worker = (uint16_t)producer,
        .payload_length = number % 32 == 0 ? mixed >> 16 & 8191 : mixed >> 16 & 255,
        .session = mixed,
        .target = number,
    };
    n->record.size = (uint32_t)record_size(n->record.tag_length, n->record.payload_length);
    memset(n->tag, 'a' + (int)(mixed % 26), n->record.tag_length);
    for (size_t i = 0; i < n->record.payload_length; i++)
        n->payload[i] = (char)(mixed + i * 7);
}

static inline enum ring_push push_filled(struct rig *rig, const struct numbered *n)
{
    const struct ring_record record = {
        .type = n->record.type, .worker = n->record.worker, .session = n->record.session, .target = n->record.target
    };
    return ring_push(rig->header, rig->lane, mine(rig), record, n->tag, n->record.tag_length, n->payload,
                     n->record.payload_length);
}

static inline enum ring_push push_numbered(struct rig *rig, unsigned producer, uint64_t number)
{
    struct numbered n;
    numbered_fill(&n, producer, number);
    return push_filled(rig, &n);
}

static inline int push_numbered_waiting(struct rig *rig, unsigned producer, uint64_t number)
{
    enum ring_push result;
    while ((result = push_numbered(rig, producer, number)) == RING_FULL)
        sched_yield();
    return result == RING_PUSHED ? 0 : 1;
}

/* Copies of a record's tag and payload, in memory of exactly their size. */
static inline void copy_out(const struct ring_reader *reader, uint64_t at, const struct ring_record *record, char **tag,
                            char **payload)
{
    *tag = malloc(record->tag_length != 0 ? record->tag_length : 1);
    *payload = malloc(record->payload_length != 0 ? record->payload_length : 1);
    assert_true(*tag != NULL && *payload != NULL);
    ring_copy(reader, at + sizeof(*record), *tag, record->tag_length);
    ring_copy(reader, at + sizeof(*record) + record->tag_length, *payload, record->payload_length);
}

/* Check that the record at this position is the one that its own worker and target name. */
static inline void assert_numbered(const struct ring_reader *reader, uint64_t at, const struct ring_record *record)
{
    struct numbered n;
    char *tag, *payload;
    numbered_fill(&n, record->worker, record->target);
    n.record.stamp = ring_stamp(KEY, at);
    assert_memory_equal(record, &n.record, sizeof(*record));
    copy_out(reader, at, record, &tag, &payload);
    assert_memory_equal(tag, n.tag, n.record.tag_length);
    assert_memory_equal(payload, n.payload, n.record.payload_length);
    free(tag);
    free(payload);
}

/* Release everything before this position. */
static inline void release(struct ring_reader *reader, uint64_t position)
{
    reader->tail = position;
    ring_release(reader);
}

/* Read and release the next record, which must exist. Returns its header. */
static inline struct ring_record take(struct rig *rig)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_RECORD);
    assert_null(why);
    release(&rig->reader, rig->reader.tail + record.size);
    return record;
}

/* Read and release the next record, which must have this number. */
static inline void take_numbered(struct rig *rig, unsigned producer, uint64_t number)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    const uint64_t at = rig->reader.tail;
    assert_int_equal(ring_peek(&rig->reader, at, &record, &why), RING_RECORD);
    assert_int_equal(record.worker, producer);
    assert_int_equal(record.target, number);
    assert_numbered(&rig->reader, at, &record);
    release(&rig->reader, at + record.size);
}

static inline void assert_empty(struct rig *rig)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_EMPTY);
}

/* Check that no valid record is next, and that why contains word. */
static inline void assert_corrupt(struct rig *rig, const char *word)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_CORRUPT);
    assert_non_null(why);
    if (strstr(why, word) == NULL)
        fail_msg("\"%s\" does not speak of \"%s\"", why, word);
}

/* Read and release count records from any producers. next[] has each producer's next number. */
static inline void take_in_order(struct rig *rig, size_t count, uint64_t next[CHILDREN])
{
    for (size_t i = 0; i < count;) {
        struct ring_record record = { 0 };
        const char *why = NULL;
        const enum ring_read read = ring_peek(&rig->reader, rig->reader.tail, &record, &why);
        if (read == RING_EMPTY) {
            sched_yield();
            continue;
        }
        if (read != RING_RECORD)
            fail_msg("record %zu: %s", i, why);
        if (record.type == RING_LOST) { /* of a producer that was killed */
            release(&rig->reader, rig->reader.tail + record.size);
            continue;
        }
        assert_in_range(record.worker, 0, CHILDREN - 1);
        assert_int_equal(record.target, next[record.worker]);
        assert_numbered(&rig->reader, rig->reader.tail, &record);
        next[record.worker]++;
        release(&rig->reader, rig->reader.tail + record.size);
        i++;
    }
}

/* ---- a child that is stopped at any instruction ------------------------------------------------------------------ */

/* What a traced child does between its two stops. Its result is the child's exit status. */
static int (*act)(struct rig *rig);

static inline int act_traced(struct rig *rig, unsigned child)
{
    (void)child;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        return -1;
    raise(SIGSTOP);
    const int result = act(rig);
    raise(SIGSTOP);
    return result;
}

/* Start a child that stops before it calls what. Returns false if this machine allows no tracing. */
static inline bool fork_traced(struct rig *rig, int (*what)(struct rig *rig))
{
    int status = 0;
    act = what;
    rig_fork(rig, TRACED, act_traced);
    assert_int_equal(waitpid(rig->children[TRACED], &status, 0), rig->children[TRACED]);
    if (WIFSTOPPED(status))
        return true;
    rig->children[TRACED] = 0;
    return false;
}

/* Let the child run so many instructions. Returns how many it ran. If it ended earlier, *result is its result. */
static inline size_t step(struct rig *rig, size_t instructions, int *result)
{
    for (size_t done = 0; done < instructions; done++) {
        int status = 0;
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, rig->children[TRACED], NULL, NULL), 0);
        assert_int_equal(waitpid(rig->children[TRACED], &status, 0), rig->children[TRACED]);
        assert_true(WIFSTOPPED(status));
        if (WSTOPSIG(status) == SIGSTOP) {
            assert_int_equal(ptrace(PTRACE_CONT, rig->children[TRACED], NULL, NULL), 0);
            assert_int_equal(waitpid(rig->children[TRACED], &status, 0), rig->children[TRACED]);
            rig->children[TRACED] = 0;
            assert_true(WIFEXITED(status));
            *result = WEXITSTATUS(status);
            return done;
        }
        assert_int_equal(WSTOPSIG(status), SIGTRAP);
    }
    return instructions;
}

/* At how many places to stop a child of so many instructions: at each, if that is fast enough. With a sanitizer there
 * are ten times as many instructions, and their number varies: a child may end before its last place. */
static inline size_t places_to_stop(size_t instructions)
{
    const size_t places = 6 + STEPS / (instructions + 1);
    return places < instructions ? places : instructions;
}

#define WITH_RING(test) cmocka_unit_test_setup_teardown(test, open_small, close_rig)

#endif
