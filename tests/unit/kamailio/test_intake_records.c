/* The intake: a record's content reaches the host, at any place in the ring and however full that is. */
#include "kamailio/intake_rig.h"

/* ---- fields -------------------------------------------------------------------------------------------------------- */

static void test_every_field_of_a_record_is_handed_through(void **state)
{
    (void)state;
    char tag[EVAPID_TAG_MAX];
    for (size_t i = 0; i < sizeof(tag); i++)
        tag[i] = (char)(i * 5);
    intake_resume(t.intake);
    for (unsigned type = RING_RELAY; type < RING_TYPES; type++)
        for (size_t length = 0; length <= sizeof(tag); length++) {
            const struct ring_record record = { .type = (uint8_t)type,
                                                .worker = (uint16_t)(length * 1021),
                                                .session = 0xfffffff0U + (uint32_t)length,
                                                .target = 0x123456789abcdef0U + length };
            const bool control = ring_type_is_control((uint8_t)type);
            t.count = 0;
            assert_int_equal(push(record, tag, length, tag, control ? 0 : length), RING_PUSHED);
            settle();
            assert_int_equal(t.count, 1);
            const struct ring_record *got = &t.got[0].record;
            assert_int_equal(got->type, type);
            assert_int_equal(got->worker, record.worker);
            assert_int_equal(got->session, record.session);
            assert_true(got->target == record.target);
            assert_int_equal(got->tag_length, length);
            assert_memory_equal(t.got[0].tag, tag, length);
            assert_int_equal(got->payload_length, control ? 0 : length);
        }
}

static void test_a_payload_is_whole_wherever_it_stands_in_the_ring(void **state)
{
    (void)state;
    static char payload[CAPACITY];
    unsigned seed = 3;
    unsigned split = 0;
    intake_resume(t.intake);
    for (size_t i = 0; i < sizeof(payload); i++)
        payload[i] = (char)rand_r(&seed);
    for (unsigned round = 0; round < 500; round++) {
        const size_t length = (size_t)rand_r(&seed) % (ring_payload_max(CAPACITY) + 1);
        const struct ring_record record = { .type = RING_RELAY };
        assert_int_equal(push(record, "", 0, payload, length), RING_PUSHED);
        settle();
        const size_t size = payload_length(&t.payload);
        assert_int_equal(size, length);
        assert_memory_equal(t.kept, payload, length);
        assert_int_equal(t.payload.length[0] == 0, length == 0);
        split += t.payload.length[1] > 0;
    }
    assert_true(split > 10);
}

/* It is not copied before the host does: the first part begins where the record's header and tag end, the second is what
 * goes on at the ring's beginning. */
static void test_a_payload_lies_in_the_ring(void **state)
{
    (void)state;
    static const char bytes[117] = "a payload";
    const char *const records = (const char *)ring_records(t.intake->ring.header);
    const struct ring_record record = { .type = RING_RELAY };
    unsigned split = 0;
    intake_resume(t.intake);
    for (unsigned round = 0; round < 3000; round++) {
        const size_t begin = (head() + sizeof(record) + 3) & (CAPACITY - 1);
        const size_t first = CAPACITY - begin < sizeof(bytes) ? CAPACITY - begin : sizeof(bytes);
        assert_int_equal(push(record, "tag", 3, bytes, sizeof(bytes)), RING_PUSHED);
        settle();
        assert_ptr_equal(t.payload.part[0], records + begin);
        assert_int_equal(t.payload.length[0], first);
        assert_int_equal(t.payload.length[1], sizeof(bytes) - first);
        if (first == sizeof(bytes))
            continue;
        assert_ptr_equal(t.payload.part[1], records);
        split++;
    }
    assert_true(split > 0);
}

static void test_what_waits_is_counted(void **state)
{
    (void)state;
    assert_int_equal(intake_used(t.intake), 0);
    for (uint32_t n = 1; n <= 10; n++)
        push_event(n);
    settle();
    assert_int_equal(intake_used(t.intake), head());
    assert_int_equal(t.intake->high_water, head());
    const uint64_t most = head();
    intake_resume(t.intake);
    settle();
    assert_int_equal(intake_used(t.intake), 0);
    assert_int_equal(t.intake->high_water, most);
    push_event(11);
    settle();
    assert_int_equal(t.intake->high_water, most);
}

/* Who asks how much waits is told what there is, and not what there was when the last record that had been known was read:
 * else a ring that is always full would look empty now and then. */
static void test_what_was_written_during_a_batch_is_counted_behind_it(void **state)
{
    tear_down(state);
    set_up(state);
    make_ring(1 << 20, SEALS);
    start_queue();
    intake_resume(t.intake);
    for (uint32_t n = 0; n < 3000; n++)
        push_event(n);
    intake_read_batch(t.intake);
    for (uint32_t n = 0; n < 1000; n++)
        push_event(n);
    intake_read_batch(t.intake);
    assert_in_range(t.count, 1, 2999);
    assert_int_equal(intake_used(t.intake), head() - tail());
    assert_true(t.intake->high_water >= head() - tail());
}

static void test_presence_lies_in_the_shared_header(void **state)
{
    (void)state;
    atomic_store(&intake_presence(t.intake)->session, 4711);
    assert_int_equal(atomic_load(&t.header->presence.session), 4711);
}

/* ---- nearly full --------------------------------------------------------------------------------------------------- */

/* Events alone leave the reserve to control records, which a hold is waiting for. */
static uint32_t fill_with_events(void)
{
    uint32_t n = 0;
    while (push_event_of(n, 400) == RING_PUSHED)
        n++;
    while (push_event_of(n, 4) == RING_PUSHED)
        n++;
    return n;
}

static void test_a_held_ring_full_of_events_is_not_crowded(void **state)
{
    (void)state;
    fill_with_events();
    settle();
    assert_int_equal(t.crowded, 0);
    assert_int_equal(t.count, 0);
}

/* Push control records until the host has been told; returns how many. */
static uint32_t crowd_with_controls(void)
{
    uint32_t n = 0;
    while (t.crowded == 0) {
        assert_int_equal(push((struct ring_record){ .type = RING_DONE, .target = n++ }, "", 0, "", 0), RING_PUSHED);
        settle();
    }
    return n;
}

static void test_a_held_ring_that_control_records_fill_is_crowded(void **state)
{
    (void)state;
    const uint32_t events = fill_with_events();
    const uint32_t controls = crowd_with_controls();
    /* In time: there was room for more control records. */
    assert_true(CAPACITY - intake_used(t.intake) >= ring_reserve(CAPACITY) / 4);
    assert_int_equal(t.count, controls);
    t.crowded = 0;
    intake_resume(t.intake);
    settle();
    assert_int_equal(t.count, controls + events);
    assert_int_equal(t.crowded, 0);
}

static void resume_now(void)
{
    intake_resume(t.intake);
}

static void test_a_release_from_within_crowded(void **state)
{
    (void)state;
    t.on_crowded = resume_now;
    const uint32_t events = fill_with_events();
    const uint32_t end = crowd_with_controls();
    assert_int_equal(t.crowded, 1);
    assert_int_equal(tail(), head());
    assert_true(end > 10);
    uint32_t event = 0;
    uint32_t control = 0;
    for (size_t i = 0; i < t.count; i++)
        assert_int_equal(t.got[i].number, ring_type_is_control(t.got[i].record.type) ? control++ : event++);
    assert_int_equal(event, events);
    assert_int_equal(control, end);
}

static void test_a_running_queue_is_never_crowded(void **state)
{
    (void)state;
    intake_resume(t.intake);
    for (int round = 0; round < 10; round++) {
        const uint32_t events = fill_with_events();
        uint32_t controls = 0;
        while (push((struct ring_record){ .type = RING_DONE }, "", 0, "", 0) == RING_PUSHED)
            controls++;
        t.count = 0;
        settle();
        assert_int_equal(t.count, events + controls);
    }
    assert_int_equal(t.crowded, 0);
}

/* ---- any mixture --------------------------------------------------------------------------------------------------- */

/* What was pushed and has not had its turn, oldest first. */
static struct {
    struct {
        enum ring_type type;
        bool ahead; /* it has been read ahead */
        uint32_t number;
    } waiting[GOT_MAX];
    size_t count;
    bool held;
} model;

/* Read all that is there: what the model says must come is what has come. */
static void model_trim(void)
{
    size_t got = 0;
    for (size_t i = 0; i < model.count; i++) {
        const bool control = ring_type_is_control((uint8_t)model.waiting[i].type);
        const bool ahead = model.waiting[i].ahead;
        if (model.held ? !control || ahead : model.waiting[i].type == RING_DONE && ahead)
            continue;
        assert_true(got < t.count);
        assert_int_equal(t.got[got].number, model.waiting[i].number);
        assert_int_equal(t.got[got].record.type, model.waiting[i].type);
        assert_int_equal(t.got[got].ahead, model.held);
        got++;
        model.waiting[i].ahead = model.held;
    }
    assert_int_equal(got, t.count);
    t.count = 0;
    if (!model.held)
        model.count = 0;
}

static void model_push(unsigned *seed, uint32_t number)
{
    static const enum ring_type types[] = { RING_RELAY, RING_RELAY, RING_RELAY, RING_CLOSE, RING_DONE };
    const enum ring_type type = types[rand_r(seed) % 5];
    const size_t length = 4 + (size_t)rand_r(seed) % (rand_r(seed) % 50 == 0 ? 8000 : 60);
    const struct ring_record record = { .type = (uint8_t)type, .target = number };
    const enum ring_push pushed =
        type == RING_RELAY ? push_event_of(number, length) : push(record, "tag", (size_t)rand_r(seed) % 4, "", 0);
    if (pushed != RING_PUSHED)
        return;
    model.waiting[model.count].type = type;
    model.waiting[model.count].ahead = false;
    model.waiting[model.count++].number = number;
}

static void test_random_use_agrees_with_a_model(void **state)
{
    (void)state;
    unsigned seed = 2024;
    size_t come = 0;
    memset(&model, 0, sizeof(model));
    model.held = true;
    for (uint32_t round = 0; round < 60000; round++) {
        switch (rand_r(&seed) % 32) {
        case 0:
            settle();
            come += t.count;
            model_trim();
            break;
        case 1:
            drain();
            come += t.count;
            model_trim();
            break;
        case 2:
        case 3:
            settle(); /* so that the model need not know how far a hold had read */
            come += t.count;
            model_trim();
            model.held = !model.held;
            if (model.held)
                intake_hold(t.intake);
            else
                intake_resume(t.intake);
            break;
        default: model_push(&seed, round);
        }
        assert_int_equal(t.corrupt, 0);
    }
    assert_true(come > 20000);
}

/* Positions are counts that may pass 2^64; a reader begins where the one before has ended. */
static void test_a_reader_begins_anywhere(void **state)
{
    static const uint64_t starts[] = { 8,          CAPACITY - 8,      UINT64_MAX - 7, UINT64_MAX - 1023,
                                       1ULL << 63, (1ULL << 63) - 512 };
    for (size_t i = 0; i < sizeof(starts) / sizeof(*starts); i++) {
        tear_down(state);
        set_up(state);
        make_ring(CAPACITY, SEALS);
        t.lane->head = t.lane->tail_seen = starts[i];
        atomic_store(&t.lane->head, starts[i]);
        atomic_store(&t.header->tail, starts[i]);
        push_event(1); /* while nobody reads */
        push_done(2);
        start_queue();
        assert_int_equal(intake_used(t.intake), head() - starts[i]);
        for (uint32_t n = 3; n < 100; n += 2) {
            settle();
            push_event(n);
            push_done(n + 1);
        }
        settle();
        assert_int_equal(t.count, 50);
        intake_resume(t.intake);
        settle();
        assert_int_equal(t.count, 100);
        for (uint32_t n = 0; n < 50; n++) {
            assert_int_equal(t.got[n].number, 2 * n + 2);
            assert_int_equal(t.got[50 + n].number, 2 * n + 1);
        }
        t.count = 0;
        intake_hold(t.intake);
        push_event(1);
        push_done(2);
        settle();
        assert_got("+d2");
        intake_resume(t.intake);
        settle();
        assert_got("1");
        assert_int_equal(tail(), head());
    }
}

/* An evapid has ended without a word: the next one reads what the ring still holds. */
static void test_the_next_reader_finds_what_was_not_released(void **state)
{
    (void)state;
    push_event(1);
    push_done(2);
    push_event(3);
    settle();
    assert_got("+d2");
    stop_queue();
    push_event(4);
    start_queue();
    intake_resume(t.intake);
    settle();
    assert_got("1 d2 3 4");
    push_event(5);
    settle();
    assert_got("5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_QUEUE(test_every_field_of_a_record_is_handed_through),
        WITH_QUEUE(test_a_payload_is_whole_wherever_it_stands_in_the_ring),
        WITH_QUEUE(test_a_payload_lies_in_the_ring),
        WITH_QUEUE(test_what_waits_is_counted),
        WITH_QUEUE(test_what_was_written_during_a_batch_is_counted_behind_it),
        WITH_QUEUE(test_presence_lies_in_the_shared_header),
        WITH_QUEUE(test_a_held_ring_full_of_events_is_not_crowded),
        WITH_QUEUE(test_a_held_ring_that_control_records_fill_is_crowded),
        WITH_QUEUE(test_a_release_from_within_crowded),
        WITH_QUEUE(test_a_running_queue_is_never_crowded),
        WITH_QUEUE(test_random_use_agrees_with_a_model),
        WITH_QUEUE(test_a_reader_begins_anywhere),
        WITH_QUEUE(test_the_next_reader_finds_what_was_not_released),
    };
    return cmocka_run_group_tests_name("intake, records", tests, NULL, NULL);
}
