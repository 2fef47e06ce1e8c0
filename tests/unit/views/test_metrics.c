/* The metrics: all of them, or none if memory runs out; and when clients could work with this evapid. */
#include "bus/bus_rig.h"

#include "views/metrics.h"

static struct kamailio kamailio; /* nobody has ever attached */
static struct listeners listeners;
static struct door door;
static struct turn turns;

static struct status_subject subject_of_bus(void)
{
    return (struct status_subject){
        .bus = bus, .kamailio = &kamailio, .listeners = &listeners, .control = &door, .turn = &turns
    };
}

static struct listener *add_listener(void)
{
    static const struct access everybody;
    const struct sockaddr_storage address = { .ss_family = AF_INET };
    struct listener *one = listener_add(&listeners, &address, &netstring_limits, &everybody, 10, LISTENER_CONFIG);
    assert_non_null(one);
    return one;
}

static void remove_listener(struct listener *one)
{
    listeners.first = NULL;
    free(one);
}

static void test_the_metrics_are_whole_or_there_are_none(void **state)
{
    (void)state;
    const struct status_subject subject = subject_of_bus();
    struct listener *one = add_listener();
    struct peer a = open_pair();
    size_t whole = 0;
    free(metrics_describe(&subject, &whole));
    assert_true(whole > 8000);
    long calls = 0;
    for (char *text = NULL; text == NULL; calls++) {
        size_t length = 0;
        memory_limit(calls);
        text = metrics_describe(&subject, &length);
        memory_limit(-1);
        if (text == NULL)
            continue;
        assert_true(length > whole - 100 && length < whole + 100); /* the numbers have different digits */
        assert_non_null(strstr(text, "\nprocess_max_fds "));
        free(text);
        break;
    }
    assert_true(calls >= 2);
    hang_up(&a);
    remove_listener(one);
}

static void assert_objection(const char *expected)
{
    const struct status_subject subject = subject_of_bus();
    const char *why = metrics_objection(&subject);
    if (expected == NULL)
        assert_null(why);
    else
        assert_true(why != NULL && strcmp(why, expected) == 0);
}

static void test_it_is_ready_when_kamailio_is_there_and_all_listeners_take_clients(void **state)
{
    (void)state;
    struct intake intake = { .state = INTAKE_HELD };
    assert_objection("no Kamailio is attached");
    kamailio.attachment.state = GATHERING;
    assert_objection("no Kamailio is attached");
    kamailio.attachment.state = ATTACHED;
    assert_objection("there is no listener");
    struct listener *one = add_listener();
    assert_objection("listener 0.0.0.0:0 takes no clients");
    one->state = LISTENER_PAUSED;
    assert_objection("listener 0.0.0.0:0 takes no clients");
    one->state = LISTENER_CLOSED;
    assert_objection("there is no listener");
    one->state = LISTENER_LISTENING;
    assert_objection(NULL);
    kamailio.attachment.intake = &intake;
    assert_objection("events are held until the clients are there");
    intake.state = INTAKE_RUNNING;
    assert_objection(NULL);
    kamailio.stopping = true;
    assert_objection("evapid is stopping");
    kamailio = (struct kamailio){ .stopping = false };
    remove_listener(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_the_metrics_are_whole_or_there_are_none),
        WITH_BUS(test_it_is_ready_when_kamailio_is_there_and_all_listeners_take_clients),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
