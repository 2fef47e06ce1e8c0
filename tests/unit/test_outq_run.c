/* The output queue of a client that follows a run: whatever comes from the run and what is pushed in between make one
 * stream, however it is sent, and nothing is kept longer than somebody waits for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "outq.h"

#define NO_LIMIT ((size_t)1 << 30)
#define IOVECS 16
#define WHOLE (RUN_CHUNK - sizeof(uint32_t)) /* bytes of a raw event that fills a chunk */

static struct payload payload_of(const char *bytes, size_t length)
{
    return (struct payload){ .part = { bytes, bytes + length / 2 }, .length = { length / 2, length - length / 2 } };
}

static void append_text(struct run *run, const char *text)
{
    const struct payload payload = payload_of(text, strlen(text));
    assert_true(run_append(run, &payload));
}

/* Append an event that fills a chunk, all of it with. */
static void append_whole(struct run *run, char with)
{
    static char bytes[WHOLE];
    memset(bytes, with, sizeof(bytes));
    const struct payload payload = payload_of(bytes, sizeof(bytes));
    assert_true(run_append(run, &payload));
}

static bool push_text(struct outq *q, const char *text)
{
    const struct payload payload = payload_of(text, strlen(text));
    struct chunk *chunk = chunk_of_event(q->framing, &payload);
    assert_non_null(chunk);
    const bool pushed = outq_push(q, chunk);
    chunk_unref(chunk);
    return pushed;
}

/* The end of a turn in which the queue was not sent everything. */
static void end_turn(struct run *run, struct outq *q)
{
    if (!outq_is_empty(q))
        outq_pin(q);
    run_settle(run);
}

static void assert_sends(const struct outq *q, const char *expected)
{
    char out[256];
    size_t length = 0;
    struct iovec iov[IOVECS];
    const int n = outq_gather(q, iov, IOVECS);
    for (int i = 0; i < n; i++) {
        assert_true(length + iov[i].iov_len < sizeof(out));
        memcpy(out + length, iov[i].iov_base, iov[i].iov_len);
        length += iov[i].iov_len;
    }
    out[length] = '\0';
    assert_string_equal(out, expected);
    assert_int_equal(outq_bytes(q), length);
    assert_int_equal(outq_is_empty(q), length == 0);
}

/* A run, raw, and a queue that is about to follow it. */
static struct run run;
static struct outq q;

static int open_both(void **state)
{
    (void)state;
    run_open(&run, FRAMING_RAW);
    outq_init(&q, FRAMING_RAW, NO_LIMIT);
    return 0;
}

static int close_both(void **state)
{
    (void)state;
    memory_limit(-1);
    outq_clear(&q);
    const bool followed = run.followers != 0 || run.review_at != UINT64_MAX;
    run_close(&run);
    return followed;
}

/* ---- following ----------------------------------------------------------------------------------------------------- */

static void test_a_queue_gets_what_is_appended_while_it_follows(void **state)
{
    (void)state;
    append_text(&run, "before,");
    outq_follow(&q, &run);
    assert_int_equal(run.followers, 1);
    assert_sends(&q, "");
    append_text(&run, "one,");
    append_text(&run, "two,");
    assert_sends(&q, "one,two,");
    assert_int_equal(outq_events(&q), 2);
    assert_int_equal(q.count, 0); /* it costs the queue nothing */
    assert_null(q.pieces);
    assert_true(outq_leave(&q));
    assert_int_equal(run.followers, 0);
    append_text(&run, "behind,");
    assert_sends(&q, "one,two,");
    outq_follow(&q, &run);
    append_text(&run, "again,");
    assert_sends(&q, "one,two,again,");
    assert_int_equal(outq_events(&q), 3);
    assert_int_equal(outq_take_given(&q), 3);
    assert_int_equal(outq_sent(&q, 14), 3);
    assert_sends(&q, "");
}

static void test_what_is_pushed_comes_where_it_was_pushed(void **state)
{
    (void)state;
    assert_true(push_text(&q, "a,"));
    outq_follow(&q, &run);
    assert_true(push_text(&q, "b,"));
    append_text(&run, "c,");
    append_text(&run, "d,");
    assert_true(push_text(&q, "e,"));
    assert_true(push_text(&q, "f,"));
    append_text(&run, "g,");
    assert_sends(&q, "a,b,c,d,e,f,g,");
    assert_int_equal(outq_events(&q), 7);
    assert_int_equal(outq_take_given(&q), 7);
    assert_int_equal(outq_sent(&q, 5), 2);
    assert_sends(&q, ",d,e,f,g,");
    assert_int_equal(outq_sent(&q, 9), 5);
}

static void test_a_queue_leaves_and_its_pieces_outlive_the_run(void **state)
{
    (void)state;
    struct run other;
    run_open(&other, FRAMING_RAW);
    outq_follow(&q, &other);
    append_text(&other, "one,");
    append_text(&other, "two,");
    assert_int_equal(outq_sent(&q, 2), 0);
    assert_true(outq_leave(&q));
    run_settle(&other);
    append_text(&other, "three,");
    run_close(&other);
    assert_sends(&q, "e,two,");
    assert_int_equal(outq_events(&q), 2);
    assert_int_equal(outq_sent(&q, 2), 1);
    assert_int_equal(outq_clear(&q), 1);
    assert_int_equal(outq_take_given(&q), 2);
}

/* It leaves and follows again around events that are too large for it: what little it has of each chunk does not keep the
 * chunk. A large part of one it shares with the others. */
static void test_a_queue_that_leaves_keeps_no_chunk_for_a_small_piece(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    append_text(&run, "hello");
    struct chunk *chunk = run.first;
    assert_true(outq_leave(&q));
    assert_int_equal(q.count, 1);
    assert_ptr_not_equal(q.pieces[q.head].chunk, chunk);
    assert_int_equal(chunk->refs, 1);
    assert_sends(&q, "hello");
    outq_follow(&q, &run);
    append_whole(&run, 'x');
    assert_true(outq_leave(&q));
    assert_int_equal(run.last->refs, 2);
    outq_clear(&q);
}

/* The run goes on and on; one queue is sent nothing for many turns, and then all of it. */
static void test_a_queue_that_is_behind_gets_all_of_it_in_the_end(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    for (unsigned turn = 0; turn < 26; turn++) {
        append_whole(&run, (char)('a' + turn));
        end_turn(&run, &q);
    }
    assert_int_equal(outq_events(&q), 26);
    assert_int_equal(outq_bytes(&q), 26 * WHOLE);
    for (unsigned turn = 0; turn < 26; turn++) {
        struct iovec iov[IOVECS];
        const int n = outq_gather(&q, iov, IOVECS);
        assert_int_equal(n, 26 - turn < IOVECS ? 26 - turn : IOVECS);
        assert_int_equal(iov[0].iov_len, WHOLE);
        assert_int_equal(*(char *)iov[0].iov_base, 'a' + turn);
        assert_int_equal(outq_sent(&q, WHOLE - 1), 0);
        end_turn(&run, &q);
        assert_int_equal(run.first->first_byte, turn * WHOLE); /* kept, because of its last byte */
        assert_int_equal(outq_sent(&q, 1), 1);
        end_turn(&run, &q);
    }
    assert_int_equal(run.first->used, 0);
    assert_null(q.pin);
}

static void test_a_queue_keeps_no_chunk_that_it_has_been_sent(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    for (unsigned i = 0; i < 4; i++)
        append_whole(&run, 'x');
    end_turn(&run, &q);
    assert_int_equal(run.first->pins, 1);
    struct chunk *third = run.first->next->next;
    assert_int_equal(outq_sent(&q, 2 * WHOLE + 5), 2);
    assert_int_equal(run.first->pins, 0);
    assert_int_equal(third->pins, 1);
    run_settle(&run);
    assert_ptr_equal(run.first, third);
    assert_int_equal(outq_sent(&q, 2 * WHOLE - 5), 2);
    assert_int_equal(third->pins, 0);
    assert_int_equal(third->next->pins, 0);
}

/* ---- the limit ----------------------------------------------------------------------------------------------------- */

static void test_pieces_and_the_run_share_the_limit(void **state)
{
    (void)state;
    outq_init(&q, FRAMING_RAW, 10);
    assert_true(push_text(&q, "123"));
    outq_follow(&q, &run);
    assert_int_equal(outq_review_at(&q), 7);
    assert_int_equal(run.review_at, 7);
    append_text(&run, "4567");
    assert_int_equal(outq_review_at(&q), 7);
    assert_false(push_text(&q, "890a"));
    assert_int_equal(q.count, 1); /* and nothing has changed */
    assert_true(push_text(&q, "890"));
    assert_int_equal(outq_review_at(&q), run.bytes);
    assert_false(push_text(&q, "-"));
    assert_int_equal(outq_sent(&q, 4), 1);
    assert_int_equal(outq_review_at(&q), run.bytes + 4);
    append_text(&run, "abcd");
    assert_false(push_text(&q, "-"));
    assert_sends(&q, "567890abcd");
}

/* Who appends looks at one number for all: it is never too late for any of them. */
static void test_a_run_is_reviewed_in_time_for_everybody(void **state)
{
    (void)state;
    struct outq other;
    outq_init(&q, FRAMING_RAW, 20);
    outq_init(&other, FRAMING_RAW, 12);
    append_text(&run, "0123");
    outq_follow(&q, &run);
    assert_int_equal(run.review_at, 24);
    outq_follow(&other, &run);
    assert_int_equal(run.review_at, 16);
    assert_true(push_text(&q, "0123456789"));
    assert_int_equal(run.review_at, 14);
    assert_true(push_text(&other, "0"));
    assert_int_equal(run.review_at, 14);
    outq_clear(&q);
    assert_true(run.review_at <= 15); /* what is too early does no harm */
    outq_clear(&other);
    assert_true(run.review_at == UINT64_MAX);
}

/* ---- cleared, but for what has begun ------------------------------------------------------------------------------- */

/* Where it stands decides which event stays: one of a piece, of the run, or none. */
static void test_of_pieces_and_run_only_what_has_begun_stays(void **state)
{
    (void)state;
    static const char all[] = "ab,cd,ef,gh,";
    for (size_t sent = 0; sent <= 12; sent++)
        for (int turns = 0; turns < 2; turns++) {
            outq_init(&q, FRAMING_RAW, NO_LIMIT);
            outq_follow(&q, &run);
            append_text(&run, "ab,");
            assert_true(push_text(&q, "cd,"));
            append_text(&run, "ef,");
            append_text(&run, "gh,");
            assert_int_equal(outq_sent(&q, sent), sent / 3);
            for (int turn = 0; turn < turns; turn++)
                end_turn(&run, &q);
            const bool begun = sent % 3 > 0;
            assert_int_equal(outq_keep_begun(&q), 4 - sent / 3 - begun);
            assert_int_equal(run.followers, 0);
            append_text(&run, "ij,");
            run_settle(&run);
            append_text(&run, "kl,");
            char rest[8] = "";
            memcpy(rest, all + sent, begun ? 3 - sent % 3 : 0);
            assert_sends(&q, rest);
            assert_int_equal(outq_events(&q), begun);
            assert_int_equal(outq_take_given(&q), 4);
            assert_int_equal(outq_clear(&q), begun);
        }
}

/* ---- no memory ----------------------------------------------------------------------------------------------------- */

static void test_without_memory_a_queue_does_not_leave(void **state)
{
    (void)state;
    outq_follow(&q, &run);
    append_text(&run, "one,");
    append_text(&run, "two,");
    const struct outq before = q;
    memory_limit(0);
    const bool left = outq_leave(&q);
    memory_limit(-1);
    assert_false(left);
    assert_memory_equal(&q, &before, sizeof(q));
    assert_sends(&q, "one,two,");
    assert_true(outq_leave(&q));
    assert_sends(&q, "one,two,");
}

static void test_without_memory_nothing_is_pushed_behind_the_run(void **state)
{
    (void)state;
    const struct payload payload = payload_of("three,", 6);
    struct chunk *chunk = chunk_of_event(FRAMING_RAW, &payload);
    outq_follow(&q, &run);
    append_text(&run, "one,");
    const struct outq before = q;
    memory_limit(0);
    const bool pushed = outq_push(&q, chunk);
    memory_limit(-1);
    assert_false(pushed);
    assert_memory_equal(&q, &before, sizeof(q));
    assert_int_equal(chunk->refs, 1);
    append_text(&run, "two,");
    assert_true(outq_push(&q, chunk));
    chunk_unref(chunk);
    assert_sends(&q, "one,two,three,");
    assert_int_equal(outq_take_given(&q), 3);
}

/* ---- any mixture, against a model ---------------------------------------------------------------------------------- */

#define QUEUES 5
#define ROOM ((size_t)1 << 20)   /* bytes that a model can hold: more than any queue's limit */
#define EVENTS ((size_t)1 << 19) /* events likewise */
#define LARGEST (2 * RUN_CHUNK)

/* What a queue should be: the bytes that wait, by their place in its stream, and where each of its events ends. */
struct model {
    struct outq q;
    bool follows;
    char *bytes;                /* ROOM, a ring */
    uint64_t *ends;             /* EVENTS, a ring */
    uint64_t sent, queued;      /* places in the stream */
    uint64_t first, last;       /* events that were sent whole, and that were queued */
    uint64_t given, given_last; /* events ever given, and when that was last asked */
    uint64_t whole, dropped;    /* events sent whole, and dropped */
};

static struct model models[QUEUES];
static unsigned seed;

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

/* The first event has been sent in part, so that the rest of it is all that is left. Returns how many others there were. */
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

/* As the bus does it: whoever can't take an event of size bytes follows no more. When nobody has to be asked, all can. */
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

/* One event for some of them, in one chunk. Returns how many did not take it. */
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

/* What it would send is what the model holds, and as much of it as there are iovecs for. Returns the bytes. */
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

/* The end of a turn: most are sent all they wait for, and whoever is not keeps its place. */
static void act_settle(struct run *of)
{
    for (size_t i = 0; i < QUEUES; i++)
        if (!outq_is_empty(&models[i].q))
            outq_pin(&models[i].q);
    run_settle(of);
    assert_int_equal(of->mark, of->bytes);
    assert_in_range(of->spares, 0, 16);
    if (of->first != NULL && of->first->pins == 0) { /* nothing is kept that nobody waits for */
        assert_ptr_equal(of->first, of->last);
        assert_true(of->first->used == 0 || of->first->refs > 1);
    }
}

/* Books, bytes and pins agree with the model. */
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
        assert_int_equal(model->given, model->whole + model_events(model) + model->dropped);
        followers += model->follows;
        pinned += model->q.pin != NULL;
        struct chunk *pin = model->q.pin; /* just where it stands, or it would keep what nobody waits for */
        if (pin != NULL)
            assert_true(model->follows && pin == run_find(of, pin, model->q.byte));
        if (any(16) == 0) {
            assert_int_equal(outq_take_given(&model->q), model->given - model->given_last);
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
    } else if (action < 920) {
        act_settle(of);
    } else if (action < 970) {
        if (!model->follows)
            outq_follow(&model->q, of);
        model->follows = true;
    } else if (action < 990) {
        act_leave(model);
    } else {
        act_clear(model);
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

/* Whatever is done in whatever order: each queue is the stream that went in, counts what the model counts, and in the end
 * nothing is left (the sanitizers watch that all memory is freed). */
static void check_against_the_model(enum framing framing, unsigned seed_of_round)
{
    struct run of;
    unsigned refused = 0;
    uint64_t whole = 0;
    uint64_t dropped = 0;
    uint64_t kept = 0; /* the longest that the run was */
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
    run_settle(&of);
    assert_true(of.first == NULL || of.first->used == 0);
    run_close(&of);
    assert_true(of.bytes > 100ULL * RUN_CHUNK && kept > 3ULL * RUN_CHUNK);
    assert_true(whole > 10000 && dropped > 1000 && refused > 100);
}

static void test_any_mixture_gives_the_bytes_of_a_model(void **state)
{
    (void)state;
    for (unsigned round = 1; round <= 3; round++) {
        check_against_the_model(FRAMING_NETSTRING, round * 7919);
        check_against_the_model(FRAMING_RAW, round * 104729);
    }
}

#define WITH_BOTH(test) cmocka_unit_test_setup_teardown(test, open_both, close_both)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BOTH(test_a_queue_gets_what_is_appended_while_it_follows),
        WITH_BOTH(test_what_is_pushed_comes_where_it_was_pushed),
        WITH_BOTH(test_a_queue_leaves_and_its_pieces_outlive_the_run),
        WITH_BOTH(test_a_queue_that_leaves_keeps_no_chunk_for_a_small_piece),
        WITH_BOTH(test_a_queue_that_is_behind_gets_all_of_it_in_the_end),
        WITH_BOTH(test_a_queue_that_leaves_keeps_no_chunk_for_a_small_piece),
        WITH_BOTH(test_a_queue_keeps_no_chunk_that_it_has_been_sent),
        WITH_BOTH(test_pieces_and_the_run_share_the_limit),
        WITH_BOTH(test_a_run_is_reviewed_in_time_for_everybody),
        WITH_BOTH(test_of_pieces_and_run_only_what_has_begun_stays),
        WITH_BOTH(test_without_memory_a_queue_does_not_leave),
        WITH_BOTH(test_without_memory_nothing_is_pushed_behind_the_run),
        cmocka_unit_test(test_any_mixture_gives_the_bytes_of_a_model),
    };
    return cmocka_run_group_tests_name("outq, run", tests, NULL, NULL);
}
