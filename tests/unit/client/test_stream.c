/* A client's stream: its kind follows from its socket, bytes travel by each kind alike, and a successor goes on with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/state.h"
#include "client/stream.h"

enum { TCP, UNIX, KINDS };

static const char *const names[KINDS] = { "tcp", "unix" };

/* A connection: its stream, and the peer's end. */
static struct stream connect_tcp(int *peer)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
    const int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listening, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listening, 1), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(connect(*peer, (struct sockaddr *)&address, size), 0);
    const int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(fd >= 0);
    close(listening);
    return stream_of(fd);
}

static struct stream connect_kind(int kind, int *peer)
{
    int ends[2];
    if (kind == TCP)
        return connect_tcp(peer);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *peer = ends[0];
    return stream_of(ends[1]);
}

static void wait_readable(int fd)
{
    struct pollfd readable = { .fd = fd, .events = POLLIN };
    assert_int_equal(poll(&readable, 1, 60000), 1);
}

static int option(const struct stream *stream, int level, int name)
{
    int value = -1;
    socklen_t size = sizeof(value);
    assert_int_equal(getsockopt(stream->fd, level, name, &value, &size), 0);
    return value;
}

static void test_the_kind_follows_from_the_socket(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        int peer = -1;
        struct stream stream = connect_kind(kind, &peer);
        assert_string_equal(stream.kind->name, names[kind]);
        stream_close(&stream);
        close(peer);
    }
    assert_int_equal(stream_of(-1).fd, -1);
}

static void test_bytes_travel_by_each_kind_alike(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        int peer = -1;
        char bytes[16] = { 0 };
        struct stream stream = connect_kind(kind, &peer);
        const struct iovec parts[2] = { { "hel", 3 }, { "lo", 2 } };
        stream_begin(&stream);
        assert_int_equal(stream.kind->read(&stream, bytes, sizeof(bytes)), -1);
        assert_int_equal(errno, EAGAIN);
        assert_true(stream_is_quiet(&stream));
        assert_int_equal(stream.kind->write(&stream, parts, 2), 5);
        assert_int_equal(recv(peer, bytes, 5, MSG_WAITALL), 5);
        assert_memory_equal(bytes, "hello", 5);
        assert_int_equal(send(peer, "back", 4, 0), 4);
        wait_readable(stream.fd);
        assert_false(stream_is_quiet(&stream));
        assert_int_equal(stream.kind->read(&stream, bytes, 3), 3);
        assert_int_equal(stream.kind->read(&stream, bytes, sizeof(bytes)), 1);
        assert_memory_equal(bytes, "k", 1);
        close(peer);
        wait_readable(stream.fd);
        assert_int_equal(stream.kind->read(&stream, bytes, sizeof(bytes)), 0);
        stream_close(&stream);
        assert_int_equal(stream.fd, -1);
    }
}

/* Write all that the kernel takes. Returns how many bytes. */
static size_t fill(struct stream *stream)
{
    static const char bytes[65536];
    const struct iovec part = { (void *)(uintptr_t)bytes, sizeof(bytes) };
    size_t sum = 0;
    for (ssize_t n = 1; n > 0; sum += n > 0 ? (size_t)n : 0)
        n = stream->kind->write(stream, &part, 1);
    assert_int_equal(errno, EAGAIN);
    return sum;
}

/* What was written before the close reaches a peer whose own bytes nobody has read, without a reset: also what the
 * peer's window had no room for. */
static void test_a_close_delivers_what_was_written(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        int peer = -1;
        char bytes[65536];
        struct stream stream = connect_kind(kind, &peer);
        assert_int_equal(send(peer, "unread", 6, 0), 6);
        wait_readable(stream.fd);
        size_t left = fill(&stream);
        assert_true(left > 0);
        stream_close(&stream);
        while (left > 0) {
            const ssize_t n = recv(peer, bytes, sizeof(bytes), 0);
            assert_true(n > 0);
            left -= (size_t)n;
        }
        assert_int_equal(recv(peer, bytes, sizeof(bytes), 0), 0);
        close(peer);
    }
}

static void test_only_tcp_tells_how_much_it_has_accepted(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        int peer = -1;
        struct stream stream = connect_kind(kind, &peer);
        const struct iovec bytes = { "1234567", 7 };
        const uint64_t before = stream_position(&stream);
        assert_int_equal(stream.kind->write(&stream, &bytes, 1), 7);
        assert_int_equal(stream_has_position(&stream), kind == TCP);
        assert_int_equal(stream_position(&stream) - before, kind == TCP ? 7 : 0);
        assert_int_not_equal(stream_cookie(&stream), 0);
        stream_close(&stream);
        close(peer);
    }
}

/* A peer may pass descriptors by a Unix socket: none is kept, read or not. */
static void pass(int peer, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec iov = { "x", 1 };
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    assert_int_equal(sendmsg(peer, &message, 0), 1);
}

static void test_passed_descriptors_are_closed(void **state)
{
    (void)state;
    for (int is_read = 0; is_read < 2; is_read++) {
        int peer = -1;
        int ends[2];
        char byte = 0;
        struct stream stream = connect_kind(UNIX, &peer);
        assert_int_equal(pipe(ends), 0);
        pass(peer, ends[1]);
        close(ends[1]);
        if (is_read)
            assert_int_equal(stream.kind->read(&stream, &byte, 1), 1);
        else
            stream_close(&stream);
        wait_readable(ends[0]);
        assert_int_equal(read(ends[0], &byte, 1), 0); /* nobody has the other end any more */
        if (is_read)
            stream_close(&stream);
        close(peer);
        close(ends[0]);
    }
}

static void test_a_silent_tcp_peer_is_probed_and_a_unix_one_need_not_be(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        int peer = -1;
        struct stream stream = connect_kind(kind, &peer);
        stream_set_keepalive(&stream, (struct stream_keepalive){ 71, 13, 4 });
        assert_int_equal(option(&stream, SOL_SOCKET, SO_KEEPALIVE), kind == TCP);
        if (kind == TCP)
            assert_int_equal(option(&stream, IPPROTO_TCP, TCP_KEEPIDLE), 71);
        stream_close(&stream);
        close(peer);
    }
}

/* ---- hand-over --------------------------------------------------------------------------------------------------- */

static bool load(struct stream *stream, const struct stream *from, const char *kind)
{
    struct state_out out;
    struct state_in in;
    assert_true(state_begin(&out));
    if (from != NULL)
        stream_save(from, &out);
    else
        state_put_text(&out, "kind", kind);
    assert_null(state_open(&in, state_end(&out)));
    const bool loaded = stream_load(stream, &in);
    state_close(&in);
    return loaded;
}

static void test_a_successor_goes_on_with_it(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        int peer = -1;
        char byte = 0;
        struct stream stream = connect_kind(kind, &peer);
        stream_set_keepalive(&stream, (struct stream_keepalive){ 71, 13, 4 });
        struct stream successor = stream_of(dup(stream.fd));
        assert_true(load(&successor, &stream, NULL));
        assert_ptr_equal(successor.kind, stream.kind);
        assert_int_equal(successor.keepalive.idle_s, 71);
        assert_int_equal(successor.keepalive.interval_s, 13);
        assert_int_equal(successor.keepalive.probes, 4);
        stream_abandon(&stream);
        assert_int_equal(send(peer, "x", 1, 0), 1);
        wait_readable(successor.fd);
        assert_int_equal(successor.kind->read(&successor, &byte, 1), 1);
        stream_close(&successor);
        close(peer);
    }
}

/* An evapid that knew no kinds says nothing of one. One that we don't know can't be gone on with. */
static void test_a_state_of_another_kind_is_refused(void **state)
{
    (void)state;
    int peer = -1;
    struct stream stream = connect_kind(UNIX, &peer);
    assert_true(load(&stream, NULL, "unix"));
    assert_true(load(&stream, NULL, ""));
    assert_int_equal(stream.keepalive.idle_s, UINT_MAX);
    assert_false(load(&stream, NULL, "tcp"));
    assert_false(load(&stream, NULL, "unixes"));
    assert_false(load(&stream, NULL, "carrier pigeon"));
    stream_close(&stream);
    close(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_kind_follows_from_the_socket),
        cmocka_unit_test(test_bytes_travel_by_each_kind_alike),
        cmocka_unit_test(test_a_close_delivers_what_was_written),
        cmocka_unit_test(test_only_tcp_tells_how_much_it_has_accepted),
        cmocka_unit_test(test_passed_descriptors_are_closed),
        cmocka_unit_test(test_a_silent_tcp_peer_is_probed_and_a_unix_one_need_not_be),
        cmocka_unit_test(test_a_successor_goes_on_with_it),
        cmocka_unit_test(test_a_state_of_another_kind_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
