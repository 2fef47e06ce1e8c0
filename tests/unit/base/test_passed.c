/* Passed descriptors: which are kept, which are closed, and that closing one does not wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/passed.h"

#define LINGERS_S 600 /* far longer than a test may take */
#define TAKES_S 60

static int ends[2]; /* the sender's end, and evapid's */

static int set_up(void **state)
{
    (void)state;
    alarm(TAKES_S);
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
}

static int tear_down(void **state)
{
    (void)state;
    alarm(0);
    close(ends[0]);
    if (ends[1] >= 0)
        close(ends[1]);
    return 0;
}

/* A full TCP socket whose close waits for its peer. *peer: the end that reads nothing. */
static int make_lingering(int *peer)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
    char bytes[65536] = { 0 };
    const struct linger long_ = { .l_onoff = 1, .l_linger = LINGERS_S };
    const int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int full = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listening, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listening, 1), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(connect(full, (struct sockaddr *)&address, size), 0);
    *peer = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    close(listening);
    while (send(full, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        continue;
    assert_int_equal(setsockopt(full, SOL_SOCKET, SO_LINGER, &long_, sizeof(long_)), 0);
    return full;
}

static ssize_t pass(const int *fds, size_t count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(253 * sizeof(int))];
    } control = { 0 };
    char byte = 'x';
    struct iovec iov = { &byte, 1 };
    struct msghdr message = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    return sendmsg(ends[0], &message, MSG_NOSIGNAL);
}

/* Pass this many; then only the receiver has them. */
static void pass_lingering(size_t count, int peers[])
{
    int fds[253];
    for (size_t i = 0; i < count; i++)
        fds[i] = make_lingering(&peers[i]);
    assert_int_equal(pass(fds, count), 1);
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

static int lowest_free(void)
{
    const int lowest = dup(ends[0]);
    close(lowest);
    return lowest;
}

static void test_a_socket_that_lingers_is_closed_at_once(void **state)
{
    (void)state;
    int peer = -1;
    passed_close(make_lingering(&peer));
    close(peer);
}

static void test_what_is_no_socket_is_closed(void **state)
{
    (void)state;
    const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    passed_close(file);
    assert_int_equal(fcntl(file, F_GETFD), -1);
}

static void test_as_many_are_kept_as_there_is_room_for_and_the_others_closed_at_once(void **state)
{
    (void)state;
    int peers[5];
    int kept[2] = { -1, -1 };
    char bytes[8];
    bool curtailed = false;
    pass_lingering(5, peers);
    assert_int_equal(passed_receive(ends[1], bytes, sizeof(bytes), kept, 2, &curtailed), 1);
    assert_true(kept[0] >= 0 && kept[1] >= 0 && !curtailed);
    passed_close(kept[0]);
    passed_close(kept[1]);
    const int free_number = lowest_free();
    assert_true(free_number <= kept[0]);
    close_all(peers, 5);
}

static void test_as_many_as_a_message_has_are_taken(void **state)
{
    (void)state;
    int fds[253];
    char bytes[8];
    bool curtailed = false;
    for (size_t i = 0; i < 253; i++)
        fds[i] = STDERR_FILENO;
    const int before = lowest_free();
    assert_int_equal(pass(fds, 253), 1);
    assert_int_equal(passed_receive(ends[1], bytes, sizeof(bytes), NULL, 0, &curtailed), 1);
    assert_false(curtailed);
    assert_int_equal(lowest_free(), before);
}

static void test_those_that_find_no_room_are_told_of(void **state)
{
    (void)state;
    int kept[2] = { -1, -1 };
    char bytes[8];
    bool curtailed = false;
    struct rlimit all;
    const int both[2] = { STDERR_FILENO, STDERR_FILENO };
    assert_int_equal(pass(both, 2), 1);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    const struct rlimit one = { .rlim_cur = (rlim_t)lowest_free() + 1, .rlim_max = all.rlim_max };
    setrlimit(RLIMIT_NOFILE, &one);
    assert_int_equal(passed_receive(ends[1], bytes, sizeof(bytes), kept, 2, &curtailed), 1);
    setrlimit(RLIMIT_NOFILE, &all);
    assert_true(curtailed);
    close(kept[0]);
    assert_int_equal(kept[1], -1);
}

static void test_nothing_to_receive_is_not_waited_for(void **state)
{
    (void)state;
    char bytes[8];
    bool curtailed = false;
    assert_int_equal(passed_receive(ends[1], bytes, sizeof(bytes), NULL, 0, &curtailed), -1);
    assert_int_equal(errno, EAGAIN);
}

static void test_a_connection_ends_at_once_with_all_that_waits_in_it(void **state)
{
    (void)state;
    int peers[6];
    for (size_t i = 0; i < 6; i += 2)
        pass_lingering(2, peers + i);
    const int was = ends[1];
    passed_end(ends[1]);
    ends[1] = -1;
    assert_int_equal(fcntl(was, F_GETFD), -1);
    close_all(peers, 6);
}

/* The last bytes that evapid sent are still read. */
static void test_a_connection_that_ends_leaves_what_was_sent(void **state)
{
    (void)state;
    char bytes[8] = { 0 };
    assert_int_equal(send(ends[1], "last", 4, 0), 4);
    assert_int_equal(send(ends[0], "unread", 6, 0), 6);
    passed_end(ends[1]);
    ends[1] = -1;
    assert_int_equal(recv(ends[0], bytes, sizeof(bytes), 0), 4);
    assert_string_equal(bytes, "last");
    assert_int_equal(recv(ends[0], bytes, sizeof(bytes), 0), 0);
}

/* A kernel with SO_PASSRIGHTS (6.16) accepts none then; an earlier one accepts all. */
static void test_none_is_taken_where_none_is_allowed(void **state)
{
    (void)state;
    const int fd = STDERR_FILENO;
    int value = 0;
    socklen_t size = sizeof(value);
    if (getsockopt(ends[1], SOL_SOCKET, 83, &value, &size) != 0)
        skip();
    passed_allow(ends[1], false);
    assert_int_equal(pass(&fd, 1), -1);
    assert_int_equal(errno, EPERM);
    passed_allow(ends[1], true);
    assert_int_equal(pass(&fd, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_socket_that_lingers_is_closed_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_socket_is_closed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_as_many_are_kept_as_there_is_room_for_and_the_others_closed_at_once,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_as_many_as_a_message_has_are_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_those_that_find_no_room_are_told_of, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_to_receive_is_not_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_connection_ends_at_once_with_all_that_waits_in_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_connection_that_ends_leaves_what_was_sent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_none_is_taken_where_none_is_allowed, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
