/* Waits: the histogram counts each sent event once, with the time that it spent in evapid. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/state.h"
#include "events/chunk_state.h"
#include "events/outq.h"
#include "events/waits.h"

#define UNIT CHUNK_AGE_NS

static struct histogram histogram;
static struct waits waits = { .histogram = &histogram };

static int begin(void **state)
{
    (void)state;
    histogram = (struct histogram){ .sum_ns = 0 };
    return 0;
}

static uint64_t count_of(const struct histogram *of)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += of->counts[i];
    return count;
}

static void append(struct chunk *chunk, size_t size, uint64_t taken_ns)
{
    static const char bytes[4096];
    const struct payload payload = { .part = { bytes, bytes }, .length = { size, 0 }, .taken_ns = taken_ns };
    assert_true(chunk_fits(chunk, size));
    chunk_append(chunk, FRAMING_RAW, &payload, size);
}

/* Events of one turn and of several. For each range of events, the sum is that of their waits. */
static void test_each_event_between_two_others_counts_with_its_own_age(void **state)
{
    (void)state;
    static const uint64_t taken[] = { 5, 5, 5, 9, 20, 20, 21, 21, 21, 21, 40, 41 };
    enum { EVENTS = sizeof(taken) / sizeof(*taken) };
    struct chunk *chunk = chunk_new(4096, 1);
    assert_non_null(chunk);
    for (unsigned i = 0; i < EVENTS; i++)
        append(chunk, 10, taken[i] * UNIT);
    waits.now_ns = 100 * UNIT;
    for (unsigned first = 0; first <= EVENTS; first++)
        for (unsigned end = first; end <= EVENTS; end++) {
            uint64_t sum = 0;
            for (unsigned i = first; i < end; i++)
                sum += (100 - taken[i]) * UNIT;
            begin(NULL);
            chunk_note_waits(chunk, first, end, &waits);
            assert_int_equal(count_of(&histogram), end - first);
            assert_true(histogram.sum_ns == sum);
        }
    chunk_unref(chunk);
}

static void test_a_time_before_the_first_or_far_after_it_does_no_harm(void **state)
{
    (void)state;
    struct chunk *chunk = chunk_new(4096, 1);
    assert_non_null(chunk);
    append(chunk, 1, 1000 * UNIT);
    append(chunk, 1, 1); /* counts as taken with the first */
    append(chunk, 1, UINT64_MAX);
    assert_int_equal(chunk_end_of(chunk, 1).age, 0);
    assert_int_equal(chunk_end_of(chunk, 2).age, UINT32_MAX);
    waits.now_ns = 1001 * UNIT;
    chunk_note_waits(chunk, 0, 3, &waits);
    assert_int_equal(count_of(&histogram), 3);
    assert_true(histogram.sum_ns == 2 * UNIT);
    chunk_unref(chunk);
}

/* An event without a time counts as taken at this moment. */
static void test_an_event_without_a_time_counts_as_taken_now(void **state)
{
    (void)state;
    struct chunk *chunk = chunk_new(4096, 1);
    assert_non_null(chunk);
    const uint64_t before = histogram_clock_ns();
    append(chunk, 1, 0);
    assert_true(chunk->taken_ns >= before && chunk->taken_ns <= histogram_clock_ns());
    chunk_unref(chunk);
}

/* A slow client's queue keeps a part of a chunk, and a successor reads a whole one. Both keep the ages, and for whom it is. */
static void test_a_part_and_a_successor_s_chunk_have_the_same_ages_and_receivers(void **state)
{
    (void)state;
    struct state_out out;
    struct state_in in;
    struct chunk *chunk = chunk_new(4096, 1);
    assert_non_null(chunk);
    for (uint64_t i = 0; i < 20; i++)
        append(chunk, 10, (7 + i / 3) * UNIT);
    chunk_mark(chunk, CHUNK_FOR_ONE, 4711);
    uint32_t from = 55;
    uint32_t to = 120;
    struct chunk *part = chunk_part(chunk, &from, &to);
    assert_non_null(part);
    assert_true(state_begin(&out));
    state_put_chunk(&out, "chunk", chunk);
    assert_null(state_open(&in, state_end(&out)));
    bool missing = true;
    struct chunk *successor = state_get_chunk(&in, "chunk", &missing);
    assert_non_null(successor);
    assert_true(part->meant_for == CHUNK_FOR_ONE && part->tag_hash == 4711);
    assert_true(successor->meant_for == CHUNK_FOR_ONE && successor->tag_hash == 4711);
    waits.now_ns = 50 * UNIT;
    chunk_note_waits(chunk, 5, 12, &waits);
    const struct histogram whole = histogram;
    begin(NULL);
    chunk_note_waits(part, 0, 7, &waits);
    assert_memory_equal(&histogram, &whole, sizeof(whole));
    begin(NULL);
    chunk_note_waits(successor, 5, 12, &waits);
    assert_memory_equal(&histogram, &whole, sizeof(whole));
    assert_true(state_close(&in));
    chunk_unref(part);
    chunk_unref(chunk);
}

/* Send a queue a few bytes at a time, from pieces and from the run behind them. Compare the histogram with one that
 * counts each event by itself. */
static void test_a_queue_notes_each_event_when_its_last_byte_is_sent(void **state)
{
    (void)state;
    enum { EVENTS = 3000, SIZE = 97 };
    static char bytes[SIZE];
    struct run run;
    struct outq q;
    run_open(&run, FRAMING_RAW);
    outq_init(&q, FRAMING_RAW, 1U << 20);
    q.waits = &waits;
    outq_follow(&q, &run);
    for (uint64_t i = 0; i < EVENTS; i++) {
        const struct payload payload = { .part = { bytes, bytes },
                                         .length = { SIZE, 0 },
                                         .taken_ns = (100 + i / 7) * UNIT };
        if (i % 500 != 499) {
            assert_true(run_append(&run, &payload));
            continue;
        }
        struct chunk *chunk = chunk_of_event(FRAMING_RAW, &payload);
        assert_true(chunk != NULL && outq_push(&q, chunk));
        chunk_unref(chunk);
    }
    struct histogram expected = { .sum_ns = 0 };
    uint64_t left = 0;
    for (size_t sent = 0; sent < EVENTS * SIZE;) {
        const size_t now = sent + 1013 < EVENTS * SIZE ? 1013 : EVENTS * SIZE - sent;
        sent += now;
        waits.now_ns = (1000 + sent) * UNIT;
        for (; (left + 1) * SIZE <= sent; left++)
            histogram_add(&expected, waits.now_ns - (100 + left / 7) * UNIT, 1);
        outq_sent(&q, now);
        assert_int_equal(count_of(&histogram), left);
    }
    assert_memory_equal(&histogram, &expected, sizeof(expected));
    assert_true(outq_is_empty(&q) && count_of(&histogram) == EVENTS);
    outq_clear(&q);
    run_close(&run);
}

static void test_the_clock_is_read_for_the_first_of_some_sends(void **state)
{
    (void)state;
    struct waits own = { .histogram = &histogram };
    waits_sent(&own);
    const uint64_t first = own.now_ns;
    assert_true(first > 0);
    for (unsigned i = 1; i < WAITS_USES; i++) {
        waits_sent(&own);
        assert_true(own.now_ns == first);
    }
    own.now_ns = 0;
    waits_sent(&own);
    assert_true(own.now_ns >= first);
    own.now_ns = 0;
    waits_refresh(&own);
    waits_sent(&own);
    assert_true(own.now_ns >= first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_each_event_between_two_others_counts_with_its_own_age, begin),
        cmocka_unit_test_setup(test_a_time_before_the_first_or_far_after_it_does_no_harm, begin),
        cmocka_unit_test_setup(test_an_event_without_a_time_counts_as_taken_now, begin),
        cmocka_unit_test_setup(test_a_part_and_a_successor_s_chunk_have_the_same_ages_and_receivers, begin),
        cmocka_unit_test_setup(test_a_queue_notes_each_event_when_its_last_byte_is_sent, begin),
        cmocka_unit_test_setup(test_the_clock_is_read_for_the_first_of_some_sends, begin),
    };
    return cmocka_run_group_tests_name("waits", tests, NULL, NULL);
}
