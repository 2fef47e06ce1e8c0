/* Continuing after a kill. */
#include "lifecycle/recovery.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/store.h"
#include "kamailio/succession.h"
#include "lifecycle/adoption.h"

#define SUBJECT "handover"

/* Is the client's stream between two frames in both directions? Writes into the slot what has been sent. If the kernel
 * does not tell what it has taken, a write that was under way may have got anywhere. */
static bool stream_is_whole(struct ledger_slot *slot, const struct stream *stream)
{
    struct tally *tally = &slot->tally;
    if (!stream_has_position(stream))
        return !slot->input_begun && !slot->output_begun && slot->offered == 0 && slot->cookie == stream_cookie(stream);
    const uint64_t sent = stream_position(stream) - slot->origin;
    if (slot->input_begun || slot->cookie != stream_cookie(stream))
        return false;
    if (slot->offered == 0 || sent != slot->offered)
        return sent == tally->delivered_bytes && !slot->output_begun;
    tally->delivered = tally->relayed - tally_dropped(tally); /* the whole queue was offered, and sent */
    tally->delivered_bytes = sent;
    ledger_note_output(slot, false);
    return true;
}

/* What was in memory for the client is lost. Messages that a worker has are still run. */
static void count_lost(struct ledger_slot *slot)
{
    struct tally *tally = &slot->tally;
    tally->dropped[DROP_LOST] += tally->relayed - tally->delivered - tally_dropped(tally);
    tally->messages_delivered = slot->written;
    tally->messages_dropped[LOSS_LOST] += tally_messages_waiting(tally);
}

/* A tag stays kept, without what had waited for it. */
static bool recover_kept(struct evapid *evapid, struct ledger_slot *slot)
{
    count_lost(slot);
    return evapid_adopt_kept(evapid, slot) != NULL;
}

/* The client's connection ends here, but not by its own or anybody's will: its tag is kept, in its slot. */
static bool keep_tag(struct evapid *evapid, struct ledger_slot *slot)
{
    if (slot->tag_length == 0 || slot->standing == STANDING_NEW ||
        adoption_limits(evapid, ledger_listener_name(slot))->keep_absent_ms == 0)
        return false;
    ledger_keep(slot, clock_wall_ms(), histogram_clock_ns());
    return evapid_adopt_kept(evapid, slot) != NULL;
}

/* Continue with the client of a slot, or close it. Returns whether it continues. */
static bool recover_client(struct evapid *evapid, struct ledger_slot *slot, int fd)
{
    char subject[32];
    snprintf(subject, sizeof(subject), "client %u", slot->index);
    struct stream stream = stream_of(fd);
    const bool whole = fd >= 0 && stream_is_whole(slot, &stream);
    count_lost(slot);
    struct client *client = whole ? evapid_adopt(evapid, slot, fd) : NULL;
    if (client != NULL) {
        if (slot->standing == STANDING_ADMITTED)
            bus_admit(&evapid->bus, client);
        return true;
    }
    log_line(LEVEL_WARNING, subject, "%s",
             fd < 0  ? "its connection was not kept"
             : whole ? "no memory to go on with it; closing it"
                     : "its stream may stand in the middle of a frame; closing it");
    if (fd >= 0 && !whole)
        stream_close(&stream);
    store_forget_client(slot->index);
    evapid->ledger.header->closed++;
    if (!keep_tag(evapid, slot))
        ledger_release(&evapid->ledger, slot);
    return false;
}

static void recover_clients(struct evapid *evapid, struct descriptors *descriptors, uint64_t instance, uint64_t tail)
{
    struct ledger *ledger = &evapid->ledger;
    const struct event_counts events = ledger_recover(ledger, instance, tail);
    unsigned kept = 0;
    unsigned closed = 0;
    struct ledger_slot *next = NULL;
    for (struct ledger_slot *slot = ledger_next(ledger, NULL); slot != NULL; slot = next) {
        next = ledger_next(ledger, slot);
        if (slot->index == LEDGER_KEPT && recover_kept(evapid, slot))
            continue;
        if (slot->closed) { /* only its seat was left */
            count_lost(slot);
            ledger_release(ledger, slot);
            continue;
        }
        const bool goes_on = recover_client(evapid, slot, descriptors_remove(descriptors, "client-%u", slot->index));
        kept += goes_on;
        closed += !goes_on;
    }
    bus_restore_books(&evapid->bus, &events);
    log_line(LEVEL_WARNING, SUBJECT,
             "evapid was killed: %u clients go on, %u are closed; events lost: %llu, messages: %llu", kept, closed,
             (unsigned long long)evapid->bus.totals.dropped[DROP_LOST],
             (unsigned long long)evapid->bus.totals.messages_dropped[LOSS_LOST]);
}

/* Clients that a new Kamailio was about to admit again: the events that wait in the ring are for them, too. */
static uint32_t count_readmitting(const struct bus *bus)
{
    uint32_t count = 0;
    for (const struct client *client = bus->roster.clients; client != NULL; client = client->hh.next)
        count += client->slot->standing == STANDING_AGAIN;
    return count;
}

void evapid_recover(struct evapid *evapid, struct descriptors *descriptors)
{
    const uint64_t instance = evapid->ledger.header->instance;
    uint64_t tail = 0;
    const char *why = "there is none";
    if (instance != 0)
        why = succession_reopen_queue(&evapid->kamailio, instance, descriptors, &tail);
    if (why != NULL && instance != 0)
        log_line(LEVEL_WARNING, SUBJECT, "the queue of the Kamailio before can't be read: %s", why);
    if (why != NULL) { /* the next ring uses these names */
        store_forget("ring");
        store_forget("ring-wake");
    }
    recover_clients(evapid, descriptors, why == NULL ? instance : 0, tail);
    succession_go_on_alone(&evapid->kamailio, count_readmitting(&evapid->bus));
}
