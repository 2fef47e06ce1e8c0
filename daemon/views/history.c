/* Counts of intervals, in a ring of them. */
#include "views/history.h"

#include <string.h>

static void history_count(const struct bus *bus, uint64_t counts[HISTORY_RATES])
{
    const struct tally *totals = &bus->totals;
    counts[HISTORY_EVENTS] = events_total(&bus->events);
    counts[HISTORY_DELIVERIES] = totals->delivered;
    counts[HISTORY_MESSAGES] = totals->messages;
    counts[HISTORY_DROPPED] = 0;
    for (int reason = 0; reason < DROP_REASONS; reason++)
        counts[HISTORY_DROPPED] += totals->dropped[reason];
}

/* A turn may come late: the interval's count then has all that passed since the last one. */
static void history_add(struct history *history, const uint64_t counts[HISTORY_RATES])
{
    for (int rate = 0; rate < HISTORY_RATES; rate++)
        history->passed[history->next][rate] = counts[rate] - history->before[rate];
    history->next = (history->next + 1) % HISTORY_INTERVALS;
    history->count += history->count < HISTORY_INTERVALS;
}

void history_note(struct history *history, const struct bus *bus, uint64_t now_ms)
{
    uint64_t counts[HISTORY_RATES];
    if (history->begun && now_ms - history->noted_ms < HISTORY_INTERVAL_S * 1000U)
        return;
    history_count(bus, counts);
    if (history->begun)
        history_add(history, counts);
    history->begun = true;
    history->noted_ms = now_ms;
    memcpy(history->before, counts, sizeof(counts));
}

static json_t *history_list(const struct history *history, enum history_rate rate)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < history->count; i++) {
        const unsigned at = (history->next + HISTORY_INTERVALS - history->count + i) % HISTORY_INTERVALS;
        if (json_array_append_new(list, json_integer((json_int_t)history->passed[at][rate])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

json_t *history_describe(const struct history *history)
{
    return json_pack("{s:I, s:o, s:o, s:o, s:o}", "interval_s", (json_int_t)HISTORY_INTERVAL_S, "events",
                     history_list(history, HISTORY_EVENTS), "deliveries", history_list(history, HISTORY_DELIVERIES),
                     "messages", history_list(history, HISTORY_MESSAGES), "dropped",
                     history_list(history, HISTORY_DROPPED));
}
