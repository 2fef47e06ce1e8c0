/* The ledger's memory, its slots and its commits. */
#include "client/ledger.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/state.h"

#define LEDGER_MAGIC_OLD 0x676c646970617665U /* of ledgers that did not describe themselves: "evapidlg" */

static off_t segment_offset(uint32_t segment)
{
    return (off_t)(LEDGER_HEADER + segment * LEDGER_SEGMENT_BYTES);
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
    ledger->segments[segment] = map(ledger->memfd, segment_offset(segment), LEDGER_SEGMENT_BYTES);
    return ledger->segments[segment] != NULL;
}

/* Put the free slots of a segment at the front of the list, in order. */
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
    for (uint32_t i = LEDGER_SEGMENT; i-- > 0;) { /* the memory is all zero: only the list is missing */
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
    ledger->header->file = ledger_layout.file;
    memcpy((char *)ledger->header + LEDGER_FIELDS_AT, ledger_layout.fields,
           ledger_layout.file.field_count * sizeof(struct layout_field));
    ledger->header->batch = 1;
    ledger->offer = &ledger->header->offer;
    return NULL;
}

/* ---- one that another evapid has begun ------------------------------------------------------------------------- */

/* The ledger before ours: the whole file, for reading. */
struct original {
    const char *memory;
    uint64_t bytes;
    struct layout layout;
    uint64_t segments;
};

/* Map the file, and read its description. Returns NULL, or why it cannot be read. */
static const char *original_map(struct original *from, int memfd)
{
    struct stat file;
    if (fstat(memfd, &file) != 0 || file.st_size < (off_t)sizeof(struct layout_file))
        return "it is too short";
    from->bytes = (uint64_t)file.st_size;
    void *memory = mmap(NULL, from->bytes, PROT_READ, MAP_SHARED, memfd, 0);
    if (memory == MAP_FAILED)
        return "no memory";
    from->memory = memory;
    struct layout_file head;
    memcpy(&head, memory, sizeof(head));
    if (head.magic == LEDGER_MAGIC_OLD)
        return "it was written by another version, which is too old";
    if (head.magic != LEDGER_MAGIC)
        return "it is none";
    const char *why = state_judge(head.version, head.reader);
    if (why != NULL)
        return why;
    if (head.header_bytes > from->bytes)
        return "it is too short";
    const struct layout_field *segments = NULL;
    if (layout_read(&from->layout, memory, from->bytes))
        segments = layout_find(&from->layout, LAYOUT_HEADER, "segments");
    if (segments == NULL || segments->size != sizeof(uint32_t))
        return "what it says of itself makes no sense";
    uint32_t count = 0;
    memcpy(&count, from->memory + segments->offset, sizeof(count));
    from->segments = count;
    if (count * (uint64_t)head.segment_slots > (uint64_t)LEDGER_SEGMENTS * LEDGER_SEGMENT ||
        head.header_bytes + count * head.segment_bytes > from->bytes)
        return "it is shorter than it says";
    return NULL;
}

/* Continue in the memory of that ledger, whose layout is ours. */
static const char *ledger_map(struct ledger *ledger, int memfd)
{
    *ledger = (struct ledger){ .memfd = memfd, .free = LEDGER_NONE };
    ledger->header = map(memfd, 0, LEDGER_HEADER);
    if (ledger->header == NULL)
        return "no memory";
    ledger->offer = &ledger->header->offer;
    for (uint32_t i = ledger->header->segments; i-- > 0;) {
        if (!ledger_map_segment(ledger, i))
            return "no memory";
        ledger_list_free(ledger, i);
    }
    return NULL;
}

/* A field that we don't know occurs so many times. */
static void note_unknown(struct ledger *ledger, const struct layout_field *field, uint64_t times)
{
    if (ledger->unknown_count == LEDGER_UNKNOWN_MAX)
        return;
    struct ledger_unknown *unknown = &ledger->unknown[ledger->unknown_count++];
    memcpy(unknown->name, field->name, LAYOUT_NAME);
    unknown->bytes = field->size * times;
}

/* Copy the fields of a part that both know. False: a number does not fit. */
static bool copy_part(void *part, const struct original *from, const char *source, enum layout_part which)
{
    for (uint32_t i = 0; i < ledger_layout.file.field_count; i++) {
        const struct layout_field *to = &ledger_layout.fields[i];
        const struct layout_field *there =
            to->part == which && to->kind != LAYOUT_OWN ? layout_find(&from->layout, which, to->name) : NULL;
        if (there != NULL && !layout_copy(to, part, there, source))
            return false;
    }
    return true;
}

static const char *source_slot(const struct original *from, uint32_t number)
{
    const struct layout_file *file = &from->layout.file;
    return from->memory + file->header_bytes + number / file->segment_slots * file->segment_bytes +
           (size_t)(number % file->segment_slots) * file->slot_bytes;
}

/* Copy all slots under the same numbers, because a state refers to them. */
static const char *copy_slots(struct ledger *ledger, const struct original *from)
{
    const uint32_t count = (uint32_t)(from->segments * from->layout.file.segment_slots);
    const struct layout_field *index = layout_find(&from->layout, LAYOUT_SLOT, "index");
    uint64_t used = 0;
    if (index == NULL || index->size != sizeof(uint32_t))
        return "what it says of itself makes no sense";
    while (ledger->header->segments * (uint64_t)LEDGER_SEGMENT < count)
        if (!ledger_grow(ledger))
            return "no memory";
    for (uint32_t i = 0; i < count; i++) {
        const char *source = source_slot(from, i);
        uint32_t client = 0;
        memcpy(&client, source + index->offset, sizeof(client));
        if (client == 0)
            continue;
        used++;
        if (!copy_part(ledger_slot(ledger, i), from, source, LAYOUT_SLOT))
            return "what it says of a client makes no sense to this version";
    }
    ledger_go_on(ledger);
    for (uint32_t i = 0; i < from->layout.file.field_count; i++) {
        const struct layout_field *field = &from->layout.fields[i];
        if (field->kind != LAYOUT_OWN && layout_find(&ledger_layout, field->part, field->name) == NULL)
            note_unknown(ledger, field, field->part == LAYOUT_SLOT ? used : 1);
    }
    return NULL;
}

/* Find the original's `offer`, which decides who owns it. The original's header stays mapped for that. */
static const char *keep_offer(struct ledger *ledger, const struct original *from, int memfd)
{
    const struct layout_field *offer = layout_find(&from->layout, LAYOUT_HEADER, "offer");
    ledger->origin_bytes = from->layout.file.header_bytes;
    ledger->origin = map(memfd, 0, ledger->origin_bytes);
    if (ledger->origin == NULL)
        return "no memory";
    ledger->offer = NULL;
    if (offer != NULL && offer->size == sizeof(uint32_t) && offer->offset % sizeof(uint32_t) == 0)
        ledger->offer = (_Atomic uint32_t *)(void *)((char *)ledger->origin + offer->offset);
    return NULL;
}

/* Make a ledger of our own with the contents of the original. */
static const char *ledger_make(struct ledger *ledger, const struct original *from, int memfd)
{
    const char *why = ledger_open(ledger);
    if (why != NULL) {
        ledger->memfd = -1;
        return why;
    }
    assert(ledger->header != NULL);
    if (!copy_part(ledger->header, from, from->memory, LAYOUT_HEADER))
        return "what it says makes no sense to this version";
    why = copy_slots(ledger, from);
    return why == NULL ? keep_offer(ledger, from, memfd) : why;
}

const char *ledger_adopt(struct ledger *ledger, int memfd)
{
    struct original from = { .memory = NULL };
    *ledger = (struct ledger){ .memfd = -1, .free = LEDGER_NONE };
    const char *why = original_map(&from, memfd);
    const bool same = why == NULL && layout_is_same(&from.layout, &ledger_layout);
    if (why == NULL)
        why = same ? ledger_map(ledger, memfd) : ledger_make(ledger, &from, memfd);
    if (from.memory != NULL)
        munmap((void *)(uintptr_t)from.memory, from.bytes);
    if (ledger->memfd != memfd)
        close(memfd);
    if (why != NULL)
        ledger_close(ledger);
    return why;
}

void ledger_own(struct ledger *ledger)
{
    ledger->header->file.version = STATE_VERSION;
    ledger->header->file.reader = STATE_READER;
    ledger->header->offer = 0;
}

void ledger_go_on(struct ledger *ledger)
{
    ledger->free = LEDGER_NONE;
    for (uint32_t i = ledger->header->segments; i-- > 0;)
        ledger_list_free(ledger, i);
}

void ledger_close(struct ledger *ledger)
{
    for (uint32_t i = 0; i < LEDGER_SEGMENTS && ledger->segments[i] != NULL; i++)
        munmap(ledger->segments[i], LEDGER_SEGMENT_BYTES);
    if (ledger->header != NULL)
        munmap(ledger->header, LEDGER_HEADER);
    if (ledger->origin != NULL)
        munmap(ledger->origin, ledger->origin_bytes);
    if (ledger->memfd >= 0)
        close(ledger->memfd);
    *ledger = (struct ledger){ .memfd = -1, .free = LEDGER_NONE };
}

/* ---- slots ------------------------------------------------------------------------------------------------------ */

struct ledger_slot *ledger_claim(struct ledger *ledger, uint32_t index)
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

void ledger_introduce(struct ledger_slot *slot, const struct ledger_newcomer *newcomer)
{
    slot->framing = newcomer->framing;
    slot->since_ms = newcomer->since_ms;
    slot->connected_ns = newcomer->connected_ns;
    slot->port = newcomer->port;
    slot->peer = newcomer->peer;
    slot->origin = newcomer->origin;
    slot->cookie = newcomer->cookie;
    memcpy(slot->address, newcomer->address, sizeof(slot->address));
}

/* An evapid that does not know kept tags takes the slot for a client's that is closed. */
void ledger_keep(struct ledger_slot *slot, uint64_t since_ms, uint64_t since_ns)
{
    slot->closed = true;
    slot->since_ms = since_ms;
    slot->connected_ns = since_ns;
    slot->index = LEDGER_KEPT;
}

/* A name read from a ledger comes from another process, and may lack its NUL. */
void ledger_note_listener(struct ledger_slot *slot, const char *name)
{
    snprintf(slot->listener, sizeof(slot->listener), "%s", name);
}

/* We may be killed anywhere: set a tag's length only when the tag is complete. */
void ledger_note_tag(struct ledger *ledger, struct ledger_slot *slot, const char *tag, uint8_t length)
{
    slot->tag_length = 0;
    if (length == 0)
        return;
    memcpy(slot->tag, tag, length);
    slot->tag_order = ++ledger->header->tag_orders;
    slot->tag_length = length;
}

const char *ledger_listener_name(struct ledger_slot *slot)
{
    slot->listener[sizeof(slot->listener) - 1] = '\0';
    return slot->listener;
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

/* The page of the last commit: the later page. But if its ring is there, and the ring's tail has not reached that
 * page's, the page before. */
static const struct ledger_page *ledger_last_page(const struct ledger_header *header, uint64_t instance, uint64_t tail)
{
    const bool later = header->pages[1].batch > header->pages[0].batch;
    const struct ledger_page *page = &header->pages[later];
    const struct ledger_page *before = &header->pages[!later];
    const bool begun = instance != 0 && page->instance == instance && page->tail != tail;
    return begun && (before->instance != instance || before->tail == tail) ? before : page;
}

/* Undo the slot's changes of a batch that was not committed. */
static void slot_undo(struct ledger_slot *slot)
{
    slot->tally.relayed = slot->mark.relayed;
    slot->run_since = slot->mark.run_since;
    slot->follows = slot->mark.follows;
    slot->skipped = slot->mark.skipped;
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
        const uint64_t run = slot->skipped ? page->run_offered[slot->framing] : page->run_events[slot->framing];
        if (slot->follows || slot->skipped)
            slot->tally.relayed += run - slot->run_since;
        if (slot->skipped)
            slot->tally.dropped[DROP_SLOW] += run - slot->run_since;
        slot->follows = slot->skipped = false;
        slot->mark.batch = 0;
    }
    /* A commit that did not count never will: the next one replaces it. */
    header->batch = page->batch + 1;
    for (int i = 0; i < 2; i++)
        if (header->pages[i].batch > page->batch)
            header->pages[i].batch = 0;
    return page->events;
}

void events_save(const struct event_counts *events, struct state_out *out)
{
    state_put(out, "relay", events->relay);
    state_put(out, "multicast", events->multicast);
    state_put(out, "unicast", events->unicast);
    state_put(out, "send", events->send);
    state_put(out, "no-receiver", events->no_receiver);
}

void events_load(struct event_counts *events, struct state_in *in)
{
    events->relay = state_get(in, "relay", 0);
    events->multicast = state_get(in, "multicast", 0);
    events->unicast = state_get(in, "unicast", 0);
    events->send = state_get(in, "send", 0);
    events->no_receiver = state_get(in, "no-receiver", 0);
}
