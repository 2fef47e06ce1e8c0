/* If the kernel refuses more watches (fs.epoll.max_user_watches, epoll(7)), libuv would end the process. A new client
 * is then closed; a connected one is watched again as soon as there is room. */
#include "bus/bus_rig.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

static bool crowded;

/* As the kernel does at its limit: refuses only new descriptors. libuv calls this function too. */
int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    const int done = (int)syscall(SYS_epoll_ctl, epfd, op, fd, event);
    if (!crowded || op != EPOLL_CTL_ADD || done != 0)
        return done;
    syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_DEL, fd, event);
    errno = ENOSPC;
    return -1;
}

static void test_a_client_that_cannot_be_watched_is_closed(void **state)
{
    (void)state;
    int ends[2];
    char byte;
    struct sockaddr_storage address;
    struct peer there = open_pair();
    assert_null(address_parse("127.0.0.1:1", &address));
    const struct remote remote = remote_of_address(&address);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    turn(); /* the loop already watches what it needs */
    crowded = true;
    assert_false(bus_connect(bus, ends[1], &remote, &netstring_limits, &listener));
    turn();
    crowded = false;
    assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 0);
    close(ends[0]);
    send_text(&there, "2:ok,");
    turn();
    assert_heard(1, "ok");
    hang_up(&there);
}

/* One was held back and is to be read again; one has lagged and is to be sent the rest. */
static void test_a_client_that_cannot_be_watched_is_watched_a_second_later(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = open_pair();
    up.take = 0;
    send_text(&a, "1:1,");
    turn();
    assert_true(client_has_waiting(a.client));
    up.take = -1;
    crowded = true;
    client_resume(a.client);
    assert_heard(1, "1");
    send_text(&a, "1:2,");
    send_text(&b, "5:other,");
    turn();
    assert_heard(1, "1");
    assert_heard(2, "other");
    bus_tick(bus);
    turn();
    assert_heard(1, "1");
    crowded = false;
    bus_tick(bus);
    turn();
    assert_heard(1, "1|2");
    hang_up(&a);
    hang_up(&b);
}

static void test_a_client_that_is_behind_is_sent_the_rest_though_it_could_not_be_watched(void **state)
{
    (void)state;
    struct peer a = far_behind();
    const uint64_t relayed = subscription_tally(a.client)->relayed;
    crowded = true;
    bus_readmit(bus, a.client);
    bus_admit(bus, a.client);
    turn();
    crowded = false;
    bus_tick(bus);
    char *got = malloc(16 << 20);
    assert_non_null(got);
    size_t length = 0;
    for (unsigned i = 0; i < 100000 && subscription_tally(a.client)->delivered < relayed; i++) {
        const ssize_t n = recv(a.fd, got, 16 << 20, MSG_DONTWAIT);
        length += n > 0 ? (size_t)n : 0;
        turn();
    }
    free(got);
    assert_true(length > 0);
    assert_int_equal(subscription_tally(a.client)->delivered, relayed);
    hang_up(&a);
}

static void on_never(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)status;
    (void)events;
}

/* If memory is short when its table must grow, libuv ends the process in uv_poll_start. */
static void test_memory_for_the_table_that_was_there_when_asked_is_there_when_needed(void **state)
{
    (void)state;
    uv_poll_t poll;
    const int low = eventfd(0, EFD_NONBLOCK);
    const int fd = fcntl(low, F_DUPFD, 900);
    close(low);
    assert_true(fd >= 900 && (unsigned)fd >= loop.nwatchers);
    memory_limit(0);
    assert_false(watch_has_room(&loop, fd));
    memory_limit(-1);
    assert_true(watch_has_room(&loop, fd));
    memory_limit(0);
    assert_int_equal(uv_poll_init(&loop, &poll, fd), 0);
    assert_int_equal(watch_start(&poll, UV_READABLE, on_never), 0);
    memory_limit(-1);
    assert_true((unsigned)fd < loop.nwatchers);
    uv_close((uv_handle_t *)&poll, NULL);
    turn();
    close(fd);
}

int main(void)
{
    watch_prepare();
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_a_client_that_cannot_be_watched_is_closed),
        WITH_BUS(test_a_client_that_cannot_be_watched_is_watched_a_second_later),
        WITH_BUS(test_a_client_that_is_behind_is_sent_the_rest_though_it_could_not_be_watched),
        WITH_BUS(test_memory_for_the_table_that_was_there_when_asked_is_there_when_needed),
    };
    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
