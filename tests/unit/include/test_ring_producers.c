/* The ring: any number of producers, also if some of them are killed; none waits for a sleeping evapid. */
#include "include/ring_rig.h"

/* ---- many producers ---------------------------------------------------------------------------------------------- */

enum { PRODUCERS = 6, PUSHES = 6000 };

static int push_many(struct rig *rig, unsigned producer)
{
    for (uint64_t number = 0; number < PUSHES; number++)
        if (push_numbered_waiting(rig, producer, number) != 0)
            return 1;
    return 0;
}

static void test_many_producer_processes(void **state)
{
    struct rig *rig = *state;
    uint64_t next[CHILDREN] = { 0 };
    for (size_t i = 0; i < PRODUCERS; i++)
        rig_fork(rig, i, push_many);
    take_in_order(rig, (size_t)PRODUCERS * PUSHES, next);
    for (size_t i = 0; i < PRODUCERS; i++) {
        assert_int_equal(next[i], PUSHES);
        rig_join(rig, i);
    }
    assert_empty(rig);
}

struct producer_thread {
    struct rig *rig;
    unsigned producer;
    pthread_t thread;
    int result;
};

static void *push_many_in_thread(void *argument)
{
    struct producer_thread *t = argument;
    t->result = push_many(t->rig, t->producer);
    return NULL;
}

/* The same within one process, where the thread sanitizer can see both sides. */
static void test_many_producer_threads(void **state)
{
    struct rig *rig = *state;
    struct producer_thread threads[3];
    struct rig rigs[3]; /* for a slot each */
    uint64_t next[CHILDREN] = { 0 };
    for (unsigned i = 0; i < 3; i++) {
        rigs[i] = *rig;
        rigs[i].slot = RING_SLOTS;
        threads[i] = (struct producer_thread){ .rig = &rigs[i], .producer = i, .result = 1 };
        assert_int_equal(pthread_create(&threads[i].thread, NULL, push_many_in_thread, &threads[i]), 0);
    }
    take_in_order(rig, (size_t)3 * PUSHES, next);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i].thread, NULL), 0);
        assert_int_equal(threads[i].result, 0);
    }
    assert_empty(rig);
}

/* ---- producers that are killed ----------------------------------------------------------------------------------- */

/* Claim, write the first half of a record, and stop or be killed. */
static int claim_and(struct rig *rig, unsigned producer, int signal)
{
    struct numbered n;
    uint64_t at = 0;
    numbered_fill(&n, producer, 32);
    if (!ring_claim(rig->header, rig->lane, mine(rig), n.record.size, true, &at))
        return 1;
    ring_write(rig->header, rig->lane->capacity, at + RING_STAMPED, (const char *)&n.record + RING_STAMPED,
               sizeof(n.record) - RING_STAMPED);
    ring_write(rig->header, rig->lane->capacity, at + sizeof(n.record), n.tag, n.record.tag_length / 2);
    raise(signal);
    ring_write(rig->header, rig->lane->capacity, at + sizeof(n.record), n.tag, n.record.tag_length);
    ring_write(rig->header, rig->lane->capacity, at + sizeof(n.record) + n.record.tag_length, n.payload,
               n.record.payload_length);
    ring_publish(rig->header, rig->lane, at);
    return 0;
}

static int die_in_the_middle(struct rig *rig, unsigned producer)
{
    return claim_and(rig, producer, SIGKILL);
}

static int stop_in_the_middle(struct rig *rig, unsigned producer)
{
    return claim_and(rig, producer, SIGSTOP);
}

static void take_lost(struct rig *rig)
{
    assert_int_equal(take(rig).type, RING_LOST);
}

/* Start a child that dies in the middle of its push. */
static void leave_hole(struct rig *rig)
{
    int status = 0;
    rig_fork(rig, 0, die_in_the_middle);
    assert_int_equal(waitpid(rig->children[0], &status, 0), rig->children[0]);
    rig->children[0] = 0;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_a_producer_killed_in_the_middle(void **state)
{
    struct rig *rig = *state;
    for (uint64_t round = 0; round < 20; round++) {
        assert_int_equal(push_numbered(rig, 1, 3 * round), RING_PUSHED);
        leave_hole(rig);
        assert_int_equal(push_numbered(rig, 1, 3 * round + 1), RING_PUSHED);
        take_numbered(rig, 1, 3 * round);
        assert_empty(rig);
        assert_true(ring_is_hole(&rig->reader, rig->reader.tail));
        assert_true(ring_mend(rig->header, rig->lane));
        assert_false(ring_mend(rig->header, rig->lane));
        assert_int_equal(push_numbered(rig, 1, 3 * round + 2), RING_PUSHED);
        take_lost(rig);
        take_numbered(rig, 1, 3 * round + 1);
        take_numbered(rig, 1, 3 * round + 2);
        assert_empty(rig);
        assert_false(ring_is_hole(&rig->reader, rig->reader.tail));
    }
    assert_true(rig->lane->slots_used < 4); /* a slot is used again */
}

/* Nobody waits for it, and nobody takes its record from it. */
static void test_a_producer_that_is_stopped_in_the_middle(void **state)
{
    struct rig *rig = *state;
    int status = 0;
    assert_int_equal(push_numbered(rig, 1, 0), RING_PUSHED);
    rig_fork(rig, 0, stop_in_the_middle);
    assert_int_equal(waitpid(rig->children[0], &status, WUNTRACED), rig->children[0]);
    assert_true(WIFSTOPPED(status));
    for (uint64_t number = 1; number < 50; number++)
        assert_int_equal(push_numbered(rig, 1, number), RING_PUSHED);
    take_numbered(rig, 1, 0);
    assert_empty(rig);
    assert_false(ring_mend(rig->header, rig->lane));
    assert_empty(rig);
    kill(rig->children[0], SIGCONT);
    rig_join(rig, 0);
    take_numbered(rig, 0, 32);
    for (uint64_t number = 1; number < 50; number++)
        take_numbered(rig, 1, number);
    assert_empty(rig);
}

/* Evapid sleeps at the hole. Only who closes it wakes evapid, and no other producer. */
static void test_evapid_is_woken_at_a_hole_when_it_closes(void **state)
{
    struct rig *rig = *state;
    leave_hole(rig);
    assert_true(ring_sleep(&rig->reader, rig->reader.tail));
    assert_true(ring_waits_at_hole(rig->header));
    assert_int_equal(push_numbered(rig, 1, 0), RING_PUSHED);
    assert_int_equal(ring_sleeper(rig->header, rig->lane), 0);
    assert_true(ring_mend(rig->header, rig->lane));
    const uint64_t sleep = ring_sleeper(rig->header, rig->lane);
    assert_int_not_equal(sleep, 0);
    ring_woken(rig->header, sleep);
    assert_false(ring_waits_at_hole(rig->header));
    take_lost(rig);
    take_numbered(rig, 1, 0);
    assert_true(ring_sleep(&rig->reader, rig->reader.tail));
    assert_false(ring_waits_at_hole(rig->header));
    assert_int_equal(push_numbered(rig, 1, 1), RING_PUSHED);
    assert_int_not_equal(ring_sleeper(rig->header, rig->lane), 0);
}

/* All have died, so evapid closes the hole itself. */
static void test_evapid_alone_skips_what_was_not_published(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(push_numbered(rig, 1, 0), RING_PUSHED);
    leave_hole(rig);
    assert_int_equal(push_numbered(rig, 1, 1), RING_PUSHED);
    leave_hole(rig);
    take_numbered(rig, 1, 0);
    for (uint64_t number = 1; number < 2; number++) {
        const uint64_t end = ring_skip(&rig->reader, rig->reader.tail);
        assert_int_not_equal(end, 0);
        release(&rig->reader, end);
        take_numbered(rig, 1, number);
    }
    const uint64_t end = ring_skip(&rig->reader, rig->reader.tail);
    assert_int_equal(end, rig->lane->head);
    release(&rig->reader, end);
    assert_empty(rig);
    assert_false(ring_is_hole(&rig->reader, rig->reader.tail));
}

static void test_one_producer_more_than_there_are_slots(void **state)
{
    struct rig *rig = *state;
    for (unsigned i = 0; i < RING_SLOTS; i++)
        assert_int_equal(ring_join(rig->header, rig->lane), i);
    assert_int_equal(push_numbered(rig, 1, 1), RING_CROWDED);
    assert_int_equal(rig->header->refused_full, 1);
    assert_empty(rig);
    ring_leave(rig->lane, 700);
    assert_int_equal(push_numbered(rig, 1, 1), RING_PUSHED);
    take_numbered(rig, 1, 1);
    for (unsigned i = 0; i < RING_SLOTS; i++)
        ring_leave(rig->lane, i);
    rig->slot = RING_SLOTS;
}

/* A producer was killed somewhere: a record before its own and one after it are there, and its own whole or not at all.
 * Returns whether it is. */
static bool take_around(struct rig *rig, bool alone)
{
    assert_int_equal(push_numbered(rig, 3, 0), RING_PUSHED);
    if (!alone)
        ring_mend(rig->header, rig->lane);
    assert_int_equal(push_numbered(rig, 3, 1), RING_PUSHED);
    take_numbered(rig, 1, 0);
    struct ring_record record = { 0 };
    const char *why = NULL;
    if (ring_peek(&rig->reader, rig->reader.tail, &record, &why) == RING_EMPTY) {
        assert_true(alone);
        release(&rig->reader, ring_skip(&rig->reader, rig->reader.tail));
        assert_int_not_equal(rig->reader.tail, 0);
    }
    assert_int_equal(ring_peek(&rig->reader, rig->reader.tail, &record, &why), RING_RECORD);
    const bool there = record.worker == TRACED;
    if (there)
        take_numbered(rig, TRACED, 1);
    if (record.type == RING_LOST)
        take_lost(rig);
    take_numbered(rig, 3, 0);
    take_numbered(rig, 3, 1);
    assert_empty(rig);
    return there;
}

static struct numbered
    traced_record; /* filled in before the child is there, so that only its push is stepped through */

static int push_traced_record(struct rig *rig)
{
    return push_filled(rig, &traced_record) == RING_PUSHED ? 0 : 1;
}

/* Empty the ring, at a place where a record's header wraps, put one record there, and a producer in front of its push. */
static bool begin_traced_push(struct rig *rig)
{
    struct numbered before;
    numbered_fill(&before, 1, 0);
    numbered_fill(&traced_record, TRACED, 1);
    rig_place(rig, 3 * SMALL - before.record.size - 8);
    memset(ring_records(rig->header), UNWRITTEN, SMALL);
    assert_int_equal(push_filled(rig, &before), RING_PUSHED);
    return fork_traced(rig, push_traced_record);
}

/* Make ghost what rig is now, but for the locks: there, nobody else has a slot. */
static void haunt(struct rig *ghost, struct rig *rig)
{
    memcpy(ring_records(ghost->header), ring_records(rig->header), SMALL);
    memcpy(ghost->header->slots, rig->header->slots, sizeof(rig->header->slots));
    ghost->header->slots_used = rig->header->slots_used;
    ghost->header->tail = rig->header->tail;
    ghost->lane->head = rig->lane->head;
    ghost->lane->tail_seen = rig->lane->tail_seen;
    ghost->lane->slots_used = rig->lane->slots_used;
    reopen(ghost);
}

/* What would be left if a producer were killed here, after each single instruction of its push. */
static void test_a_push_that_stops_at_every_instruction(void **state)
{
    struct rig *rig = *state, *ghost = rig_open(SMALL);
    size_t there = 0, stops = 0;
    int result = 1;
    if (!begin_traced_push(rig)) {
        rig_close(ghost);
        skip();
    }
    do {
        haunt(ghost, rig);
        there += take_around(ghost, false);
        haunt(ghost, rig);
        take_around(ghost, true);
        stops++;
    } while (step(rig, 1, &result) == 1);
    rig_close(ghost);
    assert_int_equal(result, 0);
    assert_true(there > 0 && there < stops);
}

/* What is left when it is killed, the lock included, at places all over its push. */
static void test_a_producer_killed_all_over_its_push(void **state)
{
    struct rig *rig = *state;
    size_t there = 0;
    int result = 1;
    if (!begin_traced_push(rig))
        skip();
    const size_t all = step(rig, SIZE_MAX, &result), kills = places_to_stop(all);
    assert_int_equal(result, 0);
    for (size_t i = 0; i < kills; i++) {
        assert_true(begin_traced_push(rig));
        step(rig, all * i / kills, &result);
        rig_kill(rig, TRACED);
        there += take_around(rig, i % 2 == 0);
    }
    /* Killed at its first instruction it has left nothing, and everything once its push has ended. */
    assert_true(begin_traced_push(rig));
    step(rig, SIZE_MAX, &result);
    assert_true(take_around(rig, true));
    assert_true(there < kills);
}

static int push_for_ever(struct rig *rig, unsigned producer)
{
    for (uint64_t number = 0;; number++)
        if (push_numbered_waiting(rig, producer, number) != 0)
            return 1;
}

static void test_producers_killed_at_random(void **state)
{
    enum { ROUNDS = 60, RACERS = 3 };
    struct rig *rig = *state;
    unsigned seed = print_seed();
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint64_t next[CHILDREN] = { [CHILDREN - 1] = round };
        for (size_t i = 0; i < RACERS; i++)
            rig_fork(rig, i, push_for_ever);
        take_in_order(rig, (size_t)(rand_r(&seed) % 300), next);
        rig_kill(rig, 0);
        ring_mend(rig->header, rig->lane);
        take_in_order(rig, 300, next); /* the others go on */
        rig_kill(rig, 1);
        rig_kill(rig, 2);
        ring_mend(rig->header, rig->lane);
        /* A last record comes behind all that they have left. */
        while (push_numbered(rig, CHILDREN - 1, round) == RING_FULL)
            take_in_order(rig, 1, next);
        while (next[CHILDREN - 1] == round)
            take_in_order(rig, 1, next);
        assert_empty(rig);
    }
}

/* ---- sleep and wake ---------------------------------------------------------------------------------------------- */

static void test_evapid_sleeps_only_on_an_empty_ring(void **state)
{
    struct rig *rig = *state;
    assert_true(ring_sleep(&rig->reader, rig->reader.tail));
    assert_int_not_equal(ring_sleeper(rig->header, rig->lane), 0);
    assert_int_equal(push_numbered(rig, 1, 1), RING_PUSHED);
    assert_false(ring_sleep(&rig->reader, rig->reader.tail));
    assert_int_equal(ring_sleeper(rig->header, rig->lane), 0);
    take_numbered(rig, 1, 1);
    assert_true(ring_sleep(&rig->reader, rig->reader.tail));
}

/* Records that are held, read and not released, are not news: evapid may sleep behind them. */
static void test_evapid_sleeps_behind_what_it_has_seen(void **state)
{
    struct rig *rig = *state;
    push_length(rig, RING_RELAY, 0);
    push_length(rig, RING_RELAY, 0);
    assert_false(ring_sleep(&rig->reader, 32));
    assert_true(ring_sleep(&rig->reader, 64));
}

static void test_a_woken_evapid_counts_as_awake(void **state)
{
    struct rig *rig = *state;
    assert_true(ring_sleep(&rig->reader, 0));
    const uint64_t sleep = ring_sleeper(rig->header, rig->lane);
    assert_int_equal(ring_sleeper(rig->header, rig->lane), sleep);
    ring_woken(rig->header, sleep);
    assert_int_equal(ring_sleeper(rig->header, rig->lane), 0);
}

/* The first of two producers is slow: evapid has slept again when it says "woken". */
static void test_a_late_waker_does_not_end_a_later_sleep(void **state)
{
    struct rig *rig = *state;
    assert_true(ring_sleep(&rig->reader, 0));
    const uint64_t early = ring_sleeper(rig->header, rig->lane);
    ring_woken(rig->header, early);
    assert_true(ring_sleep(&rig->reader, 0));
    assert_int_not_equal(ring_sleeper(rig->header, rig->lane), early);
    ring_woken(rig->header, early);
    assert_int_not_equal(ring_sleeper(rig->header, rig->lane), 0);
}

/* The same across a restart of evapid, asleep or awake: its next sleep is none that an old producer could mean. */
static void test_a_new_evapid_s_sleep_is_a_new_one(void **state)
{
    struct rig *rig = *state;
    assert_true(ring_sleep(&rig->reader, 0));
    const uint64_t early = ring_sleeper(rig->header, rig->lane);
    reopen(rig);
    assert_true(ring_sleep(&rig->reader, 0));
    assert_int_not_equal(ring_sleeper(rig->header, rig->lane), early);
    const uint64_t later = ring_sleeper(rig->header, rig->lane);
    ring_woken(rig->header, later);
    reopen(rig);
    assert_true(ring_sleep(&rig->reader, 0));
    ring_woken(rig->header, early);
    ring_woken(rig->header, later);
    assert_int_not_equal(ring_sleeper(rig->header, rig->lane), 0);
}

static void test_a_sleep_s_number_is_never_0(void **state)
{
    struct rig *rig = *state;
    rig->reader.sleeps = RING_AT_HOLE - 1;
    assert_true(ring_sleep(&rig->reader, 0));
    assert_false(ring_waits_at_hole(rig->header));
    assert_int_not_equal(ring_sleeper(rig->header, rig->lane), 0);
}

/* Push, see that evapid sleeps, and be killed. */
static int die_before_the_wake(struct rig *rig, unsigned producer)
{
    if (push_numbered(rig, producer, 1) == RING_PUSHED && ring_sleeper(rig->header, rig->lane) != 0)
        raise(SIGKILL);
    return 1;
}

/* The next producer finds evapid still asleep, and wakes it for both. */
static void test_a_producer_killed_before_it_woke_evapid(void **state)
{
    struct rig *rig = *state;
    int status = 0;
    assert_true(ring_sleep(&rig->reader, 0));
    rig_fork(rig, 0, die_before_the_wake);
    assert_int_equal(waitpid(rig->children[0], &status, 0), rig->children[0]);
    rig->children[0] = 0;
    assert_true(WIFSIGNALED(status));
    assert_int_equal(push_numbered(rig, 1, 1), RING_PUSHED);
    assert_int_not_equal(ring_sleeper(rig->header, rig->lane), 0);
    take_numbered(rig, 0, 1);
    take_numbered(rig, 1, 1);
}

static int sleep_traced(struct rig *rig)
{
    return ring_sleep(&rig->reader, rig->reader.tail) ? 1 : 0;
}

/* A record comes after each single instruction of falling asleep: evapid sees it and stays awake, or the producer sees
 * that it has to wake evapid. */
static void test_a_push_at_every_instruction_of_falling_asleep(void **state)
{
    struct rig *rig = *state;
    size_t asleep = 0, awake = 0;
    int sleeps = 0;
    assert_int_equal(push_length(rig, RING_RELAY, 0),
                     RING_PUSHED); /* with our slot evapid has as much to look at as below */
    rig_place(rig, SMALL);
    if (!fork_traced(rig, sleep_traced))
        skip();
    /* With a sanitizer only a twentieth of the instructions is behind the look for a record. */
    const size_t all = step(rig, SIZE_MAX, &sleeps), places = all < 200 ? all : 200;
    assert_int_equal(sleeps, 1);
    for (size_t i = 0; i < places; i++) {
        rig_place(rig, SMALL);
        assert_true(fork_traced(rig, sleep_traced));
        if (step(rig, all * i / places, &sleeps) < all * i / places)
            continue;
        assert_int_equal(push_length(rig, RING_RELAY, 0), RING_PUSHED);
        const bool wakes = ring_sleeper(rig->header, rig->lane) != 0;
        step(rig, SIZE_MAX, &sleeps);
        assert_true(wakes || sleeps == 0);
        asleep += sleeps == 1;
        awake += sleeps == 0;
    }
    assert_true(asleep > 0 && awake > 0);
}

enum { CALLS = 6000 };

/* Push, wake as every producer does, and push again only when evapid has released the record: a wake that is lost is
 * repaired by nobody. */
static int push_and_wait(struct rig *rig, unsigned producer)
{
    for (uint64_t number = 0; number < CALLS; number++) {
        if (push_numbered_waiting(rig, producer, number) != 0)
            return 1;
        const uint64_t one = 1, end = rig->header->slots[mine(rig)].claimed,
                       sleep = ring_sleeper(rig->header, rig->lane);
        if (sleep != 0) {
            if (write(rig->eventfd, &one, sizeof(one)) != sizeof(one))
                return 1;
            ring_woken(rig->header, sleep);
        }
        while ((int64_t)(atomic_load_explicit(&rig->header->tail, memory_order_acquire) - end) < 0)
            sched_yield();
    }
    return 0;
}

/* Sleep until a producer writes to the eventfd. */
static void sleep_on_eventfd(struct rig *rig)
{
    struct pollfd readable = { .fd = rig->eventfd, .events = POLLIN };
    uint64_t wakes;
    assert_int_equal(poll(&readable, 1, -1), 1);
    assert_int_equal(read(rig->eventfd, &wakes, sizeof(wakes)), sizeof(wakes));
}

static void check_wakes(struct rig *rig, size_t producers)
{
    uint64_t next[CHILDREN] = { 0 };
    size_t taken = 0, sleeps = 0;
    for (size_t i = 0; i < producers; i++)
        rig_fork(rig, i, push_and_wait);
    while (taken < producers * CALLS) {
        struct ring_record record = { 0 };
        const char *why = NULL;
        if (ring_peek(&rig->reader, rig->reader.tail, &record, &why) == RING_RECORD) {
            take_in_order(rig, 1, next);
            taken++;
        } else if (ring_sleep(&rig->reader, rig->reader.tail)) {
            sleep_on_eventfd(rig);
            sleeps++;
        }
    }
    assert_true(sleeps > 0);
    for (size_t i = 0; i < producers; i++)
        rig_join(rig, i);
}

static void test_no_wake_is_lost_by_one_producer(void **state)
{
    check_wakes(*state, 1);
}

static void test_no_wake_is_lost_by_many_producers(void **state)
{
    check_wakes(*state, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_RING(test_many_producer_processes),
        WITH_RING(test_many_producer_threads),
        WITH_RING(test_a_producer_killed_in_the_middle),
        WITH_RING(test_a_producer_that_is_stopped_in_the_middle),
        WITH_RING(test_evapid_is_woken_at_a_hole_when_it_closes),
        WITH_RING(test_evapid_alone_skips_what_was_not_published),
        WITH_RING(test_a_push_that_stops_at_every_instruction),
        WITH_RING(test_a_producer_killed_all_over_its_push),
        WITH_RING(test_producers_killed_at_random),
        WITH_RING(test_one_producer_more_than_there_are_slots),
        WITH_RING(test_evapid_sleeps_only_on_an_empty_ring),
        WITH_RING(test_evapid_sleeps_behind_what_it_has_seen),
        WITH_RING(test_a_woken_evapid_counts_as_awake),
        WITH_RING(test_a_late_waker_does_not_end_a_later_sleep),
        WITH_RING(test_a_new_evapid_s_sleep_is_a_new_one),
        WITH_RING(test_a_sleep_s_number_is_never_0),
        WITH_RING(test_a_producer_killed_before_it_woke_evapid),
        WITH_RING(test_a_push_at_every_instruction_of_falling_asleep),
        WITH_RING(test_no_wake_is_lost_by_one_producer),
        WITH_RING(test_no_wake_is_lost_by_many_producers),
    };
    return cmocka_run_group_tests_name("ring, producers", tests, NULL, NULL);
}
