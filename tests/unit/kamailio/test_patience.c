/* Patience: a short wait before sleeping, and what is learned from waits in vain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kamailio/patience.h"

/* Begin a wait now, in vain. Returns whether it was tried. */
static bool in_vain(struct patience *patience, uint64_t now_ns)
{
    patience_begin(patience, now_ns);
    const bool tried = patience_lasts(patience, now_ns);
    assert_false(patience_lasts(patience, now_ns + PATIENCE_NS));
    return tried;
}

/* How many waits are skipped before the next one is tried, in vain. */
static unsigned left_out(struct patience *patience)
{
    unsigned times = 0;
    while (!in_vain(patience, 1))
        times++;
    return times;
}

static void test_at_first_there_is_no_wait(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    assert_false(patience_lasts(&patience, 0));
    assert_false(patience_lasts(&patience, UINT64_MAX));
}

static void test_a_wait_lasts_until_its_time_is_over(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    patience_begin(&patience, 1000);
    assert_true(patience_lasts(&patience, 1000));
    assert_true(patience_lasts(&patience, 999 + PATIENCE_NS));
    assert_false(patience_lasts(&patience, 1000 + PATIENCE_NS));
    assert_false(patience_lasts(&patience, 1000));
}

static void test_a_second_wait_does_not_prolong_the_first(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    patience_begin(&patience, 1);
    patience_begin(&patience, PATIENCE_NS);
    assert_false(patience_lasts(&patience, 1 + PATIENCE_NS));
}

static void test_a_wait_ends_when_an_event_has_come(void **state)
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

static void test_each_wait_in_vain_doubles_the_skipped_waits(void **state)
{
    struct patience patience = { 0 };
    (void)state;
    assert_true(in_vain(&patience, 1));
    for (unsigned times = 1; times <= PATIENCE_LEFT_OUT_MAX; times *= 2)
        assert_int_equal(left_out(&patience), times);
    assert_int_equal(left_out(&patience), PATIENCE_LEFT_OUT_MAX);
    assert_int_equal(left_out(&patience), PATIENCE_LEFT_OUT_MAX);
}

static void test_one_success_makes_up_for_all_waits_in_vain(void **state)
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

static void test_an_event_without_a_wait_is_no_success(void **state)
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
        cmocka_unit_test(test_at_first_there_is_no_wait),
        cmocka_unit_test(test_a_wait_lasts_until_its_time_is_over),
        cmocka_unit_test(test_a_second_wait_does_not_prolong_the_first),
        cmocka_unit_test(test_a_wait_ends_when_an_event_has_come),
        cmocka_unit_test(test_each_wait_in_vain_doubles_the_skipped_waits),
        cmocka_unit_test(test_one_success_makes_up_for_all_waits_in_vain),
        cmocka_unit_test(test_an_event_without_a_wait_is_no_success),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
