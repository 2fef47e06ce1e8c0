/* The ledger: what of each client must outlive evapid, in memory that does.
 *
 * It lies in a memfd, of which the service manager keeps a descriptor, or which is handed to the successor. A client's
 * slot says who it is, whether its stream stands between two frames, and its books. So a client whose connection was kept
 * can go on although evapid was killed, and what was in evapid's memory can be counted as lost.
 *
 *     header │ segment: LEDGER_SEGMENT slots │ segment │ ...
 *
 * Events that were read from the ring and are in memory only exist twice for a moment: the ring still has them until its
 * tail moves on. What they change in the books therefore counts from the commit on that comes with the tail: a slot keeps
 * what it was before the batch (mark), the header has one page for the commit before and one for the next. Deliveries
 * count at once.
 *
 * The memory is ours alone. It describes itself (layout.h): a successor of another version makes a ledger of its own of it. A
 * field that comes or goes has a row in ledger_fields.c, and there is no padding that a field could hide in. */
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

/* Events that came from the ring, or were published at the control socket, by their kind. */
struct event_counts {
    uint64_t relay, multicast, unicast;
    uint64_t no_receiver; /* of these, how many nobody was there to get */
};

/* What a slot was before the batch. */
struct ledger_mark {
    uint64_t batch;
    uint64_t relayed, run_since;
    uint64_t dropped[DROP_REASONS];
    bool follows, passed;
    unsigned char unused[6];
};

/* What a client is to Kamailio's routes. */
enum standing {
    STANDING_NEW,      /* no connection-new route has let it in yet */
    STANDING_ADMITTED, /* one has */
    STANDING_AGAIN     /* the one of an earlier Kamailio has, and that of the present one not yet */
};

struct ledger_slot {
    uint32_t index; /* the client's; 0: the slot is free */
    uint32_t next;  /* free: number of the next free slot, LEDGER_NONE: none */
    enum framing framing;
    enum standing standing;
    uint16_t port;
    uint8_t tag_length;
    bool follows;      /* it gets what is appended to its framing's run */
    bool passed;       /* it is skipped by that run (pace.h) */
    bool input_begun;  /* bytes have been read that are in memory only */
    bool output_begun; /* a part of an event has been sent */
    bool closed;       /* its connection has ended, and is counted as closed: its seat is still there */
    char tag[EVAPID_TAG_MAX];
    char address[EVAPID_ADDRESS_MAX];
    char listener[ADDRESS_TEXT];
    struct network peer; /* where it comes from, as its listener counts it */
    unsigned char unused[4];
    uint64_t tag_order; /* clients of a tag stand in this order */
    uint64_t cookie;    /* SO_COOKIE: which socket it is */
    uint64_t since_ms;
    uint64_t connected_ns; /* likewise, by CLOCK_MONOTONIC */
    uint64_t origin;       /* position of the socket's stream (transport.h) when nothing had been sent */
    uint64_t offered;      /* during a write of all that is queued: bytes that will have been sent then; else 0 */
    uint64_t run_since;    /* follows, passed: events of the run that are in its books */
    uint64_t written;      /* messages that a worker has been sent whole */
    struct tally tally;
    struct ledger_mark mark;
};

struct ledger_page {
    uint64_t batch;
    uint64_t instance, tail; /* of the ring: this page counts when the ring's tail is that */
    uint64_t run_events[FRAMINGS], run_offered[FRAMINGS];
    struct event_counts events;
};

#define LEDGER_SEGMENT 1024U
#define LEDGER_SEGMENTS 1024U /* the most: a million clients */
#define LEDGER_NONE UINT32_MAX

#define LEDGER_MAGIC 0x326c646970617665U /* "evapidl2" in memory */
#define LEDGER_FIELDS_AT 4096U           /* where the description of the fields lies */
#define LEDGER_HEADER 16384U             /* bytes before the first segment */
#define LEDGER_SEGMENT_BYTES (((LEDGER_SEGMENT * sizeof(struct ledger_slot)) + 4095) & ~(size_t)4095)

struct ledger_header {
    struct layout_file file;
    uint64_t batch;       /* of what is written now */
    uint64_t state;       /* number of the state that goes with this ledger; 0: none */
    uint64_t instance;    /* of the ring that is kept with it; 0: none */
    uint64_t clients_end; /* 1: clients are closed when the Kamailio of that ring has gone (keep_clients) */
    uint64_t tag_orders;  /* given out */
    uint32_t last_index;
    uint32_t segments;      /* that the file has */
    _Atomic uint32_t offer; /* while one evapid takes over from another: whose it is (replace.h) */
    unsigned char unused[4];
    uint64_t accepted, closed;
    struct tally gone; /* the sum of those whose slots are free again */
    struct meter meter;
    struct ledger_page pages[2];
};

#define LEDGER_UNKNOWN_MAX 16U

/* Fields of an adopted ledger that we don't know. */
struct ledger_unknown {
    char name[LAYOUT_NAME];
    uint64_t bytes; /* in all */
};

struct ledger {
    int memfd;
    struct ledger_header *header;
    struct ledger_slot *segments[LEDGER_SEGMENTS];
    uint32_t free;           /* number of a free slot, LEDGER_NONE: none */
    _Atomic uint32_t *offer; /* that of the ledger which was adopted; NULL: that one has none */
    void *origin;            /* the header of the ledger that this one was made of; NULL: of none */
    size_t origin_bytes;
    struct ledger_unknown unknown[LEDGER_UNKNOWN_MAX];
    unsigned unknown_count;
};

/* What the ledger says of itself. */
extern const struct layout ledger_layout;

/* Begin an empty ledger. NULL, or why it can't. */
const char *ledger_open(struct ledger *ledger);

/* Take over the ledger in the memfd, which is closed on failure. When it is of another layout, ours is a new one with what it
 * says, and the memfd is closed, too: ledger_was_made. NULL, or why it can't be read. */
const char *ledger_adopt(struct ledger *ledger, int memfd);

/* Is it a new ledger, that another one has been copied to? */
static inline bool ledger_was_made(const struct ledger *ledger)
{
    return ledger->origin != NULL;
}

/* From now on we write there, and nobody else: it says so. */
void ledger_own(struct ledger *ledger);

/* A successor has looked at it, and has listed its free slots in an order of its own: list them again. */
void ledger_go_on(struct ledger *ledger);

void ledger_close(struct ledger *ledger);

/* A slot that is all zero but for index; NULL when there is no memory. Its tally is in use from here on. */
struct ledger_slot *ledger_take(struct ledger *ledger, uint32_t index);

/* Who has come. */
struct ledger_newcomer {
    enum framing framing;
    const char *address; /* EVAPID_ADDRESS_MAX bytes */
    uint16_t port;
    struct network peer;
    uint64_t since_ms, connected_ns;
    uint64_t origin, cookie; /* of the socket and its stream */
};

/* Write down who the slot's client is. */
void ledger_introduce(struct ledger_slot *slot, const struct ledger_newcomer *newcomer);

/* The client is no more: its books count among those of the gone. */
void ledger_release(struct ledger *ledger, struct ledger_slot *slot);

/* The number of a slot that is in use, by which a successor finds it; and the slot of a number, NULL: it is not in use. */
uint32_t ledger_number(const struct ledger *ledger, const struct ledger_slot *slot);
struct ledger_slot *ledger_at(const struct ledger *ledger, uint32_t number);

/* The slot after this one that is in use, the first for NULL; NULL: there is no more. */
struct ledger_slot *ledger_next(struct ledger *ledger, const struct ledger_slot *slot);

/* Something is about to change in the slot that counts from the next commit on. */
static inline void ledger_touch(const struct ledger *ledger, struct ledger_slot *slot)
{
    if (slot->mark.batch == ledger->header->batch)
        return;
    slot->mark.relayed = slot->tally.relayed;
    slot->mark.run_since = slot->run_since;
    slot->mark.follows = slot->follows;
    slot->mark.passed = slot->passed;
    for (int i = 0; i < DROP_REASONS; i++)
        slot->mark.dropped[i] = slot->tally.dropped[i];
    atomic_signal_fence(memory_order_seq_cst); /* we may be killed anywhere: the mark is whole before it counts */
    slot->mark.batch = ledger->header->batch;
    atomic_signal_fence(memory_order_seq_cst);
}

/* Bytes of input are in memory only, or are about to be; or there are none any more. */
static inline void ledger_note_input(struct ledger_slot *slot, bool begun)
{
    slot->input_begun = begun;
}

/* A part of an event has been sent, or may have been; or none has. */
static inline void ledger_note_output(struct ledger_slot *slot, bool begun)
{
    slot->output_begun = begun;
}

/* All that is queued is being written, and so many bytes will have been sent then; 0: it is not all, or that is over. */
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

/* Its connection has ended, and is counted as closed; or not. */
static inline void ledger_note_closed(struct ledger_slot *slot, bool closed)
{
    slot->closed = closed;
}

/* A worker has been sent so many of its messages whole; or so many of those that it was sent are taken back. */
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

/* Its tag is another; length 0: it has none. */
void ledger_note_tag(struct ledger *ledger, struct ledger_slot *slot, const char *tag, uint8_t length);

/* It gets what is appended to the run; or is skipped by it. */
static inline void ledger_note_follows(struct ledger_slot *slot, bool follows)
{
    slot->follows = follows;
}

static inline void ledger_note_passed(struct ledger_slot *slot, bool passed)
{
    slot->passed = passed;
}

/* The listener that the client had come to, by its name. */
const char *ledger_listener_name(struct ledger_slot *slot);

/* All that was read from the ring of that instance up to tail is in memory: the caller moves the ring's tail now. */
void ledger_commit(struct ledger *ledger, uint64_t instance, uint64_t tail, const struct run runs[FRAMINGS],
                   const struct event_counts *events);

/* After an evapid that was killed: bring every slot to the last commit, which is that of the ring's tail if there is such a
 * ring (instance, else 0), and relayed up to date. Returns what events had come. What the slots' clients were not sent is not
 * counted as dropped yet. */
struct event_counts ledger_recover(struct ledger *ledger, uint64_t instance, uint64_t tail);

/* Write them for a successor, and read them. */
void events_save(const struct event_counts *events, struct state_out *out);
void events_load(struct event_counts *events, struct state_in *in);

#endif
