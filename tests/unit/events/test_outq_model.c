/* The output queue against a model: after any mixture of operations, each queue that follows a run has the right bytes,
 * events and pins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/state.h"
#include "events/outq.h"
#include "memory.h"

#define WHOLE (RUN_CHUNK - sizeof(struct chunk_end)) /* bytes of a raw event that fills a chunk */
#define QUEUES 5
#define ROOM ((size_t)1 << 20)   /* bytes that a model holds: more than any queue's limit */
#define EVENTS ((size_t)1 << 19) /* events that a model holds */
#define LARGEST (2 * RUN_CHUNK)

/* What a queue should contain: the bytes that wait, by their position in its stream, and where each event ends. */
struct model {
    struct outq q;
    bool follows;
    char *bytes;                /* a ring of ROOM */
    uint64_t *ends;             /* a ring of EVENTS */
    uint64_t sent, queued;      /* positions in the stream */
    uint64_t first, last;       /* numbers of events: the first that waits, the next to come */
    uint64_t given, given_last; /* events given so far, and at the last count */
    uint64_t whole, dropped;    /* events sent whole, and dropped */
};

static struct model models[QUEUES];
static unsigned seed;
static uint64_t drops; /* events dropped from one end of a queue */

static size_t any(size_t of)
{
    return ((size_t)rand_r(&seed) << 15 ^ (size_t)rand_r(&seed)) % of;
}

/* Sizes of payloads: mostly small, some about as large as a chunk. */
static size_t any_size(void)
{
    const size_t kind = any(1000);
    return 1 + (kind < 700 ? any(300) : kind < 980 ? any(9000) : kind < 995 ? WHOLE - 8 + any(16) : any(LARGEST - 1));
}

static struct payload any_payload(size_t size)
{
    static char bytes[LARGEST];
    const size_t first = any(size + 1);
    const size_t salt = any(256);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(i * 7 + i / 256 + salt);
    return (struct payload){ .part = { bytes, bytes + first }, .length = { first, size - first } };
}

static size_t model_bytes(const struct model *model)
{
    return (size_t)(model->queued - model->sent);
}

static uint64_t model_events(const struct model *model)
{
    return model->last - model->first;
}

static void model_add(struct model *model, enum framing framing, const struct payload *payload)
{
    static char framed[LARGEST + 32];
    const size_t size = framing_size(framing, payload_length(payload));
    framing_write(framing, framed, payload);
    assert_true(model_bytes(model) + size <= ROOM && model_events(model) < EVENTS);
    for (size_t i = 0; i < size; i++)
        model->bytes[(model->queued + i) % ROOM] = framed[i];
    model->queued += size;
    model->ends[model->last++ % EVENTS] = model->queued;
    model->given++;
}

static void model_empty(struct model *model)
{
    model->first = model->last;
    model->sent = model->queued;
}

/* Keep only the rest of the first event, if it is half sent. Returns how many others waited. */
static uint64_t model_keep_begun(struct model *model)
{
    const uint64_t waiting = model_events(model);
    const uint64_t begin = model->first > 0 ? model->ends[(model->first - 1) % EVENTS] : 0;
    if (waiting == 0 || model->sent == begin) {
        model_empty(model);
        return waiting;
    }
    model->last = model->first + 1;
    model->queued = model->ends[model->first % EVENTS];
    return waiting - 1;
}

/* Where an event begins in the stream. */
static uint64_t model_begin(const struct model *model, uint64_t event)
{
    return event > 0 ? model->ends[(event - 1) % EVENTS] : 0;
}

static bool model_has_begun(const struct model *model)
{
    return model_events(model) > 0 && model->sent > model_begin(model, model->first);
}

/* Remove the events from number from up to number to, at either end or in the middle. */
static void model_take_out(struct model *model, uint64_t from, uint64_t to)
{
    const uint64_t begin = model_begin(model, from);
    const uint64_t gap = model_begin(model, to) - begin;
    for (uint64_t at = begin; at + gap < model->queued; at++)
        model->bytes[at % ROOM] = model->bytes[(at + gap) % ROOM];
    for (uint64_t event = to; event < model->last; event++)
        model->ends[(event - (to - from)) % EVENTS] = model->ends[event % EVENTS] - gap;
    model->queued -= gap;
    model->last -= to - from;
    model->dropped += to - from;
}

/* How many whole events must go, the oldest or the newest, so that the queue keeps no more than so many bytes. */
static uint64_t model_excess(const struct model *model, size_t keep, bool oldest)
{
    const uint64_t first = model->first + model_has_begun(model);
    uint64_t events = 0;
    size_t gone = 0;
    while (model_bytes(model) - gone > keep && first + events < model->last) {
        events++;
        gone = (size_t)(oldest ? model_begin(model, first + events) - model_begin(model, first)
                               : model->queued - model_begin(model, model->last - events));
    }
    return events;
}

/* As the bus does: a queue without room for an event of size bytes leaves the run. Up to review_at, all have room. */
static void review(struct run *of, size_t size)
{
    const bool wanted = of->bytes + size > of->review_at;
    if (wanted)
        of->review_at = UINT64_MAX;
    for (size_t i = 0; i < QUEUES; i++) {
        struct model *model = &models[i];
        if (!model->follows)
            continue;
        const bool fits = model_bytes(model) + size <= model->q.limit;
        assert_true(fits || wanted);
        assert_int_equal(outq_review_at(&model->q), of->bytes + model->q.limit - model_bytes(model));
        if (!fits) {
            assert_true(outq_leave(&model->q));
            model->follows = false;
        } else if (wanted && outq_review_at(&model->q) < of->review_at) {
            of->review_at = outq_review_at(&model->q);
        }
    }
}

static void act_append(struct run *of)
{
    const struct payload payload = any_payload(any_size());
    review(of, framing_size(of->framing, payload_length(&payload)));
    const bool short_of_memory = any(50) == 0;
    memory_limit(short_of_memory ? 0 : -1);
    const bool appended = run_append(of, &payload);
    memory_limit(-1);
    assert_true(appended || short_of_memory);
    for (size_t i = 0; i < QUEUES && appended; i++)
        if (models[i].follows)
            model_add(&models[i], of->framing, &payload);
}

/* Push one event, in one chunk, to some queues. Returns how many had no room for it. */
static unsigned act_push(enum framing framing)
{
    const struct payload payload = any_payload(any_size());
    struct chunk *chunk = chunk_of_event(framing, &payload);
    unsigned refused = 0;
    assert_non_null(chunk);
    for (size_t i = 0; i < QUEUES; i++) {
        struct model *model = &models[i];
        if (any(2) == 0)
            continue;
        const bool fits = chunk->used <= model->q.limit - model_bytes(model);
        const bool short_of_memory = any(20) == 0;
        memory_limit(short_of_memory ? 0 : -1);
        const bool pushed = outq_push(&model->q, chunk);
        memory_limit(-1);
        assert_true(pushed ? fits : !fits || short_of_memory);
        if (pushed)
            model_add(model, framing, &payload);
        refused += !fits;
    }
    chunk_unref(chunk);
    return refused;
}

/* The queue gathers what the model holds, as much as fits into that many iovecs. Returns its bytes. */
static size_t compare_gathered(const struct model *model, int most)
{
    struct iovec iov[64];
    size_t length = 0;
    const int n = outq_gather(&model->q, iov, most);
    assert_in_range(n, 0, most);
    assert_true(n > 0 || most == 0 || model_bytes(model) == 0);
    for (int i = 0; i < n; i++) {
        const char *at = iov[i].iov_base;
        assert_true(iov[i].iov_len > 0);
        assert_true(length + iov[i].iov_len <= model_bytes(model));
        for (size_t j = 0; j < iov[i].iov_len; j++)
            if (at[j] != model->bytes[(model->sent + length + j) % ROOM])
                fail_msg("byte %zu of what waits is wrong", length + j);
        length += iov[i].iov_len;
    }
    return length;
}

static void act_send(struct model *model)
{
    const size_t all = compare_gathered(model, (int)any(64));
    const size_t size = any(4) == 0 ? all : any(all + 1);
    uint64_t whole = 0;
    model->sent += size;
    while (model->first < model->last && model->ends[model->first % EVENTS] <= model->sent) {
        model->first++;
        whole++;
    }
    model->whole += whole;
    assert_int_equal(outq_sent(&model->q, size), whole);
}

static void act_leave(struct model *model)
{
    const bool short_of_memory = any(4) == 0;
    memory_limit(short_of_memory ? 0 : -1);
    const bool left = outq_leave(&model->q);
    memory_limit(-1);
    assert_true(left || short_of_memory);
    model->follows = model->follows && !left;
}

static void act_clear(struct model *model)
{
    const uint64_t waiting = model_events(model);
    if (any(3) > 0) {
        const uint64_t others = model_keep_begun(model);
        const bool short_of_memory = any(8) == 0 && others < waiting;
        memory_limit(short_of_memory ? 0 : -1);
        assert_int_equal(outq_keep_begun(&model->q), others + short_of_memory);
        memory_limit(-1);
        if (short_of_memory)
            model_empty(model);
        model->dropped += others + short_of_memory;
    } else {
        assert_int_equal(outq_clear(&model->q), waiting);
        model->dropped += waiting;
        model_empty(model);
    }
    model->follows = false;
}

/* Drop whole events from one end until no more than keep bytes wait. */
static void act_drop(struct model *model)
{
    const bool oldest = any(2) == 0;
    const size_t keep = any(4) == 0 ? 0 : any(model_bytes(model) + 2);
    if (!oldest) {
        assert_true(outq_leave(&model->q));
        model->follows = false;
    }
    const uint64_t first = model->first + model_has_begun(model);
    const uint64_t excess = model_excess(model, keep, oldest);
    const bool short_of_memory = any(4) == 0;
    memory_limit(short_of_memory ? 0 : -1);
    const uint64_t dropped = oldest ? outq_drop_oldest(&model->q, keep) : outq_drop_newest(&model->q, keep);
    memory_limit(-1);
    if (dropped != excess)
        assert_true(dropped == 0 && short_of_memory && oldest && model_has_begun(model));
    else if (oldest)
        model_take_out(model, first, first + excess);
    else
        model_take_out(model, model->last - excess, model->last);
    drops += dropped;
}

/* End a turn. A queue that was not sent everything keeps its place in the run. */
static void act_trim(struct run *of)
{
    for (size_t i = 0; i < QUEUES; i++)
        if (!outq_is_empty(&models[i].q))
            outq_pin(&models[i].q);
    run_trim(of);
    assert_int_equal(of->mark, of->bytes);
    assert_in_range(of->spares, 0, 16);
    if (of->first != NULL && of->first->pins == 0) { /* a chunk that no queue waits for is not kept */
        assert_ptr_equal(of->first, of->last);
        assert_true(of->first->used == 0 || of->first->refs > 1);
    }
}

/* As a hand-over does: save the run and the queues, and load them into new ones. */
static void act_hand_over(struct run *of)
{
    struct state_out out;
    struct state_in in;
    const enum framing framing = of->framing;
    act_trim(of);
    assert_true(state_begin(&out));
    state_put_record(&out, "run");
    run_save(of, &out);
    state_put_end(&out);
    for (size_t i = 0; i < QUEUES; i++) {
        state_put_record(&out, "queue");
        outq_save(&models[i].q, &out);
        state_put_end(&out);
    }
    const int memfd = state_end(&out);
    for (size_t i = 0; i < QUEUES; i++)
        outq_clear(&models[i].q);
    run_close(of);
    run_open(of, framing);
    assert_null(state_open(&in, memfd));
    state_get_record(&in, "run");
    assert_true(run_load(of, &in));
    state_get_end(&in);
    for (size_t i = 0; i < QUEUES; i++) {
        outq_init(&models[i].q, framing, models[i].q.limit);
        assert_true(state_get_next(&in, "queue"));
        assert_true(outq_load(&models[i].q, &in) && outq_resume(&models[i].q, of));
        state_get_end(&in);
    }
    assert_true(state_finish(&in));
    assert_int_equal(in.unknown_count, 0);
    assert_true(state_close(&in));
}

/* Counts, bytes and pins agree with the model. */
static void compare(const struct run *of)
{
    uint32_t followers = 0;
    unsigned pinned = 0;
    for (size_t i = 0; i < QUEUES; i++) {
        struct model *model = &models[i];
        assert_int_equal(outq_bytes(&model->q), model_bytes(model));
        assert_int_equal(outq_events(&model->q), model_events(model));
        assert_int_equal(outq_is_empty(&model->q), model_bytes(model) == 0);
        assert_int_equal(model->q.run != NULL, model->follows);
        assert_true(outq_bytes(&model->q) <= model->q.limit);
        assert_int_equal(outq_room(&model->q), model->q.limit - model_bytes(model));
        assert_int_equal(outq_begun(&model->q),
                         model_has_begun(model) ? model->ends[model->first % EVENTS] - model->sent : 0);
        assert_int_equal(model->given, model->whole + model_events(model) + model->dropped);
        followers += model->follows;
        pinned += model->q.pin != NULL;
        struct chunk *pin = model->q.pin; /* the chunk at the queue's position: an earlier one would keep too much */
        if (pin != NULL)
            assert_true(model->follows && pin == run_find(of, pin, model->q.byte));
        if (any(16) == 0) {
            assert_int_equal(outq_collect_given(&model->q), model->given - model->given_last);
            model->given_last = model->given;
        }
    }
    assert_int_equal(of->followers, followers);
    for (const struct chunk *chunk = of->first; chunk != NULL; chunk = chunk->next)
        pinned -= chunk->pins;
    assert_int_equal(pinned, 0);
}

static void act(struct run *of, bool slow, unsigned *refused)
{
    struct model *model = &models[any(QUEUES)];
    const size_t action = any(1000);
    if (action < 450) {
        act_append(of);
    } else if (action < 550) {
        *refused += act_push(of->framing);
    } else if (action < 850) {
        if (!slow || any(20) == 0)
            act_send(model);
    } else if (action < 910) {
        act_trim(of);
    } else if (action < 955) {
        if (!model->follows)
            outq_follow(&model->q, of);
        model->follows = true;
    } else if (action < 970) {
        act_leave(model);
    } else if (action < 990) {
        act_drop(model);
    } else if (action < 998) {
        act_clear(model);
    } else {
        act_hand_over(of);
    }
}

static void open_models(enum framing framing)
{
    for (size_t i = 0; i < QUEUES; i++) {
        models[i] = (struct model){ .bytes = malloc(ROOM), .ends = calloc(EVENTS, sizeof(uint64_t)) };
        assert_true(models[i].bytes != NULL && models[i].ends != NULL);
        outq_init(&models[i].q, framing, i == 0 ? 5000 : i == 1 ? RUN_CHUNK : i * 4 * RUN_CHUNK / 2);
    }
}

/* After any operations in any order, each queue has the bytes that were put into it and the model's counts. In the end
 * all memory is freed, as the sanitizers check. */
static void check_against_the_model(enum framing framing, unsigned seed_of_round)
{
    struct run of;
    unsigned refused = 0;
    uint64_t whole = 0;
    uint64_t dropped = 0;
    drops = 0;
    uint64_t kept = 0; /* greatest length of the run */
    seed = seed_of_round;
    run_open(&of, framing);
    open_models(framing);
    for (unsigned round = 0; round < 30000; round++) {
        act(&of, round / 1000 % 2 == 0, &refused);
        compare(&of);
        kept = of.first != NULL && of.last->first_byte - of.first->first_byte > kept
                   ? of.last->first_byte - of.first->first_byte
                   : kept;
    }
    for (size_t i = 0; i < QUEUES; i++) {
        while (model_bytes(&models[i]) > 0 && i % 2 == 0)
            act_send(&models[i]);
        whole += models[i].whole;
        act_clear(&models[i]);
        outq_clear(&models[i].q);
        dropped += models[i].dropped;
        free(models[i].bytes);
        free(models[i].ends);
    }
    assert_true(of.review_at == UINT64_MAX);
    run_trim(&of);
    assert_true(of.first == NULL || of.first->used == 0);
    run_close(&of);
    assert_true(of.bytes > 100ULL * RUN_CHUNK && kept > 3ULL * RUN_CHUNK);
    assert_true(whole > 10000 && dropped > 1000 && refused > 100 && drops > 1000);
    assert_int_equal(chunk_memory(), 0);
    assert_int_equal(outq_memory(), 0);
}

static void test_any_mixture_gives_the_bytes_of_a_model(void **state)
{
    (void)state;
    for (unsigned round = 1; round <= 3; round++) {
        check_against_the_model(FRAMING_NETSTRING, round * 7919);
        check_against_the_model(FRAMING_RAW, round * 104729);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_mixture_gives_the_bytes_of_a_model),
    };
    return cmocka_run_group_tests_name("outq, model", tests, NULL, NULL);
}
