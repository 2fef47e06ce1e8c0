/* Busy polling: not to sleep yet, because more is likely to come within microseconds.
 *
 * To be woken costs whoever brings more a system call, and the time that a sleeping processor takes. While events or
 * answers come closer to each other than that, it is cheaper to look again. Whether they do is learnt from the last times:
 * each time in vain doubles how often it is left out, and one success forgets that. So a quiet bus sleeps. */
#ifndef EVAPID_BUSY_POLL_H
#define EVAPID_BUSY_POLL_H

#include <stdbool.h>
#include <stdint.h>

#define BUSY_POLL_NS 50000U         /* about the time of a few wakes */
#define BUSY_POLL_LEFT_OUT_MAX 256U /* times */

struct busy_poll {
    uint64_t until_ns; /* 0: not polling */
    unsigned left_out; /* so many times more it is not tried */
    unsigned penalty;  /* times that the last failure cost */
};

/* Something may come soon. now_ns is any clock that only grows. */
static inline void busy_poll_begin(struct busy_poll *poll, uint64_t now_ns)
{
    if (poll->until_ns != 0)
        return;
    if (poll->left_out > 0)
        poll->left_out--;
    else
        poll->until_ns = now_ns + BUSY_POLL_NS;
}

/* It has come. */
static inline void busy_poll_hit(struct busy_poll *poll)
{
    if (poll->until_ns != 0)
        poll->penalty = 0;
    poll->until_ns = 0;
}

/* Nothing has come yet. False: it is time to sleep. */
static inline bool busy_poll_goes_on(struct busy_poll *poll, uint64_t now_ns)
{
    if (poll->until_ns == 0)
        return false;
    if (now_ns < poll->until_ns)
        return true;
    poll->until_ns = 0;
    poll->penalty = poll->penalty == 0 ? 1 : poll->penalty * 2;
    if (poll->penalty > BUSY_POLL_LEFT_OUT_MAX)
        poll->penalty = BUSY_POLL_LEFT_OUT_MAX;
    poll->left_out = poll->penalty;
    return false;
}

#endif
