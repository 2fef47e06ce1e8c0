/* Counting events and messages. */
#include "client/books.h"

#include "client/ledger.h"

void books_note_given(struct client *client)
{
    ledger_touch(client->host->ledger, client->slot);
    client->tally->relayed += outq_collect_given(&client->out);
    ledger_note_follows(client->slot, client->out.run != NULL);
    if (client->out.run != NULL)
        ledger_note_since(client->slot, client->out.since);
}

void books_count_given(struct client *client)
{
    client->host->totals->relayed++;
    books_note_given(client);
}

void books_count_skipped(struct client *client, uint64_t events)
{
    ledger_touch(client->host->ledger, client->slot);
    client->tally->relayed += events;
    client->tally->dropped[DROP_SLOW] += events;
}

void books_count_dropped(struct client *client, enum drop_reason reason, uint64_t events)
{
    ledger_touch(client->host->ledger, client->slot);
    client->tally->dropped[reason] += events;
    client->host->totals->dropped[reason] += events;
}

void books_count_refused(struct client *client, enum drop_reason reason)
{
    ledger_touch(client->host->ledger, client->slot);
    client->tally->relayed++;
    client->host->totals->relayed++;
    books_count_dropped(client, reason, 1);
}

void books_count_sent(struct client *client, uint64_t events, size_t bytes)
{
    struct tally *totals = client->host->totals;
    client->tally->delivered += events;
    client->tally->delivered_bytes += bytes;
    totals->delivered += events;
    totals->delivered_bytes += bytes;
}

void books_move(const struct ledger *ledger, struct ledger_slot *from, struct ledger_slot *to, uint64_t events)
{
    struct tally *given = &from->tally;
    struct tally *taken = &to->tally;
    ledger_touch(ledger, from);
    ledger_touch(ledger, to);
    given->relayed -= events;
    taken->relayed += events;
}

void books_uncount(struct client *client)
{
    ledger_touch(client->host->ledger, client->slot);
    client->tally->relayed--;
    client->host->totals->relayed--;
}

void books_count_kept(const struct ledger *ledger, struct ledger_slot *slot, struct tally *totals)
{
    struct tally *tally = &slot->tally;
    ledger_touch(ledger, slot);
    tally->relayed++;
    totals->relayed++;
}

void books_count_kept_dropped(const struct ledger *ledger, struct ledger_slot *slot, struct tally *totals,
                              enum drop_reason reason, uint64_t events)
{
    struct tally *tally = &slot->tally;
    ledger_touch(ledger, slot);
    tally->dropped[reason] += events;
    totals->dropped[reason] += events;
}

void books_count_message(struct client *client, size_t length)
{
    client->tally->messages++;
    client->tally->message_bytes += length;
    client->host->totals->messages++;
    client->host->totals->message_bytes += length;
}

void books_count_route(struct client *client)
{
    client->tally->messages_delivered++;
    client->host->totals->messages_delivered++;
}

void books_count_lost_message(struct client *client, enum message_loss reason)
{
    client->tally->messages_dropped[reason]++;
    client->host->totals->messages_dropped[reason]++;
}
