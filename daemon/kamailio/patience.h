/* Patience: wait a moment before sleeping, because more is likely to come within microseconds.
 *
 * Waking us costs the sender a system call, plus the time in which a sleeping processor wakes. While events or answers
 * come faster than that, it is better to look again. Experience decides: each failure doubles how often we then skip
 * the wait, and one success resets that. So a quiet bus sleeps. */
#ifndef EVAPID_PATIENCE_H
#define EVAPID_PATIENCE_H

#include <stdbool.h>
#include <stdint.h>

#define PATIENCE_NS 50000U         /* about the time of a few wakes */
#define PATIENCE_LEFT_OUT_MAX 256U /* times */

struct patience {
    uint64_t until_ns; /* 0: not waiting */
    unsigned left_out; /* skip the wait so many more times */
    unsigned penalty;  /* how many skips the last failure cost */
};

/* Something may come soon. now_ns: any clock that only grows. */
static inline void patience_begin(struct patience *patience, uint64_t now_ns)
{
    if (patience->until_ns != 0)
        return;
    if (patience->left_out > 0)
        patience->left_out--;
    else
        patience->until_ns = now_ns + PATIENCE_NS;
}

/* It has come. */
static inline void patience_rewarded(struct patience *patience)
{
    if (patience->until_ns != 0)
        patience->penalty = 0;
    patience->until_ns = 0;
}

/* Nothing has come yet. False: sleep now. */
static inline bool patience_lasts(struct patience *patience, uint64_t now_ns)
{
    if (patience->until_ns == 0)
        return false;
    if (now_ns < patience->until_ns)
        return true;
    patience->until_ns = 0;
    patience->penalty = patience->penalty == 0 ? 1 : patience->penalty * 2;
    if (patience->penalty > PATIENCE_LEFT_OUT_MAX)
        patience->penalty = PATIENCE_LEFT_OUT_MAX;
    patience->left_out = patience->penalty;
    return false;
}

#endif
