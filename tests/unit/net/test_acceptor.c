/* The acceptor: waiting connections are accepted, a limited number at a time, and a lack of descriptors is told apart
 * from other errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "net/acceptor.h"

#define PEERS 4

static int listening = -1, peers[PEERS], taken[PEERS + 1];
static unsigned count, stop_behind;
static struct sockaddr_storage last_peer;

static bool take(void *owner, int fd, const struct sockaddr_storage *peer)
{
    assert_ptr_equal(owner, &listening);
    taken[count++] = fd;
    last_peer = *peer;
    return count != stop_behind;
}

static int set_up(void **state)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
    (void)state;
    count = stop_behind = 0;
    listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listening, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listening, PEERS) != 0 ||
        getsockname(listening, (struct sockaddr *)&address, &size) != 0)
        return -1;
    for (int i = 0; i < PEERS; i++) {
        peers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(peers[i], (struct sockaddr *)&address, size) != 0)
            return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < count; i++)
        close(taken[i]);
    for (int i = 0; i < PEERS; i++)
        close(peers[i]);
    return close(listening);
}

static void test_all_who_wait_are_taken(void **state)
{
    struct sockaddr_in self;
    socklen_t size = sizeof(self);
    (void)state;
    assert_int_equal(acceptor_run(listening, 100, take, &listening), 0);
    assert_int_equal(count, PEERS);
    for (unsigned i = 0; i < count; i++) {
        assert_true((fcntl(taken[i], F_GETFL) & O_NONBLOCK) != 0);
        assert_true((fcntl(taken[i], F_GETFD) & FD_CLOEXEC) != 0);
    }
    assert_int_equal(getsockname(peers[PEERS - 1], (struct sockaddr *)&self, &size), 0);
    assert_memory_equal(&last_peer, &self, sizeof(self));
    assert_int_equal(acceptor_run(listening, 100, take, &listening), 0); /* nobody waits */
    assert_int_equal(count, PEERS);
}

static void test_no_more_are_taken_than_the_caller_wants(void **state)
{
    (void)state;
    assert_int_equal(acceptor_run(listening, 1, take, &listening), 0);
    assert_int_equal(count, 1);
    stop_behind = 3;
    assert_int_equal(acceptor_run(listening, 100, take, &listening), 0);
    assert_int_equal(count, 3);
    assert_int_equal(acceptor_run(listening, 100, take, &listening), 0);
    assert_int_equal(count, PEERS);
}

static void test_want_of_descriptors_is_told_and_nobody_is_lost(void **state)
{
    struct rlimit before, none;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){ .rlim_cur = 0, .rlim_max = before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const int error = acceptor_run(listening, 100, take, &listening);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(error, EMFILE);
    assert_int_equal(count, 0);
    assert_int_equal(acceptor_run(listening, 100, take, &listening), 0);
    assert_int_equal(count, PEERS);
}

static void test_what_is_no_listening_socket_is_told(void **state)
{
    (void)state;
    assert_int_equal(acceptor_run(peers[0], 100, take, &listening), EINVAL);
    assert_int_equal(count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_who_wait_are_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_more_are_taken_than_the_caller_wants, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_want_of_descriptors_is_told_and_nobody_is_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_listening_socket_is_told, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
