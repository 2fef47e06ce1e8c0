/* The configuration: every key and its default, every limit of a number, and every error with its place. */
#include "config/config_rig.h"

/* ---- what is read -------------------------------------------------------------------------------------------------- */

static void assert_default_limits(const struct client_limits *limits)
{
    assert_int_equal(limits->framing, FRAMING_NETSTRING);
    assert_int_equal(limits->max_message_bytes, 4 << 20);
    assert_int_equal(limits->max_queued_bytes, 32 << 20);
    assert_int_equal(limits->slow_policy, SLOW_DISCONNECT);
    assert_int_equal(limits->message_timeout_ms, 30000);
    assert_int_equal(limits->linger_ms, 10000);
    assert_int_equal(limits->keepalive_idle_s, 60);
    assert_int_equal(limits->keepalive_interval_s, 10);
    assert_int_equal(limits->keepalive_probes, 6);
}

static void test_an_empty_object_gives_the_defaults(void **state)
{
    (void)state;
    struct config config = read_text("{}");
    assert_string_equal(config.kamailio_socket, "/run/evapid/kamailio.sock");
    assert_string_equal(config.control_socket, "/run/evapid/control.sock");
    assert_true(config.module_listener);
    assert_default_limits(&config.limits);
    assert_null(config.listeners);
    assert_int_equal(config.listener_count, 0);
    assert_int_equal(config.worker_window_frames, 256);
    assert_int_equal(config.worker_window_bytes, 1 << 20);
    assert_int_equal(config.shutdown_grace_ms, 2000);
    assert_int_equal(config.attach_hold_ms, 5000);
    assert_int_equal(config.log_level, LEVEL_INFO);
    config_free(&config);
}

static void test_empty_objects_and_lists_change_no_default(void **state)
{
    (void)state;
    struct config config = read_text("{\"listeners\":[],\"limits\":{},\"keepalive\":{},\"log\":{}}");
    assert_default_limits(&config.limits);
    assert_int_equal(config.listener_count, 0);
    assert_int_equal(config.worker_window_frames, 256);
    assert_int_equal(config.log_level, LEVEL_INFO);
    config_free(&config);
}

static const char every_key[] = "{\n"
                                "  # paths\n"
                                "  \"kamailio_socket\": \"/tmp/k#1//2/*3*/.sock\", // not a comment in a string\n"
                                "  \"control_socket\": \"relative.sock\",\n"
                                "  \"module_listener\": false,\n"
                                "  \"listeners\": [ /* two\n"
                                "    of them */\n"
                                "    { \"address\": \"127.0.0.1:8448\" },\n"
                                "    { \"address\": \"[::1]:8449\", \"framing\": \"raw\", \"max_clients\": 7,\n"
                                "      \"max_message_bytes\": 101, \"max_queued_bytes\": 2102,\n"
                                "      \"slow_policy\": \"drop-oldest\", \"message_timeout_ms\": 105,\n"
                                "      \"keepalive\": { \"idle_s\": 31, \"interval_s\": 32, \"probes\": 33 } }\n"
                                "  ],\n"
                                "  \"limits\": { \"max_message_bytes\": 201, \"max_queued_bytes\": 2202,\n"
                                "    \"max_total_queued_bytes\": 1048577, \"slow_policy\": \"drop-newest\",\n"
                                "    \"message_timeout_ms\": 205, \"linger_ms\": 206,\n"
                                "    \"worker_window_frames\": 203, \"worker_window_bytes\": 2204 },\n"
                                "  \"keepalive\": { \"idle_s\": 41, \"interval_s\": 42, \"probes\": 43 },\n"
                                "  \"shutdown_grace_ms\": 51,\n"
                                "  \"attach_hold_ms\": 52,\n"
                                "  \"metrics\": { \"address\": \"[::1]:9999\" },\n"
                                "  \"log\": { \"level\": \"debug\" }\n"
                                "} # the end";

static void test_every_key_is_read(void **state)
{
    (void)state;
    struct config config = read_text(every_key);
    assert_string_equal(config.kamailio_socket, "/tmp/k#1//2/*3*/.sock");
    assert_string_equal(config.control_socket, "relative.sock");
    assert_false(config.module_listener);
    assert_int_equal(config.limits.framing, FRAMING_NETSTRING);
    assert_int_equal(config.limits.max_message_bytes, 201);
    assert_int_equal(config.limits.max_queued_bytes, 2202);
    assert_int_equal(config.max_total_queued_bytes, 1048577);
    assert_int_equal(config.limits.slow_policy, SLOW_DROP_NEWEST);
    assert_int_equal(config.limits.message_timeout_ms, 205);
    assert_int_equal(config.limits.linger_ms, 206);
    assert_int_equal(config.worker_window_frames, 203);
    assert_int_equal(config.worker_window_bytes, 2204);
    assert_int_equal(config.limits.keepalive_idle_s, 41);
    assert_int_equal(config.limits.keepalive_interval_s, 42);
    assert_int_equal(config.limits.keepalive_probes, 43);
    assert_int_equal(config.shutdown_grace_ms, 51);
    assert_int_equal(config.attach_hold_ms, 52);
    assert_int_equal(config.log_level, LEVEL_DEBUG);
    assert_int_equal(config.http.address.ss_family, AF_INET6);
    assert_int_equal(config.listener_count, 2);
    config_free(&config);
}

/* An upgrade shows nobody more than before: the page needs the new name. */
static void test_the_status_page_is_there_by_the_name_http_alone(void **state)
{
    (void)state;
    struct config config = read_text("{\"metrics\":{}}");
    assert_false(config.http.page || config.http.tail);
    config_free(&config);
    config = read_text("{\"http\":{}}");
    assert_int_equal(config.http.address.ss_family, AF_INET);
    assert_true(config.http.page);
    assert_false(config.http.tail);
    config_free(&config);
    config = read_text("{\"http\":{\"page\":false,\"tail\":true}}");
    assert_true(!config.http.page && config.http.tail);
    config_free(&config);
}

/* Metrics are off by default. Turned on without an address, they listen on loopback only. */
static void test_metrics_are_at_loopback_unless_an_address_is_given(void **state)
{
    (void)state;
    char text[ADDRESS_TEXT];
    struct config config = read_text("{}");
    assert_int_equal(config.http.address.ss_family, AF_UNSPEC);
    config_free(&config);
    config = read_text("{\"metrics\":{}}");
    address_print(&config.http.address, text);
    assert_string_equal(text, "127.0.0.1:9464");
    config_free(&config);
    config = read_text("{\"metrics\":{\"address\":\"10.0.0.1:80\"}}");
    address_print(&config.http.address, text);
    assert_string_equal(text, "10.0.0.1:80");
    config_free(&config);
}

static void assert_address(const struct config_listener *listener, const char *expected)
{
    char text[ADDRESS_TEXT];
    address_print(&listener->address, text);
    assert_string_equal(text, expected);
}

/* Wherever a listener stands in the file, its limits begin as those of the whole file. */
static void test_a_listener_begins_from_the_limits_of_the_file(void **state)
{
    (void)state;
    struct config config = read_text(every_key);
    const struct config_listener *first = &config.listeners[0];
    assert_address(first, "127.0.0.1:8448");
    assert_int_equal(first->max_clients, 1024);
    assert_memory_equal(&first->limits, &config.limits, sizeof(config.limits));
    config_free(&config);
}

static void test_a_listener_s_own_limits_are_its_own(void **state)
{
    (void)state;
    struct config config = read_text(every_key);
    const struct config_listener *second = &config.listeners[1];
    assert_address(second, "[::1]:8449");
    assert_int_equal(second->limits.framing, FRAMING_RAW);
    assert_int_equal(second->max_clients, 7);
    assert_int_equal(second->limits.max_message_bytes, 101);
    assert_int_equal(second->limits.max_queued_bytes, 2102);
    assert_int_equal(second->limits.slow_policy, SLOW_DROP_OLDEST);
    assert_int_equal(second->limits.message_timeout_ms, 105);
    assert_int_equal(second->limits.linger_ms, 206);
    assert_int_equal(second->limits.keepalive_idle_s, 31);
    assert_int_equal(second->limits.keepalive_interval_s, 32);
    assert_int_equal(second->limits.keepalive_probes, 33);
    config_free(&config);
}

static void test_one_limit_of_a_listener_leaves_the_others(void **state)
{
    (void)state;
    struct config config = read_text("{\"listeners\":[{\"keepalive\":{\"probes\":9},\"address\":\"1.2.3.4:5\"}]}");
    const struct config_listener *listener = &config.listeners[0];
    struct client_limits expected = config.limits;
    expected.keepalive_probes = 9;
    assert_default_limits(&config.limits);
    assert_memory_equal(&listener->limits, &expected, sizeof(expected));
    config_free(&config);
}

static void test_listeners_keep_their_order(void **state)
{
    (void)state;
    char text[16384] = "{\"listeners\":[";
    for (unsigned port = 1; port <= 200; port++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s{\"address\":\"127.0.0.1:%u\"}",
                 port > 1 ? "," : "", port);
    snprintf(text + strlen(text), sizeof(text) - strlen(text), "]}");
    struct config config = read_text(text);
    assert_int_equal(config.listener_count, 200);
    for (unsigned port = 1; port <= 200; port++)
        assert_int_equal(address_port(&config.listeners[port - 1].address), port);
    config_free(&config);
}

static void test_every_log_level_is_read(void **state)
{
    (void)state;
    static const char *const levels[] = { "error", "warning", "notice", "info", "debug" };
    for (size_t i = 0; i < 5; i++) {
        char text[64];
        snprintf(text, sizeof(text), "{\"log\":{\"level\":\"%s\"}}", levels[i]);
        struct config config = read_text(text);
        assert_int_equal(config.log_level, LEVEL_ERROR + i);
        config_free(&config);
    }
}

static void test_every_slow_policy_is_read(void **state)
{
    (void)state;
    static const char *const names[] = { "disconnect", "drop-newest", "drop-oldest" };
    for (int policy = 0; policy < 3; policy++) {
        char text[200];
        snprintf(text, sizeof(text),
                 "{\"limits\":{\"slow_policy\":\"%s\"},\"listeners\":[{\"address\":\"1.2.3.4:5\"},"
                 "{\"address\":\"1.2.3.4:6\",\"slow_policy\":\"%s\"}]}",
                 names[policy], names[(policy + 1) % 3]);
        struct config config = read_text(text);
        assert_int_equal(config.limits.slow_policy, policy);
        assert_int_equal(config.listeners[0].limits.slow_policy, policy);
        assert_int_equal(config.listeners[1].limits.slow_policy, (policy + 1) % 3);
        config_free(&config);
    }
}

static void test_both_framings_are_read(void **state)
{
    (void)state;
    struct config config = read_text("{\"listeners\":[{\"address\":\"1.2.3.4:5\",\"framing\":\"netstring\"},"
                                     "{\"address\":\"1.2.3.4:6\",\"framing\":\"raw\"}]}");
    assert_int_equal(config.listeners[0].limits.framing, FRAMING_NETSTRING);
    assert_int_equal(config.listeners[1].limits.framing, FRAMING_RAW);
    config_free(&config);
}

static void test_comments_may_stand_wherever_white_space_may(void **state)
{
    (void)state;
    struct config config = read_text("# a\n// b\n/* c */{/**/\"attach_hold_ms\"// d\n:# \"e\n7/* f\n\n*/,\n"
                                     "//\"log\": \"nonsense\",\n"
                                     "\"module_listener\":false}// no newline behind this");
    assert_int_equal(config.attach_hold_ms, 7);
    assert_false(config.module_listener);
    config_free(&config);
}

static void test_a_path_of_the_longest_length_is_read(void **state)
{
    (void)state;
    char path[EVAPID_PATH_MAX + 1];
    char text[256];
    memset(path, 'p', EVAPID_PATH_MAX);
    path[EVAPID_PATH_MAX] = '\0';
    snprintf(text, sizeof(text), "{\"kamailio_socket\":\"%s\"}", path);
    struct config config = read_text(text);
    assert_string_equal(config.kamailio_socket, path);
    config_free(&config);
    path[0] = 'c';
    snprintf(text, sizeof(text), "{\"control_socket\":\"%s\"}", path);
    config = read_text(text);
    assert_string_equal(config.control_socket, path);
    config_free(&config);
}

/* ---- numbers ------------------------------------------------------------------------------------------------------- */

#define NUMBER(member) offsetof(struct config, member), sizeof(((struct config *)0)->member)

static const struct {
    const char *before, *path, *after; /* before, after: the text around the number; path: the key in an error */
    unsigned long long least, most;
    size_t offset, width; /* in struct config; a key of a listener: in struct config_listener */
    bool listener;
} numbers[] = {
    { "{\"limits\":{\"max_message_bytes\":", "limits.max_message_bytes", "}}", 1, 64 << 20,
      NUMBER(limits.max_message_bytes), false },
    { "{\"limits\":{\"max_queued_bytes\":", "limits.max_queued_bytes", "}}", 1024, 1ULL << 40,
      NUMBER(limits.max_queued_bytes), false },
    { "{\"limits\":{\"max_total_queued_bytes\":", "limits.max_total_queued_bytes", "}}", 1 << 20, 1ULL << 40,
      NUMBER(max_total_queued_bytes), false },
    { "{\"limits\":{\"message_timeout_ms\":", "limits.message_timeout_ms", "}}", 0, 86400000,
      NUMBER(limits.message_timeout_ms), false },
    { "{\"limits\":{\"linger_ms\":", "limits.linger_ms", "}}", 0, 600000, NUMBER(limits.linger_ms), false },
    { "{\"limits\":{\"worker_window_frames\":", "limits.worker_window_frames", "}}", 1, 65536,
      NUMBER(worker_window_frames), false },
    { "{\"limits\":{\"worker_window_bytes\":", "limits.worker_window_bytes", "}}", 1024, 1 << 30,
      NUMBER(worker_window_bytes), false },
    { "{\"keepalive\":{\"idle_s\":", "keepalive.idle_s", "}}", 0, 32767, NUMBER(limits.keepalive_idle_s), false },
    { "{\"keepalive\":{\"interval_s\":", "keepalive.interval_s", "}}", 1, 32767, NUMBER(limits.keepalive_interval_s),
      false },
    { "{\"keepalive\":{\"probes\":", "keepalive.probes", "}}", 1, 127, NUMBER(limits.keepalive_probes), false },
    { "{\"shutdown_grace_ms\":", "shutdown_grace_ms", "}", 0, 600000, NUMBER(shutdown_grace_ms), false },
    { "{\"attach_hold_ms\":", "attach_hold_ms", "}", 0, 600000, NUMBER(attach_hold_ms), false },
#undef NUMBER
#define NUMBER(member) offsetof(struct config_listener, member), sizeof(((struct config_listener *)0)->member)
    { "{\"listeners\":[{\"address\":\"1.2.3.4:5\",\"max_clients\":", "listeners[0].max_clients", "}]}", 1, 1000000,
      NUMBER(max_clients), true },
    { "{\"listeners\":[{\"address\":\"1.2.3.4:5\",\"max_message_bytes\":", "listeners[0].max_message_bytes", "}]}", 1,
      64 << 20, NUMBER(limits.max_message_bytes), true },
    { "{\"listeners\":[{\"address\":\"1.2.3.4:5\",\"max_queued_bytes\":", "listeners[0].max_queued_bytes", "}]}", 1024,
      1ULL << 40, NUMBER(limits.max_queued_bytes), true },
    { "{\"listeners\":[{\"address\":\"1.2.3.4:5\",\"message_timeout_ms\":", "listeners[0].message_timeout_ms", "}]}", 0,
      86400000, NUMBER(limits.message_timeout_ms), true },
    { "{\"listeners\":[{\"address\":\"1.2.3.4:5\",\"keepalive\":{\"idle_s\":", "listeners[0].keepalive.idle_s", "}}]}",
      0, 32767, NUMBER(limits.keepalive_idle_s), true },
    { "{\"listeners\":[{\"address\":\"1.2.3.4:5\",\"keepalive\":{\"interval_s\":", "listeners[0].keepalive.interval_s",
      "}}]}", 1, 32767, NUMBER(limits.keepalive_interval_s), true },
    { "{\"listeners\":[{\"address\":\"1.2.3.4:5\",\"keepalive\":{\"probes\":", "listeners[0].keepalive.probes", "}}]}",
      1, 127, NUMBER(limits.keepalive_probes), true },
};
#undef NUMBER

#define NUMBERS (sizeof(numbers) / sizeof(*numbers))

/* The text of a file in which the i-th number has this value. */
static const char *number_text(size_t i, const char *number)
{
    static char text[256];
    snprintf(text, sizeof(text), "%s^%s%s", numbers[i].before, number, numbers[i].after);
    return text;
}

static unsigned long long read_back(size_t i, const struct config *config)
{
    const char *object = numbers[i].listener ? (const char *)&config->listeners[0] : (const char *)config;
    uint32_t narrow = 0;
    uint64_t wide = 0;
    if (numbers[i].width == sizeof(narrow)) {
        memcpy(&narrow, object + numbers[i].offset, sizeof(narrow));
        return narrow;
    }
    assert_int_equal(numbers[i].width, sizeof(wide));
    memcpy(&wide, object + numbers[i].offset, sizeof(wide));
    return wide;
}

static void test_a_number_may_be_its_least_and_its_most(void **state)
{
    (void)state;
    for (size_t i = 0; i < NUMBERS; i++)
        for (int end = 0; end < 2; end++) {
            const unsigned long long value = end == 0 ? numbers[i].least : numbers[i].most;
            char text[256];
            snprintf(text, sizeof(text), "%s%llu%s", numbers[i].before, value, numbers[i].after);
            struct config config = read_text(text);
            assert_int_equal(read_back(i, &config), value);
            config_free(&config);
        }
}

static void assert_out_of_range(size_t i, long long value)
{
    char number[32];
    char error[256];
    snprintf(number, sizeof(number), "%lld", value);
    snprintf(error, sizeof(error), "%s: %lld is out of range: %llu to %llu", numbers[i].path, value, numbers[i].least,
             numbers[i].most);
    const struct bad bad = { number_text(i, number), error };
    assert_errors(&bad, 1);
}

static void test_a_number_out_of_its_range_is_an_error(void **state)
{
    (void)state;
    for (size_t i = 0; i < NUMBERS; i++) {
        assert_out_of_range(i, (long long)numbers[i].least - 1);
        assert_out_of_range(i, (long long)numbers[i].most + 1);
        assert_out_of_range(i, -1);
        assert_out_of_range(i, INT64_MIN);
        assert_out_of_range(i, INT64_MAX);
        assert_out_of_range(i,
                            (1LL << 32) + (long long)numbers[i].least + (numbers[i].most > 1ULL << 32 ? 1LL << 41 : 0));
    }
}

static void test_every_number_must_be_an_integer(void **state)
{
    (void)state;
    static const struct {
        const char *value, *found;
    } values[] = {
        { "\"1\"", "a string" },
        { "1.5", "a number with a fraction" },
        { "1e3", "a number with a fraction" },
        { "true", "a boolean" },
        { "false", "a boolean" },
        { "null", "null" },
        { "[1]", "an array" },
        { "{}", "an object" },
    };
    for (size_t i = 0; i < NUMBERS; i++)
        for (size_t j = 0; j < sizeof(values) / sizeof(*values); j++) {
            char error[256];
            snprintf(error, sizeof(error), "%s: expected an integer, found %s", numbers[i].path, values[j].found);
            const struct bad bad = { number_text(i, values[j].value), error };
            assert_errors(&bad, 1);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_object_gives_the_defaults),
        cmocka_unit_test(test_empty_objects_and_lists_change_no_default),
        cmocka_unit_test(test_every_key_is_read),
        cmocka_unit_test(test_the_status_page_is_there_by_the_name_http_alone),
        cmocka_unit_test(test_metrics_are_at_loopback_unless_an_address_is_given),
        cmocka_unit_test(test_a_listener_begins_from_the_limits_of_the_file),
        cmocka_unit_test(test_a_listener_s_own_limits_are_its_own),
        cmocka_unit_test(test_one_limit_of_a_listener_leaves_the_others),
        cmocka_unit_test(test_listeners_keep_their_order),
        cmocka_unit_test(test_every_log_level_is_read),
        cmocka_unit_test(test_every_slow_policy_is_read),
        cmocka_unit_test(test_both_framings_are_read),
        cmocka_unit_test(test_comments_may_stand_wherever_white_space_may),
        cmocka_unit_test(test_a_path_of_the_longest_length_is_read),
        cmocka_unit_test(test_a_number_may_be_its_least_and_its_most),
        cmocka_unit_test(test_a_number_out_of_its_range_is_an_error),
        cmocka_unit_test(test_every_number_must_be_an_integer),
    };
    return cmocka_run_group_tests_name("config", tests, enter_directory, remove_directory);
}
