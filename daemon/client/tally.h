/* The books: what became of every event for a client, and of every message from it. */
#ifndef EVAPID_TALLY_H
#define EVAPID_TALLY_H

#include <stdint.h>

/* Why a client did not get an event that was meant for it. */
enum drop_reason {
    DROP_SLOW,   /* its queue was full, or it was disconnected for that with the event queued */
    DROP_CLOSED, /* its connection ended with the event queued */
    DROP_LARGE,  /* the event exceeds the limit of the whole queue */
    DROP_MEMORY, /* there was no memory for it */
    DROP_LOST,   /* it was in the memory of a killed evapid, or its connection was not handed over */
    DROP_ABSENT, /* it waited for a kept tag (kept.h), and nobody came for it, or no more could wait */
    DROP_REASONS
};

/* Why a complete message never starts a route. */
enum message_loss {
    LOSS_CLOSED, /* the client was closed, by a route or for its input, before the message was passed on */
    LOSS_MEMORY, /* no memory to keep it until it could be passed on */
    LOSS_LOST,   /* it was passed on, and evapid was killed before its route began; the next evapid counts it */
    MESSAGE_LOSSES
};

/* The books of one client, or of all clients ever: relayed = delivered + queued + the sum of dropped; and messages =
 * messages_delivered + those whose routes have not ended + the sum of messages_dropped. */
struct tally {
    uint64_t relayed;               /* events meant for it; of one client: subscription_tally brings it up to date */
    uint64_t delivered;             /* events that the kernel has taken completely */
    uint64_t delivered_bytes;       /* bytes that the kernel has taken, framing included */
    uint64_t dropped[DROP_REASONS]; /* events */
    uint64_t messages;              /* complete messages from it that were passed on or dropped */
    uint64_t message_bytes;         /* their payload */
    uint64_t messages_delivered;    /* of these, those whose routes have ended or were broken off */
    uint64_t messages_dropped[MESSAGE_LOSSES];
};

struct state_in;
struct state_out;

const char *drop_reason_name(enum drop_reason reason);
const char *message_loss_name(enum message_loss reason);

/* Write them for a successor, and read them. */
void tally_save(const struct tally *tally, struct state_out *out);
void tally_load(struct tally *tally, struct state_in *in);

/* Add one client's books to a sum. */
void tally_add(struct tally *sum, const struct tally *tally);

/* All events that were dropped, and all messages that were dropped. */
uint64_t tally_dropped(const struct tally *tally);
uint64_t tally_messages_dropped(const struct tally *tally);

/* Messages that were passed on and whose routes have not ended. */
uint64_t tally_messages_waiting(const struct tally *tally);

#endif
