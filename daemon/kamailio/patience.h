/* Patience: not to sleep yet, because more is likely to come within microseconds.
 *
 * To be woken costs whoever brings more a system call, and the time that a sleeping processor takes. While events or
 * answers come closer to each other than that, it is better to look again by oneself. Whether they do is learnt from the
 * last times: each time in vain doubles how often it is left out, and one success forgets that. So a quiet bus sleeps. */
#ifndef EVAPID_PATIENCE_H
#define EVAPID_PATIENCE_H

#include <stdbool.h>
#include <stdint.h>

#define PATIENCE_NS 50000U         /* about the time of a few wakes */
#define PATIENCE_LEFT_OUT_MAX 256U /* times */

struct patience {
    uint64_t until_ns; /* 0: nothing is waited for */
    unsigned left_out; /* so many times more it is not tried */
    unsigned penalty;  /* times that the last failure cost */
};

/* Something may come soon. now_ns is any clock that only grows. */
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

/* Nothing has come yet. False: it is time to sleep. */
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
