/* The tags that evapid publishes for scripts, while tags come and go for a long time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "kamailio/kamailio.h"
#include "kamailio/publish.h"

enum { TAGS = 15000 };

static struct bus bus;
static struct kamailio kamailio = { .bus = &bus };
static struct intake intake;
static struct client *clients;
static size_t named;

static void on_tag(void *owner, uint64_t hash, bool present)
{
    bus.upstream.present(owner, hash, present);
}

static int begin(void **state)
{
    (void)state;
    intake.ring.header = calloc(1, sizeof(*intake.ring.header));
    clients = calloc(PRESENCE_TAGS_MAX + 1, sizeof(*clients));
    if (intake.ring.header == NULL || clients == NULL)
        return -1;
    kamailio.attachment.intake = &intake;
    bus.upstream = kamailio_upstream(&kamailio);
    bus.tags = (struct tag_index){ .watch = on_tag, .owner = &kamailio };
    intake_presence(&intake)->attached = 1;
    intake_presence(&intake)->clients = 1;
    return 0;
}

static int end(void **state)
{
    (void)state;
    for (size_t i = 0; i <= PRESENCE_TAGS_MAX; i++)
        tag_remove(&bus.tags, &clients[i]);
    free(clients);
    free(intake.ring.header);
    return 0;
}

/* Give the client a tag that no client has had before. */
static void give(struct client *client)
{
    char name[16];
    const int length = snprintf(name, sizeof(name), "tag-%zu", ++named);
    client->roster.receives = true;
    assert_true(tag_give(&bus.tags, client, name, (size_t)length));
}

/* How many slots the lookup of a missing tag passes on average. */
static size_t slots_of_a_miss(const struct presence *p)
{
    enum { LOOKS = 2000 };
    size_t slots = 0;
    for (uint32_t i = 0; i < LOOKS; i++)
        for (uint32_t step = 0; p->hashes[presence_slot(i * (PRESENCE_TAG_SLOTS / LOOKS), step)] != PRESENCE_EMPTY;
             step++) {
            assert_true(step < PRESENCE_TAG_SLOTS);
            slots++;
        }
    return slots / LOOKS;
}

static void test_a_look_at_a_tag_stays_short_however_long_tags_come_and_go(void **state)
{
    (void)state;
    const struct presence *p = intake_presence(&intake);
    unsigned seed = 12;
    for (size_t i = 0; i < TAGS; i++)
        give(&clients[i]);
    for (size_t round = 0; round < 20U * TAGS; round++)
        give(&clients[(size_t)rand_r(&seed) % TAGS]);
    assert_true(presence_left(p) <= PRESENCE_LEFT_MAX + PRESENCE_REVIEW);
    assert_true(slots_of_a_miss(p) < 10);
    assert_int_equal(p->tags, TAGS);
    for (size_t i = 0; i < TAGS; i++)
        assert_true(presence_tagged(p, clients[i].tagging.tag->name, clients[i].tagging.tag->length));
    assert_false(presence_tagged(p, "tag-1", 5) && clients[0].tagging.tag->length == 5);
}

static void test_a_set_that_was_too_full_is_exact_again_with_fewer_tags(void **state)
{
    (void)state;
    const struct presence *p = intake_presence(&intake);
    for (size_t i = 0; i <= PRESENCE_TAGS_MAX; i++)
        give(&clients[i]);
    assert_true(presence_tagged(p, "nobody", 6));
    for (size_t i = 0; i < 2U * PRESENCE_REVIEW; i++)
        tag_remove(&bus.tags, &clients[i]);
    assert_false(presence_tagged(p, "nobody", 6));
    for (size_t i = 2U * PRESENCE_REVIEW; i <= PRESENCE_TAGS_MAX; i++)
        assert_true(presence_tagged(p, clients[i].tagging.tag->name, clients[i].tagging.tag->length));
}

/* A client's announcement leaves in kamailio_flush, and its route reads how many events it is about to get. */
static void test_what_waits_is_published_before_announcements_leave(void **state)
{
    (void)state;
    const struct waiting *waiting = &intake.ring.header->waiting;
    struct tag tag = { .hash = presence_hash("t", 1) };
    struct ledger_slot slot = { .tally = { .relayed = 7 } };
    struct kept kept = { .tag = &tag, .slot = &slot };
    uint32_t events = 0;
    bus.keeping.places[0] = &kept;
    bus.keeping.count = 1;
    kamailio_flush(&kamailio);
    assert_true(waiting_get(waiting, tag.hash, &events));
    assert_int_equal(events, 7);
    bus.keeping.places[0] = NULL;
    bus.keeping.count = 0;
    kamailio_flush(&kamailio);
    assert_true(waiting_get(waiting, tag.hash, &events));
    assert_int_equal(events, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_look_at_a_tag_stays_short_however_long_tags_come_and_go, begin, end),
        cmocka_unit_test_setup_teardown(test_a_set_that_was_too_full_is_exact_again_with_fewer_tags, begin, end),
        cmocka_unit_test_setup_teardown(test_what_waits_is_published_before_announcements_leave, begin, end),
    };
    return cmocka_run_group_tests_name("published tags", tests, NULL, NULL);
}
