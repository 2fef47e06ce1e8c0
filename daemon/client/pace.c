/* The slow state, and the two policies that drop events. */
#include "client/pace.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/state.h"
#include "client/client.h"
#include "client/ledger.h"

#define SLOW_PART 2U /* slow: more than this part of the limit waits; what is dropped leaves as much */
#define CALM_PART 8U /* no longer: at most this part */

static struct log_limit falling = { .kind = "clients: slow" };
static struct log_limit rising = { .kind = "clients: no longer slow" };

/* ---- the state ------------------------------------------------------------------------------------------------- */

void pace_fall_behind(struct client *client)
{
    char subject[CLIENT_SUBJECT];
    if (client->slow_since_ms != 0)
        return;
    client_subject(client, subject);
    client->slow_since_ms = clock_wall_ms();
    client->slow_dropped = client_tally(client)->dropped[DROP_SLOW];
    log_limited(&falling, LEVEL_NOTICE, subject, "%s port %u is slow: %llu events (%zu bytes, limit %zu) wait for it",
                client->address, client->port, (unsigned long long)outq_events(&client->out), outq_bytes(&client->out),
                client->out.limit);
}

static void pace_catch_up(struct client *client)
{
    char subject[CLIENT_SUBJECT];
    const uint64_t dropped = client_tally(client)->dropped[DROP_SLOW] - client->slow_dropped;
    const uint64_t now = clock_wall_ms();
    const uint64_t ms = now > client->slow_since_ms ? now - client->slow_since_ms : 0;
    client_subject(client, subject);
    log_limited(&rising, dropped > 0 ? LEVEL_WARNING : LEVEL_NOTICE, subject,
                "%s port %u keeps up again after %llu ms (%zu bytes wait): %llu events were dropped for it",
                client->address, client->port, (unsigned long long)ms, outq_bytes(&client->out),
                (unsigned long long)dropped);
    client->slow_since_ms = 0;
}

void pace_note(struct client *client)
{
    const size_t bytes = outq_bytes(&client->out);
    if (!client_listens(client))
        return;
    if (bytes > client->out.limit / SLOW_PART)
        pace_fall_behind(client);
    else if (client->slow_since_ms != 0 && bytes <= client->out.limit / CALM_PART)
        pace_catch_up(client);
}

/* ---- drop-oldest ------------------------------------------------------------------------------------------------ */

/* A frame that has been begun is sent whole: when the event has no room behind that one, nothing is dropped for it. */
bool pace_make_room(struct client *client, size_t size)
{
    const size_t limit = client->out.limit;
    if (client->slow_policy != SLOW_DROP_OLDEST || size > limit || outq_begun(&client->out) > limit - size)
        return false;
    pace_fall_behind(client);
    const size_t keep = limit - size < limit / SLOW_PART ? limit - size : limit / SLOW_PART;
    client_count_dropped(client, DROP_SLOW, outq_drop_oldest(&client->out, keep));
    return size <= outq_room(&client->out);
}

/* ---- drop-newest ------------------------------------------------------------------------------------------------ */

static bool is_half_free(const struct client *client)
{
    return outq_bytes(&client->out) <= client->out.limit / SLOW_PART;
}

void pace_pass_over(struct client *client, struct run *run)
{
    if (client->passed_by != NULL || is_half_free(client))
        return;
    client_unfollow(client);
    if (client->deaf)
        return;
    ledger_touch(client->host->ledger, client->slot);
    client->passed_by = run;
    client->passed_since = run->offered;
    ledger_note_since(client->slot, client->passed_since);
    ledger_note_passed(client->slot, true);
    run_begin_pass(run);
}

static uint64_t pace_drop_newest(struct client *client, size_t keep, struct run *run)
{
    client_unfollow(client);
    const uint64_t dropped = outq_drop_newest(&client->out, keep);
    if (run == NULL || client->deaf)
        return dropped;
    pace_pass_over(client, run);
    if (client->passed_by == NULL)
        client_follow(client, run);
    return dropped;
}

bool pace_shed(struct client *client, struct run *run)
{
    const size_t keep = outq_bytes(&client->out) / 2;
    pace_fall_behind(client);
    const uint64_t dropped = client->slow_policy == SLOW_DROP_OLDEST ? outq_drop_oldest(&client->out, keep)
                                                                     : pace_drop_newest(client, keep, run);
    client_count_dropped(client, DROP_SLOW, dropped);
    return dropped > 0 || client->deaf;
}

void pace_count_passed(struct client *client)
{
    if (client->passed_by == NULL)
        return;
    const uint64_t missed = client->passed_by->offered - client->passed_since;
    ledger_touch(client->host->ledger, client->slot);
    client->tally->relayed += missed;
    client->tally->dropped[DROP_SLOW] += missed;
    client->passed_since = client->passed_by->offered;
    ledger_note_since(client->slot, client->passed_since);
}

void pace_end_pass(struct client *client)
{
    if (client->passed_by == NULL)
        return;
    pace_count_passed(client);
    ledger_touch(client->host->ledger, client->slot);
    ledger_note_passed(client->slot, false);
    run_end_pass(client->passed_by);
    client->passed_by = NULL;
}

/* It gets what the run is given from now on. */
static void pace_take_up(struct client *client)
{
    struct run *run = client->passed_by;
    pace_end_pass(client);
    client_follow(client, run);
}

void pace_sent(struct client *client)
{
    if (client->passed_by != NULL && is_half_free(client))
        pace_take_up(client);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

/* What it has missed is counted here: these books are the successor's, too, and are still ours if that one fails. */
void pace_save(struct client *client, struct state_out *out)
{
    pace_count_passed(client);
    state_put(out, "passed", client->passed_by != NULL);
    state_put(out, "passed-since", client->passed_since);
    state_put(out, "slow-since-ms", client->slow_since_ms);
    state_put(out, "slow-dropped", client->slow_dropped);
}

bool pace_load(struct client *client, struct run *run, struct state_in *in)
{
    const bool passed = state_take(in, "passed", 0) == 1;
    client->passed_since = state_take(in, "passed-since", 0);
    client->slow_since_ms = state_take(in, "slow-since-ms", 0);
    client->slow_dropped = state_take(in, "slow-dropped", 0);
    if (!passed || client->state == CLIENT_GONE)
        return !in->at.failed;
    if (client->passed_since > run->offered)
        return state_fail(in);
    client->passed_by = run;
    run_begin_pass(run);
    return true;
}

void pace_note_limits(struct client *client)
{
    if (client->passed_by != NULL && (client->slow_policy != SLOW_DROP_NEWEST || is_half_free(client)))
        pace_take_up(client);
}
