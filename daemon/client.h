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
#include "group.h"
#include "network.h"
#include "outq.h"
#include "slice.h"
#include "tally.h"
#include "transport.h"

enum client_state { CLIENT_ADMITTING, CLIENT_OPEN, CLIENT_FINISHING, CLIENT_FLUSHING, CLIENT_GONE };

/* What becomes of a client whose queue is full (pace.h). */
enum slow_policy {
    SLOW_DISCONNECT,  /* it is cut off */
    SLOW_DROP_NEWEST, /* it gets no more events until half of its queue is free */
    SLOW_DROP_OLDEST  /* the older half of its queue is dropped */
};

struct client;
struct ledger;
struct ledger_slot;
struct state_in;
struct state_out;

/* What a client asks of its host. message: take the message (true) or leave it with the client, who then reads no more
 * until client_resume. ended: nothing more will come. deaf: nothing more can be sent. gone: the socket is closed. sends: bytes are
 * about to be sent although events are being read from the ring: those that have been are to be committed (ledger.h). postpone: it
 * has something, for which there is no time in this turn: client_attend in one of the next. */
struct client_host {
    bool (*message)(struct client *client, const char *bytes, size_t length);
    void (*ended)(struct client *client);
    void (*deaf)(struct client *client);
    void (*gone)(struct client *client);
    void (*sends)(struct client *client);
    void (*postpone)(struct client *client);
    bool admits; /* somebody is there who may let clients in */
    struct ledger *ledger;
    struct tally *totals; /* of all clients; kept beside each client's own */
    struct waits *waits;  /* likewise: for how long events have waited */
    struct slice *polls;  /* likewise: the time for what comes from them in a turn; until_ns 0: nothing has yet */
    char *scratch;        /* CLIENT_SCRATCH bytes that every client reads into */
};

#define CLIENT_SCRATCH 65536U /* bytes that one read takes at most */

/* What a listener gives its clients. */
struct client_limits {
    enum framing framing;
    size_t max_message_bytes, max_queued_bytes;
    enum slow_policy slow_policy;
    enum unicast_mode unicast_mode; /* of tags for which it speaks (group.h) */
    uint32_t message_timeout_ms;    /* for a message to become whole, once it has begun; 0: none */
    uint32_t linger_ms;             /* for a FLUSHING client to read what it is still sent */
    unsigned keepalive_idle_s, keepalive_interval_s, keepalive_probes;
    uint32_t admission_timeout_ms; /* to be let in for the first time, while somebody could; 0: for ever */
};

struct client {
    uint32_t index; /* unique for evapid's life, from 1 */
    enum client_state state;
    const struct client_host *host;
    const struct transport *transport;
    int fd; /* -1 when GONE */
    uv_poll_t poll;
    int watched;    /* what poll waits for, enum uv_poll_event */
    int due;        /* what poll has said, and there was no time for */
    bool unwatched; /* the kernel would not: it is asked again in a second */
    char address[EVAPID_ADDRESS_MAX];
    uint16_t port;
    struct network origin; /* where it comes from, as its listener counts it (origin.h) */
    uint64_t since_ms;     /* wall clock, milliseconds of the epoch */
    uint64_t admit_by_ms; /* loop time; 0: it has been admitted once, may wait for ever, or nobody could admit it now */
    uint32_t admission_timeout_ms;
    unsigned keepalive_idle_s, keepalive_interval_s, keepalive_probes; /* of its socket; UINT_MAX: not known */
    struct tally *tally;                                               /* in the ledger */
    struct ledger_slot *slot;                                          /* likewise */

    /* Input (input.h): bytes [in_start, in_end) of in are no finished message yet, or one that the host would not take. */
    char *in; /* NULL while there are none */
    size_t in_start, in_end, in_room;
    uint64_t in_offset;         /* bytes of the stream before in_start */
    size_t in_need;             /* bytes that the frame at in_start will have, 0: not known */
    size_t max_message_bytes;   /* that a message may have, and those in in could when they came */
    size_t later_message_bytes; /* the same for all that come when nothing is in in any more */
    uint32_t message_timeout_ms;
    uint64_t message_spent_ms; /* on reading the message at in_start, until message_since_ms */
    uint64_t message_since_ms; /* loop time since when it is being read; 0: it is not, or there is none */
    uint64_t read_ns;          /* when bytes were last read, by CLOCK_MONOTONIC: what is held was whole by then */
    bool held;                 /* the host would not take a message: no reading */
    bool input_over;           /* the peer has ended, or the socket failed: no reading any more */

    struct outq out;
    bool blocked;         /* it waits until it is sent the rest */
    bool full;            /* the kernel took no more */
    bool deaf;            /* a write failed: the peer will never read again */
    uint64_t deadline_ms; /* FLUSHING: closed at this loop time, sent or not */
    uint32_t linger_ms;

    /* Its pace (pace.h). */
    enum slow_policy slow_policy;
    struct run *passed_by;  /* the run that passes it over until half of its queue is free; NULL: none does */
    uint64_t passed_since;  /* events that the run had offered when what it has missed was last counted */
    uint64_t slow_since_ms; /* wall clock, milliseconds of the epoch; 0: it is not slow */
    uint64_t slow_dropped;  /* DROP_SLOW of its books when it became slow */

    /* The bus's and the tag index's. */
    struct listener *listener;
    enum unicast_mode unicast_mode;
    struct tag *tag;
    bool has_turn; /* it was taken over, and the next event for one of its tag begins with it */
    struct client *tag_prev, *tag_next;
    struct client *prev, *next;                 /* list of the clients that get events */
    struct client *dirty_prev, *dirty_next;     /* list of the clients that have something to send in this turn */
    struct client *due_prev, *due_next;         /* list of the clients for whom there was no time */
    struct client *leaving_prev, *leaving_next; /* list of the clients that are to be closed */
    bool too_slow;                              /* leaving: it is to be cut off */
    bool dirty, listed, leaving, postponed;     /* in which of the lists it is */
    UT_hash_handle hh;                          /* by index */

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

/* Other limits hold from now on, also for what waits; but for a message that has begun those hold that it began with. The
 * framing stays. */
void client_set_limits(struct client *client, const struct client_limits *limits);

/* Write what a successor needs beside the slot; and read it into a client that has just been adopted. *lost: it is GONE only
 * because it was adopted without its socket. False: it makes no sense. */
void client_save(struct client *client, struct state_out *out);
bool client_load(struct client *client, struct state_in *in, bool *lost);

/* ADMITTING: let it take part. */
void client_admit(struct client *client);

/* The host admits from now on, or not any more (client_host): its time to be admitted for the first time begins, or stops. */
void client_time_admission(struct client *client);

/* Has it waited for its first admission as long as it may? */
bool client_is_overdue(const struct client *client, uint64_t now_ms);

/* OPEN, FINISHING: hold it back until it is admitted again. */
void client_readmit(struct client *client);

/* Offer what was held to the host again, and go on reading when all was taken. */
void client_resume(struct client *client);

/* There is time now for what it has. */
void client_attend(struct client *client);

/* Nothing more will come: by the peer's will (why NULL) or because the socket or the stream is broken. For input.c. */
void client_end_input(struct client *client, const char *why);

/* Once a second: end the input of a client whose message has not become whole in message_timeout_ms. */
void client_check_deadline(struct client *client);

/* Does it get events? */
static inline bool client_listens(const struct client *client)
{
    return (client->state == CLIENT_OPEN || client->state == CLIENT_FINISHING) && !client->deaf && !client->leaving;
}

/* Likewise, of an event that is issued when guest is about to be admitted? It gets it then, too, and sees it once it is. */
static inline bool client_receives(const struct client *client, const struct client *guest)
{
    return client_listens(client) || (client == guest && client->state == CLIENT_ADMITTING);
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

/* Events that were given to the client have been dropped: count them. */
void client_count_dropped(struct client *client, enum drop_reason reason, uint64_t events);

/* Send what the kernel takes now. */
void client_flush(struct client *client);

/* The route of a message that was handed on has ended, or was broken off: count it. */
void client_count_message(struct client *client);

/* Likewise one whose route will never begin, because the client is closed. */
void client_lose_message(struct client *client);

/* The books of the client, up to date. */
const struct tally *client_tally(struct client *client);

/* Take and give nothing more; close when the queue has been sent, at the latest linger_ms from now. A client that was
 * being admitted sees nothing more: only a frame of which a part has left is still sent whole. */
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
/* Once a second: watch the socket again when the kernel had no room for that. */
void client_tick(struct client *client);

/* Free a client that is GONE. */
void client_free(struct client *client);

/* What its log lines are about: "client 12". */
#define CLIENT_SUBJECT 32
void client_subject(const struct client *client, char out[CLIENT_SUBJECT]);

const char *client_state_name(enum client_state state);

#endif
