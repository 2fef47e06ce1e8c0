/* Frames: the same bytes as each framing shows them, and how long they live. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"

/* Payload lengths at which a netstring's length gets another digit, and one large. */
static const size_t lengths[] = { 0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10000, 99999, 100000, 1U << 20 };

#define LENGTHS (sizeof(lengths) / sizeof(*lengths))

/* A payload of every byte there is. */
static struct frame *make_frame(size_t length)
{
    struct frame *frame = frame_new(length);
    assert_non_null(frame);
    for (size_t i = 0; i < length; i++)
        frame_payload(frame)[i] = (char)(i * 31 + 7);
    return frame;
}

static void assert_payload(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != (char)(i * 31 + 7))
            fail_msg("byte %zu of a payload of %zu is wrong", i, length);
}

static void test_netstring_framing_shows_length_colon_payload_and_comma(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++) {
        char header[32];
        const size_t digits = (size_t)snprintf(header, sizeof(header), "%zu:", lengths[i]);
        struct frame *frame = make_frame(lengths[i]);
        const char *start = frame_start(frame, FRAMING_NETSTRING);
        assert_int_equal(frame_size(frame, FRAMING_NETSTRING), digits + lengths[i] + 1);
        assert_memory_equal(start, header, digits);
        assert_payload(start + digits, lengths[i]);
        assert_int_equal(start[digits + lengths[i]], ',');
        frame_unref(frame);
    }
}

static void test_raw_framing_shows_the_payload_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++) {
        struct frame *frame = make_frame(lengths[i]);
        assert_int_equal(frame_size(frame, FRAMING_RAW), lengths[i]);
        assert_ptr_equal(frame_start(frame, FRAMING_RAW), frame_payload(frame));
        assert_payload(frame_start(frame, FRAMING_RAW), lengths[i]);
        frame_unref(frame);
    }
}

/* What a client reads as a netstring is one frame, whole, with that payload. */
static void test_a_frame_is_what_a_scan_finds(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++) {
        struct frame *frame = make_frame(lengths[i]);
        const char *start = frame_start(frame, FRAMING_NETSTRING);
        const size_t size = frame_size(frame, FRAMING_NETSTRING);
        struct netstring found;
        assert_int_equal(netstring_scan(start, size, lengths[i], &found), NETSTRING_FRAME);
        assert_int_equal(found.used, size);
        assert_int_equal(found.length, lengths[i]);
        assert_ptr_equal(found.payload, frame_payload(frame));
        frame_unref(frame);
    }
}

/* The sanitizers see to it that the last reference frees it, and none before. */
static void test_a_frame_lives_as_long_as_its_last_reference(void **state)
{
    (void)state;
    struct frame *frame = make_frame(100);
    assert_int_equal(frame->refs, 1);
    for (unsigned i = 0; i < 1000; i++)
        assert_ptr_equal(frame_ref(frame), frame);
    assert_int_equal(frame->refs, 1001);
    for (unsigned i = 0; i < 1000; i++)
        frame_unref(frame);
    assert_int_equal(frame->refs, 1);
    assert_payload(frame_payload(frame), 100);
    frame_unref(frame);
}

static void test_framings_have_names(void **state)
{
    (void)state;
    assert_string_equal(framing_name(FRAMING_NETSTRING), "netstring");
    assert_string_equal(framing_name(FRAMING_RAW), "raw");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_netstring_framing_shows_length_colon_payload_and_comma),
        cmocka_unit_test(test_raw_framing_shows_the_payload_alone),
        cmocka_unit_test(test_a_frame_is_what_a_scan_finds),
        cmocka_unit_test(test_a_frame_lives_as_long_as_its_last_reference),
        cmocka_unit_test(test_framings_have_names),
    };
    return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
