/* The status while memory runs out: all of it, or none. */
#include "bus/bus_rig.h"

#include <jansson.h>

#include "views/report_rig.h"
#include "views/status.h"

static long left; /* how many of jansson's allocations succeed before one fails; negative: all that follow succeed */

static void *some_memory(size_t size)
{
    return left-- == 0 ? NULL : malloc(size);
}

static struct kamailio kamailio; /* nobody has ever attached */
static struct listeners listeners;
static struct door door;

static struct status_subject subject = { .kamailio = &kamailio, .listeners = &listeners, .control = &door };

/* ---- what may be asked for ---------------------------------------------------------------------------------------- */

static json_t *whole_status(void)
{
    unsigned slices = 0;
    return read_report(report_status(&subject), &slices);
}

static json_t *chosen_clients(void)
{
    const struct selection all = { .order = ORDER_TAG, .limit = SIZE_MAX };
    unsigned slices = 0;
    return read_report(report_clients(&all, bus), &slices);
}

static json_t *tags(void)
{
    unsigned slices = 0;
    return read_report(report_tags(bus, SIZE_MAX), &slices);
}

static json_t *since(void)
{
    const struct stats stats = { .since_ms = 1, .totals = bus->totals, .events = bus->events };
    return describe_since(&stats);
}

static void assert_whole_or_none(json_t *(*describe)(void), long least)
{
    left = -1;
    json_t *whole = describe();
    assert_non_null(whole);
    long calls = 0;
    for (bool failed = true; failed; calls++) {
        left = calls;
        json_t *part = describe();
        failed = left < 0;
        left = -1;
        if (part != NULL && !json_equal(part, whole))
            fail_msg("without memory for call %ld it is not whole", calls);
        json_decref(part);
    }
    assert_true(calls > least);
    json_decref(whole);
}

static void test_a_status_is_whole_or_there_is_none(void **state)
{
    (void)state;
    static const struct door_access access = { .mode = 0660, .group = DOOR_OWN_GROUP };
    static const struct access everybody;
    const struct sockaddr_storage address = { .ss_family = AF_INET };
    struct peer a = open_pair();
    struct peer b = open_pair();
    kamailio.door.access = door.access = &access;
    subject.bus = bus;
    give_tag(&a, "blue");
    give_tag(&b, "\xff not UTF-8");
    struct listener *one = listener_add(&listeners, &address, &netstring_limits, &everybody, 10, LISTENER_CONFIG);
    struct listener *other = listener_add(&listeners, &address, &raw_limits, &everybody, 20, LISTENER_MODULE);
    assert_true(one != NULL && other != NULL);
    json_set_alloc_funcs(some_memory, free);
    left = -1;
    json_t *status = whole_status();
    assert_int_equal(json_array_size(json_object_get(status, "clients")), 2);
    assert_int_equal(json_array_size(json_object_get(status, "listeners")), 2);
    json_decref(status);
    assert_whole_or_none(whole_status, 100);
    assert_whole_or_none(chosen_clients, 50);
    assert_whole_or_none(tags, 10);
    assert_whole_or_none(since, 30);
    json_set_alloc_funcs(malloc, free);
    memory_limit(0);
    assert_null(tags());
    assert_null(chosen_clients());
    memory_limit(-1);
    free(one);
    free(other);
    hang_up(&a);
    hang_up(&b);
}

/* Each client appears once, in its place, except one that has gone since the report was begun. */
static void test_a_report_leaves_out_who_goes_while_it_is_written(void **state)
{
    (void)state;
    enum { PEERS = 40, LEAVES = 17 };
    static struct peer peers[PEERS];
    const struct selection all = { .limit = SIZE_MAX };
    unsigned slices = 0;
    for (int i = 0; i < PEERS; i++)
        peers[i] = open_pair();
    struct report *report = report_clients(&all, bus);
    assert_non_null(report);
    client_drop(roster_find(bus, LEAVES + 1), DROP_CLOSED);
    assert_null(roster_find(bus, LEAVES + 1));
    json_t *whole = read_report(report, &slices);
    const json_t *clients = json_object_get(whole, "clients");
    assert_int_equal(json_array_size(clients), PEERS - 1);
    assert_int_equal(json_integer_value(json_object_get(whole, "matching")), PEERS);
    for (size_t i = 0; i < PEERS - 1; i++)
        assert_int_equal(json_integer_value(json_object_get(json_array_get(clients, i), "index")),
                         i < LEAVES ? i + 1 : i + 2);
    json_decref(whole);
    for (int i = 0; i < PEERS; i++)
        hang_up(&peers[i]);
}

/* Thousands of listeners have tens of thousands of keys: more than fit into a turn. */
static void test_what_is_configured_is_shown_in_slices_also_when_it_changes_meanwhile(void **state)
{
    (void)state;
    struct config config = { .file = "e.json", .listener_count = 2000 };
    unsigned slices = 0;
    json_t *whole = read_report(report_config(&config), &slices);
    const size_t rows = json_array_size(json_object_get(whole, "config"));
    assert_in_range(rows, 20000, 100000);
    assert_int_equal(json_integer_value(json_object_get(whole, "total")), rows);
    assert_string_equal(json_string_value(json_object_get(whole, "file")), "e.json");
    assert_in_range(slices, 2, rows);
    json_decref(whole);
    struct report *report = report_config(&config);
    config.listener_count = 1;
    whole = read_report(report, &slices);
    assert_in_range(json_array_size(json_object_get(whole, "config")), 20, 100);
    json_decref(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_a_status_is_whole_or_there_is_none),
        WITH_BUS(test_a_report_leaves_out_who_goes_while_it_is_written),
        cmocka_unit_test(test_what_is_configured_is_shown_in_slices_also_when_it_changes_meanwhile),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
