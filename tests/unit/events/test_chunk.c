/* Chunks: framed events one after the other, where each ends, and how long a chunk lives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "events/chunk.h"
#include "events/run.h"
#include "memory.h"

/* Payload lengths at which a netstring's length gets another digit, and a large one. */
static const size_t lengths[] = { 0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10000, 99999, 100000, 1U << 20 };

#define LENGTHS (sizeof(lengths) / sizeof(*lengths))

static const enum framing framings[] = { FRAMING_NETSTRING, FRAMING_RAW };

/* A payload with every value of a byte, in two parts. The first part has so many bytes. */
static struct payload payload_in_two(size_t length, size_t first)
{
    static char bytes[1U << 20];
    assert_true(length <= sizeof(bytes) && first <= length);
    for (size_t i = 0; i < length; i++)
        bytes[i] = (char)(i * 31 + 7);
    return (struct payload){ .part = { bytes, bytes + first }, .length = { first, length - first } };
}

static struct chunk *make_chunk(enum framing framing, size_t length)
{
    const struct payload payload = payload_in_two(length, length / 3);
    struct chunk *chunk = chunk_of_event(framing, &payload);
    assert_non_null(chunk);
    return chunk;
}

static void assert_payload(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != (char)(i * 31 + 7))
            fail_msg("byte %zu of a payload of %zu is wrong", i, length);
}

/* ---- a chunk of one event ------------------------------------------------------------------------------------------ */

static void test_netstring_framing_shows_length_colon_payload_and_comma(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++) {
        char header[32];
        const size_t digits = (size_t)snprintf(header, sizeof(header), "%zu:", lengths[i]);
        struct chunk *chunk = make_chunk(FRAMING_NETSTRING, lengths[i]);
        assert_int_equal(framing_size(FRAMING_NETSTRING, lengths[i]), digits + lengths[i] + 1);
        assert_int_equal(chunk->used, digits + lengths[i] + 1);
        assert_int_equal(chunk->events, 1);
        assert_memory_equal(chunk->bytes, header, digits);
        assert_payload(chunk->bytes + digits, lengths[i]);
        assert_int_equal(chunk->bytes[digits + lengths[i]], ',');
        chunk_unref(chunk);
    }
}

static void test_raw_framing_shows_the_payload_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++) {
        struct chunk *chunk = make_chunk(FRAMING_RAW, lengths[i]);
        assert_int_equal(framing_size(FRAMING_RAW, lengths[i]), lengths[i]);
        assert_int_equal(chunk->used, lengths[i]);
        assert_payload(chunk->bytes, lengths[i]);
        chunk_unref(chunk);
    }
}

/* A payload that passes the end of the ring comes in two parts, split anywhere. */
static void test_a_payload_in_two_parts_is_one(void **state)
{
    (void)state;
    for (size_t length = 0; length < 30; length++)
        for (size_t first = 0; first <= length; first++) {
            const struct payload payload = payload_in_two(length, first);
            struct chunk *netstring = chunk_of_event(FRAMING_NETSTRING, &payload);
            struct chunk *raw = chunk_of_event(FRAMING_RAW, &payload);
            assert_true(netstring != NULL && raw != NULL);
            assert_payload(netstring->bytes + (length < 10 ? 2 : 3), length);
            assert_payload(raw->bytes, length);
            chunk_unref(netstring);
            chunk_unref(raw);
        }
}

/* A client that reads netstrings finds one whole frame with the payload. */
static void test_a_scan_finds_the_event(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++) {
        struct chunk *chunk = make_chunk(FRAMING_NETSTRING, lengths[i]);
        struct netstring found;
        assert_int_equal(netstring_scan(chunk->bytes, chunk->used, lengths[i], &found), NETSTRING_FRAME);
        assert_int_equal(found.used, chunk->used);
        assert_int_equal(found.length, lengths[i]);
        assert_payload(found.payload, lengths[i]);
        chunk_unref(chunk);
    }
}

/* The sanitizers notice a chunk that is freed early, or never. */
static void test_a_chunk_lives_as_long_as_its_last_reference(void **state)
{
    (void)state;
    struct chunk *chunk = make_chunk(FRAMING_RAW, 100);
    assert_int_equal(chunk->refs, 1);
    for (unsigned i = 0; i < 1000; i++)
        assert_ptr_equal(chunk_ref(chunk), chunk);
    assert_int_equal(chunk->refs, 1001);
    for (unsigned i = 0; i < 1000; i++)
        chunk_unref(chunk);
    assert_int_equal(chunk->refs, 1);
    assert_payload(chunk->bytes, 100);
    chunk_unref(chunk);
}

static void test_framings_have_names(void **state)
{
    (void)state;
    assert_string_equal(framing_name(FRAMING_NETSTRING), "netstring");
    assert_string_equal(framing_name(FRAMING_RAW), "raw");
}

/* ---- room ---------------------------------------------------------------------------------------------------------- */

static struct chunk *new_chunk(size_t room, size_t size)
{
    struct chunk *chunk = chunk_new(room, size);
    assert_non_null(chunk);
    assert_int_equal(chunk->refs, 1);
    assert_int_equal(chunk->used, 0);
    assert_int_equal(chunk->events, 0);
    assert_int_equal(chunk->pins, 0);
    assert_null(chunk->next);
    return chunk;
}

/* Append a raw event of size bytes, all equal to with. */
static void append(struct chunk *chunk, size_t size, char with)
{
    static char bytes[2 * RUN_CHUNK];
    memset(bytes, with, size);
    const struct payload payload = { .part = { bytes, bytes + size }, .length = { size, 0 } };
    assert_true(chunk_fits(chunk, size));
    chunk_append(chunk, FRAMING_RAW, &payload, size);
}

static void test_a_chunk_has_the_room_that_was_asked_for(void **state)
{
    (void)state;
    for (size_t room = 0; room <= 64; room += 4)
        for (size_t size = 1; size <= 80; size++) {
            struct chunk *chunk = new_chunk(room, size);
            const size_t least = size + sizeof(struct chunk_end);
            assert_true(chunk->room >= room && chunk->room >= least);
            assert_true(chunk->room < (room > least ? room : least) + sizeof(uint32_t));
            assert_int_equal(chunk->room % sizeof(uint32_t), 0); /* so the ends behind it are aligned */
            assert_true(chunk_fits(chunk, size));
            assert_true(chunk_fits(chunk, chunk->room - sizeof(struct chunk_end)));
            assert_false(chunk_fits(chunk, chunk->room - sizeof(struct chunk_end) + 1));
            assert_false(chunk_fits(chunk, SIZE_MAX));
            chunk_unref(chunk);
        }
}

/* The event and the note of its end fill the chunk, so nothing more fits. */
static void test_an_event_may_have_exactly_the_room(void **state)
{
    (void)state;
    struct chunk *chunk = new_chunk(RUN_CHUNK, 1);
    assert_int_equal(chunk->room, RUN_CHUNK);
    append(chunk, RUN_CHUNK - sizeof(struct chunk_end), 'x');
    assert_int_equal(chunk->used, RUN_CHUNK - sizeof(struct chunk_end));
    assert_false(chunk_fits(chunk, 0));
    assert_int_equal(chunk_events_before(chunk, chunk->used), 1);
    assert_int_equal(chunk_events_before(chunk, chunk->used - 1), 0);
    for (size_t i = 0; i < chunk->used; i++)
        assert_int_equal(chunk->bytes[i], 'x');
    chunk_unref(chunk);
    chunk = new_chunk(RUN_CHUNK, RUN_CHUNK - sizeof(struct chunk_end));
    assert_int_equal(chunk->room, RUN_CHUNK);
    chunk_unref(chunk);
    chunk = new_chunk(RUN_CHUNK, RUN_CHUNK - sizeof(struct chunk_end) + 1);
    assert_int_equal(chunk->room, RUN_CHUNK + sizeof(uint32_t));
    chunk_unref(chunk);
}

static void test_an_event_too_large_for_any_chunk_gets_none(void **state)
{
    (void)state;
    assert_null(chunk_new(0, CHUNK_EVENT_MAX + 1));
    assert_null(chunk_new(RUN_CHUNK, SIZE_MAX));
    assert_null(chunk_new(RUN_CHUNK, SIZE_MAX - 8));
    const struct payload payload = { .part = { "", "" }, .length = { CHUNK_EVENT_MAX, 1 } };
    assert_null(chunk_of_event(FRAMING_RAW, &payload)); /* it is refused before a byte of it is read */
}

/* Bytes grow from the front and ends from the back. They never overlap. */
static void test_a_chunk_is_filled_from_both_sides(void **state)
{
    (void)state;
    for (size_t room = 4; room <= 400; room += 4)
        for (size_t size = 1; size <= 9; size++) {
            struct chunk *chunk = new_chunk(room, 1);
            uint32_t events = 0;
            for (; chunk_fits(chunk, size); events++)
                append(chunk, size, (char)('a' + events % 26));
            assert_int_equal(events, chunk->room / (size + sizeof(struct chunk_end)));
            assert_int_equal(chunk->events, events);
            assert_int_equal(chunk->used, events * size);
            for (size_t i = 0; i < chunk->used; i++)
                assert_int_equal(chunk->bytes[i], 'a' + i / size % 26);
            for (uint32_t i = 1; i <= events; i++)
                assert_int_equal(chunk_events_before(chunk, (uint32_t)(i * size)), i);
            chunk_unref(chunk);
        }
}

/* ---- where events end ---------------------------------------------------------------------------------------------- */

/* Put events of these sizes into one chunk. At every offset, the chunk knows how many have ended, and the end of the
 * next. */
static void check_offsets(const size_t *sizes, uint32_t events)
{
    struct chunk *chunk = new_chunk(RUN_CHUNK, 1);
    for (uint32_t i = 0; i < events; i++)
        append(chunk, sizes[i], 'x');
    uint32_t ended = 0;
    uint32_t begin = 0;
    for (uint32_t offset = 0; offset <= chunk->used; offset++) {
        if (ended < events && offset == begin + sizes[ended])
            begin += (uint32_t)sizes[ended++];
        assert_int_equal(chunk_events_before(chunk, offset), ended);
        assert_int_equal(chunk_event_end(chunk, offset), offset == begin ? offset : begin + sizes[ended]);
    }
    assert_int_equal(ended, events);
    assert_int_equal(chunk_events_before(chunk, 0), 0);
    assert_int_equal(chunk_events_before(chunk, chunk->used), events);
    assert_int_equal(chunk_event_end(chunk, chunk->used), chunk->used);
    chunk_unref(chunk);
}

static void test_whole_events_are_counted_at_every_offset(void **state)
{
    (void)state;
    size_t sizes[64] = { 0 };
    unsigned seed = 5;
    check_offsets(sizes, 0);
    for (uint32_t events = 1; events <= 64; events++)
        for (size_t most = 1; most <= 41; most += 8) {
            for (uint32_t i = 0; i < events; i++)
                sizes[i] = 1 + (size_t)rand_r(&seed) % most;
            check_offsets(sizes, events);
        }
}

/* Clients are in the middle of a chunk while more is appended. */
static void test_an_append_does_not_change_earlier_counts(void **state)
{
    (void)state;
    struct chunk *chunk = new_chunk(1024, 1);
    uint32_t ends[64];
    uint32_t events = 0;
    while (events < 64 && chunk_fits(chunk, events % 7 + 1)) {
        append(chunk, events % 7 + 1, (char)('a' + events % 26));
        ends[events++] = chunk->used;
        for (uint32_t i = 0; i < events; i++) {
            assert_int_equal(chunk_events_before(chunk, ends[i]), i + 1);
            assert_int_equal(chunk_events_before(chunk, ends[i] - 1), i);
            assert_int_equal(chunk_event_end(chunk, ends[i]), ends[i]);
            assert_int_equal(chunk->bytes[ends[i] - 1], 'a' + i % 26);
        }
    }
    assert_int_equal(events, 64);
    chunk_unref(chunk);
}

/* ---- no memory ----------------------------------------------------------------------------------------------------- */

static void test_without_memory_there_is_no_chunk(void **state)
{
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        const struct payload payload = payload_in_two(100, 50);
        memory_limit(0);
        struct chunk *room = chunk_new(RUN_CHUNK, 10);
        struct chunk *event = chunk_of_event(framings[f], &payload);
        const size_t refused = memory_refused();
        memory_limit(-1);
        assert_null(room);
        assert_null(event);
        assert_int_equal(refused, 2);
    }
}

/* Between any two offsets. The first event may have begun before the part does. */
static void test_a_part_is_a_chunk_of_its_own(void **state)
{
    (void)state;
    static const size_t sizes[] = { 3, 1, 12, 100, 7 };
    struct chunk *chunk = chunk_new(RUN_CHUNK, 0);
    assert_non_null(chunk);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        const struct payload payload = payload_in_two(sizes[i], 1);
        chunk_append(chunk, FRAMING_RAW, &payload, sizes[i]);
    }
    for (uint32_t from = 0; from < chunk->used; from++) {
        for (uint32_t to = from + 1; to <= chunk->used; to++) {
            uint32_t part_from = from;
            uint32_t part_to = to;
            if (chunk_event_end(chunk, to) != to)
                continue; /* a piece ends where an event ends */
            struct chunk *part = chunk_part(chunk, &part_from, &part_to);
            assert_non_null(part);
            assert_int_equal(part->refs, 1);
            assert_int_equal(part_to - part_from, to - from);
            assert_int_equal(part->used, part_to);
            assert_memory_equal(part->bytes + part_from, chunk->bytes + from, to - from);
            assert_int_equal(chunk_events_before(part, part_to) - chunk_events_before(part, part_from),
                             chunk_events_before(chunk, to) - chunk_events_before(chunk, from));
            assert_int_equal(chunk_event_end(part, part_from) - part_from, chunk_event_end(chunk, from) - from);
            assert_true(part->room < 200);
            chunk_unref(part);
        }
    }
    memory_limit(0);
    uint32_t from = 1;
    uint32_t to = 4;
    struct chunk *none = chunk_part(chunk, &from, &to);
    memory_limit(-1);
    assert_null(none);
    assert_true(from == 1 && to == 4);
    chunk_unref(chunk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_netstring_framing_shows_length_colon_payload_and_comma),
        cmocka_unit_test(test_raw_framing_shows_the_payload_alone),
        cmocka_unit_test(test_a_payload_in_two_parts_is_one),
        cmocka_unit_test(test_a_scan_finds_the_event),
        cmocka_unit_test(test_a_chunk_lives_as_long_as_its_last_reference),
        cmocka_unit_test(test_framings_have_names),
        cmocka_unit_test(test_a_chunk_has_the_room_that_was_asked_for),
        cmocka_unit_test(test_an_event_may_have_exactly_the_room),
        cmocka_unit_test(test_an_event_too_large_for_any_chunk_gets_none),
        cmocka_unit_test(test_a_chunk_is_filled_from_both_sides),
        cmocka_unit_test(test_whole_events_are_counted_at_every_offset),
        cmocka_unit_test(test_an_append_does_not_change_earlier_counts),
        cmocka_unit_test(test_without_memory_there_is_no_chunk),
        cmocka_unit_test(test_a_part_is_a_chunk_of_its_own),
    };
    return cmocka_run_group_tests_name("chunk", tests, NULL, NULL);
}
