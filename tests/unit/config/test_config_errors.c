/* Errors in a configuration name their place. Nothing of a file with an error is kept. */
#include "config/config_rig.h"

/* ---- errors -------------------------------------------------------------------------------------------------------- */

static void test_an_unknown_key_is_an_error_at_each_level(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"port\":^1}", "port: unknown key" },
        { "{\n  \"listener\" : ^[]\n}", "listener: unknown key; did you mean listeners?" },
        { "{\"Limits\":^{}}", "Limits: unknown key; did you mean limits?" },
        { "{\"max_clients\":^5}", "max_clients: unknown key; did you mean listeners[].max_clients?" },
        { "{\"limits\":{\n\"max_clients\":^1}}",
          "limits.max_clients: unknown key; did you mean listeners[].max_clients?" },
        { "{\"keepalive\":{\"idle\":^1}}", "keepalive.idle: unknown key" },
        { "{\"keepalive\":{\"probes\":1, \"idle_ms\":\n ^{\"a\":1}}}",
          "keepalive.idle_ms: unknown key; did you mean idle_s?" },
        { "{\"log\":{\"file\":^\"/tmp/x\"}}", "log.file: unknown key" },
        { "{\"listeners\":[{\"adress\":^\"127.0.0.1:8448\"}]}",
          "listeners[0].adress: unknown key; did you mean address?" },
        { "{\"listeners\":[\n{\"address\":\"127.0.0.1:1\"},\n{\"address\":\"127.0.0.1:2\",\"tls\": ^true}]}",
          "listeners[1].tls: unknown key" },
        { "{\"listeners\":[{\"address\":\"127.0.0.1:1\",\"keepalive\":{\"off\":^true}}]}",
          "listeners[0].keepalive.off: unknown key" },
        { "{\"linger_ms\":^1}", "linger_ms: unknown key; did you mean limits.linger_ms?" },
        { "{\"log\":{\"leevl\":^1}}", "log.leevl: unknown key; did you mean level?" },
        { "{\"limits\":{\"max_message_bytes\":1}, \"log\":{\"max_message_bytes\":^1}}",
          "log.max_message_bytes: unknown key; did you mean limits.max_message_bytes?" },
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
        { "{\"metrics\":^\"127.0.0.1:9464\"}", "metrics: expected an object, found a string" },
        { "{\"metrics\":{\"port\":^9464}}", "metrics.port: unknown key" },
        { "{\"metrics\":{\"address\":^9464}}", "metrics.address: expected a string, found an integer" },
        { "{\"metrics\":{\"address\":^\"localhost:9464\"}}",
          "metrics.address: \"localhost:9464\": not an IPv4 address" },
        { "{\"listeners\":[{\"address\":^\"127.0.0.1:9464\"}],\"metrics\":{}}",
          "listeners[0].address: the same address as metrics" },
        { "{\"listeners\":[{\"address\":^\"127.0.0.1:9464\"}],\"http\":{}}",
          "listeners[0].address: the same address as http" },
        { "{\"http\":{},\"metrics\":^{}}", "metrics: another name of http, which is there too: give only one of them" },
        { "{\"http\":{\"page\":^1}}", "http.page: expected true or false, found an integer" },
        { "{\"listeners\":[^\"127.0.0.1:8448\"]}", "listeners[0]: expected an object, found a string" },
        { "{\"listeners\":[{\"address\":\"127.0.0.1:8448\"}, ^1.0]}",
          "listeners[1]: expected an object, found a number with a fraction" },
        { "{\"listeners\":[{\"keepalive\":^false}]}", "listeners[0].keepalive: expected an object, found a boolean" },
        { "{\"listeners\":[{\"address\":^8448}]}", "listeners[0].address: expected a string, found an integer" },
        { "{\"listeners\":[{\"address\":^null}]}", "listeners[0].address: expected a string, found null" },
        { "{\"listeners\":[{\"address\":^\"unix:\"}]}", "listeners[0].address: \"unix:\": a path has 1 to 107 bytes" },
        { "{\"metrics\":{\"address\":^\"unix:/tmp/m\"}}",
          "metrics.address: \"unix:/tmp/m\": the port is not a number" },
        { "{\"listeners\":[{\"address\":^\"unix:/tmp/c\"}],\"control_socket\":\"/tmp/c\"}",
          "listeners[0].address: the same path as kamailio_socket or control_socket" },
        { "{\"listeners\":[{\"address\":\"unix:/tmp/c\"},{\"address\":^\"unix:/tmp/c\"}]}",
          "listeners[1].address: the same address as listeners[0]" },
        { "{\"listeners\":[{\"address\":\"127.0.0.1:1\",\"users\":^[0]}]}",
          "listeners[0].users: only a Unix socket has it: \"address\": \"unix:PATH\"" },
        { "{\"listeners\":[{\"address\":\"unix:/tmp/c\",\"access\":{\"deny\":^[]}}]}",
          "listeners[0].access.deny: a Unix socket's clients have no network: name its users" },
        { "{\"kamailio_socket\":^1}", "kamailio_socket: expected a string, found an integer" },
        { "{\"control_socket\":^[\"/tmp/c\"]}", "control_socket: expected a string, found an array" },
        { "{\"module_listener\":^1}", "module_listener: expected true or false, found an integer" },
        { "{\"module_listener\":^\"true\"}", "module_listener: expected true or false, found a string" },
        { "{\"module_listener\":^null}", "module_listener: expected true or false, found null" },
    };
    ASSERT_ERRORS(bad);
}

static void test_an_unknown_word_is_an_error(void **state)
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

static void test_the_two_sockets_need_two_paths(void **state)
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

static void test_a_path_has_1_to_107_bytes(void **state)
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

/* The form of the error is ours. Its text is jansson's, which points at the last byte it did not accept. */
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

/* The last value does not win: only one of the two can be meant, and evapid cannot know which. */
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

/* Comments before an error, even of many lines, do not move its place. */
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

/* An unknown key may contain the characters that a path is written with. */
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

/* The error is that of the first bad listener in the file. The listeners read before it are freed. */
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

static void test_a_directory_is_an_error(void **state)
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

/* However long the path, the error fits its buffer. */
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
        cmocka_unit_test(test_an_unknown_key_is_an_error_at_each_level),
        cmocka_unit_test(test_a_wrong_type_is_an_error),
        cmocka_unit_test(test_an_unknown_word_is_an_error),
        cmocka_unit_test(test_a_bad_address_is_an_error_that_shows_it),
        cmocka_unit_test(test_a_missing_address_is_an_error_of_the_listener),
        cmocka_unit_test(test_a_duplicate_listener_is_an_error),
        cmocka_unit_test(test_the_two_sockets_need_two_paths),
        cmocka_unit_test(test_a_path_has_1_to_107_bytes),
        cmocka_unit_test(test_a_syntax_error_is_an_error_where_it_stands),
        cmocka_unit_test(test_a_duplicate_key_is_an_error),
        cmocka_unit_test(test_comments_do_not_move_an_error),
        cmocka_unit_test(test_a_comment_that_does_not_end_is_an_error_where_it_begins),
        cmocka_unit_test(test_a_key_that_looks_like_a_path_is_found),
        cmocka_unit_test(test_the_longest_unknown_key_is_an_error_all_the_same),
        cmocka_unit_test(test_an_error_in_a_later_listener_frees_the_ones_before),
        cmocka_unit_test(test_a_file_that_is_not_there_is_an_error),
        cmocka_unit_test(test_a_directory_is_an_error),
        cmocka_unit_test(test_a_file_has_at_most_a_mebibyte),
        cmocka_unit_test(test_a_file_of_binary_bytes_is_an_error),
        cmocka_unit_test(test_an_error_of_a_long_path_is_cut),
    };
    return cmocka_run_group_tests_name("config, errors", tests, enter_directory, remove_directory);
}
