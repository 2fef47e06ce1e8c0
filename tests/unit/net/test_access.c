/* Access to a listener: allow and deny, clients counted by their origin, and the rate of connections. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "memory.h"
#include "net/access.h"
#include "net/address.h"
#include "net/bucket.h"
#include "net/origin.h"

static struct sockaddr_storage peer(const char *text)
{
    struct sockaddr_storage address;
    const char *why = address_parse(text, &address);
    if (why != NULL)
        fail_msg("%s: %s", text, why);
    return address;
}

/* ---- allow and deny ------------------------------------------------------------------------------------------------ */

static void list_add(struct network_list *list, const char *text)
{
    assert_null(network_parse(text, &list->networks[list->count++]));
}

static bool admits(const struct access *access, const char *text)
{
    const struct sockaddr_storage address = peer(text);
    const struct network host = network_of(&address);
    return access_admits(access, &host);
}

static void test_without_lists_everybody_may_connect(void **state)
{
    (void)state;
    static const struct access access;
    assert_true(admits(&access, "192.0.2.1:1"));
    assert_true(admits(&access, "[2001:db8::1]:1"));
}

static void test_with_allow_only_those_in_a_network_of_it(void **state)
{
    (void)state;
    static struct access access;
    list_add(&access.allow, "10.0.0.0/8");
    list_add(&access.allow, "2001:db8::7");
    assert_true(admits(&access, "10.1.2.3:1"));
    assert_true(admits(&access, "[::ffff:10.1.2.3]:1"));
    assert_true(admits(&access, "[2001:db8::7]:1"));
    assert_false(admits(&access, "11.1.2.3:1"));
    assert_false(admits(&access, "[2001:db8::8]:1"));
    assert_false(admits(&access, "[::1]:1"));
}

static void test_deny_wins_over_allow(void **state)
{
    (void)state;
    static struct access access;
    list_add(&access.allow, "10.0.0.0/8");
    list_add(&access.deny, "10.1.0.0/16");
    assert_true(admits(&access, "10.2.2.3:1"));
    assert_false(admits(&access, "10.1.2.3:1"));
    access.allow.count = 0;
    assert_true(admits(&access, "192.0.2.1:1"));
    assert_false(admits(&access, "10.1.2.3:1"));
    list_add(&access.allow, "10.1.2.3"); /* more specific, but denied */
    assert_false(admits(&access, "10.1.2.3:1"));
}

/* ---- origins ------------------------------------------------------------------------------------------------------- */

static struct network origin(const char *text)
{
    const struct sockaddr_storage address = peer(text);
    return origin_of(&address);
}

static bool same_origin(const char *one, const char *other)
{
    const struct network a = origin(one);
    const struct network b = origin(other);
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static void test_an_ipv4_address_and_an_ipv6_64_are_origins(void **state)
{
    (void)state;
    assert_true(same_origin("192.0.2.1:1", "192.0.2.1:2"));
    assert_true(same_origin("192.0.2.1:1", "[::ffff:192.0.2.1]:2"));
    assert_false(same_origin("192.0.2.1:1", "192.0.2.2:1"));
    assert_true(same_origin("[2001:db8::1]:1", "[2001:db8::ffff:ffff:ffff:ffff]:1"));
    assert_false(same_origin("[2001:db8::1]:1", "[2001:db8:0:1::1]:1"));
    assert_true(same_origin("[fe80::1]:1", "[fe80::1]:2"));
    assert_false(same_origin("[fe80::1]:1", "[fe80::2]:1")); /* all hosts of the link are in fe80::/64 */
}

static void test_clients_are_counted_by_origin(void **state)
{
    (void)state;
    struct origin *table = NULL;
    const struct network a = origin("192.0.2.1:1");
    const struct network b = origin("[2001:db8::1]:1");
    assert_int_equal(origin_clients(table, &a), 0);
    assert_true(origin_enter(&table, &a));
    assert_true(origin_enter(&table, &a));
    assert_true(origin_enter(&table, &b));
    assert_int_equal(origin_clients(table, &a), 2);
    assert_int_equal(origin_clients(table, &b), 1);
    origin_leave(&table, &a);
    assert_int_equal(origin_clients(table, &a), 1);
    origin_leave(&table, &a);
    assert_int_equal(origin_clients(table, &a), 0);
    assert_int_equal(HASH_COUNT(table), 1);
    origin_leave(&table, &b);
    assert_null(table);
}

static void test_without_memory_an_origin_is_not_counted(void **state)
{
    (void)state;
    struct origin *table = NULL;
    const struct network known = origin("192.0.2.1:1");
    const struct network other = origin("192.0.2.2:1");
    long calls = 0;
    for (bool entered = false; !entered; calls++) {
        memory_limit(calls);
        entered = origin_enter(&table, &known);
        memory_limit(-1);
        assert_int_equal(origin_clients(table, &known), entered);
        assert_int_equal(table != NULL, entered);
    }
    assert_in_range(calls, 3, 6); /* one allocation is not enough */
    memory_limit(0);
    assert_true(origin_enter(&table, &known)); /* one more of the same origin needs none */
    assert_false(origin_enter(&table, &other));
    memory_limit(-1);
    assert_int_equal(origin_clients(table, &known), 2);
    assert_int_equal(origin_clients(table, &other), 0);
    origin_leave(&table, &known);
    origin_leave(&table, &known);
    assert_null(table);
}

/* ---- the pace ------------------------------------------------------------------------------------------------------ */

static unsigned taken(struct bucket *bucket, uint32_t per_second, uint64_t now_ms)
{
    unsigned count = 0;
    while (count <= per_second && bucket_take(bucket, per_second, now_ms))
        count++;
    return count;
}

static void test_a_second_s_worth_may_come_at_once(void **state)
{
    (void)state;
    static const uint64_t begins[] = { 0, 1, 999, UINT32_MAX };
    for (size_t i = 0; i < 4; i++) {
        struct bucket bucket = { 0 };
        assert_int_equal(taken(&bucket, 5, begins[i]), 5);
        assert_int_equal(taken(&bucket, 5, begins[i] + 199), 0);
        assert_int_equal(taken(&bucket, 5, begins[i] + 200), 1);
    }
}

static void test_the_pace_comes_back_with_time_and_never_exceeds_a_second_s_worth(void **state)
{
    (void)state;
    struct bucket bucket = { 0 };
    assert_int_equal(taken(&bucket, 10, 1000), 10);
    assert_int_equal(taken(&bucket, 10, 1450), 4);
    assert_int_equal(taken(&bucket, 10, 1500), 1); /* the remaining half, and another */
    assert_int_equal(taken(&bucket, 10, 2499), 9);
    assert_int_equal(taken(&bucket, 10, 3499), 10);
    assert_int_equal(taken(&bucket, 10, 1000000), 10);
}

/* However often refused, as many pass as the time allows. */
static void test_refusals_take_nothing_from_the_pace(void **state)
{
    (void)state;
    struct bucket bucket = { 0 };
    unsigned passed = 0;
    for (uint64_t now_ms = 0; now_ms < 10000; now_ms++)
        passed += bucket_take(&bucket, 3, now_ms);
    assert_in_range(passed, 3 + 3 * 9, 3 + 3 * 10);
}

static void test_the_largest_rate_does_not_overflow(void **state)
{
    (void)state;
    struct bucket bucket = { 0 };
    assert_int_equal(taken(&bucket, BUCKET_RATE_MAX, 0), BUCKET_RATE_MAX);
    assert_int_equal(taken(&bucket, BUCKET_RATE_MAX, 999), 999 * 1000);
    assert_int_equal(taken(&bucket, BUCKET_RATE_MAX, UINT64_MAX), BUCKET_RATE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_lists_everybody_may_connect),
        cmocka_unit_test(test_with_allow_only_those_in_a_network_of_it),
        cmocka_unit_test(test_deny_wins_over_allow),
        cmocka_unit_test(test_an_ipv4_address_and_an_ipv6_64_are_origins),
        cmocka_unit_test(test_clients_are_counted_by_origin),
        cmocka_unit_test(test_without_memory_an_origin_is_not_counted),
        cmocka_unit_test(test_a_second_s_worth_may_come_at_once),
        cmocka_unit_test(test_the_pace_comes_back_with_time_and_never_exceeds_a_second_s_worth),
        cmocka_unit_test(test_refusals_take_nothing_from_the_pace),
        cmocka_unit_test(test_the_largest_rate_does_not_overflow),
    };
    return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
