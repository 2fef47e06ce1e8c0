/* The history: each interval has what passed in it, and the last ten minutes are kept. */
#include "bus/bus_rig.h"

#include "views/history.h"

static struct history history;

/* The counts of a rate, as "1 2 3". */
static void assert_rate(const char *rate, const char *expected)
{
    char text[64] = "";
    size_t i = 0;
    const json_t *count = NULL;
    json_t *described = history_describe(&history);
    assert_non_null(described);
    assert_int_equal(json_integer_value(json_object_get(described, "interval_s")), HISTORY_INTERVAL_S);
    json_array_foreach(json_object_get(described, rate), i, count)
    {
        const size_t used = strlen(text);
        snprintf(text + used, sizeof(text) - used, used > 0 ? " %lld" : "%lld", (long long)json_integer_value(count));
    }
    json_decref(described);
    assert_string_equal(text, expected);
}

static void test_an_interval_has_what_passed_in_it(void **state)
{
    (void)state;
    history = (struct history){ 0 };
    struct peer peer = open_pair();
    relay("before");
    history_note(&history, bus, 1000);
    relay("one");
    relay("two");
    send_text(&peer, "2:hi,");
    TURN_UNTIL(up.of[1].messages == 1);
    history_note(&history, bus, 5999);
    assert_rate("events", "");
    history_note(&history, bus, 6000);
    assert_rate("events", "2");
    assert_rate("deliveries", "3"); /* those of the turns since the first note */
    assert_rate("messages", "1");
    assert_rate("dropped", "0");
    relay("three");
    history_note(&history, bus, 11500);
    assert_rate("events", "2 1");
    history_note(&history, bus, 16499);
    assert_rate("events", "2 1");
    hang_up(&peer);
}

static void test_ten_minutes_are_kept_the_oldest_first(void **state)
{
    (void)state;
    history = (struct history){ 0 };
    bus->events.relay = 0;
    for (uint64_t i = 0; i < HISTORY_INTERVALS + 3U; i++) {
        history_note(&history, bus, i * HISTORY_INTERVAL_S * 1000U);
        bus->events.relay += i;
    }
    json_t *described = history_describe(&history);
    const json_t *events = json_object_get(described, "events");
    assert_int_equal(json_array_size(events), HISTORY_INTERVALS);
    for (size_t i = 0; i < HISTORY_INTERVALS; i++)
        assert_int_equal(json_integer_value(json_array_get(events, i)), i + 2);
    json_decref(described);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_an_interval_has_what_passed_in_it),
        WITH_BUS(test_ten_minutes_are_kept_the_oldest_first),
    };
    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
