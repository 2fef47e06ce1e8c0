/* The queue: records of a real ring reach the host in order and once, held or not, however evapid falls asleep. */
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
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "queue.h"

#define CAPACITY EVAPID_RING_MIN
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* ---- a ring, its producer, and the host that gets the records ------------------------------------------------------ */

#define GOT_MAX 65536

/* A record as the host got it. */
struct got {
    struct ring_record record;
    char tag[EVAPID_TAG_MAX];
    uint32_t number; /* the first bytes of the payload; of a control record its target */
    bool ahead;
};

static struct {
    uv_loop_t loop;
    int memfd, eventfd;
    size_t capacity;
    struct ring_header *header;
    struct ring_lane *lane;
    struct queue *queue;

    struct got *got; /* GOT_MAX */
    size_t count;
    unsigned crowded, corrupt;
    uint64_t corrupt_at;
    char why[128];
    struct frame *kept; /* of the last event, when keep is set */
    bool keep;
    void (*on_record)(size_t i); /* called with the place of a record that has just been got */
    void (*on_crowded)(void);
    void (*on_corrupt)(void);
} t;

static struct got *got_next(const struct ring_record *record, const char *tag)
{
    assert_true(t.count < GOT_MAX);
    struct got *got = &t.got[t.count++];
    got->record = *record;
    got->number = 0;
    got->ahead = false;
    memcpy(got->tag, tag, record->tag_length);
    return got;
}

static void on_event(void *owner, const struct ring_record *record, const char *tag, struct frame *frame)
{
    assert_ptr_equal(owner, &t);
    struct got *got = got_next(record, tag);
    assert_int_equal(frame->length, record->payload_length);
    memcpy(&got->number, frame_payload(frame), frame->length < 4 ? frame->length : 4);
    if (t.keep) {
        if (t.kept != NULL)
            frame_unref(t.kept);
        t.kept = frame_ref(frame);
    }
    if (t.on_record != NULL)
        t.on_record(t.count - 1);
}

static void on_control(void *owner, const struct ring_record *record, const char *tag, bool ahead)
{
    assert_ptr_equal(owner, &t);
    struct got *got = got_next(record, tag);
    got->number = (uint32_t)record->target;
    got->ahead = ahead;
    if (t.on_record != NULL)
        t.on_record(t.count - 1);
}

static void on_lost(void *owner)
{
    assert_ptr_equal(owner, &t);
    fail_msg("an event was lost");
}

static void on_crowded(void *owner)
{
    assert_ptr_equal(owner, &t);
    t.crowded++;
    if (t.on_crowded != NULL)
        t.on_crowded();
}

static void on_corrupt(void *owner, uint64_t at, const char *why)
{
    assert_ptr_equal(owner, &t);
    t.corrupt++;
    t.corrupt_at = at;
    snprintf(t.why, sizeof(t.why), "%s", why);
    if (t.on_corrupt != NULL)
        t.on_corrupt();
}

static const struct queue_host host = {
    .owner = &t, .event = on_event, .lost = on_lost, .control = on_control, .crowded = on_crowded, .corrupt = on_corrupt
};

/* A ring in a memfd with these seals, not read by anybody yet. */
static void make_ring(size_t capacity, int seals)
{
    t.memfd = memfd_create("ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    t.eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(t.memfd >= 0 && t.eventfd >= 0);
    t.capacity = capacity;
    assert_int_equal(ftruncate(t.memfd, (off_t)ring_bytes(capacity)), 0);
    assert_int_equal(fcntl(t.memfd, F_ADD_SEALS, seals), 0);
    t.header = mmap(NULL, ring_bytes(capacity), PROT_READ | PROT_WRITE, MAP_SHARED, t.memfd, 0);
    t.lane = mmap(NULL, sizeof(*t.lane), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(t.header != MAP_FAILED && t.lane != MAP_FAILED);
    assert_int_equal(ring_make(t.header, t.lane, capacity), 0);
}

/* The queue gets descriptors of its own, as it does over a Unix socket. */
static const char *try_queue(void)
{
    const char *why = "";
    const int memfd = fcntl(t.memfd, F_DUPFD_CLOEXEC, 0);
    const int efd = fcntl(t.eventfd, F_DUPFD_CLOEXEC, 0);
    t.queue = queue_open(&t.loop, memfd, efd, &host, &why);
    assert_int_equal(t.queue == NULL, why != NULL);
    if (t.queue == NULL) { /* both are closed */
        assert_int_equal(fcntl(memfd, F_GETFD), -1);
        assert_int_equal(fcntl(efd, F_GETFD), -1);
    }
    return why;
}

static void start_queue(void)
{
    const char *why = try_queue();
    if (why != NULL)
        fail_msg("%s", why);
}

static void run_closed(void)
{
    uv_run(&t.loop, UV_RUN_DEFAULT);
}

static void stop_queue(void)
{
    queue_close(t.queue);
    t.queue = NULL;
    run_closed();
}

static int set_up(void **state)
{
    (void)state;
    memset(&t, 0, sizeof(t));
    t.got = calloc(GOT_MAX, sizeof(*t.got));
    return t.got == NULL || uv_loop_init(&t.loop) != 0;
}

/* With a ring of the smallest size and a queue that reads it, held as it is at first. */
static int set_up_queue(void **state)
{
    if (set_up(state) != 0)
        return -1;
    make_ring(CAPACITY, SEALS);
    start_queue();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (t.queue != NULL)
        stop_queue();
    const int busy = uv_loop_close(&t.loop);
    if (t.kept != NULL)
        frame_unref(t.kept);
    if (t.header != NULL) {
        pthread_mutex_destroy(&t.lane->lock);
        munmap(t.lane, sizeof(*t.lane));
        munmap(t.header, ring_bytes(t.capacity));
        close(t.memfd);
        close(t.eventfd);
    }
    free(t.got);
    return busy;
}

static void wake(void)
{
    const uint64_t sleep = ring_sleeper(t.header);
    const uint64_t one = 1;
    if (sleep == 0)
        return;
    if (write(t.eventfd, &one, sizeof(one)) != (ssize_t)sizeof(one))
        abort();
    ring_woken(t.header, sleep);
}

static enum ring_push push(struct ring_record record, const char *tag, size_t tag_length, const void *payload,
                           size_t length)
{
    const enum ring_push pushed = ring_push(t.header, t.lane, record, tag, tag_length, payload, length);
    if (pushed == RING_PUSHED)
        wake();
    return pushed;
}

/* An event of length bytes (4 or more) that begins with a number. */
static enum ring_push push_event_of(uint32_t number, size_t length)
{
    static char payload[CAPACITY];
    memcpy(payload, &number, sizeof(number));
    return push((struct ring_record){ .type = RING_RELAY }, "", 0, payload, length);
}

static void push_event(uint32_t number)
{
    assert_int_equal(push_event_of(number, sizeof(number)), RING_PUSHED);
}

static void push_control(enum ring_type type, uint32_t number)
{
    const struct ring_record record = { .type = (uint8_t)type, .target = number };
    assert_int_equal(push(record, "", 0, "", 0), RING_PUSHED);
}

static void push_close(uint32_t number)
{
    push_control(RING_CLOSE, number);
}

static void push_done(uint32_t number)
{
    push_control(RING_DONE, number);
}

/* Run the loop until it would sleep. */
static void settle(void)
{
    unsigned turns = 0;
    unsigned idle = 0;
    while (idle < 2) { /* twice: what wakes it is found at the end of a turn */
        uv_run(&t.loop, UV_RUN_NOWAIT);
        idle = uv_loop_alive(&t.loop) && uv_backend_timeout(&t.loop) == 0 ? 0 : idle + 1;
        if (++turns > 100000)
            fail_msg("the queue does not come to rest");
    }
}

/* Since the last time these have come, in this order: an event is its number, a close, tag or done its first letter and
 * number; what was read ahead of its turn has a plus in front. */
static void assert_got(const char *expected)
{
    static const char *const letters[] = { "", "", "", "", "c", "t", "d" };
    char list[1024] = "";
    for (size_t i = 0; i < t.count; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s%s%u", i > 0 ? " " : "",
                 t.got[i].ahead ? "+" : "", letters[t.got[i].record.type], t.got[i].number);
    t.count = 0;
    assert_string_equal(list, expected);
}

static uint64_t tail(void)
{
    return atomic_load(&t.header->tail);
}

static uint64_t head(void)
{
    return atomic_load(&t.header->head);
}

/* ---- order, held and running --------------------------------------------------------------------------------------- */

static void test_records_come_in_the_order_in_which_they_were_issued(void **state)
{
    (void)state;
    queue_resume(t.queue);
    push_event(1);
    push_close(2);
    push_event(3);
    push_event(4);
    push_control(RING_TAG, 5);
    push_done(6);
    settle();
    assert_got("1 c2 3 4 t5 d6");
    assert_int_equal(tail(), head());
    push_done(7);
    push_event(8);
    settle();
    assert_got("d7 8");
    assert_int_equal(tail(), head());
}

static void test_a_queue_begins_held(void **state)
{
    (void)state;
    push_event(1);
    settle();
    assert_got("");
    assert_int_equal(t.queue->state, QUEUE_HELD);
    assert_int_equal(tail(), 0);
    queue_resume(t.queue);
    assert_int_equal(t.queue->state, QUEUE_RUNNING);
    settle();
    assert_got("1");
}

static void test_control_records_are_read_ahead_of_events_while_it_is_held(void **state)
{
    (void)state;
    push_event(1);
    push_close(2);
    push_event(3);
    push_done(4);
    push_control(RING_TAG, 5);
    settle();
    assert_got("+c2 +d4 +t5");
    push_close(6);
    push_event(7);
    settle();
    assert_got("+c6");
    assert_int_equal(tail(), 0); /* what has not come stays in the ring, and what has come behind it */
}

/* Only the host knows whether a close or a tag could wait for its turn; but a done must not be heard twice. */
static void test_a_close_or_tag_read_ahead_comes_again_in_its_place_a_done_does_not(void **state)
{
    (void)state;
    push_close(1);
    push_event(2);
    push_done(3);
    push_control(RING_TAG, 4);
    push_event(5);
    settle();
    assert_got("+c1 +d3 +t4");
    queue_resume(t.queue);
    push_done(6);
    push_event(7);
    push_close(8);
    settle();
    assert_got("c1 2 t4 5 d6 7 c8");
    assert_int_equal(tail(), head());
}

/* Nothing was read ahead before it went on: it all comes in order. */
static void test_a_queue_that_goes_on_at_once_keeps_the_order(void **state)
{
    (void)state;
    push_event(1);
    push_close(2);
    push_done(3);
    push_event(4);
    queue_resume(t.queue);
    settle();
    assert_got("1 c2 d3 4");
}

static void test_a_queue_may_be_held_again(void **state)
{
    (void)state;
    queue_resume(t.queue);
    push_event(1);
    settle();
    for (uint32_t n = 2; n < 200; n += 5) {
        char expected[64];
        t.count = 0;
        queue_hold(t.queue);
        push_event(n);
        push_done(n + 1);
        push_close(n + 2);
        settle();
        snprintf(expected, sizeof(expected), "+d%u +c%u", n + 1, n + 2);
        assert_got(expected);
        queue_resume(t.queue);
        push_done(n + 3);
        push_event(n + 4);
        settle();
        snprintf(expected, sizeof(expected), "%u c%u d%u %u", n, n + 2, n + 3, n + 4);
        assert_got(expected);
        assert_int_equal(tail(), head());
    }
}

/* Held anew before the events had come: what was read ahead is still known. */
static void test_what_was_read_ahead_is_remembered_over_a_short_run(void **state)
{
    (void)state;
    push_event(1);
    push_done(2);
    push_close(3);
    push_event(4);
    settle();
    assert_got("+d2 +c3");
    queue_resume(t.queue);
    queue_hold(t.queue);
    push_done(5);
    settle();
    assert_got("+d5");
    queue_resume(t.queue);
    settle();
    assert_got("1 c3 4");
}

static void resume_at(size_t i)
{
    if (t.got[i].number == 3)
        queue_resume(t.queue);
}

/* The host lets it go on while a control record is being handed over: the one that it has waited for. */
static void test_it_may_go_on_from_within_a_control_record(void **state)
{
    (void)state;
    t.on_record = resume_at;
    push_event(1);
    push_close(2);
    push_done(3);
    push_event(4);
    push_done(5);
    push_close(6);
    settle();
    assert_got("+c2 +d3 1 c2 4 d5 c6");
}

static void test_holding_and_resuming_twice_is_the_same_as_once(void **state)
{
    (void)state;
    queue_hold(t.queue);
    push_event(1);
    push_done(2);
    settle();
    queue_hold(t.queue);
    settle();
    assert_got("+d2");
    queue_resume(t.queue);
    queue_resume(t.queue);
    settle();
    queue_resume(t.queue);
    settle();
    assert_got("1");
}

/* ---- draining ------------------------------------------------------------------------------------------------------ */

static void test_a_drain_hands_over_all_at_once(void **state)
{
    (void)state;
    queue_resume(t.queue);
    for (uint32_t n = 1; n <= 1500; n++)
        push_event(n);
    queue_drain(t.queue);
    assert_int_equal(t.count, 1500);
    for (uint32_t n = 1; n <= 1500; n++)
        assert_int_equal(t.got[n - 1].number, n);
    assert_int_equal(tail(), head());
    t.count = 0;
    queue_drain(t.queue);
    settle();
    assert_got("");
}

static void test_a_drain_of_a_held_queue_hands_over_the_control_records(void **state)
{
    (void)state;
    push_event(1);
    push_done(2);
    push_close(3);
    push_event(4);
    queue_drain(t.queue);
    assert_got("+d2 +c3");
    assert_int_equal(tail(), 0);
    queue_drain(t.queue);
    settle();
    assert_got("");
    queue_resume(t.queue);
    queue_drain(t.queue);
    assert_got("1 c3 4");
}

static void push_more(size_t i)
{
    push_event(t.got[i].number + 100);
}

/* Up to what had been written when it began: a producer that writes on and on does not keep it. */
static void test_a_drain_ends_though_more_is_written_meanwhile(void **state)
{
    (void)state;
    queue_resume(t.queue);
    t.on_record = push_more;
    push_event(1);
    push_event(2);
    queue_drain(t.queue);
    assert_got("1 2");
    t.on_record = NULL;
    settle();
    assert_got("101 102");
}

/* ---- sleep --------------------------------------------------------------------------------------------------------- */

static void test_an_empty_queue_sleeps(void **state)
{
    (void)state;
    settle();
    assert_int_not_equal(ring_sleeper(t.header), 0);
    queue_resume(t.queue);
    settle();
    assert_int_not_equal(ring_sleeper(t.header), 0);
}

static void test_every_push_wakes_it_from_sleep(void **state)
{
    (void)state;
    queue_resume(t.queue);
    for (uint32_t n = 0; n < 1000; n++) {
        settle();
        assert_int_not_equal(ring_sleeper(t.header), 0);
        push_event(n);
        assert_int_equal(ring_sleeper(t.header), 0);
        settle();
        assert_int_equal(t.count, n + 1);
        assert_int_equal(t.got[n].number, n);
    }
}

static void test_a_held_queue_is_woken_for_control_records(void **state)
{
    (void)state;
    push_event(1);
    for (uint32_t n = 2; n < 100; n++) {
        settle();
        assert_int_not_equal(ring_sleeper(t.header), 0);
        push_done(n);
        settle();
        assert_int_equal(t.count, n - 1);
    }
}

static void test_a_wake_for_nothing_does_no_harm(void **state)
{
    (void)state;
    const uint64_t one = 1;
    queue_resume(t.queue);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(write(t.eventfd, &one, sizeof(one)), sizeof(one));
        settle();
        assert_got("");
        assert_int_equal(t.corrupt, 0);
    }
    push_event(1);
    settle();
    assert_got("1");
}

enum { STRESS_RECORDS = 30000 };

static void *produce(void *arg)
{
    (void)arg;
    unsigned seed = 5;
    for (uint32_t n = 0; n < STRESS_RECORDS;) {
        if (push_event_of(n, 4 + (size_t)rand_r(&seed) % 100) == RING_PUSHED)
            n++;
        else
            sched_yield();
        if (rand_r(&seed) % 8 == 0)
            sched_yield(); /* let it run empty now and then */
    }
    return NULL;
}

/* A producer in its own time, and a loop that blocks: a wake that was lost would leave both waiting for ever. */
static void test_no_wake_is_lost(void **state)
{
    (void)state;
    pthread_t producer;
    queue_resume(t.queue);
    alarm(60);
    assert_int_equal(pthread_create(&producer, NULL, produce, NULL), 0);
    while (t.count < STRESS_RECORDS)
        uv_run(&t.loop, UV_RUN_ONCE);
    pthread_join(producer, NULL);
    alarm(0);
    for (uint32_t n = 0; n < STRESS_RECORDS; n++)
        assert_int_equal(t.got[n].number, n);
    settle();
    assert_int_equal(t.count, STRESS_RECORDS);
}

/* ---- a turn at a time ---------------------------------------------------------------------------------------------- */

/* Clients are flushed between two batches: no batch may hold all that a full ring holds. */
static void fill_and_read_one_turn(size_t length)
{
    uint32_t pushed = 0;
    t.count = 0;
    while (push_event_of(pushed, length) == RING_PUSHED)
        pushed++;
    while (t.count == 0) /* the first turn may only have woken it */
        uv_run(&t.loop, UV_RUN_NOWAIT);
    assert_in_range(t.count, 1, pushed / 2);
    settle();
    assert_int_equal(t.count, pushed);
}

static void test_a_turn_reads_a_batch(void **state)
{
    tear_down(state);
    set_up(state);
    make_ring(1 << 20, SEALS);
    start_queue();
    queue_resume(t.queue);
    alarm(60);
    fill_and_read_one_turn(4);
    fill_and_read_one_turn(4000);
    alarm(0);
}

/* ---- fields -------------------------------------------------------------------------------------------------------- */

static void test_every_field_of_a_record_is_handed_through(void **state)
{
    (void)state;
    char tag[EVAPID_TAG_MAX];
    for (size_t i = 0; i < sizeof(tag); i++)
        tag[i] = (char)(i * 5);
    queue_resume(t.queue);
    for (unsigned type = RING_RELAY; type <= RING_DONE; type++)
        for (size_t length = 0; length <= sizeof(tag); length++) {
            const struct ring_record record = { .type = (uint8_t)type,
                                                .worker = (uint16_t)(length * 1021),
                                                .session = 0xfffffff0U + (uint32_t)length,
                                                .target = 0x123456789abcdef0U + length };
            const bool control = ring_type_is_control((uint8_t)type);
            t.count = 0;
            assert_int_equal(push(record, tag, length, tag, control ? 0 : length), RING_PUSHED);
            settle();
            assert_int_equal(t.count, 1);
            const struct ring_record *got = &t.got[0].record;
            assert_int_equal(got->type, type);
            assert_int_equal(got->worker, record.worker);
            assert_int_equal(got->session, record.session);
            assert_true(got->target == record.target);
            assert_int_equal(got->tag_length, length);
            assert_memory_equal(t.got[0].tag, tag, length);
            assert_int_equal(got->payload_length, control ? 0 : length);
        }
}

static void test_a_payload_is_whole_wherever_it_stands_in_the_ring(void **state)
{
    (void)state;
    static char payload[CAPACITY];
    unsigned seed = 3;
    t.keep = true;
    queue_resume(t.queue);
    for (size_t i = 0; i < sizeof(payload); i++)
        payload[i] = (char)rand_r(&seed);
    for (unsigned round = 0; round < 500; round++) {
        const size_t length = (size_t)rand_r(&seed) % (ring_payload_max(CAPACITY) + 1);
        const struct ring_record record = { .type = RING_RELAY };
        assert_int_equal(push(record, "", 0, payload, length), RING_PUSHED);
        settle();
        assert_int_equal(t.kept->length, length);
        assert_memory_equal(frame_payload(t.kept), payload, length);
        assert_int_equal(t.kept->refs, 1); /* the queue keeps none */
    }
}

/* A frame is a copy: what is written over the ring later does not change it. */
static void test_a_frame_is_a_copy(void **state)
{
    (void)state;
    t.keep = true;
    queue_resume(t.queue);
    push_event(0x01020304);
    settle();
    memset(ring_records(t.header), 0xff, CAPACITY);
    uint32_t number;
    memcpy(&number, frame_payload(t.kept), sizeof(number));
    assert_int_equal(number, 0x01020304);
}

static void test_what_waits_is_counted(void **state)
{
    (void)state;
    assert_int_equal(queue_used(t.queue), 0);
    for (uint32_t n = 1; n <= 10; n++)
        push_event(n);
    settle();
    assert_int_equal(queue_used(t.queue), head());
    assert_int_equal(t.queue->high_water, head());
    const uint64_t most = head();
    queue_resume(t.queue);
    settle();
    assert_int_equal(queue_used(t.queue), 0);
    assert_int_equal(t.queue->high_water, most);
    push_event(11);
    settle();
    assert_int_equal(t.queue->high_water, most);
}

static void test_presence_lies_in_the_shared_header(void **state)
{
    (void)state;
    atomic_store(&queue_presence(t.queue)->session, 4711);
    assert_int_equal(atomic_load(&t.header->presence.session), 4711);
}

/* ---- nearly full --------------------------------------------------------------------------------------------------- */

/* Events alone leave the reserve to control records, which a hold is waiting for. */
static uint32_t fill_with_events(void)
{
    uint32_t n = 0;
    while (push_event_of(n, 400) == RING_PUSHED)
        n++;
    while (push_event_of(n, 4) == RING_PUSHED)
        n++;
    return n;
}

static void test_a_held_ring_full_of_events_is_not_crowded(void **state)
{
    (void)state;
    fill_with_events();
    settle();
    assert_int_equal(t.crowded, 0);
    assert_int_equal(t.count, 0);
}

/* Push control records until the host has been told; returns how many. */
static uint32_t crowd_with_controls(void)
{
    uint32_t n = 0;
    while (t.crowded == 0) {
        assert_int_equal(push((struct ring_record){ .type = RING_DONE, .target = n++ }, "", 0, "", 0), RING_PUSHED);
        settle();
    }
    return n;
}

static void test_a_held_ring_that_control_records_fill_is_crowded(void **state)
{
    (void)state;
    const uint32_t events = fill_with_events();
    const uint32_t controls = crowd_with_controls();
    /* In time: there was room for more control records. */
    assert_true(CAPACITY - queue_used(t.queue) >= ring_reserve(CAPACITY) / 4);
    assert_int_equal(t.count, controls);
    t.crowded = 0;
    queue_resume(t.queue);
    settle();
    assert_int_equal(t.count, controls + events);
    assert_int_equal(t.crowded, 0);
}

static void resume_now(void)
{
    queue_resume(t.queue);
}

static void test_a_release_from_within_crowded(void **state)
{
    (void)state;
    t.on_crowded = resume_now;
    const uint32_t events = fill_with_events();
    const uint32_t end = crowd_with_controls();
    assert_int_equal(t.crowded, 1);
    assert_int_equal(tail(), head());
    assert_true(end > 10);
    uint32_t event = 0;
    uint32_t control = 0;
    for (size_t i = 0; i < t.count; i++)
        assert_int_equal(t.got[i].number, ring_type_is_control(t.got[i].record.type) ? control++ : event++);
    assert_int_equal(event, events);
    assert_int_equal(control, end);
}

static void test_a_running_queue_is_never_crowded(void **state)
{
    (void)state;
    queue_resume(t.queue);
    for (int round = 0; round < 10; round++) {
        const uint32_t events = fill_with_events();
        uint32_t controls = 0;
        while (push((struct ring_record){ .type = RING_DONE }, "", 0, "", 0) == RING_PUSHED)
            controls++;
        t.count = 0;
        settle();
        assert_int_equal(t.count, events + controls);
    }
    assert_int_equal(t.crowded, 0);
}

/* ---- any mixture --------------------------------------------------------------------------------------------------- */

/* What was pushed and has not had its turn, oldest first. */
static struct {
    struct {
        enum ring_type type;
        bool ahead; /* it has been read ahead */
        uint32_t number;
    } waiting[GOT_MAX];
    size_t count;
    bool held;
} model;

/* Read all that is there: what the model says must come is what has come. */
static void model_settle(void)
{
    size_t got = 0;
    for (size_t i = 0; i < model.count; i++) {
        const bool control = ring_type_is_control((uint8_t)model.waiting[i].type);
        const bool ahead = model.waiting[i].ahead;
        if (model.held ? !control || ahead : model.waiting[i].type == RING_DONE && ahead)
            continue;
        assert_true(got < t.count);
        assert_int_equal(t.got[got].number, model.waiting[i].number);
        assert_int_equal(t.got[got].record.type, model.waiting[i].type);
        assert_int_equal(t.got[got].ahead, model.held);
        got++;
        model.waiting[i].ahead = model.held;
    }
    assert_int_equal(got, t.count);
    t.count = 0;
    if (!model.held)
        model.count = 0;
}

static void model_push(unsigned *seed, uint32_t number)
{
    static const enum ring_type types[] = { RING_RELAY, RING_RELAY, RING_RELAY, RING_CLOSE, RING_DONE };
    const enum ring_type type = types[rand_r(seed) % 5];
    const size_t length = 4 + (size_t)rand_r(seed) % (rand_r(seed) % 50 == 0 ? 8000 : 60);
    const struct ring_record record = { .type = (uint8_t)type, .target = number };
    const enum ring_push pushed =
        type == RING_RELAY ? push_event_of(number, length) : push(record, "tag", (size_t)rand_r(seed) % 4, "", 0);
    if (pushed != RING_PUSHED)
        return;
    model.waiting[model.count].type = type;
    model.waiting[model.count].ahead = false;
    model.waiting[model.count++].number = number;
}

static void test_random_use_agrees_with_a_model(void **state)
{
    (void)state;
    unsigned seed = 2024;
    size_t come = 0;
    memset(&model, 0, sizeof(model));
    model.held = true;
    for (uint32_t round = 0; round < 60000; round++) {
        switch (rand_r(&seed) % 32) {
        case 0:
            settle();
            come += t.count;
            model_settle();
            break;
        case 1:
            queue_drain(t.queue);
            come += t.count;
            model_settle();
            break;
        case 2:
        case 3:
            settle(); /* so that the model need not know how far a hold had read */
            come += t.count;
            model_settle();
            model.held = !model.held;
            if (model.held)
                queue_hold(t.queue);
            else
                queue_resume(t.queue);
            break;
        default: model_push(&seed, round);
        }
        assert_int_equal(t.corrupt, 0);
    }
    assert_true(come > 20000);
}

/* Positions are counts that may pass 2^64; a reader begins where the one before has ended. */
static void test_a_reader_begins_anywhere(void **state)
{
    static const uint64_t starts[] = { 8,          CAPACITY - 8,      UINT64_MAX - 7, UINT64_MAX - 1023,
                                       1ULL << 63, (1ULL << 63) - 512 };
    for (size_t i = 0; i < sizeof(starts) / sizeof(*starts); i++) {
        tear_down(state);
        set_up(state);
        make_ring(CAPACITY, SEALS);
        t.lane->head = t.lane->tail_seen = starts[i];
        atomic_store(&t.header->head, starts[i]);
        atomic_store(&t.header->tail, starts[i]);
        push_event(1); /* while nobody reads */
        push_done(2);
        start_queue();
        assert_int_equal(queue_used(t.queue), head() - starts[i]);
        for (uint32_t n = 3; n < 100; n += 2) {
            settle();
            push_event(n);
            push_done(n + 1);
        }
        settle();
        assert_int_equal(t.count, 50);
        queue_resume(t.queue);
        settle();
        assert_int_equal(t.count, 100);
        for (uint32_t n = 0; n < 50; n++) {
            assert_int_equal(t.got[n].number, 2 * n + 2);
            assert_int_equal(t.got[50 + n].number, 2 * n + 1);
        }
        t.count = 0;
        queue_hold(t.queue);
        push_event(1);
        push_done(2);
        settle();
        assert_got("+d2");
        queue_resume(t.queue);
        settle();
        assert_got("1");
        assert_int_equal(tail(), head());
    }
}

/* An evapid has ended without a word: the next one reads what the ring still holds. */
static void test_the_next_reader_finds_what_was_not_released(void **state)
{
    (void)state;
    push_event(1);
    push_done(2);
    push_event(3);
    settle();
    assert_got("+d2");
    stop_queue();
    push_event(4);
    start_queue();
    queue_resume(t.queue);
    settle();
    assert_got("1 d2 3 4");
    push_event(5);
    settle();
    assert_got("5");
}

/* ---- corrupt rings --------------------------------------------------------------------------------------------------- */

static struct ring_record *record_at(uint64_t at)
{
    return (struct ring_record *)(void *)(ring_records(t.header) + (at & (CAPACITY - 1)));
}

static void spoil_head_far(struct ring_record *r)
{
    (void)r;
    atomic_store(&t.header->head, tail() + CAPACITY + RING_ALIGN);
}

static void spoil_head_odd(struct ring_record *r)
{
    (void)r;
    atomic_fetch_add(&t.header->head, 4);
}

static void spoil_head_back(struct ring_record *r)
{
    (void)r;
    atomic_store(&t.header->head, tail() - RING_ALIGN);
}

static void spoil_size_zero(struct ring_record *r)
{
    r->size = 0;
}

static void spoil_size_small(struct ring_record *r)
{
    r->size = sizeof(*r) - RING_ALIGN;
}

static void spoil_size_odd(struct ring_record *r)
{
    r->size += 1;
}

static void spoil_size_beyond_head(struct ring_record *r)
{
    r->size += RING_ALIGN;
}

static void spoil_size_huge(struct ring_record *r)
{
    r->size = UINT32_MAX - 7;
}

static void spoil_tag(struct ring_record *r)
{
    r->tag_length = EVAPID_TAG_MAX + 1;
}

static void spoil_tag_beyond_record(struct ring_record *r)
{
    r->tag_length = 9;
}

static void spoil_payload(struct ring_record *r)
{
    r->payload_length = 9;
}

static void spoil_payload_huge(struct ring_record *r)
{
    r->payload_length = UINT32_MAX;
}

static void spoil_type_low(struct ring_record *r)
{
    r->type = RING_RELAY - 1;
}

static void spoil_type_high(struct ring_record *r)
{
    r->type = RING_DONE + 1;
}

#define HEAD "head is out of range"
#define SIZE "a record's size does not fit what was written"
#define LENGTH "a record's tag or payload is longer than the record"
#define TYPE "a record has an unknown type"

/* What spoils the last of three records, an event of 4 bytes, or head; and why the ring is corrupt then. */
static const struct {
    void (*spoil)(struct ring_record *r);
    const char *why;
} spoils[] = {
    { spoil_head_far, HEAD },
    { spoil_head_odd, HEAD },
    { spoil_head_back, HEAD },
    { spoil_size_zero, SIZE },
    { spoil_size_small, SIZE },
    { spoil_size_odd, SIZE },
    { spoil_size_beyond_head, SIZE },
    { spoil_size_huge, SIZE },
    { spoil_tag, LENGTH },
    { spoil_tag_beyond_record, LENGTH },
    { spoil_payload, LENGTH },
    { spoil_payload_huge, LENGTH },
    { spoil_type_low, TYPE },
    { spoil_type_high, TYPE },
};

#define SPOILS (sizeof(spoils) / sizeof(*spoils))

/* A fresh queue that has read its ring's first bytes, and then three records, the last of them spoilt: returns where that
 * one stands. */
static uint64_t spoil(void **state, size_t i, bool held)
{
    tear_down(state);
    set_up(state);
    make_ring(CAPACITY, SEALS);
    start_queue();
    if (!held)
        queue_resume(t.queue);
    push_done(1);
    settle();
    t.count = 0;
    push_done(2);
    push_done(3);
    const uint64_t at = head();
    push_event(4);
    spoils[i].spoil(record_at(at));
    return at;
}

static bool spoils_head(size_t i)
{
    return strcmp(spoils[i].why, HEAD) == 0;
}

static void test_a_corrupt_ring_stops_the_queue_with_the_reason(void **state)
{
    for (size_t i = 0; i < SPOILS; i++)
        for (int held = 0; held < 2; held++) {
            const uint64_t at = spoil(state, i, held);
            settle();
            assert_int_equal(t.corrupt, 1);
            assert_string_equal(t.why, spoils[i].why);
            assert_int_equal(t.corrupt_at, spoils_head(i) ? sizeof(struct ring_record) : at); /* behind the first */
            assert_int_equal(t.queue->state, QUEUE_CORRUPT);
            assert_got(spoils_head(i) ? "" : held ? "+d2 +d3" : "d2 d3"); /* what stands in front of it was good */
        }
}

static void test_a_corrupt_queue_does_nothing_more(void **state)
{
    for (size_t i = 0; i < SPOILS; i++) {
        const uint64_t one = 1;
        spoil(state, i, false);
        settle();
        t.count = 0;
        const uint64_t stands = tail();
        queue_hold(t.queue);
        queue_resume(t.queue);
        queue_drain(t.queue);
        assert_int_equal(write(t.eventfd, &one, sizeof(one)), sizeof(one));
        settle();
        assert_int_equal(t.queue->state, QUEUE_CORRUPT);
        assert_int_equal(t.corrupt, 1);
        assert_int_equal(tail(), stands);
        assert_got("");
    }
}

static void test_a_drain_of_a_corrupt_ring_ends(void **state)
{
    for (size_t i = 0; i < SPOILS; i++)
        for (int held = 0; held < 2; held++) {
            spoil(state, i, held);
            queue_drain(t.queue);
            assert_got(spoils_head(i) ? "" : held ? "+d2 +d3" : "d2 d3");
            settle();
            assert_int_equal(t.corrupt, 1);
            assert_string_equal(t.why, spoils[i].why);
        }
}

static void close_now(void)
{
    queue_close(t.queue);
    t.queue = NULL;
}

static void test_a_queue_may_be_closed_when_it_is_found_corrupt(void **state)
{
    for (size_t i = 0; i < SPOILS; i++) {
        spoil(state, i, i % 2 == 0);
        t.on_corrupt = close_now;
        run_closed();
        assert_int_equal(t.corrupt, 1);
        assert_null(t.queue);
    }
}

static void close_at(size_t i)
{
    if (t.got[i].number == 2)
        close_now();
}

static void test_a_queue_may_be_closed_from_within_a_record(void **state)
{
    for (int control = 0; control < 2; control++)
        for (int drained = 0; drained < 2; drained++) {
            tear_down(state);
            set_up(state);
            make_ring(CAPACITY, SEALS);
            start_queue();
            queue_resume(t.queue);
            t.on_record = close_at;
            push_event(1);
            if (control)
                push_close(2);
            else
                push_event(2);
            push_event(3);
            if (drained)
                queue_drain(t.queue);
            run_closed();
            assert_got(control ? "1 c2" : "1 2");
        }
}

/* Whatever bytes stand in the ring, nothing but whole records within it reach the host, and it ends. The sanitizers
 * watch. */
static void test_random_bytes_in_the_ring_do_no_harm(void **state)
{
    unsigned seed = 77;
    unsigned corrupt = 0;
    size_t come = 0;
    for (unsigned round = 0; round < 300; round++) {
        tear_down(state);
        set_up(state);
        make_ring(CAPACITY, SEALS);
        start_queue();
        if (rand_r(&seed) % 2 == 0)
            queue_resume(t.queue);
        for (uint32_t n = 0; n < 100; n++)
            push_event_of(n, 4 + (size_t)rand_r(&seed) % 200);
        for (unsigned changes = 1 + (unsigned)rand_r(&seed) % 8; changes > 0; changes--) {
            const uint64_t at = (uint64_t)rand_r(&seed) % head();
            ring_records(t.header)[rand_r(&seed) % 2 == 0 ? at : at & ~(uint64_t)7] = (unsigned char)rand_r(&seed);
        }
        if (rand_r(&seed) % 8 == 0)
            atomic_store(&t.header->head, (uint64_t)rand_r(&seed) % (2 * CAPACITY));
        settle();
        for (size_t i = 0; i < t.count; i++) {
            assert_in_range(t.got[i].record.type, RING_RELAY, RING_DONE);
            assert_true(t.got[i].record.payload_length < CAPACITY);
        }
        corrupt += t.corrupt;
        come += t.count;
    }
    assert_true(corrupt > 20 && corrupt < 300 && come > 1000);
}

/* ---- what is refused ------------------------------------------------------------------------------------------------- */

static void assert_refused(const char *expected)
{
    const char *why = try_queue();
    assert_non_null(why);
    assert_string_equal(why, expected);
}

#define UNSEALED "its memory is not sealed against a change of size"
#define NO_SIZE "its memory is of no size that a ring can have"

static void test_memory_that_could_change_its_size_is_refused(void **state)
{
    static const int seals[] = {
        0, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK | F_SEAL_SEAL, F_SEAL_GROW | F_SEAL_SEAL
    };
    for (size_t i = 0; i < sizeof(seals) / sizeof(*seals); i++) {
        tear_down(state);
        set_up(state);
        make_ring(CAPACITY, seals[i]);
        assert_refused(UNSEALED);
    }
}

/* Both seals are what evapid needs; the third is the module's own. */
static void test_memory_that_is_sealed_against_shrinking_and_growing_is_taken(void **state)
{
    tear_down(state);
    set_up(state);
    make_ring(CAPACITY, F_SEAL_SHRINK | F_SEAL_GROW);
    start_queue();
    queue_resume(t.queue);
    push_event(1);
    settle();
    assert_got("1");
}

static void replace_memfd(int fd)
{
    assert_true(fd >= 0);
    dup2(fd, t.memfd);
    close(fd);
}

static void test_what_is_no_memory_is_refused(void **state)
{
    int ends[2];
    (void)state;
    stop_queue();
    replace_memfd(open("/dev/null", O_RDWR | O_CLOEXEC));
    assert_refused(UNSEALED);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    close(ends[1]);
    replace_memfd(ends[0]);
    assert_refused(UNSEALED);
    replace_memfd(eventfd(0, EFD_CLOEXEC));
    assert_refused(UNSEALED);
}

static void replace_memory(off_t size)
{
    const int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, size), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALS), 0);
    replace_memfd(fd);
}

static void test_memory_of_an_impossible_size_is_refused(void **state)
{
    (void)state;
    stop_queue();
    replace_memory(0);
    assert_refused(NO_SIZE);
    replace_memory(1);
    assert_refused(NO_SIZE);
    replace_memory((off_t)ring_bytes(EVAPID_RING_MIN) - 1);
    assert_refused(NO_SIZE);
    replace_memory((off_t)ring_bytes(EVAPID_RING_MAX) + 1); /* sparse: it takes no memory */
    assert_refused(NO_SIZE);
    replace_memory((off_t)1 << 46);
    assert_refused(NO_SIZE);
    replace_memory((off_t)ring_bytes(EVAPID_RING_MIN)); /* a size that would do, but nothing in it */
    assert_refused("not a ring of evapid's");
}

static void test_memory_that_cannot_be_written_is_refused(void **state)
{
    (void)state;
    stop_queue();
    const int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, (off_t)ring_bytes(CAPACITY)), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_WRITE), 0);
    replace_memfd(fd);
    assert_refused(strerror(EPERM));
}

static void test_a_header_that_is_wrong_is_refused(void **state)
{
    (void)state;
    stop_queue();
    t.header->magic ^= 1;
    assert_refused("not a ring of evapid's");
    t.header->magic ^= 1;
    t.header->version++;
    assert_refused("the ring's version is another than ours");
    t.header->version--;
    static const uint64_t capacities[] = { 0, CAPACITY / 2, CAPACITY * 2, CAPACITY - 1, CAPACITY + 8, UINT64_MAX };
    for (size_t i = 0; i < sizeof(capacities) / sizeof(*capacities); i++) {
        t.header->capacity = capacities[i];
        assert_refused("the ring's capacity does not fit its size");
    }
    t.header->capacity = CAPACITY;
    static const uint64_t positions[][2] = { /* head and tail */
                                             { 4, 0 },
                                             { 8, 4 },
                                             { CAPACITY + 8, 0 },
                                             { 0, 8 },
                                             { UINT64_MAX - 7, 0 }
    };
    for (size_t i = 0; i < sizeof(positions) / sizeof(*positions); i++) {
        atomic_store(&t.header->head, positions[i][0]);
        atomic_store(&t.header->tail, positions[i][1]);
        assert_refused("the ring's head and tail do not fit each other");
    }
    atomic_store(&t.header->head, 0);
    atomic_store(&t.header->tail, 0);
    start_queue();
}

static void replace_eventfd(int fd)
{
    assert_true(fd >= 0);
    dup2(fd, t.eventfd);
    close(fd);
}

/* A file cannot be waited for. */
static void test_an_eventfd_that_cannot_be_watched_is_refused(void **state)
{
    (void)state;
    stop_queue();
    replace_eventfd(memfd_create("file", MFD_CLOEXEC));
    assert_refused("its eventfd is none");
    replace_eventfd(open("/dev/null", O_RDWR | O_CLOEXEC));
    assert_refused("its eventfd is none");
}

/* A pipe can be waited for, but what it gives is not a count. */
static void test_an_eventfd_that_is_none_stops_the_queue(void **state)
{
    int ends[2];
    (void)state;
    for (int closed = 0; closed < 2; closed++) {
        tear_down(state);
        set_up(state);
        make_ring(CAPACITY, SEALS);
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        replace_eventfd(ends[0]);
        start_queue();
        if (!closed)
            assert_int_equal(write(ends[1], "abc", 3), 3);
        close(ends[1]);
        settle();
        assert_int_equal(t.corrupt, 1);
        assert_string_equal(t.why, "its eventfd is none");
        assert_int_equal(t.queue->state, QUEUE_CORRUPT);
    }
}

/* One that blocks would stop evapid for ever at a read of nothing. */
static void test_an_eventfd_is_made_not_to_block(void **state)
{
    (void)state;
    stop_queue();
    replace_eventfd(eventfd(0, EFD_CLOEXEC));
    start_queue();
    assert_true((fcntl(t.eventfd, F_GETFL) & O_NONBLOCK) != 0);
    queue_resume(t.queue);
    push_event(1);
    settle();
    assert_got("1");
}

static void test_closing_closes_both_descriptors(void **state)
{
    (void)state;
    stop_queue();
    const int lowest = dup(0);
    close(lowest);
    for (int i = 0; i < 10; i++) {
        start_queue();
        stop_queue();
    }
    const int now = dup(0);
    close(now);
    assert_int_equal(now, lowest);
}

#define WITH_QUEUE(test) cmocka_unit_test_setup_teardown(test, set_up_queue, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_QUEUE(test_records_come_in_the_order_in_which_they_were_issued),
        WITH_QUEUE(test_a_queue_begins_held),
        WITH_QUEUE(test_control_records_are_read_ahead_of_events_while_it_is_held),
        WITH_QUEUE(test_a_close_or_tag_read_ahead_comes_again_in_its_place_a_done_does_not),
        WITH_QUEUE(test_a_queue_that_goes_on_at_once_keeps_the_order),
        WITH_QUEUE(test_a_queue_may_be_held_again),
        WITH_QUEUE(test_what_was_read_ahead_is_remembered_over_a_short_run),
        WITH_QUEUE(test_it_may_go_on_from_within_a_control_record),
        WITH_QUEUE(test_holding_and_resuming_twice_is_the_same_as_once),
        WITH_QUEUE(test_a_drain_hands_over_all_at_once),
        WITH_QUEUE(test_a_drain_of_a_held_queue_hands_over_the_control_records),
        WITH_QUEUE(test_a_drain_ends_though_more_is_written_meanwhile),
        WITH_QUEUE(test_an_empty_queue_sleeps),
        WITH_QUEUE(test_every_push_wakes_it_from_sleep),
        WITH_QUEUE(test_a_held_queue_is_woken_for_control_records),
        WITH_QUEUE(test_a_wake_for_nothing_does_no_harm),
        WITH_QUEUE(test_no_wake_is_lost),
        WITH_QUEUE(test_a_turn_reads_a_batch),
        WITH_QUEUE(test_every_field_of_a_record_is_handed_through),
        WITH_QUEUE(test_a_payload_is_whole_wherever_it_stands_in_the_ring),
        WITH_QUEUE(test_a_frame_is_a_copy),
        WITH_QUEUE(test_what_waits_is_counted),
        WITH_QUEUE(test_presence_lies_in_the_shared_header),
        WITH_QUEUE(test_a_held_ring_full_of_events_is_not_crowded),
        WITH_QUEUE(test_a_held_ring_that_control_records_fill_is_crowded),
        WITH_QUEUE(test_a_release_from_within_crowded),
        WITH_QUEUE(test_a_running_queue_is_never_crowded),
        WITH_QUEUE(test_random_use_agrees_with_a_model),
        WITH_QUEUE(test_a_reader_begins_anywhere),
        WITH_QUEUE(test_the_next_reader_finds_what_was_not_released),
        WITH_QUEUE(test_a_corrupt_ring_stops_the_queue_with_the_reason),
        WITH_QUEUE(test_a_corrupt_queue_does_nothing_more),
        WITH_QUEUE(test_a_drain_of_a_corrupt_ring_ends),
        WITH_QUEUE(test_a_queue_may_be_closed_when_it_is_found_corrupt),
        WITH_QUEUE(test_a_queue_may_be_closed_from_within_a_record),
        WITH_QUEUE(test_random_bytes_in_the_ring_do_no_harm),
        WITH_QUEUE(test_memory_that_could_change_its_size_is_refused),
        WITH_QUEUE(test_memory_that_is_sealed_against_shrinking_and_growing_is_taken),
        WITH_QUEUE(test_what_is_no_memory_is_refused),
        WITH_QUEUE(test_memory_of_an_impossible_size_is_refused),
        WITH_QUEUE(test_memory_that_cannot_be_written_is_refused),
        WITH_QUEUE(test_a_header_that_is_wrong_is_refused),
        WITH_QUEUE(test_an_eventfd_that_cannot_be_watched_is_refused),
        WITH_QUEUE(test_an_eventfd_that_is_none_stops_the_queue),
        WITH_QUEUE(test_an_eventfd_is_made_not_to_block),
        WITH_QUEUE(test_closing_closes_both_descriptors),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
