/* Fuzzing the intake: daemon/kamailio/intake.c with a real sealed memfd, on a real loop, held and resumed at any time, while its
 * ring is pushed to and scribbled on.
 *
 * Records that nobody scribbled on are handed over whole and in order: events and control records in their turn, control
 * records ahead of it while the intake is held, a done once. Whatever is scribbled, the intake stops at most once, hands
 * over nothing after that, and what it hands over lies in the ring. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "input.h"
#include "evapid/lane.h"
#include "kamailio/intake.h"

#define CAPACITY EVAPID_RING_MIN
#define PUSHED_MAX 4096
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static uv_loop_t loop;
static struct ring_header *ring;
static struct ring_lane lane;
static unsigned slot;
static struct intake *intake;
static int wake[2]; /* ours, and the intake's */
static unsigned corrupt;
static uint8_t on_record; /* what the host does within a call: hold, resume, nothing */

/* Records that were pushed, while nobody had scribbled: those before turn have been handed over in their turn, and of the
 * control records those before ahead, ahead of it. */
static struct {
    uint8_t types[PUSHED_MAX];
    size_t count, turn, ahead;
    bool trusted;
} pushed;

static void within(void)
{
    if (on_record % 8 == 1)
        intake_hold(intake);
    if (on_record % 8 == 2)
        intake_resume(intake);
    on_record /= 8;
}

/* The record that was pushed as number record->target is handed over in its turn. */
static void check_turn(const struct ring_record *record)
{
    while (pushed.turn < record->target) { /* what was left out may be but a done that has been heard */
        assert(pushed.types[pushed.turn] == RING_DONE && pushed.turn < pushed.ahead);
        pushed.turn++;
    }
    assert(record->target < pushed.count && record->type == pushed.types[pushed.turn]);
    assert(record->type != RING_DONE || pushed.turn >= pushed.ahead);
    pushed.turn++;
}

static void check_ahead(const struct ring_record *record)
{
    const size_t from = pushed.ahead > pushed.turn ? pushed.ahead : pushed.turn;
    for (size_t i = from; i < record->target; i++)
        assert(!ring_type_is_control(pushed.types[i]));
    assert(record->target >= from && record->target < pushed.count && record->type == pushed.types[record->target]);
    pushed.ahead = (size_t)record->target + 1;
}

static void on_event(void *owner, const struct ring_record *record, const char *tag, const struct payload *payload)
{
    char *bytes = malloc(record->payload_length + 1U);
    (void)owner;
    assert(bytes != NULL && corrupt == 0 && intake->state == INTAKE_RUNNING);
    assert(payload_length(payload) == record->payload_length && record->tag_length <= EVAPID_TAG_MAX);
    framing_write(FRAMING_RAW, bytes, payload);
    if (pushed.trusted) {
        check_turn(record);
        for (size_t i = 0; i < record->tag_length; i++)
            assert(tag[i] == (char)record->worker);
        for (size_t i = 0; i < record->payload_length; i++)
            assert(bytes[i] == (char)record->worker);
    }
    free(bytes);
    within();
}

static void on_control(void *owner, const struct ring_record *record, const char *tag, bool ahead)
{
    (void)owner;
    assert(corrupt == 0 && ring_type_is_control(record->type) && ahead == (intake->state == INTAKE_HELD));
    if (pushed.trusted && ahead)
        check_ahead(record);
    else if (pushed.trusted)
        check_turn(record);
    for (size_t i = 0; i < record->tag_length && pushed.trusted; i++)
        assert(tag[i] == (char)record->worker);
    within();
}

static void on_crowded(void *owner)
{
    (void)owner;
    assert(intake->state == INTAKE_HELD);
    intake_resume(intake);
}

static void on_commit(void *owner, uint64_t tail)
{
    assert(owner == NULL && tail % RING_ALIGN == 0);
}

static void on_corrupt(void *owner, uint64_t at, const char *why)
{
    (void)owner;
    (void)at;
    assert(!pushed.trusted && why != NULL && intake->state == INTAKE_CORRUPT);
    corrupt++;
}

/* ---- what happens to the ring ---------------------------------------------------------------------------------------- */

static void do_push(struct input *in)
{
    char bytes[4096];
    struct ring_record record = { .type = (uint8_t)(RING_RELAY + input_below(in, RING_TYPES - 1)) };
    const size_t tag_length = input_below(in, EVAPID_TAG_MAX + 1);
    const size_t length = input_below(in, sizeof(bytes) + 1);
    record.worker = (uint16_t)(1 + input_below(in, 100));
    record.target = pushed.count;
    memset(bytes, record.worker, sizeof(bytes));
    if (pushed.count == PUSHED_MAX ||
        ring_push(ring, &lane, slot, record, bytes, tag_length, bytes, length) != RING_PUSHED)
        return;
    pushed.types[pushed.count++] = record.type;
    const uint64_t sleep = ring_sleeper(ring, &lane);
    if (sleep != 0 && (send(wake[0], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 || errno == EAGAIN))
        ring_woken(ring, sleep);
}

static void do_scribble(struct input *in)
{
    size_t taken = 0;
    const size_t offset = input_number(in, 2);
    const uint64_t at = input_below(in, 2) == 0 ? intake->ring.tail + offset % 256 : offset;
    const uint8_t *bytes = input_take(in, 1 + input_below(in, 40), &taken);
    ring_write(ring, CAPACITY, at, bytes, taken);
    pushed.trusted = false;
}

static void do_scribble_header(struct input *in)
{
    size_t taken = 0;
    const size_t at = input_below(in, offsetof(struct ring_header, workers));
    const uint8_t *bytes = input_take(in, 1 + input_below(in, 16), &taken);
    memcpy((unsigned char *)ring + at, bytes, taken);
    pushed.trusted = false;
}

/* Turn by turn, read all that has been written up to now. A scribble may have claimed what nobody publishes: as evapid does
 * when all producers have gone, skip that. */
static void drain(void)
{
    const uint64_t until = intake_end(intake);
    for (;;) {
        const uint64_t before = intake->ring.tail;
        if (corrupt == 0)
            intake_read_batch(intake);
        if (intake_has_read(intake, until))
            return;
        if (!pushed.trusted && intake->ring.tail == before)
            intake_skip_hole(intake);
        intake_await_answers(intake, false, false);
    }
}

static void do_scribble_claim(struct input *in)
{
    const uint64_t by = input_number(in, 8);
    _Atomic uint64_t *words = &ring->slots[input_below(in, 3)].noted;
    atomic_store(&words[input_below(in, 3)], intake->ring.tail + by % (2 * CAPACITY));
    pushed.trusted = false;
}

static void do_step(struct input *in)
{
    switch (input_below(in, 13)) {
    case 0: intake_hold(intake); break;
    case 1: intake_resume(intake); break;
    case 2: drain(); break;
    case 3:
        if (corrupt == 0)
            intake_read_batch(intake);
        break;
    case 4: intake_tick(intake); break;
    case 5: intake_await_answers(intake, input_below(in, 2) == 1, input_below(in, 2) == 1); break;
    case 6: on_record = (uint8_t)input_number(in, 1); break;
    case 7: do_scribble(in); break;
    case 8: do_scribble_header(in); break;
    case 10: do_scribble_claim(in); break;
    case 9: uv_run(&loop, UV_RUN_NOWAIT); break;
    default: do_push(in); break;
    }
}

/* ---- one ring -------------------------------------------------------------------------------------------------------- */

static void begin(struct input *in)
{
    static const struct intake_host host = {
        .event = on_event, .control = on_control, .crowded = on_crowded, .corrupt = on_corrupt, .commit = on_commit
    };
    static const uint64_t starts[] = { 0, CAPACITY - 8, 1UL << 32, UINT64_MAX - 7, UINT64_MAX - CAPACITY + 1 };
    const int memfd = memfd_create("ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const char *why = NULL;
    assert(memfd >= 0 && ftruncate(memfd, (off_t)ring_bytes(CAPACITY)) == 0 && fcntl(memfd, F_ADD_SEALS, SEALS) == 0);
    ring = mmap(NULL, ring_bytes(CAPACITY), PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    memset(&lane, 0, sizeof(lane));
    assert(ring != MAP_FAILED && ring_make(ring, &lane, CAPACITY, input_number(in, 8)) == 0);
    lane.head = lane.tail_seen = starts[input_below(in, sizeof(starts) / sizeof(*starts))];
    atomic_store(&ring->tail, lane.head);
    for (size_t i = 0; i < RING_SLOTS; i++)
        atomic_store(&ring->slots[i].claimed, lane.head);
    slot = ring_join(ring, &lane);
    corrupt = 0;
    on_record = 0;
    pushed.count = pushed.turn = pushed.ahead = 0;
    pushed.trusted = true;
    assert(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, wake) == 0);
    intake = intake_open(&loop, memfd, wake[1], &host, &why);
    assert(intake != NULL && why == NULL);
}

/* Everything is handed over in the end, and an intake that has stopped has said so once. */
static void end(void)
{
    on_record = 0;
    intake_resume(intake);
    for (int i = 0; i < 3; i++)
        drain();
    if (pushed.trusted) {
        while (pushed.turn < pushed.count && pushed.types[pushed.turn] == RING_DONE && pushed.turn < pushed.ahead)
            pushed.turn++;
        assert(pushed.turn == pushed.count && intake_used(intake) == 0);
        assert(atomic_load(&ring->tail) == lane.head);
    }
    assert(corrupt == (intake->state == INTAKE_CORRUPT));
    intake_close(intake);
    close(wake[0]);
    uv_run(&loop, UV_RUN_DEFAULT);
    munmap(ring, ring_bytes(CAPACITY));
    ring_leave(&lane, slot);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct input in = input_of(bytes, length);
    if (loop.data == NULL) {
        assert(uv_loop_init(&loop) == 0);
        loop.data = &loop;
    }
    begin(&in);
    for (int i = 0; i < 2000 && input_left(&in) > 0; i++)
        do_step(&in);
    end();
    return 0;
}
