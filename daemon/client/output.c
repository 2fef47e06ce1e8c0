/* Queueing and sending. */
#include "client/output.h"

#include <errno.h>
#include <string.h>

#include "client/books.h"
#include "client/ledger.h"
#include "client/pace.h"
#include "client/subscription.h"
#include "events/waits.h"

#define FLUSH_IOVECS 256      /* most pieces of one system call */
#define FLUSH_BUDGET 1048576U /* bytes for one client in one loop turn, before others are served */

/* ---- into the queue --------------------------------------------------------------------------------------------- */

static enum drop_reason output_refusal(const struct client *client, size_t size)
{
    const bool full = client->subscription.skipped_by != NULL || size > outq_room(&client->out);
    if (client->subscription.failed)
        return DROP_CLOSED;
    return size > client->out.limit ? DROP_LARGE : full ? DROP_SLOW : DROP_MEMORY;
}

void output_refuse(struct client *client, enum drop_reason reason)
{
    if (reason == DROP_SLOW && client->pace.policy != SLOW_DISCONNECT)
        pace_fall_behind(client);
    books_count_refused(client, reason);
}

/* Is there room in the queue? If not, make some by sending, or as the client's policy says. */
static bool output_has_room(struct client *client, size_t size)
{
    while (client->subscription.skipped_by != NULL || size > outq_room(&client->out)) {
        if (size > client->out.limit || client->subscription.failed)
            return false;
        if (client->state == CLIENT_ADMITTING || client->output.full)
            return pace_make_room(client, size);
        client->host->commit(client);
        output_flush(client);
    }
    return !client->subscription.failed;
}

bool output_give(struct client *client, struct chunk *chunk, enum drop_reason *reason)
{
    if (output_has_room(client, chunk->used) && outq_push(&client->out, chunk)) {
        books_count_given(client);
        return true;
    }
    *reason = output_refusal(client, chunk->used);
    output_refuse(client, *reason);
    return false;
}

bool output_can_accept(struct client *client, size_t size, enum drop_reason *reason)
{
    if (output_has_room(client, size))
        return true;
    *reason = output_refusal(client, size);
    output_refuse(client, *reason);
    return false;
}

/* ---- into the socket -------------------------------------------------------------------------------------------- */

static void output_note_sent(struct client *client, size_t bytes)
{
    struct client_output *output = &client->output;
    ledger_note_output(client->slot, true); /* we may be killed before everything is noted */
    waits_sent(client->host->waits);
    books_count_sent(client, outq_sent(&client->out, bytes), bytes);
    ledger_note_output(client->slot, outq_begun(&client->out) > 0);
    ledger_note_offered(client->slot, 0);
    pace_note_sent(client);
    output->sent_ms = uv_now(client->poll.loop);
}

/* We may be killed while the kernel takes the bytes. The stream's position, if it has one, then tells how many it took.
 * If those are all that was queued, only whole events were sent. */
static void output_note_offered(struct client *client, const struct iovec *iov, int count)
{
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    const bool all = bytes == outq_bytes(&client->out);
    ledger_note_offered(client->slot, all ? client->tally->delivered_bytes + bytes : LEDGER_OFFERED_PART);
}

/* How many of the iovecs to send without going far over the budget. */
static int within_budget(const struct iovec *iov, int count, size_t budget)
{
    int n = 0;
    for (size_t bytes = 0; n < count && bytes < budget; n++)
        bytes += iov[n].iov_len;
    return n;
}

void output_flush(struct client *client)
{
    struct client_output *output = &client->output;
    struct iovec iov[FLUSH_IOVECS];
    size_t budget = FLUSH_BUDGET;
    output->full = false;
    while (!outq_is_empty(&client->out) && budget > 0 && !client->subscription.failed) {
        const int count = within_budget(iov, outq_gather(&client->out, iov, FLUSH_IOVECS), budget);
        output_note_offered(client, iov, count);
        const ssize_t n = client->stream.kind->write(&client->stream, iov, count);
        if (n < 0 && errno == EINTR)
            continue;
        output->full = n < 0 && errno == EAGAIN;
        if (output->full) {
            ledger_note_offered(client->slot, 0); /* the kernel has taken nothing */
            break;
        }
        if (n < 0) {
            subscription_fail(client, DROP_CLOSED, strerror(errno));
            break;
        }
        output_note_sent(client, (size_t)n);
        budget -= (size_t)n < budget ? (size_t)n : budget;
    }
    output->blocked = !outq_is_empty(&client->out);
    pace_note(client);
}

void output_note_writable(struct client *client)
{
    struct client_output *output = &client->output;
    output->full = false;
}

void output_begin(struct client *client)
{
    struct client_output *output = &client->output;
    output->sent_ms = uv_now(client->poll.loop);
}

void output_restore(struct client *client, bool blocked)
{
    struct client_output *output = &client->output;
    output->blocked = blocked;
}

void output_stop(struct client *client)
{
    struct client_output *output = &client->output;
    output->blocked = false;
}
