/* The ledger: slots that outlive their process, and books that go back to the last commit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ledger.h"
#include "memory.h"

static const uint64_t no_events[FRAMINGS];

/* Commit, with that many events in the runs. */
static void commit_events(struct ledger *ledger, uint64_t instance, uint64_t tail, const uint64_t events[FRAMINGS],
                          const struct event_counts *counts)
{
    struct run runs[FRAMINGS] = { 0 };
    for (int framing = 0; framing < FRAMINGS; framing++)
        runs[framing].events = runs[framing].offered = events[framing];
    ledger_commit(ledger, instance, tail, runs, counts);
}
static const struct event_counts no_counts;

/* Close the ledger and adopt its memfd, as another process would. */
static void adopt_again(struct ledger *ledger)
{
    const int memfd = fcntl(ledger->memfd, F_DUPFD_CLOEXEC, 0);
    assert_true(memfd >= 0);
    ledger_close(ledger);
    assert_null(ledger_adopt(ledger, memfd));
}

static unsigned count(struct ledger *ledger)
{
    unsigned slots = 0;
    for (const struct ledger_slot *slot = ledger_next(ledger, NULL); slot != NULL; slot = ledger_next(ledger, slot))
        slots++;
    return slots;
}

/* ---- slots ---------------------------------------------------------------------------------------------------------- */

static void test_slots_are_claimed_found_and_released(void **state)
{
    struct ledger ledger;
    struct ledger_slot *slots[10];
    (void)state;
    assert_null(ledger_open(&ledger));
    assert_null(ledger_next(&ledger, NULL));
    assert_null(ledger_at(&ledger, 0));
    for (uint32_t i = 0; i < 10; i++) {
        slots[i] = ledger_claim(&ledger, i + 1);
        assert_non_null(slots[i]);
        assert_int_equal(slots[i]->index, i + 1);
        assert_ptr_equal(ledger_at(&ledger, ledger_number(&ledger, slots[i])), slots[i]);
    }
    assert_int_equal(count(&ledger), 10);
    slots[4]->tally = (struct tally){ .relayed = 7, .delivered = 5, .dropped = { [DROP_SLOW] = 2 }, .messages = 3 };
    const uint32_t number = ledger_number(&ledger, slots[4]);
    ledger_release(&ledger, slots[4]);
    assert_null(ledger_at(&ledger, number));
    assert_null(ledger_at(&ledger, LEDGER_NONE));
    assert_null(ledger_at(&ledger, LEDGER_SEGMENT));
    assert_int_equal(count(&ledger), 9);
    assert_int_equal(ledger.header->gone.relayed, 7);
    assert_int_equal(ledger.header->gone.dropped[DROP_SLOW], 2);
    const struct ledger_slot *again = ledger_claim(&ledger, 99);
    const struct tally empty = { 0 };
    assert_ptr_equal(again, slots[4]);
    assert_memory_equal(&again->tally, &empty, sizeof(empty));
    ledger_close(&ledger);
}

static void test_the_ledger_grows_by_segments_and_is_adopted(void **state)
{
    struct ledger ledger;
    const uint32_t all = 2 * LEDGER_SEGMENT + 5;
    (void)state;
    assert_null(ledger_open(&ledger));
    for (uint32_t i = 1; i <= all; i++) {
        struct ledger_slot *slot = ledger_claim(&ledger, i);
        assert_non_null(slot);
        slot->cookie = i * 3ULL;
    }
    assert_int_equal(ledger.header->segments, 3);
    for (uint32_t i = 0; i < all; i += 2)
        ledger_release(&ledger, ledger_at(&ledger, i));
    adopt_again(&ledger);
    assert_int_equal(ledger.header->segments, 3);
    uint32_t expected = 1;
    for (struct ledger_slot *slot = ledger_next(&ledger, NULL); slot != NULL; slot = ledger_next(&ledger, slot)) {
        assert_int_equal(ledger_number(&ledger, slot), expected);
        assert_int_equal(slot->cookie, slot->index * 3ULL);
        expected += 2;
    }
    assert_in_range(expected, all, all + 1);
    /* Free slots are used before the ledger grows. */
    for (uint32_t i = count(&ledger); i < 3 * LEDGER_SEGMENT; i++)
        assert_non_null(ledger_claim(&ledger, 100000 + i));
    assert_int_equal(ledger.header->segments, 3);
    assert_int_equal(count(&ledger), 3 * LEDGER_SEGMENT);
    assert_non_null(ledger_claim(&ledger, 1));
    assert_int_equal(ledger.header->segments, 4);
    ledger_close(&ledger);
}

static void test_a_ledger_that_does_not_fit_is_not_adopted(void **state)
{
    struct ledger ledger;
    int ends[2];
    (void)state;
    assert_null(ledger_open(&ledger));
    assert_non_null(ledger_claim(&ledger, 1));
    struct ledger_header *header = ledger.header;
    struct ledger other;
    header->file.magic = 0x676c646970617665U; /* "evapidlg" */
    assert_string_equal(ledger_adopt(&other, dup(ledger.memfd)), "it was written by another version, which is too old");
    header->file.magic = 1;
    assert_string_equal(ledger_adopt(&other, dup(ledger.memfd)), "it is none");
    header->file = ledger_layout.file;
    header->file.reader = 99;
    assert_non_null(strstr(ledger_adopt(&other, dup(ledger.memfd)), "it was written by a later version"));
    for (size_t i = 16; i + 4 < sizeof(header->file); i += 4) {
        header->file = ledger_layout.file;
        memset((char *)&header->file + i, 0xff, 4);
        assert_non_null(ledger_adopt(&other, dup(ledger.memfd)));
    }
    header->file = ledger_layout.file;
    header->segments = 2;
    assert_string_equal(ledger_adopt(&other, dup(ledger.memfd)), "it is shorter than it says");
    header->segments = UINT32_MAX;
    assert_string_equal(ledger_adopt(&other, dup(ledger.memfd)), "it is shorter than it says");
    header->segments = 1;
    assert_null(ledger_adopt(&other, dup(ledger.memfd)));
    ledger_close(&other);
    assert_int_equal(ftruncate(ledger.memfd, 20000), 0);
    assert_string_equal(ledger_adopt(&other, dup(ledger.memfd)), "it is shorter than it says");
    assert_int_equal(ftruncate(ledger.memfd, 16383), 0);
    assert_string_equal(ledger_adopt(&other, dup(ledger.memfd)), "it is too short");
    assert_int_equal(pipe(ends), 0);
    assert_non_null(ledger_adopt(&other, ends[0]));
    assert_true(fcntl(ends[0], F_GETFD) < 0); /* ledger_adopt closes the descriptor when it fails */
    close(ends[1]);
    ledger_close(&ledger);
}

/* ---- commits -------------------------------------------------------------------------------------------------------- */

static void give(struct ledger *ledger, struct ledger_slot *slot, uint64_t events)
{
    ledger_touch(ledger, slot);
    slot->tally.relayed += events;
}

static void test_events_that_were_not_committed_are_undone(void **state)
{
    struct ledger ledger;
    (void)state;
    assert_null(ledger_open(&ledger));
    struct ledger_slot *slot = ledger_claim(&ledger, 1);
    const struct event_counts counts = { .relay = 3 };
    give(&ledger, slot, 3);
    commit_events(&ledger, 7, 100, no_events, &counts);
    slot->tally.delivered = 2;
    give(&ledger, slot, 5);
    ledger_touch(&ledger, slot); /* a second time in the same batch */
    slot->tally.dropped[DROP_SLOW] = 4;
    slot->tally.delivered = 3;
    adopt_again(&ledger);
    const struct event_counts events = ledger_recover(&ledger, 7, 100);
    slot = ledger_at(&ledger, 0);
    assert_int_equal(events.relay, 3);
    assert_int_equal(slot->tally.relayed, 3);
    assert_int_equal(slot->tally.delivered, 3); /* a delivery is never undone */
    assert_int_equal(tally_dropped(&slot->tally), 0);
    ledger_recover(&ledger, 7, 100); /* as after a second kill */
    assert_int_equal(slot->tally.relayed, 3);
    ledger_close(&ledger);
}

static void test_a_commit_counts_when_the_tail_of_the_ring_has_moved(void **state)
{
    (void)state;
    static const struct {
        uint64_t instance, tail;
        unsigned events;
    } cases[] = {
        { 7, 200, 30 }, /* the tail has moved */
        { 7, 100, 10 }, /* killed between commit and tail */
        { 0, 0, 30 },   /* the ring does not exist */
        { 8, 100, 30 }, /* the ring is another one */
        { 7, 150, 30 }, /* the tail fits neither commit */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct ledger ledger;
        assert_null(ledger_open(&ledger));
        struct ledger_slot *slot = ledger_claim(&ledger, 1);
        struct ledger_slot *idle = ledger_claim(&ledger, 2);
        const struct event_counts counts[] = { { .multicast = 10 }, { .multicast = 30 } };
        give(&ledger, idle, 1);
        give(&ledger, slot, 10);
        commit_events(&ledger, 7, 100, no_events, &counts[0]);
        give(&ledger, slot, 20);
        commit_events(&ledger, 7, 200, no_events, &counts[1]);
        const struct event_counts events = ledger_recover(&ledger, cases[i].instance, cases[i].tail);
        assert_int_equal(events.multicast, cases[i].events);
        assert_int_equal(slot->tally.relayed, cases[i].events);
        assert_int_equal(idle->tally.relayed, 1);
        ledger_close(&ledger);
    }
}

static void test_events_of_a_run_count_up_to_the_commit(void **state)
{
    struct ledger ledger;
    uint64_t run[FRAMINGS] = { 0 };
    (void)state;
    assert_null(ledger_open(&ledger));
    struct ledger_slot *all = ledger_claim(&ledger, 1);
    struct ledger_slot *left = ledger_claim(&ledger, 2);
    struct ledger_slot *raw = ledger_claim(&ledger, 3);
    all->follows = left->follows = raw->follows = true;
    raw->framing = FRAMING_RAW;
    run[FRAMING_NETSTRING] = 40;
    run[FRAMING_RAW] = 4;
    commit_events(&ledger, 7, 100, run, &no_counts);
    ledger_touch(&ledger, left); /* after the commit it gets one more event and leaves the run */
    left->tally.relayed += 41;
    left->run_since = 41;
    left->follows = false;
    ledger_recover(&ledger, 7, 100);
    assert_int_equal(all->tally.relayed, 40);
    assert_int_equal(left->tally.relayed, 40);
    assert_int_equal(raw->tally.relayed, 4);
    assert_false(all->follows || left->follows || raw->follows);
    ledger_close(&ledger);
}

/* ---- any mixture, killed at any point ------------------------------------------------------------------------------- */

#define SLOTS 40

/* What the books of a client say of its events. */
struct page {
    uint64_t relayed, dropped[DROP_REASONS];
};

enum commit { PUBLISHED, LAST, COMMITS }; /* last with the ring's tail moved; last of all */

struct model {
    bool there;
    uint32_t number, index; /* number of its slot; index of the client */
    struct page now, at[COMMITS];
    uint64_t delivered;
    bool follows;
};

static struct {
    struct ledger ledger;
    struct model of[SLOTS];
    uint64_t run[FRAMINGS];
    uint64_t instance, tail, published; /* the ring: its instance, how far it is read, and its tail */
    struct event_counts now, at[COMMITS];
    uint32_t last_index;
    unsigned seed, kills, undone, lost;
} t;

static size_t any(size_t of)
{
    return ((size_t)rand_r(&t.seed) << 15 ^ (size_t)rand_r(&t.seed)) % of;
}

static struct ledger_slot *slot_of(const struct model *model)
{
    struct ledger_slot *slot = ledger_at(&t.ledger, model->number);
    assert_non_null(slot);
    assert_int_equal(slot->index, model->index);
    return slot;
}

static uint64_t all_dropped(const struct page *page)
{
    uint64_t events = 0;
    for (int i = 0; i < DROP_REASONS; i++)
        events += page->dropped[i];
    return events;
}

static uint64_t queued(const struct model *model)
{
    return model->now.relayed - model->delivered - all_dropped(&model->now);
}

/* Bring the slot up to date as client.c does. */
static void fold(struct model *model, bool follows)
{
    struct ledger_slot *slot = slot_of(model);
    ledger_touch(&t.ledger, slot);
    if (model->follows)
        slot->tally.relayed += t.run[slot->framing] - slot->run_since;
    slot->run_since = t.run[slot->framing];
    slot->follows = model->follows = follows;
}

static void drop(struct model *model, enum drop_reason reason, uint64_t events)
{
    struct ledger_slot *slot = slot_of(model);
    ledger_touch(&t.ledger, slot);
    slot->tally.dropped[reason] += events;
    model->now.dropped[reason] += events;
}

static void act_come_or_go(struct model *model)
{
    if (model->there) {
        fold(model, false);
        drop(model, DROP_CLOSED, queued(model));
        ledger_release(&t.ledger, slot_of(model));
        model->there = false;
        return;
    }
    struct ledger_slot *slot = ledger_claim(&t.ledger, ++t.last_index);
    assert_non_null(slot);
    slot->framing = any(2) == 0 ? FRAMING_RAW : FRAMING_NETSTRING;
    *model = (struct model){ .there = true, .number = ledger_number(&t.ledger, slot), .index = t.last_index };
}

/* Read an event from the ring, for all clients or for some. */
static void act_event(void)
{
    t.tail += 8 + 8 * any(100);
    if (any(3) > 0) {
        t.now.relay++;
        for (int framing = 0; framing < FRAMINGS; framing++)
            t.run[framing]++;
        for (size_t i = 0; i < SLOTS; i++)
            t.of[i].now.relayed += t.of[i].there && t.of[i].follows;
        return;
    }
    t.now.multicast++;
    for (size_t i = any(4); i < SLOTS; i += 1 + any(5)) {
        if (!t.of[i].there)
            continue;
        fold(&t.of[i], t.of[i].follows);
        slot_of(&t.of[i])->tally.relayed++;
        t.of[i].now.relayed++;
        if (any(5) == 0)
            drop(&t.of[i], (enum drop_reason)any(DROP_LOST), 1);
    }
}

static void note(enum commit commit)
{
    t.at[commit] = t.now;
    for (size_t i = 0; i < SLOTS; i++)
        t.of[i].at[commit] = t.of[i].now;
}

static void act_commit(bool publish)
{
    commit_events(&t.ledger, t.instance, t.tail, t.run, &t.now);
    note(LAST);
    if (!publish && t.tail != t.published) /* with the tail in place, the commit counts already */
        return;
    t.published = t.tail;
    note(PUBLISHED);
}

/* evapid sends nothing before a commit that a kill cannot undo. */
static void act_deliver(struct model *model)
{
    act_commit(true);
    const uint64_t events = any(queued(model) + 1);
    slot_of(model)->tally.delivered += events;
    model->delivered += events;
}

/* The books of a client are those of that commit. Events that were queued but not sent count as lost. */
static void check_recovered(struct model *model, enum commit commit)
{
    struct ledger_slot *slot = slot_of(model);
    t.undone += model->now.relayed != model->at[commit].relayed;
    model->now = model->at[commit];
    model->follows = false;
    assert_int_equal(slot->tally.relayed, model->now.relayed);
    assert_int_equal(slot->tally.delivered, model->delivered);
    assert_memory_equal(slot->tally.dropped, model->now.dropped, sizeof(model->now.dropped));
    const uint64_t lost = queued(model);
    assert_true(lost <= model->now.relayed);
    slot->tally.dropped[DROP_LOST] += lost;
    model->now.dropped[DROP_LOST] += lost;
    t.lost += lost > 0;
}

/* Kill evapid, perhaps twice before its successor does anything. Without the ring, the last commit counts. */
static void act_kill(bool with_ring, bool twice)
{
    const enum commit commit = with_ring ? PUBLISHED : LAST;
    struct event_counts counts = no_counts;
    for (int i = 0; i <= twice; i++) {
        adopt_again(&t.ledger);
        counts = ledger_recover(&t.ledger, with_ring ? t.instance : 0, with_ring ? t.published : 0);
    }
    assert_memory_equal(&counts, &t.at[commit], sizeof(counts));
    unsigned clients = 0;
    for (size_t i = 0; i < SLOTS; i++) {
        clients += t.of[i].there;
        if (t.of[i].there)
            check_recovered(&t.of[i], commit);
    }
    assert_int_equal(count(&t.ledger), clients);
    t.now = counts;
    t.instance += !with_ring;
    t.published = with_ring ? t.published : 0;
    t.tail = t.published;
    memset(t.run, 0, sizeof(t.run)); /* evapid starts with new runs */
    note(PUBLISHED);
    note(LAST);
    t.kills++;
}

static void act(void)
{
    struct model *model = &t.of[any(SLOTS)];
    const size_t action = any(1000);
    if (action < 400)
        act_event();
    else if (action < 550)
        act_commit(true);
    else if (action < 620 || !model->there)
        act_come_or_go(model);
    else if (action < 750)
        act_deliver(model);
    else if (action < 850)
        fold(model, any(2) == 0);
    else if (action < 900)
        drop(model, (enum drop_reason)any(DROP_LOST), any(queued(model) + 1));
    else if (action < 970)
        fold(model, model->follows);
    else if (action < 990)
        act_kill(any(5) > 0, any(3) == 0);
    else {
        act_commit(false); /* killed between the commit and the ring's tail */
        act_kill(any(5) > 0, any(3) == 0);
    }
}

static void test_any_mixture_killed_at_any_point_leaves_the_books_of_a_model(void **state)
{
    (void)state;
    memset(&t, 0, sizeof(t));
    t.seed = 20261123;
    t.instance = 1;
    assert_null(ledger_open(&t.ledger));
    for (unsigned round = 0; round < 200000; round++)
        act();
    const struct tally *gone = &t.ledger.header->gone;
    assert_int_equal(gone->relayed, gone->delivered + tally_dropped(gone));
    assert_true(t.kills > 5000 && t.undone > 1000 && t.lost > 1000);
    ledger_close(&t.ledger);
}

static void test_events_of_every_kind_are_counted_together(void **state)
{
    (void)state;
    const struct event_counts events = { .relay = 1, .multicast = 10, .unicast = 100, .send = 1000, .no_receiver = 7 };
    assert_int_equal(events_total(&events), 1111);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_are_claimed_found_and_released),
        cmocka_unit_test(test_the_ledger_grows_by_segments_and_is_adopted),
        cmocka_unit_test(test_a_ledger_that_does_not_fit_is_not_adopted),
        cmocka_unit_test(test_events_that_were_not_committed_are_undone),
        cmocka_unit_test(test_a_commit_counts_when_the_tail_of_the_ring_has_moved),
        cmocka_unit_test(test_events_of_a_run_count_up_to_the_commit),
        cmocka_unit_test(test_any_mixture_killed_at_any_point_leaves_the_books_of_a_model),
        cmocka_unit_test(test_events_of_every_kind_are_counted_together),
    };
    return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
