/* Turns of the loop: how much processor time each used, however much time passed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/turn.h"

#define US 1000U
#define MS 1000000U

static uint64_t now_ns, spent_ns;
static unsigned reads;

static uint64_t thread_clock(void)
{
    reads++;
    return spent_ns;
}

/* A turn in which passed_ns pass, of which evapid has cpu_ns of processor time. */
static void pass(struct turn *turn, uint64_t passed_ns, uint64_t cpu_ns)
{
    now_ns += passed_ns;
    spent_ns += cpu_ns;
    turn_end_at(turn, now_ns, thread_clock);
}

static struct turn begin(void)
{
    now_ns = 77 * MS;
    spent_ns = 5 * MS;
    reads = 0;
    return (struct turn){ .ended_ns = now_ns, .read_ns = now_ns, .cpu_ns = spent_ns };
}

static uint64_t counted(const struct turn *turn)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += turn->histogram.counts[i];
    return count;
}

/* Turns longer than this bound. */
static uint64_t above(const struct turn *turn, uint64_t ns)
{
    uint64_t count = 0;
    for (unsigned i = histogram_bucket(ns) + 1; i < HISTOGRAM_BUCKETS; i++)
        count += turn->histogram.counts[i];
    return count;
}

static void test_a_turn_counts_with_what_the_processor_gave_it(void **state)
{
    (void)state;
    struct turn turn = begin();
    pass(&turn, 60 * MS, 60 * MS);
    assert_int_equal(above(&turn, 50 * MS), 1);
    assert_int_equal(turn.histogram.sum_ns, 60 * MS);
}

static void test_sleep_and_waiting_for_the_processor_do_not_count(void **state)
{
    (void)state;
    struct turn turn = begin();
    pass(&turn, 5000U * MS, 40 * US);
    pass(&turn, 300 * MS, 20 * MS);
    assert_int_equal(counted(&turn), 2);
    assert_int_equal(above(&turn, 25 * MS), 0);
    assert_int_equal(above(&turn, 10 * MS), 1);
    assert_int_equal(turn.histogram.sum_ns, 20 * MS + 40 * US);
}

/* However short they are, nothing is lost: the sum is the thread's time. */
static void test_short_turns_share_a_reading_of_the_clock(void **state)
{
    (void)state;
    struct turn turn = begin();
    for (unsigned i = 0; i < 100000; i++)
        pass(&turn, 10 * US, 8 * US);
    assert_in_range(reads, 900, 1000);
    assert_int_equal(turn.number, 100000);
    assert_int_equal(counted(&turn) + turn.uncounted, 100000);
    assert_in_range(turn.histogram.sum_ns, 799 * MS, 800 * MS);
    assert_int_equal(above(&turn, 25 * US), 0);
}

/* Time that earlier turns may have used is counted for it: it never seems shorter than it was. */
static void test_a_long_turn_behind_short_ones_is_long(void **state)
{
    (void)state;
    struct turn turn = begin();
    for (unsigned i = 0; i < 9; i++)
        pass(&turn, 100 * US, 90 * US);
    pass(&turn, 51 * MS, 51 * MS);
    assert_int_equal(above(&turn, 50 * MS), 1);
    assert_int_equal(counted(&turn), 10);
    assert_int_equal(above(&turn, 250 * US), 1);
}

static void test_a_clock_that_goes_back_counts_as_nothing(void **state)
{
    (void)state;
    struct turn turn = begin();
    spent_ns -= 2 * MS;
    pass(&turn, 3 * MS, 0);
    assert_int_equal(turn.histogram.sum_ns, 0);
    pass(&turn, 3 * MS, MS);
    assert_int_equal(turn.histogram.sum_ns, MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_turn_counts_with_what_the_processor_gave_it),
        cmocka_unit_test(test_sleep_and_waiting_for_the_processor_do_not_count),
        cmocka_unit_test(test_short_turns_share_a_reading_of_the_clock),
        cmocka_unit_test(test_a_long_turn_behind_short_ones_is_long),
        cmocka_unit_test(test_a_clock_that_goes_back_counts_as_nothing),
    };
    log_open(LEVEL_ERROR);
    return cmocka_run_group_tests_name("turn", tests, NULL, NULL);
}
