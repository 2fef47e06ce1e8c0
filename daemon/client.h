/* A client: one TCP connection of an application, from accept to the last of its messages.
 *
 * It owns the socket, the bytes that have come and are no message yet, and the frames that wait to be sent. It knows
 * framing but neither Kamailio nor the other clients: what it finds it tells its host (struct client_host, the bus), who
 * says when it may read and what it gets.
 *
 *     ADMITTING ──admit──▶ OPEN ──input ends──▶ FINISHING ──finish──▶ FLUSHING ──all sent──▶ GONE
 *         ▲                 │ readmit              │ readmit            ▲
 *         └─────────────────┴──────────────────────┘        finish: from OPEN and FINISHING; ADMITTING goes to GONE
 *
 * ADMITTING: nothing is read and nothing is sent; what the route that admits it has for it waits. OPEN: both. FINISHING:
 * the peer has ended its side, or the socket failed; what it has sent is still being worked on, and answers still reach a
 * peer that only half-closed. FLUSHING: nothing more is taken either way, the queue is being sent. GONE: the socket is
 * closed; the struct lives on until its host lets go of it (client_free). */
#ifndef EVAPID_CLIENT_H
#define EVAPID_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uthash.h>
#include <uv.h>

#include "address.h"
#include "outq.h"
#include "transport.h"

enum client_state { CLIENT_ADMITTING, CLIENT_OPEN, CLIENT_FINISHING, CLIENT_FLUSHING, CLIENT_GONE };

/* Why a client did not get an event that it was meant to get. */
enum drop_reason {
    DROP_SLOW,   /* its queue was full, or it was disconnected for that with the event in it */
    DROP_CLOSED, /* its connection ended with the event in the queue */
    DROP_LARGE,  /* the event is larger than its whole queue may be */
    DROP_MEMORY, /* there was no memory for it */
    DROP_LOST,   /* it was in the memory of an evapid that was killed, or its connection was not handed over */
    DROP_REASONS
};

/* The books of one client, or of all there ever were: relayed = delivered + queued + the sum of dropped. */
struct tally {
    uint64_t relayed;               /* events meant for it; of one client: brought up to date by client_tally */
    uint64_t delivered;             /* events that the kernel has taken whole */
    uint64_t delivered_bytes;       /* bytes that the kernel has taken, framing included */
    uint64_t dropped[DROP_REASONS]; /* events */
    uint64_t messages;              /* messages that came from it and were handed on */
    uint64_t message_bytes;         /* their payload */
    uint64_t messages_dropped;      /* that came, and were thrown away because the client was closed */
};

/* Add the books of one to a sum. */
void tally_add(struct tally *sum, const struct tally *tally);

/* Events that were dropped, for whatever reason. */
static inline uint64_t tally_dropped(const struct tally *tally)
{
    uint64_t events = 0;
    for (int reason = 0; reason < DROP_REASONS; reason++)
        events += tally->dropped[reason];
    return events;
}

struct client;
struct ledger;
struct ledger_slot;
struct state_in;
struct state_out;

/* What a client asks of its host. message: take the message (true) or leave it with the client, who then reads no more
 * until client_resume. ended: nothing more will come. deaf: nothing more can be sent. gone: the socket is closed. sends: bytes are
 * about to be sent although events are being read from the ring: those that have been are to be committed (ledger.h). */
struct client_host {
    bool (*message)(struct client *client, const char *bytes, size_t length);
    void (*ended)(struct client *client);
    void (*deaf)(struct client *client);
    void (*gone)(struct client *client);
    void (*sends)(struct client *client);
    struct ledger *ledger;
    struct tally *totals; /* of all clients; kept beside each client's own */
    char *scratch;        /* CLIENT_SCRATCH bytes that every client reads into */
};

#define CLIENT_SCRATCH 65536U   /* bytes that one read takes at most */
#define CLIENT_LINGER_MS 10000U /* how long a FLUSHING client may take to read what it is still sent */

/* What a listener gives its clients. */
struct client_limits {
    enum framing framing;
    size_t max_message_bytes, max_queued_bytes;
    unsigned keepalive_idle_s, keepalive_interval_s, keepalive_probes;
};

struct client {
    uint32_t index; /* unique for evapid's life, from 1 */
    enum client_state state;
    const struct client_host *host;
    const struct transport *transport;
    int fd; /* -1 when GONE */
    uv_poll_t poll;
    int watched; /* what poll waits for, enum uv_poll_event */
    char address[EVAPID_ADDRESS_MAX];
    uint16_t port;
    uint64_t since_ms;        /* wall clock, milliseconds of the epoch */
    struct tally *tally;      /* in the ledger */
    struct ledger_slot *slot; /* likewise */

    /* Input: bytes [in_start, in_end) of in are no finished message yet, or one that the host would not take. */
    char *in; /* NULL while there are none */
    size_t in_start, in_end, in_room;
    uint64_t in_offset; /* bytes of the stream before in_start */
    size_t in_need;     /* bytes that the frame at in_start will have, 0: not known */
    size_t max_message_bytes;
    bool held;       /* the host would not take a message: no reading */
    bool input_over; /* the peer has ended, or the socket failed: no reading any more */

    struct outq out;
    bool blocked;         /* it waits until it is sent the rest */
    bool full;            /* the kernel took no more */
    bool deaf;            /* a write failed: the peer will never read again */
    uint64_t deadline_ms; /* FLUSHING: closed at this loop time, sent or not */

    /* The bus's and the tag index's. */
    struct listener *listener;
    struct tag *tag;
    struct client *tag_prev, *tag_next;
    struct client *prev, *next;             /* list of the clients that get events */
    struct client *dirty_prev, *dirty_next; /* list of the clients that have something to send in this turn */
    bool dirty, listed;                     /* in which of the two lists it is */
    UT_hash_handle hh;                      /* by index */

    void *seat; /* the host's own */
};

/* Take over a connected socket: set its options, begin to watch it. NULL when there is no memory or the socket is of no
 * use; the socket is closed then. */
struct client *client_open(uv_loop_t *loop, int fd, uint32_t index, const struct sockaddr_storage *peer,
                           const struct client_limits *limits, const struct client_host *host);

/* Take over the client of a slot from the evapid before us: its socket (-1: it is GONE), as it was when nothing waits
 * either way. NULL when there is no memory; the socket is closed then. */
struct client *client_adopt(uv_loop_t *loop, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                            const struct client_host *host);

/* Write what a successor needs beside the slot; and read it into a client that has just been adopted. *lost: it is GONE only
 * because it was adopted without its socket. False: it makes no sense. */
void client_save(struct client *client, struct state_out *out);
bool client_load(struct client *client, struct state_in *in, bool *lost);

/* ADMITTING: let it take part. */
void client_admit(struct client *client);

/* OPEN, FINISHING: hold it back until it is admitted again. */
void client_readmit(struct client *client);

/* Offer what was held to the host again, and go on reading when all was taken. */
void client_resume(struct client *client);

/* Does it get events? */
static inline bool client_listens(const struct client *client)
{
    return (client->state == CLIENT_OPEN || client->state == CLIENT_FINISHING) && !client->deaf;
}

/* Has it messages that wait for the host? */
static inline bool client_holds(const struct client *client)
{
    return client->held;
}

/* Give the client what is appended to the run from now on; and no more of it. */
void client_follow(struct client *client, struct run *run);
void client_unfollow(struct client *client);

/* Queue an event for a client that listens. False: it did not fit (*reason says why) and is counted as dropped. */
bool client_give(struct client *client, struct chunk *chunk, enum drop_reason *reason);

/* An event of size bytes, framed, is about to be appended to the run, and no room may be left for it: sends what the
 * kernel takes to make some. False: it does not fit (*reason says why); it counts as given and dropped, and it is the
 * caller's to see that the client doesn't get it. */
bool client_can_take(struct client *client, size_t size, enum drop_reason *reason);

/* An event was meant for the client, and it doesn't get it: count it. */
void client_refuse(struct client *client, enum drop_reason reason);

/* Send what the kernel takes now. */
void client_flush(struct client *client);

/* The books of the client, up to date. */
const struct tally *client_tally(struct client *client);

/* Take and give nothing more; close when the queue has been sent, at the latest CLIENT_LINGER_MS from now. A client that
 * was being admitted sees nothing more: only a frame of which a part has left is still sent whole. */
void client_finish(struct client *client);

/* Take no more, and drop what is queued for that reason; close as soon as a frame that has been begun is sent whole. What
 * it has sent, and the host has not taken, stays. */
void client_cut_off(struct client *client, enum drop_reason reason);

/* Close at once; what is queued is dropped for that reason. */
void client_drop(struct client *client, enum drop_reason reason);

/* Close and free a client that the host has had no use for yet, and hears no more of. */
void client_discard(struct client *client);

/* Likewise one that was adopted, without a word to the peer and with its slot as it is: it may be another's still. */
void client_abandon(struct client *client);

/* Free a client that is GONE. */
void client_free(struct client *client);

const char *client_state_name(enum client_state state);
const char *drop_reason_name(enum drop_reason reason);

#endif
