/* What the tests of the intake share: a real ring, its producer, and a host that remembers the records it gets. */
#ifndef EVAPID_TEST_INTAKE_RIG_H
#define EVAPID_TEST_INTAKE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "evapid/lane.h"
#include "kamailio/intake.h"

#define CAPACITY EVAPID_RING_MIN
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* ---- a ring, its producer, and the host that gets the records ------------------------------------------------------ */

#define GOT_MAX 65536

/* A record as the host got it. */
struct got {
    struct ring_record record;
    char tag[EVAPID_TAG_MAX];
    uint32_t number; /* the payload's first bytes; for a control record its target */
    bool ahead;
};

static struct {
    uv_loop_t loop;
    int memfd, wake_fd; /* evapid's descriptors */
    int wake_end;
    size_t capacity;
    struct ring_header *header;
    struct ring_lane *lane;
    unsigned slot;
    struct intake *intake;

    struct got *got; /* GOT_MAX */
    size_t count;
    unsigned crowded, corrupt;
    uint64_t committed;
    uint64_t corrupt_at;
    char why[128];
    struct payload payload;      /* the last event, at its place in the ring */
    char *kept;                  /* a copy of it; NULL: not kept */
    void (*on_record)(size_t i); /* called with the place of a record that has just arrived */
    void (*on_crowded)(void);
    void (*on_corrupt)(void);
} t;

static inline struct got *got_next(const struct ring_record *record, const char *tag)
{
    assert_true(t.count < GOT_MAX);
    struct got *got = &t.got[t.count++];
    got->record = *record;
    got->number = 0;
    got->ahead = false;
    memcpy(got->tag, tag, record->tag_length);
    return got;
}

static inline void on_event(void *owner, const struct ring_record *record, const char *tag,
                            const struct payload *payload)
{
    assert_ptr_equal(owner, &t);
    struct got *got = got_next(record, tag);
    assert_int_equal(payload_length(payload), record->payload_length);
    char *payload_bytes = malloc(record->payload_length + 1U);
    assert_non_null(payload_bytes);
    framing_write(FRAMING_RAW, payload_bytes, payload);
    memcpy(&got->number, payload_bytes, record->payload_length < 4 ? record->payload_length : 4);
    free(t.kept);
    t.kept = payload_bytes;
    t.payload = *payload;
    if (t.on_record != NULL)
        t.on_record(t.count - 1);
}

static inline void on_control(void *owner, const struct ring_record *record, const char *tag, bool ahead)
{
    assert_ptr_equal(owner, &t);
    struct got *got = got_next(record, tag);
    got->number = (uint32_t)record->target;
    got->ahead = ahead;
    if (t.on_record != NULL)
        t.on_record(t.count - 1);
}

static inline void on_crowded(void *owner)
{
    assert_ptr_equal(owner, &t);
    t.crowded++;
    if (t.on_crowded != NULL)
        t.on_crowded();
}

static inline void on_corrupt(void *owner, uint64_t at, const char *why)
{
    assert_ptr_equal(owner, &t);
    t.corrupt++;
    t.corrupt_at = at;
    snprintf(t.why, sizeof(t.why), "%s", why);
    if (t.on_corrupt != NULL)
        t.on_corrupt();
}

/* Read in turns all that has been written so far. */
static inline void drain(void)
{
    struct intake *intake = t.intake; /* a record may close it */
    const uint64_t end = intake_end(intake);
    for (;;) {
        intake_read_batch(intake);
        if (intake_has_read(intake, end))
            return;
        intake_await_answers(intake, false, false);
    }
}

/* What the host got is committed before the ring is told that it is consumed. */
static inline void on_commit(void *owner, uint64_t tail)
{
    assert_ptr_equal(owner, &t);
    assert_true((int64_t)(tail - atomic_load(&t.header->tail)) >= 0);
    t.committed = tail;
}

static const struct intake_host host = { .owner = &t,
                                         .event = on_event,
                                         .control = on_control,
                                         .crowded = on_crowded,
                                         .corrupt = on_corrupt,
                                         .commit = on_commit };

/* A ring in a memfd with these seals, not read yet. */
static inline void make_ring(size_t capacity, int seals)
{
    t.memfd = memfd_create("ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int ends[2] = { -1, -1 };
    assert_true(t.memfd >= 0 && socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) == 0);
    t.wake_end = ends[0];
    t.wake_fd = ends[1];
    t.capacity = capacity;
    assert_int_equal(ftruncate(t.memfd, (off_t)ring_bytes(capacity)), 0);
    assert_int_equal(fcntl(t.memfd, F_ADD_SEALS, seals), 0);
    t.header = mmap(NULL, ring_bytes(capacity), PROT_READ | PROT_WRITE, MAP_SHARED, t.memfd, 0);
    t.lane = mmap(NULL, sizeof(*t.lane), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(t.header != MAP_FAILED && t.lane != MAP_FAILED);
    assert_int_equal(ring_make(t.header, t.lane, capacity, (uint64_t)getpid() << 32), 0);
    t.slot = ring_join(t.header, t.lane);
}

/* The intake gets its own descriptors, as over a Unix socket. */
static const char *try_queue(void)
{
    const char *why = "";
    const int memfd = fcntl(t.memfd, F_DUPFD_CLOEXEC, 0);
    const int wake_fd = fcntl(t.wake_fd, F_DUPFD_CLOEXEC, 0);
    t.intake = intake_open(&t.loop, memfd, wake_fd, &host, &why);
    assert_int_equal(t.intake == NULL, why != NULL);
    if (t.intake == NULL) { /* both are closed */
        assert_int_equal(fcntl(memfd, F_GETFD), -1);
        assert_int_equal(fcntl(wake_fd, F_GETFD), -1);
    }
    return why;
}

static inline void start_queue(void)
{
    const char *why = try_queue();
    if (why != NULL)
        fail_msg("%s", why);
}

static inline void run_closed(void)
{
    uv_run(&t.loop, UV_RUN_DEFAULT);
}

static inline void stop_queue(void)
{
    intake_close(t.intake);
    t.intake = NULL;
    run_closed();
}

static inline int set_up(void **state)
{
    (void)state;
    memset(&t, 0, sizeof(t));
    t.got = calloc(GOT_MAX, sizeof(*t.got));
    return t.got == NULL || uv_loop_init(&t.loop) != 0;
}

/* A ring of the smallest size, and an intake that reads it, held at first as always. */
static inline int set_up_queue(void **state)
{
    if (set_up(state) != 0)
        return -1;
    make_ring(CAPACITY, SEALS);
    start_queue();
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    if (t.intake != NULL)
        stop_queue();
    const int busy = uv_loop_close(&t.loop);
    free(t.kept);
    if (t.header != NULL) {
        ring_leave(t.lane, t.slot);
        munmap(t.lane, sizeof(*t.lane));
        munmap(t.header, ring_bytes(t.capacity));
        close(t.memfd);
        close(t.wake_fd);
        close(t.wake_end);
    }
    free(t.got);
    return busy;
}

static inline void send_wake(void)
{
    if (send(t.wake_end, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
        abort();
}

static inline void wake(void)
{
    const uint64_t sleep = ring_sleeper(t.header, t.lane);
    if (sleep == 0)
        return;
    send_wake();
    ring_woken(t.header, sleep);
}

static inline enum ring_push push(struct ring_record record, const char *tag, size_t tag_length, const void *payload,
                                  size_t length)
{
    const enum ring_push pushed = ring_push(t.header, t.lane, t.slot, record, tag, tag_length, payload, length);
    if (pushed == RING_PUSHED)
        wake();
    return pushed;
}

/* An event of length bytes (4 or more) that begins with a number. */
static inline enum ring_push push_event_of(uint32_t number, size_t length)
{
    static char payload[CAPACITY];
    memcpy(payload, &number, sizeof(number));
    return push((struct ring_record){ .type = RING_RELAY }, "", 0, payload, length);
}

static inline void push_event(uint32_t number)
{
    assert_int_equal(push_event_of(number, sizeof(number)), RING_PUSHED);
}

static inline void push_control(enum ring_type type, uint32_t number)
{
    const struct ring_record record = { .type = (uint8_t)type, .target = number };
    assert_int_equal(push(record, "", 0, "", 0), RING_PUSHED);
}

static inline void push_close(uint32_t number)
{
    push_control(RING_CLOSE, number);
}

static inline void push_done(uint32_t number)
{
    push_control(RING_DONE, number);
}

static inline bool is_napping(void)
{
    return t.intake != NULL && t.intake->napping;
}

/* Run the loop until it would sleep for longer than a nap. */
static inline void settle(void)
{
    unsigned turns = 0;
    unsigned idle = 0;
    while (idle < 2) { /* twice: the end of a turn shows what wakes it */
        uv_run(&t.loop, is_napping() ? UV_RUN_ONCE : UV_RUN_NOWAIT);
        idle = is_napping() || (uv_loop_alive(&t.loop) && uv_backend_timeout(&t.loop) == 0) ? 0 : idle + 1;
        if (++turns > 100000)
            fail_msg("the intake does not come to rest");
    }
}

/* These records have arrived since the last call, in this order. An event is shown as its number; a close, tag or done
 * as its first letter and number; one that was read ahead of its turn has a plus before it. */
static inline void assert_got(const char *expected)
{
    static const char *const letters[] = { "", "", "", "", "c", "t", "d" };
    char list[1024] = "";
    for (size_t i = 0; i < t.count; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s%s%u", i > 0 ? " " : "",
                 t.got[i].ahead ? "+" : "", letters[t.got[i].record.type], t.got[i].number);
    t.count = 0;
    assert_string_equal(list, expected);
}

static inline uint64_t tail(void)
{
    return atomic_load(&t.header->tail);
}

static inline uint64_t head(void)
{
    return atomic_load(&t.lane->head);
}

#define WITH_QUEUE(test) cmocka_unit_test_setup_teardown(test, set_up_queue, tear_down)

#endif
