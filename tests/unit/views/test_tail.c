/* Tails: what is shown, that it is bounded, and that everything not shown is counted. */
#include "bus/bus_rig.h"

#include <jansson.h>

#include "views/tail.h"

static struct tails tails;

static struct tail *begin(bool out, bool in, const char *tag)
{
    struct tail_filter filter = { .out = out, .in = in, .by_tag = tag != NULL };
    if (tag != NULL) {
        filter.tag_length = strlen(tag);
        memcpy(filter.tag, tag, filter.tag_length);
    }
    struct tail *tail = tail_open(&tails, bus, &filter);
    assert_non_null(tail);
    return tail;
}

/* Take what waits: the payloads separated by bars, and the number of those not shown as [N]. */
static void assert_shown(struct tail *tail, const char *expected)
{
    char shown[1024] = "";
    size_t length = 0;
    char *lines = tail_collect(tail, &length);
    const char *end = lines != NULL ? lines + length : NULL;
    for (const char *at = lines; at != NULL && at < end;) {
        const char *over = memchr(at, '\n', (size_t)(end - at));
        assert_non_null(over);
        json_t *line = json_loadb(at, (size_t)(over - at), JSON_ALLOW_NUL, NULL);
        const json_t *dropped = json_object_get(line, "dropped");
        const char *text = json_string_value(json_object_get(line, "payload"));
        const size_t used = strlen(shown);
        if (dropped != NULL)
            snprintf(shown + used, sizeof(shown) - used, "[%lld]", (long long)json_integer_value(dropped));
        else
            snprintf(shown + used, sizeof(shown) - used, "%.20s|",
                     text != NULL ? text : json_string_value(json_object_get(line, "base64")));
        json_decref(line);
        at = over + 1;
    }
    free(lines);
    assert_string_equal(shown, expected);
}

static void test_nobody_looks_on_until_somebody_does(void **state)
{
    (void)state;
    assert_null(bus->observers);
    struct tail *one = begin(true, true, NULL);
    struct tail *other = begin(true, true, NULL);
    assert_non_null(bus->observers);
    tail_close(&tails, one);
    assert_non_null(bus->observers);
    tail_close(&tails, other);
    assert_null(bus->observers);
    relay("unseen");
}

static void test_what_passes_is_shown_to_those_who_want_it(void **state)
{
    (void)state;
    struct peer blue = open_pair();
    struct peer bare = open_pair();
    give_tag(&blue, "blue");
    struct tail *all = begin(true, true, NULL);
    struct tail *out = begin(true, false, NULL);
    struct tail *in_blue = begin(false, true, "blue");
    struct tail *untagged = begin(true, true, "");
    relay("a");
    multicast("b", "blue");
    unicast("c", "green");
    send_to("s", blue.client->index, NULL);
    send_text(&blue, "1:d,");
    send_text(&bare, "1:e,");
    TURN_UNTIL(up.of[1].messages == 1 && up.of[2].messages == 1);
    assert_shown(all, "a|b|c|s|d|e|");
    assert_shown(out, "a|b|c|s|");
    assert_shown(in_blue, "d|");
    assert_shown(untagged, "a|s|e|");
    assert_shown(all, "");
    struct tail *const each[] = { all, out, in_blue, untagged };
    for (size_t i = 0; i < 4; i++)
        tail_close(&tails, each[i]);
    hang_up(&blue);
    hang_up(&bare);
}

static void test_a_message_that_is_not_taken_is_shown_when_it_is(void **state)
{
    (void)state;
    struct peer peer = open_pair();
    struct tail *tail = begin(true, true, NULL);
    up.take = 0;
    send_text(&peer, "1:a,");
    TURN_UNTIL(up.of[1].refused > 0);
    assert_shown(tail, "");
    up.take = -1;
    client_resume(peer.client);
    assert_shown(tail, "a|");
    tail_close(&tails, tail);
    hang_up(&peer);
}

static void test_what_does_not_fit_is_counted_and_told_in_its_place(void **state)
{
    (void)state;
    struct tail *tail = begin(true, false, NULL);
    const struct payload large = big_event(TAIL_PAYLOAD_MAX, 'x');
    unsigned fit = 0;
    while (tail->dropped == 0) {
        give_relay(bus, &large, NULL);
        fit++;
    }
    fit--;
    assert_in_range(fit, TAIL_ROOM / (TAIL_PAYLOAD_MAX + 200) - 1, TAIL_ROOM / TAIL_PAYLOAD_MAX);
    relay("small enough, but behind a gap");
    assert_int_equal(tail->dropped, 2);
    assert_true(tail->length <= TAIL_ROOM);
    char expected[512] = "";
    for (unsigned i = 0; i < fit; i++)
        snprintf(expected + strlen(expected), sizeof(expected) - strlen(expected), "xxxxxxxxxxxxxxxxxxxx|");
    snprintf(expected + strlen(expected), sizeof(expected) - strlen(expected), "[2]");
    assert_shown(tail, expected);
    relay("again");
    assert_shown(tail, "again|");
    tail_close(&tails, tail);
}

/* As JSON some payloads are much longer than before. The worst ones fit into an empty queue, and no length exceeds its
 * end. */
static void test_no_payload_goes_over_the_end_of_the_queue(void **state)
{
    (void)state;
    struct tail *tail = begin(true, false, NULL);
    static const char kinds[] = { '\1', '\xff', '"', 'x' };
    for (size_t kind = 0; kind < sizeof(kinds); kind++) {
        const struct payload large = big_event(TAIL_PAYLOAD_MAX + 1, kinds[kind]);
        give_relay(bus, &large, NULL);
        assert_int_equal(tail->dropped, 0);
        assert_true(tail->length > TAIL_PAYLOAD_MAX && tail->length <= TAIL_ROOM);
        for (size_t length = 1; tail->dropped == 0; length += 997) {
            const struct payload more = big_event(length, kinds[kind]);
            give_relay(bus, &more, NULL);
            assert_true(tail->length <= TAIL_ROOM);
        }
        size_t length = 0;
        char *lines = tail_collect(tail, &length);
        assert_non_null(lines);
        assert_int_equal(lines[length - 1], '\n');
        free(lines);
    }
    tail_close(&tails, tail);
}

static void test_what_there_is_no_memory_for_is_counted(void **state)
{
    (void)state;
    size_t length = 0;
    struct tail *tail = begin(true, false, NULL);
    memory_limit(0);
    relay("a");
    assert_null(tail_collect(tail, &length));
    assert_null(tail_open(&tails, bus, &tail->filter));
    memory_limit(1);
    assert_null(tail_open(&tails, bus, &tail->filter));
    memory_limit(-1);
    assert_int_equal(tails.count, 1);
    assert_shown(tail, "[1]");
    relay("b");
    assert_shown(tail, "b|");
    tail_close(&tails, tail);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_nobody_looks_on_until_somebody_does),
        WITH_BUS(test_what_passes_is_shown_to_those_who_want_it),
        WITH_BUS(test_a_message_that_is_not_taken_is_shown_when_it_is),
        WITH_BUS(test_what_does_not_fit_is_counted_and_told_in_its_place),
        WITH_BUS(test_no_payload_goes_over_the_end_of_the_queue),
        WITH_BUS(test_what_there_is_no_memory_for_is_counted),
    };
    return cmocka_run_group_tests_name("tail", tests, NULL, NULL);
}
