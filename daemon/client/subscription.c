/* Following a run, and being skipped by it. */
#include "client/subscription.h"
#include "base/log.h"
#include "base/state.h"
#include "client/books.h"
#include "client/ledger.h"

static struct log_limit failures = { .kind = "clients: failures to send" };

void subscription_follow(struct client *client, struct run *run)
{
    outq_follow(&client->out, run);
    books_note_given(client);
}

/* Add the events for which the run skipped it to the books. */
static void subscription_count_skipped(struct client *client)
{
    struct subscription *subscription = &client->subscription;
    if (subscription->skipped_by == NULL)
        return;
    books_count_skipped(client, subscription->skipped_by->offered - subscription->skipped_since);
    subscription->skipped_since = subscription->skipped_by->offered;
    ledger_note_since(client->slot, subscription->skipped_since);
}

void subscription_skip(struct client *client, struct run *run)
{
    struct subscription *subscription = &client->subscription;
    ledger_touch(client->host->ledger, client->slot);
    subscription->skipped_by = run;
    subscription->skipped_since = run->offered;
    ledger_note_since(client->slot, subscription->skipped_since);
    ledger_note_skipped(client->slot, true);
    run_begin_skip(run);
}

static void subscription_end_skip(struct client *client)
{
    struct subscription *subscription = &client->subscription;
    if (subscription->skipped_by == NULL)
        return;
    subscription_count_skipped(client);
    ledger_touch(client->host->ledger, client->slot);
    ledger_note_skipped(client->slot, false);
    run_end_skip(subscription->skipped_by);
    subscription->skipped_by = NULL;
}

void subscription_resume(struct client *client)
{
    struct run *run = client->subscription.skipped_by;
    subscription_end_skip(client);
    subscription_follow(client, run);
}

/* Without memory, the event that is being sent may stay incomplete. Only closing the connection shows this to the
 * peer. */
void subscription_leave(struct client *client)
{
    subscription_end_skip(client);
    const bool left = outq_leave(&client->out);
    books_note_given(client);
    if (left)
        return;
    stream_shut(&client->stream);
    subscription_fail(client, DROP_MEMORY, "no memory for its queue");
}

void subscription_fail(struct client *client, enum drop_reason reason, const char *why)
{
    struct subscription *subscription = &client->subscription;
    char subject[CLIENT_SUBJECT];
    client_subject(client, subject);
    log_limited(&failures, LEVEL_INFO, subject, "%s %s %u: %s", client->address, remote_noun(&client->origin),
                client->port, why);
    subscription->failed = true;
    client->host->failed(client); /* it may take the queue */
    books_count_dropped(client, reason, outq_clear(&client->out));
}

void subscription_end(struct client *client)
{
    struct subscription *subscription = &client->subscription;
    subscription->failed = true;
}

const struct tally *subscription_tally(struct client *client)
{
    subscription_count_skipped(client);
    books_note_given(client);
    return client->tally;
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

/* Count the missed events first: the successor uses these books, and so do we if it fails. */
void subscription_save(struct client *client, struct state_out *out)
{
    const struct subscription *subscription = &client->subscription;
    subscription_count_skipped(client);
    state_put(out, "failed", subscription->failed);
    state_put(out, "skipped", subscription->skipped_by != NULL);
    state_put(out, "skipped-since", subscription->skipped_since);
}

bool subscription_load(struct client *client, struct run *run, struct state_in *in)
{
    struct subscription *subscription = &client->subscription;
    subscription->failed = state_get(in, "failed", 0) == 1;
    const bool skipped = state_get(in, "skipped", 0) == 1;
    subscription->skipped_since = state_get(in, "skipped-since", 0);
    if (!skipped || client->state == CLIENT_GONE)
        return !in->at.failed;
    if (subscription->skipped_since > run->offered)
        return state_fail(in);
    subscription->skipped_by = run;
    run_begin_skip(run);
    return true;
}
