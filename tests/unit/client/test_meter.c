/* The meter: it adds up what Kamailio's processes count, over restarts of both sides, and trusts none of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "client/meter.h"

struct rig {
    struct meter meter;
    struct ring_header ring;
};

static int begin(void **state)
{
    struct rig *rig = aligned_alloc(RING_LINE, sizeof(*rig) / RING_LINE * RING_LINE + RING_LINE);
    *state = rig;
    if (rig == NULL)
        return 1;
    memset(rig, 0, sizeof(*rig));
    meter_begin(&rig->meter, 1);
    return 0;
}

static int end(void **state)
{
    free(*state);
    return 0;
}

static void test_starts_of_all_workers_are_added_up(void **state)
{
    struct rig *rig = *state;
    ring_note_start(&rig->ring.workers[0].starts, 1);
    ring_note_start(&rig->ring.workers[0].starts, 5);
    ring_note_start(&rig->ring.workers[EVAPID_WORKERS_MAX - 1].starts, 10000);
    ring_note_start(&rig->ring.workers[7].starts, 10001);
    ring_note_start(&rig->ring.workers[7].starts, 70000000000U);
    for (int again = 0; again < 2; again++) {
        meter_read(&rig->meter, &rig->ring);
        assert_int_equal(rig->meter.route_start.counts[0], 3);
        assert_int_equal(rig->meter.route_start.counts[1], 1);
        assert_int_equal(rig->meter.route_start.counts[HISTOGRAM_BOUNDS], 1);
        assert_true(rig->meter.route_start.sum_ns == 70000000000U + 20007);
    }
}

static void test_a_new_ring_counts_from_zero_and_the_same_one_goes_on(void **state)
{
    struct rig *rig = *state;
    rig->ring.refused_full = 5;
    rig->ring.refused_large = 2;
    rig->ring.lost = 3;
    ring_note_start(&rig->ring.workers[0].starts, 1);
    meter_read(&rig->meter, &rig->ring);
    meter_begin(&rig->meter, 1); /* evapid has been replaced */
    meter_read(&rig->meter, &rig->ring);
    assert_int_equal(rig->meter.refused_full, 5);
    meter_begin(&rig->meter, 2); /* Kamailio has been restarted */
    rig->ring.refused_full = 1;
    rig->ring.refused_large = 0;
    rig->ring.lost = 1;
    meter_read(&rig->meter, &rig->ring);
    assert_int_equal(rig->meter.refused_full, 6);
    assert_int_equal(rig->meter.refused_large, 2);
    assert_int_equal(rig->meter.lost, 4);
    assert_int_equal(rig->meter.route_start.counts[0], 2);
}

/* A producer that tries again takes its refusal back out of the ring's count. The meter must not count it twice. */
static void test_a_count_that_goes_back_counts_from_its_highest_value(void **state)
{
    struct rig *rig = *state;
    static const uint64_t course[][2] = { { 5, 5 }, { 4, 5 }, { 5, 5 }, { 6, 6 }, { 0, 6 }, { 6, 6 }, { 9, 9 } };
    for (size_t i = 0; i < sizeof(course) / sizeof(*course); i++) {
        rig->ring.refused_full = course[i][0];
        meter_read(&rig->meter, &rig->ring);
        assert_int_equal(rig->meter.refused_full, course[i][1]);
    }
}

/* Kamailio may write anything into the ring. Even then neither a bucket nor the sum of all buckets may overflow. */
static void test_nonsense_does_not_make_a_count_go_back(void **state)
{
    struct rig *rig = *state;
    struct ring_starts *starts = &rig->ring.workers[0].starts;
    rig->ring.refused_full = 7;
    meter_read(&rig->meter, &rig->ring);
    for (uint64_t instance = 2; instance < 6; instance++) {
        uint64_t all = 0;
        meter_begin(&rig->meter, instance);
        rig->ring.refused_full = UINT64_MAX;
        starts->sum_ns = UINT64_MAX;
        for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
            starts->counts[i] = UINT64_MAX - i;
        meter_read(&rig->meter, &rig->ring);
        assert_true(rig->meter.refused_full >= UINT64_MAX / HISTOGRAM_BUCKETS);
        assert_true(rig->meter.route_start.sum_ns == UINT64_MAX);
        for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
            assert_true(rig->meter.route_start.counts[i] <= UINT64_MAX - all);
            all += rig->meter.route_start.counts[i];
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_starts_of_all_workers_are_added_up, begin, end),
        cmocka_unit_test_setup_teardown(test_a_new_ring_counts_from_zero_and_the_same_one_goes_on, begin, end),
        cmocka_unit_test_setup_teardown(test_a_count_that_goes_back_counts_from_its_highest_value, begin, end),
        cmocka_unit_test_setup_teardown(test_nonsense_does_not_make_a_count_go_back, begin, end),
    };
    return cmocka_run_group_tests_name("meter", tests, NULL, NULL);
}
