/* The ring as a model: the functions of evapid/ring.h and lane.h themselves, run through every interleaving of three
 * producers and a reader, with deaths at any step.
 *
 * Each of them is a coroutine that stops before every access to shared memory (RING_STEP). From each state the search goes
 * on with each of them, and with the death of each producer; a state that it has met before it does not follow again. What
 * is copied of a state is the shared memory, the simulated locks, and the live part of every coroutine's stack.
 *
 * At each end: every record whose push has ended has been read, once, whole, and after those whose pushes had ended before
 * its own began. Without a death nothing else is needed: no wake is lost. After deaths, a mending of any process (or, when
 * all have died, evapid alone) brings all that is left, and at most one lost record for each death. */
#undef _FORTIFY_SOURCE /* it forbids jumps between stacks */
#define RING_SLOTS 4U
#define RING_STEP() model_step()
#define RING_STEP_OWN() model_step_own()
#define RING_TRYLOCK(mutex) model_trylock(mutex)
#define RING_CONSISTENT(mutex) ((void)(mutex))
#define RING_UNLOCK(mutex) model_unlock(mutex)

#include <pthread.h>
#include <setjmp.h>

static void model_step(void);
static void model_step_own(void);
static int model_trylock(pthread_mutex_t *mutex);
static void model_unlock(pthread_mutex_t *mutex);

#include "evapid/lane.h"

#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#define PRODUCERS 3
#define READER PRODUCERS
#define ACTORS (PRODUCERS + 1)
#define MENDER (ACTORS + 1) /* a process that only mends, at the end */
#define PUSHES 2            /* of a producer, at most */
#define STACK ((size_t)16384)
#define CAPACITY_MAX 512
#define LENGTH_MAX 32
#define DEPTH_MAX 400
#define ALONE_MAX 200 /* steps that a producer needs at most when all others stand still */
#define VISITED ((size_t)1 << 24)

/* ---- what is simulated -------------------------------------------------------------------------------------------- */

struct scenario {
    const char *name;
    size_t capacity;
    uint64_t start;                    /* the first position */
    size_t lengths[PRODUCERS][PUSHES]; /* payloads, plus 1; 0: no push */
    bool mends[PRODUCERS];             /* the producer mends before and after its pushes */
    bool joins[PRODUCERS];             /* it has no slot when it begins */
    unsigned deaths;
    bool whole; /* somebody looks at the slots of others meanwhile */
    bool polls; /* the reader never sleeps: only claims, records and holes are looked at */
    bool full;  /* pushes may find no room */
};

enum fate { UNSTARTED, RUNNING, ENDED, DEAD };

/* All that a state has, besides the ring, the lane and the stacks. */
static struct {
    jmp_buf resumes[ACTORS];     /* where each goes on */
    unsigned char *used[ACTORS]; /* its stack, from there on: less what the jump itself keeps below */
    enum fate fates[ACTORS];
    bool own[ACTORS]; /* its next step is its own affair */
    bool looks;       /* the reader is about to see whether there is a record */
    uint64_t tail_tried, tries;
    bool asleep; /* the reader waits for a wake */
    unsigned wakes, deaths;
    struct ring_reader reader;
    uint8_t holders[RING_SLOTS + 1]; /* of the locks: an actor, plus 1 */
    unsigned slots[PRODUCERS];
    uint8_t begun, pushed, read, refused; /* a bit for each record: producer * PUSHES + number */
    uint8_t before[PRODUCERS * PUSHES];   /* the records that had been pushed when this one's push began */
    unsigned lost;
} world;

static struct ring_header *header;
static struct ring_lane lane;
static _Alignas(64) unsigned char stacks[ACTORS][STACK];
static jmp_buf scheduler;
static ucontext_t starter;
static int current = -1; /* the coroutine that runs; -1: the search itself, which does not stop */
static const struct scenario *scenario;
static char payloads[PRODUCERS * PUSHES][LENGTH_MAX];

/* Leave one coroutine for another one, or for the search. */
__attribute__((noinline)) static void change(jmp_buf from, jmp_buf to)
{
    if (from != scheduler)
        world.used[current] = __builtin_frame_address(0);
    if (_setjmp(from) == 0)
        _longjmp(to, 1);
}

static void model_step(void)
{
    if (current >= 0)
        change(world.resumes[current], scheduler);
}

/* Nobody else looks at what this step changes, unless somebody mends: then it need not be tried in every order. */
static void model_step_own(void)
{
    if (current >= 0)
        world.own[current] = !scenario->whole;
    model_step();
    if (current >= 0)
        world.own[current] = false;
}

static uint8_t *holder_of(pthread_mutex_t *mutex)
{
    return &world.holders[mutex == &lane.mending ? RING_SLOTS : (size_t)(mutex - lane.owner)];
}

static int model_trylock(pthread_mutex_t *mutex)
{
    uint8_t *holder = holder_of(mutex);
    const int was = *holder - 1;
    if (was >= 0 && (was >= ACTORS || world.fates[was] == RUNNING || world.fates[was] == ENDED))
        return EBUSY;
    *holder = (uint8_t)((current >= 0 ? current : MENDER) + 1);
    return was < 0 ? 0 : EOWNERDEAD;
}

static void model_unlock(pthread_mutex_t *mutex)
{
    *holder_of(mutex) = 0;
}

/* ---- the actors ---------------------------------------------------------------------------------------------------- */

static void violated(const char *what);

static void wake_reader(void)
{
    const uint64_t sleep = scenario->polls ? 0 : ring_sleeper(header, &lane);
    if (sleep == 0)
        return;
    model_step();
    world.wakes = 1;
    ring_woken(header, sleep);
}

static void produce_one(unsigned producer, unsigned number)
{
    const unsigned which = producer * PUSHES + number;
    const size_t length = scenario->lengths[producer][number] - 1;
    const struct ring_record record = { .type = RING_RELAY, .worker = (uint16_t)producer, .target = which };
    world.before[which] = world.pushed;
    world.begun |= (uint8_t)(1U << which);
    const enum ring_push pushed =
        ring_push(header, &lane, world.slots[producer], record, "", 0, payloads[which], length);
    if (pushed == RING_PUSHED)
        world.pushed |= (uint8_t)(1U << which);
    else if (pushed == RING_FULL && scenario->full)
        world.refused |= (uint8_t)(1U << which);
    else
        violated("a push was refused");
    wake_reader();
}

static void mend(void)
{
    if (ring_mend(header, &lane))
        wake_reader();
}

static void produce(unsigned producer)
{
    if (scenario->joins[producer])
        world.slots[producer] = ring_join(header, &lane);
    if (world.slots[producer] >= RING_SLOTS)
        violated("no slot is to be had");
    for (unsigned number = 0; number < PUSHES; number++)
        if (scenario->lengths[producer][number] != 0)
            produce_one(producer, number);
    if (scenario->mends[producer])
        mend();
}

static void take(uint64_t at, const struct ring_record *record)
{
    char payload[LENGTH_MAX];
    const unsigned which = (unsigned)record->target;
    if (record->type == RING_LOST) {
        world.lost++;
        return;
    }
    if (record->type != RING_RELAY || which >= PRODUCERS * PUSHES || (world.begun >> which & 1) == 0)
        violated("a record that nobody pushed");
    if ((world.read >> which & 1) != 0)
        violated("a record was read twice");
    if ((world.before[which] & ~world.read) != 0)
        violated("a record came before one that had been pushed when its own push began");
    if (record->payload_length != scenario->lengths[which / PUSHES][which % PUSHES] - 1)
        violated("a record has another length");
    ring_copy(&world.reader, at + sizeof(*record), payload, record->payload_length);
    for (size_t i = 0; i < record->payload_length; i++)
        if (payload[i] != (char)('a' + which))
            violated("a record is torn");
    world.read |= (uint8_t)(1U << which);
}

/* Read the next record; false: there is none. */
static bool read_one(void)
{
    struct ring_record record = { 0 };
    const char *why = NULL;
    const uint64_t at = world.reader.tail;
    const enum ring_read read = ring_peek(&world.reader, at, &record, &why);
    world.looks = false;
    if (read == RING_CORRUPT)
        violated(why);
    if (read != RING_RECORD)
        return false;
    take(at, &record);
    world.reader.tail = at + record.size;
    ring_release(&world.reader);
    return true;
}

static void read_ring(void)
{
    for (;;) {
        world.looks = true;
        if (read_one() || scenario->polls)
            continue;
        /* Each sleep has a number of its own, but how many there were before is forgotten: that makes fewer states. */
        world.tries = world.tail_tried == world.reader.tail ? world.tries + 1 : 0;
        world.tail_tried = world.reader.tail;
        world.reader.sleeps = world.reader.tail * 16 + world.tries;
        if (!ring_sleep(&world.reader, world.reader.tail))
            continue;
        world.asleep = true;
        model_step();
        world.asleep = false;
        world.wakes = 0;
    }
}

static void act(int actor)
{
    change(world.resumes[actor], scheduler); /* it begins with the first step of the search */
    if (actor == READER)
        read_ring();
    produce((unsigned)actor);
    world.fates[actor] = ENDED;
    _longjmp(scheduler, 1);
}

/* ---- states -------------------------------------------------------------------------------------------------------- */

struct piece {
    void *at;
    size_t length;
};

static size_t pieces_of_state(struct piece pieces[8 + ACTORS])
{
    size_t count = 0;
    pieces[count++] = (struct piece){ header, offsetof(struct ring_header, workers) };
    pieces[count++] = (struct piece){ header->slots, sizeof(header->slots) };
    pieces[count++] = (struct piece){ ring_records(header), scenario->capacity };
    pieces[count++] = (struct piece){ &lane, offsetof(struct ring_lane, mending) };
    pieces[count++] = (struct piece){ &world, sizeof(world) };
    return count;
}

/* The lowest byte of a coroutine's stack that is in use. */
static unsigned char *stack_used(int actor)
{
    return world.used[actor] - 128;
}

struct state {
    size_t length;
    unsigned char *bytes;
};

static unsigned char scratch[ACTORS * STACK + 65536];

static size_t state_save(unsigned char *out)
{
    struct piece pieces[8 + ACTORS];
    const size_t count = pieces_of_state(pieces);
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(out + length, pieces[i].at, pieces[i].length);
        length += pieces[i].length;
    }
    for (int i = 0; i < ACTORS; i++)
        if (world.fates[i] == RUNNING) {
            unsigned char *from = stack_used(i);
            memcpy(out + length, from, (size_t)(stacks[i] + STACK - from));
            length += (size_t)(stacks[i] + STACK - from);
        }
    return length;
}

static void state_load(const unsigned char *in)
{
    struct piece pieces[8 + ACTORS];
    const size_t count = pieces_of_state(pieces);
    for (size_t i = 0; i < count; i++) {
        memcpy(pieces[i].at, in, pieces[i].length);
        in += pieces[i].length;
    }
    for (int i = 0; i < ACTORS; i++)
        if (world.fates[i] == RUNNING) {
            unsigned char *to = stack_used(i);
            memcpy(to, in, (size_t)(stacks[i] + STACK - to));
            in += stacks[i] + STACK - to;
        }
}

static uint64_t state_hash(const unsigned char *bytes, size_t length)
{
    uint64_t hash = 0x9e3779b97f4a7c15U ^ length;
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, length - i < 8 ? length - i : 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdU;
        hash ^= hash >> 32;
    }
    return hash != 0 ? hash : 1;
}

static uint64_t *visited; /* VISITED slots */
static size_t states, ends;

static bool is_new(uint64_t hash)
{
    size_t at = hash % VISITED;
    for (; visited[at] != 0; at = (at + 1) % VISITED)
        if (visited[at] == hash)
            return false;
    visited[at] = hash;
    if (++states > VISITED / 2)
        fail_msg("%s: more than %zu states", scenario->name, VISITED / 2);
    return true;
}

/* ---- the search ---------------------------------------------------------------------------------------------------- */

static char path[DEPTH_MAX + 1]; /* 0 to 3: that actor's step; a to c: a producer's death */
static size_t depth;

static void violated(const char *what)
{
    path[depth] = '\0';
    fprintf(stderr, "%s: %s, after %s\n", scenario->name, what, path);
    abort(); /* on a coroutine's stack, cmocka could not go on */
}

static bool can_run(int actor)
{
    if (actor == READER && scenario->polls && world.looks &&
        *ring_word(header, scenario->capacity, world.reader.tail) != ring_stamp(lane.key, world.reader.tail))
        return false; /* it would see none */
    return world.fates[actor] == RUNNING && !(actor == READER && world.asleep && world.wakes == 0);
}

static void run(int actor)
{
    current = actor;
    change(scheduler, world.resumes[actor]);
    current = -1;
}

/* A producer gets on while all others stand still: it waits for nobody. */
static void check_alone(const unsigned char *saved)
{
    for (int i = 0; i < PRODUCERS; i++) {
        for (unsigned steps = 0; world.fates[i] == RUNNING; steps++) {
            if (steps == ALONE_MAX)
                violated("a producer waits for others");
            run(i);
        }
        state_load(saved);
    }
}

static bool all_are_dead(void)
{
    for (int i = 0; i < PRODUCERS; i++)
        if (world.fates[i] != DEAD)
            return false;
    return true;
}

static void check_all_read(void)
{
    if ((world.pushed & ~world.read) != 0)
        violated("a record was not read");
    if (world.lost > world.deaths)
        violated("more was lost than deaths explain");
}

/* All have ended, died, or sleep. */
static void check_end(void)
{
    ends++;
    if (world.deaths == 0) {
        check_all_read();
        if (world.reader.tail != lane.head)
            violated("something was claimed and not published");
        return;
    }
    const size_t length = state_save(scratch);
    unsigned char *saved = malloc(length);
    assert_non_null(saved);
    memcpy(saved, scratch, length);
    while (read_one())
        ;
    ring_mend(header, &lane);
    while (read_one())
        ;
    check_all_read();
    if (world.reader.tail != lane.head)
        violated("a hole was not closed");
    state_load(saved);
    if (all_are_dead()) {
        for (;;) {
            while (read_one())
                ;
            const uint64_t end =
                ring_is_hole(&world.reader, world.reader.tail) ? ring_skip(&world.reader, world.reader.tail) : 0;
            if (end == 0)
                break;
            world.lost++;
            world.reader.tail = end;
            ring_release(&world.reader);
        }
        check_all_read();
    }
    free(saved);
}

static void search(void);

/* The state after one more choice. */
static void follow(char choice)
{
    if (depth == DEPTH_MAX)
        violated("it goes on for ever");
    path[depth++] = choice;
    search();
    depth--;
}

static void search(void)
{
    bool over = true;
    int only = -1; /* whoever has such a step takes it, or dies before it */
    for (int i = 0; i < ACTORS; i++)
        if (world.own[i] && world.fates[i] == RUNNING)
            only = i;
    const size_t length = state_save(scratch);
    if (only < 0 && !is_new(state_hash(scratch, length)))
        return;
    unsigned char *saved = malloc(length);
    assert_non_null(saved);
    memcpy(saved, scratch, length);
    if (states % 64 == 0)
        check_alone(saved);
    for (int i = 0; i < ACTORS; i++) {
        if (!can_run(i) || (only >= 0 && only != i))
            continue;
        over = false;
        path[depth] = (char)('0' + i);
        depth++;
        run(i);
        depth--;
        follow((char)('0' + i));
        state_load(saved);
        if (i == READER || world.deaths == scenario->deaths)
            continue;
        world.fates[i] = DEAD;
        world.deaths++;
        follow((char)('a' + i));
        state_load(saved);
    }
    if (over)
        check_end();
    free(saved);
}

/* ---- scenarios ----------------------------------------------------------------------------------------------------- */

/* Give it a stack of its own, and let it run to its first stop. */
__attribute__((noinline)) static void start(int actor)
{
    ucontext_t context;
    getcontext(&context);
    current = actor;
    context.uc_stack = (stack_t){ .ss_sp = stacks[actor], .ss_size = STACK };
    makecontext(&context, (void (*)(void))act, 1, actor);
    if (_setjmp(scheduler) == 0)
        swapcontext(&starter, &context);
    current = -1;
}

static void begin(void)
{
    for (int i = 0; i < PRODUCERS * PUSHES; i++)
        memset(payloads[i], 'a' + i, LENGTH_MAX);
    memset(&world, 0, sizeof(world));
    memset(&lane, 0, sizeof(lane));
    memset(stacks, 0, sizeof(stacks));
    memset(header, 0, offsetof(struct ring_header, presence));
    memset(header->slots, 0, sizeof(header->slots));
    memset(ring_records(header), 0, CAPACITY_MAX);
    current = -1;
    assert_int_equal(ring_make(header, &lane, scenario->capacity, 0x0123456789abcdefU), 0);
    lane.head = lane.tail_seen = header->tail = scenario->start;
    world.reader = (struct ring_reader){ .header = header,
                                         .capacity = scenario->capacity,
                                         .key = lane.key,
                                         .head = scenario->start,
                                         .tail = scenario->start };
    for (int i = 0; i < ACTORS; i++) {
        world.fates[i] = RUNNING;
        if (i < PRODUCERS && scenario->lengths[i][0] == 0 && !scenario->mends[i]) {
            world.fates[i] = ENDED;
            continue;
        }
        if (i < PRODUCERS)
            world.slots[i] = RING_SLOTS;
        if (i < PRODUCERS && !scenario->joins[i]) {
            world.slots[i] = ring_join(header, &lane);
            world.holders[world.slots[i]] = (uint8_t)(i + 1);
        }
        header->slots[i].claimed = scenario->start;
        start(i);
    }
}

static void check(const struct scenario *which)
{
    scenario = which;
    memset(visited, 0, VISITED * sizeof(*visited));
    states = ends = depth = 0;
    begin();
    search();
    print_message("           %s: %zu states, %zu ends\n", scenario->name, states, ends);
    assert_true(ends > 0);
}

static void check_each(const struct scenario *scenarios, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check(&scenarios[i]);
}

#define CHECK_EACH(scenarios) check_each(scenarios, sizeof(scenarios) / sizeof(*(scenarios)))

static void test_three_producers(void **state)
{
    static const struct scenario scenarios[] = {
        { .name = "nobody dies", .capacity = 256, .lengths = { { 1 }, { 9 }, { 17 } }, .polls = true },
        { .name = "two records each", .capacity = 512, .lengths = { { 1, 1 }, { 1, 9 }, { 1 } }, .polls = true },
        { .name = "ends that look alike",
          .capacity = 512,
          .lengths = { { 1 }, { 33 }, { 1 } },
          .deaths = 3,
          .polls = true },
        { .name = "all may die", .capacity = 256, .lengths = { { 1 }, { 9 }, { 17 } }, .deaths = 3, .polls = true },
    };
    (void)state;
    CHECK_EACH(scenarios);
}

/* One mends while others claim, write, die and mend. */
static void test_producers_that_mend(void **state)
{
    static const struct scenario scenarios[] = {
        { .name = "a mender, two producers",
          .capacity = 256,
          .lengths = { { 1 }, { 17 }, { 0 } },
          .deaths = 3,
          .whole = true,
          .polls = true,
          .mends = { false, false, true } },
        { .name = "two menders, one producer",
          .capacity = 256,
          .lengths = { { 1 }, { 0 }, { 0 } },
          .deaths = 3,
          .whole = true,
          .polls = true,
          .mends = { false, true, true } },
        { .name = "a mender, one that goes on",
          .capacity = 256,
          .lengths = { { 1 }, { 1, 1 }, { 0 } },
          .deaths = 1,
          .whole = true,
          .polls = true,
          .mends = { false, false, true } },
        { .name = "a mender, a place that is used again",
          .capacity = 64,
          .lengths = { { 1 }, { 1, 1 }, { 1 } },
          .deaths = 1,
          .whole = true,
          .polls = true,
          .full = true,
          .mends = { false, false, true } },
        { .name = "one comes later",
          .capacity = 256,
          .lengths = { { 1 }, { 9 }, { 0 } },
          .deaths = 1,
          .whole = true,
          .polls = true,
          .joins = { false, true, false } },
        { .name = "two come at once",
          .capacity = 256,
          .lengths = { { 1 }, { 1 }, { 0 } },
          .deaths = 2,
          .whole = true,
          .polls = true,
          .joins = { true, true, false } },
    };
    (void)state;
    CHECK_EACH(scenarios);
}

/* Over the ring's end, and when it is full: old bytes lie where the next record begins. */
static void test_a_ring_that_goes_round(void **state)
{
    static const struct scenario scenarios[] = {
        { .name = "two records each",
          .capacity = 128,
          .start = 96,
          .lengths = { { 1, 1 }, { 1, 9 }, { 0 } },
          .deaths = 1,
          .polls = true,
          .full = true },
        { .name = "three producers",
          .capacity = 128,
          .start = 64,
          .lengths = { { 1 }, { 9 }, { 1 } },
          .deaths = 1,
          .polls = true,
          .full = true },
    };
    (void)state;
    CHECK_EACH(scenarios);
}

/* The reader sleeps whenever it finds nothing, and has to be woken. */
static void test_a_reader_that_sleeps(void **state)
{
    static const struct scenario scenarios[] = {
        { .name = "two producers", .capacity = 256, .lengths = { { 1 }, { 9 }, { 0 } }, .deaths = 1 },
        { .name = "two and one records", .capacity = 256, .lengths = { { 1, 1 }, { 9 }, { 0 } } },
        { .name = "a producer, and one that mends",
          .capacity = 256,
          .lengths = { { 1 }, { 0 }, { 0 } },
          .deaths = 2,
          .whole = true,
          .mends = { false, true, false } },
    };
    (void)state;
    CHECK_EACH(scenarios);
}

static int set_up(void **state)
{
    (void)state;
    header = aligned_alloc(4096, (ring_bytes(CAPACITY_MAX) + 4095) & ~(size_t)4095);
    visited = calloc(VISITED, sizeof(*visited));
    return header == NULL || visited == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    free(header);
    free(visited);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_producers),
        cmocka_unit_test(test_producers_that_mend),
        cmocka_unit_test(test_a_ring_that_goes_round),
        cmocka_unit_test(test_a_reader_that_sleeps),
    };
    return cmocka_run_group_tests_name("ring, model", tests, set_up, tear_down);
}
