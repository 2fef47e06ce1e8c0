/* The output queue without a run: order, limit, partial sends, its ring, and its references. With a run:
 * test_outq_run.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "events/outq.h"
#include "memory.h"

#define NO_LIMIT ((size_t)1 << 30)
#define IOVECS 16

static const enum framing framings[] = { FRAMING_NETSTRING, FRAMING_RAW };

static struct chunk *chunk_of(enum framing framing, const void *bytes, size_t length)
{
    const struct payload payload = { .part = { bytes, (const char *)bytes + length / 2 },
                                     .length = { length / 2, length - length / 2 } };
    struct chunk *chunk = chunk_of_event(framing, &payload);
    assert_non_null(chunk);
    return chunk;
}

/* Push an event of that payload. Only the queue keeps a reference to it. */
static bool push(struct outq *q, const void *bytes, size_t length)
{
    struct chunk *chunk = chunk_of(q->framing, bytes, length);
    const bool pushed = outq_push(q, chunk);
    assert_int_equal(chunk->refs, pushed ? 2 : 1);
    chunk_unref(chunk);
    return pushed;
}

static bool push_text(struct outq *q, const char *text)
{
    return push(q, text, strlen(text));
}

/* Copy what the queue would send: at most room bytes, gathered into at most so many iovecs. */
static size_t gathered(const struct outq *q, char *out, size_t room, int most)
{
    struct iovec iov[IOVECS];
    const int n = outq_gather(q, iov, most);
    size_t length = 0;
    assert_true(n >= 0 && n <= most);
    for (int i = 0; i < n; i++) {
        const size_t take = iov[i].iov_len < room - length ? iov[i].iov_len : room - length;
        memcpy(out + length, iov[i].iov_base, take);
        length += take;
    }
    return length;
}

static void assert_sends(const struct outq *q, const char *expected)
{
    char out[256];
    const size_t length = gathered(q, out, sizeof(out), IOVECS);
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(out, expected, length);
}

/* ---- what is sent ------------------------------------------------------------------------------------------------ */

static void test_a_new_queue_has_nothing_to_send(void **state)
{
    (void)state;
    struct outq q;
    struct iovec iov[1];
    outq_init(&q, FRAMING_NETSTRING, 100);
    assert_true(outq_is_empty(&q));
    assert_int_equal(outq_events(&q), 0);
    assert_int_equal(outq_bytes(&q), 0);
    assert_int_equal(outq_collect_given(&q), 0);
    assert_null(q.pieces);
    assert_int_equal(outq_gather(&q, iov, 1), 0);
    assert_int_equal(outq_sent(&q, 0), 0);
    assert_true(outq_leave(&q)); /* it follows no run */
    outq_pin(&q);
    assert_int_equal(outq_keep_begun(&q), 0);
    assert_int_equal(outq_clear(&q), 0);
    assert_null(q.pieces);
}

static void test_events_are_sent_as_netstrings_in_order(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q, FRAMING_NETSTRING, NO_LIMIT);
    assert_true(push_text(&q, "hello"));
    assert_true(push_text(&q, ""));
    assert_true(push_text(&q, "0123456789"));
    assert_sends(&q, "5:hello,0:,10:0123456789,");
    assert_int_equal(outq_events(&q), 3);
    assert_int_equal(outq_bytes(&q), strlen("5:hello,0:,10:0123456789,"));
    assert_int_equal(outq_clear(&q), 3);
}

static void test_events_are_sent_raw_in_order(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q, FRAMING_RAW, NO_LIMIT);
    assert_true(push_text(&q, "hello"));
    assert_true(push_text(&q, "0123456789"));
    assert_sends(&q, "hello0123456789");
    assert_int_equal(outq_bytes(&q), 15);
    assert_int_equal(outq_clear(&q), 2);
}

/* Each event counts once, however often the count is asked for. */
static void test_each_event_given_is_counted_once(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q, FRAMING_RAW, 10);
    for (int i = 0; i < 7; i++)
        assert_true(push_text(&q, "a"));
    assert_int_equal(outq_collect_given(&q), 7);
    assert_int_equal(outq_collect_given(&q), 0);
    assert_true(push_text(&q, "a"));
    assert_false(push_text(&q, "too long"));
    assert_int_equal(outq_sent(&q, 3), 3);
    assert_int_equal(outq_collect_given(&q), 1);
    assert_true(push_text(&q, "a"));
    assert_int_equal(outq_clear(&q), 6);
    assert_int_equal(outq_collect_given(&q), 1); /* also after the queue was cleared */
}

static void test_no_more_iovecs_are_set_than_there_is_room_for(void **state)
{
    (void)state;
    struct outq q;
    struct iovec iov[IOVECS];
    outq_init(&q, FRAMING_RAW, NO_LIMIT);
    for (int i = 0; i < 10; i++)
        assert_true(push(&q, &"abcdefghij"[i], 1));
    for (int most = 0; most <= 12; most++) {
        memset(iov, 0x55, sizeof(iov));
        const struct iovec untouched = iov[0];
        const int n = outq_gather(&q, iov, most);
        assert_int_equal(n, most < 10 ? most : 10);
        for (int i = 0; i < n; i++)
            assert_int_equal(*(char *)iov[i].iov_base, 'a' + i);
        assert_memory_equal(&iov[n], &untouched, sizeof(untouched));
    }
    outq_clear(&q);
}

/* ---- partial sends ----------------------------------------------------------------------------------------------- */

static const char *const stream[] = { "a", "", "bc\n", "0123456789", "", "x,1:y,", "the last of them" };

#define STREAM (sizeof(stream) / sizeof(*stream))
#define STREAM_MAX 128

/* Queue the events of the stream. out gets their bytes on the wire, and ends where each of them ends. */
static size_t queue_stream(struct outq *q, enum framing framing, char out[STREAM_MAX], size_t ends[STREAM])
{
    size_t length = 0;
    outq_init(q, framing, NO_LIMIT);
    for (size_t i = 0; i < STREAM; i++) {
        const bool netstring = framing == FRAMING_NETSTRING;
        const char *text = stream[i][0] == '\0' && !netstring ? "-" : stream[i]; /* raw: an empty payload is no event */
        if (netstring)
            length += (size_t)snprintf(out + length, STREAM_MAX - length, "%zu:", strlen(text));
        length += (size_t)snprintf(out + length, STREAM_MAX - length, "%s%s", text, netstring ? "," : "");
        ends[i] = length;
        assert_true(push_text(q, text));
    }
    assert_int_equal(outq_bytes(q), length);
    return length;
}

static size_t ended_by(const size_t ends[STREAM], size_t sent)
{
    size_t whole = 0;
    while (whole < STREAM && ends[whole] <= sent)
        whole++;
    return whole;
}

/* Send chunk bytes, and check the queue's counts. Returns how many bytes of the stream are sent. */
static size_t send_some(struct outq *q, const char *expected, size_t length, const size_t ends[STREAM], size_t sent,
                        size_t chunk)
{
    char out[STREAM_MAX];
    const size_t size = gathered(q, out, chunk, IOVECS);
    assert_int_equal(size, chunk < length - sent ? chunk : length - sent);
    assert_memory_equal(out, expected + sent, size);
    const uint64_t whole = outq_sent(q, size);
    assert_int_equal(whole, ended_by(ends, sent + size) - ended_by(ends, sent));
    assert_int_equal(outq_bytes(q), length - sent - size);
    assert_int_equal(outq_events(q), STREAM - ended_by(ends, sent + size));
    return sent + size;
}

static void test_sends_of_every_size_give_the_same_stream(void **state)
{
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        size_t length = 1;
        for (size_t chunk = 1; chunk <= length; chunk++) {
            struct outq q;
            char expected[STREAM_MAX];
            size_t ends[STREAM];
            length = queue_stream(&q, framings[f], expected, ends);
            for (size_t sent = 0; sent < length;)
                sent = send_some(&q, expected, length, ends, sent, chunk);
            assert_true(outq_is_empty(&q));
            assert_int_equal(outq_clear(&q), 0);
        }
    }
}

static void test_a_send_that_stops_at_any_two_bytes_goes_on_from_there(void **state)
{
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        size_t length = 0;
        for (size_t first = 0; first <= length; first++)
            for (size_t second = 0; second <= length - first; second++) {
                struct outq q;
                char expected[STREAM_MAX];
                size_t ends[STREAM];
                length = queue_stream(&q, framings[f], expected, ends);
                size_t sent = 0;
                if (first > 0)
                    sent = send_some(&q, expected, length, ends, sent, first);
                if (second > 0)
                    sent = send_some(&q, expected, length, ends, sent, second);
                if (sent < length)
                    sent = send_some(&q, expected, length, ends, sent, length);
                assert_int_equal(sent, length);
                assert_int_equal(outq_clear(&q), 0);
            }
    }
}

/* Only the first event can be half sent: a gather of one iovec shows the rest of it. */
static void test_the_rest_of_an_event_comes_first(void **state)
{
    (void)state;
    struct outq q;
    char out[32];
    outq_init(&q, FRAMING_NETSTRING, NO_LIMIT);
    assert_true(push_text(&q, "hello"));
    assert_true(push_text(&q, "world"));
    assert_int_equal(outq_sent(&q, 9), 1);
    assert_int_equal(gathered(&q, out, sizeof(out), 1), 7);
    assert_memory_equal(out, ":world,", 7);
    assert_true(push_text(&q, "!"));
    assert_sends(&q, ":world,1:!,");
    assert_int_equal(outq_clear(&q), 2);
}

/* ---- the limit --------------------------------------------------------------------------------------------------- */

static void test_a_queue_accepts_an_event_that_fits_to_the_byte(void **state)
{
    (void)state;
    for (size_t f = 0; f < 2; f++)
        for (size_t limit = 0; limit <= 20; limit++) {
            struct outq q;
            const size_t size = framings[f] == FRAMING_NETSTRING ? strlen("5:hello,") : strlen("hello");
            outq_init(&q, framings[f], limit);
            size_t pushed = 0;
            while (push_text(&q, "hello"))
                pushed++;
            assert_int_equal(pushed, limit / size);
            assert_int_equal(outq_bytes(&q), pushed * size);
            assert_int_equal(outq_clear(&q), pushed);
        }
}

static void test_an_event_that_does_not_fit_changes_nothing(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q, FRAMING_NETSTRING, 12);
    assert_true(push_text(&q, "hello"));
    const struct outq before = q;
    assert_false(push_text(&q, "ab"));
    assert_memory_equal(&q, &before, sizeof(q));
    assert_sends(&q, "5:hello,");
    assert_true(push_text(&q, "a"));
    assert_sends(&q, "5:hello,1:a,");
    assert_int_equal(outq_clear(&q), 2);
}

/* The queue is full, and its ring too. The ring must not grow for an event that is refused. */
static void test_a_refused_event_makes_no_room(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q, FRAMING_RAW, 8);
    for (int i = 0; i < 8; i++)
        assert_true(push_text(&q, "a"));
    const struct outq before = q;
    assert_false(push_text(&q, "b"));
    assert_memory_equal(&q, &before, sizeof(q));
    outq_clear(&q);
}

/* If the ring of pieces cannot grow, the queue stays as it was. With memory again, the next event follows. */
static void test_without_memory_nothing_is_queued(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q, FRAMING_RAW, NO_LIMIT);
    for (int pushed = 0; pushed <= 64; pushed++) {
        const struct outq before = q;
        const bool full = q.count == q.room;
        struct chunk *chunk = chunk_of(FRAMING_RAW, "a", 1);
        memory_limit(0);
        const bool queued = outq_push(&q, chunk);
        memory_limit(-1);
        assert_int_equal(queued, !full);
        if (full) {
            assert_memory_equal(&q, &before, sizeof(q));
            assert_true(outq_push(&q, chunk));
        }
        assert_int_equal(chunk->refs, 2);
        chunk_unref(chunk);
        assert_int_equal(outq_events(&q), pushed + 1);
    }
    assert_int_equal(outq_clear(&q), 65);
}

static void test_each_byte_sent_makes_room(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q, FRAMING_RAW, 10);
    assert_true(push_text(&q, "0123456789"));
    for (size_t sent = 1; sent < 10; sent++) {
        assert_int_equal(outq_sent(&q, 1), 0);
        assert_false(push_text(&q, "0123456789"));
        assert_int_equal(outq_bytes(&q), 10 - sent);
    }
    assert_true(push_text(&q, "abcdefghi"));
    assert_false(push_text(&q, "j"));
    assert_sends(&q, "9abcdefghi");
    assert_int_equal(outq_sent(&q, 10), 2);
    assert_true(push_text(&q, "0123456789"));
    outq_clear(&q);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void test_queues_share_a_chunk_and_the_last_one_frees_it(void **state)
{
    (void)state;
    struct outq qs[5];
    struct chunk *chunk = chunk_of(FRAMING_NETSTRING, "hello", 5);
    for (unsigned i = 0; i < 5; i++) {
        outq_init(&qs[i], FRAMING_NETSTRING, 100);
        assert_true(outq_push(&qs[i], chunk));
        assert_int_equal(chunk->refs, i + 2);
    }
    for (unsigned i = 0; i < 5; i++)
        assert_sends(&qs[i], "5:hello,");
    chunk_unref(chunk);
    assert_int_equal(outq_sent(&qs[0], 8), 1);
    assert_int_equal(chunk->refs, 4);
    assert_int_equal(outq_sent(&qs[1], 7), 0);
    assert_int_equal(chunk->refs, 4);
    assert_int_equal(outq_clear(&qs[1]), 1);
    assert_int_equal(outq_clear(&qs[2]), 1);
    assert_int_equal(chunk->refs, 2);
    assert_int_equal(outq_sent(&qs[3], 8), 1);
    assert_int_equal(chunk->refs, 1);
    assert_sends(&qs[4], "5:hello,");
    assert_int_equal(outq_clear(&qs[4]), 1);
    assert_int_equal(outq_clear(&qs[0]), 0);
    assert_int_equal(outq_clear(&qs[3]), 0);
}

static void test_a_chunk_may_wait_twice_in_one_queue(void **state)
{
    (void)state;
    struct outq q;
    struct chunk *chunk = chunk_of(FRAMING_RAW, "a", 1);
    outq_init(&q, FRAMING_RAW, 100);
    assert_true(outq_push(&q, chunk));
    assert_true(outq_push(&q, chunk));
    assert_int_equal(chunk->refs, 3);
    assert_int_equal(outq_sent(&q, 1), 1);
    assert_int_equal(chunk->refs, 2);
    assert_int_equal(outq_clear(&q), 1);
    assert_int_equal(chunk->refs, 1);
    chunk_unref(chunk);
}

static void test_a_cleared_queue_releases_everything_and_can_be_used_again(void **state)
{
    (void)state;
    struct outq q;
    struct chunk *chunks[20];
    outq_init(&q, FRAMING_NETSTRING, 60);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 20; i++)
            chunks[i] = chunk_of(FRAMING_NETSTRING, "", 0);
        for (int i = 0; i < 20; i++)
            assert_true(outq_push(&q, chunks[i]));
        assert_false(outq_push(&q, chunks[0]));
        assert_int_equal(outq_sent(&q, 3 * 4 + 1), 4);
        assert_int_equal(outq_clear(&q), 16); /* one of the 16 was half sent */
        assert_true(outq_is_empty(&q));
        assert_int_equal(outq_bytes(&q), 0);
        assert_null(q.pieces);
        assert_int_equal(outq_clear(&q), 0);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(chunks[i]->refs, 1);
            chunk_unref(chunks[i]);
        }
        assert_true(push_text(&q, "whole"));
        assert_sends(&q, "5:whole,");
        assert_int_equal(outq_sent(&q, 8), 1);
    }
    outq_clear(&q);
}

/* ---- a client that gets nothing more ----------------------------------------------------------------------------- */

/* A client gets whole events only, so the rest of a half-sent event is kept, and nothing else. */
static void test_only_a_half_sent_event_is_kept(void **state)
{
    (void)state;
    for (size_t f = 0; f < 2; f++)
        for (size_t events = 1; events < 20; events++)
            for (size_t sent = 0; sent < 15; sent++) {
                struct outq q;
                char rest[16];
                const size_t size = framings[f] == FRAMING_NETSTRING ? strlen("5:hello,") : strlen("hello");
                outq_init(&q, framings[f], NO_LIMIT);
                struct chunk *pushed[20];
                for (size_t i = 0; i < events; i++) {
                    pushed[i] = chunk_of(framings[f], &"abcdefghijklmnopqrstuvwxyz"[i], 5);
                    assert_true(outq_push(&q, pushed[i]));
                }
                const size_t all = events * size;
                const size_t out = sent < all ? sent : all;
                const size_t first = out / size;
                const bool begun = out % size > 0;
                assert_int_equal(outq_sent(&q, out), first);
                assert_int_equal(outq_keep_begun(&q), events - first - begun);
                assert_int_equal(outq_events(&q), begun);
                assert_int_equal(outq_bytes(&q), begun ? size - out % size : 0);
                for (size_t i = 0; i < events; i++)
                    assert_int_equal(pushed[i]->refs, begun && i == first ? 2 : 1);
                const size_t left = outq_bytes(&q);
                assert_int_equal(gathered(&q, rest, sizeof(rest), 8), left);
                if (begun) {
                    assert_memory_equal(rest, pushed[first]->bytes + out % size, left);
                    assert_int_equal(outq_sent(&q, left), 1);
                }
                assert_int_equal(outq_clear(&q), 0);
                for (size_t i = 0; i < events; i++)
                    chunk_unref(pushed[i]);
            }
}

/* Without memory to keep the rest, the event counts as not sent. */
static void test_without_memory_not_even_a_half_sent_event_is_kept(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q, FRAMING_RAW, NO_LIMIT);
    for (int i = 0; i < 3; i++)
        assert_true(push_text(&q, "hello"));
    assert_int_equal(outq_sent(&q, 7), 1);
    memory_limit(0);
    const uint64_t left = outq_keep_begun(&q);
    memory_limit(-1);
    assert_int_equal(left, 2);
    assert_true(outq_is_empty(&q));
    assert_null(q.pieces);
}

/* ---- the ring ---------------------------------------------------------------------------------------------------- */

static void assert_shape(const struct outq *q)
{
    assert_true(q->room == 0 ? q->pieces == NULL : q->pieces != NULL);
    assert_int_equal(q->room & (q->room - 1), 0);
    assert_true(q->count <= q->room);
    assert_true(q->bytes <= q->limit);
}

static bool push_number(struct outq *q, unsigned number)
{
    return push(q, &number, sizeof(number));
}

/* Send the first event whole, and check that it has this number. */
static void assert_next_number(struct outq *q, unsigned expected)
{
    unsigned number;
    assert_int_equal(gathered(q, (char *)&number, sizeof(number), 1), sizeof(number));
    assert_int_equal(number, expected);
    assert_int_equal(outq_sent(q, sizeof(number)), 1);
    assert_shape(q);
}

/* The ring grows while its oldest piece is at any of its places. */
static void test_a_ring_that_grows_keeps_its_order(void **state)
{
    (void)state;
    for (unsigned start = 0; start < 40; start++) {
        struct outq q;
        outq_init(&q, FRAMING_RAW, NO_LIMIT);
        unsigned in = 0;
        unsigned out = 0;
        while (in < 5)
            assert_true(push_number(&q, in++));
        while (out < start) {
            assert_true(push_number(&q, in++));
            assert_next_number(&q, out++);
        }
        while (in - out < 100) {
            assert_true(push_number(&q, in++));
            assert_shape(&q);
        }
        while (out < in)
            assert_next_number(&q, out++);
        outq_clear(&q);
    }
}

/* Events that come and go never make the ring grow, as long as it is not full. */
static void test_a_ring_goes_round_without_growing(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q, FRAMING_RAW, NO_LIMIT);
    assert_true(push_number(&q, 0));
    const size_t room = q.room;
    for (unsigned n = 1; n < 100000; n++) {
        assert_true(push_number(&q, n));
        assert_next_number(&q, n - 1);
    }
    assert_int_equal(q.room, room);
    outq_clear(&q);
}

/* There are many clients, and most are idle. So the memory of a burst is freed, and that of a few events is kept. */
static void test_a_large_ring_that_has_run_empty_is_freed_a_small_one_is_kept(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q, FRAMING_RAW, NO_LIMIT);
    for (unsigned n = 0; n < 1000; n++)
        assert_true(push_number(&q, n));
    for (unsigned n = 0; n < 1000; n++) {
        assert_non_null(q.pieces);
        assert_next_number(&q, n);
    }
    assert_null(q.pieces);
    assert_int_equal(q.room, 0);
    assert_true(push_number(&q, 1));
    assert_next_number(&q, 1);
    assert_non_null(q.pieces);
    outq_clear(&q);
}

/* Compare any mixture of pushes, sends and clears with a plain copy of the bytes. */
static void test_random_use_gives_the_bytes_that_went_in(void **state)
{
    (void)state;
    enum { ROOM = 4096 };
    unsigned seed = 7;
    for (size_t f = 0; f < 2; f++) {
        struct outq q;
        static char model[ROOM];
        size_t length = 0, events = 0, left_whole = 0, pushed = 0, cleared = 0, refused = 0;
        outq_init(&q, framings[f], ROOM);
        for (unsigned round = 0; round < 200000; round++) {
            const unsigned action = (unsigned)rand_r(&seed) % 1000;
            const unsigned fill = round / 4000 % 2 == 0 ? 700 : 400; /* the queue fills and empties in turns */
            if (action < fill) {
                char payload[40];
                const size_t size = 1 + (unsigned)rand_r(&seed) % sizeof(payload);
                memset(payload, (int)round, sizeof(payload));
                struct chunk *chunk = chunk_of(framings[f], payload, size);
                const bool fits = chunk->used <= ROOM - length;
                assert_int_equal(outq_push(&q, chunk), fits);
                if (fits) {
                    memcpy(model + length, chunk->bytes, chunk->used);
                    length += chunk->used;
                    pushed++;
                    events++;
                }
                refused += !fits;
                chunk_unref(chunk);
            } else if (action < 999) {
                char out[ROOM];
                const size_t want = (unsigned)rand_r(&seed) % (action < 998 ? 60 : 2000);
                const size_t size = gathered(&q, out, want, 1 + rand_r(&seed) % IOVECS);
                assert_memory_equal(out, model, size);
                const uint64_t whole = outq_sent(&q, size);
                memmove(model, model + size, length - size);
                length -= size;
                left_whole += whole;
                events -= whole;
            } else {
                cleared += outq_clear(&q);
                length = events = 0;
            }
            assert_shape(&q);
            assert_int_equal(outq_bytes(&q), length);
            assert_int_equal(outq_events(&q), events);
        }
        cleared += outq_clear(&q);
        assert_int_equal(pushed, left_whole + cleared);
        assert_true(left_whole > 1000 && cleared > 1000 && refused > 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_queue_has_nothing_to_send),
        cmocka_unit_test(test_events_are_sent_as_netstrings_in_order),
        cmocka_unit_test(test_events_are_sent_raw_in_order),
        cmocka_unit_test(test_each_event_given_is_counted_once),
        cmocka_unit_test(test_no_more_iovecs_are_set_than_there_is_room_for),
        cmocka_unit_test(test_sends_of_every_size_give_the_same_stream),
        cmocka_unit_test(test_a_send_that_stops_at_any_two_bytes_goes_on_from_there),
        cmocka_unit_test(test_the_rest_of_an_event_comes_first),
        cmocka_unit_test(test_a_queue_accepts_an_event_that_fits_to_the_byte),
        cmocka_unit_test(test_an_event_that_does_not_fit_changes_nothing),
        cmocka_unit_test(test_a_refused_event_makes_no_room),
        cmocka_unit_test(test_without_memory_nothing_is_queued),
        cmocka_unit_test(test_each_byte_sent_makes_room),
        cmocka_unit_test(test_queues_share_a_chunk_and_the_last_one_frees_it),
        cmocka_unit_test(test_a_chunk_may_wait_twice_in_one_queue),
        cmocka_unit_test(test_a_cleared_queue_releases_everything_and_can_be_used_again),
        cmocka_unit_test(test_only_a_half_sent_event_is_kept),
        cmocka_unit_test(test_without_memory_not_even_a_half_sent_event_is_kept),
        cmocka_unit_test(test_a_ring_that_grows_keeps_its_order),
        cmocka_unit_test(test_a_ring_goes_round_without_growing),
        cmocka_unit_test(test_a_large_ring_that_has_run_empty_is_freed_a_small_one_is_kept),
        cmocka_unit_test(test_random_use_gives_the_bytes_that_went_in),
    };
    return cmocka_run_group_tests_name("outq", tests, NULL, NULL);
}
