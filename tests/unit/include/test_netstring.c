/* Netstrings: the result of a scan for every stream, however it is cut, and the headers that evapid writes.
 *
 * The memory after a stream's last byte cannot be read: looking too far ends the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "evapid/netstring.h"

#define ANY SIZE_MAX /* no limit but the number of digits of a length */

/* ---- memory that ends where a text ends -------------------------------------------------------------------------- */

#define WINDOW ((size_t)1 << 20)

static char *window_end; /* first byte that cannot be read */

static int open_window(void **state)
{
    (void)state;
    char *window = mmap(NULL, WINDOW + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (window == MAP_FAILED)
        return -1;
    window_end = window + WINDOW;
    return mprotect(window_end, 4096, PROT_NONE);
}

static int close_window(void **state)
{
    (void)state;
    return munmap(window_end - WINDOW, WINDOW + 4096);
}

static enum netstring_status scan(const void *bytes, size_t len, size_t limit, struct netstring *out)
{
    assert_true(len <= WINDOW);
    char *place = window_end - len;
    memcpy(place, bytes, len);
    memset(out, 0x5a, sizeof(*out));
    return netstring_scan(place, len, limit, out);
}

/* ---- a client's input, cut into pieces --------------------------------------------------------------------------- */

/* The result of scanning a stream: its frames as "[payload]", and how the scan stopped. */
struct transcript {
    char text[512];
    size_t length;
    enum netstring_status status; /* MORE, or the error */
    size_t consumed;              /* bytes of the stream before those that status is about */
    size_t at;                    /* errors: offset in the stream */
};

static void transcript_add(struct transcript *t, const void *bytes, size_t len)
{
    assert_true(len <= sizeof(t->text) - t->length);
    memcpy(t->text + t->length, bytes, len);
    t->length += len;
}

/* Scan the stream's first len bytes from where t stopped, and add every frame to t. */
static void transcript_feed(struct transcript *t, const char *stream, size_t len, size_t limit)
{
    for (;;) {
        struct netstring found;
        t->status = scan(stream + t->consumed, len - t->consumed, limit, &found);
        if (t->status == NETSTRING_MORE) {
            t->consumed += found.used;
            return;
        }
        if (t->status != NETSTRING_FRAME) {
            t->at = t->consumed + found.at;
            return;
        }
        assert_in_range(found.used, 3, len - t->consumed);
        assert_true(found.payload + found.length + 1 == window_end - (len - t->consumed) + found.used);
        transcript_add(t, "[", 1);
        transcript_add(t, found.payload, found.length);
        transcript_add(t, "]", 1);
        t->consumed += found.used;
    }
}

static bool transcript_over(const struct transcript *t)
{
    return t->status != NETSTRING_MORE && t->status != NETSTRING_FRAME;
}

/* ---- streams and their results ----------------------------------------------------------------------------------- */

struct stream {
    const char *bytes;
    size_t len;
    size_t limit;
    const char *frames;
    size_t frames_len;
    enum netstring_status status;
    size_t at;    /* errors: offset of the wrong byte */
    size_t known; /* errors: with so many bytes it must be known, without waiting for more */
};

#define GOOD(bytes, limit, frames)                                                                                     \
    {                                                                                                                  \
        bytes, sizeof(bytes) - 1, limit, frames, sizeof(frames) - 1, NETSTRING_MORE, 0, 0                              \
    }
#define BAD(bytes, limit, frames, why, at, known)                                                                      \
    {                                                                                                                  \
        bytes, sizeof(bytes) - 1, limit, frames, sizeof(frames) - 1, why, at, known                                    \
    }

static const struct stream streams[] = {
    GOOD("", ANY, ""),
    GOOD("0:,", ANY, "[]"),
    GOOD("0:,", 0, "[]"),
    GOOD("0:,0:,0:,", 0, "[][][]"),
    GOOD("1:a,", 1, "[a]"),
    GOOD("5:hello,", 5, "[hello]"),
    GOOD("5:hello,6: world,", ANY, "[hello][ world]"),
    GOOD("10:0123456789,", 10, "[0123456789]"),
    GOOD("12:0123456789AB,3:abc,", 12, "[0123456789AB][abc]"),
    /* White space before a frame, and after the last one. */
    GOOD(" 5:hello,", 5, "[hello]"),
    GOOD("5:hello,\r\n5:again,\r\n", 5, "[hello][again]"),
    GOOD(" \t\r\n \t\r\n3:a b,\n\n\n", 3, "[a b]"),
    GOOD("  \n", ANY, ""),
    /* The NUL that ends a C string, and zeros before a length: up to 20 digits. */
    GOOD("5:hello,\0"
         "5:again,\0",
         5, "[hello][again]"),
    GOOD("\0\n\0"
         "1:a,",
         1, "[a]"),
    GOOD("0005:hello,00000000000000000003:abc,", 5, "[hello][abc]"),
    GOOD("00:,01:a,", 1, "[][a]"),
    GOOD("00000000009999999999:", ANY, ""),
    /* Unfinished. */
    GOOD("5", ANY, ""),
    GOOD("5:", ANY, ""),
    GOOD("5:hell", ANY, ""),
    GOOD("5:hello", ANY, ""),
    GOOD("0:,0", ANY, "[]"),
    GOOD("0:,0:", ANY, "[]"),
    /* A payload may contain any bytes, even a frame. */
    GOOD("6:3:abc,,4:\n,:\n,", ANY, "[3:abc,][\n,:\n]"),
    GOOD("5:\0\0\xff\x80\0,1:\0,", ANY, "[\0\0\xff\x80\0][\0]"),
    GOOD("2:,,,2:::,1: ,", ANY, "[,,][::][ ]"),
    /* A wrong byte where a length should begin. */
    BAD(":", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    BAD(":a,", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    BAD(",", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    BAD("x", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    BAD("-1:a,", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    BAD("+1:a,", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    BAD("\0x", ANY, "", NETSTRING_BAD_LENGTH, 1, 2),
    BAD("1\0:a,", ANY, "", NETSTRING_BAD_LENGTH, 1, 2),
    BAD("\x16\x03\x01", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    BAD("{\"a\":1}", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    BAD("\v1:a,", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    BAD("\f1:a,", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    BAD(" \n :a,", ANY, "", NETSTRING_BAD_LENGTH, 3, 4),
    BAD("GET / HTTP/1.1\r\n", ANY, "", NETSTRING_BAD_LENGTH, 0, 1),
    /* A wrong byte within a length. White space is one. */
    BAD("1 :a,", ANY, "", NETSTRING_BAD_LENGTH, 1, 2),
    BAD("1\n:a,", ANY, "", NETSTRING_BAD_LENGTH, 1, 2),
    BAD("12x:", ANY, "", NETSTRING_BAD_LENGTH, 2, 3),
    BAD("1,a", ANY, "", NETSTRING_BAD_LENGTH, 1, 2),
    BAD("0x10:", ANY, "", NETSTRING_BAD_LENGTH, 1, 2),
    BAD("0 :,", ANY, "", NETSTRING_BAD_LENGTH, 1, 2),
    BAD("1/a,", ANY, "", NETSTRING_BAD_LENGTH, 1, 2),
    BAD("1;a,", ANY, "", NETSTRING_BAD_LENGTH, 1, 2),
    BAD("1\xb1:", ANY, "", NETSTRING_BAD_LENGTH, 1, 2),
    /* Leading zeros that make too many digits, or hide a length over the limit. */
    BAD("000000000000000000001:a,", ANY, "", NETSTRING_MANY_DIGITS, 20, 21),
    BAD("0000000000000000000000", ANY, "", NETSTRING_MANY_DIGITS, 20, 21),
    BAD("1:a, 000000000000000000005:hello,", ANY, "[a]", NETSTRING_MANY_DIGITS, 25, 26),
    BAD("0006:abcdef,", 5, "", NETSTRING_TOO_LONG, 0, 4),
    BAD("00000000010000000000:", ANY, "", NETSTRING_TOO_LONG, 0, 20),
    /* Lengths over the limit. The scan waits for no byte of the payload. */
    BAD("1:a,", 0, "", NETSTRING_TOO_LONG, 0, 1),
    BAD("6:abcdef,", 5, "", NETSTRING_TOO_LONG, 0, 1),
    BAD("11:", 10, "", NETSTRING_TOO_LONG, 0, 2),
    BAD("100:", 99, "", NETSTRING_TOO_LONG, 0, 3),
    BAD("1:a,  20:", 19, "[a]", NETSTRING_TOO_LONG, 6, 8),
    BAD("1234567", 1000, "", NETSTRING_TOO_LONG, 0, 4),
    BAD("10000000000:", ANY, "", NETSTRING_TOO_LONG, 0, 11),
    BAD("99999999999999999999999999999999", ANY, "", NETSTRING_TOO_LONG, 0, 11),
    BAD("18446744073709551617:a,", ANY, "", NETSTRING_TOO_LONG, 0, 11),
    /* A wrong byte where the comma should be. */
    BAD("0:a", ANY, "", NETSTRING_NO_COMMA, 2, 3),
    BAD("0::", ANY, "", NETSTRING_NO_COMMA, 2, 3),
    BAD("0:\n,", ANY, "", NETSTRING_NO_COMMA, 2, 3),
    BAD("3:abcd,", ANY, "", NETSTRING_NO_COMMA, 5, 6),
    BAD("4:abc,\n", ANY, "", NETSTRING_NO_COMMA, 6, 7),
    BAD(" 3:abc3:abc,", ANY, "", NETSTRING_NO_COMMA, 6, 7),
    BAD("5:hello,\r\n5:hello;", ANY, "[hello]", NETSTRING_NO_COMMA, 17, 18),
    BAD("1:\0\0", ANY, "", NETSTRING_NO_COMMA, 3, 4),
    /* Frames before an error count; frames after it do not. */
    BAD("0:,1:x,,1:y,", ANY, "[][x]", NETSTRING_BAD_LENGTH, 7, 8),
};

#define STREAMS (sizeof(streams) / sizeof(streams[0]))

static void assert_transcript(const struct stream *s, const struct transcript *t, size_t i, size_t j)
{
    if (t->length != s->frames_len || memcmp(t->text, s->frames, s->frames_len) != 0 || t->status != s->status ||
        (transcript_over(t) && t->at != s->at))
        fail_msg("stream %zu (\"%s\") cut at %zu and %zu: frames \"%.*s\", status %d at %zu", (size_t)(s - streams),
                 s->bytes, i, j, (int)t->length, t->text, (int)t->status, t->at);
}

/* Feed s in the pieces that end at first, second and its end. */
static void check_cut(const struct stream *s, size_t first, size_t second)
{
    const size_t ends[] = { first, second, s->len };
    struct transcript t = { .status = NETSTRING_MORE };
    for (size_t i = 0; i < 3 && !transcript_over(&t); i++)
        transcript_feed(&t, s->bytes, ends[i], s->limit);
    assert_transcript(s, &t, first, second);
}

static void test_a_stream_in_one_piece(void **state)
{
    (void)state;
    for (size_t i = 0; i < STREAMS; i++)
        check_cut(&streams[i], 0, 0);
}

static void test_a_stream_cut_at_every_two_places(void **state)
{
    (void)state;
    for (size_t i = 0; i < STREAMS; i++)
        for (size_t second = 0; second <= streams[i].len; second++)
            for (size_t first = 0; first <= second; first++)
                check_cut(&streams[i], first, second);
}

static void test_a_stream_byte_by_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < STREAMS; i++) {
        const struct stream *s = &streams[i];
        struct transcript t = { .status = NETSTRING_MORE };
        for (size_t len = 0; len <= s->len && !transcript_over(&t); len++)
            transcript_feed(&t, s->bytes, len, s->limit);
        assert_transcript(s, &t, 1, 1);
    }
}

/* A wrong byte is reported at that byte, without waiting for more. */
static void test_an_error_is_known_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < STREAMS; i++) {
        const struct stream *s = &streams[i];
        for (size_t len = 0; len <= s->len; len++) {
            struct transcript t = { .status = NETSTRING_MORE };
            transcript_feed(&t, s->bytes, len, s->limit);
            if (transcript_over(&t) != (s->known != 0 && len >= s->known))
                fail_msg("stream %zu (\"%s\"): status %d after %zu bytes", i, s->bytes, (int)t.status, len);
        }
    }
}

/* ---- what else a scan returns ------------------------------------------------------------------------------------ */

/* need is how much room the reader makes: none while the length is unknown, then exactly the frame. */
static void test_the_room_a_frame_needs(void **state)
{
    (void)state;
    static const char stream[] = " \r\n12:0123456789AB,";
    const size_t colon = 5, len = sizeof(stream) - 1;
    for (size_t n = 0; n < len; n++) {
        struct netstring found;
        assert_int_equal(scan(stream, n, 12, &found), NETSTRING_MORE);
        assert_int_equal(found.used, n < 3 ? n : 3);
        assert_int_equal(found.need, n <= colon ? 0 : len - 3);
    }
}

static void test_the_largest_length(void **state)
{
    (void)state;
    struct netstring found;
    assert_int_equal(scan("9999999999:", 11, ANY, &found), NETSTRING_MORE);
    assert_int_equal(found.need, 10000000011U);
    assert_int_equal(scan("9999999999:", 11, 9999999999U, &found), NETSTRING_MORE);
    assert_int_equal(scan("9999999999:", 11, 9999999998U, &found), NETSTRING_TOO_LONG);
    assert_int_equal(scan("10000000000:", 12, ANY, &found), NETSTRING_TOO_LONG);
}

static void test_the_status_of_every_first_byte(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        const char byte = (char)c;
        const bool space = c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\0', digit = c >= '0' && c <= '9';
        struct netstring found;
        assert_int_equal(netstring_is_space(byte), space);
        assert_int_equal(scan(&byte, 1, ANY, &found), space || digit ? NETSTRING_MORE : NETSTRING_BAD_LENGTH);
        if (space || digit)
            assert_int_equal(found.used, space ? 1 : 0);
    }
}

static void test_the_status_of_every_byte_within_a_length(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        const char bytes[] = { '7', (char)c };
        struct netstring found;
        const bool good = (c >= '0' && c <= '9') || c == ':';
        assert_int_equal(scan(bytes, 2, ANY, &found), good ? NETSTRING_MORE : NETSTRING_BAD_LENGTH);
        if (!good)
            assert_int_equal(found.at, 1);
    }
}

static void test_the_status_of_every_byte_after_a_payload(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        const char bytes[] = { '1', ':', 'a', (char)c };
        struct netstring found;
        assert_int_equal(scan(bytes, 4, ANY, &found), c == ',' ? NETSTRING_FRAME : NETSTRING_NO_COMMA);
    }
}

static void test_every_error_has_a_reason(void **state)
{
    (void)state;
    assert_string_equal(netstring_reason(NETSTRING_FRAME), "");
    assert_string_equal(netstring_reason(NETSTRING_MORE), "");
    for (enum netstring_status a = NETSTRING_BAD_LENGTH; a <= NETSTRING_NO_COMMA; a++) {
        assert_string_not_equal(netstring_reason(a), "");
        for (enum netstring_status b = NETSTRING_BAD_LENGTH; b < a; b++)
            assert_string_not_equal(netstring_reason(a), netstring_reason(b));
    }
}

/* ---- every short stream, against the definition ------------------------------------------------------------------ */

/* The definition, read independently: regular expressions match the header, and the rest is counted. */
static enum netstring_status by_definition(const regex_t *header, const regex_t *beginning, const char *s, size_t *used)
{
    regmatch_t match[2];
    *used = 0;
    if (regexec(header, s, 2, match, 0) != 0) {
        *used = strspn(s, " \n");
        return regexec(beginning, s, 0, NULL, 0) == 0 ? NETSTRING_MORE : NETSTRING_BAD_LENGTH;
    }
    const size_t length = strtoul(s + match[1].rm_so, NULL, 10), begin = (size_t)match[0].rm_eo;
    if (strlen(s) < begin + length + 1) {
        *used = strspn(s, " \n");
        return NETSTRING_MORE;
    }
    *used = begin + length + 1;
    return s[begin + length] == ',' ? NETSTRING_FRAME : NETSTRING_NO_COMMA;
}

static void check_against_definition(const regex_t *header, const regex_t *beginning, const char *s, size_t len)
{
    struct netstring found;
    size_t used;
    const enum netstring_status status = scan(s, len, ANY, &found);
    const enum netstring_status expected = by_definition(header, beginning, s, &used);
    if (status != expected)
        fail_msg("\"%s\": status %d, by the definition %d", s, (int)status, (int)expected);
    if ((status == NETSTRING_FRAME || status == NETSTRING_MORE) && found.used != used)
        fail_msg("\"%s\": used %zu, by the definition %zu", s, found.used, used);
}

static void test_every_short_stream_against_the_definition(void **state)
{
    (void)state;
    static const char alphabet[] = "012:,a \n";
    const size_t letters = sizeof(alphabet) - 1;
    regex_t header, beginning;
    assert_int_equal(regcomp(&header, "^[ \n]*([0-9]+):", REG_EXTENDED), 0);
    assert_int_equal(regcomp(&beginning, "^[ \n]*[0-9]*$", REG_EXTENDED), 0);
    char s[7] = "";
    for (size_t len = 0, count = 1; len <= 5; len++, count *= letters) {
        for (size_t n = 0; n < count; n++) {
            for (size_t i = 0, rest = n; i < len; i++, rest /= letters)
                s[i] = alphabet[rest % letters];
            check_against_definition(&header, &beginning, s, len);
        }
    }
    regfree(&header);
    regfree(&beginning);
}

/* ---- headers ----------------------------------------------------------------------------------------------------- */

static void check_header(size_t length)
{
    char out[NETSTRING_HEADER_MAX + 2], expected[32];
    memset(out, '#', sizeof(out));
    const size_t n = netstring_header(out, length);
    const int want = snprintf(expected, sizeof(expected), "%zu:", length);
    if (n != (size_t)want || memcmp(out, expected, n) != 0)
        fail_msg("header of %zu: \"%.*s\"", length, (int)n, out);
    for (size_t i = n; i < sizeof(out); i++)
        assert_int_equal(out[i], '#');
}

static void test_a_header_of_every_number_of_digits(void **state)
{
    (void)state;
    for (size_t length = 0; length < 20000; length++)
        check_header(length);
    for (size_t power = 10; power <= 1000000000; power *= 10) {
        check_header(power - 1);
        check_header(power);
        check_header(power + 1);
    }
    check_header(9999999999U);
}

/* Write a frame, and scan it with its own length as the limit, and with one byte less. */
static void check_round_trip(size_t length)
{
    char *frame = malloc(length + NETSTRING_HEADER_MAX + 1);
    assert_non_null(frame);
    const size_t header = netstring_header(frame, length);
    for (size_t i = 0; i < length; i++)
        frame[header + i] = (char)(i * 131 + length);
    frame[header + length] = ',';
    const size_t size = header + length + 1;
    struct netstring found;
    assert_int_equal(scan(frame, size, length, &found), NETSTRING_FRAME);
    assert_int_equal(found.used, size);
    assert_int_equal(found.length, length);
    assert_memory_equal(found.payload, frame + header, length);
    assert_int_equal(scan(frame, size - 1, length, &found), NETSTRING_MORE);
    assert_int_equal(found.need, size);
    if (length > 0)
        assert_int_equal(scan(frame, size, length - 1, &found), NETSTRING_TOO_LONG);
    free(frame);
}

static void test_a_round_trip_of_every_size(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1023, 1024, 4095, 4096, 9999, 10000, 65535, 65536, 99999, 100000, 999999, 1000000 };
    for (size_t length = 0; length <= 300; length++)
        check_round_trip(length);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        check_round_trip(sizes[i]);
}

/* Many frames of random bytes, with white space between them, in random pieces. */
static void test_a_long_stream_in_random_pieces(void **state)
{
    (void)state;
    enum { FRAMES = 2000, LONGEST = 400 };
    char *stream = malloc((size_t)FRAMES * (LONGEST + NETSTRING_HEADER_MAX + 8));
    size_t *begins = malloc(FRAMES * sizeof(*begins)), *lengths = malloc(FRAMES * sizeof(*lengths));
    assert_true(stream != NULL && begins != NULL && lengths != NULL);
    unsigned seed = 20240607;
    size_t len = 0;
    for (size_t i = 0; i < FRAMES; i++) {
        for (int spaces = rand_r(&seed) % 3; spaces > 0; spaces--)
            stream[len++] = " \t\r\n"[rand_r(&seed) % 4];
        lengths[i] = (size_t)(rand_r(&seed) % (LONGEST + 1));
        len += netstring_header(stream + len, lengths[i]);
        begins[i] = len;
        for (size_t j = 0; j < lengths[i]; j++)
            stream[len++] = (char)rand_r(&seed);
        stream[len++] = ',';
    }
    size_t frames = 0, consumed = 0;
    for (size_t arrived = 0; arrived < len;) {
        arrived += 1 + (size_t)(rand_r(&seed) % 700);
        if (arrived > len)
            arrived = len;
        struct netstring found;
        enum netstring_status status;
        while ((status = scan(stream + consumed, arrived - consumed, LONGEST, &found)) == NETSTRING_FRAME) {
            assert_true(frames < FRAMES);
            assert_int_equal(found.length, lengths[frames]);
            assert_memory_equal(found.payload, stream + begins[frames], lengths[frames]);
            consumed += found.used;
            frames++;
        }
        assert_int_equal(status, NETSTRING_MORE);
        consumed += found.used;
    }
    assert_int_equal(frames, FRAMES);
    assert_int_equal(consumed, len);
    free(lengths);
    free(begins);
    free(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_in_one_piece),
        cmocka_unit_test(test_a_stream_cut_at_every_two_places),
        cmocka_unit_test(test_a_stream_byte_by_byte),
        cmocka_unit_test(test_an_error_is_known_at_once),
        cmocka_unit_test(test_the_room_a_frame_needs),
        cmocka_unit_test(test_the_largest_length),
        cmocka_unit_test(test_the_status_of_every_first_byte),
        cmocka_unit_test(test_the_status_of_every_byte_within_a_length),
        cmocka_unit_test(test_the_status_of_every_byte_after_a_payload),
        cmocka_unit_test(test_every_error_has_a_reason),
        cmocka_unit_test(test_every_short_stream_against_the_definition),
        cmocka_unit_test(test_a_header_of_every_number_of_digits),
        cmocka_unit_test(test_a_round_trip_of_every_size),
        cmocka_unit_test(test_a_long_stream_in_random_pieces),
    };
    return cmocka_run_group_tests_name("netstring", tests, open_window, close_window);
}
