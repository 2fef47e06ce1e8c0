/* Names and sums of the books. */
#include "tally.h"

const char *drop_reason_name(enum drop_reason reason)
{
    static const char *const names[] = { "slow", "closed", "large", "memory", "lost" };
    return names[reason];
}

const char *message_loss_name(enum message_loss reason)
{
    static const char *const names[] = { "closed", "memory", "lost" };
    return names[reason];
}

void tally_add(struct tally *sum, const struct tally *tally)
{
    sum->relayed += tally->relayed;
    sum->delivered += tally->delivered;
    sum->delivered_bytes += tally->delivered_bytes;
    for (int reason = 0; reason < DROP_REASONS; reason++)
        sum->dropped[reason] += tally->dropped[reason];
    sum->messages += tally->messages;
    sum->message_bytes += tally->message_bytes;
    sum->messages_delivered += tally->messages_delivered;
    for (int reason = 0; reason < MESSAGE_LOSSES; reason++)
        sum->messages_dropped[reason] += tally->messages_dropped[reason];
}

uint64_t tally_dropped(const struct tally *tally)
{
    uint64_t events = 0;
    for (int reason = 0; reason < DROP_REASONS; reason++)
        events += tally->dropped[reason];
    return events;
}

uint64_t tally_messages_dropped(const struct tally *tally)
{
    uint64_t messages = 0;
    for (int reason = 0; reason < MESSAGE_LOSSES; reason++)
        messages += tally->messages_dropped[reason];
    return messages;
}

uint64_t tally_messages_waiting(const struct tally *tally)
{
    return tally->messages - tally->messages_delivered - tally_messages_dropped(tally);
}
