/* The intake at rest: whether it sleeps, naps or looks again at once when the ring is empty, and that no record stays
 * unread. A sleeping intake must be woken; otherwise it notices records by itself. */
#include "kamailio/intake_rig.h"

#include <sys/resource.h>

static bool is_asleep(void)
{
    return ring_sleeper(t.header, t.lane) != 0;
}

/* A record that nobody wakes the intake for. */
static void put_event(uint32_t number)
{
    const struct ring_record record = { .type = RING_RELAY };
    assert_int_equal(ring_push(t.header, t.lane, t.slot, record, "", 0, (const char *)&number, sizeof(number)),
                     RING_PUSHED);
}

/* Run the loop until it naps; false: it went to sleep. */
static bool falls_into_nap(void)
{
    do
        uv_run(&t.loop, UV_RUN_NOWAIT);
    while (!t.intake->napping && !is_asleep());
    return t.intake->napping;
}

/* In an intake that has not learnt anything, behind one event. */
static void begin(void)
{
    intake_resume(t.intake);
    settle();
    assert_got("");
    assert_true(is_asleep());
    t.intake->events = t.intake->answers = (struct patience){ 0 };
    push_event(1);
}

static void test_behind_an_event_it_naps_and_sees_the_next_one_by_itself(void **state)
{
    (void)state;
    begin();
    for (uint32_t number = 2; number < 10; number++) {
        if (!falls_into_nap()) { /* this program was away for longer than patience lasts */
            t.intake->events = (struct patience){ 0 };
            push_event(number);
            continue;
        }
        assert_false(is_asleep());
        put_event(number);
    }
    settle();
    assert_got("1 2 3 4 5 6 7 8 9");
    assert_true(is_asleep());
}

static void test_it_sleeps_when_nothing_has_come(void **state)
{
    (void)state;
    begin();
    settle();
    assert_got("1");
    assert_true(is_asleep());
    push_event(2);
    settle();
    assert_got("2");
    assert_true(is_asleep());
}

static void test_it_does_not_nap_while_an_answer_is_awaited(void **state)
{
    (void)state;
    begin();
    intake_await_answers(t.intake, true, false);
    assert_false(falls_into_nap());
    assert_got("1");
    intake_await_answers(t.intake, false, false);
    t.intake->events = (struct patience){ 0 };
    push_event(2);
    falls_into_nap();
    settle();
    assert_got("2");
}

static void test_a_nap_ends_in_sleep_when_an_answer_is_awaited(void **state)
{
    (void)state;
    begin();
    while (!falls_into_nap()) {
        t.intake->events = (struct patience){ 0 };
        push_event(1);
    }
    intake_await_answers(t.intake, true, false);
    assert_false(falls_into_nap());
    assert_true(is_asleep());
}

/* A message has been posted: the answer needs to wake nobody. */
static void test_it_looks_again_at_once_when_an_answer_may_be_here_soon(void **state)
{
    (void)state;
    intake_resume(t.intake);
    settle();
    assert_true(is_asleep());
    intake_await_answers(t.intake, true, true);
    assert_false(is_asleep());
    put_event(1);
    uv_run(&t.loop, UV_RUN_NOWAIT);
    assert_got("1");
    settle();
    assert_true(is_asleep());
}

static void test_answers_that_take_long_are_not_looked_for(void **state)
{
    (void)state;
    intake_resume(t.intake);
    settle();
    unsigned tried = 0;
    for (unsigned i = 0; i < 300; i++) {
        intake_await_answers(t.intake, true, true);
        tried += !is_asleep();
        settle();
        assert_true(is_asleep());
    }
    assert_in_range(tried, 1, 9); /* each time in vain doubles how often it is left out */
}

static void test_without_a_timer_it_sleeps_and_nothing_is_lost(void **state)
{
    (void)state;
    struct rlimit all;
    struct rlimit none;
    make_ring(CAPACITY, SEALS);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    const int memfd = fcntl(t.memfd, F_DUPFD_CLOEXEC, 0);
    const int wake_fd = fcntl(t.wake_fd, F_DUPFD_CLOEXEC, 0);
    none = (struct rlimit){ .rlim_cur = 0, .rlim_max = all.rlim_max };
    const char *why = "";
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    t.intake = intake_open(&t.loop, memfd, wake_fd, &host, &why);
    setrlimit(RLIMIT_NOFILE, &all);
    assert_non_null(t.intake);
    assert_int_equal(t.intake->nap_fd, -1);
    begin();
    assert_false(falls_into_nap());
    push_event(2);
    settle();
    assert_got("1 2");
}

static void test_it_may_be_closed_in_a_nap(void **state)
{
    (void)state;
    begin();
    falls_into_nap();
    stop_queue();
    assert_got("1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_QUEUE(test_behind_an_event_it_naps_and_sees_the_next_one_by_itself),
        WITH_QUEUE(test_it_sleeps_when_nothing_has_come),
        WITH_QUEUE(test_it_does_not_nap_while_an_answer_is_awaited),
        WITH_QUEUE(test_a_nap_ends_in_sleep_when_an_answer_is_awaited),
        WITH_QUEUE(test_it_looks_again_at_once_when_an_answer_may_be_here_soon),
        WITH_QUEUE(test_answers_that_take_long_are_not_looked_for),
        cmocka_unit_test_setup_teardown(test_without_a_timer_it_sleeps_and_nothing_is_lost, set_up, tear_down),
        WITH_QUEUE(test_it_may_be_closed_in_a_nap),
    };
    return cmocka_run_group_tests_name("intake, rest", tests, NULL, NULL);
}
