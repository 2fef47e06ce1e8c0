/* How many events wait for each kept tag, as a script reads it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "evapid/presence.h"
#include "evapid/waiting.h"

static struct waiting w;

static int clear(void **state)
{
    (void)state;
    w = (struct waiting){ .crowded = 0 };
    return 0;
}

static uint64_t hash_of(const char *tag)
{
    return presence_hash(tag, 1);
}

static void test_each_place_says_how_many_wait(void **state)
{
    uint32_t events = 1;
    (void)state;
    assert_true(waiting_get(&w, hash_of("a"), &events));
    assert_int_equal(events, 0);
    waiting_put(&w, 3, hash_of("a"), 7);
    waiting_put(&w, WAITING_PLACES - 1, hash_of("b"), 0);
    assert_true(waiting_get(&w, hash_of("a"), &events));
    assert_int_equal(events, 7);
    assert_true(waiting_get(&w, hash_of("b"), &events));
    assert_int_equal(events, 0);
    waiting_put(&w, 3, 0, 0);
    assert_true(waiting_get(&w, hash_of("a"), &events));
    assert_int_equal(events, 0);
}

static void test_a_number_that_does_not_fit_is_the_largest(void **state)
{
    uint32_t events = 0;
    (void)state;
    waiting_put(&w, 0, hash_of("a"), (uint64_t)UINT32_MAX + 5);
    assert_true(waiting_get(&w, hash_of("a"), &events));
    assert_int_equal(events, UINT32_MAX);
}

static void test_with_too_many_tags_nothing_is_known_of_those_without_a_place(void **state)
{
    uint32_t events = 0;
    (void)state;
    w.crowded = 1;
    waiting_put(&w, 0, hash_of("a"), 2);
    assert_true(waiting_get(&w, hash_of("a"), &events));
    assert_int_equal(events, 2);
    assert_false(waiting_get(&w, hash_of("b"), &events));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_each_place_says_how_many_wait, clear),
        cmocka_unit_test_setup(test_a_number_that_does_not_fit_is_the_largest, clear),
        cmocka_unit_test_setup(test_with_too_many_tags_nothing_is_known_of_those_without_a_place, clear),
    };
    return cmocka_run_group_tests_name("waiting", tests, NULL, NULL);
}
