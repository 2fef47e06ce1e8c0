/* The ledger's memory, its slots and its commits. */
#include "ledger.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEDGER_MAGIC 0x676c646970617665U /* "evapidlg" in memory */
#define LEDGER_HEADER 4096U              /* bytes before the first segment */
#define SEGMENT_BYTES (((LEDGER_SEGMENT * sizeof(struct ledger_slot)) + 4095) & ~(size_t)4095)

_Static_assert(sizeof(struct ledger_header) <= LEDGER_HEADER, "the header has its place");

static uint64_t ledger_layout(void)
{
    return (uint64_t)sizeof(struct ledger_slot) << 32 | (uint64_t)sizeof(struct ledger_header) << 8 | DROP_REASONS;
}

static off_t segment_offset(uint32_t segment)
{
    return (off_t)(LEDGER_HEADER + segment * SEGMENT_BYTES);
}

static struct ledger_slot *ledger_slot(const struct ledger *ledger, uint32_t number)
{
    return &ledger->segments[number / LEDGER_SEGMENT][number % LEDGER_SEGMENT];
}

static void *map(int memfd, off_t offset, size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, offset);
    return memory != MAP_FAILED ? memory : NULL;
}

static bool ledger_map_segment(struct ledger *ledger, uint32_t segment)
{
    ledger->segments[segment] = map(ledger->memfd, segment_offset(segment), SEGMENT_BYTES);
    return ledger->segments[segment] != NULL;
}

/* Put the free slots of a segment into the list, the first one in front. */
static void ledger_list_free(struct ledger *ledger, uint32_t segment)
{
    for (uint32_t i = LEDGER_SEGMENT; i-- > 0;) {
        struct ledger_slot *slot = &ledger->segments[segment][i];
        if (slot->index != 0)
            continue;
        slot->next = ledger->free;
        ledger->free = segment * LEDGER_SEGMENT + i;
    }
}

static bool ledger_grow(struct ledger *ledger)
{
    const uint32_t segment = ledger->header->segments;
    if (segment == LEDGER_SEGMENTS || ftruncate(ledger->memfd, segment_offset(segment + 1)) != 0 ||
        !ledger_map_segment(ledger, segment))
        return false;
    ledger->header->segments++;
    for (uint32_t i = LEDGER_SEGMENT; i-- > 0;) { /* it is all zero: only the list is missing */
        ledger->segments[segment][i].next = ledger->free;
        ledger->free = segment * LEDGER_SEGMENT + i;
    }
    return true;
}

const char *ledger_open(struct ledger *ledger)
{
    *ledger = (struct ledger){ .free = LEDGER_NONE };
    ledger->memfd = memfd_create("evapid-ledger", MFD_CLOEXEC);
    if (ledger->memfd < 0)
        return strerror(errno);
    if (ftruncate(ledger->memfd, LEDGER_HEADER) == 0)
        ledger->header = map(ledger->memfd, 0, LEDGER_HEADER);
    if (ledger->header == NULL) {
        close(ledger->memfd);
        return "no memory";
    }
    ledger->header->magic = LEDGER_MAGIC;
    ledger->header->layout = ledger_layout();
    ledger->header->batch = 1;
    return NULL;
}

/* Map a ledger that another evapid has begun. */
static const char *ledger_map(struct ledger *ledger)
{
    struct stat file;
    if (fstat(ledger->memfd, &file) != 0 || file.st_size < (off_t)LEDGER_HEADER)
        return "it is too short";
    ledger->header = map(ledger->memfd, 0, LEDGER_HEADER);
    if (ledger->header == NULL)
        return "no memory";
    if (ledger->header->magic != LEDGER_MAGIC || ledger->header->layout != ledger_layout())
        return "it was written by another version";
    if (ledger->header->segments > LEDGER_SEGMENTS || file.st_size < segment_offset(ledger->header->segments))
        return "it is shorter than it says";
    for (uint32_t i = ledger->header->segments; i-- > 0;) {
        if (!ledger_map_segment(ledger, i))
            return "no memory";
        ledger_list_free(ledger, i);
    }
    return NULL;
}

const char *ledger_adopt(struct ledger *ledger, int memfd)
{
    *ledger = (struct ledger){ .memfd = memfd, .free = LEDGER_NONE };
    const char *why = ledger_map(ledger);
    if (why != NULL)
        ledger_close(ledger);
    return why;
}

void ledger_close(struct ledger *ledger)
{
    for (uint32_t i = 0; i < LEDGER_SEGMENTS && ledger->segments[i] != NULL; i++)
        munmap(ledger->segments[i], SEGMENT_BYTES);
    if (ledger->header != NULL)
        munmap(ledger->header, LEDGER_HEADER);
    close(ledger->memfd);
    *ledger = (struct ledger){ .memfd = -1, .free = LEDGER_NONE };
}

struct ledger_slot *ledger_take(struct ledger *ledger, uint32_t index)
{
    if (ledger->free == LEDGER_NONE && !ledger_grow(ledger))
        return NULL;
    struct ledger_slot *slot = ledger_slot(ledger, ledger->free);
    ledger->free = slot->next;
    *slot = (struct ledger_slot){ .mark.batch = 0 };
    slot->index = index;
    return slot;
}

uint32_t ledger_number(const struct ledger *ledger, const struct ledger_slot *slot)
{
    for (uint32_t i = 0;; i++)
        if (slot >= ledger->segments[i] && slot < ledger->segments[i] + LEDGER_SEGMENT)
            return i * LEDGER_SEGMENT + (uint32_t)(slot - ledger->segments[i]);
}

struct ledger_slot *ledger_at(const struct ledger *ledger, uint32_t number)
{
    struct ledger_slot *slot = number / LEDGER_SEGMENT < ledger->header->segments ? ledger_slot(ledger, number) : NULL;
    return slot != NULL && slot->index != 0 ? slot : NULL;
}

void ledger_release(struct ledger *ledger, struct ledger_slot *slot)
{
    tally_add(&ledger->header->gone, &slot->tally);
    slot->index = 0;
    slot->next = ledger->free;
    ledger->free = ledger_number(ledger, slot);
}

struct ledger_slot *ledger_next(struct ledger *ledger, const struct ledger_slot *slot)
{
    const uint32_t end = ledger->header->segments * LEDGER_SEGMENT;
    for (uint32_t i = slot != NULL ? ledger_number(ledger, slot) + 1 : 0; i < end; i++)
        if (ledger_slot(ledger, i)->index != 0)
            return ledger_slot(ledger, i);
    return NULL;
}

void ledger_commit(struct ledger *ledger, uint64_t instance, uint64_t tail, const struct run runs[FRAMINGS],
                   const struct event_counts *events)
{
    struct ledger_header *header = ledger->header;
    struct ledger_page *page = &header->pages[header->batch & 1];
    page->batch = 0; /* being written */
    atomic_signal_fence(memory_order_seq_cst);
    page->instance = instance;
    page->tail = tail;
    for (int i = 0; i < FRAMINGS; i++) {
        page->run_events[i] = runs[i].events;
        page->run_offered[i] = runs[i].offered;
    }
    page->events = *events;
    atomic_signal_fence(memory_order_seq_cst);
    page->batch = header->batch;
    atomic_signal_fence(memory_order_seq_cst);
    header->batch++;
}

/* The page of the last commit. Without its ring it is the later one; with it the one before, if the ring's tail has not come
 * to the later one's. */
static const struct ledger_page *ledger_last_page(const struct ledger_header *header, uint64_t instance, uint64_t tail)
{
    const bool later = header->pages[1].batch > header->pages[0].batch;
    const struct ledger_page *page = &header->pages[later];
    const struct ledger_page *before = &header->pages[!later];
    const bool begun = instance != 0 && page->instance == instance && page->tail != tail;
    return begun && (before->instance != instance || before->tail == tail) ? before : page;
}

/* Undo what the slot says of a batch that was not committed. */
static void slot_undo(struct ledger_slot *slot)
{
    slot->tally.relayed = slot->mark.relayed;
    slot->run_since = slot->mark.run_since;
    slot->follows = slot->mark.follows;
    slot->passed = slot->mark.passed;
    for (int i = 0; i < DROP_REASONS; i++)
        slot->tally.dropped[i] = slot->mark.dropped[i];
}

struct event_counts ledger_recover(struct ledger *ledger, uint64_t instance, uint64_t tail)
{
    struct ledger_header *header = ledger->header;
    const struct ledger_page *page = ledger_last_page(header, instance, tail);
    for (struct ledger_slot *slot = ledger_next(ledger, NULL); slot != NULL; slot = ledger_next(ledger, slot)) {
        if (slot->mark.batch > page->batch)
            slot_undo(slot);
        const uint64_t run = slot->passed ? page->run_offered[slot->framing] : page->run_events[slot->framing];
        if (slot->follows || slot->passed)
            slot->tally.relayed += run - slot->run_since;
        if (slot->passed)
            slot->tally.dropped[DROP_SLOW] += run - slot->run_since;
        slot->follows = slot->passed = false;
        slot->mark.batch = 0;
    }
    /* A commit that did not count never will: the next one takes its place. */
    header->batch = page->batch + 1;
    for (int i = 0; i < 2; i++)
        if (header->pages[i].batch > page->batch)
            header->pages[i].batch = 0;
    return page->events;
}
