/* The status, when memory runs out while it is put together: all of it, or none. */
#include "bus_rig.h"

#include <jansson.h>

#include "status.h"

static long
    left; /* of jansson's calls, the one behind so many gets no memory; negative: it has been, or there is none */

static void *some_memory(size_t size)
{
    return left-- == 0 ? NULL : malloc(size);
}

static struct kamailio kamailio; /* nobody has ever attached */
static struct listeners listeners;
static struct door door;

static void test_a_status_is_whole_or_there_is_none(void **state)
{
    (void)state;
    static const struct door_access access = { .mode = 0660, .group = DOOR_OWN_GROUP };
    static const struct access everybody;
    const struct status_subject subject = {
        .bus = bus, .kamailio = &kamailio, .listeners = &listeners, .control = &door
    };
    const struct sockaddr_storage address = { .ss_family = AF_INET };
    struct peer a = open_pair();
    struct peer b = open_pair();
    kamailio.door.access = door.access = &access;
    give_tag(&a, "blue");
    give_tag(&b, "\xff not UTF-8");
    struct listener *one = listener_add(&listeners, &address, &netstring_limits, &everybody, 10, LISTENER_CONFIG);
    struct listener *other = listener_add(&listeners, &address, &raw_limits, &everybody, 20, LISTENER_MODULE);
    assert_true(one != NULL && other != NULL);
    left = -1;
    json_set_alloc_funcs(some_memory, free);
    json_t *whole = status_describe(&subject);
    assert_int_equal(json_array_size(json_object_get(whole, "clients")), 2);
    assert_int_equal(json_array_size(json_object_get(whole, "listeners")), 2);
    long calls = 0;
    for (bool failed = true; failed; calls++) {
        left = calls;
        json_t *status = status_describe(&subject);
        failed = left < 0;
        left = -1;
        if (status != NULL && !json_equal(status, whole))
            fail_msg("without memory for call %ld the status is not whole", calls);
        json_decref(status);
    }
    assert_true(calls > 100);
    json_decref(whole);
    json_set_alloc_funcs(malloc, free);
    free(one);
    free(other);
    hang_up(&a);
    hang_up(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_a_status_is_whole_or_there_is_none),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
