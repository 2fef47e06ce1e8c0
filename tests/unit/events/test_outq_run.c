/* The output queue of a client that follows a run: the run's events and the pushed ones make one stream, however it is
 * sent, and nothing is kept longer than a client waits for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "events/outq.h"
#include "memory.h"

#define NO_LIMIT ((size_t)1 << 30)
#define IOVECS 16
#define WHOLE (RUN_CHUNK - sizeof(struct chunk_end)) /* bytes of a raw event that fills a chunk */

static struct payload payload_of(const char *bytes, size_t length)
{
    return (struct payload){ .part = { bytes, bytes + length / 2 }, .length = { length / 2, length - length / 2 } };
}

static void append_text(struct run *run, const char *text)
{
    const struct payload payload = payload_of(text, strlen(text));
    assert_true(run_append(run, &payload));
}

/* Append an event that fills a chunk, with all bytes equal to with. */
static void append_whole(struct run *run, char with)
{
    static char bytes[WHOLE];
    memset(bytes, with, sizeof(bytes));
    const struct payload payload = payload_of(bytes, sizeof(bytes));
    assert_true(run_append(run, &payload));
}

static bool push_text(struct outq *q, const char *text)
{
    const struct payload payload = payload_of(text, strlen(text));
    struct chunk *chunk = chunk_of_event(q->framing, &payload);
    assert_non_null(chunk);
    const bool pushed = outq_push(q, chunk);
    chunk_unref(chunk);
    return pushed;
}

/* End a turn in which the queue was not sent everything. */
static void end_turn(struct run *run, struct outq *q)
{
    if (!outq_is_empty(q))
        outq_pin(q);
    run_trim(run);
}

static void assert_sends(const struct outq *q, const char *expected)
{
    char out[256];
    size_t length = 0;
    struct iovec iov[IOVECS];
    const int n = outq_gather(q, iov, IOVECS);
    for (int i = 0; i < n; i++) {
        assert_true(length + iov[i].iov_len < sizeof(out));
        memcpy(out + length, iov[i].iov_base, iov[i].iov_len);
        length += iov[i].iov_len;
    }
    out[length] = '\0';
    assert_string_equal(out, expected);
    assert_int_equal(outq_bytes(q), length);
    assert_int_equal(outq_is_empty(q), length == 0);
}

/* A raw run, and a queue for it that does not follow yet. */
static struct run run;
static struct outq q;

static int open_both(void **state)
{
    (void)state;
    run_open(&run, FRAMING_RAW);
    outq_init(&q, FRAMING_RAW, NO_LIMIT);
    return 0;
}

static int close_both(void **state)
{
    (void)state;
    memory_limit(-1);
    outq_clear(&q);
    const bool followed = run.followers != 0 || run.review_at != UINT64_MAX;
    run_close(&run);
    return followed;
}

/* ---- following ----------------------------------------------------------------------------------------------------- */

static void test_a_queue_gets_what_is_appended_while_it_follows(void **state)
{
    (void)state;
    append_text(&run, "before,");
    outq_follow(&q, &run);
    assert_int_equal(run.followers, 1);
    assert_sends(&q, "");
    append_text(&run, "one,");
    append_text(&run, "two,");
    assert_sends(&q, "one,two,");
    assert_int_equal(outq_events(&q), 2);
    assert_int_equal(q.count, 0); /* following takes no room in the queue */
    assert_null(q.pieces);
    assert_true(outq_leave(&q));
    assert_int_equal(run.followers, 0);
    append_text(&run, "behind,");
    assert_sends(&q, "one,two,");
    outq_follow(&q, &run);
    append_text(&run, "again,");
    assert_sends(&q, "one,two,again,");
    assert_int_equal(outq_events(&q), 3);
    assert_int_equal(outq_collect_given(&q), 3);
    assert_int_equal(outq_sent(&q, 14), 3);
    assert_sends(&q, "");
}

static void test_a_pushed_event_comes_where_it_was_pushed(void **state)
{
    (void)state;
    assert_true(push_text(&q, "a,"));
    outq_follow(&q, &run);
    assert_true(push_text(&q, "b,"));
    append_text(&run, "c,");
    append_text(&run, "d,");
    assert_true(push_text(&q, "e,"));
    assert_true(push_text(&q, "f,"));
    append_text(&run, "g,");
    assert_sends(&q, "a,b,c,d,e,f,g,");
    assert_int_equal(outq_events(&q), 7);
    assert_int_equal(outq_collect_given(&q), 7);
    assert_int_equal(outq_sent(&q, 5), 2);
    assert_sends(&q, ",d,e,f,g,");
    assert_int_equal(outq_sent(&q, 9), 5);
}

static void test_a_queue_leaves_and_its_pieces_outlive_the_run(void **state)
{
    (void)state;
    struct run other;
    run_open(&other, FRAMING_RAW);
    outq_follow(&q, &other);
    append_text(&other, "one,");
    append_text(&other, "two,");
    assert_int_equal(outq_sent(&q, 2), 0);
    assert_true(outq_leave(&q));
    run_trim(&other);
    append_text(&other, "three,");
    run_close(&other);
    assert_sends(&q, "e,two,");
    assert_int_equal(outq_events(&q), 2);
    assert_int_equal(outq_sent(&q, 2), 1);
    assert_int_equal(outq_clear(&q), 1);
    assert_int_equal(outq_collect_given(&q), 2);
}

/* A queue leaves the run, and follows it again, around an event that is too large for it. A small part of a chunk is
 * copied, so that the chunk is not kept. A large part is shared with the other queues. */
static void test_a_queue_that_leaves_keeps_no_chunk_for_a_small_piece(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    append_text(&run, "hello");
    struct chunk *chunk = run.first;
    assert_true(outq_leave(&q));
    assert_int_equal(q.count, 1);
    assert_ptr_not_equal(q.pieces[q.head].chunk, chunk);
    assert_int_equal(chunk->refs, 1);
    assert_sends(&q, "hello");
    outq_follow(&q, &run);
    append_whole(&run, 'x');
    assert_true(outq_leave(&q));
    assert_int_equal(run.last->refs, 2);
    outq_clear(&q);
}

/* The run continues while the queue is sent nothing for many turns. Then the queue is sent all of it. */
static void test_a_queue_that_is_behind_gets_all_of_it_in_the_end(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    for (unsigned turn = 0; turn < 26; turn++) {
        append_whole(&run, (char)('a' + turn));
        end_turn(&run, &q);
    }
    assert_int_equal(outq_events(&q), 26);
    assert_int_equal(outq_bytes(&q), 26 * WHOLE);
    for (unsigned turn = 0; turn < 26; turn++) {
        struct iovec iov[IOVECS];
        const int n = outq_gather(&q, iov, IOVECS);
        assert_int_equal(n, 26 - turn < IOVECS ? 26 - turn : IOVECS);
        assert_int_equal(iov[0].iov_len, WHOLE);
        assert_int_equal(*(char *)iov[0].iov_base, 'a' + turn);
        assert_int_equal(outq_sent(&q, WHOLE - 1), 0);
        end_turn(&run, &q);
        assert_int_equal(run.first->first_byte, turn * WHOLE); /* kept, because its last byte is not sent */
        assert_int_equal(outq_sent(&q, 1), 1);
        end_turn(&run, &q);
    }
    assert_int_equal(run.first->used, 0);
    assert_null(q.pin);
}

static void test_a_queue_keeps_no_chunk_that_it_has_been_sent(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    for (unsigned i = 0; i < 4; i++)
        append_whole(&run, 'x');
    end_turn(&run, &q);
    assert_int_equal(run.first->pins, 1);
    struct chunk *third = run.first->next->next;
    assert_int_equal(outq_sent(&q, 2 * WHOLE + 5), 2);
    assert_int_equal(run.first->pins, 0);
    assert_int_equal(third->pins, 1);
    run_trim(&run);
    assert_ptr_equal(run.first, third);
    assert_int_equal(outq_sent(&q, 2 * WHOLE - 5), 2);
    assert_int_equal(third->pins, 0);
    assert_int_equal(third->next->pins, 0);
}

/* ---- the limit ----------------------------------------------------------------------------------------------------- */

static void test_pieces_and_the_run_share_the_limit(void **state)
{
    (void)state;
    outq_init(&q, FRAMING_RAW, 10);
    assert_true(push_text(&q, "123"));
    outq_follow(&q, &run);
    assert_int_equal(outq_review_at(&q), 7);
    assert_int_equal(run.review_at, 7);
    append_text(&run, "4567");
    assert_int_equal(outq_review_at(&q), 7);
    assert_false(push_text(&q, "890a"));
    assert_int_equal(q.count, 1); /* nothing has changed */
    assert_true(push_text(&q, "890"));
    assert_int_equal(outq_review_at(&q), run.bytes);
    assert_false(push_text(&q, "-"));
    assert_int_equal(outq_sent(&q, 4), 1);
    assert_int_equal(outq_review_at(&q), run.bytes + 4);
    append_text(&run, "abcd");
    assert_false(push_text(&q, "-"));
    assert_sends(&q, "567890abcd");
}

/* Before an append, the bus checks one number for all queues: review_at is never too late for any of them. */
static void test_a_run_is_reviewed_in_time_for_every_queue(void **state)
{
    (void)state;
    struct outq other;
    outq_init(&q, FRAMING_RAW, 20);
    outq_init(&other, FRAMING_RAW, 12);
    append_text(&run, "0123");
    outq_follow(&q, &run);
    assert_int_equal(run.review_at, 24);
    outq_follow(&other, &run);
    assert_int_equal(run.review_at, 16);
    assert_true(push_text(&q, "0123456789"));
    assert_int_equal(run.review_at, 14);
    assert_true(push_text(&other, "0"));
    assert_int_equal(run.review_at, 14);
    outq_clear(&q);
    assert_true(run.review_at <= 15); /* an early review does no harm */
    outq_clear(&other);
    assert_true(run.review_at == UINT64_MAX);
}

/* ---- cleared, but for what has begun ------------------------------------------------------------------------------- */

/* The queue's position decides which event stays: a pushed one, one of the run, or none. */
static void test_of_pieces_and_run_only_a_half_sent_event_stays(void **state)
{
    (void)state;
    static const char all[] = "ab,cd,ef,gh,";
    for (size_t sent = 0; sent <= 12; sent++)
        for (int turns = 0; turns < 2; turns++) {
            outq_init(&q, FRAMING_RAW, NO_LIMIT);
            outq_follow(&q, &run);
            append_text(&run, "ab,");
            assert_true(push_text(&q, "cd,"));
            append_text(&run, "ef,");
            append_text(&run, "gh,");
            assert_int_equal(outq_sent(&q, sent), sent / 3);
            for (int turn = 0; turn < turns; turn++)
                end_turn(&run, &q);
            const bool begun = sent % 3 > 0;
            assert_int_equal(outq_keep_begun(&q), 4 - sent / 3 - begun);
            assert_int_equal(run.followers, 0);
            append_text(&run, "ij,");
            run_trim(&run);
            append_text(&run, "kl,");
            char rest[8] = "";
            memcpy(rest, all + sent, begun ? 3 - sent % 3 : 0);
            assert_sends(&q, rest);
            assert_int_equal(outq_events(&q), begun);
            assert_int_equal(outq_collect_given(&q), 4);
            assert_int_equal(outq_clear(&q), begun);
        }
}

/* ---- dropped from either end ---------------------------------------------------------------------------------------- */

/* Events are dropped in a piece, in the run, and after a half-sent event in either. test_outq_model.c has all
 * mixtures. */
static void test_whole_events_are_dropped_from_either_end(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    append_text(&run, "one,");
    append_text(&run, "two,");
    assert_true(push_text(&q, "three,"));
    append_text(&run, "four,");
    append_text(&run, "five,");
    assert_int_equal(outq_drop_oldest(&q, 100), 0);
    assert_int_equal(outq_sent(&q, 1), 0);
    assert_int_equal(outq_drop_oldest(&q, 22), 1);
    assert_sends(&q, "ne,three,four,five,");
    assert_int_equal(outq_drop_oldest(&q, 12), 2);
    assert_sends(&q, "ne,five,");
    append_text(&run, "six,");
    assert_sends(&q, "ne,five,six,");
    assert_int_equal(outq_begun(&q), 3);
    assert_true(outq_leave(&q));
    assert_int_equal(outq_drop_newest(&q, 9), 1);
    assert_sends(&q, "ne,five,");
    assert_int_equal(outq_drop_newest(&q, 0), 1);
    assert_sends(&q, "ne,");
    assert_int_equal(outq_drop_oldest(&q, 0), 0);
    assert_int_equal(outq_drop_newest(&q, 0), 0);
    assert_int_equal(outq_sent(&q, 3), 1);
    assert_int_equal(outq_collect_given(&q), 6);
}

/* A queue that moves on in the run keeps no chunk before its position. */
static void test_a_queue_that_drops_the_oldest_releases_their_chunks(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    for (int with = 'a'; with < 'k'; with++)
        append_whole(&run, with);
    assert_int_equal(outq_sent(&q, 1), 0);
    end_turn(&run, &q);
    const size_t before = chunk_memory();
    assert_int_equal(outq_drop_oldest(&q, 3 * WHOLE), 7);
    end_turn(&run, &q);
    assert_int_equal(run.first->bytes[0], 'i');
    assert_int_equal(before - chunk_memory(), 7 * (RUN_CHUNK + sizeof(struct chunk)));
    assert_int_equal(outq_begun(&q), WHOLE - 1);
    assert_int_equal(outq_bytes(&q), 3 * WHOLE - 1);
    assert_int_equal(outq_sent(&q, 3 * WHOLE - 1), 3);
}

/* A small rest of a chunk is copied, so that the chunk is not kept. */
static void test_the_rest_of_a_chunk_does_not_keep_it(void **state)
{
    (void)state;
    for (int oldest = 0; oldest < 2; oldest++) {
        outq_follow(&q, &run);
        for (int i = 0; i < 2000; i++)
            append_text(&run, "event,");
        assert_int_equal(outq_sent(&q, 1), 0);
        if (oldest) {
            assert_int_equal(outq_drop_oldest(&q, 0), 1999);
        } else {
            assert_true(outq_leave(&q));
            assert_int_equal(run.first->refs, 2);
            assert_int_equal(outq_drop_newest(&q, 0), 1999);
        }
        assert_int_equal(run.first->refs, 1);
        assert_sends(&q, "vent,");
        assert_int_equal(outq_clear(&q), 1);
    }
}

/* Copying the last byte of an event that fills its chunk would mean copying the whole event, so the chunk is kept. */
static void test_the_rest_of_a_large_event_is_not_copied(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    append_whole(&run, 'a');
    assert_int_equal(outq_sent(&q, WHOLE - 1), 0);
    end_turn(&run, &q);
    memory_limit(1); /* only for the ring of pieces */
    assert_true(outq_leave(&q));
    assert_int_equal(memory_refused(), 0);
    memory_limit(-1);
    assert_sends(&q, "a");
}

/* When most of the queue is dropped, its ring gets smaller. */
static void test_a_ring_shrinks_with_what_is_dropped(void **state)
{
    (void)state;
    for (int oldest = 0; oldest < 2; oldest++) {
        for (int i = 0; i < 2000; i++)
            assert_true(push_text(&q, "event"));
        const size_t before = outq_memory();
        assert_in_range(before, 2000 * sizeof(struct piece), 4000 * sizeof(struct piece));
        memory_limit(0);
        assert_int_equal(oldest ? outq_drop_oldest(&q, 9995) : outq_drop_newest(&q, 9995), 1);
        assert_int_equal(oldest ? outq_drop_oldest(&q, 5000) : outq_drop_newest(&q, 5000), 999);
        assert_int_equal(outq_memory(), before);
        memory_limit(-1);
        assert_int_equal(oldest ? outq_drop_oldest(&q, 500) : outq_drop_newest(&q, 500), 900);
        assert_in_range(outq_memory(), 100 * sizeof(struct piece), before / 4);
        assert_int_equal(oldest ? outq_drop_oldest(&q, 0) : outq_drop_newest(&q, 0), 100);
        assert_int_equal(outq_memory(), 0);
        assert_null(q.pieces);
    }
}

/* The limit may be lowered. The bytes that wait stay, and the queue has no room until enough of them are sent. */
static void test_a_lower_limit_leaves_no_room(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    append_text(&run, "one,two,");
    q.limit = 6;
    assert_int_equal(outq_room(&q), 0);
    assert_int_equal(outq_review_at(&q), run.bytes);
    assert_false(push_text(&q, "x"));
    assert_int_equal(outq_sent(&q, 4), 0);
    assert_int_equal(outq_room(&q), 2);
    assert_int_equal(outq_review_at(&q), run.bytes + 2);
    assert_true(push_text(&q, "x"));
    assert_sends(&q, "two,x");
}

/* ---- no memory ----------------------------------------------------------------------------------------------------- */

static void test_without_memory_a_queue_does_not_leave(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    append_text(&run, "one,");
    append_text(&run, "two,");
    const struct outq before = q;
    memory_limit(0);
    const bool left = outq_leave(&q);
    memory_limit(-1);
    assert_false(left);
    assert_memory_equal(&q, &before, sizeof(q));
    assert_sends(&q, "one,two,");
    assert_true(outq_leave(&q));
    assert_sends(&q, "one,two,");
}

static void test_without_memory_nothing_is_pushed_behind_the_run(void **state)
{
    (void)state;
    const struct payload payload = payload_of("three,", 6);
    struct chunk *chunk = chunk_of_event(FRAMING_RAW, &payload);
    outq_follow(&q, &run);
    append_text(&run, "one,");
    const struct outq before = q;
    memory_limit(0);
    const bool pushed = outq_push(&q, chunk);
    memory_limit(-1);
    assert_false(pushed);
    assert_memory_equal(&q, &before, sizeof(q));
    assert_int_equal(chunk->refs, 1);
    append_text(&run, "two,");
    assert_true(outq_push(&q, chunk));
    chunk_unref(chunk);
    assert_sends(&q, "one,two,three,");
    assert_int_equal(outq_collect_given(&q), 3);
}

#define WITH_BOTH(test) cmocka_unit_test_setup_teardown(test, open_both, close_both)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BOTH(test_a_queue_gets_what_is_appended_while_it_follows),
        WITH_BOTH(test_a_pushed_event_comes_where_it_was_pushed),
        WITH_BOTH(test_a_queue_leaves_and_its_pieces_outlive_the_run),
        WITH_BOTH(test_a_queue_that_is_behind_gets_all_of_it_in_the_end),
        WITH_BOTH(test_a_queue_that_leaves_keeps_no_chunk_for_a_small_piece),
        WITH_BOTH(test_a_queue_keeps_no_chunk_that_it_has_been_sent),
        WITH_BOTH(test_pieces_and_the_run_share_the_limit),
        WITH_BOTH(test_a_run_is_reviewed_in_time_for_every_queue),
        WITH_BOTH(test_of_pieces_and_run_only_a_half_sent_event_stays),
        WITH_BOTH(test_whole_events_are_dropped_from_either_end),
        WITH_BOTH(test_a_queue_that_drops_the_oldest_releases_their_chunks),
        WITH_BOTH(test_the_rest_of_a_chunk_does_not_keep_it),
        WITH_BOTH(test_the_rest_of_a_large_event_is_not_copied),
        WITH_BOTH(test_a_ring_shrinks_with_what_is_dropped),
        WITH_BOTH(test_a_lower_limit_leaves_no_room),
        WITH_BOTH(test_without_memory_a_queue_does_not_leave),
        WITH_BOTH(test_without_memory_nothing_is_pushed_behind_the_run),
    };
    return cmocka_run_group_tests_name("outq, run", tests, NULL, NULL);
}
