/* A state: what was written is read, also by a reader with other fields. Anything else is refused: a part of a state, a
 * version that cannot be read, garbage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/state.h"
#include "events/chunk_state.h"
#include "events/outq.h"
#include "events/run.h"
#include "memory.h"

static unsigned seed = 4711;

/* ---- memory files --------------------------------------------------------------------------------------------------- */

/* The bytes of a state; closes its memfd. The caller frees them. */
static char *bytes_of(int memfd, size_t *length)
{
    assert_true(memfd >= 0);
    *length = (size_t)lseek(memfd, 0, SEEK_END);
    char *bytes = malloc(*length);
    assert_non_null(bytes);
    assert_int_equal(pread(memfd, bytes, *length, 0), (ssize_t)*length);
    close(memfd);
    return bytes;
}

static int memfd_of(const char *bytes, size_t length)
{
    const int memfd = memfd_create("state of a test", MFD_CLOEXEC);
    assert_true(memfd >= 0);
    assert_int_equal(write(memfd, bytes, length), (ssize_t)length);
    return memfd;
}

static struct payload text(const char *of)
{
    return (struct payload){ .part = { of, "" }, .length = { strlen(of), 0 } };
}

/* ---- round trips ---------------------------------------------------------------------------------------------------- */

static void test_numbers_and_bytes_come_back(void **state)
{
    static const uint64_t numbers[] = { 0, 1, 255, 256, 65535, 65536, UINT32_MAX, 1ULL << 32, 1ULL << 56, UINT64_MAX };
    struct state_out out;
    struct state_in in;
    (void)state;
    assert_true(state_begin(&out));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        state_put(&out, "number", numbers[i]);
    state_put_bytes(&out, "hello", "hello\0world", 11);
    state_put_bytes(&out, "nothing", NULL, 0);
    state_put_text(&out, "text", "some");
    state_put(&out, "last", UINT64_MAX);
    assert_null(state_open(&in, state_end(&out)));
    assert_int_equal(in.version, STATE_VERSION);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        assert_int_equal(state_get(&in, "number", 4711), numbers[i]);
    assert_int_equal(state_get(&in, "number", 4711), 4711);
    const struct wire_text hello = state_get_bytes(&in, "hello");
    assert_int_equal(hello.length, 11);
    assert_memory_equal(hello.bytes, "hello\0world", 11);
    assert_int_equal(state_get_bytes(&in, "nothing").length, 0);
    assert_int_equal(state_get_bytes(&in, "text").length, 4);
    assert_int_equal(state_get(&in, "last", 0), UINT64_MAX);
    assert_true(state_finish(&in));
    assert_int_equal(in.unknown_count, 0);
    assert_true(state_close(&in));
    assert_true(state_close(&in)); /* nothing more to do */
}

/* ---- other fields than one knows ------------------------------------------------------------------------------------ */

static void test_what_is_missing_has_a_default(void **state)
{
    struct state_out out;
    struct state_in in;
    bool missing = false;
    (void)state;
    assert_true(state_begin(&out));
    state_put(&out, "first", 1);
    state_put_record(&out, "record");
    state_put_end(&out);
    state_put(&out, "last", 2);
    assert_null(state_open(&in, state_end(&out)));
    assert_int_equal(state_get(&in, "before", 7), 7);
    assert_int_equal(state_get(&in, "first", 7), 1);
    assert_int_equal(state_get_bytes(&in, "bytes").length, 0);
    assert_null(state_get_chunk(&in, "chunk", &missing));
    assert_true(missing);
    state_get_record(&in, "record");
    assert_int_equal(state_get(&in, "last", 7), 7); /* the record's field, not the one outside */
    state_get_end(&in);
    state_get_record(&in, "another"); /* the record is missing, and so is all in it */
    assert_int_equal(state_get(&in, "last", 8), 8);
    state_get_record(&in, "inner");
    assert_false(state_get_next(&in, "last"));
    state_get_end(&in);
    state_get_end(&in);
    assert_false(state_get_next(&in, "list"));
    assert_int_equal(state_get(&in, "last", 7), 2);
    assert_true(state_finish(&in));
    assert_true(state_close(&in));
}

/* Everything that can be in a state, within an unknown record and around it. */
static void put_the_unknown(struct state_out *out, struct chunk *chunk)
{
    state_put(out, "odd", 70000);
    state_put_record(out, "oddity");
    state_put_record(out, "inner");
    state_put_record(out, "empty");
    state_put_end(out);
    state_put_bytes(out, "odd", "12345", 5);
    state_put_end(out);
    state_put(out, "known", 99);
    state_put_end(out);
    state_put_chunk(out, "odd-chunk", chunk);
}

static void assert_unknown(const struct state_in *in, const char *name, size_t bytes)
{
    for (unsigned i = 0; i < in->unknown_count; i++)
        if (strcmp(in->unknown[i].name, name) == 0) {
            assert_int_equal(in->unknown[i].bytes, bytes);
            return;
        }
    fail_msg("%s is not among the unknown", name);
}

static void test_what_is_unknown_is_passed_over_and_noted(void **state)
{
    struct state_out out;
    struct state_in in;
    struct chunk *chunk = chunk_new(1000, 0);
    (void)state;
    assert_true(state_begin(&out));
    put_the_unknown(&out, NULL);
    state_put(&out, "known", 1);
    for (int i = 0; i < 3; i++) {
        state_put_record(&out, "item");
        put_the_unknown(&out, NULL);
        state_put(&out, "known", 2);
        put_the_unknown(&out, NULL);
        state_put_end(&out);
    }
    put_the_unknown(&out, chunk);
    assert_null(state_open(&in, state_end(&out)));
    assert_int_equal(state_get(&in, "known", 0), 1);
    for (int i = 0; i < 3; i++) {
        assert_true(state_get_next(&in, "item"));
        assert_int_equal(state_get(&in, "known", 0), 2);
        state_get_end(&in);
    }
    assert_false(state_get_next(&in, "item"));
    assert_true(state_finish(&in));
    assert_int_equal(in.unknown_count, 6);
    const size_t number = 1 + 3 + 1 + 3; /* "odd" of 70000: length, name, kind, bytes */
    assert_unknown(&in, "odd", 2 * number);
    assert_unknown(&in, "item.odd", 3 * 2 * number);
    const size_t record = 8 + (7 + (7 + 1) + (5 + 8 + 5) + 1) + (7 + 1) + 1;
    assert_unknown(&in, "oddity", 2 * record);
    assert_unknown(&in, "item.oddity", 3 * 2 * record);
    assert_unknown(&in, "item.odd-chunk", 3 * 2 * (1 + 9 + 1 + 1));
    assert_true(state_close(&in));
    chunk_unref(chunk);
}

static void test_a_field_of_another_kind_makes_no_sense(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++)
        for (int taken = 0; taken < 4; taken++) {
            struct state_out out;
            struct state_in in;
            bool missing = false;
            assert_true(state_begin(&out));
            if (kind == 0)
                state_put(&out, "field", 0);
            else if (kind == 1)
                state_put_bytes(&out, "field", "some", 4);
            else
                state_put_record(&out, "field");
            if (kind == 2)
                state_put_end(&out);
            assert_null(state_open(&in, state_end(&out)));
            if (taken == 0)
                state_get(&in, "field", 0);
            else if (taken == 1)
                state_get_bytes(&in, "field");
            else if (taken == 2)
                state_get_record(&in, "field");
            else
                state_get_chunk(&in, "field", &missing);
            assert_int_equal(in.at.failed, taken != kind && !(taken == 3 && kind == 0));
            state_close(&in);
        }
}

static void assert_same_chunk(const struct chunk *a, const struct chunk *b)
{
    assert_int_equal(a->room, b->room);
    assert_int_equal(a->used, b->used);
    assert_int_equal(a->events, b->events);
    assert_memory_equal(a->bytes, b->bytes, a->used);
    assert_int_equal(a->taken_ns, b->taken_ns);
    for (uint32_t i = 0; i < a->events; i++) {
        assert_int_equal(chunk_end_of(a, i).at, chunk_end_of(b, i).at);
        assert_int_equal(chunk_end_of(a, i).age, chunk_end_of(b, i).age);
    }
}

static struct chunk *any_chunk(void)
{
    struct chunk *chunk = chunk_new(1000, 0);
    const struct payload events[] = { text("a"), text("and another one"), text("the third") };
    assert_non_null(chunk);
    for (unsigned i = (unsigned)rand_r(&seed) % 40; i > 0; i--) {
        const struct payload *event = &events[i % 3];
        const size_t size = framing_size(FRAMING_NETSTRING, payload_length(event));
        if (chunk_fits(chunk, size))
            chunk_append(chunk, FRAMING_NETSTRING, event, size);
    }
    return chunk;
}

static void test_chunks_that_are_shared_stay_shared(void **state)
{
    struct state_out out;
    struct state_in in;
    struct chunk *chunks[100];
    (void)state;
    for (size_t i = 0; i < 100; i++)
        chunks[i] = any_chunk();
    for (int turn = 0; turn < 2; turn++) { /* the second state has everything written anew */
        assert_true(state_begin(&out));
        for (size_t i = 0; i < 300; i++)
            state_put_chunk(&out, "chunk", i % 7 == 3 ? NULL : chunks[(i * 31) % 100]);
        assert_null(state_open(&in, state_end(&out)));
        struct chunk *read[100] = { NULL };
        for (size_t i = 0; i < 300; i++) {
            bool missing = true;
            struct chunk *chunk = state_get_chunk(&in, "chunk", &missing);
            assert_false(missing);
            if (i % 7 == 3) {
                assert_null(chunk);
                continue;
            }
            struct chunk **before = &read[(i * 31) % 100];
            if (*before == NULL) {
                *before = chunk;
                assert_same_chunk(chunk, chunks[(i * 31) % 100]);
            }
            assert_ptr_equal(chunk, *before);
            assert_int_equal(chunk->refs, 1);
        }
        for (size_t i = 0; i < 100; i++)
            assert_non_null(read[i]);
        struct chunk *kept = chunk_ref(read[0]);
        assert_true(state_close(&in));
        assert_same_chunk(kept, chunks[0]); /* it outlives the state */
        chunk_unref(kept);
    }
    for (size_t i = 0; i < 100; i++)
        chunk_unref(chunks[i]);
}

static void test_a_state_that_goes_on_behind_its_end_is_not_good(void **state)
{
    struct state_out out;
    struct state_in in;
    size_t length = 0;
    (void)state;
    assert_true(state_begin(&out));
    state_put(&out, "one", 1);
    state_put_end(&out);
    char *bytes = bytes_of(state_end(&out), &length);
    assert_null(state_open(&in, memfd_of(bytes, length)));
    assert_false(state_finish(&in));
    assert_false(state_close(&in));
    assert_null(state_open(&in, memfd_of(bytes, length - 1)));
    assert_true(state_finish(&in));
    assert_true(state_close(&in));
    free(bytes);
}

static void test_what_failed_stays_so(void **state)
{
    struct state_out out;
    struct state_in in;
    bool missing = false;
    (void)state;
    assert_true(state_begin(&out));
    state_put(&out, "one", 1);
    assert_null(state_open(&in, state_end(&out)));
    assert_false(state_fail(&in));
    assert_int_equal(state_get(&in, "one", 0), 0);
    assert_int_equal(state_get_bytes(&in, "one").length, 0);
    assert_null(state_get_chunk(&in, "one", &missing));
    assert_false(state_get_next(&in, "one"));
    state_get_record(&in, "one");
    state_get_end(&in);
    assert_false(state_finish(&in));
    assert_false(state_close(&in));
}

/* ---- what is none --------------------------------------------------------------------------------------------------- */

static void test_what_is_no_state_is_refused(void **state)
{
    struct state_out out;
    struct state_in in;
    size_t length = 0;
    int ends[2];
    (void)state;
    assert_true(state_begin(&out));
    char *bytes = bytes_of(state_end(&out), &length);
    assert_int_equal(length, 17);
    for (size_t i = 0; i < 16; i++)
        assert_string_equal(state_open(&in, memfd_of(bytes, i)), "it is too short");
    for (size_t i = 0; i < 8; i++) {
        bytes[i] ^= 1;
        assert_string_equal(state_open(&in, memfd_of(bytes, 17)), "it is not a state");
        bytes[i] ^= 1;
    }
    assert_null(state_open(&in, memfd_of(bytes, 17)));
    assert_true(state_finish(&in));
    assert_true(state_close(&in));
    free(bytes);
    assert_int_equal(pipe(ends), 0);
    assert_non_null(state_open(&in, ends[0]));
    close(ends[1]);
    assert_non_null(state_open(&in, -1));
}

static int memfd_of_version(uint32_t version, uint32_t reader)
{
    struct state_out out;
    assert_true(state_begin(&out));
    const int memfd = state_end(&out);
    assert_int_equal(pwrite(memfd, &version, 4, 8), 4);
    assert_int_equal(pwrite(memfd, &reader, 4, 12), 4);
    return memfd;
}

static void test_who_writes_says_who_can_read(void **state)
{
    struct state_in in;
    (void)state;
    assert_null(state_open(&in, memfd_of_version(STATE_VERSION + 5, STATE_VERSION)));
    assert_true(state_close(&in));
    assert_string_equal(state_open(&in, memfd_of_version(99, 98)),
                        "it was written by a later version, for 98 or later (format 99; this one is 5)");
    assert_string_equal(state_open(&in, memfd_of_version(STATE_OLDEST - 1, 1)),
                        "it was written by another version, which is too old (format 2; this one reads 3 to 5)");
}

static void test_a_state_that_can_not_be_written_whole_is_none(void **state)
{
    struct rlimit before;
    struct state_out out;
    static const char bytes[100000];
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit small = { .rlim_cur = 50000, .rlim_max = before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_true(state_begin(&out));
    state_put_bytes(&out, "bytes", bytes, sizeof(bytes));
    const int memfd = state_end(&out);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(memfd, -1);
}

/* ---- truncated and corrupted: a run, and queues that stand in it, with events of their own --------------------------- */

#define QUEUES 4

struct stand {
    struct run run;
    struct outq queues[QUEUES];
};

static void relay(struct stand *stand, size_t size)
{
    static char bytes[3 * RUN_CHUNK];
    const struct payload payload = { .part = { bytes, "" }, .length = { size, 0 } };
    memset(bytes, (int)('a' + size % 26), size);
    assert_true(run_append(&stand->run, &payload));
}

static void give(struct stand *stand, size_t first, const char *of)
{
    const struct payload payload = text(of);
    struct chunk *chunk = chunk_of_event(FRAMING_NETSTRING, &payload);
    assert_non_null(chunk);
    for (size_t i = first; i < QUEUES; i++)
        assert_true(outq_push(&stand->queues[i], chunk));
    chunk_unref(chunk);
}

static void settle(struct stand *stand)
{
    for (size_t i = 0; i < QUEUES; i++)
        outq_pin(&stand->queues[i]);
    run_trim(&stand->run);
}

static void open_stand(struct stand *stand)
{
    run_open(&stand->run, FRAMING_NETSTRING);
    for (size_t i = 0; i < QUEUES; i++)
        outq_init(&stand->queues[i], FRAMING_NETSTRING, 1 << 24);
}

/* One queue stands within an event of the first chunk, one in a later chunk; one has pieces; one does not follow. */
static void build_stand(struct stand *stand)
{
    open_stand(stand);
    for (size_t i = 0; i < QUEUES; i++)
        outq_follow(&stand->queues[i], &stand->run);
    relay(stand, 1000);
    for (int i = 0; i < 30; i++)
        relay(stand, 3 + (size_t)i * 7);
    outq_sent(&stand->queues[1], 1050);
    outq_sent(&stand->queues[0], 13);
    give(stand, 2, "for two");
    relay(stand, 80000);
    give(stand, 1, "for three");
    assert_true(outq_leave(&stand->queues[3]));
    relay(stand, 10);
    outq_sent(&stand->queues[2], 3);
    settle(stand);
}

static void close_stand(struct stand *stand)
{
    for (size_t i = 0; i < QUEUES; i++)
        outq_clear(&stand->queues[i]);
    run_close(&stand->run);
}

static int save_stand(const struct stand *stand)
{
    struct state_out out;
    assert_true(state_begin(&out));
    state_put_record(&out, "run");
    run_save(&stand->run, &out);
    state_put_end(&out);
    for (size_t i = 0; i < QUEUES; i++) {
        state_put_record(&out, "queue");
        outq_save(&stand->queues[i], &out);
        state_put_end(&out);
    }
    return state_end(&out);
}

static bool load_stand(struct stand *stand, int memfd)
{
    struct state_in in;
    open_stand(stand);
    if (state_open(&in, memfd) != NULL)
        return false;
    state_get_record(&in, "run");
    bool good = run_load(&stand->run, &in);
    state_get_end(&in);
    for (size_t i = 0; i < QUEUES && good; i++) {
        good = state_get_next(&in, "queue") && outq_load(&stand->queues[i], &in) &&
               outq_resume(&stand->queues[i], &stand->run);
        if (good)
            state_get_end(&in);
    }
    good = good && state_finish(&in);
    return state_close(&in) && good;
}

/* Send everything that waits while the run goes on; returns the bytes and their sum. */
static uint64_t send_all(struct stand *stand, size_t of, size_t at_a_time)
{
    struct outq *q = &stand->queues[of];
    uint64_t sum = 0;
    for (size_t n = 0; !outq_is_empty(q); n++) {
        struct iovec iov;
        assert_int_equal(outq_gather(q, &iov, 1), 1);
        const size_t length = iov.iov_len < at_a_time ? iov.iov_len : at_a_time;
        for (size_t i = 0; i < length; i++)
            sum = sum * 31 + ((const unsigned char *)iov.iov_base)[i];
        outq_sent(q, length);
        outq_pin(q);
    }
    return sum;
}

static void test_queues_go_on_where_they_stood(void **state)
{
    struct stand before;
    struct stand after;
    (void)state;
    build_stand(&before);
    assert_true(load_stand(&after, save_stand(&before)));
    assert_int_equal(after.run.bytes, before.run.bytes);
    assert_int_equal(after.run.followers, before.run.followers);
    for (size_t i = 0; i < QUEUES; i++) {
        assert_int_equal(outq_bytes(&after.queues[i]), outq_bytes(&before.queues[i]));
        assert_int_equal(outq_events(&after.queues[i]), outq_events(&before.queues[i]));
        assert_int_equal(outq_begun(&after.queues[i]), outq_begun(&before.queues[i]));
    }
    for (int turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i < QUEUES; i++) {
            assert_int_equal(outq_collect_given(&after.queues[i]), outq_collect_given(&before.queues[i]));
            assert_int_equal(send_all(&after, i, 777), send_all(&before, i, 1 << 20));
        }
        relay(&before, 500);
        relay(&after, 500);
        give(&before, 0, "for all");
        give(&after, 0, "for all");
    }
    settle(&before);
    settle(&after);
    assert_ptr_equal(after.run.first, after.run.last);
    close_stand(&before);
    close_stand(&after);
}

static void test_every_truncation_is_refused(void **state)
{
    struct stand stand;
    size_t length = 0;
    (void)state;
    build_stand(&stand);
    char *bytes = bytes_of(save_stand(&stand), &length);
    close_stand(&stand);
    for (size_t cut = 0; cut < length; cut += cut < 2000 || cut + 2000 > length ? 1 : 97) {
        assert_false(load_stand(&stand, memfd_of(bytes, cut)));
        close_stand(&stand);
    }
    assert_true(load_stand(&stand, memfd_of(bytes, length)));
    close_stand(&stand);
    free(bytes);
}

/* What can still be read is sound: it can be sent to its end, and more can be appended. */
static bool try_corrupted(const char *bytes, size_t length)
{
    struct stand stand;
    const bool good = load_stand(&stand, memfd_of(bytes, length));
    for (size_t i = 0; i < QUEUES && good; i++) {
        outq_collect_given(&stand.queues[i]);
        outq_events(&stand.queues[i]);
        send_all(&stand, i, 1 << 20);
    }
    if (good) {
        relay(&stand, 100);
        settle(&stand);
    }
    close_stand(&stand);
    return good;
}

static void test_corruption_is_refused_or_does_no_harm(void **state)
{
    struct stand stand;
    size_t length = 0;
    unsigned refused = 0;
    (void)state;
    build_stand(&stand);
    char *bytes = bytes_of(save_stand(&stand), &length);
    close_stand(&stand);
    for (unsigned round = 0; round < 6000; round++) {
        char *corrupted = malloc(length);
        assert_non_null(corrupted);
        memcpy(corrupted, bytes, length);
        for (unsigned n = 1 + (unsigned)rand_r(&seed) % 3; n > 0; n--) {
            /* Numbers are at both ends; between them are payloads, which may contain anything. */
            size_t at = (size_t)rand_r(&seed) % 400;
            at = rand_r(&seed) % 2 == 0 ? at : length - 1 - at;
            corrupted[at] = (char)(rand_r(&seed) % 3 == 0 ? rand_r(&seed) : corrupted[at] ^ (1 << rand_r(&seed) % 8));
        }
        refused += !try_corrupted(corrupted, length);
        free(corrupted);
    }
    assert_in_range(refused, 3000, 6000);
    free(bytes);
}

static void test_a_chunk_is_part_of_one_run_once(void **state)
{
    struct state_out out;
    struct state_in in;
    struct run runs[2];
    struct chunk *chunk = any_chunk();
    (void)state;
    for (int twice = 0; twice < 2; twice++) {
        assert_true(state_begin(&out));
        for (int i = 0; i < 2; i++) {
            state_put_record(&out, "run");
            state_put_chunk(&out, "chunk", chunk);
            if (twice)
                state_put_chunk(&out, "chunk", chunk);
            state_put(&out, "bytes", 10000);
            state_put(&out, "events", 1000);
            state_put_end(&out);
        }
        assert_null(state_open(&in, state_end(&out)));
        for (int i = 0; i < 2; i++)
            run_open(&runs[i], FRAMING_RAW);
        state_get_record(&in, "run");
        assert_int_equal(run_load(&runs[0], &in), !twice);
        state_get_end(&in);
        state_get_record(&in, "run");
        assert_false(run_load(&runs[1], &in));
        for (int i = 0; i < 2; i++)
            run_close(&runs[i]);
        assert_false(state_close(&in));
    }
    chunk_unref(chunk);
}

static void test_without_memory_it_is_refused(void **state)
{
    struct stand stand;
    size_t length = 0;
    long calls = 0;
    (void)state;
    build_stand(&stand);
    char *bytes = bytes_of(save_stand(&stand), &length);
    close_stand(&stand);
    for (bool good = false; !good; calls++) {
        const int memfd = memfd_of(bytes, length);
        memory_limit(calls);
        good = load_stand(&stand, memfd);
        const bool refused = memory_refused() > 0;
        memory_limit(-1);
        assert_int_equal(good, !refused);
        close_stand(&stand);
    }
    assert_in_range(calls, 5, 60);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_and_bytes_come_back),
        cmocka_unit_test(test_chunks_that_are_shared_stay_shared),
        cmocka_unit_test(test_what_is_missing_has_a_default),
        cmocka_unit_test(test_what_is_unknown_is_passed_over_and_noted),
        cmocka_unit_test(test_a_field_of_another_kind_makes_no_sense),
        cmocka_unit_test(test_a_state_that_goes_on_behind_its_end_is_not_good),
        cmocka_unit_test(test_what_failed_stays_so),
        cmocka_unit_test(test_what_is_no_state_is_refused),
        cmocka_unit_test(test_who_writes_says_who_can_read),
        cmocka_unit_test(test_a_state_that_can_not_be_written_whole_is_none),
        cmocka_unit_test(test_queues_go_on_where_they_stood),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_corruption_is_refused_or_does_no_harm),
        cmocka_unit_test(test_a_chunk_is_part_of_one_run_once),
        cmocka_unit_test(test_without_memory_it_is_refused),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
