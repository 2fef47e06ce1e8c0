/* The intake: records of a real ring reach the host in order and once, held or not, however evapid falls asleep. */
#include "kamailio/intake_rig.h"

/* ---- order, held and running --------------------------------------------------------------------------------------- */

static void test_records_come_in_the_order_in_which_they_were_issued(void **state)
{
    (void)state;
    intake_resume(t.intake);
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
    assert_int_equal(t.intake->state, INTAKE_HELD);
    assert_int_equal(tail(), 0);
    intake_resume(t.intake);
    assert_int_equal(t.intake->state, INTAKE_RUNNING);
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
    intake_resume(t.intake);
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
    intake_resume(t.intake);
    settle();
    assert_got("1 c2 d3 4");
}

static void test_a_queue_may_be_held_again(void **state)
{
    (void)state;
    intake_resume(t.intake);
    push_event(1);
    settle();
    for (uint32_t n = 2; n < 200; n += 5) {
        char expected[64];
        t.count = 0;
        intake_hold(t.intake);
        push_event(n);
        push_done(n + 1);
        push_close(n + 2);
        settle();
        snprintf(expected, sizeof(expected), "+d%u +c%u", n + 1, n + 2);
        assert_got(expected);
        intake_resume(t.intake);
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
    intake_resume(t.intake);
    intake_hold(t.intake);
    push_done(5);
    settle();
    assert_got("+d5");
    intake_resume(t.intake);
    settle();
    assert_got("1 c3 4");
}

static void resume_at(size_t i)
{
    if (t.got[i].number == 3)
        intake_resume(t.intake);
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
    intake_hold(t.intake);
    push_event(1);
    push_done(2);
    settle();
    intake_hold(t.intake);
    settle();
    assert_got("+d2");
    intake_resume(t.intake);
    intake_resume(t.intake);
    settle();
    intake_resume(t.intake);
    settle();
    assert_got("1");
}

/* ---- reading up to a mark ------------------------------------------------------------------------------------------------------ */

static void test_what_has_been_written_is_read_a_batch_in_a_turn_whoever_waits_for_it(void **state)
{
    (void)state;
    intake_resume(t.intake);
    for (uint32_t n = 1; n <= 1500; n++)
        push_event(n);
    const uint64_t end = intake_end(t.intake);
    for (int asked = 0; asked < 3; asked++)
        intake_read_batch(t.intake);
    assert_int_equal(t.count, 1024);
    assert_false(intake_has_read(t.intake, end));
    intake_await_answers(t.intake, false, false); /* the end of the turn */
    intake_read_batch(t.intake);
    assert_true(intake_has_read(t.intake, end));
    assert_int_equal(t.count, 1500);
    for (uint32_t n = 1; n <= 1500; n++)
        assert_int_equal(t.got[n - 1].number, n);
    assert_int_equal(tail(), head());
    t.count = 0;
    drain();
    settle();
    assert_got("");
}

/* An event may be for many clients: then fewer are a batch. */
static void give_to_many(size_t i)
{
    (void)i;
    intake_note_work(t.intake, 10000);
}

static void test_a_batch_of_events_for_many_clients_is_short(void **state)
{
    (void)state;
    intake_resume(t.intake);
    t.on_record = give_to_many;
    for (uint32_t n = 1; n <= 100; n++)
        push_event(n);
    intake_read_batch(t.intake);
    assert_int_equal(t.count, 2);
    t.on_record = NULL;
    settle();
    assert_int_equal(t.count, 100);
}

static void test_a_mark_of_a_held_queue_is_reached_by_the_control_records(void **state)
{
    (void)state;
    push_event(1);
    push_done(2);
    push_close(3);
    push_event(4);
    drain();
    assert_got("+d2 +c3");
    assert_int_equal(tail(), 0);
    drain();
    settle();
    assert_got("");
    intake_resume(t.intake);
    drain();
    assert_got("1 c3 4");
}

static void push_more(size_t i)
{
    push_event(t.got[i].number + 100);
}

/* A producer that writes on and on does not keep who waits for what had been written before. */
static void test_a_mark_is_reached_though_more_is_written_meanwhile(void **state)
{
    (void)state;
    intake_resume(t.intake);
    t.on_record = push_more;
    push_event(1);
    push_event(2);
    const uint64_t end = intake_end(t.intake);
    intake_read_batch(t.intake);
    assert_true(intake_has_read(t.intake, end));
    assert_int_equal(t.count, 1024);
    assert_int_equal(t.got[0].number, 1);
    assert_int_equal(t.got[1].number, 2);
}

static void test_of_a_queue_that_is_not_read_any_more_nothing_is_waited_for(void **state)
{
    (void)state;
    intake_resume(t.intake);
    push_event(1);
    const uint64_t end = intake_end(t.intake);
    assert_false(intake_has_read(t.intake, end));
    t.intake->state = INTAKE_CORRUPT;
    assert_true(intake_has_read(t.intake, end));
    assert_true(intake_has_read(t.intake, intake_end(t.intake)));
}

/* ---- sleep --------------------------------------------------------------------------------------------------------- */

static void test_an_empty_queue_sleeps(void **state)
{
    (void)state;
    settle();
    assert_int_not_equal(ring_sleeper(t.header, t.lane), 0);
    intake_resume(t.intake);
    settle();
    assert_int_not_equal(ring_sleeper(t.header, t.lane), 0);
}

static void test_every_push_wakes_it_from_sleep(void **state)
{
    (void)state;
    intake_resume(t.intake);
    for (uint32_t n = 0; n < 1000; n++) {
        settle();
        assert_int_not_equal(ring_sleeper(t.header, t.lane), 0);
        push_event(n);
        assert_int_equal(ring_sleeper(t.header, t.lane), 0);
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
        assert_int_not_equal(ring_sleeper(t.header, t.lane), 0);
        push_done(n);
        settle();
        assert_int_equal(t.count, n - 1);
    }
}

static void test_a_wake_for_nothing_does_no_harm(void **state)
{
    (void)state;
    intake_resume(t.intake);
    for (int i = 0; i < 10; i++) {
        send_wake();
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
    intake_resume(t.intake);
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
    intake_resume(t.intake);
    alarm(60);
    fill_and_read_one_turn(4);
    fill_and_read_one_turn(4000);
    alarm(0);
}

/* What producers read of the reader is written once for a batch: room comes back when all of it has been read. */
static void see_tail(size_t i)
{
    assert_int_equal(tail(), 0);
    assert_int_equal(t.intake->ring.tail, i * (sizeof(struct ring_record) + RING_ALIGN));
}

static void test_room_comes_back_batch_by_batch(void **state)
{
    (void)state;
    intake_resume(t.intake);
    t.on_record = see_tail;
    for (uint32_t n = 0; n < 100; n++)
        push_event(n);
    settle();
    assert_int_equal(t.count, 100);
    assert_int_equal(tail(), head());
    assert_int_equal(intake_used(t.intake), 0);
}

static void test_room_comes_back_with_a_drain(void **state)
{
    (void)state;
    intake_resume(t.intake);
    t.on_record = see_tail;
    for (uint32_t n = 0; n < 100; n++)
        push_event(n);
    drain();
    assert_int_equal(t.count, 100);
    assert_int_equal(tail(), head());
}

static void hold_at(size_t i)
{
    if (t.got[i].number == 2)
        intake_hold(t.intake);
}

/* Held in the middle of a batch: what was read before is done with, and the rest stays in the ring. */
static void test_a_hold_from_within_a_record_gives_back_what_was_read(void **state)
{
    (void)state;
    for (int drained = 0; drained < 2; drained++) {
        intake_resume(t.intake);
        t.on_record = hold_at;
        const uint64_t begin = head();
        for (uint32_t n = 1; n <= 5; n++)
            push_event(n);
        if (drained)
            drain();
        settle();
        assert_got("1 2");
        assert_int_equal(tail() - begin, 2 * (sizeof(struct ring_record) + RING_ALIGN));
        intake_resume(t.intake);
        settle();
        assert_got("3 4 5");
        assert_int_equal(tail(), head());
    }
}

/* The record itself is done with: read ahead then, it would be heard twice. */
static void test_a_hold_from_within_a_control_record_does_not_hear_it_again(void **state)
{
    (void)state;
    intake_resume(t.intake);
    t.on_record = hold_at;
    push_event(1);
    push_done(2);
    push_event(3);
    push_close(4);
    settle();
    assert_got("1 d2 +c4");
    intake_resume(t.intake);
    settle();
    assert_got("3 c4");
    assert_int_equal(tail(), head());
}

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
        WITH_QUEUE(test_what_has_been_written_is_read_a_batch_in_a_turn_whoever_waits_for_it),
        WITH_QUEUE(test_a_mark_of_a_held_queue_is_reached_by_the_control_records),
        WITH_QUEUE(test_a_mark_is_reached_though_more_is_written_meanwhile),
        WITH_QUEUE(test_of_a_queue_that_is_not_read_any_more_nothing_is_waited_for),
        WITH_QUEUE(test_a_batch_of_events_for_many_clients_is_short),
        WITH_QUEUE(test_an_empty_queue_sleeps),
        WITH_QUEUE(test_every_push_wakes_it_from_sleep),
        WITH_QUEUE(test_a_held_queue_is_woken_for_control_records),
        WITH_QUEUE(test_a_wake_for_nothing_does_no_harm),
        WITH_QUEUE(test_no_wake_is_lost),
        WITH_QUEUE(test_a_turn_reads_a_batch),
        WITH_QUEUE(test_room_comes_back_batch_by_batch),
        WITH_QUEUE(test_room_comes_back_with_a_drain),
        WITH_QUEUE(test_a_hold_from_within_a_record_gives_back_what_was_read),
        WITH_QUEUE(test_a_hold_from_within_a_control_record_does_not_hear_it_again),
    };
    return cmocka_run_group_tests_name("intake", tests, NULL, NULL);
}
