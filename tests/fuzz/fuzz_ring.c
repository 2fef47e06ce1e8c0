/* Fuzzing the ring's reader, in memory of its own: a ring of the smallest size whose header and records come from the
 * input, while it is read as daemon/kamailio/intake.c reads it.
 *
 * Whatever is in the ring, the reader stays within its memory, never goes back, writes to nothing but its own fields, and
 * what it accepts is a record that was wholly there. As long as nobody scribbles, it is what was pushed. */
#include "evapid/lane.h"
#include "input.h"

#define CAPACITY EVAPID_RING_MIN
#define PUSHED_MAX 4096

static struct ring_header *ring; /* in a block of just its size */
static struct ring_lane lane;
static unsigned slot;
static struct ring_reader reader;

/* What was pushed, and not been read, while nobody had scribbled. */
static struct {
    struct ring_record records[PUSHED_MAX];
    uint8_t tags[PUSHED_MAX], fills[PUSHED_MAX]; /* the byte that the tag and the payload consist of */
    size_t first, count;
    bool trusted;
} pushed;

static void begin(struct input *in)
{
    static const uint64_t starts[] = { 0, CAPACITY - 8, 1UL << 32, UINT64_MAX - 7, UINT64_MAX - CAPACITY + 1 };
    if (ring == NULL)
        ring = aligned_alloc(4096, ring_bytes(CAPACITY));
    assert(ring != NULL);
    memset(ring, 0, offsetof(struct ring_header, presence) + sizeof(uint32_t) * 16);
    memset(ring->slots, 0, sizeof(ring->slots));
    memset(&lane, 0, sizeof(lane));
    memset(ring_records(ring), 0, CAPACITY);
    const uint64_t start = starts[input_below(in, sizeof(starts) / sizeof(*starts))];
    assert(ring_make(ring, &lane, CAPACITY, input_number(in, 8)) == 0);
    lane.head = lane.tail_seen = start;
    atomic_store(&ring->tail, start);
    for (size_t i = 0; i < RING_SLOTS; i++)
        atomic_store(&ring->slots[i].claimed, start);
    slot = ring_join(ring, &lane);
    pushed.first = pushed.count = 0;
    pushed.trusted = true;
    assert(ring_open(&reader, ring, ring_bytes(CAPACITY)) == NULL);
}

/* ---- what producers and scribblers do ------------------------------------------------------------------------------ */

static void do_push(struct input *in)
{
    char bytes[2048];
    char tag[EVAPID_TAG_MAX + 1];
    struct ring_record record = { .type = (uint8_t)(RING_RELAY + input_below(in, RING_TYPES - 1)) };
    const uint8_t fill = (uint8_t)input_number(in, 1);
    const size_t tag_length = input_below(in, sizeof(tag) + 1);
    const size_t length = input_below(in, sizeof(bytes) + 1);
    record.worker = (uint16_t)input_number(in, 1);
    record.target = input_number(in, 2);
    memset(tag, fill, sizeof(tag));
    memset(bytes, fill + 1, sizeof(bytes));
    const enum ring_push outcome = ring_push(ring, &lane, slot, record, tag, tag_length, bytes, length);
    assert((outcome == RING_LARGE) == (tag_length > EVAPID_TAG_MAX));
    if (outcome != RING_PUSHED || !pushed.trusted)
        return;
    record.tag_length = (uint8_t)tag_length;
    record.payload_length = (uint32_t)length;
    const size_t at = (pushed.first + pushed.count++) % PUSHED_MAX;
    assert(pushed.count <= PUSHED_MAX); /* a ring of that size holds fewer */
    pushed.records[at] = record;
    pushed.tags[at] = fill;
    pushed.fills[at] = (uint8_t)(fill + 1);
}

/* Bytes of the input, over a record that waits or anywhere. */
static void do_scribble(struct input *in)
{
    size_t taken = 0;
    const size_t offset = input_number(in, 2);
    const uint64_t at = input_below(in, 2) == 0 ? reader.tail + offset % 64 : offset;
    const uint8_t *bytes = input_take(in, 1 + input_below(in, 40), &taken);
    ring_write(ring, CAPACITY, at, bytes, taken);
    pushed.trusted = false;
}

/* Into a slot: what was noted, its end, or what was claimed. */
static void do_scribble_claim(struct input *in)
{
    const uint64_t by = input_number(in, 8);
    _Atomic uint64_t *words = &ring->slots[input_below(in, 3)].noted;
    atomic_store(&words[input_below(in, 3)], input_below(in, 2) == 0 ? by : reader.tail + by % (2 * CAPACITY));
    pushed.trusted = false;
}

static void do_scribble_header(struct input *in)
{
    size_t taken = 0;
    const size_t at = input_below(in, offsetof(struct ring_header, workers));
    const uint8_t *bytes = input_take(in, 1 + input_below(in, 16), &taken);
    if (taken > sizeof(*ring) - at)
        return;
    memcpy((unsigned char *)ring + at, bytes, taken);
    pushed.trusted = false;
}

/* ---- the reader ------------------------------------------------------------------------------------------------------ */

static void check_read(const struct ring_record *record, const unsigned char *tag, const unsigned char *payload)
{
    if (!pushed.trusted)
        return;
    assert(pushed.count > 0);
    const struct ring_record *was = &pushed.records[pushed.first];
    assert(record->type == was->type && record->tag_length == was->tag_length && record->worker == was->worker);
    assert(record->payload_length == was->payload_length && record->target == was->target);
    for (size_t i = 0; i < record->tag_length; i++)
        assert(tag[i] == pushed.tags[pushed.first]);
    for (size_t i = 0; i < record->payload_length; i++)
        assert(payload[i] == pushed.fills[pushed.first]);
    pushed.first = (pushed.first + 1) % PUSHED_MAX;
    pushed.count--;
}

/* Read the record at tail. */
static enum ring_read do_read(void)
{
    struct ring_record record;
    const char *why = NULL;
    const uint64_t tail = reader.tail;
    const enum ring_read read = ring_peek(&reader, tail, &record, &why);
    assert((why != NULL) == (read == RING_CORRUPT) || read == RING_EMPTY);
    assert(reader.tail == tail && reader.head - tail <= CAPACITY && reader.head % RING_ALIGN == 0);
    if (read != RING_RECORD) {
        assert(!pushed.trusted || (read == RING_EMPTY && pushed.count == 0));
        return read;
    }
    assert(ring_type_is_known(record.type) && record.tag_length <= EVAPID_TAG_MAX);
    assert(record.size % RING_ALIGN == 0 && record.size <= reader.head - tail);
    assert(sizeof(record) + record.tag_length + (size_t)record.payload_length <= record.size);
    unsigned char *tag = malloc(record.tag_length + 1U);
    unsigned char *payload = malloc(record.payload_length + 1U);
    assert(tag != NULL && payload != NULL);
    ring_copy(&reader, tail + sizeof(record), tag, record.tag_length);
    ring_copy(&reader, tail + sizeof(record) + record.tag_length, payload, record.payload_length);
    check_read(&record, tag, payload);
    free(tag);
    free(payload);
    reader.tail = tail + record.size;
    return RING_RECORD;
}

static void do_sleep(void)
{
    const uint64_t before = reader.sleeps;
    const bool asleep = ring_sleep(&reader, reader.tail);
    assert(reader.sleeps != 0 && reader.sleeps != before);
    const uint64_t sleeping = atomic_load(&ring->sleeping);
    assert(asleep ? (sleeping & ~RING_AT_HOLE) == reader.sleeps : sleeping == 0);
    ring_sleeper(ring, &lane);
    assert(!pushed.trusted || asleep == (pushed.count == 0));
}

/* A producer dies, having claimed or only noted; others mend, or evapid skips. */
static void do_mend(struct input *in)
{
    const unsigned other = ring_join(ring, &lane);
    uint64_t at = 0;
    assert(other < RING_SLOTS);
    if (ring_claim(ring, &lane, other, sizeof(struct ring_record) + 8 * input_below(in, 40), true, &at) &&
        input_below(in, 2) == 0)
        atomic_store(&ring->slots[other].claimed, at);
    ring_leave(&lane, other); /* a slot without an owner counts as one whose owner has died */
    pushed.trusted = false;
    if (input_below(in, 2) == 0) {
        ring_mend(ring, &lane);
    } else {
        const uint64_t end = ring_skip(&reader, reader.tail);
        assert(end == 0 ||
               (end - reader.tail <= CAPACITY && end % RING_ALIGN == 0 && reader.head - reader.tail <= CAPACITY));
    }
}

/* Another evapid takes over the ring as it is: it reads on, or says why it can't. */
static void do_reopen(void)
{
    struct ring_reader next;
    const char *why = ring_open(&next, ring, ring_bytes(CAPACITY));
    assert(why == NULL || (why[0] != '\0' && !pushed.trusted));
    if (why != NULL)
        return;
    assert(next.capacity == CAPACITY && next.head - next.tail <= CAPACITY && next.tail % RING_ALIGN == 0);
    assert(!pushed.trusted || next.tail == reader.tail || next.head - next.tail >= reader.head - reader.tail);
    if (!pushed.trusted)
        reader = next;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct input in = input_of(bytes, length);
    begin(&in);
    enum ring_read read = RING_EMPTY;
    while (input_left(&in) > 0 && read != RING_CORRUPT) {
        switch (input_below(&in, 11)) {
        case 0: do_scribble(&in); break;
        case 1: do_scribble_claim(&in); break;
        case 2: do_scribble_header(&in); break;
        case 3: do_sleep(); break;
        case 4: ring_release(&reader); break;
        case 5: do_reopen(); break;
        case 7: do_mend(&in); break;
        case 6: read = do_read(); break;
        default: do_push(&in); break;
        }
    }
    while (read != RING_CORRUPT && do_read() == RING_RECORD)
        continue;
    ring_leave(&lane, slot);
    return 0;
}
