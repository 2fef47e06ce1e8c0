/* The outlet: lines for a reader that stops, for each kind of descriptor, and the reports of lines that did not fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/outlet.h"

#define PIPE_ROOM 4096
#define TEXT_MAX (1 << 20)

static struct outlet outlet;
static int ends[2]; /* the reader's end, and where lines are written */
static char text[TEXT_MAX];
static size_t length;

/* The kinds of descriptors. With each a plain write would block. */
enum kind { PIPE, PIPE_OF_ANOTHER, SOCKET, TERMINAL, TERMINAL_OF_ANOTHER, KINDS };

static void open_pipe(void)
{
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(fcntl(ends[1], F_SETPIPE_SZ, PIPE_ROOM), PIPE_ROOM);
}

static void open_terminal(void)
{
    ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(ends[0] >= 0 && grantpt(ends[0]) == 0 && unlockpt(ends[0]) == 0);
    ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY); /* NOLINT(concurrency-mt-unsafe) */
    assert_true(ends[1] >= 0);
}

static void begin(enum kind kind)
{
    outlet = (struct outlet){ 0 };
    length = 0;
    if (kind == SOCKET)
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    else if (kind == TERMINAL || kind == TERMINAL_OF_ANOTHER)
        open_terminal();
    else
        open_pipe();
    outlet_open(&outlet, ends[1]);
    if (kind == PIPE_OF_ANOTHER || kind == TERMINAL_OF_ANOTHER) { /* as if reopening were not allowed */
        close(outlet.fd);
        outlet.fd = ends[1];
        outlet.kind = OUTLET_SHARED;
    }
}

static void end(void)
{
    outlet_close(&outlet, 0);
    close(ends[0]);
    close(ends[1]);
}

/* Read everything that is there now. */
static void read_all(void)
{
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    for (ssize_t n = 0; (n = read(ends[0], text + length, sizeof(text) - 1 - length)) > 0;)
        length += (size_t)n;
    text[length] = '\0';
}

static void put_number(unsigned number)
{
    char line[64];
    outlet_put(&outlet, line, (size_t)snprintf(line, sizeof(line), "line %u of those that are written\n", number));
}

static bool tell(void)
{
    char line[64];
    const int size = snprintf(line, sizeof(line), "missing %llu\n", (unsigned long long)outlet.missed);
    return outlet_tell(&outlet, line, (size_t)size);
}

/* Every line from 0 on appears once, or is among those reported as missing. Returns the number after the last one. */
static unsigned follow(void)
{
    unsigned next = 0;
    for (char *rest = text, *line = NULL; (line = strsep(&rest, "\n")) != NULL && rest != NULL;) {
        unsigned number = 0;
        line[strcspn(line, "\r")] = '\0'; /* of a terminal */
        if (sscanf(line, "missing %u", &number) == 1) {
            next += number;
            continue;
        }
        assert_int_equal(sscanf(line, "line %u of those", &number), 1);
        assert_int_equal(number, next);
        next++;
    }
    return next;
}

static void test_a_line_is_written_at_once(void **state)
{
    (void)state;
    for (enum kind kind = PIPE; kind < KINDS; kind++) {
        begin(kind);
        put_number(0);
        assert_int_equal(outlet.used, 0);
        read_all();
        assert_int_equal(follow(), 1);
        end();
    }
}

static void test_a_reader_that_stops_and_goes_on_is_not_waited_for_and_gets_all_in_order(void **state)
{
    (void)state;
    enum { LINES = 20000 };
    for (enum kind kind = PIPE; kind < KINDS; kind++) {
        begin(kind);
        for (unsigned i = 0; i < LINES; i++)
            put_number(i);
        assert_true(outlet.missed > 0 && outlet.used > OUTLET_ROOM - 64);
        for (unsigned i = 0; i < LINES && (outlet.used > 0 || outlet.missed > 0); i++) {
            read_all();
            outlet_flush(&outlet);
            if (outlet.missed > 0)
                tell();
        }
        put_number(LINES);
        read_all();
        assert_int_equal(follow(), LINES + 1);
        end();
    }
}

/* Lines are missed again before the first report has been read. */
static void test_lines_that_are_missed_again_are_told_of_again(void **state)
{
    (void)state;
    unsigned number = 0;
    begin(PIPE);
    for (unsigned times = 0; times < 3; times++) {
        for (unsigned i = 0; i < 5000; i++)
            put_number(number++);
        assert_true(outlet.missed > 0);
        read_all();
        outlet_flush(&outlet);
        assert_true(tell());
    }
    while (outlet.used > 0) {
        read_all();
        outlet_flush(&outlet);
    }
    read_all();
    assert_int_equal(follow(), number);
    end();
}

static void test_what_is_written_to_a_pipe_is_whole_lines(void **state)
{
    (void)state;
    char piece[PIPE_BUF];
    begin(PIPE);
    for (unsigned i = 0; i < 1000; i++)
        put_number(i);
    for (unsigned i = 0; i < 1000 && outlet.used > 0; i++) {
        const ssize_t n = read(ends[0], piece, sizeof(piece));
        assert_true(n > 0);
        assert_int_equal(piece[n - 1], '\n');
        outlet_flush(&outlet);
    }
    end();
}

static void test_the_flags_of_what_others_share_stay_as_they_are(void **state)
{
    (void)state;
    for (enum kind kind = PIPE; kind < KINDS; kind++) {
        begin(kind);
        for (unsigned i = 0; i < 5000; i++)
            put_number(i);
        assert_int_equal(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
        end();
    }
}

static void test_lines_that_nobody_can_read_are_counted_and_told_of_later(void **state)
{
    (void)state;
    begin(PIPE);
    for (unsigned i = 0; i < 1000; i++)
        put_number(i);
    const unsigned waiting = (unsigned)(outlet.used > 0);
    assert_int_equal(waiting, 1);
    const int writes = dup(ends[1]);
    signal(SIGPIPE, SIG_IGN);
    close(ends[0]);
    outlet_flush(&outlet); /* EPIPE */
    assert_int_equal(outlet.used, 0);
    assert_true(outlet.missed > 800);
    const uint64_t missed = outlet.missed;
    assert_false(tell());
    assert_int_equal(outlet.missed, missed);
    put_number(1000);
    assert_int_equal(outlet.missed, missed + 1);
    outlet_close(&outlet, 0);
    close(writes);
    close(ends[1]);
}

static void test_a_full_disk_loses_lines_and_no_more(void **state)
{
    (void)state;
    const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    const int file = memfd_create("log", MFD_CLOEXEC);
    outlet = (struct outlet){ 0 };
    length = 0;
    assert_true(full >= 0 && file >= 0);
    outlet_open(&outlet, full);
    for (unsigned i = 0; i < 7; i++)
        put_number(i);
    assert_int_equal(outlet.missed, 7);
    outlet_open(&outlet, file); /* as if there were room again */
    assert_true(tell());
    put_number(7);
    length = (size_t)pread(file, text, sizeof(text) - 1, 0);
    text[length] = '\0';
    assert_int_equal(follow(), 8);
    outlet_close(&outlet, 0);
    close(full);
    close(file);
}

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* The file accepts only 10 bytes of the third line. */
static void test_a_disk_that_becomes_full_within_a_line_leaves_a_line_that_stands_by_itself(void **state)
{
    (void)state;
    const char *left = "line 0 of those that are written\nline 1 of those that are written\nline 2 of \n"
                       "missing 3\nline 5 of those that are written\n";
    const int file = memfd_create("log", MFD_CLOEXEC);
    outlet = (struct outlet){ 0 };
    assert_true(file >= 0);
    signal(SIGXFSZ, SIG_IGN);
    limit_files(2 * strlen("line 0 of those that are written\n") + 10);
    outlet_open(&outlet, file);
    for (unsigned i = 0; i < 5; i++)
        put_number(i);
    for (unsigned times = 0; times < 2; times++) {
        assert_false(tell());
        assert_int_equal(outlet.missed, 3);
    }
    limit_files(RLIM_INFINITY);
    assert_true(tell());
    put_number(5);
    length = (size_t)pread(file, text, sizeof(text) - 1, 0);
    text[length] = '\0';
    assert_string_equal(text, left);
    outlet_close(&outlet, 0);
    close(file);
}

static void test_a_line_longer_than_a_pipe_takes_whole_is_written_in_parts(void **state)
{
    (void)state;
    char line[3 * PIPE_BUF];
    begin(PIPE);
    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = '\n';
    outlet_put(&outlet, line, sizeof(line));
    while (outlet.used > 0) {
        read_all();
        outlet_flush(&outlet);
    }
    read_all();
    assert_int_equal(length, sizeof(line));
    assert_memory_equal(text, line, sizeof(line));
    end();
}

static void test_at_the_end_what_waits_is_written_if_it_is_taken(void **state)
{
    (void)state;
    begin(PIPE);
    for (unsigned i = 0; i < 1000; i++)
        put_number(i);
    assert_true(outlet.used > 0);
    const pid_t reader = fork();
    if (reader == 0) {
        char taken[PIPE_BUF];
        close(ends[1]);
        close(outlet.fd);
        while (read(ends[0], taken, sizeof(taken)) > 0)
            continue;
        _exit(0);
    }
    assert_true(reader > 0);
    outlet_close(&outlet, 60000);
    assert_int_equal(outlet.used, 0);
    end();
}

static void test_at_the_end_nobody_who_takes_nothing_is_waited_for_longer_than_said(void **state)
{
    (void)state;
    begin(PIPE);
    for (unsigned i = 0; i < 1000; i++)
        put_number(i);
    outlet_close(&outlet, 1);
    assert_true(outlet.used > 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_is_written_at_once),
        cmocka_unit_test(test_a_reader_that_stops_and_goes_on_is_not_waited_for_and_gets_all_in_order),
        cmocka_unit_test(test_lines_that_are_missed_again_are_told_of_again),
        cmocka_unit_test(test_what_is_written_to_a_pipe_is_whole_lines),
        cmocka_unit_test(test_the_flags_of_what_others_share_stay_as_they_are),
        cmocka_unit_test(test_lines_that_nobody_can_read_are_counted_and_told_of_later),
        cmocka_unit_test(test_a_full_disk_loses_lines_and_no_more),
        cmocka_unit_test(test_a_disk_that_becomes_full_within_a_line_leaves_a_line_that_stands_by_itself),
        cmocka_unit_test(test_a_line_longer_than_a_pipe_takes_whole_is_written_in_parts),
        cmocka_unit_test(test_at_the_end_what_waits_is_written_if_it_is_taken),
        cmocka_unit_test(test_at_the_end_nobody_who_takes_nothing_is_waited_for_longer_than_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
