/* The text format of Prometheus: its bytes, and that there is no text if memory is short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "views/exposition.h"

static void assert_text(struct exposition *out, const char *expected)
{
    size_t length = 0;
    char *text = exposition_finish(out, &length);
    assert_non_null(text);
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(text, expected, length);
    free(text);
}

static void test_a_family_has_its_help_its_type_and_its_values(void **state)
{
    (void)state;
    struct exposition out = { .failed = false };
    exposition_family(&out, "a_total", "counter", "Some of them.");
    exposition_value(&out, (const struct label[]){ { "x", "1" }, { "y", "two" }, { NULL, NULL } }, UINT64_MAX);
    exposition_value(&out, (const struct label[]){ { NULL, NULL } }, 0);
    exposition_gauge(&out, "b", "Another.", 7);
    exposition_family(&out, "c_ratio", "gauge", "A part.");
    exposition_decimal(&out, NULL, 0.25);
    assert_text(&out, "# HELP a_total Some of them.\n# TYPE a_total counter\n"
                      "a_total{x=\"1\",y=\"two\"} 18446744073709551615\na_total 0\n"
                      "# HELP b Another.\n# TYPE b gauge\nb 7\n"
                      "# HELP c_ratio A part.\n# TYPE c_ratio gauge\nc_ratio 0.25\n");
}

static void test_no_byte_of_a_label_ends_it(void **state)
{
    (void)state;
    struct exposition out = { .failed = false };
    exposition_family(&out, "a", "gauge", "b");
    exposition_value(&out, (const struct label[]){ { "x", "\"\\\n} 1\x7f\xff~ " }, { NULL, NULL } }, 1);
    assert_text(&out, "# HELP a b\n# TYPE a gauge\na{x=\"\\\"\\\\\\\\x0a} 1\\\\x7f\\\\xff~ \"} 1\n");
}

/* Each bucket includes the shorter ones; the last one counts all, and equals the count. */
static void test_the_buckets_of_a_histogram_add_up(void **state)
{
    (void)state;
    struct exposition out = { .failed = false };
    struct histogram histogram = { .sum_ns = 1500000000 };
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        histogram.counts[i] = 1;
    exposition_histogram(&out, "a_seconds", "b", &histogram);
    size_t length = 0;
    char *text = exposition_finish(&out, &length);
    assert_non_null(strstr(text, "# TYPE a_seconds histogram\na_seconds_bucket{le=\"1e-05\"} 1\n"));
    assert_non_null(strstr(text, "\na_seconds_bucket{le=\"0.0025\"} 8\n"));
    assert_non_null(strstr(text, "\na_seconds_bucket{le=\"1\"} 16\n"));
    assert_non_null(strstr(text, "\na_seconds_bucket{le=\"60\"} 20\na_seconds_bucket{le=\"+Inf\"} 21\n"
                                 "a_seconds_sum 1.5\na_seconds_count 21\n"));
    free(text);
}

static void write_much(struct exposition *out)
{
    for (int i = 0; i < 500; i++)
        exposition_counter(out, "a_total", "More of the same, until it needs more room than at first.", 1);
}

static void test_without_memory_there_is_none_of_it(void **state)
{
    (void)state;
    size_t length = 0;
    long calls = 0;
    for (bool whole = false; !whole; calls++) {
        struct exposition out = { .failed = false };
        memory_limit(calls);
        write_much(&out);
        char *text = exposition_finish(&out, &length);
        memory_limit(-1);
        whole = text != NULL;
        assert_true(!whole || length > 40000);
        free(text);
    }
    assert_true(calls > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_family_has_its_help_its_type_and_its_values),
        cmocka_unit_test(test_no_byte_of_a_label_ends_it),
        cmocka_unit_test(test_the_buckets_of_a_histogram_add_up),
        cmocka_unit_test(test_without_memory_there_is_none_of_it),
    };
    return cmocka_run_group_tests_name("exposition", tests, NULL, NULL);
}
