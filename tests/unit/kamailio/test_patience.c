/* Patience: when evapid does not sleep yet, and how it learns to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kamailio/patience.h"

/* One wait in vain from now on. Returns whether it was tried. */
static bool in_vain(struct patience *patience, uint64_t now_ns)
{
    patience_begin(patience, now_ns);
    const bool tried = patience_lasts(patience, now_ns);
    assert_false(patience_lasts(patience, now_ns + PATIENCE_NS));
    return tried;
}

/* How many times it is left out until it is tried again, in vain. */
static unsigned left_out(struct patience *patience)
{
    unsigned times = 0;
    while (!in_vain(patience, 1))
        times++;
    return times;
}

static void test_nothing_is_awaited_at_first(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    assert_false(patience_lasts(&patience, 0));
    assert_false(patience_lasts(&patience, UINT64_MAX));
}

static void test_goes_on_until_the_time_is_over(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    patience_begin(&patience, 1000);
    assert_true(patience_lasts(&patience, 1000));
    assert_true(patience_lasts(&patience, 999 + PATIENCE_NS));
    assert_false(patience_lasts(&patience, 1000 + PATIENCE_NS));
    assert_false(patience_lasts(&patience, 1000));
}

static void test_a_second_beginning_does_not_prolong_the_first(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    patience_begin(&patience, 1);
    patience_begin(&patience, PATIENCE_NS);
    assert_false(patience_lasts(&patience, 1 + PATIENCE_NS));
}

static void test_ends_when_it_has_come(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    for (uint64_t now = 1; now < 100; now++) {
        patience_begin(&patience, now);
        assert_true(patience_lasts(&patience, now));
        patience_rewarded(&patience);
        assert_false(patience_lasts(&patience, now));
    }
}

static void test_each_time_in_vain_doubles_how_often_it_is_left_out(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    assert_true(in_vain(&patience, 1));
    for (unsigned times = 1; times <= PATIENCE_LEFT_OUT_MAX; times *= 2)
        assert_int_equal(left_out(&patience), times);
    assert_int_equal(left_out(&patience), PATIENCE_LEFT_OUT_MAX);
    assert_int_equal(left_out(&patience), PATIENCE_LEFT_OUT_MAX);
}

static void test_one_success_makes_up_for_all_that_was_in_vain(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    in_vain(&patience, 1);
    assert_int_equal(left_out(&patience), 1);
    assert_int_equal(left_out(&patience), 2);
    while (patience.until_ns == 0)
        patience_begin(&patience, 1);
    patience_rewarded(&patience);
    assert_true(in_vain(&patience, 1));
    assert_int_equal(left_out(&patience), 1);
}

static void test_what_comes_when_nobody_waits_is_no_success(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    in_vain(&patience, 1);
    assert_int_equal(left_out(&patience), 1);
    patience_rewarded(&patience);
    assert_int_equal(left_out(&patience), 2);
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
