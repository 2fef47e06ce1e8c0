/* Holdings: descriptors by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/holding.h"
#include "memory.h"

static unsigned count(const struct holdings *holdings)
{
    return HASH_COUNT(holdings->all);
}

static void test_each_is_found_by_its_name_once(void **state)
{
    struct holdings holdings = { 0 };
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_true(holdings_add(&holdings, i, "client-%d", i));
    assert_true(holdings_add(&holdings, 2000, "ledger"));
    assert_int_equal(count(&holdings), 1001);
    assert_int_equal(holdings_take(&holdings, "client-1000"), -1);
    assert_int_equal(holdings_take(&holdings, "client-"), -1);
    for (int i = 999; i >= 0; i--) {
        assert_int_equal(holdings_take(&holdings, "client-%d", i), i);
        assert_int_equal(holdings_take(&holdings, "client-%d", i), -1);
    }
    assert_int_equal(holdings_take(&holdings, "%s", "ledger"), 2000);
    assert_null(holdings.all);
}

static void test_they_stand_in_the_order_in_which_they_were_added(void **state)
{
    struct holdings holdings = { 0 };
    int expected = 0;
    (void)state;
    for (int i = 0; i < 300; i++)
        assert_true(holdings_add(&holdings, i, "%d", (i * 7919) % 1000));
    for (const struct holding *holding = holdings.all; holding != NULL; holding = holding->hh.next)
        assert_int_equal(holding->fd, expected++);
    assert_int_equal(expected, 300);
    holdings_clear(&holdings, false);
    assert_null(holdings.all);
}

static void test_a_name_that_is_taken_or_too_long_is_refused(void **state)
{
    struct holdings holdings = { 0 };
    char name[HOLDING_NAME_MAX + 2];
    (void)state;
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    assert_false(holdings_add(&holdings, 1, "%s", name));
    name[HOLDING_NAME_MAX] = '\0';
    assert_true(holdings_add(&holdings, 2, "%s", name));
    assert_false(holdings_add(&holdings, 3, "%s", name));
    assert_int_equal(count(&holdings), 1);
    assert_int_equal(holdings_take(&holdings, "%s", name), 2);
    assert_true(holdings_add(&holdings, 3, "%s", name));
    holdings_clear(&holdings, false);
}

static void test_clearing_closes_or_does_not(void **state)
{
    (void)state;
    for (int close_them = 0; close_them < 2; close_them++) {
        struct holdings holdings = { 0 };
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        assert_true(holdings_add(&holdings, ends[0], "out") && holdings_add(&holdings, ends[1], "in"));
        holdings_clear(&holdings, close_them == 1);
        assert_null(holdings.all);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(fcntl(ends[i], F_GETFD) >= 0, !close_them);
            if (!close_them)
                close(ends[i]);
        }
    }
}

static void test_without_memory_nothing_is_added(void **state)
{
    struct holdings holdings = { 0 };
    (void)state;
    for (int i = 0; i < 200; i++) {
        long calls = 0;
        for (bool added = false; !added; calls++) {
            memory_limit(calls);
            added = holdings_add(&holdings, i, "client-%d", i);
            const bool refused = memory_refused() > 0;
            memory_limit(-1);
            assert_true(added || refused);
            assert_int_equal(count(&holdings), i + added);
        }
        assert_in_range(calls, 2, 5); /* even the first without memory */
    }
    for (int i = 0; i < 200; i++)
        assert_int_equal(holdings_take(&holdings, "client-%d", i), i);
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
    return cmocka_run_group_tests_name("holding", tests, NULL, NULL);
}
