/* The ring: every record arrives once, whole and in order, at any place; and what happens when the ring is full. */
#include "include/ring_rig.h"

/* ---- the format -------------------------------------------------------------------------------------------------- */

static void test_a_new_ring_is_empty(void **state)
{
    struct rig *rig = *state;
    assert_memory_equal(rig->header, "avidring\x06\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0", 24);
    assert_int_equal(rig->header->key, KEY);
    assert_int_equal(rig->header->tail, 0);
    assert_int_equal(ring_sleeper(rig->header, rig->lane), 0);
    assert_empty(rig);
}

/* What one side writes often must not slow down the other: no two writers share a line. */
static void test_each_writer_has_its_own_line(void **state)
{
    (void)state;
    assert_int_equal(offsetof(struct ring_header, slots_used) % RING_LINE, 0);
    assert_int_equal(offsetof(struct ring_header, tail) % RING_LINE, 0);
    assert_int_equal(offsetof(struct ring_header, sleeping) % RING_LINE, 0);
    assert_true(offsetof(struct ring_header, sleeping) - offsetof(struct ring_header, tail) >= RING_LINE);
    assert_int_equal(offsetof(struct ring_header, workers) % RING_LINE, 0);
    assert_int_equal(sizeof(struct ring_worker) % RING_LINE, 0);
    assert_int_equal(offsetof(struct ring_worker, starts), RING_LINE);
    assert_int_equal(offsetof(struct ring_header, presence) % RING_LINE, 0);
    assert_int_equal(offsetof(struct ring_header, slots) % RING_LINE, 0);
    assert_int_equal(sizeof(struct ring_slot) % RING_LINE, 0);
    assert_true(offsetof(struct ring_lane, slots_used) >= RING_LINE);
    assert_true(offsetof(struct ring_header, tail) > offsetof(struct ring_header, refused_large));
    assert_int_equal(RING_DATA_OFFSET % 4096, 0);
    assert_true(RING_DATA_OFFSET >= sizeof(struct ring_header));
}

static void test_a_record_arrives_as_it_was_pushed(void **state)
{
    struct rig *rig = *state;
    for (unsigned type = RING_RELAY; type < RING_TYPES; type++) {
        const struct ring_record record = { .size = 77,
                                            .type = type,
                                            .tag_length = 9,
                                            .worker = 0xabcd,
                                            .payload_length = 5,
                                            .session = 0xfedcba98,
                                            .target = 0x8877665544332211U };
        assert_int_equal(ring_push(rig->header, rig->lane, mine(rig), record, "t\0g", 3, "pay\0load", 8), RING_PUSHED);
        struct ring_record found = { 0 };
        const char *why = NULL;
        char *tag, *payload;
        const uint64_t at = rig->reader.tail;
        assert_int_equal(ring_peek(&rig->reader, at, &found, &why), RING_RECORD);
        assert_int_equal(found.size, 48);
        assert_int_equal(found.type, type);
        assert_int_equal(found.worker, 0xabcd);
        assert_int_equal(found.session, 0xfedcba98);
        assert_true(found.target == 0x8877665544332211U);
        assert_int_equal(found.tag_length, 3);
        assert_int_equal(found.payload_length, 8);
        copy_out(&rig->reader, at, &found, &tag, &payload);
        assert_memory_equal(tag, "t\0g", 3);
        assert_memory_equal(payload, "pay\0load", 8);
        free(tag);
        free(payload);
        release(&rig->reader, at + found.size);
        assert_empty(rig);
    }
}

/* A DONE has neither, and a caller need not invent an address for nothing. */
static void test_a_record_without_tag_and_payload(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(push(rig, RING_DONE, NULL, 0, NULL, 0), RING_PUSHED);
    assert_int_equal(take(rig).size, 32);
    assert_int_equal(push(rig, RING_TAG, "vip", 3, NULL, 0), RING_PUSHED);
    assert_int_equal(take(rig).size, 40);
    assert_int_equal(push(rig, RING_RELAY, NULL, 0, "event", 5), RING_PUSHED);
    assert_int_equal(take(rig).size, 40);
    assert_empty(rig);
}

static void test_records_come_in_the_order_of_their_pushes(void **state)
{
    struct rig *rig = *state;
    for (uint64_t number = 1; number <= 100; number++)
        assert_int_equal(push_numbered(rig, 3, number), RING_PUSHED);
    for (uint64_t number = 1; number <= 100; number++)
        take_numbered(rig, 3, number);
    assert_empty(rig);
}

/* ---- wrap -------------------------------------------------------------------------------------------------------- */

/* The ring holds exactly the bytes of one record from position at, and elsewhere what it held before. */
static void assert_only_record(struct rig *rig, uint64_t at, const struct numbered *n)
{
    static unsigned char unwritten[SMALL];
    unsigned char flat[sizeof(struct ring_record) + EVAPID_TAG_MAX + 256];
    const unsigned char *bytes = ring_records(rig->header);
    const size_t used = sizeof(n->record) + n->record.tag_length + n->record.payload_length;
    const size_t begin = at % SMALL, end = (at + n->record.size) % SMALL;
    memcpy(flat, &n->record, sizeof(n->record));
    memcpy(flat + sizeof(n->record), n->tag, n->record.tag_length);
    memcpy(flat + sizeof(n->record) + n->record.tag_length, n->payload, n->record.payload_length);
    for (size_t i = 0; i < used; i++)
        if (bytes[(at + i) % SMALL] != flat[i])
            fail_msg("byte %zu of a record of %zu bytes at place %zu", i, used, begin);
    memset(unwritten, UNWRITTEN, sizeof(unwritten));
    if (begin < end) {
        assert_memory_equal(bytes, unwritten, begin);
        assert_memory_equal(bytes + end, unwritten, SMALL - end);
    } else {
        assert_memory_equal(bytes + end, unwritten, begin - end);
    }
}

static void check_wrap(struct rig *rig, uint64_t at, size_t tag_length, size_t payload_length)
{
    struct numbered n;
    numbered_fill(&n, 1, at + payload_length * 3);
    n.record.tag_length = (uint8_t)tag_length;
    n.record.payload_length = (uint32_t)payload_length;
    n.record.size = (uint32_t)record_size(tag_length, payload_length);
    n.record.stamp = ring_stamp(KEY, at);
    for (size_t i = 0; i < tag_length; i++)
        n.tag[i] = (char)(i + 1);
    for (size_t i = 0; i < payload_length; i++)
        n.payload[i] = (char)(i + 101);
    rig_place(rig, at);
    memset(ring_records(rig->header), UNWRITTEN, SMALL);
    assert_int_equal(
        ring_push(rig->header, rig->lane, mine(rig), n.record, n.tag, tag_length, n.payload, payload_length),
        RING_PUSHED);
    assert_only_record(rig, at, &n);
    struct ring_record record = { 0 };
    const char *why = NULL;
    char *tag, *payload;
    assert_int_equal(ring_peek(&rig->reader, at, &record, &why), RING_RECORD);
    assert_memory_equal(&record, &n.record, sizeof(record));
    copy_out(&rig->reader, at, &record, &tag, &payload);
    assert_memory_equal(tag, n.tag, tag_length);
    assert_memory_equal(payload, n.payload, payload_length);
    free(tag);
    free(payload);
    release(&rig->reader, at + record.size);
    assert_empty(rig);
}

/* The ring's end falls on every byte of a record: its header, tag, payload and filling. */
static void test_a_record_wraps_at_every_byte(void **state)
{
    static const size_t tag_lengths[] = { 0, 1, 7, 8, 64 };
    struct rig *rig = *state;
    for (uint64_t at = 3 * SMALL - 160; at <= 3 * SMALL; at += RING_ALIGN)
        for (size_t t = 0; t < sizeof(tag_lengths) / sizeof(tag_lengths[0]); t++)
            for (size_t payload_length = 0; payload_length <= 40; payload_length++)
                check_wrap(rig, at, tag_lengths[t], payload_length);
}

static void test_a_record_at_every_place(void **state)
{
    struct rig *rig = *state;
    for (uint64_t place = 0; place < SMALL; place += RING_ALIGN) {
        rig_place(rig, 5 * SMALL + place);
        for (uint64_t number = place; number < place + 3; number++)
            assert_int_equal(push_numbered(rig, 2, number), RING_PUSHED);
        for (uint64_t number = place; number < place + 3; number++)
            take_numbered(rig, 2, number);
        assert_empty(rig);
    }
}

static void test_many_times_round(void **state)
{
    struct rig *rig = *state;
    uint64_t pushed = 0, taken = 0;
    while (rig->reader.tail < 40 * SMALL) {
        while (push_numbered(rig, 1, pushed) == RING_PUSHED)
            pushed++;
        for (uint64_t i = 0; i <= pushed % 90 && taken < pushed; i++)
            take_numbered(rig, 1, taken++);
    }
}

static void test_positions_pass_the_end_of_64_bits(void **state)
{
    struct rig *rig = *state;
    rig_place(rig, UINT64_MAX - 3 * SMALL + 1);
    for (uint64_t number = 0; rig->reader.tail > SMALL; number++) {
        assert_int_equal(push_numbered(rig, 1, 2 * number), RING_PUSHED);
        assert_int_equal(push_numbered(rig, 1, 2 * number + 1), RING_PUSHED);
        reopen(rig);
        take_numbered(rig, 1, 2 * number);
        take_numbered(rig, 1, 2 * number + 1);
    }
    assert_empty(rig);
    const size_t taken = push_until_full(rig, RING_RELAY, 1000);
    assert_int_equal(taken, SMALL / 16 * 15 / record_size(0, 1000));
}

/* ---- full -------------------------------------------------------------------------------------------------------- */

static void check_full(struct rig *rig, size_t length)
{
    const size_t size = record_size(0, length), room = SMALL - SMALL / 16, fit = room / size;
    const uint64_t refused = rig->header->refused_full, begin = rig->lane->head;
    assert_int_equal(push_until_full(rig, RING_RELAY, length), fit);
    assert_int_equal(rig->header->refused_full, refused + 1);
    assert_int_equal(rig->lane->head, begin + fit * size);
    for (size_t i = 0; i < fit; i++)
        assert_int_equal(take(rig).payload_length, length);
    assert_empty(rig);
}

static void test_a_full_ring_refuses(void **state)
{
    struct rig *rig = *state;
    for (size_t length = 0; length <= 2000; length += 13)
        check_full(rig, length);
    /* To the last byte: 61440 is 60 times 1024. */
    check_full(rig, 1024 - sizeof(struct ring_record));
    assert_int_equal(rig->header->refused_large, 0);
}

static void test_a_refused_record_changes_nothing(void **state)
{
    struct rig *rig = *state;
    push_until_full(rig, RING_RELAY, 1000);
    static unsigned char before[SMALL];
    const uint64_t head = rig->lane->head;
    memcpy(before, ring_records(rig->header), SMALL);
    static const char payload[1000] = "refused";
    assert_int_equal(push(rig, RING_RELAY, "", 0, payload, sizeof(payload)), RING_FULL);
    assert_memory_equal(ring_records(rig->header), before, SMALL);
    assert_int_equal(rig->lane->head, head);
}

/* A record's room is given back when it is released, not when it has been read, nor when the reader has moved on. */
static void test_room_comes_back_with_release(void **state)
{
    struct rig *rig = *state;
    push_until_full(rig, RING_RELAY, 992);
    struct ring_record record = { 0 };
    const char *why = NULL;
    uint64_t at = rig->reader.tail;
    for (size_t i = 0; i < 60; i++, at += record.size)
        assert_int_equal(ring_peek(&rig->reader, at, &record, &why), RING_RECORD);
    assert_int_equal(ring_peek(&rig->reader, at, &record, &why), RING_EMPTY);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
    rig->reader.tail += 1024;
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
    ring_release(&rig->reader);
    assert_int_equal(push_length(rig, RING_RELAY, 993), RING_FULL);
    assert_int_equal(push_length(rig, RING_RELAY, 992), RING_PUSHED);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
    release(&rig->reader, rig->reader.tail + 2048);
    assert_int_equal(push_until_full(rig, RING_RELAY, 0), 2048 / 32);
}

static void test_a_small_record_goes_where_a_larger_one_does_not_fit(void **state)
{
    struct rig *rig = *state;
    push_until_full(rig, RING_RELAY, 5000);
    assert_int_equal(push_length(rig, RING_RELAY, 5000), RING_FULL);
    assert_int_equal(push_length(rig, RING_RELAY, 10), RING_PUSHED);
}

static void check_reserve(struct rig *rig, uint8_t control)
{
    rig_place(rig, 0);
    const size_t relays = push_until_full(rig, RING_RELAY, 0);
    assert_int_equal(relays, SMALL / 16 * 15 / 32);
    assert_int_equal(push_length(rig, RING_MULTICAST, 0), RING_FULL);
    assert_int_equal(push_length(rig, RING_UNICAST, 0), RING_FULL);
    const size_t controls = push_until_full(rig, control, 0);
    assert_int_equal(controls, SMALL / 32 - relays);
    /* Within the reserve an event finds room only when the whole reserve is free again, a command at once. */
    take(rig);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
    assert_int_equal(push_length(rig, control, 0), RING_PUSHED);
    for (size_t i = 0; i < controls; i++)
        take(rig);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
    take(rig);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_PUSHED);
    assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
}

static void test_the_reserve_is_for_commands(void **state)
{
    struct rig *rig = *state;
    check_reserve(rig, RING_CLOSE);
    check_reserve(rig, RING_TAG);
    check_reserve(rig, RING_DONE);
    assert_true(ring_type_is_control(RING_CLOSE) && ring_type_is_control(RING_TAG) && ring_type_is_control(RING_DONE));
    assert_false(ring_type_is_control(RING_RELAY) || ring_type_is_control(RING_MULTICAST) ||
                 ring_type_is_control(RING_UNICAST));
}

/* ---- large ------------------------------------------------------------------------------------------------------- */

/* The largest payload with the longest tag fits an empty ring wherever that begins, and is at most half of it. */
static void check_large(size_t capacity)
{
    struct rig *rig = rig_open(capacity);
    const size_t max = ring_payload_max(capacity);
    char *payload = malloc(max + 1), *tag, *copy;
    assert_non_null(payload);
    for (size_t i = 0; i <= max; i++)
        payload[i] = (char)(i * 31 + i / 256);
    static const char longest[EVAPID_TAG_MAX + 1] = "a tag of sixty-four characters, of which most of them are NUL.";
    assert_true(max >= capacity / 2 - 104 && record_size(EVAPID_TAG_MAX, max) <= capacity / 2);
    for (uint64_t at = 0; at <= capacity; at += capacity / 4) {
        rig_place(rig, at + capacity - 16);
        assert_int_equal(push(rig, RING_MULTICAST, longest, EVAPID_TAG_MAX, payload, max), RING_PUSHED);
        struct ring_record record = { 0 };
        const char *why = NULL;
        assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_RECORD);
        copy_out(&rig->reader, rig->reader.tail, &record, &tag, &copy);
        assert_int_equal(record.payload_length, max);
        assert_memory_equal(tag, longest, EVAPID_TAG_MAX);
        assert_true(memcmp(copy, payload, max) == 0);
        free(tag);
        free(copy);
    }
    assert_int_equal(push(rig, RING_MULTICAST, longest, 0, payload, max + 1), RING_LARGE);
    assert_int_equal(rig->header->refused_large, 1);
    free(payload);
    rig_close(rig);
}

static void test_the_largest_record_of_each_ring(void **state)
{
    (void)state;
    check_large(EVAPID_RING_MIN);
    check_large(1UL << 20);
    check_large(EVAPID_RING_DEFAULT);
    assert_true(ring_payload_max(EVAPID_RING_DEFAULT) >= 1UL << 20);
}

static void test_what_never_fits_is_refused_as_large(void **state)
{
    struct rig *rig = *state;
    const size_t max = ring_payload_max(SMALL);
    assert_int_equal(push_length(rig, RING_RELAY, max + 1), RING_LARGE);
    assert_int_equal(push_length(rig, RING_DONE, max + 1), RING_LARGE);
    assert_int_equal(push_length(rig, RING_RELAY, SMALL), RING_LARGE);
    assert_int_equal(push_length(rig, RING_RELAY, (size_t)UINT32_MAX + 1), RING_LARGE);
    assert_int_equal(push_length(rig, RING_RELAY, SIZE_MAX - 16), RING_LARGE);
    assert_int_equal(push_length(rig, RING_RELAY, SIZE_MAX), RING_LARGE);
    assert_int_equal(rig->header->refused_large, 6);
    assert_int_equal(rig->header->refused_full, 0);
    assert_empty(rig);
}

static void test_a_tag_has_a_limit(void **state)
{
    struct rig *rig = *state;
    static const char tag[512] = "tag";
    assert_int_equal(push(rig, RING_TAG, tag, EVAPID_TAG_MAX, "", 0), RING_PUSHED);
    assert_int_equal(push(rig, RING_TAG, tag, EVAPID_TAG_MAX + 1, "", 0), RING_LARGE);
    assert_int_equal(push(rig, RING_TAG, tag, 256 + 3, "", 0), RING_LARGE);
    assert_int_equal(push(rig, RING_TAG, tag, SIZE_MAX, "", 0), RING_LARGE);
    assert_int_equal(rig->header->refused_large, 3);
    assert_int_equal(take(rig).tag_length, EVAPID_TAG_MAX);
    assert_empty(rig);
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

/* evapid was killed: the next one sees again what had been read and not released, and nothing that had. */
static void test_a_new_reader_goes_on_where_the_last_released(void **state)
{
    struct rig *rig = *state;
    for (uint64_t number = 1; number <= 9; number++)
        assert_int_equal(push_numbered(rig, 1, number), RING_PUSHED);
    take_numbered(rig, 1, 1);
    take_numbered(rig, 1, 2);
    struct ring_record record = { 0 };
    const char *why = NULL;
    assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_RECORD);
    rig->reader.tail += record.size;
    reopen(rig);
    for (uint64_t number = 3; number <= 9; number++)
        take_numbered(rig, 1, number);
    assert_empty(rig);
}

/* Another mapping of the memfd is the same ring, as in evapid's process. */
static void test_a_reader_with_its_own_mapping(void **state)
{
    struct rig *rig = *state;
    struct ring_header *header = map_guarded(rig->memfd, ring_bytes(SMALL));
    struct ring_reader other = { 0 };
    assert_null(ring_open(&other, header, ring_bytes(SMALL)));
    uint64_t number = 0;
    for (int round = 0; round < 20; round++) {
        while (push_numbered(rig, 1, number) == RING_PUSHED)
            number++;
        struct ring_record record = { 0 };
        const char *why = NULL;
        while (ring_peek(&other, other.tail, &record, &why) == RING_RECORD) {
            assert_numbered(&other, other.tail, &record);
            release(&other, other.tail + record.size);
        }
        assert_int_equal(record.target, number - 1);
    }
    munmap((char *)header - PAGE, ring_bytes(SMALL) + 2 * PAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_RING(test_a_new_ring_is_empty),
        WITH_RING(test_each_writer_has_its_own_line),
        WITH_RING(test_a_record_arrives_as_it_was_pushed),
        WITH_RING(test_a_record_without_tag_and_payload),
        WITH_RING(test_records_come_in_the_order_of_their_pushes),
        WITH_RING(test_a_record_wraps_at_every_byte),
        WITH_RING(test_a_record_at_every_place),
        WITH_RING(test_many_times_round),
        WITH_RING(test_positions_pass_the_end_of_64_bits),
        WITH_RING(test_a_full_ring_refuses),
        WITH_RING(test_a_refused_record_changes_nothing),
        WITH_RING(test_room_comes_back_with_release),
        WITH_RING(test_a_small_record_goes_where_a_larger_one_does_not_fit),
        WITH_RING(test_the_reserve_is_for_commands),
        cmocka_unit_test(test_the_largest_record_of_each_ring),
        WITH_RING(test_what_never_fits_is_refused_as_large),
        WITH_RING(test_a_tag_has_a_limit),
        WITH_RING(test_a_new_reader_goes_on_where_the_last_released),
        WITH_RING(test_a_reader_with_its_own_mapping),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
