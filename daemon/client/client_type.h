/* A client: one connection of an application, from accept to the last of its messages.
 *
 * It owns the socket, the bytes that are not yet a message, and the frames that wait to be sent. It knows framing, but
 * neither Kamailio nor other clients. It reports to its host (struct client_host, the bus), which decides when it may
 * read and what it gets.
 *
 *     ADMITTING ──admit──▶ OPEN ──input ends──▶ FINISHING ──finish──▶ FLUSHING ──all sent──▶ GONE
 *         ▲                 │ readmit              │ readmit            ▲
 *         └─────────────────┴──────────────────────┘        finish: from OPEN and FINISHING; ADMITTING goes to GONE
 *
 * ADMITTING: nothing is read or sent; events from the route that admits it wait. OPEN: reading and sending. FINISHING:
 * the peer has ended its side, or the socket failed; its messages are still worked on, and a peer that only half-closed
 * still gets the answers. FLUSHING: nothing more is read or queued; the queue is being sent. GONE: the socket is
 * closed; the struct lives until the host frees it (client_free).
 *
 * This header has its data and simple queries; client.h says what happens to it. */
#ifndef EVAPID_CLIENT_TYPE_H
#define EVAPID_CLIENT_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <uthash.h>
#include <uv.h>

#include "base/slice.h"
#include "client/input_type.h"
#include "client/stream.h"
#include "client/tally.h"
#include "client/terms.h"
#include "events/outq.h"
#include "net/address.h"
#include "net/network.h"
#include "net/remote.h"

enum client_state { CLIENT_ADMITTING, CLIENT_OPEN, CLIENT_FINISHING, CLIENT_FLUSHING, CLIENT_GONE };

struct client;
struct ledger;
struct ledger_slot;
struct state_in;
struct state_out;

/* What a client asks of its host. message: take the message (true), or leave it with the client, which then reads no
 * more until client_resume. ended: no more input will come. failed: nothing more can be sent. gone: the socket is
 * closed. commit: bytes are about to be sent while events are being read from the ring, so commit those that have been
 * read (ledger.h). postpone: the socket is ready, but this turn has no time: call client_attend in a later one. */
struct client_host {
    bool (*message)(struct client *client, const char *bytes, size_t length);
    void (*ended)(struct client *client);
    void (*failed)(struct client *client);
    void (*gone)(struct client *client);
    void (*commit)(struct client *client);
    void (*postpone)(struct client *client);
    bool admits; /* somebody is there who may admit clients */
    struct ledger *ledger;
    struct tally *totals; /* of all clients, besides each client's own */
    struct waits *waits;  /* of all clients: how long events have waited */
    struct slice *polls;  /* of all clients: the time for their input in a turn; until_ns 0: none has been used */
    char *scratch;        /* CLIENT_SCRATCH bytes that every client reads into */
};

/* output.h */
struct client_output {
    bool blocked;     /* the rest waits until the socket is writable */
    bool full;        /* the kernel took no more */
    uint64_t sent_ms; /* loop time when something was last sent; at first, when we got it */
};

/* subscription.h */
struct subscription {
    struct run *skipped_by; /* the run that skips it until half of its queue is free; NULL: none does */
    uint64_t skipped_since; /* skipped_by's offered events when the missed ones were last counted */
    bool failed;            /* nothing more can be sent: the peer will never read again */
};

/* pace.h */
struct pace {
    enum slow_policy policy;
    uint64_t slow_since_ms; /* wall clock, milliseconds of the epoch; 0: it is not slow */
    uint64_t slow_dropped;  /* its books' DROP_SLOW when it became slow */
};

/* The bus's: the lists in which the client is (roster.h). */
struct roster_place {
    bool receives; /* it gets events */
    bool there;    /* it has got events, and will until it goes, though it may have to be admitted once more first */
    bool dirty;    /* it has something to send in this turn */
    bool postponed;
    bool leaving;
    bool too_slow; /* leaving: it is to be cut off */
    struct client *prev, *next;
    struct client *dirty_prev, *dirty_next;
    struct client *postponed_prev, *postponed_next;
    struct client *leaving_prev, *leaving_next;
};

/* The tag index's (tag.h). */
struct tagging {
    struct tag *tag; /* NULL: none */
    bool has_turn;   /* it was taken over, and the next event for its tag goes to it first */
    struct client *prev, *next;
};

#define CLIENT_SCRATCH 65536U /* most bytes of one read */

struct client {
    uint32_t index; /* unique for evapid's life, from 1 */
    enum client_state state;
    const struct client_host *host;
    struct stream stream; /* closed when GONE */
    uv_poll_t poll;
    int watched;    /* events that poll waits for, enum uv_poll_event */
    int due;        /* events that poll reported, but there was no time */
    bool unwatched; /* the kernel had no room to watch: tried again in a second */
    char address[EVAPID_ADDRESS_MAX];
    uint32_t port;         /* of a Unix socket: the user's number */
    struct network origin; /* where it comes from, as its listener counts it (origin.h) */
    uint64_t since_ms;     /* wall clock, milliseconds of the epoch */
    uint64_t admit_by_ms;  /* loop time; 0: it was admitted once, may wait for ever, or nobody can admit it now */
    uint32_t admission_timeout_ms;
    struct tally *tally;      /* in the ledger */
    struct ledger_slot *slot; /* in the ledger */

    struct client_input input;
    struct outq out;
    struct client_output output;
    struct subscription subscription;
    struct pace pace;
    uint64_t deadline_ms; /* FLUSHING: closed at this loop time, even if not all is sent */
    uint32_t linger_ms;

    struct listener *listener;
    uint32_t keep_absent_ms; /* its tag is kept so long, if it is the tag's last client (kept.h) */
    enum unicast_mode unicast_mode;
    struct roster_place roster;
    struct tagging tagging;
    UT_hash_handle hh; /* by index */

    void *seat; /* the host's */
};

/* Is it in a state in which clients get events? */
static inline bool client_may_receive(const struct client *client)
{
    return (client->state == CLIENT_OPEN || client->state == CLIENT_FINISHING) && !client->subscription.failed &&
           !client->roster.leaving;
}

/* The same, for an event issued while guest is about to be admitted: guest gets it too, and it is sent once guest is
 * admitted. */
static inline bool client_receives(const struct client *client, const struct client *guest)
{
    return client_may_receive(client) || (client == guest && client->state == CLIENT_ADMITTING);
}

/* Do messages of it wait for the host? */
static inline bool client_has_waiting(const struct client *client)
{
    return client->input.held;
}

/* The subject of its log lines: "client 12". */
#define CLIENT_SUBJECT 32
static inline void client_subject(const struct client *client, char out[CLIENT_SUBJECT])
{
    snprintf(out, CLIENT_SUBJECT, "client %u", client->index);
}

#endif
