/* The history: how much passed in each interval of the last ten minutes, for graphs. It is in memory alone, and begins
 * anew with each evapid. */
#ifndef EVAPID_HISTORY_H
#define EVAPID_HISTORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "bus/bus.h"

#define HISTORY_INTERVAL_S 5U
#define HISTORY_INTERVALS 120U /* ten minutes */

enum history_rate { HISTORY_EVENTS, HISTORY_DELIVERIES, HISTORY_MESSAGES, HISTORY_DROPPED, HISTORY_RATES };

struct history {
    bool begun;
    uint64_t noted_ms;              /* the loop's time of the last note */
    uint64_t before[HISTORY_RATES]; /* the counts at that time */
    uint64_t passed[HISTORY_INTERVALS][HISTORY_RATES];
    unsigned count, next; /* intervals that are kept; where the next one goes */
};

/* Call it once a second: closes an interval when it is over. now_ms: the loop's time. */
void history_note(struct history *history, const struct bus *bus, uint64_t now_ms);

/* {"interval_s":5,"events":[...],"deliveries":[...],"messages":[...],"dropped":[...]}, each with one count for each
 * interval, the oldest first. NULL: memory is short. */
json_t *history_describe(const struct history *history);

#endif
