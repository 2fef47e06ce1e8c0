/* The ring: what is pushed arrives once, whole and in order, from any number of processes, also when some of them are
 * killed; and nothing that the other side writes into the ring leads out of it.
 *
 * Every ring lies in a sealed memfd, as a real one does, between two pages that cannot be touched. A test that would
 * hang is ended by an alarm. The seed of random tests is printed; EVAPID_TEST_SEED repeats a run. */
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

#include "evapid/ring.h"

#define SMALL EVAPID_RING_MIN
#define PAGE ((size_t)4096)
#define HANG_S 60 /* far longer than any test takes */
#define CHILDREN 8
#define TRACED 2       /* the child that is traced */
#define STEPS 10000    /* single steps that take well under a second */
#define UNWRITTEN 0xee /* what a ring's bytes are before a test writes them */

/* ---- a ring to test ---------------------------------------------------------------------------------------------- */

struct rig {
    struct ring_header *header;
    struct ring_lane *lane;
    struct ring_reader reader;
    size_t capacity;
    int memfd, eventfd;
    pid_t children[CHILDREN]; /* 0: none */
};

/* Map fd between two pages that cannot be touched. */
static void *map_guarded(int fd, size_t bytes)
{
    char *place = mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(place != MAP_FAILED);
    void *mapped = mmap(place + PAGE, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    assert_true(mapped != MAP_FAILED);
    return mapped;
}

static struct rig *rig_open(size_t capacity)
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
    assert_int_equal(ring_make(rig->header, rig->lane, capacity), 0);
    assert_null(ring_open(&rig->reader, rig->header, ring_bytes(capacity)));
    return rig;
}

static void rig_kill(struct rig *rig, size_t child)
{
    if (rig->children[child] == 0)
        return;
    kill(rig->children[child], SIGKILL);
    waitpid(rig->children[child], NULL, 0);
    rig->children[child] = 0;
}

static void rig_close(struct rig *rig)
{
    for (size_t i = 0; i < CHILDREN; i++)
        rig_kill(rig, i);
    munmap((char *)rig->header - PAGE, ring_bytes(rig->capacity) + 2 * PAGE);
    munmap(rig->lane, sizeof(*rig->lane));
    close(rig->memfd);
    close(rig->eventfd);
    free(rig);
}

static int open_small(void **state)
{
    *state = rig_open(SMALL);
    alarm(HANG_S);
    return 0;
}

static int close_rig(void **state)
{
    rig_close(*state);
    alarm(0);
    return 0;
}

static void reopen(struct rig *rig)
{
    assert_null(ring_open(&rig->reader, rig->header, ring_bytes(rig->capacity)));
}

/* Empty the ring, with its next record at position. */
static void rig_place(struct rig *rig, uint64_t position)
{
    rig->header->head = rig->header->tail = position;
    rig->header->sleeping = 0;
    rig->lane->head = rig->lane->tail_seen = position;
    reopen(rig);
}

/* Run a function in a child, which ends with what it returns. */
static void rig_fork(struct rig *rig, size_t child, int (*run)(struct rig *rig, unsigned producer))
{
    const pid_t parent = getpid(), pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == parent ? run(rig, (unsigned)child) : 1);
    }
    rig->children[child] = pid;
}

static void rig_join(struct rig *rig, size_t child)
{
    int status = 0;
    assert_int_equal(waitpid(rig->children[child], &status, 0), rig->children[child]);
    rig->children[child] = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static unsigned print_seed(void)
{
    const char *given = getenv("EVAPID_TEST_SEED");
    const unsigned seed =
        given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL) ^ (unsigned)getpid();
    print_message("           seed %u\n", seed);
    return seed;
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static size_t record_size(size_t tag_length, size_t payload_length)
{
    return (24 + tag_length + payload_length + 7) / 8 * 8;
}

static enum ring_push push(struct rig *rig, uint8_t type, const char *tag, size_t tag_length, const char *payload,
                           size_t payload_length)
{
    const struct ring_record record = { .type = type };
    return ring_push(rig->header, rig->lane, record, tag, tag_length, payload, payload_length);
}

/* A record of type, without tag, with length bytes of some payload. */
static enum ring_push push_length(struct rig *rig, uint8_t type, size_t length)
{
    static const char payload[(size_t)1 << 20];
    return push(rig, type, "", 0, payload, length);
}

/* Push until the ring refuses; returns how many it took. */
static size_t push_until_full(struct rig *rig, uint8_t type, size_t length)
{
    size_t taken = 0;
    enum ring_push result;
    while ((result = push_length(rig, type, length)) == RING_PUSHED)
        taken++;
    assert_int_equal(result, RING_FULL);
    return taken;
}

/* Records whose every byte follows from who pushed them and their number, so that a torn or misplaced one is seen. */
struct numbered {
    struct ring_record record;
    char tag[EVAPID_TAG_MAX];
    char payload[8192];
};

static void numbered_fill(struct numbered *n, unsigned producer, uint64_t number)
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

static enum ring_push push_filled(struct rig *rig, const struct numbered *n)
{
    const struct ring_record record = {
        .type = n->record.type, .worker = n->record.worker, .session = n->record.session, .target = n->record.target
    };
    return ring_push(rig->header, rig->lane, record, n->tag, n->record.tag_length, n->payload,
                     n->record.payload_length);
}

static enum ring_push push_numbered(struct rig *rig, unsigned producer, uint64_t number)
{
    struct numbered n;
    numbered_fill(&n, producer, number);
    return push_filled(rig, &n);
}

static int push_numbered_waiting(struct rig *rig, unsigned producer, uint64_t number)
{
    enum ring_push result;
    while ((result = push_numbered(rig, producer, number)) == RING_FULL)
        sched_yield();
    return result == RING_PUSHED ? 0 : 1;
}

/* Copies of a record's tag and payload, in memory of just that size. */
static void copy_out(const struct ring_reader *reader, uint64_t at, const struct ring_record *record, char **tag,
                     char **payload)
{
    *tag = malloc(record->tag_length != 0 ? record->tag_length : 1);
    *payload = malloc(record->payload_length != 0 ? record->payload_length : 1);
    assert_true(*tag != NULL && *payload != NULL);
    ring_copy(reader, at + sizeof(*record), *tag, record->tag_length);
    ring_copy(reader, at + sizeof(*record) + record->tag_length, *payload, record->payload_length);
}

/* The record at position at is the one that its own worker and target say. */
static void assert_numbered(const struct ring_reader *reader, uint64_t at, const struct ring_record *record)
{
    struct numbered n;
    char *tag, *payload;
    numbered_fill(&n, record->worker, record->target);
    assert_memory_equal(record, &n.record, sizeof(*record));
    copy_out(reader, at, record, &tag, &payload);
    assert_memory_equal(tag, n.tag, n.record.tag_length);
    assert_memory_equal(payload, n.payload, n.record.payload_length);
    free(tag);
    free(payload);
}

/* Take the next record, which must be there, and return its header. */
static struct ring_record take(struct rig *rig)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_RECORD);
    assert_null(why);
    ring_release(&rig->reader, rig->reader.tail + record.size);
    return record;
}

/* Take the next record, which must be the one of that number. */
static void take_numbered(struct rig *rig, unsigned producer, uint64_t number)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    const uint64_t at = rig->reader.tail;
    assert_int_equal(ring_peek(&rig->reader, at, &record, &why), RING_RECORD);
    assert_int_equal(record.worker, producer);
    assert_int_equal(record.target, number);
    assert_numbered(&rig->reader, at, &record);
    ring_release(&rig->reader, at + record.size);
}

static void assert_empty(struct rig *rig)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_EMPTY);
}

/* What is to be read next is no record; why holds word. */
static void assert_corrupt(struct rig *rig, const char *word)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_CORRUPT);
    assert_non_null(why);
    if (strstr(why, word) == NULL)
        fail_msg("\"%s\" does not speak of \"%s\"", why, word);
}

/* ---- the format -------------------------------------------------------------------------------------------------- */

static void test_a_new_ring_is_empty(void **state)
{
    struct rig *rig = *state;
    assert_memory_equal(rig->header, "avidring\x01\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0", 24);
    assert_int_equal(rig->header->head, 0);
    assert_int_equal(rig->header->tail, 0);
    assert_int_equal(ring_sleeper(rig->header), 0);
    assert_empty(rig);
}

/* What one side writes often must not slow down the other: no two writers share a line. */
static void test_each_writer_has_its_own_line(void **state)
{
    (void)state;
    assert_int_equal(offsetof(struct ring_header, head) % RING_LINE, 0);
    assert_int_equal(offsetof(struct ring_header, tail) % RING_LINE, 0);
    assert_int_equal(offsetof(struct ring_header, workers) % RING_LINE, 0);
    assert_int_equal(sizeof(struct ring_worker), RING_LINE);
    assert_int_equal(offsetof(struct ring_header, presence) % RING_LINE, 0);
    assert_true(offsetof(struct ring_header, tail) > offsetof(struct ring_header, refused_large));
    assert_int_equal(RING_DATA_OFFSET % 4096, 0);
    assert_true(RING_DATA_OFFSET >= sizeof(struct ring_header));
}

static void test_a_record_arrives_as_it_was_pushed(void **state)
{
    struct rig *rig = *state;
    for (unsigned type = RING_RELAY; type <= RING_DONE; type++) {
        const struct ring_record record = { .size = 77,
                                            .type = type,
                                            .tag_length = 9,
                                            .worker = 0xabcd,
                                            .payload_length = 5,
                                            .session = 0xfedcba98,
                                            .target = 0x8877665544332211U };
        assert_int_equal(ring_push(rig->header, rig->lane, record, "t\0g", 3, "pay\0load", 8), RING_PUSHED);
        struct ring_record found = { 0 };
        const char *why = NULL;
        char *tag, *payload;
        const uint64_t at = rig->reader.tail;
        assert_int_equal(ring_peek(&rig->reader, at, &found, &why), RING_RECORD);
        assert_int_equal(found.size, 40);
        assert_int_equal(found.type, type);
        assert_int_equal(found.worker, 0xabcd);
        assert_int_equal(found.session, 0xfedcba98);
        assert_true(found.target == 0x8877665544332211U);
        assert_int_equal(found.tag_length, 3);
        assert_int_equal(found.payload_length, 8);
        copy_out(&rig->reader, at, &found, &tag, &payload);
        assert_memory_equal(tag, "t\0g", 3);
        assert_memory_equal(payload, "pay\0load", 8);
        free(tag);
        free(payload);
        ring_release(&rig->reader, at + found.size);
        assert_empty(rig);
    }
}

/* A DONE has neither, and a caller need not invent an address for nothing. */
static void test_a_record_without_tag_and_payload(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(push(rig, RING_DONE, NULL, 0, NULL, 0), RING_PUSHED);
    assert_int_equal(take(rig).size, 24);
    assert_int_equal(push(rig, RING_TAG, "vip", 3, NULL, 0), RING_PUSHED);
    assert_int_equal(take(rig).size, 32);
    assert_int_equal(push(rig, RING_RELAY, NULL, 0, "event", 5), RING_PUSHED);
    assert_int_equal(take(rig).size, 32);
    assert_empty(rig);
}

static void test_records_come_in_the_order_of_their_pushes(void **state)
{
    struct rig *rig = *state;
    for (uint64_t number = 1; number <= 100; number++)
        assert_int_equal(push_numbered(rig, 3, number), RING_PUSHED);
    for (uint64_t number = 1; number <= 100; number++)
        take_numbered(rig, 3, number);
    assert_empty(rig);
}

/* ---- wrap -------------------------------------------------------------------------------------------------------- */

/* The ring holds exactly the bytes of one record from position at, and elsewhere what it held before. */
static void assert_only_record(struct rig *rig, uint64_t at, const struct numbered *n)
{
    static unsigned char unwritten[SMALL];
    unsigned char flat[24 + EVAPID_TAG_MAX + 256];
    const unsigned char *bytes = ring_records(rig->header);
    const size_t used = 24U + n->record.tag_length + n->record.payload_length;
    const size_t begin = at % SMALL, end = (at + n->record.size) % SMALL;
    memcpy(flat, &n->record, 24);
    memcpy(flat + 24, n->tag, n->record.tag_length);
    memcpy(flat + 24 + n->record.tag_length, n->payload, n->record.payload_length);
    for (size_t i = 0; i < used; i++)
        if (bytes[(at + i) % SMALL] != flat[i])
            fail_msg("byte %zu of a record of %zu bytes at place %zu", i, used, begin);
    memset(unwritten, UNWRITTEN, sizeof(unwritten));
    if (begin < end) {
        assert_memory_equal(bytes, unwritten, begin);
        assert_memory_equal(bytes + end, unwritten, SMALL - end);
    } else {
        assert_memory_equal(bytes + end, unwritten, begin - end);
    }
}

static void check_wrap(struct rig *rig, uint64_t at, size_t tag_length, size_t payload_length)
{
    struct numbered n;
    numbered_fill(&n, 1, at + payload_length * 3);
    n.record.tag_length = (uint8_t)tag_length;
    n.record.payload_length = (uint32_t)payload_length;
    n.record.size = (uint32_t)record_size(tag_length, payload_length);
    for (size_t i = 0; i < tag_length; i++)
        n.tag[i] = (char)(i + 1);
    for (size_t i = 0; i < payload_length; i++)
        n.payload[i] = (char)(i + 101);
    rig_place(rig, at);
    memset(ring_records(rig->header), UNWRITTEN, SMALL);
    assert_int_equal(ring_push(rig->header, rig->lane, n.record, n.tag, tag_length, n.payload, payload_length),
                     RING_PUSHED);
    assert_only_record(rig, at, &n);
    struct ring_record record = { 0 };
    const char *why = NULL;
    char *tag, *payload;
    assert_int_equal(ring_peek(&rig->reader, at, &record, &why), RING_RECORD);
    assert_memory_equal(&record, &n.record, sizeof(record));
    copy_out(&rig->reader, at, &record, &tag, &payload);
    assert_memory_equal(tag, n.tag, tag_length);
    assert_memory_equal(payload, n.payload, payload_length);
    free(tag);
    free(payload);
    ring_release(&rig->reader, at + record.size);
    assert_empty(rig);
}

/* The ring's end falls on every byte of a record: its header, tag, payload and filling. */
static void test_a_record_wraps_at_every_byte(void **state)
{
    static const size_t tag_lengths[] = { 0, 1, 7, 8, 64 };
    struct rig *rig = *state;
    for (uint64_t at = 3 * SMALL - 160; at <= 3 * SMALL; at += RING_ALIGN)
        for (size_t t = 0; t < sizeof(tag_lengths) / sizeof(tag_lengths[0]); t++)
            for (size_t payload_length = 0; payload_length <= 40; payload_length++)
                check_wrap(rig, at, tag_lengths[t], payload_length);
}

static void test_a_record_at_every_place(void **state)
{
    struct rig *rig = *state;
    for (uint64_t place = 0; place < SMALL; place += RING_ALIGN) {
        rig_place(rig, 5 * SMALL + place);
        for (uint64_t number = place; number < place + 3; number++)
            assert_int_equal(push_numbered(rig, 2, number), RING_PUSHED);
        for (uint64_t number = place; number < place + 3; number++)
            take_numbered(rig, 2, number);
        assert_empty(rig);
    }
}

static void test_many_times_round(void **state)
{
    struct rig *rig = *state;
    uint64_t pushed = 0, taken = 0;
    while (rig->reader.tail < 40 * SMALL) {
        while (push_numbered(rig, 1, pushed) == RING_PUSHED)
            pushed++;
        for (uint64_t i = 0; i <= pushed % 90 && taken < pushed; i++)
            take_numbered(rig, 1, taken++);
    }
}

static void test_positions_pass_the_end_of_64_bits(void **state)
{
    struct rig *rig = *state;
    rig_place(rig, UINT64_MAX - 3 * SMALL + 1);
    for (uint64_t number = 0; rig->reader.tail > SMALL; number++) {
        assert_int_equal(push_numbered(rig, 1, 2 * number), RING_PUSHED);
        assert_int_equal(push_numbered(rig, 1, 2 * number + 1), RING_PUSHED);
        reopen(rig);
        take_numbered(rig, 1, 2 * number);
        take_numbered(rig, 1, 2 * number + 1);
    }
    assert_empty(rig);
    const size_t taken = push_until_full(rig, RING_RELAY, 1000);
    assert_int_equal(taken, SMALL / 16 * 15 / 1024);
}

/* ---- full -------------------------------------------------------------------------------------------------------- */

static void check_full(struct rig *rig, size_t length)
{
    const size_t size = record_size(0, length), room = SMALL - SMALL / 16, fit = room / size;
    const uint64_t refused = rig->header->refused_full, begin = rig->lane->head;
    assert_int_equal(push_until_full(rig, RING_RELAY, length), fit);
    assert_int_equal(rig->header->refused_full, refused + 1);
    assert_int_equal(rig->header->head, begin + fit * size);
    for (size_t i = 0; i < fit; i++)
        assert_int_equal(take(rig).payload_length, length);
    assert_empty(rig);
}

static void test_a_full_ring_refuses(void **state)
{
    struct rig *rig = *state;
    for (size_t length = 0; length <= 2000; length += 13)
        check_full(rig, length);
    /* To the last byte: 61440 is 60 times 1024. */
    check_full(rig, 1000);
    assert_int_equal(rig->header->refused_large, 0);
}

static void test_a_refused_record_changes_nothing(void **state)
{
    struct rig *rig = *state;
    push_until_full(rig, RING_RELAY, 1000);
    static unsigned char before[SMALL];
    const uint64_t head = rig->lane->head;
    memcpy(before, ring_records(rig->header), SMALL);
    static const char payload[1000] = "refused";
    assert_int_equal(push(rig, RING_RELAY, "", 0, payload, sizeof(payload)), RING_FULL);
    assert_memory_equal(ring_records(rig->header), before, SMALL);
    assert_int_equal(rig->lane->head, head);
    assert_int_equal(rig->header->head, head);
}

/* A record's room is given back when it is released, not when it has been read. */
static void test_room_comes_back_with_release(void **state)
{
    struct rig *rig = *state;
    push_until_full(rig, RING_RELAY, 1000);
    struct ring_record record = { 0 };
    const char *why = NULL;
    uint64_t at = rig->reader.tail;
    for (size_t i = 0; i < 60; i++, at += record.size)
        assert_int_equal(ring_peek(&rig->reader, at, &record, &why), RING_RECORD);
    assert_int_equal(ring_peek(&rig->reader, at, &record, &why), RING_EMPTY);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
    ring_release(&rig->reader, rig->reader.tail + 1024);
    assert_int_equal(push_length(rig, RING_RELAY, 1001), RING_FULL);
    assert_int_equal(push_length(rig, RING_RELAY, 1000), RING_PUSHED);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
    ring_release(&rig->reader, rig->reader.tail + 2048);
    assert_int_equal(push_until_full(rig, RING_RELAY, 0), 2048 / 24);
}

static void test_a_small_record_goes_where_a_larger_one_does_not_fit(void **state)
{
    struct rig *rig = *state;
    push_until_full(rig, RING_RELAY, 5000);
    assert_int_equal(push_length(rig, RING_RELAY, 5000), RING_FULL);
    assert_int_equal(push_length(rig, RING_RELAY, 10), RING_PUSHED);
}

static void check_reserve(struct rig *rig, uint8_t control)
{
    rig_place(rig, 0);
    const size_t relays = push_until_full(rig, RING_RELAY, 0);
    assert_int_equal(relays, SMALL / 16 * 15 / 24);
    assert_int_equal(push_length(rig, RING_MULTICAST, 0), RING_FULL);
    assert_int_equal(push_length(rig, RING_UNICAST, 0), RING_FULL);
    const size_t controls = push_until_full(rig, control, 0);
    assert_int_equal(controls, SMALL / 24 - relays);
    /* Within the reserve an event finds room only when the whole reserve is free again, a command at once. */
    take(rig);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
    assert_int_equal(push_length(rig, control, 0), RING_PUSHED);
    for (size_t i = 0; i < controls; i++)
        take(rig);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
    take(rig);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_PUSHED);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
}

static void test_the_reserve_is_for_commands(void **state)
{
    struct rig *rig = *state;
    check_reserve(rig, RING_CLOSE);
    check_reserve(rig, RING_TAG);
    check_reserve(rig, RING_DONE);
    assert_true(ring_type_is_control(RING_CLOSE) && ring_type_is_control(RING_TAG) && ring_type_is_control(RING_DONE));
    assert_false(ring_type_is_control(RING_RELAY) || ring_type_is_control(RING_MULTICAST) ||
                 ring_type_is_control(RING_UNICAST));
}

/* ---- large ------------------------------------------------------------------------------------------------------- */

/* The largest payload with the longest tag fits an empty ring wherever that begins, and is at most half of it. */
static void check_large(size_t capacity)
{
    struct rig *rig = rig_open(capacity);
    const size_t max = ring_payload_max(capacity);
    char *payload = malloc(max + 1), *tag, *copy;
    assert_non_null(payload);
    for (size_t i = 0; i <= max; i++)
        payload[i] = (char)(i * 31 + i / 256);
    static const char longest[EVAPID_TAG_MAX + 1] = "a tag of sixty-four characters, of which most of them are NUL.";
    assert_true(max >= capacity / 2 - 100 && record_size(EVAPID_TAG_MAX, max) <= capacity / 2);
    for (uint64_t at = 0; at <= capacity; at += capacity / 4) {
        rig_place(rig, at + capacity - 16);
        assert_int_equal(push(rig, RING_MULTICAST, longest, EVAPID_TAG_MAX, payload, max), RING_PUSHED);
        struct ring_record record = { 0 };
        const char *why = NULL;
        assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_RECORD);
        copy_out(&rig->reader, rig->reader.tail, &record, &tag, &copy);
        assert_int_equal(record.payload_length, max);
        assert_memory_equal(tag, longest, EVAPID_TAG_MAX);
        assert_true(memcmp(copy, payload, max) == 0);
        free(tag);
        free(copy);
    }
    assert_int_equal(push(rig, RING_MULTICAST, longest, 0, payload, max + 1), RING_LARGE);
    assert_int_equal(rig->header->refused_large, 1);
    free(payload);
    rig_close(rig);
}

static void test_the_largest_record_of_each_ring(void **state)
{
    (void)state;
    check_large(EVAPID_RING_MIN);
    check_large(1UL << 20);
    check_large(EVAPID_RING_DEFAULT);
    assert_true(ring_payload_max(EVAPID_RING_DEFAULT) >= 1UL << 20);
}

static void test_what_never_fits_is_refused_as_large(void **state)
{
    struct rig *rig = *state;
    const size_t max = ring_payload_max(SMALL);
    assert_int_equal(push_length(rig, RING_RELAY, max + 1), RING_LARGE);
    assert_int_equal(push_length(rig, RING_DONE, max + 1), RING_LARGE);
    assert_int_equal(push_length(rig, RING_RELAY, SMALL), RING_LARGE);
    assert_int_equal(push_length(rig, RING_RELAY, (size_t)UINT32_MAX + 1), RING_LARGE);
    assert_int_equal(push_length(rig, RING_RELAY, SIZE_MAX - 16), RING_LARGE);
    assert_int_equal(push_length(rig, RING_RELAY, SIZE_MAX), RING_LARGE);
    assert_int_equal(rig->header->refused_large, 6);
    assert_int_equal(rig->header->refused_full, 0);
    assert_empty(rig);
}

static void test_a_tag_has_a_limit(void **state)
{
    struct rig *rig = *state;
    static const char tag[512] = "tag";
    assert_int_equal(push(rig, RING_TAG, tag, EVAPID_TAG_MAX, "", 0), RING_PUSHED);
    assert_int_equal(push(rig, RING_TAG, tag, EVAPID_TAG_MAX + 1, "", 0), RING_LARGE);
    assert_int_equal(push(rig, RING_TAG, tag, 256 + 3, "", 0), RING_LARGE);
    assert_int_equal(push(rig, RING_TAG, tag, SIZE_MAX, "", 0), RING_LARGE);
    assert_int_equal(rig->header->refused_large, 3);
    assert_int_equal(take(rig).tag_length, EVAPID_TAG_MAX);
    assert_empty(rig);
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

/* evapid was killed: the next one sees again what had been read and not released, and nothing that had. */
static void test_a_new_reader_goes_on_where_the_last_released(void **state)
{
    struct rig *rig = *state;
    for (uint64_t number = 1; number <= 9; number++)
        assert_int_equal(push_numbered(rig, 1, number), RING_PUSHED);
    take_numbered(rig, 1, 1);
    take_numbered(rig, 1, 2);
    struct ring_record record = { 0 };
    const char *why = NULL;
    assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_RECORD);
    reopen(rig);
    for (uint64_t number = 3; number <= 9; number++)
        take_numbered(rig, 1, number);
    assert_empty(rig);
}

/* Another mapping of the memfd is the same ring, as in evapid's process. */
static void test_a_reader_with_its_own_mapping(void **state)
{
    struct rig *rig = *state;
    struct ring_header *header = map_guarded(rig->memfd, ring_bytes(SMALL));
    struct ring_reader other = { 0 };
    assert_null(ring_open(&other, header, ring_bytes(SMALL)));
    uint64_t number = 0;
    for (int round = 0; round < 20; round++) {
        while (push_numbered(rig, 1, number) == RING_PUSHED)
            number++;
        struct ring_record record = { 0 };
        const char *why = NULL;
        while (ring_peek(&other, other.tail, &record, &why) == RING_RECORD) {
            assert_numbered(&other, other.tail, &record);
            ring_release(&other, other.tail + record.size);
        }
        assert_int_equal(record.target, number - 1);
    }
    munmap((char *)header - PAGE, ring_bytes(SMALL) + 2 * PAGE);
}

/* ---- many producers ---------------------------------------------------------------------------------------------- */

enum { PRODUCERS = 6, PUSHES = 6000 };

/* Take count records, from whatever producers; next[] is the number that each of them sends next. */
static void take_in_order(struct rig *rig, size_t count, uint64_t next[CHILDREN])
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
        assert_in_range(record.worker, 0, CHILDREN - 1);
        assert_int_equal(record.target, next[record.worker]);
        assert_numbered(&rig->reader, rig->reader.tail, &record);
        next[record.worker]++;
        ring_release(&rig->reader, rig->reader.tail + record.size);
        i++;
    }
}

static int push_many(struct rig *rig, unsigned producer)
{
    for (uint64_t number = 0; number < PUSHES; number++)
        if (push_numbered_waiting(rig, producer, number) != 0)
            return 1;
    return 0;
}

static void test_many_producer_processes(void **state)
{
    struct rig *rig = *state;
    uint64_t next[CHILDREN] = { 0 };
    for (size_t i = 0; i < PRODUCERS; i++)
        rig_fork(rig, i, push_many);
    take_in_order(rig, (size_t)PRODUCERS * PUSHES, next);
    for (size_t i = 0; i < PRODUCERS; i++) {
        assert_int_equal(next[i], PUSHES);
        rig_join(rig, i);
    }
    assert_empty(rig);
}

struct producer_thread {
    struct rig *rig;
    unsigned producer;
    pthread_t thread;
    int result;
};

static void *push_many_in_thread(void *argument)
{
    struct producer_thread *t = argument;
    t->result = push_many(t->rig, t->producer);
    return NULL;
}

/* The same within one process, where the thread sanitizer can see both sides. */
static void test_many_producer_threads(void **state)
{
    struct rig *rig = *state;
    struct producer_thread threads[3];
    uint64_t next[CHILDREN] = { 0 };
    for (unsigned i = 0; i < 3; i++) {
        threads[i] = (struct producer_thread){ .rig = rig, .producer = i, .result = 1 };
        assert_int_equal(pthread_create(&threads[i].thread, NULL, push_many_in_thread, &threads[i]), 0);
    }
    take_in_order(rig, (size_t)3 * PUSHES, next);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i].thread, NULL), 0);
        assert_int_equal(threads[i].result, 0);
    }
    assert_empty(rig);
}

/* ---- producers that are killed ----------------------------------------------------------------------------------- */

/* Take the lock, write the first half of a record, and be killed. */
static int die_in_the_middle(struct rig *rig, unsigned producer)
{
    struct numbered n;
    numbered_fill(&n, producer, 32);
    if (pthread_mutex_lock(&rig->lane->lock) != 0)
        return 1;
    ring_write(rig->header, rig->lane->capacity, rig->lane->head, &n.record, sizeof(n.record));
    ring_write(rig->header, rig->lane->capacity, rig->lane->head + sizeof(n.record), n.tag, n.record.tag_length / 2);
    raise(SIGKILL);
    return 1;
}

static void test_a_producer_killed_in_the_middle(void **state)
{
    struct rig *rig = *state;
    for (uint64_t round = 0; round < 20; round++) {
        assert_int_equal(push_numbered(rig, 1, 3 * round), RING_PUSHED);
        rig_fork(rig, 0, die_in_the_middle);
        int status;
        assert_int_equal(waitpid(rig->children[0], &status, 0), rig->children[0]);
        rig->children[0] = 0;
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        take_numbered(rig, 1, 3 * round);
        assert_empty(rig);
        assert_int_equal(push_numbered(rig, 1, 3 * round + 1), RING_PUSHED);
        assert_int_equal(push_numbered(rig, 1, 3 * round + 2), RING_PUSHED);
        take_numbered(rig, 1, 3 * round + 1);
        take_numbered(rig, 1, 3 * round + 2);
        assert_empty(rig);
    }
}

/* What a traced child does between its two stops; it ends with what act returns. */
static int (*act)(struct rig *rig);

static int act_traced(struct rig *rig, unsigned child)
{
    (void)child;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        return -1;
    raise(SIGSTOP);
    const int result = act(rig);
    raise(SIGSTOP);
    return result;
}

/* Start a child that stands in front of what. False when this machine lets nobody trace. */
static bool fork_traced(struct rig *rig, int (*what)(struct rig *rig))
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

/* Let the child run so many instructions. Returns how many it ran: fewer when it is done, and then *result is what it
 * came to. */
static size_t step(struct rig *rig, size_t instructions, int *result)
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

/* At how many places a child of so many instructions is stopped: at each, if that does not take long. A sanitizer makes
 * them ten times as many, and not the same number each time: a child may end before its last place. */
static size_t places_to_stop(size_t instructions)
{
    const size_t places = 6 + STEPS / (instructions + 1);
    return places < instructions ? places : instructions;
}

/* A producer was killed somewhere: a record before its own and one after it are there, and its own whole or not at all.
 * Returns whether it is. */
static bool take_around(struct rig *rig)
{
    assert_int_equal(push_numbered(rig, 3, 0), RING_PUSHED);
    assert_int_equal(push_numbered(rig, 3, 1), RING_PUSHED);
    take_numbered(rig, 1, 0);
    struct ring_record record = { 0 };
    const char *why = NULL;
    assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_RECORD);
    const bool there = record.worker == TRACED;
    if (there)
        take_numbered(rig, TRACED, 1);
    take_numbered(rig, 3, 0);
    take_numbered(rig, 3, 1);
    assert_empty(rig);
    return there;
}

static struct numbered
    traced_record; /* filled in before the child is there, so that only its push is stepped through */

static int push_traced_record(struct rig *rig)
{
    return push_filled(rig, &traced_record) == RING_PUSHED ? 0 : 1;
}

/* Empty the ring, at a place where a record's header wraps, put one record there, and a producer in front of its push. */
static bool begin_traced_push(struct rig *rig)
{
    struct numbered before;
    numbered_fill(&before, 1, 0);
    numbered_fill(&traced_record, TRACED, 1);
    rig_place(rig, 3 * SMALL - before.record.size - 8);
    memset(ring_records(rig->header), UNWRITTEN, SMALL);
    assert_int_equal(push_filled(rig, &before), RING_PUSHED);
    return fork_traced(rig, push_traced_record);
}

/* Make ghost what rig is now, but for the lock, which nobody holds. */
static void haunt(struct rig *ghost, const struct rig *rig)
{
    memcpy(ring_records(ghost->header), ring_records(rig->header), SMALL);
    ghost->header->head = rig->header->head;
    ghost->header->tail = rig->header->tail;
    ghost->lane->head = rig->lane->head;
    ghost->lane->tail_seen = rig->lane->tail_seen;
    reopen(ghost);
}

/* What would be left if a producer were killed here, after each single instruction of its push. */
static void test_a_push_that_stops_at_every_instruction(void **state)
{
    struct rig *rig = *state, *ghost = rig_open(SMALL);
    size_t there = 0, stops = 0;
    int result = 1;
    if (!begin_traced_push(rig)) {
        rig_close(ghost);
        skip();
    }
    do {
        haunt(ghost, rig);
        there += take_around(ghost);
        stops++;
    } while (step(rig, 1, &result) == 1);
    rig_close(ghost);
    assert_int_equal(result, 0);
    assert_true(there > 0 && there < stops);
}

/* What is left when it is killed, the lock included, at places all over its push. */
static void test_a_producer_killed_all_over_its_push(void **state)
{
    struct rig *rig = *state;
    size_t there = 0;
    int result = 1;
    if (!begin_traced_push(rig))
        skip();
    const size_t all = step(rig, SIZE_MAX, &result), kills = places_to_stop(all);
    assert_int_equal(result, 0);
    for (size_t i = 0; i < kills; i++) {
        assert_true(begin_traced_push(rig));
        step(rig, all * i / kills, &result);
        rig_kill(rig, TRACED);
        there += take_around(rig);
    }
    /* Killed at its first instruction it has left nothing, and everything once its push has ended. */
    assert_true(begin_traced_push(rig));
    step(rig, SIZE_MAX, &result);
    assert_true(take_around(rig));
    assert_true(there < kills);
}

static int push_for_ever(struct rig *rig, unsigned producer)
{
    for (uint64_t number = 0;; number++)
        if (push_numbered_waiting(rig, producer, number) != 0)
            return 1;
}

static void test_producers_killed_at_random(void **state)
{
    enum { ROUNDS = 60, RACERS = 3 };
    struct rig *rig = *state;
    unsigned seed = print_seed();
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint64_t next[CHILDREN] = { [CHILDREN - 1] = round };
        for (size_t i = 0; i < RACERS; i++)
            rig_fork(rig, i, push_for_ever);
        take_in_order(rig, (size_t)(rand_r(&seed) % 300), next);
        rig_kill(rig, 0);
        take_in_order(rig, 300, next); /* the others go on */
        rig_kill(rig, 1);
        rig_kill(rig, 2);
        /* A last record comes behind all that they have left. */
        while (push_numbered(rig, CHILDREN - 1, round) == RING_FULL)
            take_in_order(rig, 1, next);
        while (next[CHILDREN - 1] == round)
            take_in_order(rig, 1, next);
        assert_empty(rig);
    }
}

/* Nobody made the state good again after a death: no producer may write under such a lock. */
static void test_a_lock_that_cannot_be_had(void **state)
{
    struct rig *rig = *state;
    rig_fork(rig, 0, die_in_the_middle);
    waitpid(rig->children[0], NULL, 0);
    rig->children[0] = 0;
    assert_int_equal(pthread_mutex_lock(&rig->lane->lock), EOWNERDEAD);
    assert_int_equal(pthread_mutex_unlock(&rig->lane->lock), 0);
    assert_int_equal(push_numbered(rig, 1, 1), RING_BROKEN);
    assert_int_equal(push_numbered(rig, 1, 2), RING_BROKEN);
    assert_int_equal(rig->header->head, 0);
    assert_int_equal(rig->lane->head, 0);
    assert_empty(rig);
}

/* ---- a ring that is none ----------------------------------------------------------------------------------------- */

static void assert_no_ring(struct rig *rig, const char *word)
{
    struct ring_reader reader = { 0 };
    const char *why = ring_open(&reader, rig->header, ring_bytes(SMALL));
    assert_non_null(why);
    if (strstr(why, word) == NULL)
        fail_msg("\"%s\" does not speak of \"%s\"", why, word);
}

static void test_a_header_with_a_wrong_shape(void **state)
{
    struct rig *rig = *state;
    for (size_t i = 0; i < 8; i++) {
        rig->header->magic ^= (uint64_t)1 << 8 * i;
        assert_no_ring(rig, "not a ring");
        rig->header->magic = RING_MAGIC;
    }
    rig->header->version = 0;
    assert_no_ring(rig, "version");
    rig->header->version = RING_VERSION + 1;
    assert_no_ring(rig, "version");
    rig->header->version = RING_VERSION;
    reopen(rig);
}

static void test_a_header_with_a_wrong_capacity(void **state)
{
    static const uint64_t wrong[] = { 0,
                                      1,
                                      SMALL / 2,
                                      SMALL - 1,
                                      SMALL + 1,
                                      SMALL + SMALL / 2,
                                      2 * SMALL,
                                      SMALL | 8,
                                      EVAPID_RING_MAX * 2,
                                      (uint64_t)1 << 63,
                                      UINT64_MAX,
                                      UINT64_MAX - RING_DATA_OFFSET + 1,
                                      ((uint64_t)1 << 32) + SMALL };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        rig->header->capacity = wrong[i];
        assert_no_ring(rig, "capacity");
    }
}

static void test_a_memfd_of_a_wrong_size(void **state)
{
    struct rig *rig = *state;
    struct ring_reader reader = { 0 };
    for (size_t bytes = ring_bytes(SMALL) - 64; bytes <= ring_bytes(SMALL) + 64; bytes++)
        assert_true((ring_open(&reader, rig->header, bytes) == NULL) == (bytes == ring_bytes(SMALL)));
    assert_non_null(ring_open(&reader, rig->header, ring_bytes(2 * SMALL)));
    /* A capacity that suits such a size, and is no power of two or out of range. */
    rig->header->capacity = SMALL + 4096;
    assert_non_null(ring_open(&reader, rig->header, ring_bytes(SMALL + 4096)));
    rig->header->capacity = SMALL / 2;
    assert_non_null(ring_open(&reader, rig->header, ring_bytes(SMALL / 2)));
    rig->header->capacity = 2 * EVAPID_RING_MAX;
    assert_non_null(ring_open(&reader, rig->header, ring_bytes(2 * EVAPID_RING_MAX)));
    rig->header->capacity = 2 * SMALL;
    assert_null(ring_open(&reader, rig->header, ring_bytes(2 * SMALL)));
}

/* What is too small to hold a header is not looked at. */
static void test_a_memfd_without_a_header(void **state)
{
    struct rig *rig = *state;
    struct ring_reader reader = { 0 };
    struct ring_header *untouchable = (struct ring_header *)(void *)((char *)rig->header - PAGE);
    assert_non_null(ring_open(&reader, untouchable, 0));
    assert_non_null(ring_open(&reader, untouchable, PAGE));
    assert_non_null(ring_open(&reader, untouchable, RING_DATA_OFFSET));
}

static void test_a_header_with_impossible_positions(void **state)
{
    static const struct {
        uint64_t tail, head;
        bool good;
    } positions[] = {
        { 0, 0, true },
        { 0, SMALL, true },
        { 8 * SMALL + 8, 9 * SMALL + 8, true },
        { UINT64_MAX - 7, SMALL - 8, true },
        { 0, SMALL + 8, false },
        { 8, 0, false },
        { 2 * SMALL, SMALL, false },
        { 0, UINT64_MAX - 7, false },
        { 4, 4, false },
        { 0, 4, false },
        { 1, 9, false },
        { 4, 8, false },
        { 0, 15, false },
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(positions) / sizeof(positions[0]); i++) {
        rig->header->tail = positions[i].tail;
        rig->header->head = positions[i].head;
        if (positions[i].good)
            reopen(rig);
        else
            assert_no_ring(rig, "head and tail");
    }
}

/* ---- a ring that turns bad --------------------------------------------------------------------------------------- */

static void test_a_head_that_jumps(void **state)
{
    static const int64_t wrong[] = { 1, 4, 25, -8, -24, -64, INT64_MIN, INT64_MAX - 7, SMALL + 8, 2 * SMALL };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        rig_place(rig, 10 * SMALL);
        assert_int_equal(push_length(rig, RING_RELAY, 0), RING_PUSHED);
        const uint64_t head = rig->header->head;
        take(rig);
        rig->header->head = head + (uint64_t)wrong[i];
        assert_corrupt(rig, "head");
        /* Nothing was believed of it: with the old head, the ring is as it was. */
        rig->header->head = head;
        assert_empty(rig);
        assert_int_equal(push_length(rig, RING_RELAY, 0), RING_PUSHED);
        take(rig);
    }
}

/* Back, but not behind the tail: what the reader has already seen written cannot be unwritten. */
static void test_a_head_that_goes_back(void **state)
{
    struct rig *rig = *state;
    push_length(rig, RING_RELAY, 0);
    push_length(rig, RING_RELAY, 0);
    struct ring_record record = { 0 };
    const char *why = NULL;
    assert_int_equal(ring_peek(&rig->reader, 0, &record, &why), RING_RECORD);
    assert_int_equal(ring_peek(&rig->reader, 24, &record, &why), RING_RECORD);
    rig->header->head = 24;
    assert_int_equal(ring_peek(&rig->reader, 48, &record, &why), RING_CORRUPT);
    assert_string_equal(why, "head is out of range");
}

/* A head that is further than the ring is long is impossible, also when the last known one is behind the tail by less. */
static void test_a_head_more_than_a_ring_ahead(void **state)
{
    struct rig *rig = *state;
    for (size_t i = 0; i < 4; i++)
        push_length(rig, RING_RELAY, 1000);
    struct ring_record record = { 0 };
    const char *why = NULL;
    for (uint64_t at = 0; at < 4096; at += 1024)
        assert_int_equal(ring_peek(&rig->reader, at, &record, &why), RING_RECORD);
    rig->header->head = SMALL + 8;
    assert_int_equal(ring_peek(&rig->reader, 4096, &record, &why), RING_CORRUPT);
    assert_string_equal(why, "head is out of range");
    rig->header->head = SMALL;
    assert_int_equal(ring_peek(&rig->reader, 4096, &record, &why), RING_CORRUPT);
    if (strstr(why, "size") == NULL)
        fail_msg("\"%s\": a ring may be full", why);
}

/* A record of 64 bytes of which 40 are tag and payload, with another one of 24 bytes behind it. */
static struct ring_record *push_victim(struct rig *rig)
{
    rig_place(rig, 3 * SMALL);
    memset(ring_records(rig->header), 0, 256);
    assert_int_equal(push(rig, RING_MULTICAST, "0123456789", 10, "012345678901234567890123456789", 30), RING_PUSHED);
    assert_int_equal(push_length(rig, RING_DONE, 0), RING_PUSHED);
    return (struct ring_record *)(void *)ring_records(rig->header);
}

static void test_a_record_with_a_wrong_size(void **state)
{
    static const uint32_t wrong[] = {
        0, 1, 8, 16, 23, 25, 60, 63, 65, 96, SMALL, SMALL + 8, UINT32_MAX, UINT32_MAX - 7
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        push_victim(rig)->size = wrong[i];
        assert_corrupt(rig, "size");
    }
    /* Room to spare is no harm: as far as the head, and no further. */
    push_victim(rig)->size = 88;
    assert_int_equal(take(rig).size, 88);
    assert_empty(rig);
}

static void test_a_record_with_a_wrong_tag_length(void **state)
{
    struct rig *rig = *state;
    for (unsigned length = 0; length < 256; length++) {
        push_victim(rig)->tag_length = (uint8_t)length;
        if (length <= 10)
            assert_int_equal(take(rig).tag_length, length);
        else
            assert_corrupt(rig, "tag");
    }
    /* Over the limit of a tag, though the record is long enough. */
    struct ring_record *record = push_victim(rig);
    rig_place(rig, 3 * SMALL);
    assert_int_equal(push_length(rig, RING_RELAY, 200), RING_PUSHED);
    record->payload_length = 0;
    record->tag_length = EVAPID_TAG_MAX + 1;
    assert_corrupt(rig, "tag");
    record->tag_length = EVAPID_TAG_MAX;
    assert_int_equal(take(rig).tag_length, EVAPID_TAG_MAX);
}

static void test_a_record_with_a_wrong_payload_length(void **state)
{
    static const uint32_t wrong[] = {
        31, 32, 40, 41, 64, SMALL, UINT32_MAX, UINT32_MAX - 9, UINT32_MAX - 33, (uint32_t)1 << 31
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        push_victim(rig)->payload_length = wrong[i];
        assert_corrupt(rig, "payload");
    }
    for (uint32_t length = 0; length <= 30; length++) {
        push_victim(rig)->payload_length = length;
        assert_int_equal(take(rig).payload_length, length);
    }
}

static void test_a_record_with_a_wrong_type(void **state)
{
    struct rig *rig = *state;
    for (unsigned type = 0; type < 256; type++) {
        push_victim(rig)->type = (uint8_t)type;
        if (type >= RING_RELAY && type <= RING_DONE)
            assert_int_equal(take(rig).type, type);
        else
            assert_corrupt(rig, "type");
    }
}

/* The head has moved by less than a header: that is no record, whatever the bytes behind it say. */
static void test_a_record_without_room_for_its_header(void **state)
{
    struct rig *rig = *state;
    for (uint64_t bytes = 8; bytes < 24; bytes += 8) {
        push_victim(rig)->size = 24;
        rig->header->head = 3 * SMALL + bytes;
        assert_corrupt(rig, "size");
    }
}

/* What a reader accepts lies between the position and head, and within the ring. Returns false at the end of it. */
static bool take_suspicious(struct ring_reader *reader, uint64_t *at)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    const enum ring_read read = ring_peek(reader, *at, &record, &why);
    assert_true(reader->head - reader->tail <= reader->capacity && reader->head % RING_ALIGN == 0);
    if (read != RING_RECORD) {
        assert_true(read == RING_EMPTY || why != NULL);
        return false;
    }
    assert_true(record.size >= sizeof(record) && record.size % RING_ALIGN == 0 && record.size <= reader->head - *at);
    assert_true(record.type >= RING_RELAY && record.type <= RING_DONE && record.tag_length <= EVAPID_TAG_MAX);
    assert_true(sizeof(record) + record.tag_length + (uint64_t)record.payload_length <= record.size);
    char *tag, *payload;
    copy_out(reader, *at, &record, &tag, &payload);
    free(tag);
    free(payload);
    *at += record.size;
    return true;
}

/* Change a few bytes of what a reader goes by: records, and now and then head. */
static void scribble(struct rig *rig, unsigned *seed)
{
    for (int changes = 1 + rand_r(seed) % 4; changes > 0; changes--) {
        const uint64_t at = rig->header->tail + (uint64_t)(rand_r(seed) % 600);
        volatile unsigned char *byte = ring_records(rig->header) + at % SMALL;
        *byte = (unsigned char)(rand_r(seed) % 3 == 0 ? rand_r(seed) : *byte ^ 1 << rand_r(seed) % 8);
    }
    if (rand_r(seed) % 8 == 0)
        rig->header->head += (uint64_t)(rand_r(seed) % 5 - 2) * (rand_r(seed) % 2 == 0 ? 8 : SMALL / 2);
}

static void test_a_ring_scribbled_over(void **state)
{
    struct rig *rig = *state;
    unsigned seed = print_seed();
    size_t whole = 0, broken = 0;
    for (size_t round = 0; round < 20000; round++) {
        rig_place(rig, (uint64_t)(rand_r(&seed) % (2 * SMALL / RING_ALIGN)) * RING_ALIGN);
        for (int records = 1 + rand_r(&seed) % 5; records > 0; records--)
            assert_int_equal(push_numbered(rig, 1, (uint64_t)rand_r(&seed)), RING_PUSHED);
        const uint64_t head = rig->header->head;
        scribble(rig, &seed);
        uint64_t at = rig->reader.tail;
        while (take_suspicious(&rig->reader, &at))
            ;
        if (at == head)
            whole++;
        else
            broken++;
    }
    assert_true(whole > 100 && broken > 100);
}

static int scribble_for_ever(struct rig *rig, unsigned producer)
{
    unsigned seed = (unsigned)getpid() + producer;
    while (getppid() != 1)
        scribble(rig, &seed);
    return 0;
}

/* The other side writes while evapid looks: what was checked is what is used. */
static void test_a_ring_scribbled_over_while_it_is_read(void **state)
{
    struct rig *rig = *state;
    size_t taken = 0, broken = 0;
    rig_fork(rig, 0, scribble_for_ever);
    for (size_t round = 0; round < 20000 || taken == 0 || broken == 0; round++) {
        rig->header->tail = rig->lane->tail_seen = rig->lane->head = round % SMALL * RING_ALIGN;
        struct ring_reader reader = { 0 };
        for (uint64_t number = 0; number < 5; number++)
            push_numbered(rig, 1, round + number);
        if (ring_open(&reader, rig->header, ring_bytes(SMALL)) != NULL) {
            broken++;
            continue;
        }
        uint64_t at = reader.tail;
        while (take_suspicious(&reader, &at))
            taken++;
    }
}

enum { PEEKED_CORRUPT, PEEKED_RECORD, PEEKED_BEYOND };

static int peek_traced(struct rig *rig)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    if (ring_peek(&rig->reader, rig->reader.tail, &record, &why) != RING_RECORD)
        return PEEKED_CORRUPT;
    return record.size == 64 && record.tag_length == 10 && record.payload_length == 30 ? PEEKED_RECORD : PEEKED_BEYOND;
}

/* The record turns bad after each single instruction of a look at it: what was good is taken as it was, or nothing. */
static void test_a_record_that_turns_bad_at_every_instruction(void **state)
{
    struct rig *rig = *state;
    size_t counts[3] = { 0 };
    int result = PEEKED_BEYOND;
    push_victim(rig);
    if (!fork_traced(rig, peek_traced))
        skip();
    const size_t all = step(rig, SIZE_MAX, &result), places = places_to_stop(all);
    assert_int_equal(result, PEEKED_RECORD);
    for (size_t i = 0; i < places; i++) {
        struct ring_record *victim = push_victim(rig);
        assert_true(fork_traced(rig, peek_traced));
        if (step(rig, all * i / places, &result) < all * i / places)
            continue;
        victim->size = victim->payload_length = 8 * SMALL;
        victim->tag_length = 255;
        step(rig, SIZE_MAX, &result);
        assert_in_range(result, PEEKED_CORRUPT, PEEKED_BEYOND);
        counts[result]++;
    }
    assert_true(counts[PEEKED_CORRUPT] > 0 && counts[PEEKED_RECORD] > 0);
    assert_int_equal(counts[PEEKED_BEYOND], 0);
}

/* ---- an evapid that cannot be trusted ---------------------------------------------------------------------------- */

/* Producers go by their own head and capacity. A wild tail can make them lose events and no more. */
static void test_a_tail_that_lies(void **state)
{
    struct rig *rig = *state;
    unsigned seed = print_seed();
    size_t pushed = 0, full = 0;
    for (size_t round = 0; round < 50000; round++) {
        const uint64_t wild = (uint64_t)rand_r(&seed) << 40 ^ (uint64_t)rand_r(&seed) << 20 ^ (uint64_t)rand_r(&seed);
        rig->header->tail = rand_r(&seed) % 2 == 0 ? wild : rig->lane->head + (uint64_t)(rand_r(&seed) % 4096) - 2048;
        rig->header->capacity = wild;
        rig->header->head = wild;
        const uint64_t head = rig->lane->head;
        const enum ring_push result = push_numbered(rig, 1, round);
        if (result == RING_PUSHED) {
            pushed++;
            assert_in_range(rig->lane->head - head, 24, SMALL / 2);
            assert_int_equal(rig->header->head, rig->lane->head);
        } else {
            full++;
            assert_int_equal(result, RING_FULL);
            assert_int_equal(rig->lane->head, head);
        }
        assert_int_equal(rig->lane->capacity, SMALL);
    }
    assert_true(pushed > 100 && full > 100);
}

/* A tail behind head by more than the ring, or in front of it, leaves no room, and a right one gives it back. */
static void test_a_tail_out_of_range_leaves_no_room(void **state)
{
    static const int64_t wrong[] = { 8, 24, SMALL, INT64_MIN, INT64_MAX - 7, -(int64_t)SMALL, -(int64_t)SMALL - 8 };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        rig_place(rig, 4 * SMALL);
        rig->header->tail = rig->lane->tail_seen = 4 * SMALL + (uint64_t)wrong[i];
        assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
        assert_int_equal(push_length(rig, RING_DONE, 0), RING_FULL);
        rig->header->tail = 4 * SMALL;
        assert_int_equal(push_length(rig, RING_RELAY, 0), RING_PUSHED);
    }
}

/* A reader goes by its own tail: nobody can make it read twice, or what was never written. */
static void test_a_reader_keeps_its_own_tail(void **state)
{
    struct rig *rig = *state;
    for (uint64_t number = 0; number < 3; number++)
        assert_int_equal(push_numbered(rig, 1, number), RING_PUSHED);
    take_numbered(rig, 1, 0);
    rig->header->tail = 0;
    rig->header->capacity = 2 * SMALL;
    take_numbered(rig, 1, 1);
    rig->header->tail = UINT64_MAX - 7;
    take_numbered(rig, 1, 2);
    assert_int_equal(rig->header->tail, rig->header->head);
    assert_empty(rig);
}

/* ---- sleep and wake ---------------------------------------------------------------------------------------------- */

static void test_evapid_sleeps_only_on_an_empty_ring(void **state)
{
    struct rig *rig = *state;
    assert_true(ring_sleep(&rig->reader, rig->reader.tail));
    assert_int_not_equal(ring_sleeper(rig->header), 0);
    assert_int_equal(push_numbered(rig, 1, 1), RING_PUSHED);
    assert_false(ring_sleep(&rig->reader, rig->reader.tail));
    assert_int_equal(ring_sleeper(rig->header), 0);
    take_numbered(rig, 1, 1);
    assert_true(ring_sleep(&rig->reader, rig->reader.tail));
}

/* Records that are held, read and not released, are not news: evapid may sleep behind them. */
static void test_evapid_sleeps_behind_what_it_has_seen(void **state)
{
    struct rig *rig = *state;
    push_length(rig, RING_RELAY, 0);
    push_length(rig, RING_RELAY, 0);
    assert_false(ring_sleep(&rig->reader, 24));
    assert_true(ring_sleep(&rig->reader, 48));
}

static void test_a_woken_evapid_counts_as_awake(void **state)
{
    struct rig *rig = *state;
    assert_true(ring_sleep(&rig->reader, 0));
    const uint64_t sleep = ring_sleeper(rig->header);
    assert_int_equal(ring_sleeper(rig->header), sleep);
    ring_woken(rig->header, sleep);
    assert_int_equal(ring_sleeper(rig->header), 0);
}

/* The first of two producers is slow: evapid has slept again when it says "woken". */
static void test_a_late_waker_does_not_end_a_later_sleep(void **state)
{
    struct rig *rig = *state;
    assert_true(ring_sleep(&rig->reader, 0));
    const uint64_t early = ring_sleeper(rig->header);
    ring_woken(rig->header, early);
    assert_true(ring_sleep(&rig->reader, 0));
    assert_int_not_equal(ring_sleeper(rig->header), early);
    ring_woken(rig->header, early);
    assert_int_not_equal(ring_sleeper(rig->header), 0);
}

/* The same across a restart of evapid, asleep or awake: its next sleep is none that an old producer could mean. */
static void test_a_new_evapid_s_sleep_is_a_new_one(void **state)
{
    struct rig *rig = *state;
    assert_true(ring_sleep(&rig->reader, 0));
    const uint64_t early = ring_sleeper(rig->header);
    reopen(rig);
    assert_true(ring_sleep(&rig->reader, 0));
    assert_int_not_equal(ring_sleeper(rig->header), early);
    const uint64_t later = ring_sleeper(rig->header);
    ring_woken(rig->header, later);
    reopen(rig);
    assert_true(ring_sleep(&rig->reader, 0));
    ring_woken(rig->header, early);
    ring_woken(rig->header, later);
    assert_int_not_equal(ring_sleeper(rig->header), 0);
}

static void test_a_sleep_s_number_is_never_0(void **state)
{
    struct rig *rig = *state;
    rig->reader.sleeps = UINT64_MAX;
    assert_true(ring_sleep(&rig->reader, 0));
    assert_int_not_equal(ring_sleeper(rig->header), 0);
}

/* Push, see that evapid sleeps, and be killed. */
static int die_before_the_wake(struct rig *rig, unsigned producer)
{
    if (push_numbered(rig, producer, 1) == RING_PUSHED && ring_sleeper(rig->header) != 0)
        raise(SIGKILL);
    return 1;
}

/* The next producer finds evapid still asleep, and wakes it for both. */
static void test_a_producer_killed_before_it_woke_evapid(void **state)
{
    struct rig *rig = *state;
    int status = 0;
    assert_true(ring_sleep(&rig->reader, 0));
    rig_fork(rig, 0, die_before_the_wake);
    assert_int_equal(waitpid(rig->children[0], &status, 0), rig->children[0]);
    rig->children[0] = 0;
    assert_true(WIFSIGNALED(status));
    assert_int_equal(push_numbered(rig, 1, 1), RING_PUSHED);
    assert_int_not_equal(ring_sleeper(rig->header), 0);
    take_numbered(rig, 0, 1);
    take_numbered(rig, 1, 1);
}

static int sleep_traced(struct rig *rig)
{
    return ring_sleep(&rig->reader, rig->reader.tail) ? 1 : 0;
}

/* A record comes after each single instruction of falling asleep: evapid sees it and stays awake, or the producer sees
 * that it has to wake evapid. */
static void test_a_push_at_every_instruction_of_falling_asleep(void **state)
{
    struct rig *rig = *state;
    size_t asleep = 0, awake = 0;
    int sleeps = 0;
    if (!fork_traced(rig, sleep_traced))
        skip();
    const size_t all = step(rig, SIZE_MAX, &sleeps), places = places_to_stop(all);
    assert_int_equal(sleeps, 1);
    for (size_t i = 0; i < places; i++) {
        rig_place(rig, SMALL);
        assert_true(fork_traced(rig, sleep_traced));
        if (step(rig, all * i / places, &sleeps) < all * i / places)
            continue;
        assert_int_equal(push_length(rig, RING_RELAY, 0), RING_PUSHED);
        const bool wakes = ring_sleeper(rig->header) != 0;
        step(rig, SIZE_MAX, &sleeps);
        assert_true(wakes || sleeps == 0);
        asleep += sleeps == 1;
        awake += sleeps == 0;
    }
    assert_true(asleep > 0 && awake > 0);
}

static void test_an_impossible_head_keeps_evapid_awake(void **state)
{
    struct rig *rig = *state;
    rig->header->head = UINT64_MAX;
    assert_false(ring_sleep(&rig->reader, 0));
    assert_corrupt(rig, "head");
}

enum { CALLS = 6000 };

/* Push, wake as every producer does, and push again only when evapid has released the record: a wake that is lost is
 * repaired by nobody. */
static int push_and_wait(struct rig *rig, unsigned producer)
{
    for (uint64_t number = 0; number < CALLS; number++) {
        if (push_numbered_waiting(rig, producer, number) != 0)
            return 1;
        const uint64_t one = 1, end = rig->header->head, sleep = ring_sleeper(rig->header);
        if (sleep != 0) {
            if (write(rig->eventfd, &one, sizeof(one)) != sizeof(one))
                return 1;
            ring_woken(rig->header, sleep);
        }
        while ((int64_t)(atomic_load_explicit(&rig->header->tail, memory_order_acquire) - end) < 0)
            sched_yield();
    }
    return 0;
}

/* Sleep until a producer writes to the eventfd. */
static void sleep_on_eventfd(struct rig *rig)
{
    struct pollfd readable = { .fd = rig->eventfd, .events = POLLIN };
    uint64_t wakes;
    assert_int_equal(poll(&readable, 1, -1), 1);
    assert_int_equal(read(rig->eventfd, &wakes, sizeof(wakes)), sizeof(wakes));
}

static void check_wakes(struct rig *rig, size_t producers)
{
    uint64_t next[CHILDREN] = { 0 };
    size_t taken = 0, sleeps = 0;
    for (size_t i = 0; i < producers; i++)
        rig_fork(rig, i, push_and_wait);
    while (taken < producers * CALLS) {
        struct ring_record record = { 0 };
        const char *why = NULL;
        if (ring_peek(&rig->reader, rig->reader.tail, &record, &why) == RING_RECORD) {
            take_in_order(rig, 1, next);
            taken++;
        } else if (ring_sleep(&rig->reader, rig->reader.tail)) {
            sleep_on_eventfd(rig);
            sleeps++;
        }
    }
    assert_true(sleeps > 0);
    for (size_t i = 0; i < producers; i++)
        rig_join(rig, i);
}

static void test_no_wake_is_lost_by_one_producer(void **state)
{
    check_wakes(*state, 1);
}

static void test_no_wake_is_lost_by_many_producers(void **state)
{
    check_wakes(*state, 4);
}

#define test(name) cmocka_unit_test_setup_teardown(name, open_small, close_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_a_new_ring_is_empty),
        test(test_each_writer_has_its_own_line),
        test(test_a_record_arrives_as_it_was_pushed),
        test(test_a_record_without_tag_and_payload),
        test(test_records_come_in_the_order_of_their_pushes),
        test(test_a_record_wraps_at_every_byte),
        test(test_a_record_at_every_place),
        test(test_many_times_round),
        test(test_positions_pass_the_end_of_64_bits),
        test(test_a_full_ring_refuses),
        test(test_a_refused_record_changes_nothing),
        test(test_room_comes_back_with_release),
        test(test_a_small_record_goes_where_a_larger_one_does_not_fit),
        test(test_the_reserve_is_for_commands),
        cmocka_unit_test(test_the_largest_record_of_each_ring),
        test(test_what_never_fits_is_refused_as_large),
        test(test_a_tag_has_a_limit),
        test(test_a_new_reader_goes_on_where_the_last_released),
        test(test_a_reader_with_its_own_mapping),
        test(test_many_producer_processes),
        test(test_many_producer_threads),
        test(test_a_producer_killed_in_the_middle),
        test(test_a_push_that_stops_at_every_instruction),
        test(test_a_producer_killed_all_over_its_push),
        test(test_producers_killed_at_random),
        test(test_a_lock_that_cannot_be_had),
        test(test_a_header_with_a_wrong_shape),
        test(test_a_header_with_a_wrong_capacity),
        test(test_a_memfd_of_a_wrong_size),
        test(test_a_memfd_without_a_header),
        test(test_a_header_with_impossible_positions),
        test(test_a_head_that_jumps),
        test(test_a_head_that_goes_back),
        test(test_a_head_more_than_a_ring_ahead),
        test(test_a_record_with_a_wrong_size),
        test(test_a_record_with_a_wrong_tag_length),
        test(test_a_record_with_a_wrong_payload_length),
        test(test_a_record_with_a_wrong_type),
        test(test_a_record_without_room_for_its_header),
        test(test_a_ring_scribbled_over),
        test(test_a_ring_scribbled_over_while_it_is_read),
        test(test_a_record_that_turns_bad_at_every_instruction),
        test(test_a_tail_that_lies),
        test(test_a_tail_out_of_range_leaves_no_room),
        test(test_a_reader_keeps_its_own_tail),
        test(test_evapid_sleeps_only_on_an_empty_ring),
        test(test_evapid_sleeps_behind_what_it_has_seen),
        test(test_a_woken_evapid_counts_as_awake),
        test(test_a_late_waker_does_not_end_a_later_sleep),
        test(test_a_new_evapid_s_sleep_is_a_new_one),
        test(test_a_sleep_s_number_is_never_0),
        test(test_a_producer_killed_before_it_woke_evapid),
        test(test_a_push_at_every_instruction_of_falling_asleep),
        test(test_an_impossible_head_keeps_evapid_awake),
        test(test_no_wake_is_lost_by_one_producer),
        test(test_no_wake_is_lost_by_many_producers),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
