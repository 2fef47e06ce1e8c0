/* The configuration of access: to listeners, and to the Unix sockets. */
#include "config/config_rig.h"

#include <unistd.h>

#include "net/bucket.h"

static bool admits(const struct access *access, const char *text)
{
    struct sockaddr_storage address;
    assert_null(address_parse(text, &address));
    const struct network host = network_of(&address);
    return access_admits(access, &host);
}

/* ---- listeners ----------------------------------------------------------------------------------------------------- */

static void test_by_default_every_client_may_connect_and_has_a_minute(void **state)
{
    (void)state;
    static const char *const texts[] = { "{\"listeners\":[{\"address\":\"1.2.3.4:5\"}]}",
                                         "{\"access\":{},\"listeners\":[{\"address\":\"1.2.3.4:5\",\"access\":{}}]}" };
    for (size_t i = 0; i < 2; i++) {
        struct config config = read_text(texts[i]);
        const struct access *both[] = { &config.access, &config.listeners[0].access };
        for (size_t j = 0; j < 2; j++) {
            assert_int_equal(both[j]->allow.count, 0);
            assert_int_equal(both[j]->deny.count, 0);
            assert_int_equal(both[j]->max_clients_per_address, 0);
            assert_int_equal(both[j]->max_connects_per_second, 0);
        }
        assert_int_equal(config.limits.admission_timeout_ms, 60000);
        assert_int_equal(config.listeners[0].limits.admission_timeout_ms, 60000);
        config_free(&config);
    }
}

static void test_every_key_of_access_is_read(void **state)
{
    (void)state;
    struct config config = read_text("{\"access\":{\"allow\":[\"10.0.0.0/8\",\"::1\"],\"deny\":[\"10.1.0.0/16\"],"
                                     "\"max_clients_per_address\":3,\"max_connects_per_second\":4,"
                                     "\"admission_timeout_ms\":5}}");
    assert_int_equal(config.access.allow.count, 2);
    assert_int_equal(config.access.deny.count, 1);
    assert_true(admits(&config.access, "10.2.0.1:1"));
    assert_true(admits(&config.access, "[::1]:1"));
    assert_false(admits(&config.access, "10.1.0.1:1"));
    assert_false(admits(&config.access, "[::2]:1"));
    assert_int_equal(config.access.max_clients_per_address, 3);
    assert_int_equal(config.access.max_connects_per_second, 4);
    assert_int_equal(config.limits.admission_timeout_ms, 5);
    config_free(&config);
}

/* Wherever a listener stands in the file, its access begins as that of the whole file. Its own keys change only
 * themselves. */
static void test_a_listener_begins_from_the_access_of_the_file(void **state)
{
    (void)state;
    struct config config = read_text("{\"listeners\":["
                                     "{\"address\":\"1.2.3.4:1\"},"
                                     "{\"address\":\"1.2.3.4:2\",\"access\":{\"allow\":[\"192.0.2.1\"]}},"
                                     "{\"address\":\"1.2.3.4:3\",\"access\":{\"deny\":[]}},"
                                     "{\"access\":{\"max_connects_per_second\":40,\"admission_timeout_ms\":0,"
                                     "\"max_clients_per_address\":0},\"address\":\"1.2.3.4:4\"}],"
                                     "\"access\":{\"allow\":[\"10.0.0.0/8\",\"11.0.0.0/8\"],\"deny\":[\"10.1.0.0/16\"],"
                                     "\"max_clients_per_address\":3,\"admission_timeout_ms\":5}}");
    const struct config_listener *at = config.listeners;
    assert_memory_equal(&at[0].access, &config.access, offsetof(struct access, door)); /* a door is a listener's own */
    assert_int_equal(at[0].limits.admission_timeout_ms, 5);
    assert_int_equal(at[1].access.allow.count, 1);
    assert_true(admits(&at[1].access, "192.0.2.1:1"));
    assert_false(admits(&at[1].access, "10.2.0.1:1"));
    assert_int_equal(at[1].access.deny.count, 1);
    assert_int_equal(at[1].access.max_clients_per_address, 3);
    assert_true(admits(&at[2].access, "10.1.0.1:1"));
    assert_false(admits(&at[2].access, "12.1.0.1:1"));
    assert_int_equal(at[3].access.max_connects_per_second, 40);
    assert_int_equal(at[3].access.max_clients_per_address, 0);
    assert_int_equal(at[3].limits.admission_timeout_ms, 0);
    assert_int_equal(at[3].access.allow.count, 2);
    assert_true(admits(&config.access, "11.2.0.1:1"));
    config_free(&config);
}

static void test_numbers_of_access_have_their_range(void **state)
{
    (void)state;
    struct config config = read_text("{\"access\":{\"max_clients_per_address\":1000000,"
                                     "\"max_connects_per_second\":1000000,\"admission_timeout_ms\":3600000}}");
    assert_int_equal(config.access.max_connects_per_second, BUCKET_RATE_MAX);
    assert_int_equal(config.access.max_clients_per_address, 1000000);
    assert_int_equal(config.limits.admission_timeout_ms, 3600000);
    config_free(&config);
    static const struct bad bad[] = {
        { "{\"access\":{\"max_clients_per_address\":^1000001}}",
          "access.max_clients_per_address: 1000001 is out of range: 0 to 1000000" },
        { "{\"access\":{\"max_connects_per_second\":^-1}}",
          "access.max_connects_per_second: -1 is out of range: 0 to 1000000" },
        { "{\"access\":{\"admission_timeout_ms\":^3600001}}",
          "access.admission_timeout_ms: 3600001 is out of range: 0 to 3600000" },
        { "{\"access\":{\"admission_timeout_ms\":^\"1s\"}}",
          "access.admission_timeout_ms: expected an integer, found a string" },
    };
    ASSERT_ERRORS(bad);
}

static void test_an_error_in_access_shows_its_place(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"access\":^[]}", "access: expected an object, found an array" },
        { "{\"access\":{\"alow\":^[]}}", "access.alow: unknown key; did you mean allow?" },
        { "{\"access\":{\"allow\":^\"10.0.0.0/8\"}}", "access.allow: expected an array, found a string" },
        { "{\"access\":{\"allow\":^{}}}", "access.allow: expected an array, found an object" },
        { "{\"access\":{\"allow\":^[]}}",
          "access.allow: nobody could connect: name networks, or all of them: \"0.0.0.0/0\", \"::/0\"" },
        { "{\"access\":{\"allow\":[\"10.0.0.0/8\",\n ^10]}}", "access.allow[1]: expected a string, found an integer" },
        { "{\"access\":{\"deny\":[\"::1\", \"::2\", ^\"localhost\"]}}",
          "access.deny[2]: \"localhost\": not an IPv4 address" },
        { "{\"access\":{\"deny\":[^\"10.0.0.1/8\"]}}",
          "access.deny[0]: \"10.0.0.1/8\": the address has bits after the prefix: write the first address of the "
          "network, or a longer prefix" },
        { "{\"listeners\":[{\"address\":\"1.2.3.4:5\"},\n"
          "{\"address\":\"1.2.3.4:6\",\"access\":{\"allow\":[\"::/0\",^\"::/129\"]}}]}",
          "listeners[1].access.allow[1]: \"::/129\": the prefix of an IPv6 network is at most 128" },
        { "{\"listeners\":[{\"access\":{\"tls\":^true}}]}", "listeners[0].access.tls: unknown key" },
    };
    ASSERT_ERRORS(bad);
}

/* The text of a file that denies count networks. mark stands before the list: "^" for the place of its error, or "". */
static const char *denying(unsigned count, const char *mark)
{
    static char text[8192];
    size_t n = (size_t)snprintf(text, sizeof(text), "{\"access\":{\"deny\":%s[", mark);
    for (unsigned i = 0; i < count; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s\"10.%u.%u.0/24\"", i > 0 ? "," : "", i / 256, i % 256);
    snprintf(text + n, sizeof(text) - n, "]}}");
    return text;
}

static void test_a_list_has_at_most_256_networks(void **state)
{
    (void)state;
    struct config config = read_text(denying(256, ""));
    assert_int_equal(config.access.deny.count, 256);
    assert_false(admits(&config.access, "10.0.255.1:1"));
    assert_true(admits(&config.access, "10.1.0.1:1"));
    config_free(&config);
    const struct bad bad[] = { { denying(257, "^"), "access.deny: a list has at most 256 networks" } };
    ASSERT_ERRORS(bad);
}

/* ---- Unix sockets -------------------------------------------------------------------------------------------------- */

static void test_by_default_a_socket_is_open_to_its_group(void **state)
{
    (void)state;
    static const char *const texts[] = { "{}", "{\"kamailio_access\":{},\"control_access\":{}}" };
    for (size_t i = 0; i < 2; i++) {
        struct config config = read_text(texts[i]);
        const struct door_access *both[] = { &config.kamailio_access, &config.control_access };
        for (size_t j = 0; j < 2; j++) {
            assert_int_equal(both[j]->mode, 0660);
            assert_int_equal(both[j]->group, DOOR_OWN_GROUP);
            assert_false(both[j]->restricted);
            assert_true(door_admits(both[j], 12345));
        }
        config_free(&config);
    }
}

static void test_each_socket_has_its_own_access(void **state)
{
    (void)state;
    struct config config =
        read_text("{\"kamailio_access\":{\"mode\":\"0600\",\"group\":\"root\",\"users\":[\"root\",7]},"
                  "\"control_access\":{\"mode\":\"666\",\"group\":4294967294,\"users\":[]}}");
    assert_int_equal(config.kamailio_access.mode, 0600);
    assert_int_equal(config.kamailio_access.group, 0);
    assert_int_equal(config.kamailio_access.user_count, 2);
    assert_true(door_admits(&config.kamailio_access, 7));
    assert_false(door_admits(&config.kamailio_access, 8));
    assert_int_equal(config.control_access.mode, 0666);
    assert_int_equal(config.control_access.group, 4294967294U);
    assert_false(door_admits(&config.control_access, 7));
    config_free(&config);
}

static void test_a_listener_s_unix_socket_has_its_own_access(void **state)
{
    (void)state;
    struct config config = read_text("{\"listeners\":[{\"address\":\"unix:/tmp/a\"},"
                                     "{\"address\":\"unix:/tmp/b\",\"mode\":\"0600\",\"group\":7,\"users\":[8,9]}],"
                                     "\"access\":{\"allow\":[\"10.0.0.0/8\"],\"max_clients_per_address\":3}}");
    const struct config_listener *at = config.listeners;
    assert_int_equal(at[0].access.door.mode, 0660);
    assert_int_equal(at[0].access.door.group, DOOR_OWN_GROUP);
    assert_true(door_admits(&at[0].access.door, 8));
    assert_int_equal(at[1].access.door.mode, 0600);
    assert_int_equal(at[1].access.door.group, 7);
    assert_true(door_admits(&at[1].access.door, 8) && door_admits(&at[1].access.door, 9));
    assert_false(door_admits(&at[1].access.door, 10));
    assert_int_equal(at[1].access.max_clients_per_address, 3);
    config_free(&config);
}

static void test_root_and_evapid_s_own_user_are_always_admitted(void **state)
{
    (void)state;
    static const struct door_access nobody = { .restricted = true };
    assert_true(door_admits(&nobody, 0));
    assert_true(door_admits(&nobody, geteuid()));
    assert_false(door_admits(&nobody, geteuid() + 1));
    assert_false(door_admits(&nobody, (uid_t)-1));
}

static void test_modes_are_octal_digits_in_a_string(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        mode_t mode;
    } good[] = { { "0000", 0 }, { "000", 0 }, { "0777", 0777 }, { "777", 0777 }, { "0640", 0640 } };
    static const char *const bad[] = { "\"\"",     "\"66\"",  "\"1660\"", "\"0888\"", "\"00660\"", "\"-660\"",
                                       "\"0x66\"", "\"rw-\"", "\" 660\"", "660",      "null",      "[]" };
    char text[256];
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        snprintf(text, sizeof(text), "{\"control_access\":{\"mode\":\"%s\"}}", good[i].text);
        struct config config = read_text(text);
        assert_int_equal(config.control_access.mode, good[i].mode);
        config_free(&config);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        snprintf(text, sizeof(text), "{\"control_access\":{\"mode\":^%s}}", bad[i]);
        const struct bad error = { text,
                                   "control_access.mode: expected octal digits in a string, \"0000\" to \"0777\"" };
        assert_errors(&error, 1);
    }
}

static void test_an_error_in_a_socket_s_access_shows_its_place(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        { "{\"kamailio_access\":^\"0660\"}", "kamailio_access: expected an object, found a string" },
        { "{\"kamailio_access\":{\"owner\":^1}}", "kamailio_access.owner: unknown key" },
        { "{\"control_access\":{\"group\":^\"no such group\"}}",
          "control_access.group: there is no group \"no such group\"" },
        { "{\"control_access\":{\"group\":^\"0\"}}", "control_access.group: there is no group \"0\"" },
        { "{\"control_access\":{\"group\":^[]}}",
          "control_access.group: expected the name or the number of a group, found an array" },
        { "{\"control_access\":{\"group\":^-1}}", "control_access.group: -1 is out of range: 0 to 4294967294" },
        { "{\"control_access\":{\"group\":^4294967295}}",
          "control_access.group: 4294967295 is out of range: 0 to 4294967294" },
        { "{\"kamailio_access\":{\"users\":^\"root\"}}", "kamailio_access.users: expected an array, found a string" },
        { "{\"kamailio_access\":{\"users\":[\"root\",\n  ^\"no such user\"]}}",
          "kamailio_access.users[1]: there is no user \"no such user\"" },
        { "{\"kamailio_access\":{\"users\":[0,1,^null]}}",
          "kamailio_access.users[2]: expected the name or the number of a user, found null" },
        { "{\"kamailio_access\":{\"users\":[^4294967295]}}",
          "kamailio_access.users[0]: 4294967295 is out of range: 0 to 4294967294" },
    };
    ASSERT_ERRORS(bad);
}

/* The text of a file with a list of count users. mark stands before the list: "^" for the place of its error, or "". */
static const char *with_users(unsigned count, const char *mark)
{
    static char text[1024];
    size_t n = (size_t)snprintf(text, sizeof(text), "{\"control_access\":{\"users\":%s[", mark);
    for (unsigned i = 0; i < count; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%u", i > 0 ? "," : "", i);
    snprintf(text + n, sizeof(text) - n, "]}}");
    return text;
}

static void test_a_list_has_at_most_64_users(void **state)
{
    (void)state;
    struct config config = read_text(with_users(64, ""));
    assert_int_equal(config.control_access.user_count, 64);
    assert_true(door_admits(&config.control_access, 63));
    config_free(&config);
    const struct bad bad[] = { { with_users(65, "^"), "control_access.users: a list has at most 64 users" } };
    ASSERT_ERRORS(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_default_every_client_may_connect_and_has_a_minute),
        cmocka_unit_test(test_every_key_of_access_is_read),
        cmocka_unit_test(test_a_listener_begins_from_the_access_of_the_file),
        cmocka_unit_test(test_numbers_of_access_have_their_range),
        cmocka_unit_test(test_an_error_in_access_shows_its_place),
        cmocka_unit_test(test_a_list_has_at_most_256_networks),
        cmocka_unit_test(test_by_default_a_socket_is_open_to_its_group),
        cmocka_unit_test(test_each_socket_has_its_own_access),
        cmocka_unit_test(test_a_listener_s_unix_socket_has_its_own_access),
        cmocka_unit_test(test_root_and_evapid_s_own_user_are_always_admitted),
        cmocka_unit_test(test_modes_are_octal_digits_in_a_string),
        cmocka_unit_test(test_an_error_in_a_socket_s_access_shows_its_place),
        cmocka_unit_test(test_a_list_has_at_most_64_users),
    };
    return cmocka_run_group_tests_name("config, access", tests, enter_directory, remove_directory);
}
