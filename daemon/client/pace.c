/* The slow state, and the two policies that drop events. */
#include "client/pace.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/state.h"
#include "client/books.h"
#include "client/subscription.h"

#define SLOW_PART 2U /* slow: more than this part of the limit waits; dropping leaves this part */
#define CALM_PART 8U /* no longer slow: at most this part waits */

static struct log_limit falling = { .kind = "clients: slow" };
static struct log_limit rising = { .kind = "clients: no longer slow" };

/* ---- the state ------------------------------------------------------------------------------------------------- */

void pace_fall_behind(struct client *client)
{
    struct pace *pace = &client->pace;
    char subject[CLIENT_SUBJECT];
    if (pace->slow_since_ms != 0)
        return;
    client_subject(client, subject);
    pace->slow_since_ms = clock_wall_ms();
    pace->slow_dropped = subscription_tally(client)->dropped[DROP_SLOW];
    log_limited(&falling, LEVEL_NOTICE, subject, "%s %s %u is slow: %llu events (%zu bytes, limit %zu) wait for it",
                client->address, remote_noun(&client->origin), client->port,
                (unsigned long long)outq_events(&client->out), outq_bytes(&client->out), client->out.limit);
}

static void pace_catch_up(struct client *client)
{
    struct pace *pace = &client->pace;
    char subject[CLIENT_SUBJECT];
    const uint64_t dropped = subscription_tally(client)->dropped[DROP_SLOW] - pace->slow_dropped;
    const uint64_t now = clock_wall_ms();
    const uint64_t ms = now > pace->slow_since_ms ? now - pace->slow_since_ms : 0;
    client_subject(client, subject);
    log_limited(&rising, dropped > 0 ? LEVEL_WARNING : LEVEL_NOTICE, subject,
                "%s %s %u keeps up again after %llu ms (%zu bytes wait): %llu events were dropped for it",
                client->address, remote_noun(&client->origin), client->port, (unsigned long long)ms,
                outq_bytes(&client->out), (unsigned long long)dropped);
    pace->slow_since_ms = 0;
}

void pace_note(struct client *client)
{
    const size_t bytes = outq_bytes(&client->out);
    if (!client_may_receive(client))
        return;
    if (bytes > client->out.limit / SLOW_PART)
        pace_fall_behind(client);
    else if (client->pace.slow_since_ms != 0 && bytes <= client->out.limit / CALM_PART)
        pace_catch_up(client);
}

/* ---- drop-oldest ------------------------------------------------------------------------------------------------ */

/* A half-sent frame is always completed. If the event does not fit after it, drop nothing for the event. */
bool pace_make_room(struct client *client, size_t size)
{
    const size_t limit = client->out.limit;
    if (client->pace.policy != SLOW_DROP_OLDEST || size > limit || outq_begun(&client->out) > limit - size)
        return false;
    pace_fall_behind(client);
    const size_t keep = limit - size < limit / SLOW_PART ? limit - size : limit / SLOW_PART;
    books_count_dropped(client, DROP_SLOW, outq_drop_oldest(&client->out, keep));
    return size <= outq_room(&client->out);
}

/* ---- drop-newest ------------------------------------------------------------------------------------------------ */

static bool is_half_free(const struct client *client)
{
    return outq_bytes(&client->out) <= client->out.limit / SLOW_PART;
}

void pace_skip(struct client *client, struct run *run)
{
    if (client->subscription.skipped_by != NULL || is_half_free(client))
        return;
    subscription_leave(client);
    if (!client->subscription.failed)
        subscription_skip(client, run);
}

static uint64_t pace_drop_newest(struct client *client, size_t keep, struct run *run)
{
    subscription_leave(client);
    const uint64_t dropped = outq_drop_newest(&client->out, keep);
    if (run == NULL || client->subscription.failed)
        return dropped;
    pace_skip(client, run);
    if (client->subscription.skipped_by == NULL)
        subscription_follow(client, run);
    return dropped;
}

bool pace_shed(struct client *client, struct run *run)
{
    const size_t keep = outq_bytes(&client->out) / 2;
    pace_fall_behind(client);
    const uint64_t dropped = client->pace.policy == SLOW_DROP_OLDEST ? outq_drop_oldest(&client->out, keep)
                                                                     : pace_drop_newest(client, keep, run);
    books_count_dropped(client, DROP_SLOW, dropped);
    return dropped > 0 || client->subscription.failed;
}

void pace_note_sent(struct client *client)
{
    if (client->subscription.skipped_by != NULL && is_half_free(client))
        subscription_resume(client);
}

/* ---- terms and hand-over ---------------------------------------------------------------------------------------- */

void pace_set_policy(struct client *client, enum slow_policy policy)
{
    struct pace *pace = &client->pace;
    pace->policy = policy;
}

void pace_note_limits(struct client *client)
{
    if (client->subscription.skipped_by != NULL && (client->pace.policy != SLOW_DROP_NEWEST || is_half_free(client)))
        subscription_resume(client);
}

void pace_save(struct client *client, struct state_out *out)
{
    subscription_save(client, out);
    state_put(out, "slow-since-ms", client->pace.slow_since_ms);
    state_put(out, "slow-dropped", client->pace.slow_dropped);
}

bool pace_load(struct client *client, struct run *run, struct state_in *in)
{
    struct pace *pace = &client->pace;
    const bool good = subscription_load(client, run, in);
    pace->slow_since_ms = state_get(in, "slow-since-ms", 0);
    pace->slow_dropped = state_get(in, "slow-dropped", 0);
    return good && !in->at.failed;
}
