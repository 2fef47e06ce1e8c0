/* The ring: whatever the other side writes into it, no access leaves it. */
#include "include/ring_rig.h"

/* ---- a ring that is none ----------------------------------------------------------------------------------------- */

static void assert_no_ring(struct rig *rig, const char *word)
{
    struct ring_reader reader = { 0 };
    const char *why = ring_open(&reader, rig->header, ring_bytes(SMALL));
    assert_non_null(why);
    if (strstr(why, word) == NULL)
        fail_msg("\"%s\" does not speak of \"%s\"", why, word);
}

static void test_a_header_with_a_wrong_shape(void **state)
{
    struct rig *rig = *state;
    for (size_t i = 0; i < 8; i++) {
        rig->header->magic ^= (uint64_t)1 << 8 * i;
        assert_no_ring(rig, "not a ring");
        rig->header->magic = RING_MAGIC;
    }
    rig->header->version = 0;
    assert_no_ring(rig, "version");
    rig->header->version = RING_VERSION + 1;
    assert_no_ring(rig, "version");
    rig->header->version = RING_VERSION;
    reopen(rig);
}

static void test_a_header_with_a_wrong_capacity(void **state)
{
    static const uint64_t wrong[] = { 0,
                                      1,
                                      SMALL / 2,
                                      SMALL - 1,
                                      SMALL + 1,
                                      SMALL + SMALL / 2,
                                      2 * SMALL,
                                      SMALL | 8,
                                      EVAPID_RING_MAX * 2,
                                      (uint64_t)1 << 63,
                                      UINT64_MAX,
                                      UINT64_MAX - RING_DATA_OFFSET + 1,
                                      ((uint64_t)1 << 32) + SMALL };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        rig->header->capacity = wrong[i];
        assert_no_ring(rig, "capacity");
    }
}

static void test_a_memfd_of_a_wrong_size(void **state)
{
    struct rig *rig = *state;
    struct ring_reader reader = { 0 };
    for (size_t bytes = ring_bytes(SMALL) - 64; bytes <= ring_bytes(SMALL) + 64; bytes++)
        assert_true((ring_open(&reader, rig->header, bytes) == NULL) == (bytes == ring_bytes(SMALL)));
    assert_non_null(ring_open(&reader, rig->header, ring_bytes(2 * SMALL)));
    /* A capacity that suits such a size, and is no power of two or out of range. */
    rig->header->capacity = SMALL + 4096;
    assert_non_null(ring_open(&reader, rig->header, ring_bytes(SMALL + 4096)));
    rig->header->capacity = SMALL / 2;
    assert_non_null(ring_open(&reader, rig->header, ring_bytes(SMALL / 2)));
    rig->header->capacity = 2 * EVAPID_RING_MAX;
    assert_non_null(ring_open(&reader, rig->header, ring_bytes(2 * EVAPID_RING_MAX)));
    rig->header->capacity = 2 * SMALL;
    assert_null(ring_open(&reader, rig->header, ring_bytes(2 * SMALL)));
}

/* What is too small to hold a header is not looked at. */
static void test_a_memfd_without_a_header(void **state)
{
    struct rig *rig = *state;
    struct ring_reader reader = { 0 };
    struct ring_header *untouchable = (struct ring_header *)(void *)((char *)rig->header - PAGE);
    assert_non_null(ring_open(&reader, untouchable, 0));
    assert_non_null(ring_open(&reader, untouchable, PAGE));
    assert_non_null(ring_open(&reader, untouchable, RING_DATA_OFFSET));
}

static void test_a_header_with_impossible_positions(void **state)
{
    static const struct {
        uint64_t tail, claimed;
        bool good;
    } positions[] = {
        { 0, 0, true },          { 0, SMALL, true },
        { 8, SMALL + 8, true },  { 2 * SMALL, SMALL, true }, /* a claim of long ago */
        { 8, 0, true },          { UINT64_MAX - 7, SMALL - 8, true },
        { 0, SMALL + 8, false }, { 0, 4, false },
        { 4, 4, false },         { 1, 9, false },
        { 4, 8, false },         { 0, 15, false },
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(positions) / sizeof(positions[0]); i++) {
        rig->header->tail = positions[i].tail;
        *claimed(rig) = positions[i].claimed;
        if (positions[i].good)
            reopen(rig);
        else
            assert_no_ring(rig, "claims and tail");
    }
}

/* ---- a ring that turns bad --------------------------------------------------------------------------------------- */

/* A claim further than the ring is long, or between two places of records, is impossible. */
static void test_a_claim_that_jumps(void **state)
{
    static const int64_t wrong[] = { 1, 4, 25, SMALL + 8, 2 * SMALL, INT64_MAX - 10 * SMALL };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        rig_place(rig, 10 * SMALL);
        assert_int_equal(push_length(rig, RING_RELAY, 0), RING_PUSHED);
        const uint64_t end = *claimed(rig);
        take(rig);
        *claimed(rig) = end + (uint64_t)wrong[i];
        assert_false(ring_refresh(&rig->reader));
        /* Nothing was believed of it: with the old one, the ring is as it was. */
        *claimed(rig) = end;
        assert_true(ring_refresh(&rig->reader));
        assert_empty(rig);
        assert_int_equal(push_length(rig, RING_RELAY, 0), RING_PUSHED);
        take(rig);
    }
}

/* What the reader has seen claimed cannot be unclaimed. */
static void test_a_claim_that_goes_back(void **state)
{
    struct rig *rig = *state;
    push_length(rig, RING_RELAY, 0);
    push_length(rig, RING_RELAY, 0);
    assert_true(ring_refresh(&rig->reader));
    *claimed(rig) = 32;
    assert_true(ring_refresh(&rig->reader));
    assert_int_equal(rig->reader.head, 64);
    take(rig);
    take(rig);
    assert_empty(rig);
}

/* How many slots are looked at is ours to say. */
static void test_more_slots_than_there_are(void **state)
{
    struct rig *rig = *state;
    push_length(rig, RING_RELAY, 0);
    rig->header->slots_used = UINT64_MAX;
    assert_true(ring_refresh(&rig->reader));
    assert_int_equal(ring_skip(&rig->reader, 8), 0);
    take(rig);
}

/* A record of 72 bytes of which 40 are tag and payload, with another one of 32 bytes behind it. */
static struct ring_record *push_victim(struct rig *rig)
{
    rig_place(rig, 3 * SMALL);
    memset(ring_records(rig->header), 0, 256);
    assert_int_equal(push(rig, RING_MULTICAST, "0123456789", 10, "012345678901234567890123456789", 30), RING_PUSHED);
    assert_int_equal(push_length(rig, RING_DONE, 0), RING_PUSHED);
    return (struct ring_record *)(void *)ring_records(rig->header);
}

static void test_a_record_with_a_wrong_size(void **state)
{
    static const uint32_t wrong[] = { 0,   1,     8,         16,         24,
                                      31,  33,    60,        63,         65,
                                      112, SMALL, SMALL + 8, UINT32_MAX, UINT32_MAX - 7 };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        push_victim(rig)->size = wrong[i];
        assert_corrupt(rig, "size");
    }
    /* Room to spare is no harm: as far as was claimed, and no further. */
    push_victim(rig)->size = 104;
    assert_int_equal(take(rig).size, 104);
    assert_empty(rig);
}

static void test_a_record_with_a_wrong_tag_length(void **state)
{
    struct rig *rig = *state;
    for (unsigned length = 0; length < 256; length++) {
        push_victim(rig)->tag_length = (uint8_t)length;
        if (length <= 10)
            assert_int_equal(take(rig).tag_length, length);
        else
            assert_corrupt(rig, "tag");
    }
    /* Over the limit of a tag, though the record is long enough. */
    struct ring_record *record = push_victim(rig);
    rig_place(rig, 3 * SMALL);
    assert_int_equal(push_length(rig, RING_RELAY, 200), RING_PUSHED);
    record->payload_length = 0;
    record->tag_length = EVAPID_TAG_MAX + 1;
    assert_corrupt(rig, "tag");
    record->tag_length = EVAPID_TAG_MAX;
    assert_int_equal(take(rig).tag_length, EVAPID_TAG_MAX);
}

static void test_a_record_with_a_wrong_payload_length(void **state)
{
    static const uint32_t wrong[] = {
        31, 32, 40, 41, 64, SMALL, UINT32_MAX, UINT32_MAX - 9, UINT32_MAX - 33, (uint32_t)1 << 31
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        push_victim(rig)->payload_length = wrong[i];
        assert_corrupt(rig, "payload");
    }
    for (uint32_t length = 0; length <= 30; length++) {
        push_victim(rig)->payload_length = length;
        assert_int_equal(take(rig).payload_length, length);
    }
}

static void test_a_record_with_a_wrong_type(void **state)
{
    struct rig *rig = *state;
    for (unsigned type = 0; type < 256; type++) {
        push_victim(rig)->type = (uint8_t)type;
        if ((type >= RING_RELAY && type < RING_TYPES) || type == RING_LOST)
            assert_int_equal(take(rig).type, type);
        else
            assert_corrupt(rig, "type");
    }
}

/* Less was claimed than a header: that is no record, whatever the bytes behind it say. */
static void test_a_record_without_room_for_its_header(void **state)
{
    struct rig *rig = *state;
    for (uint64_t bytes = 8; bytes < sizeof(struct ring_record); bytes += 8) {
        push_victim(rig)->size = sizeof(struct ring_record);
        *claimed(rig) = 3 * SMALL + bytes;
        assert_corrupt(rig, "size");
    }
}

/* What a reader accepts lies between the position and head, and within the ring. Returns false at the end of it. */
static bool take_suspicious(struct ring_reader *reader, uint64_t *at)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    const enum ring_read read = ring_peek(reader, *at, &record, &why);
    assert_true(reader->head - reader->tail <= reader->capacity && reader->head % RING_ALIGN == 0);
    if (read != RING_RECORD) {
        assert_true(read == RING_EMPTY || why != NULL);
        return false;
    }
    assert_true(record.size >= sizeof(record) && record.size % RING_ALIGN == 0 && record.size <= reader->head - *at);
    assert_true(ring_type_is_known(record.type) && record.tag_length <= EVAPID_TAG_MAX);
    assert_true(sizeof(record) + record.tag_length + (uint64_t)record.payload_length <= record.size);
    char *tag, *payload;
    copy_out(reader, *at, &record, &tag, &payload);
    free(tag);
    free(payload);
    *at += record.size;
    return true;
}

/* Change a few bytes of what a reader goes by: records, and now and then a claim. */
static void scribble(struct rig *rig, unsigned *seed)
{
    for (int changes = 1 + rand_r(seed) % 4; changes > 0; changes--) {
        const uint64_t at = rig->header->tail + (uint64_t)(rand_r(seed) % 600);
        volatile unsigned char *byte = ring_records(rig->header) + at % SMALL;
        *byte = (unsigned char)(rand_r(seed) % 3 == 0 ? rand_r(seed) : *byte ^ 1 << rand_r(seed) % 8);
    }
    if (rand_r(seed) % 8 == 0)
        *claimed(rig) += (uint64_t)(rand_r(seed) % 5 - 2) * (rand_r(seed) % 2 == 0 ? 8 : SMALL / 2);
}

static void test_a_ring_scribbled_over(void **state)
{
    struct rig *rig = *state;
    unsigned seed = print_seed();
    size_t whole = 0, broken = 0;
    for (size_t round = 0; round < 20000; round++) {
        rig_place(rig, (uint64_t)(rand_r(&seed) % (2 * SMALL / RING_ALIGN)) * RING_ALIGN);
        for (int records = 1 + rand_r(&seed) % 5; records > 0; records--)
            assert_int_equal(push_numbered(rig, 1, (uint64_t)rand_r(&seed)), RING_PUSHED);
        const uint64_t head = rig->lane->head;
        scribble(rig, &seed);
        uint64_t at = rig->reader.tail;
        while (take_suspicious(&rig->reader, &at))
            ;
        if (at == head)
            whole++;
        else
            broken++;
    }
    assert_true(whole > 100 && broken > 100);
}

static int scribble_for_ever(struct rig *rig, unsigned producer)
{
    unsigned seed = (unsigned)getpid() + producer;
    while (getppid() != 1)
        scribble(rig, &seed);
    return 0;
}

/* The other side writes while evapid looks: what was checked is what is used. */
static void test_a_ring_scribbled_over_while_it_is_read(void **state)
{
    struct rig *rig = *state;
    size_t taken = 0, broken = 0;
    rig_fork(rig, 0, scribble_for_ever);
    for (size_t round = 0; round < 20000 || taken == 0 || broken == 0; round++) {
        rig_clear(rig, round % SMALL * RING_ALIGN);
        struct ring_reader reader = { 0 };
        for (uint64_t number = 0; number < 5; number++)
            push_numbered(rig, 1, round + number);
        if (ring_open(&reader, rig->header, ring_bytes(SMALL)) != NULL) {
            broken++;
            continue;
        }
        uint64_t at = reader.tail;
        while (take_suspicious(&reader, &at))
            taken++;
    }
}

enum { PEEKED_CORRUPT, PEEKED_RECORD, PEEKED_BEYOND };

static int peek_traced(struct rig *rig)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    if (ring_peek(&rig->reader, rig->reader.tail, &record, &why) != RING_RECORD)
        return PEEKED_CORRUPT;
    return record.size == 72 && record.tag_length == 10 && record.payload_length == 30 ? PEEKED_RECORD : PEEKED_BEYOND;
}

/* The record turns bad after each single instruction of a look at it: what was good is taken as it was, or nothing. */
static void test_a_record_that_turns_bad_at_every_instruction(void **state)
{
    struct rig *rig = *state;
    size_t counts[3] = { 0 };
    int result = PEEKED_BEYOND;
    push_victim(rig);
    if (!fork_traced(rig, peek_traced))
        skip();
    const size_t all = step(rig, SIZE_MAX, &result), places = places_to_stop(all);
    assert_int_equal(result, PEEKED_RECORD);
    for (size_t i = 0; i < places; i++) {
        struct ring_record *victim = push_victim(rig);
        assert_true(fork_traced(rig, peek_traced));
        if (step(rig, all * i / places, &result) < all * i / places)
            continue;
        victim->size = victim->payload_length = 8 * SMALL;
        victim->tag_length = 255;
        step(rig, SIZE_MAX, &result);
        assert_in_range(result, PEEKED_CORRUPT, PEEKED_BEYOND);
        counts[result]++;
    }
    assert_true(counts[PEEKED_CORRUPT] > 0 && counts[PEEKED_RECORD] > 0);
    assert_int_equal(counts[PEEKED_BEYOND], 0);
}

/* ---- an evapid that cannot be trusted ---------------------------------------------------------------------------- */

/* Producers go by their own head and capacity. A wild tail can make them lose events and no more. */
static void test_a_tail_that_lies(void **state)
{
    struct rig *rig = *state;
    unsigned seed = print_seed();
    size_t pushed = 0, full = 0;
    for (size_t round = 0; round < 50000; round++) {
        const uint64_t wild = (uint64_t)rand_r(&seed) << 40 ^ (uint64_t)rand_r(&seed) << 20 ^ (uint64_t)rand_r(&seed);
        rig->header->tail = rand_r(&seed) % 2 == 0 ? wild : rig->lane->head + (uint64_t)(rand_r(&seed) % 4096) - 2048;
        rig->header->capacity = wild;
        rig->header->key = wild;
        rig->header->hole = wild;
        rig->header->sleeping = wild;
        const uint64_t head = rig->lane->head;
        const enum ring_push result = push_numbered(rig, 1, round);
        if (result == RING_PUSHED) {
            pushed++;
            assert_in_range(rig->lane->head - head, sizeof(struct ring_record), SMALL / 2);
            ring_sleeper(rig->header, rig->lane);
        } else {
            full++;
            assert_int_equal(result, RING_FULL);
            assert_int_equal(rig->lane->head, head);
        }
        assert_int_equal(rig->lane->capacity, SMALL);
    }
    assert_true(pushed > 100 && full > 100);
}

/* A tail behind head by more than the ring, or in front of it, leaves no room, and a right one gives it back. */
static void test_a_tail_out_of_range_leaves_no_room(void **state)
{
    static const int64_t wrong[] = { 8, 24, SMALL, INT64_MIN, INT64_MAX - 7, -(int64_t)SMALL, -(int64_t)SMALL - 8 };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        rig_place(rig, 4 * SMALL);
        rig->header->tail = rig->lane->tail_seen = 4 * SMALL + (uint64_t)wrong[i];
        assert_int_equal(push_length(rig, RING_RELAY, 0), RING_FULL);
        assert_int_equal(push_length(rig, RING_DONE, 0), RING_FULL);
        rig->header->tail = 4 * SMALL;
        assert_int_equal(push_length(rig, RING_RELAY, 0), RING_PUSHED);
    }
}

/* A reader goes by its own tail: nobody can make it read twice, or what was never written. */
static void test_a_reader_keeps_its_own_tail(void **state)
{
    struct rig *rig = *state;
    for (uint64_t number = 0; number < 3; number++)
        assert_int_equal(push_numbered(rig, 1, number), RING_PUSHED);
    take_numbered(rig, 1, 0);
    rig->header->tail = 0;
    rig->header->capacity = 2 * SMALL;
    take_numbered(rig, 1, 1);
    rig->header->tail = UINT64_MAX - 7;
    take_numbered(rig, 1, 2);
    assert_int_equal(rig->header->tail, rig->lane->head);
    assert_empty(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_RING(test_a_header_with_a_wrong_shape),
        WITH_RING(test_a_header_with_a_wrong_capacity),
        WITH_RING(test_a_memfd_of_a_wrong_size),
        WITH_RING(test_a_memfd_without_a_header),
        WITH_RING(test_a_header_with_impossible_positions),
        WITH_RING(test_a_claim_that_jumps),
        WITH_RING(test_a_claim_that_goes_back),
        WITH_RING(test_more_slots_than_there_are),
        WITH_RING(test_a_record_with_a_wrong_size),
        WITH_RING(test_a_record_with_a_wrong_tag_length),
        WITH_RING(test_a_record_with_a_wrong_payload_length),
        WITH_RING(test_a_record_with_a_wrong_type),
        WITH_RING(test_a_record_without_room_for_its_header),
        WITH_RING(test_a_ring_scribbled_over),
        WITH_RING(test_a_ring_scribbled_over_while_it_is_read),
        WITH_RING(test_a_record_that_turns_bad_at_every_instruction),
        WITH_RING(test_a_tail_that_lies),
        WITH_RING(test_a_tail_out_of_range_leaves_no_room),
        WITH_RING(test_a_reader_keeps_its_own_tail),
    };
    return cmocka_run_group_tests_name("ring, trust", tests, NULL, NULL);
}
