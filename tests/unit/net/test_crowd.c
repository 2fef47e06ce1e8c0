/* Which user loses a connection if there are too many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/crowd.h"

static void test_the_user_who_has_most_makes_way_and_on_a_tie_the_first(void **state)
{
    (void)state;
    static const struct {
        uid_t users[6];
        unsigned count;
        uid_t found;
        unsigned most;
    } cases[] = {
        { { 7 }, 1, 7, 1 },
        { { 7, 8 }, 2, 7, 1 },
        { { 8, 7, 7 }, 3, 7, 2 },
        { { 7, 8, 8, 7 }, 4, 7, 2 },
        { { 8, 7, 7, 8 }, 4, 8, 2 },
        { { 0, 1, 2, 3, 1, 1 }, 6, 1, 3 },
        { { 5, 5, 5, 5, 5, 5 }, 6, 5, 6 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        unsigned most = 0;
        assert_int_equal(crowd_user(cases[i].users, cases[i].count, &most), cases[i].found);
        assert_int_equal(most, cases[i].most);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_user_who_has_most_makes_way_and_on_a_tie_the_first),
    };
    return cmocka_run_group_tests_name("crowd", tests, NULL, NULL);
}
