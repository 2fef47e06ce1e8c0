/* Measures the turns of the loop. */
#include "base/turn.h"

#include <time.h>

#include "base/log.h"

#define SUBJECT "evapid"
#define READ_NS 1000000U /* the thread's clock is read once in this time at most */

static struct log_limit long_turns = { .kind = "evapid: long turns" };

static uint64_t thread_cpu_ns(void)
{
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * 1000000000U + (uint64_t)spent.tv_nsec;
}

void turn_begin(struct turn *turn)
{
    turn->ended_ns = turn->read_ns = histogram_clock_ns();
    turn->cpu_ns = thread_cpu_ns();
}

static void turn_count(struct turn *turn, uint64_t passed_ns, uint64_t spent_ns)
{
    const uint64_t last_ns = spent_ns < passed_ns ? spent_ns : passed_ns;
    const uint64_t others = turn->uncounted - 1;
    histogram_add(&turn->histogram, last_ns, 1);
    if (others > 0)
        histogram_add(&turn->histogram, (spent_ns - last_ns) / others, others);
    turn->uncounted = 0;
    if (last_ns > TURN_BOUND_NS)
        log_limited(&long_turns, LEVEL_WARNING, SUBJECT,
                    "a turn of the loop has taken %llu ms of processor time: everybody waited for it",
                    (unsigned long long)(last_ns / 1000000));
}

void turn_end_at(struct turn *turn, uint64_t now_ns, uint64_t (*cpu_ns)(void))
{
    const uint64_t passed_ns = histogram_since_ns(turn->ended_ns, now_ns);
    turn->number++;
    turn->uncounted++;
    turn->ended_ns = now_ns;
    if (now_ns - turn->read_ns < READ_NS)
        return;
    const uint64_t spent_ns = cpu_ns();
    turn_count(turn, passed_ns, histogram_since_ns(turn->cpu_ns, spent_ns));
    turn->cpu_ns = spent_ns;
    turn->read_ns = now_ns;
}

void turn_end(struct turn *turn)
{
    turn_end_at(turn, histogram_clock_ns(), thread_cpu_ns);
}
