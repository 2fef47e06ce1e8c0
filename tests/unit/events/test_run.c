/* Runs: events one after the other over many chunks, what a run keeps at the end of a turn, and for which followers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "events/run.h"
#include "memory.h"

#define LARGEST (3 * RUN_CHUNK)
#define WHOLE (RUN_CHUNK - sizeof(struct chunk_end)) /* bytes of an event that fills a chunk */

/* Byte i of the stream. */
static char byte_at(uint64_t i)
{
    return (char)(i * 31 + i / 251);
}

/* Try to append a raw event: the next size bytes of the stream. */
static bool try_append(struct run *run, size_t size)
{
    static char bytes[LARGEST];
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_at(run->bytes + i);
    const size_t first = size / 2;
    const struct payload payload = { .part = { bytes, bytes + first }, .length = { first, size - first } };
    return run_append(run, &payload);
}

static void append(struct run *run, size_t size)
{
    const uint64_t bytes = run->bytes;
    const uint64_t events = run->events;
    assert_true(try_append(run, size));
    assert_int_equal(run->bytes, bytes + size);
    assert_int_equal(run->events, events + 1);
    assert_ptr_equal(run_find(run, NULL, bytes), run->last);
}

/* Append events that fill so many chunks. */
static void append_chunks(struct run *run, unsigned chunks)
{
    for (unsigned i = 0; i < chunks; i++)
        append(run, WHOLE);
}

static unsigned kept(const struct run *run)
{
    unsigned chunks = 0;
    for (const struct chunk *chunk = run->first; chunk != NULL; chunk = chunk->next)
        chunks++;
    return chunks;
}

static unsigned spares(const struct run *run)
{
    unsigned chunks = 0;
    for (const struct chunk *chunk = run->spare; chunk != NULL; chunk = chunk->next)
        chunks++;
    assert_int_equal(chunks, run->spares);
    return chunks;
}

/* From the pin on, or from the mark on if there is none, the run has the stream without a gap. Returns its bytes. */
static uint64_t assert_stream(const struct run *run, struct chunk *pin)
{
    uint64_t position = pin != NULL ? pin->first_byte : run->mark;
    uint64_t events = 0;
    const uint64_t begin = position;
    for (struct chunk *chunk = run_find(run, pin, position); chunk != NULL; chunk = run_find(run, pin, position)) {
        assert_true(position == chunk->first_byte || position == begin);
        assert_true(position == begin || chunk->first_event == events);
        for (uint64_t i = position - chunk->first_byte; i < chunk->used; i++)
            if (chunk->bytes[i] != byte_at(chunk->first_byte + i))
                fail_msg("byte %llu of the stream is wrong", (unsigned long long)(chunk->first_byte + i));
        events = chunk->first_event + chunk->events;
        position = chunk->first_byte + chunk->used;
    }
    assert_int_equal(position, run->bytes);
    if (position > begin)
        assert_int_equal(events, run->events);
    return position - begin;
}

static int open_run(void **state)
{
    static struct run run;
    memory_limit(-1);
    run_open(&run, FRAMING_RAW);
    *state = &run;
    return 0;
}

static int close_run(void **state)
{
    struct run *run = *state;
    memory_limit(-1);
    run_close(run);
    return run->first != NULL || run->last != NULL || run->marked != NULL || run->spare != NULL || run->spares != 0;
}

/* ---- appending ----------------------------------------------------------------------------------------------------- */

static void test_a_new_run_is_empty(void **state)
{
    struct run *run = *state;
    assert_int_equal(run->framing, FRAMING_RAW);
    assert_null(run->first);
    assert_int_equal(run->bytes, 0);
    assert_int_equal(run->followers, 0);
    assert_true(run->review_at == UINT64_MAX);
    assert_null(run_find(run, NULL, 0));
    run_trim(run);
    run_trim(run);
    assert_null(run->first);
    append(run, 1);
}

static void test_a_run_frames_what_is_appended(void **state)
{
    (void)state;
    struct run run;
    const struct payload hello = { .part = { "hel", "lo" }, .length = { 3, 2 } };
    const struct payload empty = { .part = { "", "" } };
    run_open(&run, FRAMING_NETSTRING);
    assert_true(run_append(&run, &hello));
    assert_true(run_append(&run, &empty));
    assert_int_equal(run.bytes, 11);
    assert_int_equal(run.events, 2);
    assert_memory_equal(run.first->bytes, "5:hello,0:,", 11);
    run_close(&run);
}

/* The end of a chunk never cuts an event: an event that does not fit begins the next chunk. */
static void test_events_go_on_over_the_ends_of_chunks(void **state)
{
    struct run *run = *state;
    unsigned seed = 9;
    for (unsigned i = 0; i < 3000; i++) {
        const size_t size = 1 + (size_t)rand_r(&seed) % (rand_r(&seed) % 10 == 0 ? 20000 : 500);
        const struct chunk *last = run->last;
        const bool fits = last != NULL && chunk_fits(last, size);
        append(run, size);
        assert_int_equal(run->last == last, fits);
    }
    assert_true(kept(run) > 20);
    uint64_t events = 0;
    for (const struct chunk *chunk = run->first; chunk != NULL; chunk = chunk->next) {
        assert_int_equal(chunk->room, RUN_CHUNK);
        assert_int_equal(chunk->first_event, events);
        events += chunk->events;
    }
    assert_int_equal(events, 3000);
    assert_int_equal(assert_stream(run, run->first), run->bytes);
}

static void test_an_event_larger_than_a_chunk_gets_one_of_its_own(void **state)
{
    static const size_t sizes[] = { WHOLE, WHOLE + 1, RUN_CHUNK, RUN_CHUNK + 1, LARGEST };
    struct run *run = *state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        append(run, 10);
        append(run, sizes[i]);
        assert_int_equal(run->last->used, sizes[i]);
        assert_int_equal(run->last->events, 1);
        assert_int_equal(run->last->room == RUN_CHUNK, sizes[i] == WHOLE);
        append(run, 10);
        assert_int_equal(run->last->used, 10);
    }
    assert_int_equal(kept(run), 11); /* the event after a large one shares its chunk with the one before the next */
    assert_int_equal(assert_stream(run, run->first), run->bytes);
}

static void test_a_chunk_is_found_for_every_position(void **state)
{
    struct run *run = *state;
    for (unsigned i = 0; i < 40; i++)
        append(run, 1 + i * 577 % 20011);
    assert_true(kept(run) >= 6);
    for (struct chunk *pin = run->first; pin != NULL; pin = pin->next)
        for (uint64_t position = pin->first_byte; position < run->bytes; position++) {
            const struct chunk *chunk = run_find(run, pin, position);
            assert_true(chunk->first_byte <= position && position - chunk->first_byte < chunk->used);
        }
    assert_null(run_find(run, run->first, run->bytes));
    assert_null(run_find(run, NULL, run->bytes));
}

static void test_without_memory_nothing_is_appended(void **state)
{
    struct run *run = *state;
    for (int before = 0; before < 2; before++) {
        const struct run was = *run;
        memory_limit(0);
        const bool appended = try_append(run, WHOLE);
        memory_limit(-1);
        assert_false(appended);
        assert_memory_equal(run, &was, sizeof(was));
        append(run, 10);
        memory_limit(0);
        append(run, 10); /* it fits into the chunk that is there */
        memory_limit(-1);
    }
    assert_int_equal(assert_stream(run, run->first), 40);
}

/* ---- the end of a turn --------------------------------------------------------------------------------------------- */

/* No queue waits for the chunk, so the next turn writes into it from the start. Positions continue. */
static void test_a_turn_writes_where_the_last_one_did(void **state)
{
    struct run *run = *state;
    append(run, 10);
    const struct chunk *chunk = run->first;
    memory_limit(0);
    for (unsigned turn = 0; turn < 1000; turn++) {
        const uint64_t begin = run->bytes;
        run_trim(run);
        assert_int_equal(run->mark, begin);
        assert_ptr_equal(run->first, chunk);
        assert_int_equal(chunk->used, 0);
        assert_int_equal(chunk->events, 0);
        assert_int_equal(chunk->first_byte, begin);
        assert_int_equal(chunk->first_event, run->events);
        assert_null(run_find(run, NULL, run->bytes));
        for (unsigned i = 0; i <= turn % 7; i++)
            append(run, 1 + turn);
        assert_int_equal(assert_stream(run, NULL), (turn % 7 + 1) * (1 + turn));
    }
    assert_int_equal(kept(run), 1);
}

/* A turn like the one before allocates nothing, even if it needs several chunks. */
static void test_chunks_of_a_turn_are_there_for_the_next(void **state)
{
    struct run *run = *state;
    append_chunks(run, 5);
    run_trim(run);
    assert_int_equal(kept(run), 1);
    assert_int_equal(spares(run), 4);
    for (unsigned turn = 0; turn < 20; turn++) {
        memory_limit(0);
        append_chunks(run, 5);
        const bool more = try_append(run, 1);
        memory_limit(-1);
        assert_false(more);
        assert_int_equal(spares(run), 0);
        assert_int_equal(assert_stream(run, NULL), 5 * WHOLE);
        run_trim(run);
        assert_int_equal(spares(run), 4);
    }
}

static void test_no_more_chunks_are_kept_than_a_turn_is_likely_to_need(void **state)
{
    struct run *run = *state;
    append_chunks(run, 40);
    run_trim(run);
    assert_int_equal(kept(run), 1);
    assert_in_range(spares(run), 4, 16);
    const unsigned most = spares(run);
    append_chunks(run, 40);
    run_trim(run);
    assert_int_equal(spares(run), most);
}

/* A chunk of an unusual size would keep more memory than the next turn needs. */
static void test_a_large_chunk_is_not_kept(void **state)
{
    struct run *run = *state;
    append(run, LARGEST);
    run_trim(run);
    assert_null(run->first);
    assert_null(run->last);
    assert_null(run->marked);
    assert_int_equal(spares(run), 0);
    append(run, LARGEST);
    append(run, 10);
    append(run, LARGEST);
    append(run, 10);
    run_trim(run);
    assert_int_equal(kept(run), 1);
    assert_int_equal(spares(run), 1);
    append(run, LARGEST); /* too large for a spare chunk */
    assert_int_equal(spares(run), 1);
    assert_int_equal(assert_stream(run, NULL), LARGEST);
}

/* ---- clients that are behind --------------------------------------------------------------------------------------- */

static struct chunk *chunk_number(const struct run *run, unsigned number)
{
    struct chunk *chunk = run->first;
    while (number-- > 0)
        chunk = chunk->next;
    return chunk;
}

/* The run keeps everything from the first pinned chunk on, however many turns pass, and nothing before it. */
static void test_a_pin_keeps_its_chunk_and_all_behind_it(void **state)
{
    struct run *run = *state;
    for (unsigned number = 0; number < 5; number++) {
        append_chunks(run, 5);
        struct chunk *pin = chunk_number(run, number);
        const uint64_t begin = pin->first_byte;
        pin->pins++;
        for (unsigned turn = 0; turn < 3; turn++) {
            run_trim(run);
            assert_ptr_equal(run->first, pin);
            assert_int_equal(pin->first_byte, begin);
            assert_int_equal(assert_stream(run, pin), run->bytes - begin);
            assert_int_equal(assert_stream(run, NULL), 0);
            append(run, WHOLE);
            assert_int_equal(assert_stream(run, NULL), WHOLE);
        }
        assert_int_equal(kept(run), 5 - number + 3);
        pin->pins--;
        run_trim(run);
        assert_int_equal(kept(run), 1);
        assert_int_equal(run->first->used, 0);
    }
}

static void test_the_first_of_two_pins_counts(void **state)
{
    struct run *run = *state;
    append_chunks(run, 6);
    struct chunk *behind = chunk_number(run, 1);
    struct chunk *ahead = chunk_number(run, 4);
    behind->pins++;
    ahead->pins += 2;
    run_trim(run);
    assert_int_equal(kept(run), 5);
    behind->pins--;
    run_trim(run);
    assert_ptr_equal(run->first, ahead);
    assert_int_equal(kept(run), 2);
    ahead->pins--;
    run_trim(run);
    assert_ptr_equal(run->first, ahead);
    ahead->pins--;
    run_trim(run);
    assert_int_equal(kept(run), 1);
}

/* The next turn appends to the pinned chunk. */
static void test_the_next_turn_appends_to_a_pinned_chunk(void **state)
{
    struct run *run = *state;
    append(run, 100);
    struct chunk *chunk = run->first;
    chunk->pins++;
    run_trim(run);
    assert_int_equal(chunk->used, 100);
    append(run, 50);
    assert_ptr_equal(run->last, chunk);
    assert_ptr_equal(run_find(run, NULL, 100), chunk); /* as for a queue at the mark, which has no pin */
    assert_int_equal(assert_stream(run, chunk), 150);
    append(run, WHOLE);
    append(run, 1);
    assert_int_equal(assert_stream(run, NULL), 50 + WHOLE + 1);
    chunk->pins--;
    run_trim(run);
    assert_int_equal(kept(run), 1);
}

/* A queue has made a piece of the chunk. The run gives up the chunk when it is full. Until the queue gives it up too,
 * the run only appends after the piece. */
static void test_a_piece_is_never_written_over(void **state)
{
    struct run *run = *state;
    for (unsigned number = 0; number < 3; number++) {
        append_chunks(run, 2);
        append(run, 100);
        struct chunk *held = chunk_ref(chunk_number(run, number));
        const uint64_t begin = held->first_byte;
        const uint32_t used = held->used;
        run_trim(run);
        assert_int_equal(held->refs, number < 2 ? 1 : 2); /* the run still appends to the last chunk */
        append_chunks(run, 20);
        run_trim(run);
        assert_int_equal(held->refs, 1);
        append_chunks(run, 20);
        assert_true(held->used >= used);
        for (uint32_t i = 0; i < used; i++)
            if (held->bytes[i] != byte_at(begin + i))
                fail_msg("byte %u of chunk %u has been written over", i, number);
        run_trim(run);
        chunk_unref(held);
    }
}

/* One queue has a piece of a chunk when the turn ends, and another one has pinned it. */
static void test_a_chunk_may_be_pinned_and_have_a_piece(void **state)
{
    struct run *run = *state;
    append(run, 100);
    struct chunk *chunk = chunk_ref(run->first);
    chunk->pins++;
    run_trim(run);
    assert_ptr_equal(run->first, chunk);
    assert_int_equal(chunk->refs, 2);
    append(run, 10);
    assert_int_equal(assert_stream(run, chunk), 110);
    chunk->pins--;
    run_trim(run);
    assert_ptr_equal(run->first, chunk); /* the next turn appends after the piece */
    assert_int_equal(chunk->used, 110);
    chunk_unref(chunk);
    append(run, 10);
    assert_int_equal(assert_stream(run, NULL), 10);
    run_trim(run);
    assert_int_equal(chunk->used, 0); /* no piece is left: it is written from the start again */
}

/* Many small pieces, of as many turns, are in few chunks. */
static void test_pieces_of_many_turns_share_chunks(void **state)
{
    struct run *run = *state;
    struct chunk *held[100];
    unsigned chunks = 0;
    for (unsigned turn = 0; turn < 100; turn++) {
        append(run, 100);
        held[turn] = chunk_ref(run->last);
        chunks += turn == 0 || held[turn] != held[turn - 1];
        run_trim(run);
    }
    assert_int_equal(chunks, 1);
    for (unsigned turn = 0; turn < 100; turn++)
        chunk_unref(held[turn]);
}

/* When all clients have gone, the run is closed. Others may follow it later. */
static void test_a_closed_run_can_go_on(void **state)
{
    struct run *run = *state;
    for (unsigned round = 0; round < 3; round++) {
        append_chunks(run, 12);
        run_trim(run);
        append_chunks(run, 3);
        run_close(run);
        assert_null(run->first);
        assert_null(run->spare);
        assert_int_equal(run->bytes, (round + 1) * 15 * WHOLE);
        run->mark = run->bytes;
    }
    append(run, 10);
    assert_int_equal(assert_stream(run, NULL), 10);
}

#define WITH_RUN(test) cmocka_unit_test_setup_teardown(test, open_run, close_run)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_RUN(test_a_new_run_is_empty),
        WITH_RUN(test_a_run_frames_what_is_appended),
        WITH_RUN(test_events_go_on_over_the_ends_of_chunks),
        WITH_RUN(test_an_event_larger_than_a_chunk_gets_one_of_its_own),
        WITH_RUN(test_a_chunk_is_found_for_every_position),
        WITH_RUN(test_without_memory_nothing_is_appended),
        WITH_RUN(test_a_turn_writes_where_the_last_one_did),
        WITH_RUN(test_chunks_of_a_turn_are_there_for_the_next),
        WITH_RUN(test_no_more_chunks_are_kept_than_a_turn_is_likely_to_need),
        WITH_RUN(test_a_large_chunk_is_not_kept),
        WITH_RUN(test_a_pin_keeps_its_chunk_and_all_behind_it),
        WITH_RUN(test_the_first_of_two_pins_counts),
        WITH_RUN(test_the_next_turn_appends_to_a_pinned_chunk),
        WITH_RUN(test_a_piece_is_never_written_over),
        WITH_RUN(test_a_chunk_may_be_pinned_and_have_a_piece),
        WITH_RUN(test_pieces_of_many_turns_share_chunks),
        WITH_RUN(test_a_closed_run_can_go_on),
    };
    return cmocka_run_group_tests_name("run", tests, NULL, NULL);
}
