/* push: many processes push events into evapid's ring at once, as Kamailio's SIP workers do, and each looks how long it takes.
 *
 * There are three rounds. In the first all push, and the time that the processor took for all of it counts. In the second they look
 * at the clock around every push. In the third they do the same around a copy of as many bytes into memory of their own: that shows
 * what the scheduler and the clock alone do to so many processes.
 *
 * A worker is warm: it has written to every page of the ring before, and a round begins with some calls that do not count. */
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "clock.h"
#include "commands.h"
#include "framing.h"
#include "module.h"
#include "options.h"

enum { WORKERS_MAX = 256, START_NS = 20000000, REST_US = 1000, OWN_BYTES = 1 << 20, PAGE = 4096, WARM_PART = 8 };
enum round { ROUND_COST, ROUND_TAIL, ROUND_COPY, ROUNDS };

struct settings {
    const char *socket;
    uint64_t workers, events, size, ring, timeout_s;
    bool pin;
};

/* What one worker has found. */
struct found {
    uint64_t first_ns, last_ns, cpu_ns, full;
    bool failed;
};

/* In shared memory. */
struct meeting {
    _Atomic uint64_t starts_ns[ROUNDS]; /* when the round begins; 0: not known yet */
    _Atomic uint64_t there, done;       /* workers: ready for the first round; rounds that they have ended */
    struct found found[WORKERS_MAX];
};

struct crowd {
    struct settings settings;
    struct module *module;
    struct framing framing;
    struct meeting *meeting;
    uint32_t *took_ns; /* of each push of each worker */
};

static uint64_t cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * CLOCK_NS_PER_S + (uint64_t)used.tv_nsec;
}

static void *shared_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* The same bytes as a push copies. */
static void copy_one(unsigned char *own, const struct framing *framing, uint64_t number)
{
    const size_t size = (sizeof(struct ring_record) + framing->bytes + RING_ALIGN - 1) & ~(size_t)(RING_ALIGN - 1);
    unsigned char *at = own + number * size % (OWN_BYTES - size);
    memset(at, (int)number, sizeof(struct ring_record));
    memcpy(at + sizeof(struct ring_record), framing->frame, framing->bytes);
    __asm__ volatile("" : : "r"(at) : "memory");
}

static bool push_one(struct crowd *crowd)
{
    const struct ring_record record = { .type = RING_RELAY };
    return module_push(crowd->module, record, "", crowd->framing.frame, crowd->framing.bytes);
}

static bool round_run(struct crowd *crowd, enum round round, uint64_t events, unsigned char *own, uint32_t *took_ns)
{
    for (uint64_t i = 0; i < events; i++) {
        const uint64_t before_ns = round == ROUND_COST ? 0 : clock_ns();
        framing_number(&crowd->framing, i);
        if (round == ROUND_COPY)
            copy_one(own, &crowd->framing, i);
        else if (!push_one(crowd))
            return false;
        if (round == ROUND_COST)
            continue;
        const uint64_t took = clock_ns() - before_ns;
        took_ns[i] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    }
    return true;
}

static void pin(uint64_t worker)
{
    cpu_set_t one;
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    CPU_ZERO(&one);
    CPU_SET(worker % (uint64_t)processors, &one);
    sched_setaffinity(0, sizeof(one), &one);
}

/* Write every page of the ring, and change nothing. */
static void pages_touch(const struct crowd *crowd)
{
    for (uint64_t at = 0; at < crowd->settings.ring; at += PAGE)
        atomic_fetch_or(ring_word(crowd->module->ring, (size_t)crowd->settings.ring, at), 0);
}

static void worker_round(struct crowd *crowd, uint64_t worker, enum round round, unsigned char *own)
{
    struct found *found = &crowd->meeting->found[worker];
    uint64_t starts_ns = 0;
    while ((starts_ns = atomic_load(&crowd->meeting->starts_ns[round])) == 0 || clock_ns() < starts_ns)
        clock_rest_us(REST_US);
    uint32_t *took_ns = crowd->took_ns + worker * crowd->settings.events;
    const bool warm = round_run(crowd, round, crowd->settings.events / WARM_PART, own, took_ns);
    const uint64_t first_ns = clock_ns(), used_ns = cpu_ns();
    const bool good = warm && round_run(crowd, round, crowd->settings.events, own, took_ns);
    *found = (struct found){ .first_ns = first_ns,
                             .last_ns = clock_ns(),
                             .cpu_ns = cpu_ns() - used_ns,
                             .full = crowd->module->full,
                             .failed = !good };
    atomic_fetch_add(&crowd->meeting->done, 1);
}

static void worker_run(struct crowd *crowd, uint64_t worker)
{
    unsigned char *own = malloc(OWN_BYTES);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (own == NULL)
        _exit(1);
    if (crowd->settings.pin)
        pin(worker);
    memset(own, 1, OWN_BYTES);
    memset(crowd->took_ns + worker * crowd->settings.events, 0, crowd->settings.events * sizeof(*crowd->took_ns));
    pages_touch(crowd);
    module_join(crowd->module);
    atomic_fetch_add(&crowd->meeting->there, 1);
    for (enum round round = 0; round < ROUNDS; round++)
        worker_round(crowd, worker, round, own);
    _exit(0);
}

static bool await(const struct crowd *crowd, const _Atomic uint64_t *count, uint64_t least)
{
    const uint64_t end_ns = clock_ns() + crowd->settings.timeout_s * CLOCK_NS_PER_S;
    while (atomic_load(count) < least && clock_ns() < end_ns)
        clock_rest_us(REST_US);
    return atomic_load(count) >= least;
}

static bool crowd_start(struct crowd *crowd)
{
    for (uint64_t i = 0; i < crowd->settings.workers; i++) {
        const pid_t pid = fork();
        if (pid == 0)
            worker_run(crowd, i);
        if (pid < 0)
            return false;
    }
    return await(crowd, &crowd->meeting->there, crowd->settings.workers);
}

/* All workers do the round; then evapid reads what they have pushed. */
static bool crowd_run(struct crowd *crowd, enum round round)
{
    bool good = true;
    atomic_store(&crowd->meeting->starts_ns[round], clock_ns() + START_NS);
    if (!await(crowd, &crowd->meeting->done, crowd->settings.workers * (round + 1U)))
        return false;
    for (uint64_t i = 0; i < crowd->settings.workers; i++)
        good = good && !crowd->meeting->found[i].failed;
    const uint64_t end_ns = clock_ns() + crowd->settings.timeout_s * CLOCK_NS_PER_S;
    while (good && !module_drained(crowd->module) && clock_ns() < end_ns)
        good = module_serve(crowd->module, 1);
    return good && module_drained(crowd->module);
}

static int by_size(const void *a, const void *b)
{
    const uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* "name": {"p50": ..., ...}: how long a push took, in nanoseconds. */
static void tail_print(const struct crowd *crowd, const char *name)
{
    const size_t count = crowd->settings.workers * crowd->settings.events;
    qsort(crowd->took_ns, count, sizeof(*crowd->took_ns), by_size);
    printf(", \"%s\": {\"p50\": %u, \"p99\": %u, \"p99.9\": %u, \"max\": %u}", name, crowd->took_ns[count / 2],
           crowd->took_ns[count - 1 - count / 100], crowd->took_ns[count - 1 - count / 1000],
           crowd->took_ns[count - 1]);
}

static void cost_print(const struct crowd *crowd)
{
    const uint64_t calls = crowd->settings.workers * crowd->settings.events;
    uint64_t cpu = 0, full = 0, first = UINT64_MAX, last = 0;
    for (uint64_t i = 0; i < crowd->settings.workers; i++) {
        const struct found *found = &crowd->meeting->found[i];
        cpu += found->cpu_ns;
        full += found->full;
        first = found->first_ns < first ? found->first_ns : first;
        last = found->last_ns > last ? found->last_ns : last;
    }
    printf("{\"cpu\": %.2f, \"elapsed\": %.2f, \"full\": %" PRIu64, (double)cpu / (double)calls,
           (double)(last - first) / (double)calls, full);
}

static bool settings_read(int argc, char **argv, struct settings *settings)
{
    const struct option_spec specs[] = {
        { "socket", OPTION_TEXT, &settings->socket, true, "evapid's socket for Kamailio" },
        { "workers", OPTION_NUMBER, &settings->workers, true, "processes that push at once" },
        { "events", OPTION_NUMBER, &settings->events, true, "to push, each" },
        { "size", OPTION_NUMBER, &settings->size, true, "bytes of an event" },
        { "ring", OPTION_NUMBER, &settings->ring, false, "bytes of the ring, a power of two" },
        { "pin", OPTION_FLAG, &settings->pin, false, "keep each process on one processor" },
        { "timeout", OPTION_NUMBER, &settings->timeout_s, false, "seconds, 60 by default" },
        { 0 },
    };
    return options_read(argc, argv, specs) && settings->workers > 0 && settings->workers <= WORKERS_MAX &&
           settings->events > 0;
}

int push_main(int argc, char **argv)
{
    static struct module module;
    struct crowd crowd = { .settings = { .ring = 32UL << 20, .timeout_s = 60 }, .module = &module };
    if (!settings_read(argc, argv, &crowd.settings) ||
        !framing_make(&crowd.framing, "raw", FRAMING_EVENT, (size_t)crowd.settings.size))
        return 2;
    const size_t calls = crowd.settings.workers * crowd.settings.events;
    crowd.meeting = shared_memory(sizeof(*crowd.meeting));
    crowd.took_ns = shared_memory(calls * sizeof(*crowd.took_ns));
    if (crowd.meeting == NULL || crowd.took_ns == NULL ||
        !module_attach(&module, crowd.settings.socket, (size_t)crowd.settings.ring, "", UINT16_MAX))
        return 2;
    if (!crowd_start(&crowd) || !crowd_run(&crowd, ROUND_COST))
        return 1;
    cost_print(&crowd);
    for (enum round round = ROUND_TAIL; round < ROUNDS; round++) {
        if (!crowd_run(&crowd, round))
            return 1; /* the others end with us */
        tail_print(&crowd, round == ROUND_TAIL ? "push" : "copy");
    }
    puts("}");
    return 0;
}
