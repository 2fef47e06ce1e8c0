/* Names and sums of the books. */
#include "client/tally.h"

#include "base/state.h"

const char *drop_reason_name(enum drop_reason reason)
{
    static const char *const names[] = { "slow", "closed", "large", "memory", "lost", "absent" };
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

void tally_save(const struct tally *tally, struct state_out *out)
{
    state_put(out, "relayed", tally->relayed);
    state_put(out, "delivered", tally->delivered);
    state_put(out, "delivered-bytes", tally->delivered_bytes);
    state_put_record(out, "dropped");
    for (int reason = 0; reason < DROP_REASONS; reason++)
        state_put(out, drop_reason_name((enum drop_reason)reason), tally->dropped[reason]);
    state_put_end(out);
    state_put(out, "messages", tally->messages);
    state_put(out, "message-bytes", tally->message_bytes);
    state_put(out, "messages-delivered", tally->messages_delivered);
    state_put_record(out, "messages-dropped");
    for (int reason = 0; reason < MESSAGE_LOSSES; reason++)
        state_put(out, message_loss_name((enum message_loss)reason), tally->messages_dropped[reason]);
    state_put_end(out);
}

void tally_load(struct tally *tally, struct state_in *in)
{
    tally->relayed = state_get(in, "relayed", 0);
    tally->delivered = state_get(in, "delivered", 0);
    tally->delivered_bytes = state_get(in, "delivered-bytes", 0);
    state_get_record(in, "dropped");
    for (int reason = 0; reason < DROP_REASONS; reason++)
        tally->dropped[reason] = state_get(in, drop_reason_name((enum drop_reason)reason), 0);
    state_get_end(in);
    tally->messages = state_get(in, "messages", 0);
    tally->message_bytes = state_get(in, "message-bytes", 0);
    tally->messages_delivered = state_get(in, "messages-delivered", 0);
    state_get_record(in, "messages-dropped");
    for (int reason = 0; reason < MESSAGE_LOSSES; reason++)
        tally->messages_dropped[reason] = state_get(in, message_loss_name((enum message_loss)reason), 0);
    state_get_end(in);
}
