/* The books: what became of every event that a client was to get, and of every message that it sent. */
#ifndef EVAPID_TALLY_H
#define EVAPID_TALLY_H

#include <stdint.h>

/* Why a client did not get an event that it was meant to get. */
enum drop_reason {
    DROP_SLOW,   /* its queue was full, or it was disconnected for that with the event in it */
    DROP_CLOSED, /* its connection ended with the event in the queue */
    DROP_LARGE,  /* the event is larger than its whole queue may be */
    DROP_MEMORY, /* there was no memory for it */
    DROP_LOST,   /* it was in the memory of an evapid that was killed, or its connection was not handed over */
    DROP_REASONS
};

/* Why a message that came whole never starts a route. */
enum message_loss {
    LOSS_CLOSED, /* the client was closed, by a route or for its input, before it was handed on */
    LOSS_MEMORY, /* there was no memory to keep it until it could be handed on */
    LOSS_LOST, /* it was handed on, and evapid was killed before its route began: known to the evapid that comes next */
    MESSAGE_LOSSES
};

/* The books of one client, or of all there ever were: relayed = delivered + queued + the sum of dropped; and messages =
 * messages_delivered + those whose routes have not ended + the sum of messages_dropped. */
struct tally {
    uint64_t relayed;               /* events meant for it; of one client: brought up to date by client_tally */
    uint64_t delivered;             /* events that the kernel has taken whole */
    uint64_t delivered_bytes;       /* bytes that the kernel has taken, framing included */
    uint64_t dropped[DROP_REASONS]; /* events */
    uint64_t messages;              /* messages that came from it whole, and were handed on or dropped */
    uint64_t message_bytes;         /* their payload */
    uint64_t messages_delivered;    /* of these: whose routes have ended, or were broken off */
    uint64_t messages_dropped[MESSAGE_LOSSES];
};

struct state_in;
struct state_out;

const char *drop_reason_name(enum drop_reason reason);
const char *message_loss_name(enum message_loss reason);

/* Write them for a successor, and read them. */
void tally_save(const struct tally *tally, struct state_out *out);
void tally_load(struct tally *tally, struct state_in *in);

/* Add the books of one to a sum. */
void tally_add(struct tally *sum, const struct tally *tally);

/* Events, and messages, that were dropped, for whatever reason. */
uint64_t tally_dropped(const struct tally *tally);
uint64_t tally_messages_dropped(const struct tally *tally);

/* Messages that were handed on and whose routes have not ended. */
uint64_t tally_messages_waiting(const struct tally *tally);

#endif
