/* Names of users and groups: whether evapid asks a directory service, and when it does not.
 *
 * This program replaces the C library's getpwnam and getgrnam by a directory service that knows a few names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <grp.h>
#include <pwd.h>
#include <string.h>

#include "config/identity.h"
#include "memory.h"

static unsigned asked;

struct passwd *getpwnam(const char *name)
{
    static struct passwd user = { .pw_uid = 70001 };
    static struct passwd root = { .pw_uid = 0 };
    asked++;
    if (strcmp(name, "root") == 0)
        return &root;
    return strcmp(name, "of the directory") == 0 || strcmp(name, "another") == 0 ? &user : NULL;
}

struct group *getgrnam(const char *name)
{
    static struct group group = { .gr_gid = 70002 };
    asked++;
    return strcmp(name, "of the directory") == 0 ? &group : NULL;
}

static int tear_down(void **state)
{
    (void)state;
    identity_forget();
    asked = 0;
    return 0;
}

static void test_after_evapid_stops_asking_earlier_answers_are_still_known(void **state)
{
    (void)state;
    uint32_t id = 0;
    assert_true(identity_asks());
    for (int i = 0; i < 2; i++) {
        assert_true(identity_find(IDENTITY_USER, "of the directory", &id));
        assert_int_equal(id, 70001);
    }
    assert_true(identity_find(IDENTITY_GROUP, "of the directory", &id));
    assert_int_equal(id, 70002);
    assert_false(identity_find(IDENTITY_GROUP, "another", &id));
    assert_int_equal(asked, 4);
    identity_stop_asking();
    assert_false(identity_asks());
    assert_true(identity_find(IDENTITY_USER, "of the directory", &id));
    assert_int_equal(id, 70001);
    assert_true(identity_find(IDENTITY_GROUP, "of the directory", &id));
    assert_int_equal(id, 70002);
    assert_false(identity_find(IDENTITY_USER, "another", &id)); /* evapid never asked the service for this name */
    assert_int_equal(asked, 4);
}

static void test_this_machine_s_own_names_are_known_without_asking(void **state)
{
    (void)state;
    uint32_t id = 1;
    identity_stop_asking();
    assert_true(identity_find(IDENTITY_USER, "root", &id));
    assert_int_equal(id, 0);
    id = 1;
    assert_true(identity_find(IDENTITY_GROUP, "root", &id));
    assert_int_equal(id, 0);
    assert_true(identity_find(IDENTITY_USER, "nobody", &id));
    assert_int_equal(id, 65534);
    assert_false(identity_find(IDENTITY_USER, "there is none", &id));
    assert_false(identity_find(IDENTITY_GROUP, "there is none", &id));
    assert_int_equal(asked, 0);
}

static void test_a_name_is_found_even_without_memory_to_keep_it(void **state)
{
    (void)state;
    for (long calls = 0; calls < 4; calls++) {
        uint32_t id = 0;
        memory_limit(calls);
        assert_true(identity_find(IDENTITY_USER, "of the directory", &id));
        memory_limit(-1);
        assert_int_equal(id, 70001);
    }
}

static void test_a_name_of_any_length_may_be_looked_up(void **state)
{
    (void)state;
    char name[600];
    uint32_t id = 0;
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_false(identity_find(IDENTITY_USER, name, &id));
    identity_stop_asking();
    assert_false(identity_find(IDENTITY_USER, name, &id));
    assert_false(identity_find(IDENTITY_USER, "", &id));
}

#define ALONE(test) cmocka_unit_test_teardown(test, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ALONE(test_after_evapid_stops_asking_earlier_answers_are_still_known),
        ALONE(test_this_machine_s_own_names_are_known_without_asking),
        ALONE(test_a_name_is_found_even_without_memory_to_keep_it),
        ALONE(test_a_name_of_any_length_may_be_looked_up),
    };
    return cmocka_run_group_tests_name("identity", tests, NULL, NULL);
}
