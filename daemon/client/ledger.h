/* The ledger: the part of each client that must outlive evapid, in memory that does.
 *
 * It is a memfd. The service manager keeps a descriptor of it, or it is handed to the successor. A client's slot says
 * who it is, whether its stream is between two frames, and holds its books. So a client whose connection was kept can
 * continue even if evapid was killed, and what was in evapid's memory can be counted as lost.
 *
 *     header │ segment: LEDGER_SEGMENT slots │ segment │ ...
 *
 * Events that were read from the ring exist twice for a moment: in evapid's memory, and in the ring until its tail
 * moves. So their changes to the books count only from the commit that moves the tail. A slot keeps its values from
 * before the batch (mark), and the header has one page for the last commit and one for the next. Deliveries count
 * immediately.
 *
 * The memory is ours alone. It describes itself (layout.h): a successor of another version makes a ledger of its own
 * from it. Each new or removed field changes a row in ledger_fields.c. There is no padding that could hide a field. */
#ifndef EVAPID_LEDGER_H
#define EVAPID_LEDGER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/layout.h"
#include "client/meter.h"
#include "client/tally.h"
#include "evapid/limits.h"
#include "events/run.h"
#include "net/address.h"
#include "net/network.h"

struct state_in;
struct state_out;

/* Events from the ring or the control socket, by kind. */
struct event_counts {
    uint64_t relay, multicast, unicast, send;
    uint64_t no_receiver; /* how many of these had no receiver */
};

/* Events of all kinds. */
static inline uint64_t events_total(const struct event_counts *events)
{
    return events->relay + events->multicast + events->unicast + events->send;
}

/* A slot's values before the batch. */
struct ledger_mark {
    uint64_t batch;
    uint64_t relayed, run_since;
    uint64_t dropped[DROP_REASONS];
    bool follows, skipped;
    unsigned char unused[6];
};

/* A client's standing with Kamailio's routes. */
enum standing {
    STANDING_NEW,      /* no connection-new route has admitted it yet */
    STANDING_ADMITTED, /* one has */
    STANDING_AGAIN     /* an earlier Kamailio's route has, the present one's not yet */
};

struct ledger_slot {
    uint32_t index; /* the client's; LEDGER_KEPT: it is a kept tag's; 0: the slot is free */
    uint32_t next;  /* free: number of the next free slot, LEDGER_NONE: none */
    enum framing framing;
    enum standing standing;
    uint32_t port;
    uint8_t tag_length;
    bool follows;      /* it gets the events appended to its framing's run */
    bool skipped;      /* that run skips it (pace.h) */
    bool input_begun;  /* bytes were read that are only in memory */
    bool output_begun; /* part of an event has been sent */
    bool closed;       /* its connection has ended and is counted as closed; its seat is still there */
    char tag[EVAPID_TAG_MAX];
    char address[EVAPID_ADDRESS_MAX];
    char listener[ADDRESS_TEXT];
    struct network peer; /* where it comes from, as its listener counts it */
    unsigned char unused[3];
    uint64_t tag_order; /* clients of a tag are in this order */
    uint64_t cookie;    /* SO_COOKIE: identifies the socket */
    uint64_t since_ms;
    uint64_t connected_ns; /* the same, by CLOCK_MONOTONIC */
    uint64_t origin;       /* position of its stream (stream.h) before anything was sent */
    uint64_t offered;      /* while bytes are being written: delivered bytes once all that is queued is sent, or
                           LEDGER_OFFERED_PART if they are not all of it; else 0 */
    uint64_t run_since;    /* follows, skipped: events of the run that are in its books */
    uint64_t written;      /* messages that were sent to a worker completely */
    struct tally tally;
    struct ledger_mark mark;
};

struct ledger_page {
    uint64_t batch;
    uint64_t instance, tail; /* of the ring: this page counts once the ring's tail is here */
    uint64_t run_events[FRAMINGS], run_offered[FRAMINGS];
    struct event_counts events;
};

#define LEDGER_SEGMENT 1024U
#define LEDGER_SEGMENTS 1024U /* the most: a million clients */
#define LEDGER_NONE UINT32_MAX
#define LEDGER_KEPT UINT32_MAX /* the index in the slot of a kept tag, which is no client's */
#define LEDGER_OFFERED_PART UINT64_MAX

#define LEDGER_MAGIC 0x326c646970617665U /* "evapidl2" in memory */
#define LEDGER_FIELDS_AT 4096U           /* place of the description of the fields */
#define LEDGER_HEADER 16384U             /* bytes before the first segment */
#define LEDGER_SEGMENT_BYTES (((LEDGER_SEGMENT * sizeof(struct ledger_slot)) + 4095) & ~(size_t)4095)

struct ledger_header {
    struct layout_file file;
    uint64_t batch;       /* the one being written */
    uint64_t state;       /* number of the state that belongs to this ledger; 0: none */
    uint64_t instance;    /* of the ring that is kept with it; 0: none */
    uint64_t clients_end; /* 1: clients are closed when the Kamailio of that ring has gone (keep_clients) */
    uint64_t tag_orders;  /* numbers given out */
    uint64_t session;     /* of the evapid that writes here: it has assigned, or taken over, the clients' indexes */
    uint32_t last_index;
    uint32_t segments;      /* in the file */
    _Atomic uint32_t offer; /* during a hand-over: which evapid owns it (replace.h) */
    unsigned char unused[4];
    uint64_t accepted, closed;
    struct tally gone; /* sum of the clients whose slots are free again */
    struct meter meter;
    struct ledger_page pages[2];
};

#define LEDGER_UNKNOWN_MAX 16U

/* A field of an adopted ledger that we don't know. */
struct ledger_unknown {
    char name[LAYOUT_NAME];
    uint64_t bytes; /* total */
};

struct ledger {
    int memfd;
    struct ledger_header *header;
    struct ledger_slot *segments[LEDGER_SEGMENTS];
    uint32_t free;           /* number of a free slot, LEDGER_NONE: none */
    _Atomic uint32_t *offer; /* that of the adopted ledger; NULL: it has none */
    void *origin;            /* header of the ledger from which this one was made; NULL: none */
    size_t origin_bytes;
    struct ledger_unknown unknown[LEDGER_UNKNOWN_MAX];
    unsigned unknown_count;
};

/* The ledger's description of itself. */
extern const struct layout ledger_layout;

/* Begin an empty ledger. Returns NULL, or why it cannot. */
const char *ledger_open(struct ledger *ledger);

/* Take over the ledger in the memfd. If its layout differs, its contents are copied into a new ledger of ours
 * (ledger_was_made). The memfd is closed then, and after a failure. Returns NULL, or why it cannot be read. */
const char *ledger_adopt(struct ledger *ledger, int memfd);

/* Is it a new ledger, made from another one? */
static inline bool ledger_was_made(const struct ledger *ledger)
{
    return ledger->origin != NULL;
}

/* From now on only we write it; put our version there. */
void ledger_own(struct ledger *ledger);

/* A successor tried to take over and has listed the free slots in its own order: list them again. */
void ledger_go_on(struct ledger *ledger);

void ledger_close(struct ledger *ledger);

/* A slot that is zero except for index; NULL: no memory. Its tally may be used from now on. */
struct ledger_slot *ledger_claim(struct ledger *ledger, uint32_t index);

/* A new client. */
struct ledger_newcomer {
    enum framing framing;
    const char *address; /* EVAPID_ADDRESS_MAX bytes */
    uint32_t port;
    struct network peer;
    uint64_t since_ms, connected_ns;
    uint64_t origin, cookie; /* of the socket and its stream */
};

/* Write the new client into the slot. */
void ledger_introduce(struct ledger_slot *slot, const struct ledger_newcomer *newcomer);

/* The slot is a kept tag's, from now on: one that was claimed for it, or that of the tag's last client. */
void ledger_keep(struct ledger_slot *slot, uint64_t since_ms, uint64_t since_ns);

/* The client is freed: add its books to those of the gone. */
void ledger_release(struct ledger *ledger, struct ledger_slot *slot);

/* ledger_number: the number of a used slot, by which a successor finds it. ledger_at: the slot of a number, NULL: it is
 * not in use. */
uint32_t ledger_number(const struct ledger *ledger, const struct ledger_slot *slot);
struct ledger_slot *ledger_at(const struct ledger *ledger, uint32_t number);

/* The next used slot, or the first one for NULL. NULL: there are no more. */
struct ledger_slot *ledger_next(struct ledger *ledger, const struct ledger_slot *slot);

/* Call it before a change of the slot that counts from the next commit. */
static inline void ledger_touch(const struct ledger *ledger, struct ledger_slot *slot)
{
    if (slot->mark.batch == ledger->header->batch)
        return;
    slot->mark.relayed = slot->tally.relayed;
    slot->mark.run_since = slot->run_since;
    slot->mark.follows = slot->follows;
    slot->mark.skipped = slot->skipped;
    for (int i = 0; i < DROP_REASONS; i++)
        slot->mark.dropped[i] = slot->tally.dropped[i];
    atomic_signal_fence(memory_order_seq_cst); /* we may be killed anywhere: the mark must be whole before it counts */
    slot->mark.batch = ledger->header->batch;
    atomic_signal_fence(memory_order_seq_cst);
}

/* Are there bytes of input only in memory, or about to be? */
static inline void ledger_note_input(struct ledger_slot *slot, bool begun)
{
    slot->input_begun = begun;
}

/* Has part of an event been sent, or may it have been? */
static inline void ledger_note_output(struct ledger_slot *slot, bool begun)
{
    slot->output_begun = begun;
}

/* Bytes are being written: delivered bytes once all that is queued is sent, or LEDGER_OFFERED_PART. 0: the write is
 * over. */
static inline void ledger_note_offered(struct ledger_slot *slot, uint64_t bytes)
{
    slot->offered = bytes;
}

static inline void ledger_note_standing(struct ledger_slot *slot, enum standing standing)
{
    slot->standing = standing;
}

/* So many events of the run are in its books. */
static inline void ledger_note_since(struct ledger_slot *slot, uint64_t events)
{
    slot->run_since = events;
}

/* Has its connection ended, and is it counted as closed? */
static inline void ledger_note_closed(struct ledger_slot *slot, bool closed)
{
    slot->closed = closed;
}

/* written: so many messages were sent to a worker completely. unwritten: so many of those were taken back. */
static inline void ledger_note_written(struct ledger_slot *slot, uint64_t messages)
{
    slot->written += messages;
}

static inline void ledger_note_unwritten(struct ledger_slot *slot, uint64_t messages)
{
    slot->written -= messages;
}

/* The name of the listener at which it connected. */
void ledger_note_listener(struct ledger_slot *slot, const char *name);

/* Give the client this tag; length 0: none. */
void ledger_note_tag(struct ledger *ledger, struct ledger_slot *slot, const char *tag, uint8_t length);

/* Does it get the events appended to the run? Does the run skip it? */
static inline void ledger_note_follows(struct ledger_slot *slot, bool follows)
{
    slot->follows = follows;
}

static inline void ledger_note_skipped(struct ledger_slot *slot, bool skipped)
{
    slot->skipped = skipped;
}

/* The name of the listener at which the client connected. */
const char *ledger_listener_name(struct ledger_slot *slot);

/* Everything read from this instance's ring up to tail is in memory. The caller moves the ring's tail after this. */
void ledger_commit(struct ledger *ledger, uint64_t instance, uint64_t tail, const struct run runs[FRAMINGS],
                   const struct event_counts *events);

/* After an evapid was killed: restore every slot to the last commit, and bring relayed up to date. If the ring
 * (instance, else 0) is there, its tail tells which commit was the last. Returns the counts of events. Events that were
 * not sent are not counted as dropped yet. */
struct event_counts ledger_recover(struct ledger *ledger, uint64_t instance, uint64_t tail);

/* Write them for a successor, and read them. */
void events_save(const struct event_counts *events, struct state_out *out);
void events_load(struct event_counts *events, struct state_in *in);

#endif
