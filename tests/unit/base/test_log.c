/* The log: the form of a line, how bytes that could forge one are shown, levels, and floods. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* ---- standard error, caught ---------------------------------------------------------------------------------------- */

#define CAUGHT_MAX 65536

static struct {
    int real, file; /* the original standard error; the file in its place */
    char text[CAUGHT_MAX];
} caught;

/* From now until end_catch lines go to a file; cmocka must not write meanwhile. */
static void begin_catch(void)
{
    caught.file = memfd_create("stderr", MFD_CLOEXEC);
    caught.real = dup(STDERR_FILENO);
    assert_true(caught.file >= 0 && caught.real >= 0);
    fflush(stderr);
    dup2(caught.file, STDERR_FILENO);
    log_open(log_level()); /* the next test has another standard error */
}

static const char *end_catch(void)
{
    fflush(stderr);
    dup2(caught.real, STDERR_FILENO);
    const ssize_t n = pread(caught.file, caught.text, sizeof(caught.text) - 1, 0);
    close(caught.real);
    close(caught.file);
    assert_true(n >= 0);
    caught.text[n] = '\0';
    return caught.text;
}

/* Begin anew: standard error is read by no journal, and lines of this level and of more important ones are written. */
static void open_plain(enum log_level level)
{
    unsetenv("JOURNAL_STREAM");
    log_open(level);
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    const bool matches = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    if (!matches)
        fail_msg("\"%s\" does not match %s", text, pattern);
}

#define TIME "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z"

static size_t count_lines(const char *text)
{
    size_t lines = 0;
    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

/* A line's text after its subject. */
static const char *told(const char *line, const char *subject)
{
    const char *at = strstr(line, subject);
    assert_non_null(at);
    at += strlen(subject);
    assert_memory_equal(at, ": ", 2);
    return at + 2;
}

/* ---- the form of a line ------------------------------------------------------------------------------------------ */

static const enum log_level levels[] = { LEVEL_ERROR, LEVEL_WARNING, LEVEL_NOTICE, LEVEL_INFO, LEVEL_DEBUG };
static const char *const names[] = { "error", "warning", "notice", "info", "debug" };

#define LEVELS (sizeof(levels) / sizeof(*levels))

static void test_levels_have_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < LEVELS; i++) {
        enum log_level level = LEVELS;
        assert_true(log_level_find(names[i], &level));
        assert_int_equal(level, levels[i]);
    }
}

static void test_a_name_of_no_level_is_not_found(void **state)
{
    (void)state;
    static const char *const unknown[] = { "", "err", "errors", "Error", "warn", "0", " info" };
    for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
        enum log_level level = LEVEL_NOTICE;
        assert_false(log_level_find(unknown[i], &level));
        assert_int_equal(level, LEVEL_NOTICE);
    }
}

static void test_a_line_is_time_level_subject_and_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < LEVELS; i++) {
        char pattern[256];
        open_plain(LEVEL_DEBUG);
        begin_catch();
        log_line(levels[i], "client 12", "%s port %u %s", "127.0.0.1", 4711U, "connected");
        const char *text = end_catch();
        snprintf(pattern, sizeof(pattern), "^" TIME " %s client 12: 127\\.0\\.0\\.1 port 4711 connected\n$", names[i]);
        assert_matches(text, pattern);
    }
}

/* In the first tenth of a second the milliseconds begin with zeros. */
static void test_milliseconds_have_three_digits(void **state)
{
    (void)state;
    enum { TENTH = 100000000, SECOND = 1000000000 };
    struct timespec before;
    struct timespec after;
    const char *text = NULL;
    open_plain(LEVEL_INFO);
    do {
        clock_gettime(CLOCK_REALTIME, &before);
        const struct timespec to_next = { 0, before.tv_nsec < TENTH ? 0 : SECOND - before.tv_nsec };
        nanosleep(&to_next, NULL);
        clock_gettime(CLOCK_REALTIME, &before);
        begin_catch();
        log_line(LEVEL_INFO, "x", "y");
        text = end_catch();
        clock_gettime(CLOCK_REALTIME, &after);
    } while (before.tv_nsec >= TENTH || after.tv_nsec >= TENTH || before.tv_sec != after.tv_sec);
    assert_matches(text, "T[0-9:]{8}\\.0[0-9]{2}Z info x: y\n$");
}

static void test_the_time_is_now_in_utc(void **state)
{
    (void)state;
    setenv("TZ", "Pacific/Kiritimati", 1); /* UTC+14 */
    tzset();
    open_plain(LEVEL_INFO);
    struct timespec before;
    struct timespec after;
    clock_gettime(CLOCK_REALTIME, &before);
    begin_catch();
    log_line(LEVEL_INFO, "x", "y");
    const char *text = end_catch();
    clock_gettime(CLOCK_REALTIME, &after);
    struct tm utc = { 0 };
    assert_int_equal(sscanf(text, "%d-%d-%dT%d:%d:%d.", &utc.tm_year, &utc.tm_mon, &utc.tm_mday, &utc.tm_hour,
                            &utc.tm_min, &utc.tm_sec),
                     6);
    utc.tm_year -= 1900;
    utc.tm_mon -= 1;
    const time_t written = timegm(&utc);
    unsetenv("TZ");
    tzset();
    assert_true(written >= before.tv_sec && written <= after.tv_sec);
}

/* Which of the five levels each filter lets pass. */
static void test_lines_below_the_level_are_not_written(void **state)
{
    (void)state;
    for (size_t most = 0; most < LEVELS; most++) {
        open_plain(levels[most]);
        begin_catch();
        for (size_t i = 0; i < LEVELS; i++)
            log_line(levels[i], "x", "level %zu", i);
        const char *text = end_catch();
        assert_int_equal(count_lines(text), most + 1);
        for (size_t i = 0; i < LEVELS; i++) {
            char name[32];
            snprintf(name, sizeof(name), " %s x: level %zu\n", names[i], i);
            assert_int_equal(strstr(text, name) != NULL, i <= most);
        }
    }
}

/* ---- bytes that are not text --------------------------------------------------------------------------------------- */

static const char *shown(const char *text)
{
    open_plain(LEVEL_INFO);
    begin_catch();
    log_line(LEVEL_INFO, "x", "%s", text);
    return told(end_catch(), "x");
}

static void test_every_byte_that_is_not_printable_ascii_is_shown_in_hex(void **state)
{
    (void)state;
    for (unsigned byte = 1; byte < 0x100; byte++) {
        const char text[] = { 'a', (char)byte, 'z', '\0' };
        char expected[16];
        snprintf(expected, sizeof(expected), byte < 0x20 || byte >= 0x7f ? "a\\x%02xz\n" : "a%cz\n", byte);
        assert_string_equal(shown(text), expected);
    }
}

static void test_a_line_cannot_be_forged(void **state)
{
    (void)state;
    assert_string_equal(shown("a\n2026-01-01T00:00:00.000Z error x: b\r\x1b[2J"),
                        "a\\x0a2026-01-01T00:00:00.000Z error x: b\\x0d\\x1b[2J\n");
}

static void test_a_long_text_is_cut_and_stays_one_line(void **state)
{
    (void)state;
    static char text[20000];
    memset(text, 'a', sizeof(text) - 1);
    const char *plain = shown(text);
    const size_t length = strlen(plain);
    assert_true(length > 512 && length < 4096);
    assert_int_equal(strspn(plain, "a"), length - 1);
    assert_int_equal(plain[length - 1], '\n');
}

/* Wherever the text is cut, a hex form stays whole. */
static void test_a_long_text_of_control_bytes_is_cut_between_two(void **state)
{
    (void)state;
    for (size_t letters = 0; letters < 4; letters++) {
        static char text[20000];
        memset(text, '\n', sizeof(text) - 1);
        memset(text, 'a', letters);
        const char *hex = shown(text) + letters;
        const size_t length = strlen(hex);
        assert_true(length > 512 && length < 4096);
        assert_int_equal(length % 4, 1);
        for (size_t i = 0; i + 1 < length; i += 4)
            assert_memory_equal(hex + i, "\\x0a", 4);
    }
}

/* ---- the journal --------------------------------------------------------------------------------------------------- */

/* Begin to catch, with JOURNAL_STREAM naming the file's device and inode, each changed by this much. */
static void begin_journal(unsigned long long device_off, unsigned long long inode_off)
{
    struct stat file;
    char stream[64];
    begin_catch();
    fstat(caught.file, &file);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)file.st_dev + device_off,
             (unsigned long long)file.st_ino + inode_off);
    setenv("JOURNAL_STREAM", stream, 1);
    log_open(LEVEL_DEBUG);
}

static void test_the_journal_gets_priorities_and_no_time(void **state)
{
    (void)state;
    for (size_t i = 0; i < LEVELS; i++) {
        char expected[64];
        begin_journal(0, 0);
        log_line(levels[i], "client 12", "said \"%s\"", "\n<0>forged");
        const char *text = end_catch();
        snprintf(expected, sizeof(expected), "<%zu>client 12: said \"\\x0a<0>forged\"\n", i + 3); /* LOG_ERR is 3 */
        assert_string_equal(text, expected);
    }
}

/* Standard error was redirected: the variable is still in the environment. */
static void test_a_journal_that_reads_another_stream_does_not_count(void **state)
{
    (void)state;
    static const unsigned long long off[][2] = { { 1, 0 }, { 0, 1 }, { 1, 1 } };
    for (size_t i = 0; i < 3; i++) {
        begin_journal(off[i][0], off[i][1]);
        log_line(LEVEL_ERROR, "x", "y");
        assert_matches(end_catch(), "^" TIME " error x: y\n$");
    }
}

static void test_a_journal_stream_that_is_nonsense_does_not_count(void **state)
{
    (void)state;
    static const char *const streams[] = { "", "x", "1", "1:", ":1", "-" };
    for (size_t i = 0; i < sizeof(streams) / sizeof(*streams); i++) {
        begin_catch();
        setenv("JOURNAL_STREAM", streams[i], 1);
        log_open(LEVEL_INFO);
        log_line(LEVEL_ERROR, "x", "y");
        assert_matches(end_catch(), "^" TIME " error x: y\n$");
    }
}

/* ---- bare lines ---------------------------------------------------------------------------------------------------- */

static void test_a_bare_line_is_the_text_alone(void **state)
{
    (void)state;
    open_plain(LEVEL_ERROR);
    begin_catch();
    log_bare(LEVEL_ERROR, "evapid.json:1:2: a\tb");
    assert_string_equal(end_catch(), "evapid.json:1:2: a\\x09b\n");
}

static void test_a_bare_line_has_its_priority_in_the_journal(void **state)
{
    (void)state;
    begin_journal(0, 0);
    log_bare(LEVEL_ERROR, "evapid.json:1:2: a\nb");
    assert_string_equal(end_catch(), "<3>evapid.json:1:2: a\\x0ab\n");
}

/* ---- floods -------------------------------------------------------------------------------------------------------- */

static void flood(struct log_limit *limit, enum log_level level, unsigned lines)
{
    for (unsigned i = 0; i < lines; i++)
        log_limited(limit, level, "client 1", "line %u", i);
}

/* Move the window's start back, so that it is over. */
static void end_window(struct log_limit *limit)
{
    limit->window_ms -= LOG_WINDOW_MS;
}

static void test_a_burst_is_written_and_the_rest_counted(void **state)
{
    (void)state;
    struct log_limit limit = { .kind = "clients: floods" };
    open_plain(LEVEL_INFO);
    begin_catch();
    flood(&limit, LEVEL_WARNING, LOG_BURST + 25);
    const char *text = end_catch();
    assert_int_equal(count_lines(text), LOG_BURST);
    assert_matches(text, "^" TIME " warning client 1: line 0\n");
    assert_matches(text, "line 9\n$");
    begin_catch();
    end_window(&limit);
    log_tick(false);
    text = end_catch();
    assert_matches(text, "^" TIME " warning clients: floods: 25 more such lines in 10 s were not written\n$");
}

static void test_a_burst_that_is_not_over_says_nothing_more(void **state)
{
    (void)state;
    struct log_limit limit = { .kind = "clients: floods" };
    open_plain(LEVEL_INFO);
    begin_catch();
    flood(&limit, LEVEL_WARNING, LOG_BURST);
    end_window(&limit);
    log_tick(false);
    log_tick(true);
    assert_int_equal(count_lines(end_catch()), LOG_BURST);
}

static void test_the_count_waits_for_the_window_s_end_or_our_own(void **state)
{
    (void)state;
    struct log_limit limit = { .kind = "clients: floods" };
    open_plain(LEVEL_INFO);
    begin_catch();
    flood(&limit, LEVEL_INFO, LOG_BURST + 3);
    end_catch();
    begin_catch();
    log_tick(false);
    assert_string_equal(end_catch(), "");
    begin_catch();
    log_tick(true);
    assert_matches(end_catch(), "^" TIME " info clients: floods: 3 more such lines in 10 s were not written\n$");
    begin_catch();
    log_tick(true);
    end_window(&limit);
    log_tick(false);
    assert_string_equal(end_catch(), "");
}

static void test_a_new_window_has_a_new_burst_and_a_new_count(void **state)
{
    (void)state;
    struct log_limit limit = { .kind = "clients: floods" };
    open_plain(LEVEL_INFO);
    for (unsigned round = 1; round <= 3; round++) {
        char pattern[128];
        begin_catch();
        flood(&limit, LEVEL_INFO, LOG_BURST + round);
        assert_int_equal(count_lines(end_catch()), LOG_BURST);
        begin_catch();
        end_window(&limit);
        log_tick(false);
        snprintf(pattern, sizeof(pattern), " info clients: floods: %u more such lines ", round);
        assert_matches(end_catch(), pattern);
    }
}

/* The window is over but its count is not written yet: the count comes first, then new lines. */
static void test_lines_are_withheld_until_the_count_is_written(void **state)
{
    (void)state;
    struct log_limit limit = { .kind = "clients: floods" };
    open_plain(LEVEL_INFO);
    begin_catch();
    flood(&limit, LEVEL_INFO, LOG_BURST + 1);
    end_window(&limit);
    flood(&limit, LEVEL_INFO, 2);
    assert_int_equal(count_lines(end_catch()), LOG_BURST);
    begin_catch();
    log_tick(false);
    flood(&limit, LEVEL_INFO, 1);
    assert_matches(end_catch(), "floods: 3 more such lines in 10 s were not written\n[^\n]*line 0\n$");
}

/* A window that withheld nothing ends by itself: lines that come slowly are all written. */
static void test_lines_that_come_slowly_are_all_written(void **state)
{
    (void)state;
    struct log_limit limit = { .kind = "clients: floods" };
    open_plain(LEVEL_INFO);
    begin_catch();
    for (unsigned i = 0; i < 5; i++) {
        flood(&limit, LEVEL_INFO, LOG_BURST);
        end_window(&limit);
    }
    assert_int_equal(count_lines(end_catch()), 5 * LOG_BURST);
}

static void test_each_kind_has_its_own_burst_and_count(void **state)
{
    (void)state;
    struct log_limit a = { .kind = "a" };
    struct log_limit b = { .kind = "b" };
    struct log_limit c = { .kind = "c" };
    open_plain(LEVEL_INFO);
    begin_catch();
    flood(&a, LEVEL_INFO, LOG_BURST + 1);
    flood(&b, LEVEL_WARNING, LOG_BURST + 2);
    flood(&c, LEVEL_ERROR, LOG_BURST + 3);
    assert_int_equal(count_lines(end_catch()), 3 * LOG_BURST);
    begin_catch();
    end_window(&b);
    log_tick(false);
    assert_matches(end_catch(), "^" TIME " warning b: 2 more such lines in 10 s were not written\n$");
    begin_catch();
    log_tick(true);
    const char *text = end_catch();
    assert_int_equal(count_lines(text), 2);
    assert_matches(text, " info a: 1 more ");
    assert_matches(text, " error c: 3 more ");
}

/* Lines below the level are neither written nor counted as withheld. */
static void test_lines_below_the_level_use_up_no_burst(void **state)
{
    (void)state;
    struct log_limit limit = { .kind = "clients: floods" };
    open_plain(LEVEL_NOTICE);
    begin_catch();
    flood(&limit, LEVEL_INFO, 100);
    log_tick(true);
    assert_string_equal(end_catch(), "");
    begin_catch();
    flood(&limit, LEVEL_NOTICE, LOG_BURST);
    assert_int_equal(count_lines(end_catch()), LOG_BURST);
    log_tick(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels_have_names),
        cmocka_unit_test(test_a_name_of_no_level_is_not_found),
        cmocka_unit_test(test_a_line_is_time_level_subject_and_text),
        cmocka_unit_test(test_milliseconds_have_three_digits),
        cmocka_unit_test(test_the_time_is_now_in_utc),
        cmocka_unit_test(test_lines_below_the_level_are_not_written),
        cmocka_unit_test(test_every_byte_that_is_not_printable_ascii_is_shown_in_hex),
        cmocka_unit_test(test_a_line_cannot_be_forged),
        cmocka_unit_test(test_a_long_text_is_cut_and_stays_one_line),
        cmocka_unit_test(test_a_long_text_of_control_bytes_is_cut_between_two),
        cmocka_unit_test(test_the_journal_gets_priorities_and_no_time),
        cmocka_unit_test(test_a_journal_that_reads_another_stream_does_not_count),
        cmocka_unit_test(test_a_journal_stream_that_is_nonsense_does_not_count),
        cmocka_unit_test(test_a_bare_line_is_the_text_alone),
        cmocka_unit_test(test_a_bare_line_has_its_priority_in_the_journal),
        cmocka_unit_test(test_a_burst_is_written_and_the_rest_counted),
        cmocka_unit_test(test_a_burst_that_is_not_over_says_nothing_more),
        cmocka_unit_test(test_the_count_waits_for_the_window_s_end_or_our_own),
        cmocka_unit_test(test_a_new_window_has_a_new_burst_and_a_new_count),
        cmocka_unit_test(test_lines_are_withheld_until_the_count_is_written),
        cmocka_unit_test(test_lines_that_come_slowly_are_all_written),
        cmocka_unit_test(test_each_kind_has_its_own_burst_and_count),
        cmocka_unit_test(test_lines_below_the_level_use_up_no_burst),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
