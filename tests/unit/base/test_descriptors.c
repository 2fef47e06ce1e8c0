/* Descriptors by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "memory.h"

static unsigned count(const struct descriptors *descriptors)
{
    return HASH_COUNT(descriptors->all);
}

static void test_each_is_found_by_its_name_once(void **state)
{
    struct descriptors descriptors = { 0 };
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_true(descriptors_add(&descriptors, i, "client-%d", i));
    assert_true(descriptors_add(&descriptors, 2000, "ledger"));
    assert_int_equal(count(&descriptors), 1001);
    assert_int_equal(descriptors_remove(&descriptors, "client-1000"), -1);
    assert_int_equal(descriptors_remove(&descriptors, "client-"), -1);
    for (int i = 999; i >= 0; i--) {
        assert_int_equal(descriptors_remove(&descriptors, "client-%d", i), i);
        assert_int_equal(descriptors_remove(&descriptors, "client-%d", i), -1);
    }
    assert_int_equal(descriptors_remove(&descriptors, "%s", "ledger"), 2000);
    assert_null(descriptors.all);
}

static void test_they_stand_in_the_order_in_which_they_were_added(void **state)
{
    struct descriptors descriptors = { 0 };
    int expected = 0;
    (void)state;
    for (int i = 0; i < 300; i++)
        assert_true(descriptors_add(&descriptors, i, "%d", (i * 7919) % 1000));
    for (const struct descriptor *descriptor = descriptors.all; descriptor != NULL; descriptor = descriptor->hh.next)
        assert_int_equal(descriptor->fd, expected++);
    assert_int_equal(expected, 300);
    descriptors_clear(&descriptors, false);
    assert_null(descriptors.all);
}

static void test_a_name_that_is_taken_or_too_long_is_refused(void **state)
{
    struct descriptors descriptors = { 0 };
    char name[HOLDING_NAME_MAX + 2];
    (void)state;
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    assert_false(descriptors_add(&descriptors, 1, "%s", name));
    name[HOLDING_NAME_MAX] = '\0';
    assert_true(descriptors_add(&descriptors, 2, "%s", name));
    assert_false(descriptors_add(&descriptors, 3, "%s", name));
    assert_int_equal(count(&descriptors), 1);
    assert_int_equal(descriptors_remove(&descriptors, "%s", name), 2);
    assert_true(descriptors_add(&descriptors, 3, "%s", name));
    descriptors_clear(&descriptors, false);
}

static void test_clearing_closes_or_does_not(void **state)
{
    (void)state;
    for (int close_them = 0; close_them < 2; close_them++) {
        struct descriptors descriptors = { 0 };
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        assert_true(descriptors_add(&descriptors, ends[0], "out") && descriptors_add(&descriptors, ends[1], "in"));
        descriptors_clear(&descriptors, close_them == 1);
        assert_null(descriptors.all);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(fcntl(ends[i], F_GETFD) >= 0, !close_them);
            if (!close_them)
                close(ends[i]);
        }
    }
}

static void test_without_memory_nothing_is_added(void **state)
{
    struct descriptors descriptors = { 0 };
    (void)state;
    for (int i = 0; i < 200; i++) {
        long calls = 0;
        for (bool added = false; !added; calls++) {
            memory_limit(calls);
            added = descriptors_add(&descriptors, i, "client-%d", i);
            const bool refused = memory_refused() > 0;
            memory_limit(-1);
            assert_true(added || refused);
            assert_int_equal(count(&descriptors), i + added);
        }
        assert_in_range(calls, 2, 5); /* even the first without memory */
    }
    for (int i = 0; i < 200; i++)
        assert_int_equal(descriptors_remove(&descriptors, "client-%d", i), i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_is_found_by_its_name_once),
        cmocka_unit_test(test_they_stand_in_the_order_in_which_they_were_added),
        cmocka_unit_test(test_a_name_that_is_taken_or_too_long_is_refused),
        cmocka_unit_test(test_clearing_closes_or_does_not),
        cmocka_unit_test(test_without_memory_nothing_is_added),
    };
    return cmocka_run_group_tests_name("descriptor", tests, NULL, NULL);
}
