/* The ledger's description of itself: every field of its header and of a slot. */
#include <string.h>

#include "base/state.h"
#include "client/ledger.h"

#define FIELD(part_, type, member, kind_)                                                                              \
    {                                                                                                                  \
        .name = #member, .part = (part_), .kind = (kind_), .offset = offsetof(struct type, member),                    \
        .size = sizeof(((struct type *)NULL)->member)                                                                  \
    }
#define HEADER_NUMBER(member) FIELD(LAYOUT_HEADER, ledger_header, member, LAYOUT_NUMBER)
#define HEADER_BYTES(member) FIELD(LAYOUT_HEADER, ledger_header, member, LAYOUT_BYTES)
#define HEADER_OWN(member) FIELD(LAYOUT_HEADER, ledger_header, member, LAYOUT_OWN)
#define SLOT_NUMBER(member) FIELD(LAYOUT_SLOT, ledger_slot, member, LAYOUT_NUMBER)
#define SLOT_BYTES(member) FIELD(LAYOUT_SLOT, ledger_slot, member, LAYOUT_BYTES)
#define SLOT_OWN(member) FIELD(LAYOUT_SLOT, ledger_slot, member, LAYOUT_OWN)

/* The fields of a struct within a part. NOLINTBEGIN(bugprone-macro-parentheses): a member's name can't be in parentheses */
#define TALLY(one, tally)                                                                                              \
    one(tally.relayed), one(tally.delivered), one(tally.delivered_bytes), one(tally.dropped[DROP_SLOW]),               \
        one(tally.dropped[DROP_CLOSED]), one(tally.dropped[DROP_LARGE]), one(tally.dropped[DROP_MEMORY]),              \
        one(tally.dropped[DROP_LOST]), one(tally.dropped[DROP_ABSENT]), one(tally.messages), one(tally.message_bytes), \
        one(tally.messages_delivered), one(tally.messages_dropped[LOSS_CLOSED]),                                       \
        one(tally.messages_dropped[LOSS_MEMORY]), one(tally.messages_dropped[LOSS_LOST])
#define HISTOGRAM(histogram) HEADER_BYTES(histogram.counts), HEADER_NUMBER(histogram.sum_ns)
#define PAGE(page)                                                                                                     \
    HEADER_NUMBER(page.batch), HEADER_NUMBER(page.instance), HEADER_NUMBER(page.tail),                                 \
        HEADER_NUMBER(page.run_events[FRAMING_NETSTRING]), HEADER_NUMBER(page.run_events[FRAMING_RAW]),                \
        HEADER_NUMBER(page.run_offered[FRAMING_NETSTRING]), HEADER_NUMBER(page.run_offered[FRAMING_RAW]),              \
        HEADER_NUMBER(page.events.relay), HEADER_NUMBER(page.events.multicast), HEADER_NUMBER(page.events.unicast),    \
        HEADER_NUMBER(page.events.send), HEADER_NUMBER(page.events.no_receiver)
/* NOLINTEND(bugprone-macro-parentheses) */

static const struct layout_field fields[] = {
    HEADER_OWN(file),
    HEADER_NUMBER(batch),
    HEADER_NUMBER(state),
    HEADER_NUMBER(instance),
    HEADER_NUMBER(clients_end),
    HEADER_NUMBER(tag_orders),
    HEADER_NUMBER(session),
    HEADER_NUMBER(last_index),
    HEADER_OWN(segments),
    HEADER_OWN(offer),
    HEADER_OWN(unused),
    HEADER_NUMBER(accepted),
    HEADER_NUMBER(closed),
    TALLY(HEADER_NUMBER, gone),
    HISTOGRAM(meter.queue_wait),
    HISTOGRAM(meter.admission),
    HISTOGRAM(meter.route_start),
    HEADER_NUMBER(meter.refused_full),
    HEADER_NUMBER(meter.refused_large),
    HEADER_NUMBER(meter.lost),
    HEADER_NUMBER(meter.instance),
    HEADER_NUMBER(meter.seen_full),
    HEADER_NUMBER(meter.seen_large),
    HEADER_NUMBER(meter.seen_lost),
    HISTOGRAM(meter.seen_starts),
    PAGE(pages[0]),
    PAGE(pages[1]),

    SLOT_NUMBER(index),
    SLOT_OWN(next),
    SLOT_NUMBER(framing),
    SLOT_NUMBER(standing),
    SLOT_NUMBER(port),
    SLOT_NUMBER(tag_length),
    SLOT_NUMBER(follows),
    SLOT_NUMBER(skipped),
    SLOT_NUMBER(input_begun),
    SLOT_NUMBER(output_begun),
    SLOT_NUMBER(closed),
    SLOT_BYTES(tag),
    SLOT_BYTES(address),
    SLOT_BYTES(listener),
    SLOT_BYTES(peer.bytes),
    SLOT_NUMBER(peer.version),
    SLOT_NUMBER(peer.prefix),
    SLOT_OWN(unused),
    SLOT_NUMBER(tag_order),
    SLOT_NUMBER(cookie),
    SLOT_NUMBER(since_ms),
    SLOT_NUMBER(connected_ns),
    SLOT_NUMBER(origin),
    SLOT_NUMBER(offered),
    SLOT_NUMBER(run_since),
    SLOT_NUMBER(written),
    TALLY(SLOT_NUMBER, tally),
    SLOT_NUMBER(mark.batch),
    SLOT_NUMBER(mark.relayed),
    SLOT_NUMBER(mark.run_since),
    SLOT_NUMBER(mark.dropped[DROP_SLOW]),
    SLOT_NUMBER(mark.dropped[DROP_CLOSED]),
    SLOT_NUMBER(mark.dropped[DROP_LARGE]),
    SLOT_NUMBER(mark.dropped[DROP_MEMORY]),
    SLOT_NUMBER(mark.dropped[DROP_LOST]),
    SLOT_NUMBER(mark.dropped[DROP_ABSENT]),
    SLOT_NUMBER(mark.follows),
    SLOT_NUMBER(mark.skipped),
    SLOT_OWN(mark.unused),
};

_Static_assert(DROP_REASONS == 6 && MESSAGE_LOSSES == 3 && FRAMINGS == 2, "each of them is a field of its own above");
_Static_assert(LEDGER_FIELDS_AT + sizeof(fields) <= LEDGER_HEADER, "the description has its place");
_Static_assert(sizeof(struct ledger_header) <= LEDGER_FIELDS_AT, "the header has its place");

const struct layout ledger_layout = {
    .file = { .magic = LEDGER_MAGIC,
              .version = STATE_VERSION,
              .reader = STATE_READER,
              .header_bytes = LEDGER_HEADER,
              .fields_at = LEDGER_FIELDS_AT,
              .field_count = sizeof(fields) / sizeof(*fields),
              .field_bytes = sizeof(*fields),
              .slot_bytes = sizeof(struct ledger_slot),
              .segment_slots = LEDGER_SEGMENT,
              .segment_bytes = LEDGER_SEGMENT_BYTES },
    .fields = fields,
};
