/* Does the process at the other end of a Unix socket live? As this kernel reports it, and as an older one would. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* What the pretended kernel does not know, or does not report. */
static bool no_peerpidfd, no_pid;

static int limited_getsockopt(int fd, int level, int option, void *value, socklen_t *size);

#define getsockopt limited_getsockopt
#include "../../../daemon/base/lifetime.c" /* NOLINT(bugprone-suspicious-include): with our getsockopt */
#undef getsockopt

static int limited_getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
    if (option == SO_PEERPIDFD && no_peerpidfd) {
        errno = ENOPROTOOPT;
        return -1;
    }
    const int said = getsockopt(fd, level, option, value, size);
    if (option == SO_PEERCRED && no_pid)
        ((struct ucred *)value)->pid = 0;
    return said;
}

static struct {
    uv_loop_t loop;
    struct lifetime lifetime;
    pid_t pid;
    int fd; /* that process has connected its other end, and we hold it too */
    int held;
    unsigned ends;
} t;

static void on_end(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    assert_ptr_equal(poll->data, &t);
    t.ends++;
    lifetime_forget(&t.lifetime);
}

/* A socket pair has the credentials of its maker: so the child makes it and passes both ends. */
static void send_pair(int to)
{
    int pair[2];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(pair))];
    } control = { 0 };
    struct iovec iov = { "x", 1 };
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        _exit(1);
    control.align =
        (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(pair)) };
    memcpy(CMSG_DATA(&control.align), pair, sizeof(pair));
    sendmsg(to, &message, 0);
}

static void receive_pair(int from)
{
    int pair[2];
    char byte;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(pair))];
    } control = { 0 };
    struct iovec iov = { &byte, 1 };
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    assert_int_equal(recvmsg(from, &message, MSG_CMSG_CLOEXEC), 1);
    memcpy(pair, CMSG_DATA(&control.align), sizeof(pair));
    t.fd = pair[0];
    t.held = pair[1];
}

static int open_peer(void **state)
{
    (void)state;
    int between[2];
    no_peerpidfd = no_pid = false;
    t.ends = 0;
    t.lifetime = (struct lifetime){ .pidfd = -1 };
    assert_int_equal(uv_loop_init(&t.loop), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, between), 0);
    t.pid = fork();
    if (t.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        send_pair(between[1]);
        for (;;)
            pause();
    }
    receive_pair(between[0]);
    close(between[0]);
    close(between[1]);
    return 0;
}

static void end_process(void)
{
    if (t.pid <= 0)
        return;
    kill(t.pid, SIGKILL);
    assert_int_equal(waitpid(t.pid, NULL, 0), t.pid);
    t.pid = 0;
}

static int close_peer(void **state)
{
    (void)state;
    end_process();
    lifetime_forget(&t.lifetime);
    uv_run(&t.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&t.loop), 0);
    close(t.fd);
    close(t.held);
    return 0;
}

static enum lifetime_sight look(void)
{
    return lifetime_watch(&t.lifetime, &t.loop, t.fd, on_end, &t);
}

static void check_end_is_noticed(void)
{
    assert_int_equal(lifetime_pid(t.fd), t.pid);
    assert_int_equal(look(), LIFETIME_WATCHED);
    const int pidfd = t.lifetime.pidfd;
    assert_int_equal(look(), LIFETIME_WATCHED);
    assert_int_equal(t.lifetime.pidfd, pidfd);
    assert_true(uv_run(&t.loop, UV_RUN_NOWAIT) != 0);
    assert_int_equal(t.ends, 0);
    end_process();
    uv_run(&t.loop, UV_RUN_DEFAULT);
    assert_int_equal(t.ends, 1);
    assert_int_equal(t.lifetime.pidfd, -1);
}

static void test_the_end_of_the_process_is_noticed_though_its_socket_is_held(void **state)
{
    (void)state;
    check_end_is_noticed();
}

static void test_likewise_by_its_number_where_the_kernel_has_no_peerpidfd(void **state)
{
    (void)state;
    no_peerpidfd = true;
    check_end_is_noticed();
}

/* As in another pid namespace: only the socket shows the end. */
static void test_a_process_without_a_number_is_not_seen(void **state)
{
    (void)state;
    no_peerpidfd = no_pid = true;
    assert_int_equal(look(), LIFETIME_UNSEEN);
    end_process();
    assert_int_equal(look(), LIFETIME_UNSEEN);
    assert_int_equal(t.lifetime.pidfd, -1);
}

static void test_a_process_that_has_ended_before_is_known_to_have(void **state)
{
    (void)state;
    no_peerpidfd = true;
    end_process();
    assert_int_equal(look(), LIFETIME_ENDED);
}

/* A newer kernel has a descriptor of it nevertheless, which shows the end at once; an older one has none. */
static void test_likewise_where_the_kernel_has_peerpidfd(void **state)
{
    (void)state;
    end_process();
    const enum lifetime_sight sight = look();
    assert_true(sight == LIFETIME_ENDED || sight == LIFETIME_WATCHED);
    uv_run(&t.loop, UV_RUN_DEFAULT);
    assert_int_equal(t.ends, sight == LIFETIME_WATCHED);
}

static void test_one_that_is_forgotten_is_not_heard_of(void **state)
{
    (void)state;
    assert_int_equal(look(), LIFETIME_WATCHED);
    lifetime_forget(&t.lifetime);
    end_process();
    uv_run(&t.loop, UV_RUN_DEFAULT);
    assert_int_equal(t.ends, 0);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, open_peer, close_peer)
    const struct CMUnitTest tests[] = {
        TEST(test_the_end_of_the_process_is_noticed_though_its_socket_is_held),
        TEST(test_likewise_by_its_number_where_the_kernel_has_no_peerpidfd),
        TEST(test_a_process_without_a_number_is_not_seen),
        TEST(test_a_process_that_has_ended_before_is_known_to_have),
        TEST(test_likewise_where_the_kernel_has_peerpidfd),
        TEST(test_one_that_is_forgotten_is_not_heard_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
