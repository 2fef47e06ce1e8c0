/* Names and sums of the books. */
#include "tally.h"

const char *drop_reason_name(enum drop_reason reason)
{
    static const char *const names[] = { "slow", "closed", "large", "memory" };
    return names[reason];
}

const char *message_loss_name(enum message_loss reason)
{
    static const char *const names[] = { "closed", "memory", "lost" };
    return names[reason];
}

uint64_t tally_messages_waiting(const struct tally *tally)
{
    uint64_t waiting = tally->messages - tally->messages_delivered;
    for (int reason = 0; reason < MESSAGE_LOSSES; reason++)
        waiting -= tally->messages_dropped[reason];
    return waiting;
}
