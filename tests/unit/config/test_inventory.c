/* The inventory: what holds, where each value is from, and what has changed from one configuration to the next. */
#include "config/config_rig.h"

#include "config/inventory.h"
#include "config/keys.h"

static const char *key_of(const json_t *row)
{
    return json_string_value(json_object_get(row, "key"));
}

/* "VALUE FROM" of the key, with "default" between them if the value is the default. */
static const char *shown(const struct config *config, const char *name)
{
    static char text[256];
    snprintf(text, sizeof(text), "%s is missing", name);
    for (size_t at = 0; at < inventory_count(config); at++) {
        json_t *row = inventory_describe(config, at);
        assert_non_null(row);
        if (strcmp(key_of(row), name) == 0) {
            char *value = json_dumps(json_object_get(row, "value"), JSON_ENCODE_ANY | JSON_COMPACT);
            snprintf(text, sizeof(text), "%s%s %s", value,
                     json_is_true(json_object_get(row, "default")) ? " default" : "",
                     json_string_value(json_object_get(row, "from")));
            free(value);
        }
        json_decref(row);
    }
    return text;
}

/* A key of the file with this text, and how it is shown. */
struct shown {
    const char *key, *as;
};

static void assert_shown(const char *text, const struct shown *expected, size_t count)
{
    struct config config = read_text(text);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(shown(&config, expected[i].key), expected[i].as);
    config_free(&config);
}

#define ASSERT_SHOWN(text, table) assert_shown(text, table, sizeof(table) / sizeof(*(table)))

static bool is_listener_key(const char *name)
{
    return strncmp(name, "listeners[", strlen("listeners[")) == 0;
}

static void test_without_a_file_s_values_every_key_has_its_default(void **state)
{
    (void)state;
    struct config config = read_text("{}");
    size_t at = 0;
    for (const struct key *key = keys; key->name != NULL; key++) {
        if (key_model(key)->rule.kind->read == NULL || is_listener_key(key->name))
            continue;
        json_t *row = inventory_describe(&config, at++);
        assert_string_equal(key_of(row), key->name);
        assert_true(json_is_true(json_object_get(row, "default")));
        assert_string_equal(json_string_value(json_object_get(row, "from")), "default");
        json_decref(row);
    }
    assert_int_equal(inventory_count(&config), at);
    assert_string_equal(config.file, FILE_NAME);
    config_free(&config);
    static const struct shown expected[] = { { "limits.linger_ms", "10000 default default" },
                                             { "access.deny", "[] default default" },
                                             { "access.allow", "null default default" },
                                             { "metrics.address", "null default default" } };
    ASSERT_SHOWN("{}", expected);
}

static void test_the_keys_of_listeners_come_last_and_those_of_each_together(void **state)
{
    (void)state;
    struct config one = read_text("{\"listeners\":[{\"address\":\"1.2.3.4:5\"}]}");
    struct config none = read_text("{}");
    struct config two = read_text("{\"listeners\":[{\"address\":\"1.2.3.4:5\"},{\"address\":\"1.2.3.4:6\"}]}");
    const size_t shared = inventory_count(&none);
    const size_t of_each = inventory_count(&one) - shared;
    assert_in_range(of_each, 10, 100);
    assert_int_equal(inventory_count(&two), shared + 2 * of_each);
    for (size_t at = 0; at < inventory_count(&two); at++) {
        json_t *row = inventory_describe(&two, at);
        const char *begin = at < shared ? "" : at < shared + of_each ? "listeners[0]." : "listeners[1].";
        assert_memory_equal(key_of(row), begin, strlen(begin));
        assert_int_equal(is_listener_key(key_of(row)), at >= shared);
        json_decref(row);
    }
    config_free(&one);
    config_free(&none);
    config_free(&two);
}

static void test_what_the_file_sets_is_from_there(void **state)
{
    (void)state;
    static const struct shown expected[] = { { "limits.linger_ms", "5 file" },
                                             { "limits.max_message_bytes", "4194304 default file" },
                                             { "access.allow", "[\"10.0.0.0/8\"] file" },
                                             { "control_access.users", "[0] file" },
                                             { "metrics.address", "\"127.0.0.1:9464\" default default" },
                                             { "listeners[0].framing", "listeners[0].framing is missing" } };
    ASSERT_SHOWN("{\"limits\":{\"linger_ms\":5,\"max_message_bytes\":4194304},\"metrics\":{},"
                 "\"access\":{\"allow\":[\"10.0.0.0/8\"]},\"control_access\":{\"users\":[0]}}",
                 expected);
}

static void test_a_listener_s_value_is_its_own_or_shared(void **state)
{
    (void)state;
    static const struct shown expected[] = { { "listeners[0].address", "\"1.2.3.4:5\" file" },
                                             { "listeners[0].max_clients", "1024 default default" },
                                             { "listeners[0].slow_policy", "\"drop-oldest\" limits.slow_policy" },
                                             { "listeners[0].keepalive.probes", "6 default keepalive.probes" },
                                             { "listeners[1].slow_policy", "\"disconnect\" default file" },
                                             { "listeners[1].keepalive.probes", "9 file" } };
    ASSERT_SHOWN("{\"limits\":{\"slow_policy\":\"drop-oldest\"},\"listeners\":[{\"address\":\"1.2.3.4:5\"},"
                 "{\"address\":\"1.2.3.4:6\",\"slow_policy\":\"disconnect\",\"keepalive\":{\"probes\":9}}]}",
                 expected);
}

static void test_a_level_of_the_log_that_was_set_meanwhile_is_not_the_file_s(void **state)
{
    (void)state;
    struct config config = read_text("{\"log\":{\"level\":\"notice\"}}");
    log_set_level(LEVEL_NOTICE);
    assert_string_equal(shown(&config, "log.level"), "\"notice\" file");
    log_set_level(LEVEL_DEBUG);
    assert_string_equal(shown(&config, "log.level"), "\"debug\" evapictl");
    log_set_level(LEVEL_INFO);
    assert_string_equal(shown(&config, "log.level"), "\"info\" default evapictl");
    config_free(&config);
}

/* The changed keys, with blanks between them. */
static const char *changed(const char *before, const char *after)
{
    static char text[512];
    struct config was = read_text(before);
    struct config is = read_text(after);
    json_t *names = inventory_changes(&was, &is);
    size_t i = 0;
    json_t *name = NULL;
    text[0] = '\0';
    json_array_foreach(names, i, name)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", i > 0 ? " " : "", json_string_value(name));
    json_decref(names);
    config_free(&was);
    config_free(&is);
    return text;
}

static void test_keys_with_other_values_are_named(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        { "{}", "{}", "" },
        { "{}", "{\"limits\":{\"linger_ms\":10000}}", "" },
        { "{\"log\":{\"level\":\"info\"}}", "{\"limits\":{},\"log\":{\"level\":\"debug\"}}", "log.level" },
        { "{\"limits\":{\"linger_ms\":1}}", "{\"attach_hold_ms\":1}", "limits.linger_ms attach_hold_ms" },
        { "{}", "{\"metrics\":{}}", "metrics.address" },
        { "{\"access\":{\"deny\":[\"::1\"]}}", "{\"access\":{\"deny\":[\"::2\"]}}", "access.deny" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_string_equal(changed(cases[i][0], cases[i][1]), cases[i][2]);
}

#define AT(port, rest) "{\"address\":\"1.2.3.4:" #port "\"" rest "}"
#define LISTENERS(list) "{\"listeners\":[" list "]}"

static void test_a_listener_is_compared_with_the_one_at_the_same_address(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        { LISTENERS(AT(5, "") "," AT(6, "")), LISTENERS(AT(6, "") "," AT(5, "")), "" },
        { LISTENERS(AT(5, "")), LISTENERS(AT(5, "") "," AT(6, "")), "listeners" },
        { LISTENERS(AT(5, "")), "{}", "listeners" },
        { LISTENERS(AT(5, "")), LISTENERS(AT(6, "")), "listeners" },
        { LISTENERS(AT(6, ",\"max_clients\":5")), LISTENERS(AT(5, "") "," AT(6, ",\"max_clients\":7")),
          "listeners[1].max_clients listeners" },
        /* a shared value is named where it stands, once */
        { LISTENERS(AT(5, "")), "{\"limits\":{\"slow_policy\":\"drop-oldest\"},\"listeners\":[" AT(5, "") "]}",
          "limits.slow_policy" },
        { LISTENERS(AT(5, ",\"slow_policy\":\"drop-oldest\"")), LISTENERS(AT(5, "")), "listeners[0].slow_policy" },
        { LISTENERS(AT(5, ",\"slow_policy\":\"disconnect\"")), LISTENERS(AT(5, "")), "" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_string_equal(changed(cases[i][0], cases[i][1]), cases[i][2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_file_s_values_every_key_has_its_default),
        cmocka_unit_test(test_the_keys_of_listeners_come_last_and_those_of_each_together),
        cmocka_unit_test(test_what_the_file_sets_is_from_there),
        cmocka_unit_test(test_a_listener_s_value_is_its_own_or_shared),
        cmocka_unit_test(test_a_level_of_the_log_that_was_set_meanwhile_is_not_the_file_s),
        cmocka_unit_test(test_keys_with_other_values_are_named),
        cmocka_unit_test(test_a_listener_is_compared_with_the_one_at_the_same_address),
    };
    return cmocka_run_group_tests(tests, enter_directory, remove_directory);
}
