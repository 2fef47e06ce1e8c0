/* Recent events: who asks gets what has passed since the number that he names, and what is kept is bounded. */
#include "bus/bus_rig.h"

#include <jansson.h>

#include "web/recent.h"

static struct recent recent;

/* Ask for the lines from that number on: their payloads, separated by bars; then the next number. */
static void assert_recent(uint64_t from, uint64_t now_ms, const char *expected)
{
    char shown[256] = "";
    size_t length = 0;
    size_t i = 0;
    const json_t *line = NULL;
    char *text = recent_describe(&recent, bus, from, now_ms, &length);
    assert_non_null(text);
    json_t *answer = json_loadb(text, length, 0, NULL);
    free(text);
    assert_non_null(answer);
    json_array_foreach(json_object_get(answer, "lines"), i, line)
    {
        const size_t used = strlen(shown);
        snprintf(shown + used, sizeof(shown) - used, "%s|", json_string_value(json_object_get(line, "payload")));
    }
    const size_t used = strlen(shown);
    snprintf(shown + used, sizeof(shown) - used, "%lld", json_integer_value(json_object_get(answer, "next")));
    json_decref(answer);
    assert_string_equal(shown, expected);
}

static void test_lines_are_numbered_and_asked_for_from_a_number_on(void **state)
{
    (void)state;
    recent = (struct recent){ 0 };
    relay("unseen"); /* nobody has asked yet */
    assert_recent(0, 0, "0");
    relay("a");
    relay("b");
    assert_recent(0, 1000, "a|b|2");
    assert_recent(2, 2000, "2");
    relay("c");
    assert_recent(2, 3000, "c|3");
    assert_recent(0, 3000, "a|b|c|3");  /* a second page begins */
    assert_recent(99, 3000, "a|b|c|3"); /* a page that has seen an evapid before this one */
    recent_end(&recent);
    assert_null(bus->observers);
}

static void test_only_the_last_lines_are_kept(void **state)
{
    (void)state;
    recent = (struct recent){ 0 };
    assert_recent(0, 0, "0");
    for (unsigned i = 0; i < RECENT_LINES + 5; i++)
        relay("x");
    relay("last");
    char expected[16];
    snprintf(expected, sizeof(expected), "last|%u", RECENT_LINES + 6);
    assert_recent(RECENT_LINES + 5, 0, expected);
    assert_int_equal(recent.next - recent.first, RECENT_LINES);
    static char large[60000];
    size_t length = 0;
    memset(large, 'y', sizeof(large) - 1);
    for (unsigned i = 0; i < 20; i++) {
        relay(large);
        free(recent_describe(&recent, bus, recent.next, 0, &length));
        assert_true(recent.bytes <= RECENT_BYTES);
    }
    assert_int_equal(recent.next - recent.first, RECENT_BYTES / 60200); /* the rest of a line is about 150 bytes */
    recent_end(&recent);
}

static void test_when_nobody_asks_all_is_forgotten(void **state)
{
    (void)state;
    recent = (struct recent){ 0 };
    assert_recent(0, 1000, "0");
    relay("a");
    assert_recent(0, 2000, "a|1");
    recent_tick(&recent, 2000 + RECENT_IDLE_MS - 1);
    assert_non_null(bus->observers);
    recent_tick(&recent, 2000 + RECENT_IDLE_MS);
    assert_null(bus->observers);
    assert_int_equal(recent.bytes, 0);
    relay("unseen");
    assert_recent(0, 20000, "1"); /* numbers go on */
    recent_end(&recent);
}

static void test_without_memory_there_is_no_answer(void **state)
{
    (void)state;
    recent = (struct recent){ 0 };
    size_t length = 0;
    memory_limit(0);
    assert_null(recent_describe(&recent, bus, 0, 0, &length));
    memory_limit(-1);
    assert_recent(0, 0, "0");
    relay("a");
    memory_limit(0);
    assert_null(recent_describe(&recent, bus, 0, 0, &length));
    memory_limit(-1);
    assert_recent(0, 0, "a|1");
    recent_end(&recent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_lines_are_numbered_and_asked_for_from_a_number_on),
        WITH_BUS(test_only_the_last_lines_are_kept),
        WITH_BUS(test_when_nobody_asks_all_is_forgotten),
        WITH_BUS(test_without_memory_there_is_no_answer),
    };
    return cmocka_run_group_tests_name("recent", tests, NULL, NULL);
}
