/* The configuration: every key and its default, every limit of a number, and every error with its place. */
#include "config_rig.h"

/* ---- what is read -------------------------------------------------------------------------------------------------- */

static void assert_default_limits(const struct client_limits *limits)
{
    assert_int_equal(limits->framing, FRAMING_NETSTRING);
    assert_int_equal(limits->max_message_bytes, 4 << 20);
    assert_int_equal(limits->max_queued_bytes, 8 << 20);
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
    assert_int_equal(config.listener_count, 2);
    config_free(&config);
}

static void assert_address(const struct config_listener *listener, const char *expected)
{
    char text[ADDRESS_TEXT];
    address_print(&listener->address, text);
    assert_string_equal(text, expected);
}

/* Whatever the order in the file, a listener begins from the limits of the whole file. */
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
    const char *before, *path, *after; /* the text around the number, and the key's path in an error */
    unsigned long long least, most;
    size_t offset, width; /* in struct config, or when a listener's in struct config_listener */
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

/* The text of a file whose number i is that. */
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

static void test_what_is_no_integer_is_an_error_for_every_number(void **state)
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

/* ---- errors -------------------------------------------------------------------------------------------------------- */

static void test_an_unknown_key_is_an_error_at_each_level(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"port\":^1}", "port: unknown key" },
        { "{\n  \"listener\" : ^[]\n}", "listener: unknown key" },
        { "{\"Limits\":^{}}", "Limits: unknown key" },
        { "{\"max_clients\":^5}", "max_clients: unknown key" },
        { "{\"limits\":{\n\"max_clients\":^1}}", "limits.max_clients: unknown key" },
        { "{\"keepalive\":{\"idle\":^1}}", "keepalive.idle: unknown key" },
        { "{\"keepalive\":{\"probes\":1, \"idle_ms\":\n ^{\"a\":1}}}", "keepalive.idle_ms: unknown key" },
        { "{\"log\":{\"file\":^\"/tmp/x\"}}", "log.file: unknown key" },
        { "{\"listeners\":[{\"adress\":^\"127.0.0.1:8448\"}]}", "listeners[0].adress: unknown key" },
        { "{\"listeners\":[\n{\"address\":\"127.0.0.1:1\"},\n{\"address\":\"127.0.0.1:2\",\"tls\": ^true}]}",
          "listeners[1].tls: unknown key" },
        { "{\"listeners\":[{\"address\":\"127.0.0.1:1\",\"keepalive\":{\"off\":^true}}]}",
          "listeners[0].keepalive.off: unknown key" },
        { "{\"limits\":{\"max_message_bytes\":1}, \"log\":{\"max_message_bytes\":^1}}",
          "log.max_message_bytes: unknown key" },
    };
    ASSERT_ERRORS(bad);
}

static void test_a_wrong_type_is_an_error(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "^[]", "expected an object, found an array" },
        { "\n\n ^[{}]", "expected an object, found an array" },
        { "{\"limits\":^[]}", "limits: expected an object, found an array" },
        { "{\"limits\":^null}", "limits: expected an object, found null" },
        { "{\"keepalive\":^5}", "keepalive: expected an object, found an integer" },
        { "{\"log\":^\"debug\"}", "log: expected an object, found a string" },
        { "{\"listeners\":^{}}", "listeners: expected an array, found an object" },
        { "{\"listeners\":^\"127.0.0.1:8448\"}", "listeners: expected an array, found a string" },
        { "{\"listeners\":[^\"127.0.0.1:8448\"]}", "listeners[0]: expected an object, found a string" },
        { "{\"listeners\":[{\"address\":\"127.0.0.1:8448\"}, ^1.0]}",
          "listeners[1]: expected an object, found a number with a fraction" },
        { "{\"listeners\":[{\"keepalive\":^false}]}", "listeners[0].keepalive: expected an object, found a boolean" },
        { "{\"listeners\":[{\"address\":^8448}]}", "listeners[0].address: expected a string, found an integer" },
        { "{\"listeners\":[{\"address\":^null}]}", "listeners[0].address: expected a string, found null" },
        { "{\"kamailio_socket\":^1}", "kamailio_socket: expected a string, found an integer" },
        { "{\"control_socket\":^[\"/tmp/c\"]}", "control_socket: expected a string, found an array" },
        { "{\"module_listener\":^1}", "module_listener: expected true or false, found an integer" },
        { "{\"module_listener\":^\"true\"}", "module_listener: expected true or false, found a string" },
        { "{\"module_listener\":^null}", "module_listener: expected true or false, found null" },
    };
    ASSERT_ERRORS(bad);
}

static void test_a_word_that_is_none_of_those_is_an_error(void **state)
{
    (void)state;
    static const char *const levels = "log.level: expected \"error\", \"warning\", \"notice\", \"info\" or \"debug\"";
    static const char *const framings = "listeners[0].framing: expected \"netstring\" or \"raw\"";
    const struct bad bad[] = {
        { "{\"log\":{\"level\":^\"verbose\"}}", levels },
        { "{\"log\":{\"level\":^\"\"}}", levels },
        { "{\"log\":{\"level\":^3}}", levels },
        { "{\"log\":{\"level\":^null}}", levels },
        { "{\"limits\":{\"slow_policy\":^\"drop\"}}",
          "limits.slow_policy: expected \"disconnect\", \"drop-newest\" or \"drop-oldest\"" },
        { "{\"listeners\":[{\"slow_policy\":^1}]}",
          "listeners[0].slow_policy: expected \"disconnect\", \"drop-newest\" or \"drop-oldest\"" },
        { "{\"listeners\":[{\"framing\":^\"NETSTRING\"}]}", framings },
        { "{\"listeners\":[{\"framing\":^\"rawx\"}]}", framings },
        { "{\"listeners\":[{\"framing\":^0}]}", framings },
        { "{\"listeners\":[{\"framing\":^null}]}", framings },
    };
    ASSERT_ERRORS(bad);
}

static void test_a_bad_address_is_an_error_that_shows_it(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"listeners\":[{\"address\":^\"\"}]}", "listeners[0].address: \"\": expected ADDRESS:PORT" },
        { "{\"listeners\":[{\"address\":^\"localhost:8448\"}]}",
          "listeners[0].address: \"localhost:8448\": not an IPv4 address" },
        { "{\"listeners\":[{\"address\":^\"127.0.0.1\"}]}",
          "listeners[0].address: \"127.0.0.1\": expected ADDRESS:PORT" },
        { "{\"listeners\":[{\"address\":^\"127.0.0.1:0\"}]}", "listeners[0].address: \"127.0.0.1:0\": the port is 0" },
        { "{\"listeners\":[{\"address\":^\"127.0.0.1:65536\"}]}",
          "listeners[0].address: \"127.0.0.1:65536\": the port is over 65535" },
        { "{\"listeners\":[{\"address\":^\"::1:8448\"}]}",
          "listeners[0].address: \"::1:8448\": an IPv6 address is written in brackets: [ADDRESS]:PORT" },
        { "{\"listeners\":[{\"address\":\"127.0.0.1:1\"},\n {\"max_clients\":1, \"address\": ^\"[::1]\"}]}",
          "listeners[1].address: \"[::1]\": expected [ADDRESS]:PORT" },
    };
    ASSERT_ERRORS(bad);
}

static void test_a_missing_address_is_an_error_of_the_listener(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"listeners\":[^{}]}", "listeners[0]: address is missing" },
        { "{\"listeners\":[ {\"address\":\"127.0.0.1:1\"},\n  ^{\"framing\":\"raw\"}]}",
          "listeners[1]: address is missing" },
    };
    ASSERT_ERRORS(bad);
}

static void test_a_duplicate_listener_is_an_error(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"listeners\":[{\"address\":\"127.0.0.1:1\"},{\"address\":^\"127.0.0.1:1\"}]}",
          "listeners[1].address: the same address as listeners[0]" },
        { "{\"listeners\":[{\"address\":\"127.0.0.1:1\"},{\"address\":\"[::1]:1\"},\n"
          "{\"framing\":\"raw\",\"address\":^\"[0:0::1]:01\",\"max_clients\":2}]}",
          "listeners[2].address: the same address as listeners[1]" },
        { "{\"listeners\":[{\"address\":\"127.0.0.1:1\"},{\"address\":\"127.0.0.1:2\"},{\"address\":\"127.0.0.1:3\"},\n"
          "{\"address\":^\"127.0.0.1:2\"}]}",
          "listeners[3].address: the same address as listeners[1]" },
    };
    ASSERT_ERRORS(bad);
}

static void test_the_two_sockets_are_two_paths(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"kamailio_socket\":\"/tmp/a\",\"control_socket\":^\"/tmp/a\"}",
          "control_socket: the same path as kamailio_socket" },
        { "{\"control_socket\":^\"/tmp/a\",\n\"kamailio_socket\":\"/tmp/a\"}",
          "control_socket: the same path as kamailio_socket" },
        { "{\"control_socket\": ^\"/run/evapid/kamailio.sock\"}", "control_socket: the same path as kamailio_socket" },
        { "^{\"kamailio_socket\":\"/run/evapid/control.sock\"}", "control_socket: the same path as kamailio_socket" },
    };
    ASSERT_ERRORS(bad);
}

static void test_a_path_has_a_length(void **state)
{
    (void)state;
    static const char *const keys[] = { "kamailio_socket", "control_socket" };
    for (size_t i = 0; i < 2; i++) {
        char path[EVAPID_PATH_MAX + 2];
        char text[256];
        char error[64];
        memset(path, 'p', sizeof(path) - 1);
        path[sizeof(path) - 1] = '\0';
        snprintf(text, sizeof(text), "{\"%s\":^\"%s\"}", keys[i], path);
        snprintf(error, sizeof(error), "%s: a path has 1 to 107 bytes", keys[i]);
        const struct bad long_path = { text, error };
        assert_errors(&long_path, 1);
        snprintf(text, sizeof(text), "{\"%s\":^\"\"}", keys[i]);
        const struct bad no_path = { text, error };
        assert_errors(&no_path, 1);
    }
}

/* The form of the error is ours, its text is jansson's, which points at the last byte of what it could not take. */
static void assert_syntax_errors(const struct bad *bad, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char expected[128];
        unsigned line;
        unsigned column;
        const char *error = error_of(bad[i].text, &line, &column);
        const int n = snprintf(expected, sizeof(expected), FILE_NAME ":%u:%u: ", line, column);
        if (strncmp(error, expected, (size_t)n) != 0 || strstr(error, bad[i].error) == NULL)
            fail_msg("%s\n  gives    %s\n  expected %s ... %s", bad[i].text, error, expected, bad[i].error);
    }
}

#define ASSERT_SYNTAX_ERRORS(table) assert_syntax_errors(table, sizeof(table) / sizeof(*(table)))

static void test_a_syntax_error_is_an_error_where_it_stands(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "^", "near end of file" },
        { "hell^o", "near 'hello'" },
        { "{\n\"a\" ^1}", "near '1'" },
        { "{\"a\":1 \"b^\":2}", "near '\"b\"'" },
        { "{\"log\":{},^}", "near '}'" },
        { "{\"listeners\":[{},^]}", "near ']'" },
        { "{} ^{}", "end of file expected near '{'" },
        { "{\"attach_hold_ms\":9999999999999999999^9}", "too big integer" },
    };
    ASSERT_SYNTAX_ERRORS(bad);
}

/* Not the last one wins: both stand in the file, and only one can be meant. */
static void test_a_duplicate_key_is_an_error(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"log\":{},\n \"log^\":{}}", "duplicate object key" },
        { "{\"log\":{\"level\":\"info\",\n  \"level^\":\"info\"}}", "duplicate object key" },
        { "{\"listeners\":[{\"address\":\"1.2.3.4:5\",\n\"address^\":\"1.2.3.4:6\"}]}", "duplicate object key" },
    };
    ASSERT_SYNTAX_ERRORS(bad);
}

/* Comments in front of an error, even of many lines, do not move its place. */
static void test_comments_do_not_move_an_error(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "# one\n// two\n/* three\n four */ {\"a\":/* \n */ ^1}", "a: unknown key" },
        { "{\"log\":{}, # \"level\": \"x\"\n\"a\":^1}", "a: unknown key" },
        { "{\"kamailio_socket\":\"#//*\", \"a\":/*\"*/^1}", "a: unknown key" },
        { "{\"listeners\":[ // none\n/* {\"address\":\"1.2.3.4:5\"}, */ ^{} ] }", "listeners[0]: address is missing" },
        { "{\"kamailio_socket\":\"a\\\"# b\", \"b\":^1} # c", "b: unknown key" },
    };
    ASSERT_ERRORS(bad);
}

static void test_a_comment_that_does_not_end_is_an_error_where_it_begins(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "^/* {}", "this comment has no end" },
        { "{ ^/* }", "this comment has no end" },
        { "{\"log\":{}\n\n  ^/* }\n", "this comment has no end" },
        { "{\"log\":^/*/{}}", "this comment has no end" },
        { "{\"module_listener\":false} ^/* {\"log\":{}}", "this comment has no end" },
        { "{} /* a */ # /*\n^/*", "this comment has no end" },
    };
    ASSERT_ERRORS(bad);
}

/* An unknown key may hold the bytes that a path is made of. */
static void test_a_key_that_looks_like_a_path_is_found(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"log\":{},\n\"log.level\":^\"info\"}", "log.level: unknown key" },
        { "{\"listeners\":[],\n\"listeners[0]\":^{}}", "listeners[0]: unknown key" },
    };
    ASSERT_ERRORS(bad);
}

static void test_the_longest_unknown_key_is_an_error_all_the_same(void **state)
{
    (void)state;
    static char text[6000];
    unsigned line;
    unsigned column;
    char key[5000];
    memset(key, 'k', sizeof(key));
    snprintf(text, sizeof(text), "{\"listeners\":[{\"%.*s\":1}]}", (int)sizeof(key), key);
    const char *error = error_of(text, &line, &column);
    assert_non_null(strstr(error, FILE_NAME ":1:"));
    assert_non_null(strstr(error, "unknown key"));
}

/* The first error in the order of the file's listeners is the one that is told; what was read before is freed. */
static void test_an_error_in_a_later_listener_frees_the_ones_before(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"listeners\":[{\"address\":\"1.2.3.4:1\"},{\"address\":\"1.2.3.4:2\"},{\"address\":\"1.2.3.4:3\","
          "\"max_clients\":^0}]}",
          "listeners[2].max_clients: 0 is out of range: 1 to 1000000" },
    };
    ASSERT_ERRORS(bad);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void assert_unreadable(const char *path, const char *expected)
{
    struct config config;
    char error[CONFIG_ERROR] = "";
    assert_false(config_read(&config, path, error));
    assert_string_equal(error, expected);
    assert_null(config.listeners);
}

static void test_a_file_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    assert_unreadable("none.json", "none.json: No such file or directory");
    assert_unreadable("none/e.json", "none/e.json: No such file or directory");
}

static void test_a_directory_is_no_file(void **state)
{
    (void)state;
    assert_unreadable(".", ".: Is a directory");
}

static void test_a_file_has_at_most_a_mebibyte(void **state)
{
    (void)state;
    enum { MOST = 1 << 20 };
    struct config config;
    char error[CONFIG_ERROR];
    char *text = malloc(MOST + 1);
    assert_non_null(text);
    memset(text, ' ', MOST + 1);
    text[0] = '{';
    text[1] = '}';
    write_file(text, MOST);
    assert_true(config_read(&config, FILE_NAME, error));
    config_free(&config);
    write_file(text, MOST + 1);
    free(text);
    assert_unreadable(FILE_NAME, FILE_NAME ": larger than 1 MiB");
}

static void test_a_file_of_binary_bytes_is_an_error(void **state)
{
    (void)state;
    struct config config;
    static const char *const texts[] = { "\0\0\0\0", "{}\0\0", "{\"\0\":1", "\xff\xfe{\0", "{\"l\xff" };
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        char error[CONFIG_ERROR] = "";
        write_file(texts[i], 4);
        assert_false(config_read(&config, FILE_NAME, error));
        assert_memory_equal(error, FILE_NAME ":1:", strlen(FILE_NAME ":1:"));
    }
}

/* However long the path, the error ends within its room. */
static void test_an_error_of_a_long_path_is_cut(void **state)
{
    (void)state;
    char path[3000];
    char error[CONFIG_ERROR];
    struct config config;
    memset(path, '/', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    memcpy(path + sizeof(path) - 1 - strlen("none"), "none", strlen("none"));
    assert_false(config_read(&config, path, error));
    assert_int_equal(strlen(error), CONFIG_ERROR - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_object_gives_the_defaults),
        cmocka_unit_test(test_empty_objects_and_lists_change_no_default),
        cmocka_unit_test(test_every_key_is_read),
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
        cmocka_unit_test(test_what_is_no_integer_is_an_error_for_every_number),
        cmocka_unit_test(test_an_unknown_key_is_an_error_at_each_level),
        cmocka_unit_test(test_a_wrong_type_is_an_error),
        cmocka_unit_test(test_a_word_that_is_none_of_those_is_an_error),
        cmocka_unit_test(test_a_bad_address_is_an_error_that_shows_it),
        cmocka_unit_test(test_a_missing_address_is_an_error_of_the_listener),
        cmocka_unit_test(test_a_duplicate_listener_is_an_error),
        cmocka_unit_test(test_the_two_sockets_are_two_paths),
        cmocka_unit_test(test_a_path_has_a_length),
        cmocka_unit_test(test_a_syntax_error_is_an_error_where_it_stands),
        cmocka_unit_test(test_a_duplicate_key_is_an_error),
        cmocka_unit_test(test_comments_do_not_move_an_error),
        cmocka_unit_test(test_a_comment_that_does_not_end_is_an_error_where_it_begins),
        cmocka_unit_test(test_a_key_that_looks_like_a_path_is_found),
        cmocka_unit_test(test_the_longest_unknown_key_is_an_error_all_the_same),
        cmocka_unit_test(test_an_error_in_a_later_listener_frees_the_ones_before),
        cmocka_unit_test(test_a_file_that_is_not_there_is_an_error),
        cmocka_unit_test(test_a_directory_is_no_file),
        cmocka_unit_test(test_a_file_has_at_most_a_mebibyte),
        cmocka_unit_test(test_a_file_of_binary_bytes_is_an_error),
        cmocka_unit_test(test_an_error_of_a_long_path_is_cut),
    };
    return cmocka_run_group_tests_name("config", tests, enter_directory, remove_directory);
}
