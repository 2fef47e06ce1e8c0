/* Busy polling: when evapid stays awake, and how it learns not to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "busy_poll.h"

/* One wait in vain from now on. Returns whether it was tried. */
static bool in_vain(struct busy_poll *poll, uint64_t now_ns)
{
    busy_poll_begin(poll, now_ns);
    const bool tried = busy_poll_goes_on(poll, now_ns);
    assert_false(busy_poll_goes_on(poll, now_ns + BUSY_POLL_NS));
    return tried;
}

/* How many times it is left out until it is tried again, in vain. */
static unsigned left_out(struct busy_poll *poll)
{
    unsigned times = 0;
    while (!in_vain(poll, 1))
        times++;
    return times;
}

static void test_nothing_is_awaited_at_first(void **state)
{
    struct busy_poll poll = { 0 };
    (void)state;
    assert_false(busy_poll_goes_on(&poll, 0));
    assert_false(busy_poll_goes_on(&poll, UINT64_MAX));
}

static void test_goes_on_until_the_time_is_over(void **state)
{
    struct busy_poll poll = { 0 };
    (void)state;
    busy_poll_begin(&poll, 1000);
    assert_true(busy_poll_goes_on(&poll, 1000));
    assert_true(busy_poll_goes_on(&poll, 999 + BUSY_POLL_NS));
    assert_false(busy_poll_goes_on(&poll, 1000 + BUSY_POLL_NS));
    assert_false(busy_poll_goes_on(&poll, 1000));
}

static void test_a_second_beginning_does_not_prolong_the_first(void **state)
{
    struct busy_poll poll = { 0 };
    (void)state;
    busy_poll_begin(&poll, 1);
    busy_poll_begin(&poll, BUSY_POLL_NS);
    assert_false(busy_poll_goes_on(&poll, 1 + BUSY_POLL_NS));
}

static void test_ends_when_it_has_come(void **state)
{
    struct busy_poll poll = { 0 };
    (void)state;
    for (uint64_t now = 1; now < 100; now++) {
        busy_poll_begin(&poll, now);
        assert_true(busy_poll_goes_on(&poll, now));
        busy_poll_hit(&poll);
        assert_false(busy_poll_goes_on(&poll, now));
    }
}

static void test_each_time_in_vain_doubles_how_often_it_is_left_out(void **state)
{
    struct busy_poll poll = { 0 };
    (void)state;
    assert_true(in_vain(&poll, 1));
    for (unsigned times = 1; times <= BUSY_POLL_LEFT_OUT_MAX; times *= 2)
        assert_int_equal(left_out(&poll), times);
    assert_int_equal(left_out(&poll), BUSY_POLL_LEFT_OUT_MAX);
    assert_int_equal(left_out(&poll), BUSY_POLL_LEFT_OUT_MAX);
}

static void test_one_success_makes_up_for_all_that_was_in_vain(void **state)
{
    struct busy_poll poll = { 0 };
    (void)state;
    in_vain(&poll, 1);
    assert_int_equal(left_out(&poll), 1);
    assert_int_equal(left_out(&poll), 2);
    while (poll.until_ns == 0)
        busy_poll_begin(&poll, 1);
    busy_poll_hit(&poll);
    assert_true(in_vain(&poll, 1));
    assert_int_equal(left_out(&poll), 1);
}

static void test_what_comes_when_nobody_waits_is_no_success(void **state)
{
    struct busy_poll poll = { 0 };
    (void)state;
    in_vain(&poll, 1);
    assert_int_equal(left_out(&poll), 1);
    busy_poll_hit(&poll);
    assert_int_equal(left_out(&poll), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_awaited_at_first),
        cmocka_unit_test(test_goes_on_until_the_time_is_over),
        cmocka_unit_test(test_a_second_beginning_does_not_prolong_the_first),
        cmocka_unit_test(test_ends_when_it_has_come),
        cmocka_unit_test(test_each_time_in_vain_doubles_how_often_it_is_left_out),
        cmocka_unit_test(test_one_success_makes_up_for_all_that_was_in_vain),
        cmocka_unit_test(test_what_comes_when_nobody_waits_is_no_success),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
