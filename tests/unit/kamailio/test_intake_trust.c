/* The intake: a ring that turns bad stops it, and one that cannot be trusted is not read at all. */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include "kamailio/intake_rig.h"
#include "memory.h"

/* ---- corrupt rings --------------------------------------------------------------------------------------------------- */

static struct ring_record *record_at(uint64_t at)
{
    return (struct ring_record *)(void *)(ring_records(t.header) + (at & (CAPACITY - 1)));
}

static void spoil_claim_far(struct ring_record *r)
{
    (void)r;
    atomic_store(&t.header->slots[t.slot].claimed, tail() + CAPACITY + RING_ALIGN);
}

static void spoil_claim_odd(struct ring_record *r)
{
    (void)r;
    atomic_fetch_add(&t.header->slots[t.slot].claimed, 4);
}

static void spoil_size_zero(struct ring_record *r)
{
    r->size = 0;
}

static void spoil_size_small(struct ring_record *r)
{
    r->size = sizeof(*r) - RING_ALIGN;
}

static void spoil_size_odd(struct ring_record *r)
{
    r->size += 1;
}

static void spoil_size_beyond_claim(struct ring_record *r)
{
    r->size += RING_ALIGN;
}

static void spoil_size_huge(struct ring_record *r)
{
    r->size = UINT32_MAX - 7;
}

static void spoil_tag(struct ring_record *r)
{
    r->tag_length = EVAPID_TAG_MAX + 1;
}

static void spoil_tag_beyond_record(struct ring_record *r)
{
    r->tag_length = 9;
}

static void spoil_payload(struct ring_record *r)
{
    r->payload_length = 9;
}

static void spoil_payload_huge(struct ring_record *r)
{
    r->payload_length = UINT32_MAX;
}

static void spoil_type_low(struct ring_record *r)
{
    r->type = RING_RELAY - 1;
}

static void spoil_type_high(struct ring_record *r)
{
    r->type = RING_TYPES;
}

#define CLAIM "a claim is out of range"
#define SIZE "a record's size does not fit what was claimed"
#define LENGTH "a record's tag or payload is longer than the record"
#define TYPE "a record has an unknown type"

/* What spoils the last of three records, an event of 4 bytes, or a claim; and why the ring is corrupt then. */
static const struct {
    void (*spoil)(struct ring_record *r);
    const char *why;
} spoils[] = {
    { spoil_claim_far, CLAIM }, { spoil_claim_odd, CLAIM },     { spoil_size_zero, SIZE },
    { spoil_size_small, SIZE }, { spoil_size_odd, SIZE },       { spoil_size_beyond_claim, SIZE },
    { spoil_size_huge, SIZE },  { spoil_tag, LENGTH },          { spoil_tag_beyond_record, LENGTH },
    { spoil_payload, LENGTH },  { spoil_payload_huge, LENGTH }, { spoil_type_low, TYPE },
    { spoil_type_high, TYPE },
};

#define SPOILS (sizeof(spoils) / sizeof(*spoils))

/* A fresh intake that has read its ring's first bytes, and then three records, the last of them spoilt: returns where that
 * one stands. */
static uint64_t spoil(void **state, size_t i, bool held)
{
    tear_down(state);
    set_up(state);
    make_ring(CAPACITY, SEALS);
    start_queue();
    if (!held)
        intake_resume(t.intake);
    push_done(1);
    settle();
    t.count = 0;
    push_done(2);
    push_done(3);
    const uint64_t at = head();
    push_event(4);
    spoils[i].spoil(record_at(at));
    return at;
}

static bool spoils_claim(size_t i)
{
    return strcmp(spoils[i].why, CLAIM) == 0;
}

static void test_a_corrupt_ring_stops_the_queue_with_the_reason(void **state)
{
    for (size_t i = 0; i < SPOILS; i++)
        for (int held = 0; held < 2; held++) {
            const uint64_t at = spoil(state, i, held);
            settle();
            assert_int_equal(t.corrupt, 1);
            assert_string_equal(t.why, spoils[i].why);
            assert_int_equal(t.corrupt_at, spoils_claim(i) ? sizeof(struct ring_record) : at); /* behind the first */
            assert_int_equal(t.intake->state, INTAKE_CORRUPT);
            assert_got(spoils_claim(i) ? "" : held ? "+d2 +d3" : "d2 d3"); /* what stands in front of it was good */
            assert_int_equal(tail(), held ? 0 : t.corrupt_at);             /* and is done with */
        }
}

static void test_a_corrupt_queue_does_nothing_more(void **state)
{
    for (size_t i = 0; i < SPOILS; i++) {
        spoil(state, i, false);
        settle();
        t.count = 0;
        const uint64_t stands = tail();
        intake_hold(t.intake);
        intake_resume(t.intake);
        drain();
        send_wake();
        settle();
        assert_int_equal(t.intake->state, INTAKE_CORRUPT);
        assert_int_equal(t.corrupt, 1);
        assert_int_equal(tail(), stands);
        assert_got("");
    }
}

static void test_a_drain_of_a_corrupt_ring_ends(void **state)
{
    for (size_t i = 0; i < SPOILS; i++)
        for (int held = 0; held < 2; held++) {
            spoil(state, i, held);
            drain();
            assert_got(spoils_claim(i) ? "" : held ? "+d2 +d3" : "d2 d3");
            settle();
            assert_int_equal(t.corrupt, 1);
            assert_string_equal(t.why, spoils[i].why);
        }
}

static void close_now(void)
{
    intake_close(t.intake);
    t.intake = NULL;
}

static void test_a_queue_may_be_closed_when_it_is_found_corrupt(void **state)
{
    for (size_t i = 0; i < SPOILS; i++) {
        spoil(state, i, i % 2 == 0);
        t.on_corrupt = close_now;
        run_closed();
        assert_int_equal(t.corrupt, 1);
        assert_null(t.intake);
    }
}

static void close_at(size_t i)
{
    if (t.got[i].number == 2)
        close_now();
}

static void test_a_queue_may_be_closed_from_within_a_record(void **state)
{
    for (int control = 0; control < 2; control++)
        for (int drained = 0; drained < 2; drained++) {
            tear_down(state);
            set_up(state);
            make_ring(CAPACITY, SEALS);
            start_queue();
            intake_resume(t.intake);
            t.on_record = close_at;
            push_event(1);
            if (control)
                push_close(2);
            else
                push_event(2);
            push_event(3);
            if (drained)
                drain();
            run_closed();
            assert_got(control ? "1 c2" : "1 2");
        }
}

/* Whatever bytes stand in the ring, nothing but whole records within it reach the host, and it ends. The sanitizers
 * watch. */
static void test_random_bytes_in_the_ring_do_no_harm(void **state)
{
    unsigned seed = 77;
    unsigned corrupt = 0;
    size_t come = 0;
    for (unsigned round = 0; round < 300; round++) {
        tear_down(state);
        set_up(state);
        make_ring(CAPACITY, SEALS);
        start_queue();
        if (rand_r(&seed) % 2 == 0)
            intake_resume(t.intake);
        for (uint32_t n = 0; n < 100; n++)
            push_event_of(n, 4 + (size_t)rand_r(&seed) % 200);
        for (unsigned changes = 1 + (unsigned)rand_r(&seed) % 8; changes > 0; changes--) {
            const uint64_t at = (uint64_t)rand_r(&seed) % head();
            ring_records(t.header)[rand_r(&seed) % 2 == 0 ? at : at & ~(uint64_t)7] = (unsigned char)rand_r(&seed);
        }
        if (rand_r(&seed) % 8 == 0)
            atomic_store(&t.header->slots[t.slot].claimed, (uint64_t)rand_r(&seed) % (2 * CAPACITY));
        settle();
        for (size_t i = 0; i < t.count; i++) {
            assert_in_range(t.got[i].record.type, RING_RELAY, RING_TYPES - 1);
            assert_true(t.got[i].record.payload_length < CAPACITY);
        }
        corrupt += t.corrupt;
        come += t.count;
    }
    assert_true(corrupt > 20 && corrupt < 300 && come > 1000);
}

/* ---- what is refused ------------------------------------------------------------------------------------------------- */

static void assert_refused(const char *expected)
{
    const char *why = try_queue();
    assert_non_null(why);
    assert_string_equal(why, expected);
}

#define UNSEALED "its memory is not sealed against a change of size"
#define NO_SIZE "its memory is of no size that a ring can have"

static void test_memory_that_could_change_its_size_is_refused(void **state)
{
    static const int seals[] = {
        0, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK | F_SEAL_SEAL, F_SEAL_GROW | F_SEAL_SEAL
    };
    for (size_t i = 0; i < sizeof(seals) / sizeof(*seals); i++) {
        tear_down(state);
        set_up(state);
        make_ring(CAPACITY, seals[i]);
        assert_refused(UNSEALED);
    }
}

/* Both seals are what evapid needs; the third is the module's own. */
static void test_memory_that_is_sealed_against_shrinking_and_growing_is_taken(void **state)
{
    tear_down(state);
    set_up(state);
    make_ring(CAPACITY, F_SEAL_SHRINK | F_SEAL_GROW);
    start_queue();
    intake_resume(t.intake);
    push_event(1);
    settle();
    assert_got("1");
}

static void replace_memfd(int fd)
{
    assert_true(fd >= 0);
    dup2(fd, t.memfd);
    close(fd);
}

static void test_what_is_no_memory_is_refused(void **state)
{
    int ends[2];
    (void)state;
    stop_queue();
    replace_memfd(open("/dev/null", O_RDWR | O_CLOEXEC));
    assert_refused(UNSEALED);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    close(ends[1]);
    replace_memfd(ends[0]);
    assert_refused(UNSEALED);
    replace_memfd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
    assert_refused(UNSEALED);
}

static void replace_memory(off_t size)
{
    const int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, size), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALS), 0);
    replace_memfd(fd);
}

static void test_memory_of_an_impossible_size_is_refused(void **state)
{
    (void)state;
    stop_queue();
    replace_memory(0);
    assert_refused(NO_SIZE);
    replace_memory(1);
    assert_refused(NO_SIZE);
    replace_memory((off_t)ring_bytes(EVAPID_RING_MIN) - 1);
    assert_refused(NO_SIZE);
    replace_memory((off_t)ring_bytes(EVAPID_RING_MAX) + 1); /* sparse: it takes no memory */
    assert_refused(NO_SIZE);
    replace_memory((off_t)1 << 46);
    assert_refused(NO_SIZE);
    for (off_t pages = 1; pages <= 512; pages++) { /* as much memory as huge pages of any machine make up */
        replace_memory(pages << 21);
        assert_refused(NO_SIZE);
    }
    replace_memory((off_t)ring_bytes(EVAPID_RING_MIN)); /* a size that would do, but nothing in it */
    assert_refused("not a ring of evapid's");
}

/* Its header has another size, so the whole has none that a ring of ours can have. */
static void test_a_ring_of_another_version_is_refused_as_such(void **state)
{
    (void)state;
    stop_queue();
    static const uint32_t versions[] = { 0, RING_VERSION - 1, RING_VERSION + 1, UINT32_MAX };
    static const off_t sizes[] = { 16, 4096, (off_t)EVAPID_RING_MIN + 4096, (off_t)RING_DATA_OFFSET + CAPACITY - 4096 };
    for (size_t i = 0; i < sizeof(versions) / sizeof(*versions); i++)
        for (size_t j = 0; j < sizeof(sizes) / sizeof(*sizes); j++) {
            const struct ring_start start = { .magic = RING_MAGIC, .version = versions[i] };
            replace_memory(sizes[j]);
            assert_int_equal(pwrite(t.memfd, &start, sizeof(start), 0), sizeof(start));
            assert_refused(RING_OTHER_VERSION);
        }
}

static void test_memory_that_cannot_be_written_is_refused(void **state)
{
    (void)state;
    stop_queue();
    const int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, (off_t)ring_bytes(CAPACITY)), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_WRITE), 0);
    replace_memfd(fd);
    assert_refused(strerror(EPERM));
}

static void test_a_header_that_is_wrong_is_refused(void **state)
{
    (void)state;
    stop_queue();
    t.header->magic ^= 1;
    assert_refused("not a ring of evapid's");
    t.header->magic ^= 1;
    t.header->version++;
    assert_refused(RING_OTHER_VERSION);
    t.header->version--;
    static const uint64_t capacities[] = { 0, CAPACITY / 2, CAPACITY * 2, CAPACITY - 1, CAPACITY + 8, UINT64_MAX };
    for (size_t i = 0; i < sizeof(capacities) / sizeof(*capacities); i++) {
        t.header->capacity = capacities[i];
        assert_refused("the ring's capacity does not fit its size");
    }
    t.header->capacity = CAPACITY;
    static const uint64_t positions[][2] = { /* claimed and tail */
                                             { 4, 0 },
                                             { 8, 4 },
                                             { CAPACITY + 8, 0 }
    };
    for (size_t i = 0; i < sizeof(positions) / sizeof(*positions); i++) {
        atomic_store(&t.header->slots[t.slot].claimed, positions[i][0]);
        atomic_store(&t.header->tail, positions[i][1]);
        assert_refused("the ring's claims and tail do not fit each other");
    }
    atomic_store(&t.header->slots[t.slot].claimed, 0);
    atomic_store(&t.header->tail, 0);
    start_queue();
}

static void replace_wake(int fd)
{
    assert_true(fd >= 0);
    dup2(fd, t.wake_fd);
    close(fd);
}

/* A terminal, whose reader waits for a line when others have made it one that waits. */
static int open_terminal(void)
{
    const int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    return master;
}

static int open_pipe(void)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    close(ends[1]);
    return ends[0];
}

static int open_pair(int type)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends), 0);
    close(ends[0]);
    return ends[1];
}

/* What reading it would do, or how long closing it takes, is another's to say. */
static void test_a_wake_that_is_none_is_refused(void **state)
{
    (void)state;
    stop_queue();
    const int others[] = { memfd_create("file", MFD_CLOEXEC),
                           open("/dev/null", O_RDWR | O_CLOEXEC),
                           open("/dev/zero", O_RDWR | O_CLOEXEC),
                           eventfd(0, EFD_CLOEXEC),
                           timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC),
                           open_pipe(),
                           open_terminal(),
                           open_pair(SOCK_STREAM),
                           open_pair(SOCK_SEQPACKET),
                           socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                           socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) };
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        replace_wake(others[i]);
        assert_refused("its wake is no Unix datagram socket");
    }
}

static void test_a_wake_that_was_shut_down_before_is_refused(void **state)
{
    (void)state;
    stop_queue();
    assert_int_equal(shutdown(t.wake_fd, SHUT_RD), 0);
    assert_refused("its wake has been shut down: restart Kamailio");
}

/* Whoever has the other end, or this one, can shut it: it would then be readable for ever. */
static void test_a_wake_that_has_been_shut_down_stops_the_queue(void **state)
{
    (void)state;
    intake_resume(t.intake);
    settle();
    assert_int_equal(shutdown(t.wake_fd, SHUT_RDWR), 0);
    settle();
    assert_int_equal(t.corrupt, 1);
    assert_string_equal(t.why, "its wake has been shut down");
    assert_int_equal(t.intake->state, INTAKE_CORRUPT);
}

/* Made to block again, and read before evapid could: there is nothing to be read, and nothing is waited for. */
static void test_a_wake_that_blocks_again_and_is_empty_is_not_waited_for(void **state)
{
    (void)state;
    intake_resume(t.intake);
    settle();
    assert_int_equal(fcntl(t.wake_fd, F_SETFL, 0), 0);
    alarm(30); /* it would wait for ever */
    t.intake->wake.poll_cb(&t.intake->wake, 0, UV_READABLE);
    alarm(0);
    assert_int_equal(t.corrupt, 0);
    push_event(1);
    settle();
    assert_got("1");
}

/* Kamailio's processes end, the ring is read to its end, and its wake says nothing more. */
static void test_a_wake_whose_other_end_is_closed_is_quiet(void **state)
{
    (void)state;
    push_event(1);
    dup2(STDERR_FILENO, t.wake_end);
    intake_resume(t.intake);
    settle();
    assert_got("1");
    assert_int_equal(t.corrupt, 0);
    assert_int_equal(uv_run(&t.loop, UV_RUN_NOWAIT) != 0, 1);
}

/* What lies unread in it is many wakes at once: they cost one look at the ring each, and are gone then. */
static void test_a_wake_that_is_full_is_emptied(void **state)
{
    (void)state;
    intake_resume(t.intake);
    settle();
    while (send(t.wake_end, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
        continue;
    settle();
    char byte = 0;
    assert_int_equal(recv(t.wake_fd, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(t.corrupt, 0);
}

static void test_without_memory_a_ring_is_refused(void **state)
{
    (void)state;
    stop_queue();
    memory_limit(0);
    const char *why = try_queue();
    memory_limit(-1);
    assert_non_null(why);
    assert_string_equal(why, "no memory");
    start_queue();
}

static void test_closing_closes_both_descriptors(void **state)
{
    (void)state;
    stop_queue();
    const int lowest = dup(0);
    close(lowest);
    for (int i = 0; i < 10; i++) {
        start_queue();
        stop_queue();
    }
    const int now = dup(0);
    close(now);
    assert_int_equal(now, lowest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_QUEUE(test_a_corrupt_ring_stops_the_queue_with_the_reason),
        WITH_QUEUE(test_a_corrupt_queue_does_nothing_more),
        WITH_QUEUE(test_a_drain_of_a_corrupt_ring_ends),
        WITH_QUEUE(test_a_queue_may_be_closed_when_it_is_found_corrupt),
        WITH_QUEUE(test_a_queue_may_be_closed_from_within_a_record),
        WITH_QUEUE(test_random_bytes_in_the_ring_do_no_harm),
        WITH_QUEUE(test_memory_that_could_change_its_size_is_refused),
        WITH_QUEUE(test_memory_that_is_sealed_against_shrinking_and_growing_is_taken),
        WITH_QUEUE(test_what_is_no_memory_is_refused),
        WITH_QUEUE(test_memory_of_an_impossible_size_is_refused),
        WITH_QUEUE(test_a_ring_of_another_version_is_refused_as_such),
        WITH_QUEUE(test_memory_that_cannot_be_written_is_refused),
        WITH_QUEUE(test_a_header_that_is_wrong_is_refused),
        WITH_QUEUE(test_a_wake_that_is_none_is_refused),
        WITH_QUEUE(test_a_wake_that_was_shut_down_before_is_refused),
        WITH_QUEUE(test_a_wake_that_has_been_shut_down_stops_the_queue),
        WITH_QUEUE(test_a_wake_that_blocks_again_and_is_empty_is_not_waited_for),
        WITH_QUEUE(test_a_wake_whose_other_end_is_closed_is_quiet),
        WITH_QUEUE(test_a_wake_that_is_full_is_emptied),
        WITH_QUEUE(test_without_memory_a_ring_is_refused),
        WITH_QUEUE(test_closing_closes_both_descriptors),
    };
    return cmocka_run_group_tests_name("intake, trust", tests, NULL, NULL);
}
