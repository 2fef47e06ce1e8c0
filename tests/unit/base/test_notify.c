/* Messages to the service manager: their form and order, and that evapid never waits for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/notify.h"

static int manager = -1; /* its end of the notify socket */
static int count;        /* sockets so far: each has another name */

/* What was last received. */
static struct {
    char text[512];
    int fd;
} got;

/* A service manager with its own name: in the file system, or abstract. */
static void begin(char first)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char name[64];
    const int size = snprintf(name, sizeof(name), "%c/tmp/notify-%d-%d", first, (int)getpid(), ++count);
    const char *path = first == '@' ? name : name + 1;
    const size_t length = (size_t)size - (first == '@' ? 0 : 1);
    memcpy(address.sun_path, path, length);
    if (first == '@')
        address.sun_path[0] = '\0';
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(
        bind(manager, (const struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)),
        0);
    setenv("NOTIFY_SOCKET", path, 1);
    assert_true(notify_open());
}

static void end(void)
{
    close(manager);
    const char *path = getenv("NOTIFY_SOCKET");
    if (path[0] == '/')
        unlink(path);
    notify_state("to nobody"); /* nothing is left for the next test */
    assert_false(notify_flush());
}

/* The next notice, or false. */
static bool receive(void)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = { got.text, sizeof(got.text) - 1 };
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    if (got.fd > 0)
        close(got.fd);
    got.fd = -1;
    const ssize_t n = recvmsg(manager, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return false;
    got.text[n] = '\0';
    const struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    if (c != NULL && c->cmsg_type == SCM_RIGHTS)
        memcpy(&got.fd, CMSG_DATA(c), sizeof(got.fd));
    return true;
}

static void assert_next(const char *text)
{
    notify_flush();
    assert_true(receive());
    assert_string_equal(got.text, text);
}

static void assert_no_more(void)
{
    assert_false(notify_flush());
    assert_false(receive());
}

static void test_a_notice_is_sent_at_once_and_in_its_form(void **state)
{
    (void)state;
    static const char kinds[] = { '/', '@' };
    for (size_t i = 0; i < sizeof(kinds); i++) {
        begin(kinds[i]);
        struct stat sent = { .st_ino = 0 };
        struct stat kept = { .st_ino = 0 };
        notify_state("READY=1\nSTATUS=workers attach at %s", "/run/k.sock");
        assert_next("READY=1\nSTATUS=workers attach at /run/k.sock");
        notify_alive();
        assert_next("WATCHDOG=1");
        assert_true(notify_keep(manager, "client-7"));
        assert_next("FDSTORE=1\nFDPOLL=0\nFDNAME=client-7");
        assert_true(got.fd >= 0 && fstat(got.fd, &kept) == 0 && fstat(manager, &sent) == 0);
        assert_int_equal(kept.st_ino, sent.st_ino);
        notify_forget("client-7");
        assert_next("FDSTOREREMOVE=1\nFDNAME=client-7");
        assert_int_equal(got.fd, -1);
        assert_no_more();
        end();
    }
}

static void test_without_a_service_manager_nothing_is_said(void **state)
{
    (void)state;
    static const char *const none[] = { NULL, "", "relative", "vsock:2:1234" };
    for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++) {
        if (none[i] != NULL)
            setenv("NOTIFY_SOCKET", none[i], 1);
        else
            unsetenv("NOTIFY_SOCKET");
        assert_false(notify_open());
        notify_state("READY=1");
        notify_alive();
        assert_true(notify_keep(0, "client-1"));
        notify_forget("client-1");
        assert_false(notify_flush());
        notify_drain(60000);
    }
}

/* Everything said while it is stopped arrives in order when it reads again. */
static void test_a_service_manager_that_stops_is_not_waited_for_and_hears_all_in_order(void **state)
{
    (void)state;
    enum { CLIENTS = 2000 };
    char name[32];
    begin('/');
    for (unsigned i = 0; i < CLIENTS; i++) {
        snprintf(name, sizeof(name), "client-%u", i);
        assert_true(notify_keep(manager, name));
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        char text[64];
        snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=client-%u", i);
        assert_next(text);
    }
    assert_no_more();
    end();
}

/* How many messages the socket accepts while nobody reads. */
static unsigned fill_with_clients(void)
{
    char name[32];
    unsigned clients = 0;
    for (; clients < 2000; clients++) {
        snprintf(name, sizeof(name), "filling-%u", clients);
        assert_true(notify_keep(manager, name));
    }
    return clients;
}

static void test_what_is_forgotten_before_it_was_heard_of_is_never_said(void **state)
{
    (void)state;
    begin('/');
    const unsigned clients = fill_with_clients();
    assert_true(notify_keep(manager, "client-1"));
    notify_forget("client-1");
    notify_forget("filling-0"); /* it has read this one */
    assert_true(notify_keep(manager, "ring"));
    for (unsigned i = 0; i < clients; i++) {
        char text[64];
        snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=filling-%u", i);
        assert_next(text);
    }
    assert_next("FDSTOREREMOVE=1\nFDNAME=filling-0");
    assert_next("FDSTORE=1\nFDPOLL=0\nFDNAME=ring");
    assert_no_more();
    end();
}

static void test_of_its_own_life_it_keeps_the_last_words_and_one_sign(void **state)
{
    (void)state;
    char text[64];
    begin('/');
    const unsigned clients = fill_with_clients();
    for (unsigned i = 0; i < 1000; i++) {
        notify_alive();
        notify_state("STATUS=%u", i);
    }
    for (unsigned i = 0; i < clients; i++) {
        notify_flush();
        assert_true(receive());
    }
    assert_next("WATCHDOG=1");
    for (unsigned i = 1000 - NOTIFY_STATES; i < 1000; i++) {
        snprintf(text, sizeof(text), "STATUS=%u", i);
        assert_next(text);
    }
    assert_no_more();
    notify_alive();
    assert_next("WATCHDOG=1");
    end();
}

static void test_a_service_manager_that_has_gone_is_no_matter(void **state)
{
    (void)state;
    begin('/');
    end();
    for (unsigned i = 0; i < 3; i++) {
        notify_state("READY=1");
        notify_alive();
        assert_true(notify_keep(STDERR_FILENO, "client-1"));
        notify_forget("client-1");
        assert_false(notify_flush());
    }
}

static void test_settling_ends_when_all_was_read_and_the_barrier_is_closed(void **state)
{
    (void)state;
    begin('/');
    const unsigned clients = fill_with_clients();
    const pid_t reader = fork();
    if (reader == 0) {
        unsigned heard = 0;
        do {
            struct pollfd readable = { .fd = manager, .events = POLLIN };
            poll(&readable, 1, 60000);
        } while (receive() && (heard++ < clients || strcmp(got.text, "BARRIER=1") != 0));
        _exit(heard == clients + 1 && got.fd >= 0 ? 0 : 1);
    }
    assert_true(reader > 0);
    notify_drain(60000);
    int status = -1;
    assert_int_equal(waitpid(reader, &status, 0), reader);
    assert_int_equal(status, 0);
    assert_no_more();
    end();
}

static void test_settling_waits_no_longer_than_said(void **state)
{
    (void)state;
    begin('/');
    fill_with_clients();
    notify_drain(1);
    while (receive())
        continue;
    assert_no_more();
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_notice_is_sent_at_once_and_in_its_form),
        cmocka_unit_test(test_without_a_service_manager_nothing_is_said),
        cmocka_unit_test(test_a_service_manager_that_stops_is_not_waited_for_and_hears_all_in_order),
        cmocka_unit_test(test_what_is_forgotten_before_it_was_heard_of_is_never_said),
        cmocka_unit_test(test_of_its_own_life_it_keeps_the_last_words_and_one_sign),
        cmocka_unit_test(test_a_service_manager_that_has_gone_is_no_matter),
        cmocka_unit_test(test_settling_ends_when_all_was_read_and_the_barrier_is_closed),
        cmocka_unit_test(test_settling_waits_no_longer_than_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
