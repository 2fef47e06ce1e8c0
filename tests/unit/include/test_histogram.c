/* Histograms: the bucket of each duration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "evapid/histogram.h"

static void test_a_duration_belongs_to_the_first_bound_that_it_does_not_exceed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < HISTOGRAM_BOUNDS; i++) {
        assert_int_equal(histogram_bucket(histogram_bounds_ns[i]), i);
        assert_int_equal(histogram_bucket(histogram_bounds_ns[i] - 1), i);
        assert_int_equal(histogram_bucket(histogram_bounds_ns[i] + 1), i + 1);
    }
    assert_int_equal(histogram_bucket(0), 0);
    assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BOUNDS);
}

/* The module and evapid must use the same bounds: 10 µs to 60 s. */
static void test_the_bounds_are_part_of_the_protocol(void **state)
{
    (void)state;
    for (unsigned i = 1; i < HISTOGRAM_BOUNDS; i++)
        assert_true(histogram_bounds_ns[i] > histogram_bounds_ns[i - 1]);
    assert_int_equal(HISTOGRAM_BUCKETS, 21);
    assert_int_equal(histogram_bounds_ns[0], 10 * 1000);
    assert_int_equal(histogram_bounds_ns[3], 100 * 1000);
    assert_int_equal(histogram_bounds_ns[15], 1000 * 1000 * 1000);
    assert_true(histogram_bounds_ns[19] == 60000000000U);
}

static void test_equal_durations_count_together_as_one_by_one(void **state)
{
    (void)state;
    struct histogram one = { .sum_ns = 0 };
    struct histogram many = { .sum_ns = 0 };
    for (uint64_t ns = 1; ns < 100000000000U; ns *= 7) {
        for (int i = 0; i < 5; i++)
            histogram_add(&one, ns, 1);
        histogram_add(&many, ns, 5);
    }
    assert_memory_equal(&one, &many, sizeof(one));
    assert_true(one.sum_ns > 0 && one.counts[0] > 0 && one.counts[HISTOGRAM_BOUNDS] > 0);
}

static void test_no_time_has_passed_since_a_time_in_the_future(void **state)
{
    (void)state;
    assert_int_equal(histogram_since_ns(5, 7), 2);
    assert_int_equal(histogram_since_ns(7, 7), 0);
    assert_int_equal(histogram_since_ns(8, 7), 0);
    assert_int_equal(histogram_since_ns(UINT64_MAX, 7), 0);
    const uint64_t before = histogram_clock_ns();
    assert_true(before > 0 && histogram_clock_ns() >= before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_duration_belongs_to_the_first_bound_that_it_does_not_exceed),
        cmocka_unit_test(test_the_bounds_are_part_of_the_protocol),
        cmocka_unit_test(test_equal_durations_count_together_as_one_by_one),
        cmocka_unit_test(test_no_time_has_passed_since_a_time_in_the_future),
    };
    return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
