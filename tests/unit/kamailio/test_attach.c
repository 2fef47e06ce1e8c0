/* Attaching without memory: evapid closes the worker, keeps nothing of it, and accepts the next worker of any Kamailio.
 * Asking: an answer that is read slowly. And too many strangers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kamailio/kamailio.h"
#include "bus/flush.h"
#include "kamailio/gate.h"
#include "memory.h"

#define CAPACITY EVAPID_RING_MIN

static struct {
    char folder[32];
    uv_loop_t loop;
    uv_prepare_t turn_end;
    struct config config;
    struct ledger ledger;
    struct bus bus;
    struct listeners listeners;
    struct kamailio kamailio;
} t;

static void on_turn_end(uv_prepare_t *prepare)
{
    (void)prepare;
    kamailio_flush(&t.kamailio);
    flush_turn(&t.bus);
}

static int set_up(void **state)
{
    (void)state;
    memset(&t, 0, sizeof(t));
    snprintf(t.folder, sizeof(t.folder), "/tmp/evapid-unit-XXXXXX");
    if (mkdtemp(t.folder) == NULL || uv_loop_init(&t.loop) != 0)
        return -1;
    snprintf(t.config.kamailio_socket, sizeof(t.config.kamailio_socket), "%s/kamailio.sock", t.folder);
    t.config.module_listener = true;
    t.config.worker_window_frames = 8;
    t.config.worker_window_bytes = 1024;
    t.config.kamailio_access = (struct door_access){ .mode = 0660, .group = DOOR_OWN_GROUP };
    if (ledger_open(&t.ledger) != NULL)
        return -1;
    bus_open(&t.bus, &t.loop, &t.ledger);
    t.bus.upstream = kamailio_upstream(&t.kamailio);
    t.listeners.loop = &t.loop;
    t.listeners.host = (struct listener_host){ .owner = &t.bus, .connected = bus_on_connection };
    uv_prepare_init(&t.loop, &t.turn_end);
    uv_prepare_start(&t.turn_end, on_turn_end);
    return kamailio_open(&t.kamailio, &t.loop, &t.config, &t.bus, &t.listeners, (struct kamailio_answerer){ 0 },
                         (struct inherited_door){ .fd = -1 }) != NULL;
}

static int tear_down(void **state)
{
    (void)state;
    memory_limit(-1);
    listeners_stop(&t.listeners);
    kamailio_stop(&t.kamailio);
    bus_close(&t.bus);
    kamailio_close(&t.kamailio);
    uv_close((uv_handle_t *)&t.turn_end, NULL);
    uv_run(&t.loop, UV_RUN_DEFAULT);
    listeners_tick(&t.listeners);
    ledger_close(&t.ledger);
    rmdir(t.folder);
    return uv_loop_close(&t.loop) != 0 || t.listeners.first != NULL;
}

static void turns(int count)
{
    for (int i = 0; i < count; i++)
        uv_run(&t.loop, UV_RUN_NOWAIT);
}

/* A memory file with an empty ring. */
static int make_ring(void)
{
    struct ring_header header = { .magic = RING_MAGIC, .version = RING_VERSION, .capacity = CAPACITY, .key = 1 };
    const int memfd = memfd_create("ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(memfd, (off_t)ring_bytes(CAPACITY)), 0);
    assert_int_equal(pwrite(memfd, &header, 32, 0), 32);
    assert_int_equal(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    return memfd;
}

/* Send the HELLO of the first of so many workers of a Kamailio, which declares a listener. Returns the worker's end. */
static int say_hello_of(uint64_t instance, uint16_t workers)
{
    unsigned char frame[WIRE_HEADER + WIRE_HELLO_MAX];
    const struct wire_hello hello = { .version = WIRE_VERSION,
                                      .instance = instance,
                                      .pid = 1,
                                      .workers = workers,
                                      .max_clients = 8,
                                      .keep_clients = true,
                                      .bind_addr = { "127.0.0.1:1", 11 } };
    int wake[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, wake), 0);
    const int passed[2] = { make_ring(), wake[1] };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(passed))];
    } control = { 0 };
    struct iovec iov = { frame, wire_write_hello(frame, sizeof(frame), &hello) };
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    control.align =
        (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(passed)) };
    memcpy(CMSG_DATA(&control.align), passed, sizeof(passed));
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    t.kamailio.door.opened(t.kamailio.door.owner, ends[1]);
    assert_int_equal(sendmsg(ends[0], &message, MSG_NOSIGNAL), iov.iov_len);
    close(passed[0]);
    close(passed[1]);
    close(wake[0]);
    return ends[0];
}

static int say_hello(uint64_t instance)
{
    return say_hello_of(instance, 1);
}

static bool is_welcome(int fd)
{
    unsigned char frame[WIRE_HEADER];
    return recv(fd, frame, sizeof(frame), MSG_DONTWAIT) == sizeof(frame) && frame[4] == WIRE_WELCOME;
}

static void leave(int fd)
{
    close(fd);
    turns(2);
    assert_int_equal(t.kamailio.attachment.state, DETACHED);
}

/* Memory runs out at each allocation of an attachment in turn. Each attempt is by another Kamailio. */
static void test_a_kamailio_that_there_is_no_memory_to_attach_does_not_bar_the_next(void **state)
{
    (void)state;
    bool attached = false;
    long calls = 0;
    for (; !attached; calls++) {
        const int first = say_hello((uint64_t)calls + 1);
        memory_limit(calls);
        turns(2);
        memory_limit(-1);
        attached = t.kamailio.attachment.state != DETACHED;
        assert_int_equal(t.kamailio.attachment.workers_attached, attached);
        assert_int_equal(is_welcome(first), attached);
        assert_int_equal(t.kamailio.declaration.listener != NULL, attached);
        leave(first);
        const int next = say_hello((uint64_t)calls + 1000);
        turns(2);
        assert_true(is_welcome(next));
        leave(next);
        listeners_stop(&t.listeners);
        t.kamailio.declaration.listener = NULL;
        turns(2);
        listeners_tick(&t.listeners);
    }
    assert_in_range(calls, 4, 12); /* more than one allocation: intake, answer, listener */
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

#define ANSWER_BYTES 60000U

static unsigned char answer[ANSWER_BYTES];

static void answer_at_length(struct worker *worker, const struct wire_query *query)
{
    assert_int_equal(query->subject, WIRE_ASK_STATUS);
    worker_answer(worker, answer, sizeof(answer));
}

static unsigned answers;

static void count_answer(struct worker *worker, const struct wire_query *query)
{
    (void)query;
    answers++;
    worker_answer(worker, answer, 8);
}

/* Send a question that asked will answer. The socket cannot take a long answer at once. Returns the asker's end. */
static int ask_for(void (*asked)(struct worker *worker, const struct wire_query *query))
{
    unsigned char frame[64];
    int ends[2];
    const int small = 1;
    const struct wire_query query = { .subject = WIRE_ASK_STATUS };
    const size_t size = wire_write_query(frame, sizeof(frame), &query);
    for (size_t i = 0; i < sizeof(answer); i++)
        answer[i] = (unsigned char)(i * 7);
    t.kamailio.answerer.answer = asked;
    t.kamailio.worker_host.query = gate_on_query;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    t.kamailio.door.opened(t.kamailio.door.owner, ends[1]);
    assert_int_equal(send(ends[0], frame, size, MSG_NOSIGNAL), size);
    return ends[0];
}

static int ask(void)
{
    const int fd = ask_for(answer_at_length);
    turns(3);
    assert_int_equal(t.kamailio.gate.count, 1);
    return fd;
}

/* Read fd to its end. Returns how many bytes came. */
static size_t read_all(int fd, unsigned char *out, size_t room)
{
    size_t length = 0;
    for (int idle = 0; idle < 100; idle++) {
        const ssize_t n = recv(fd, out + length, room - length, MSG_DONTWAIT);
        if (n == 0)
            return length;
        length += n > 0 ? (size_t)n : 0;
        idle = n > 0 ? 0 : idle;
        turns(1);
    }
    fail_msg("it does not end after %zu bytes", length);
    return 0;
}

/* When Kamailio starts or stops, workers are missing too, but not for so long. */
static void test_only_workers_that_stay_away_are_a_warning(void **state)
{
    (void)state;
    struct attachment *attachment = &t.kamailio.attachment;
    const int first = say_hello_of(1, 2);
    while (attachment->state != ATTACHED)
        uv_run(&t.loop, UV_RUN_ONCE); /* the other one is given its time */
    kamailio_tick(&t.kamailio);
    assert_int_not_equal(attachment->short_since_ms, 0);
    assert_false(attachment->short_said);
    attachment->short_since_ms -= 61000;
    kamailio_tick(&t.kamailio);
    assert_true(attachment->short_said);
    leave(first);
    const int next = say_hello_of(2, 2); /* before the next tick */
    while (attachment->state != ATTACHED)
        uv_run(&t.loop, UV_RUN_ONCE);
    kamailio_tick(&t.kamailio);
    assert_false(attachment->short_said);
    assert_int_not_equal(attachment->short_since_ms, 0);
    leave(next);
    kamailio_tick(&t.kamailio);
    assert_int_equal(attachment->short_since_ms, 0);
    const int only = say_hello(3);
    turns(2);
    kamailio_tick(&t.kamailio);
    assert_int_equal(attachment->short_since_ms, 0);
    leave(only);
}

static void test_an_answer_that_is_read_slowly_comes_whole(void **state)
{
    (void)state;
    static unsigned char got[ANSWER_BYTES + 1];
    const int fd = ask();
    assert_int_equal(read_all(fd, got, sizeof(got)), ANSWER_BYTES);
    assert_memory_equal(got, answer, ANSWER_BYTES);
    assert_int_equal(t.kamailio.gate.count, 0);
    close(fd);
}

static void test_an_asker_that_sends_more_than_its_question_is_closed(void **state)
{
    (void)state;
    const int fd = ask();
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
    turns(2);
    assert_int_equal(t.kamailio.gate.count, 0);
    close(fd);
}

static void test_an_asker_that_does_not_read_the_answer_is_closed_in_time(void **state)
{
    (void)state;
    const int fd = ask();
    kamailio_tick(&t.kamailio);
    assert_int_equal(t.kamailio.gate.count, 1);
    t.kamailio.gate.strangers->opened_ms -= HELLO_MS;
    kamailio_tick(&t.kamailio);
    turns(1);
    assert_int_equal(t.kamailio.gate.count, 0);
    close(fd);
}

static void test_one_question_is_answered_in_a_turn(void **state)
{
    (void)state;
    enum { ASKERS = 5 };
    int fds[ASKERS];
    answers = 0;
    for (int i = 0; i < ASKERS; i++)
        fds[i] = ask_for(count_answer);
    for (unsigned before = answers; answers < ASKERS; before = answers) {
        turns(1);
        assert_in_range(answers - before, 0, 1);
    }
    turns(2);
    assert_int_equal(t.kamailio.gate.count, 0);
    for (int i = 0; i < ASKERS; i++)
        close(fds[i]);
}

/* ---- too many strangers ------------------------------------------------------------------------------------------ */

static int knock(uint32_t user)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    t.kamailio.door.opened(t.kamailio.door.owner, ends[1]);
    t.kamailio.gate.strangers->prev->user = user;
    return ends[0];
}

static bool is_closed(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

/* knock changes the user of a connection after it was accepted. So when a newcomer makes others go, it still is the
 * only one of its user. */
static void test_the_oldest_of_the_user_who_has_most_makes_room(void **state)
{
    (void)state;
    enum { FEW = 56, MANY = STRANGERS_MAX - FEW };
    static int few[FEW];
    static int many[MANY];
    int newcomers[3];
    const uint32_t own = (uint32_t)getuid();
    for (int i = 0; i < FEW; i++)
        few[i] = knock(own + 1);
    for (int i = 0; i < MANY; i++)
        many[i] = knock(own + 2);
    for (int more = 0; more < 3; more++) {
        newcomers[more] = knock(own + 1);
        assert_int_equal(t.kamailio.gate.count, STRANGERS_MAX);
        for (int i = 0; i < MANY; i++)
            assert_int_equal(is_closed(many[i]), i <= more);
        for (int i = 0; i < FEW; i++)
            assert_false(is_closed(few[i]));
    }
    for (int i = 0; i < FEW; i++)
        close(few[i]);
    for (int i = 0; i < MANY; i++)
        close(many[i]);
    for (int i = 0; i < 3; i++)
        close(newcomers[i]);
    turns(2);
    assert_int_equal(t.kamailio.gate.count, 0);
}

#define WITH_KAMAILIO(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_KAMAILIO(test_a_kamailio_that_there_is_no_memory_to_attach_does_not_bar_the_next),
        WITH_KAMAILIO(test_only_workers_that_stay_away_are_a_warning),
        WITH_KAMAILIO(test_an_answer_that_is_read_slowly_comes_whole),
        WITH_KAMAILIO(test_an_asker_that_sends_more_than_its_question_is_closed),
        WITH_KAMAILIO(test_an_asker_that_does_not_read_the_answer_is_closed_in_time),
        WITH_KAMAILIO(test_one_question_is_answered_in_a_turn),
        WITH_KAMAILIO(test_the_oldest_of_the_user_who_has_most_makes_room),
    };
    return cmocka_run_group_tests_name("attach", tests, NULL, NULL);
}
