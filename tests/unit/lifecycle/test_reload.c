/* A reload in an evapid with only listeners and doors: what it does within one turn of the loop, and that it changes
 * nothing if memory runs out at any point. tests/system/operations/test_reload.py tests it with clients and Kamailio. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/watch.h"
#include "lifecycle/reload.h"
#include "lifecycle/start.h"
#include "memory.h"
#include "views/report_rig.h"

#define PORTS 3

static char directory[] = "/tmp/evapid-reload-XXXXXX";
static struct evapid evapid;
static int holders[PORTS]; /* sockets that reserve a port for us, and accept nothing */
static uint16_t ports[PORTS];

/* ---- the rig ------------------------------------------------------------------------------------------------------ */

static void *some_memory(size_t size)
{
    return malloc(size); /* the limit also affects jansson */
}

static void hold_port(int i)
{
    const int on = 1;
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(any);
    holders[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(holders[i], SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    assert_int_equal(bind(holders[i], (struct sockaddr *)&any, sizeof(any)), 0);
    assert_int_equal(getsockname(holders[i], (struct sockaddr *)&any, &size), 0);
    ports[i] = ntohs(any.sin_port);
}

/* A file with a listener at each port that `at` has a digit for; rest follows the list. */
static void write_config(const char *at, const char *sockets, const char *rest)
{
    FILE *file = fopen("evapid.json", "w");
    assert_non_null(file);
    fprintf(file, "{ \"kamailio_socket\": \"k%s\", \"control_socket\": \"c%s\", \"listeners\": [", sockets, sockets);
    for (const char *digit = at; *digit != '\0'; digit++)
        fprintf(file, "%s{ \"address\": \"127.0.0.1:%u\" }", digit > at ? "," : "", ports[*digit - '0']);
    fprintf(file, "] %s }", rest);
    assert_int_equal(fclose(file), 0);
}

static int set_up(void **state)
{
    struct descriptors descriptors = { 0 };
    char error[CONFIG_ERROR] = "";
    const char *subject = NULL;
    (void)state;
    log_open(LEVEL_ERROR);
    memcpy(directory + sizeof(directory) - 7, "XXXXXX", 7);
    if (mkdtemp(directory) == NULL || chdir(directory) != 0)
        return -1;
    for (int i = 0; i < PORTS; i++)
        hold_port(i);
    write_config("01", "1", "");
    memset(&evapid, 0, sizeof(evapid));
    evapid.control.door.fd = evapid.kamailio.door.fd = -1;
    assert_true(config_read(&evapid.config, "evapid.json", error));
    assert_int_equal(uv_loop_init(&evapid.loop), 0);
    assert_null(evapid_start(&evapid, &descriptors, false, &subject));
    json_set_alloc_funcs(some_memory, free);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    memory_limit(-1);
    json_set_alloc_funcs(malloc, free);
    listeners_stop(&evapid.listeners);
    listeners_tick(&evapid.listeners);
    bus_close(&evapid.bus);
    door_close(&evapid.kamailio.door);
    kamailio_close(&evapid.kamailio);
    control_close(&evapid.control);
    uv_run(&evapid.loop, UV_RUN_DEFAULT);
    const int loop_is_left = uv_loop_close(&evapid.loop);
    ledger_close(&evapid.ledger);
    config_free(&evapid.config);
    for (int i = 0; i < PORTS; i++)
        close(holders[i]);
    unlink("evapid.json");
    return loop_is_left != 0 || evapid.listeners.first != NULL || chdir("/") != 0 || rmdir(directory) != 0;
}

/* ---- what there is ------------------------------------------------------------------------------------------------- */

static unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *all = opendir("/proc/self/fd");
    assert_non_null(all);
    while (readdir(all) != NULL)
        count++;
    closedir(all);
    return count;
}

/* Without a connection, because that would make a client. */
static bool is_listened_on(uint16_t port)
{
    char line[256];
    char wanted[64];
    bool found = false;
    FILE *table = fopen("/proc/net/tcp", "re");
    assert_non_null(table);
    snprintf(wanted, sizeof(wanted), ": 0100007F:%04X 00000000:0000 0A ", port);
    while (!found && fgets(line, sizeof(line), table) != NULL)
        found = strstr(line, wanted) != NULL;
    fclose(table);
    return found;
}

static mode_t mode_of(const char *path)
{
    struct stat file;
    return lstat(path, &file) == 0 ? file.st_mode & 07777 : 0;
}

/* Everything that a reload could change. */
static json_t *snapshot(void)
{
    unsigned slices = 0;
    json_t *status = read_report(report_status(&evapid.subject), &slices);
    assert_non_null(status);
    json_object_del(status, "uptime_s");
    json_object_set_new(status, "descriptors", json_integer(count_descriptors()));
    json_object_set_new(status, "k1", json_integer(mode_of("k1")));
    json_object_set_new(status, "c1", json_integer(mode_of("c1")));
    json_object_set_new(status, "k2", json_integer(mode_of("k2")));
    json_object_set_new(status, "c2", json_integer(mode_of("c2")));
    json_object_set_new(status, "limit", json_integer((json_int_t)evapid.config.limits.max_queued_bytes));
    json_object_set_new(status, "total", json_integer((json_int_t)evapid.bus.max_total_queued_bytes));
    return status;
}

static void assert_reloaded(unsigned added, unsigned removed)
{
    struct reload_outcome outcome;
    const char *why = reload_config(&evapid, "evapid.json", &outcome);
    if (why != NULL)
        fail_msg("%s", why);
    assert_int_equal(outcome.added, added);
    assert_int_equal(outcome.removed, removed);
    assert_int_equal(outcome.revoked, 0);
    assert_non_null(outcome.changed);
    json_decref(outcome.changed);
}

/* ---- tests -------------------------------------------------------------------------------------------------------- */

static void test_without_memory_at_any_point_nothing_changes(void **state)
{
    (void)state;
    static const char *const sockets[] = { "1", "2" }; /* they stay, with another mode; they move */
    for (int i = 0; i < 2; i++) {
        struct reload_outcome outcome;
        const char *why = "";
        long calls = 0;
        write_config("12", sockets[i],
                     ", \"limits\": { \"max_queued_bytes\": 5000, \"max_total_queued_bytes\": 2000000 }, "
                     "\"access\": { \"deny\": [\"192.0.2.0/24\"] }, \"control_access\": { \"mode\": \"0600\" }, "
                     "\"kamailio_access\": { \"mode\": \"0666\", \"users\": [\"root\"] }");
        json_t *before = snapshot();
        for (; why != NULL; calls++) {
            memory_limit(calls);
            why = reload_config(&evapid, "evapid.json", &outcome);
            const size_t refused = memory_refused();
            memory_limit(-1);
            if ((why != NULL) != (refused > 0))
                fail_msg("call %ld, of which %zu got no memory: %s", calls, refused, why != NULL ? why : "reloaded");
            json_decref(outcome.changed);
            if (why == NULL)
                break;
            uv_run(&evapid.loop, UV_RUN_NOWAIT);
            json_t *now = snapshot();
            if (!json_equal(before, now))
                fail_msg("without memory for call %ld (%s): %s instead of %s", calls, why, json_dumps(now, 0),
                         json_dumps(before, 0));
            json_decref(now);
        }
        assert_true(calls > 50);
        json_decref(before);
        assert_false(is_listened_on(ports[0]));
        assert_true(is_listened_on(ports[1]) && is_listened_on(ports[2]));
        assert_int_equal(evapid.config.limits.max_queued_bytes, 5000);
        assert_int_equal(evapid.bus.max_total_queued_bytes, 2000000);
        assert_int_equal(mode_of(i == 0 ? "k1" : "k2"), 0666);
        assert_int_equal(mode_of(i == 0 ? "c1" : "c2"), 0600);
        write_config("01", "1", "");
        assert_reloaded(1, 1);
        assert_int_equal(mode_of("k1"), 0660);
        uv_run(&evapid.loop, UV_RUN_NOWAIT);
    }
}

static void test_listeners_go_and_come_back_within_one_turn_of_the_loop(void **state)
{
    (void)state;
    const unsigned descriptors = count_descriptors();
    for (int i = 0; i < 20; i++) {
        write_config("", i % 2 == 0 ? "2" : "1", "");
        assert_reloaded(0, 2);
        assert_false(is_listened_on(ports[0]) || is_listened_on(ports[1]));
        write_config("10", "1", "");
        assert_reloaded(2, 0);
        assert_true(is_listened_on(ports[0]) && is_listened_on(ports[1]));
    }
    assert_int_equal(count_descriptors(), descriptors);
    uv_run(&evapid.loop, UV_RUN_NOWAIT);
    assert_true(mode_of("k1") == 0660 && mode_of("c1") == 0660 && mode_of("k2") == 0 && mode_of("c2") == 0);
}

static void test_an_address_in_use_leaves_all_as_it_was(void **state)
{
    (void)state;
    struct reload_outcome outcome;
    char expected[64];
    json_t *before = snapshot();
    assert_int_equal(listen(holders[2], 1), 0);
    write_config("02", "2", ", \"control_access\": { \"mode\": \"0600\" }");
    snprintf(expected, sizeof(expected), "listener 127.0.0.1:%u: address in use", ports[2]);
    assert_string_equal(reload_config(&evapid, "evapid.json", &outcome), expected);
    json_t *now = snapshot();
    assert_true(json_equal(before, now));
    assert_true(is_listened_on(ports[0]) && is_listened_on(ports[1]));
    json_decref(before);
    json_decref(now);
}

static void test_the_second_socket_that_can_not_be_moved_leaves_the_first_as_it_was(void **state)
{
    (void)state;
    struct reload_outcome outcome;
    json_t *before = snapshot();
    assert_int_equal(mkdir("k2", 0700), 0);
    write_config("01", "2", "");
    assert_string_equal(reload_config(&evapid, "evapid.json", &outcome),
                        "k2: a file of that name exists and is not a socket");
    assert_int_equal(rmdir("k2"), 0);
    json_t *now = snapshot();
    assert_true(json_equal(before, now));
    json_decref(before);
    json_decref(now);
}

#define IN_HOME(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_HOME(test_without_memory_at_any_point_nothing_changes),
        IN_HOME(test_listeners_go_and_come_back_within_one_turn_of_the_loop),
        IN_HOME(test_an_address_in_use_leaves_all_as_it_was),
        IN_HOME(test_the_second_socket_that_can_not_be_moved_leaves_the_first_as_it_was),
    };
    watch_prepare();
    return cmocka_run_group_tests_name("reload", tests, NULL, NULL);
}
