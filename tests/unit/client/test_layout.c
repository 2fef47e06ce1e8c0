/* The layout of the ledger: it describes itself completely, and a ledger of another layout is converted to ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/state.h"
#include "client/ledger.h"

/* Close the ledger and adopt its memfd, as another process would. */
static void adopt_again(struct ledger *ledger)
{
    const int memfd = fcntl(ledger->memfd, F_DUPFD_CLOEXEC, 0);
    assert_true(memfd >= 0);
    ledger_close(ledger);
    assert_null(ledger_adopt(ledger, memfd));
}

/* Each byte of header and slot belongs to exactly one field. So no member can be added or removed without a row. */
static void test_every_byte_is_described(void **state)
{
    (void)state;
    static const size_t sizes[] = { sizeof(struct ledger_header), sizeof(struct ledger_slot) };
    for (unsigned part = LAYOUT_HEADER; part <= LAYOUT_SLOT; part++) {
        char *taken = calloc(1, sizes[part]);
        assert_non_null(taken);
        for (uint32_t i = 0; i < ledger_layout.file.field_count; i++) {
            const struct layout_field *field = &ledger_layout.fields[i];
            for (uint32_t at = field->offset; field->part == part && at < field->offset + field->size; at++) {
                if (taken[at])
                    fail_msg("%s lies in another field", field->name);
                taken[at] = 1;
            }
        }
        for (size_t at = 0; at < sizes[part]; at++)
            if (!taken[at])
                fail_msg("byte %zu of part %u is no field's", at, part);
        free(taken);
    }
}

/* A ledger of two clients, with different numbers in all fields that assert_filled checks. */
static void fill(struct ledger *ledger)
{
    assert_null(ledger_open(ledger));
    for (uint32_t i = 1; i <= 3; i++) {
        struct ledger_slot *slot = ledger_claim(ledger, i * 10);
        slot->cookie = i * 1000ULL;
        slot->port = (uint16_t)(i * 100);
        slot->tally.dropped[DROP_LARGE] = i;
        slot->standing = STANDING_ADMITTED;
        memcpy(slot->tag, "blue", 4);
        slot->tag_length = 4;
    }
    ledger_release(ledger, ledger_at(ledger, 1));
    ledger->header->accepted = 3;
    ledger->header->state = 4711;
    ledger->header->pages[1].tail = 12345;
    ledger->header->meter.admission.counts[2] = 6;
}

static void assert_filled(const struct ledger *ledger)
{
    assert_int_equal(ledger->header->accepted, 3);
    assert_int_equal(ledger->header->state, 4711);
    assert_int_equal(ledger->header->pages[1].tail, 12345);
    assert_int_equal(ledger->header->meter.admission.counts[2], 6);
    assert_int_equal(ledger->header->gone.dropped[DROP_LARGE], 2);
    assert_null(ledger_at(ledger, 1));
    for (uint32_t i = 1; i <= 3; i += 2) {
        const struct ledger_slot *slot = ledger_at(ledger, i - 1);
        assert_non_null(slot);
        assert_int_equal(slot->index, i * 10);
        assert_int_equal(slot->cookie, i * 1000);
        assert_int_equal(slot->port, i * 100);
        assert_int_equal(slot->tally.dropped[DROP_LARGE], i);
        assert_int_equal(slot->standing, STANDING_ADMITTED);
        assert_memory_equal(slot->tag, "blue", 4);
    }
}

static struct layout_field *described(struct ledger *ledger, enum layout_part part, const char *name)
{
    struct layout_field *fields = (void *)((char *)ledger->header + LEDGER_FIELDS_AT);
    for (uint32_t i = 0; i < ledger->header->file.field_count; i++)
        if (fields[i].part == part && strcmp(fields[i].name, name) == 0)
            return &fields[i];
    fail_msg("no field %s", name);
    return NULL;
}

static void test_a_ledger_of_the_same_layout_is_used_in_place(void **state)
{
    struct ledger ledger;
    (void)state;
    fill(&ledger);
    ledger.header->file.version = STATE_VERSION + 1;
    adopt_again(&ledger);
    assert_false(ledger_was_made(&ledger));
    assert_ptr_equal(ledger.offer, &ledger.header->offer);
    assert_filled(&ledger);
    assert_int_equal(ledger.header->file.version, STATE_VERSION + 1); /* the predecessor may still own it */
    ledger_own(&ledger);
    assert_int_equal(ledger.header->file.version, STATE_VERSION);
    ledger_close(&ledger);
}

/* A successor that adopts the ledger puts the free slots into another order. If it then gives up, the predecessor goes
 * on, and must not lose any slot. */
static void test_no_free_slot_is_lost_to_a_successor_that_gave_up(void **state)
{
    struct ledger ledger;
    struct ledger other;
    (void)state;
    assert_null(ledger_open(&ledger));
    for (uint32_t i = 1; i <= 5; i++)
        ledger_claim(&ledger, i);
    ledger_release(&ledger, ledger_at(&ledger, 0));
    ledger_release(&ledger, ledger_at(&ledger, 3));
    assert_null(ledger_adopt(&other, fcntl(ledger.memfd, F_DUPFD_CLOEXEC, 0)));
    ledger_close(&other);
    ledger_go_on(&ledger);
    for (uint32_t i = 3; i < LEDGER_SEGMENT; i++)
        assert_non_null(ledger_claim(&ledger, 100 + i));
    assert_int_equal(ledger.header->segments, 1);
    ledger_close(&ledger);
}

/* A renamed field is an unknown one to the reader, and the field it expects is missing. */
static void test_a_ledger_of_another_layout_is_converted_to_ours(void **state)
{
    struct ledger before;
    struct ledger after;
    (void)state;
    fill(&before);
    strcpy(described(&before, LAYOUT_SLOT, "connected_ns")->name, "something_else");
    strcpy(described(&before, LAYOUT_HEADER, "closed")->name, "another");
    ledger_at(&before, 0)->connected_ns = 99;
    before.header->closed = 77;
    assert_null(ledger_adopt(&after, fcntl(before.memfd, F_DUPFD_CLOEXEC, 0)));
    assert_true(ledger_was_made(&after));
    assert_filled(&after);
    assert_filled(&before);
    assert_int_equal(ledger_at(&after, 0)->connected_ns, 0);
    assert_int_equal(after.header->closed, 0);
    assert_int_equal(after.unknown_count, 2);
    assert_string_equal(after.unknown[0].name, "another");
    assert_int_equal(after.unknown[0].bytes, 8);
    assert_string_equal(after.unknown[1].name, "something_else");
    assert_int_equal(after.unknown[1].bytes, 2 * 8);
    *after.offer = 1; /* the offer is still the predecessor's */
    assert_int_equal(before.header->offer, 1);
    assert_int_equal(after.header->offer, 0);
    assert_int_equal(ledger_claim(&after, 5)->index, 5);
    assert_int_equal(ledger_at(&after, 1)->index, 5); /* the free slot is used first */
    adopt_again(&after);
    assert_false(ledger_was_made(&after));
    ledger_close(&after);
    ledger_close(&before);
}

static void test_numbers_of_another_size_are_converted_if_they_fit(void **state)
{
    (void)state;
    for (int fits = 0; fits < 2; fits++) {
        struct ledger before;
        struct ledger after;
        fill(&before);
        /* Swap two names: the cookie's eight bytes are read as the port, and the port's two as the cookie. */
        struct layout_field *cookie = described(&before, LAYOUT_SLOT, "cookie");
        struct layout_field *port = described(&before, LAYOUT_SLOT, "port");
        strcpy(cookie->name, "port");
        strcpy(port->name, "cookie");
        ledger_at(&before, 0)->cookie = fits ? UINT32_MAX : UINT32_MAX + 1ULL;
        const char *why = ledger_adopt(&after, fcntl(before.memfd, F_DUPFD_CLOEXEC, 0));
        if (fits) {
            assert_null(why);
            assert_int_equal(ledger_at(&after, 0)->port, UINT32_MAX);
            assert_int_equal(ledger_at(&after, 0)->cookie, 100);
            assert_int_equal(ledger_at(&after, 2)->port, 3000);
            ledger_close(&after);
        } else {
            assert_string_equal(why, "what it says of a client makes no sense to this version");
        }
        ledger_close(&before);
    }
}

/* The same content in another compiler's layout: larger slots, fewer of them in a segment, and a larger header. */
static int laid_out_otherwise(const struct ledger *from)
{
    enum { HEADER = 32768, SLOT = 1000, SLOTS = 7, SEGMENT = 8192, SEGMENTS = 2 };
    const int memfd = memfd_create("another layout", MFD_CLOEXEC);
    char *file = calloc(1, HEADER + SEGMENTS * SEGMENT);
    struct layout_file head = from->header->file;
    struct layout_field *fields = (void *)(file + LEDGER_FIELDS_AT);
    head.header_bytes = HEADER;
    head.slot_bytes = SLOT;
    head.segment_slots = SLOTS;
    head.segment_bytes = SEGMENT;
    assert_non_null(file);
    memcpy(file, from->header, LEDGER_HEADER);
    memcpy(file, &head, sizeof(head));
    ((struct ledger_header *)(void *)file)->segments = SEGMENTS;
    for (uint32_t i = 0; i < head.field_count; i++)
        fields[i].offset += fields[i].part == LAYOUT_SLOT ? 40 : 0;
    for (uint32_t i = 0; i < SEGMENTS * SLOTS; i++) {
        const struct ledger_slot *slot = ledger_at(from, i);
        if (slot != NULL)
            memcpy(file + HEADER + i / SLOTS * SEGMENT + i % SLOTS * SLOT + 40, slot, sizeof(*slot));
    }
    assert_int_equal(write(memfd, file, HEADER + SEGMENTS * SEGMENT), HEADER + SEGMENTS * SEGMENT);
    free(file);
    return memfd;
}

static void test_slots_keep_their_numbers_in_another_layout(void **state)
{
    struct ledger before;
    struct ledger after;
    (void)state;
    fill(&before);
    for (uint32_t i = 3; i < 14; i++)
        ledger_claim(&before, i * 100);
    assert_null(ledger_adopt(&after, laid_out_otherwise(&before)));
    assert_true(ledger_was_made(&after));
    assert_int_equal(after.unknown_count, 0);
    for (uint32_t i = 0; i < 13; i++)
        assert_int_equal(ledger_at(&after, i)->index, ledger_at(&before, i)->index);
    ledger_close(&after);
    ledger_close(&before);
}

static void test_a_description_that_makes_no_sense_is_refused(void **state)
{
    struct ledger before;
    struct ledger after;
    unsigned refused = 0;
    unsigned seed = 1848;
    (void)state;
    fill(&before);
    char *good = malloc(LEDGER_HEADER);
    assert_non_null(good);
    memcpy(good, before.header, LEDGER_HEADER);
    const size_t fields = before.header->file.field_count * sizeof(struct layout_field);
    for (int round = 0; round < 3000; round++) {
        for (int n = 1 + rand_r(&seed) % 3; n > 0; n--) {
            const size_t at = rand_r(&seed) % 2 == 0 ? 8 + (unsigned)rand_r(&seed) % 100
                                                     : LEDGER_FIELDS_AT + (unsigned)rand_r(&seed) % fields;
            ((char *)before.header)[at] ^= (char)(1 << rand_r(&seed) % 8);
        }
        const bool taken = ledger_adopt(&after, fcntl(before.memfd, F_DUPFD_CLOEXEC, 0)) == NULL;
        refused += !taken;
        if (taken)
            ledger_close(&after);
        memcpy(before.header, good, LEDGER_HEADER);
    }
    assert_in_range(refused, 300, 2900);
    free(good);
    ledger_close(&before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte_is_described),
        cmocka_unit_test(test_a_ledger_of_the_same_layout_is_used_in_place),
        cmocka_unit_test(test_no_free_slot_is_lost_to_a_successor_that_gave_up),
        cmocka_unit_test(test_a_ledger_of_another_layout_is_converted_to_ours),
        cmocka_unit_test(test_numbers_of_another_size_are_converted_if_they_fit),
        cmocka_unit_test(test_slots_keep_their_numbers_in_another_layout),
        cmocka_unit_test(test_a_description_that_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
