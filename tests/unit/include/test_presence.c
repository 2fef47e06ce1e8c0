/* Presence: whether clients are connected, their tags, and a set of tags that stays correct however they change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evapid/presence.h"

/* A presence with an evapid attached and one client. */
static int make_presence(void **state)
{
    struct presence *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return -1;
    p->attached = 1;
    p->clients = 1;
    *state = p;
    return 0;
}

static int free_presence(void **state)
{
    free(*state);
    return 0;
}

static uint64_t hash_of(const char *tag)
{
    return presence_hash(tag, strlen(tag));
}

static bool tagged(const struct presence *p, const char *tag)
{
    return presence_tagged(p, tag, strlen(tag));
}

static void add(struct presence *p, const char *tag)
{
    presence_add(p, hash_of(tag));
}

static void take_out(struct presence *p, const char *tag)
{
    presence_remove(p, hash_of(tag));
}

/* A hash whose probe begins at slot. which tells hashes of the same slot apart. */
static uint64_t hash_for(uint32_t slot, uint32_t which)
{
    const uint64_t hash = (uint64_t)(which + 1) << 48 | slot;
    assert_int_equal(presence_slot(hash, 0), slot);
    return hash;
}

static size_t count(const struct presence *p, uint64_t from, uint64_t to)
{
    size_t n = 0;
    for (size_t i = 0; i < PRESENCE_TAG_SLOTS; i++)
        n += p->hashes[i] >= from && p->hashes[i] <= to;
    return n;
}

/* The set has this many hashes, and counts them. No slot that was left stands before an empty one. */
static void assert_tidy(const struct presence *p, size_t live)
{
    assert_int_equal(count(p, PRESENCE_LEFT + 1, UINT64_MAX), live);
    assert_int_equal(p->tags, live);
    for (uint32_t i = 0; i < PRESENCE_TAG_SLOTS; i++)
        if (p->hashes[i] == PRESENCE_LEFT)
            assert_int_not_equal(p->hashes[(i + 1) & (PRESENCE_TAG_SLOTS - 1)], PRESENCE_EMPTY);
}

/* ---- anyone ------------------------------------------------------------------------------------------------------ */

static void test_anyone_needs_an_evapid_and_a_client(void **state)
{
    struct presence *p = *state;
    assert_true(presence_anyone(p));
    p->clients = 0;
    assert_false(presence_anyone(p));
    p->clients = 100000;
    assert_true(presence_anyone(p));
    p->attached = 0;
    assert_false(presence_anyone(p));
    p->clients = 0;
    assert_false(presence_anyone(p));
}

static void test_a_kept_tag_counts_as_somebody(void **state)
{
    struct presence *p = *state;
    p->clients = 0;
    presence_add(p, hash_of("kept"));
    assert_false(tagged(p, "kept"));
    p->kept = 1;
    assert_true(presence_anyone(p));
    assert_true(tagged(p, "kept"));
    assert_false(tagged(p, "other"));
    p->attached = 0;
    assert_false(presence_anyone(p));
}

/* evapid leaves the clients and tags there when it goes. Then they must not count. */
static void test_no_tag_is_there_without_an_evapid_and_a_client(void **state)
{
    struct presence *p = *state;
    add(p, "sales");
    assert_true(tagged(p, "sales"));
    p->attached = 0;
    assert_false(tagged(p, "sales"));
    p->crowded = 1;
    assert_false(tagged(p, "sales"));
    p->attached = 1;
    p->clients = 0;
    assert_false(tagged(p, "sales"));
}

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

/* Known values of the 64-bit FNV-1a. The first three are test vectors of its authors. */
static void test_a_hash_is_fnv_1a(void **state)
{
    (void)state;
    assert_true(presence_hash("", 0) == 0xcbf29ce484222325U);
    assert_true(presence_hash("a", 1) == 0xaf63dc4c8601ec8cU);
    assert_true(presence_hash("foobar", 6) == 0x85944171f73967e8U);
    assert_true(presence_hash("\xff\x80\0z", 4) == 0xbe1ede6705cc32ecU);
}

/* The FNV-1a hash of these eight bytes is 0, which would end a probe. */
static void test_a_hash_is_never_the_mark_of_a_free_slot(void **state)
{
    struct presence *p = *state;
    static const char zero[] = "\xd5\x6b\xb9\x53\x42\x87\x08\x36";
    const uint64_t hash = presence_hash(zero, 8);
    assert_true(hash > PRESENCE_LEFT);
    presence_add(p, hash);
    assert_true(presence_tagged(p, zero, 8));
    presence_remove(p, hash);
    assert_false(presence_tagged(p, zero, 8));
    assert_tidy(p, 0);
}

static void test_a_probe_visits_every_slot_once(void **state)
{
    (void)state;
    static bool seen[PRESENCE_TAG_SLOTS];
    const uint64_t hash = hash_of("anything");
    for (uint32_t step = 0; step < PRESENCE_TAG_SLOTS; step++) {
        const uint32_t slot = presence_slot(hash, step);
        assert_true(slot < PRESENCE_TAG_SLOTS);
        assert_false(seen[slot]);
        seen[slot] = true;
    }
}

/* ---- tags -------------------------------------------------------------------------------------------------------- */

static void test_a_tag_is_there_from_add_to_remove(void **state)
{
    struct presence *p = *state;
    assert_false(tagged(p, "sales"));
    add(p, "sales");
    assert_true(tagged(p, "sales"));
    assert_false(tagged(p, "sale"));
    assert_false(tagged(p, "sales "));
    assert_false(tagged(p, ""));
    assert_tidy(p, 1);
    take_out(p, "sales");
    assert_false(tagged(p, "sales"));
    assert_tidy(p, 0);
    assert_int_equal(count(p, PRESENCE_EMPTY, PRESENCE_EMPTY), PRESENCE_TAG_SLOTS);
}

static void test_a_tag_may_hold_any_bytes(void **state)
{
    struct presence *p = *state;
    char longest[64];
    memset(longest, 'x', sizeof(longest));
    presence_add(p, presence_hash("a\0b", 3));
    presence_add(p, presence_hash(longest, sizeof(longest)));
    presence_add(p, presence_hash("", 0));
    assert_true(presence_tagged(p, "a\0b", 3));
    assert_false(presence_tagged(p, "a\0c", 3));
    assert_false(presence_tagged(p, "a", 1));
    assert_true(presence_tagged(p, longest, sizeof(longest)));
    assert_false(presence_tagged(p, longest, sizeof(longest) - 1));
    assert_true(presence_tagged(p, "", 0));
}

static void test_removing_an_unknown_tag_changes_nothing(void **state)
{
    struct presence *p = *state;
    take_out(p, "nobody");
    assert_tidy(p, 0);
    presence_add(p, hash_for(7, 0));
    presence_add(p, hash_for(7, 1));
    presence_remove(p, hash_for(7, 2));
    presence_remove(p, hash_for(8, 0));
    assert_tidy(p, 2);
    assert_int_equal(count(p, PRESENCE_LEFT, PRESENCE_LEFT), 0);
}

static void test_a_rewritten_set_has_only_what_is_added_then(void **state)
{
    struct presence *p = *state;
    presence_add(p, hash_for(0, 0));
    presence_add(p, hash_for(0, 1));
    presence_add(p, hash_for(PRESENCE_TAG_SLOTS - 1, 0));
    presence_remove(p, hash_for(PRESENCE_TAG_SLOTS - 1, 0));
    add(p, "sales");
    p->crowded = 1;
    presence_begin(p);
    assert_true(tagged(p, "sales"));
    assert_true(tagged(p, "anything"));
    add(p, "support");
    assert_true(tagged(p, "sales"));
    presence_end(p, 1);
    assert_false(tagged(p, "sales"));
    assert_true(tagged(p, "support"));
    assert_int_equal(p->crowded, 0);
    assert_int_equal(count(p, PRESENCE_LEFT, PRESENCE_LEFT), 0);
    assert_tidy(p, 1);
    assert_true(presence_anyone(p));
}

/* evapid was killed while it wrote the set. The next evapid starts again. */
static void test_a_half_written_set_is_rewritten_by_the_next_evapid(void **state)
{
    struct presence *p = *state;
    presence_begin(p);
    add(p, "sales");
    presence_begin(p);
    assert_true(tagged(p, "anything"));
    presence_end(p, 0);
    assert_false(tagged(p, "sales"));
    assert_false(tagged(p, "anything"));
}

/* ---- tags whose probes begin at one slot ------------------------------------------------------------------------- */

#define KIN 4

/* Find tags that all hash to the first one's slot, by trying. */
static void find_kin(char tags[KIN][16])
{
    size_t found = 0;
    for (unsigned i = 0; found < KIN; i++) {
        snprintf(tags[found], sizeof(tags[found]), "kin%u", i);
        if (presence_slot(hash_of(tags[found]), 0) == presence_slot(hash_of(tags[0]), 0))
            found++;
    }
}

static void check_kin(const struct presence *p, char tags[KIN][16], unsigned there)
{
    for (unsigned i = 0; i < KIN; i++)
        if (tagged(p, tags[i]) != ((there >> i & 1) != 0))
            fail_msg("%s is %s the set", tags[i], (there >> i & 1) != 0 ? "not in" : "still in");
}

/* Remove the tags in every order: along every path from the full set to the empty one. */
static void take_kin_out(const struct presence *from, char tags[KIN][16], unsigned there)
{
    struct presence *p = malloc(sizeof(*p));
    assert_non_null(p);
    for (unsigned i = 0; i < KIN; i++) {
        if ((there >> i & 1) == 0)
            continue;
        memcpy(p, from, sizeof(*p));
        take_out(p, tags[i]);
        const unsigned rest = there & ~(1U << i);
        check_kin(p, tags, rest);
        assert_tidy(p, (size_t)__builtin_popcount(rest));
        take_kin_out(p, tags, rest);
        add(p, tags[i]);
        check_kin(p, tags, there);
        assert_tidy(p, (size_t)__builtin_popcount(there));
    }
    free(p);
}

static void test_tags_of_one_slot_are_removed_in_every_order(void **state)
{
    struct presence *p = *state;
    char tags[KIN][16];
    find_kin(tags);
    for (unsigned i = 0; i < KIN; i++) {
        add(p, tags[i]);
        check_kin(p, tags, (2U << i) - 1);
    }
    take_kin_out(p, tags, (1U << KIN) - 1);
}

static void test_a_slot_that_was_left_is_used_again(void **state)
{
    struct presence *p = *state;
    for (uint32_t which = 0; which < 3; which++)
        presence_add(p, hash_for(10, which));
    presence_remove(p, hash_for(10, 0));
    assert_true(p->hashes[10] == PRESENCE_LEFT);
    presence_add(p, hash_for(10, 3));
    assert_true(p->hashes[10] == hash_for(10, 3));
    assert_true(p->hashes[11] == hash_for(10, 1));
    assert_true(p->hashes[12] == hash_for(10, 2));
}

/* When the last hash of a row is removed, the slots left before it become empty too, up to the next hash that stays. */
static void test_slots_that_were_left_become_empty(void **state)
{
    struct presence *p = *state;
    for (uint32_t which = 0; which < 6; which++)
        presence_add(p, hash_for(20, which));
    for (uint32_t which = 2; which < 5; which++)
        presence_remove(p, hash_for(20, which));
    presence_remove(p, hash_for(20, 0));
    assert_int_equal(count(p, PRESENCE_LEFT, PRESENCE_LEFT), 4);
    presence_remove(p, hash_for(20, 5));
    assert_true(p->hashes[20] == PRESENCE_LEFT);
    assert_true(p->hashes[21] == hash_for(20, 1));
    assert_int_equal(count(p, PRESENCE_EMPTY, PRESENCE_EMPTY), PRESENCE_TAG_SLOTS - 2);
    presence_remove(p, hash_for(20, 1));
    assert_int_equal(count(p, PRESENCE_EMPTY, PRESENCE_EMPTY), PRESENCE_TAG_SLOTS);
}

static void test_a_row_continues_at_the_first_slot(void **state)
{
    struct presence *p = *state;
    const uint32_t last = PRESENCE_TAG_SLOTS - 1;
    for (uint32_t which = 0; which < 4; which++)
        presence_add(p, hash_for(last, which));
    assert_true(p->hashes[last] == hash_for(last, 0));
    assert_true(p->hashes[0] == hash_for(last, 1));
    assert_true(p->hashes[2] == hash_for(last, 3));
    presence_remove(p, hash_for(last, 0));
    presence_remove(p, hash_for(last, 1));
    presence_remove(p, hash_for(last, 2));
    assert_int_equal(count(p, PRESENCE_LEFT, PRESENCE_LEFT), 3);
    presence_remove(p, hash_for(last, 3));
    assert_int_equal(count(p, PRESENCE_EMPTY, PRESENCE_EMPTY), PRESENCE_TAG_SLOTS);
}

/* ---- many tags --------------------------------------------------------------------------------------------------- */

static void test_more_tags_than_the_set_holds_count_as_present(void **state)
{
    struct presence *p = *state;
    for (uint32_t i = 0; i < PRESENCE_TAGS_MAX; i++)
        presence_add(p, hash_for(i, 0));
    assert_int_equal(p->crowded, 0);
    assert_false(tagged(p, "one too many"));
    add(p, "one too many");
    assert_int_equal(p->crowded, 1);
    assert_true(tagged(p, "one too many"));
    assert_true(tagged(p, "somebody else"));
    /* A tag that found no slot can be removed, and no other tag is removed in its place. */
    take_out(p, "one too many");
    assert_tidy(p, PRESENCE_TAGS_MAX);
    presence_begin(p);
    presence_end(p, PRESENCE_TAGS_MAX + 1);
    assert_true(tagged(p, "one too many"));
    presence_begin(p);
    presence_end(p, PRESENCE_TAGS_MAX);
    assert_false(tagged(p, "one too many"));
}

/* Every slot is or was in use, so no empty slot ends a probe. */
static void test_a_set_without_an_empty_slot_still_answers(void **state)
{
    struct presence *p = *state;
    for (uint32_t i = 0; i < PRESENCE_TAGS_MAX; i++)
        presence_add(p, hash_for(i, 0));
    for (uint32_t i = PRESENCE_TAGS_MAX; i < PRESENCE_TAG_SLOTS; i++) {
        presence_remove(p, hash_for(i - PRESENCE_TAGS_MAX, 0));
        presence_add(p, hash_for(i, 0));
    }
    assert_int_equal(count(p, PRESENCE_EMPTY, PRESENCE_EMPTY), 0);
    assert_false(tagged(p, "sales"));
    take_out(p, "sales");
    presence_remove(p, hash_for(PRESENCE_TAG_SLOTS - 1, 0));
    add(p, "sales");
    assert_true(tagged(p, "sales"));
    assert_tidy(p, PRESENCE_TAGS_MAX);
    take_out(p, "sales");
    assert_false(tagged(p, "sales"));
    assert_int_equal(p->crowded, 0);
}

/* Each hash in the set is the hash_for of an i that is there, and none is in the set twice. */
static void assert_holds(const struct presence *p, const bool *there, size_t tags)
{
    bool *seen = calloc(tags, sizeof(*seen));
    assert_non_null(seen);
    for (size_t slot = 0; slot < PRESENCE_TAG_SLOTS; slot++) {
        if (p->hashes[slot] <= PRESENCE_LEFT)
            continue;
        const size_t i = (size_t)(p->hashes[slot] >> 48) - 1;
        assert_true(i < tags && there[i] && !seen[i]);
        seen[i] = true;
    }
    for (size_t i = 0; i < tags; i++)
        assert_int_equal(seen[i], there[i]);
    free(seen);
}

/* Compare the set with an array of flags. There are so many tags for so few slots that they collide. */
static void test_random_changes_against_a_model(void **state)
{
    enum { TAGS = 300, ROUNDS = 200000 };
    struct presence *p = *state;
    static bool there[TAGS];
    uint64_t hashes[TAGS];
    size_t live = 0;
    unsigned seed = 4711;
    for (uint32_t i = 0; i < TAGS; i++)
        hashes[i] = hash_for((PRESENCE_TAG_SLOTS - 64 + i % 96) % PRESENCE_TAG_SLOTS, i);
    for (size_t round = 1; round <= ROUNDS; round++) {
        /* The set fills and empties in turns. */
        const bool filling = round / 5000 % 2 == 0;
        const size_t i = (size_t)rand_r(&seed) % TAGS;
        if (there[i] && (!filling || rand_r(&seed) % 4 == 0)) {
            presence_remove(p, hashes[i]);
            there[i] = false;
            live--;
        } else if (!there[i] && (filling || rand_r(&seed) % 4 == 0)) {
            presence_add(p, hashes[i]);
            there[i] = true;
            live++;
        }
        assert_int_equal(p->tags, live);
        if (round % 1000 != 0)
            continue;
        assert_tidy(p, live);
        assert_holds(p, there, TAGS);
    }
    for (size_t i = 0; i < TAGS; i++)
        presence_remove(p, hashes[i]);
    assert_int_equal(count(p, PRESENCE_EMPTY, PRESENCE_EMPTY), PRESENCE_TAG_SLOTS);
}

/* The same with real tags, looked up as scripts look them up. */
static void test_random_tags_against_a_model(void **state)
{
    enum { TAGS = 2000, ROUNDS = 100000 };
    struct presence *p = *state;
    static bool there[TAGS];
    char tag[16];
    unsigned seed = 815;
    for (size_t round = 0; round < ROUNDS; round++) {
        const size_t i = (size_t)rand_r(&seed) % TAGS;
        snprintf(tag, sizeof(tag), "tag-%zu", i);
        if (tagged(p, tag) != there[i])
            fail_msg("round %zu: %s is %s the set", round, tag, there[i] ? "not in" : "still in");
        if (there[i])
            take_out(p, tag);
        else
            add(p, tag);
        there[i] = !there[i];
    }
}

/* ---- readers during a write -------------------------------------------------------------------------------------- */

struct watcher {
    const struct presence *presence;
    _Atomic bool writing;
    size_t looks, missed, seen; /* missed: the tag that stays was not found; seen: the tag that never came was found */
};

static void *watch(void *argument)
{
    struct watcher *w = argument;
    do {
        w->missed += !tagged(w->presence, "stays");
        w->seen += tagged(w->presence, "never came");
        w->looks++;
    } while (w->writing);
    return NULL;
}

/* Other tags come and go before a tag that stays, in the slots that its probe passes. */
static void test_a_reader_never_misses_a_tag_that_stays(void **state)
{
    struct presence *p = *state;
    const uint32_t slot = presence_slot(hash_of("stays"), 0);
    for (uint32_t which = 0; which < 4; which++)
        presence_add(p, hash_for(slot, which));
    add(p, "stays");
    struct watcher watcher = { .presence = p, .writing = true };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, watch, &watcher), 0);
    unsigned seed = 99;
    for (size_t round = 0; round < 30000; round++) {
        const uint32_t which = (uint32_t)rand_r(&seed) % 4;
        presence_remove(p, hash_for(slot, which));
        presence_add(p, hash_for(slot, 4 + (uint32_t)(round % 3)));
        presence_remove(p, hash_for(slot, 4 + (uint32_t)(round % 3)));
        presence_add(p, hash_for(slot, which));
    }
    watcher.writing = false;
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(watcher.looks > 0);
    assert_int_equal(watcher.missed, 0);
    assert_int_equal(watcher.seen, 0);
    assert_tidy(p, 5);
}

/* The whole set is rewritten while a reader looks for a tag that is in it before and after. */
static void test_a_reader_never_misses_a_tag_while_the_set_is_written_anew(void **state)
{
    struct presence *p = *state;
    const uint32_t slot = presence_slot(hash_of("stays"), 0);
    add(p, "stays");
    struct watcher watcher = { .presence = p, .writing = true };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, watch, &watcher), 0);
    for (uint32_t round = 0; round < 5000; round++) {
        const uint32_t others = round % 5; /* so the tag that stays has another slot each time */
        presence_begin(p);
        for (uint32_t which = 0; which < others; which++)
            presence_add(p, hash_for(slot, which));
        add(p, "stays");
        presence_end(p, others + 1);
    }
    watcher.writing = false;
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(watcher.looks > 0);
    assert_int_equal(watcher.missed, 0);
}

/* ---- connections --------------------------------------------------------------------------------------------------- */

static void let_in(struct presence *p, uint32_t index)
{
    presence_connect(p, index, true);
    presence_receive(p, index, true);
}

static void let_go(struct presence *p, uint32_t index)
{
    presence_receive(p, index, false);
    presence_connect(p, index, false);
}

static void test_a_connection_is_there_from_its_admission_to_its_end(void **state)
{
    struct presence *p = *state;
    static const uint32_t indexes[] = { 1, 2, PRESENCE_CONNECTION_SLOTS - 1, PRESENCE_CONNECTION_SLOTS, INT32_MAX };
    for (size_t i = 0; i < sizeof(indexes) / sizeof(*indexes); i++) {
        assert_false(presence_connected(p, indexes[i]) || presence_receives(p, indexes[i]));
        let_in(p, indexes[i]);
        assert_true(presence_connected(p, indexes[i]) && presence_receives(p, indexes[i]));
        assert_false(presence_connected(p, indexes[i] + 1));
        assert_false(presence_connected(p, indexes[i] ^ PRESENCE_CONNECTION_SLOTS)); /* its slot is the same */
        let_go(p, indexes[i]);
        assert_false(presence_connected(p, indexes[i]) || presence_receives(p, indexes[i]));
    }
    assert_false(presence_connected(p, 0));
}

/* It waits to be let in once more: it is there, but nobody could wait for its answer. */
static void test_a_connection_that_is_held_back_is_there_and_gets_nothing(void **state)
{
    struct presence *p = *state;
    let_in(p, 5);
    presence_receive(p, 5, false);
    assert_true(presence_connected(p, 5));
    assert_false(presence_receives(p, 5));
    presence_receive(p, 5, true);
    assert_true(presence_receives(p, 5));
    p->attached = 0;
    assert_true(presence_connected(p, 5));
    assert_false(presence_receives(p, 5));
}

/* Two that share a slot hide each other's absence, but never anybody's presence. */
static void test_a_slot_that_is_shared_is_exact_again_when_one_is_left(void **state)
{
    struct presence *p = *state;
    const uint32_t a = 7;
    const uint32_t b = 7 + PRESENCE_CONNECTION_SLOTS;
    const uint32_t c = 7 + 2 * PRESENCE_CONNECTION_SLOTS;
    let_in(p, a);
    assert_false(presence_connected(p, b));
    let_in(p, b);
    assert_true(presence_connected(p, a) && presence_connected(p, b) && presence_connected(p, c));
    assert_true(presence_receives(p, a) && presence_receives(p, b));
    let_go(p, a);
    assert_true(presence_receives(p, b));
    assert_false(presence_connected(p, a) || presence_connected(p, c));
    let_in(p, c);
    let_go(p, b);
    assert_true(presence_receives(p, c));
    assert_false(presence_connected(p, a) || presence_connected(p, b));
    let_go(p, c);
    assert_true(p->connections[7] == 0);
}

/* As many clients as can share a slot are counted. */
static void test_a_slot_takes_every_index_that_belongs_to_it(void **state)
{
    struct presence *p = *state;
    for (uint32_t index = 3; index <= INT32_MAX; index += PRESENCE_CONNECTION_SLOTS)
        let_in(p, index);
    for (uint32_t index = 3 + PRESENCE_CONNECTION_SLOTS; index <= INT32_MAX; index += PRESENCE_CONNECTION_SLOTS) {
        assert_true(presence_receives(p, index));
        let_go(p, index);
    }
    assert_true(presence_receives(p, 3));
    assert_false(presence_connected(p, 3 + PRESENCE_CONNECTION_SLOTS));
}

static void test_every_connection_counts_as_there_while_they_are_written_anew(void **state)
{
    struct presence *p = *state;
    let_in(p, 5);
    presence_begin(p);
    presence_disconnect_all(p);
    assert_true(presence_connected(p, 5) && presence_connected(p, 6));
    let_in(p, 6);
    presence_end(p, 0);
    assert_true(presence_connected(p, 6));
    assert_false(presence_connected(p, 5));
}

/* An index means nothing without the evapid that has assigned it. */
static void test_a_session_is_known_if_it_is_the_last_or_the_one_before(void **state)
{
    struct presence *p = *state;
    assert_false(presence_knows(p, 0));
    assert_false(presence_knows(p, 7));
    p->session = 7;
    p->before = 6;
    assert_true(presence_knows(p, 7) && presence_knows(p, 6));
    assert_false(presence_knows(p, 5) || presence_knows(p, 0));
    p->before = 0;
    assert_false(presence_knows(p, 6) || presence_knows(p, 0));
}

#define test(name) cmocka_unit_test_setup_teardown(name, make_presence, free_presence)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_anyone_needs_an_evapid_and_a_client),
        test(test_a_kept_tag_counts_as_somebody),
        test(test_no_tag_is_there_without_an_evapid_and_a_client),
        test(test_a_hash_is_fnv_1a),
        test(test_a_hash_is_never_the_mark_of_a_free_slot),
        test(test_a_probe_visits_every_slot_once),
        test(test_a_tag_is_there_from_add_to_remove),
        test(test_a_tag_may_hold_any_bytes),
        test(test_removing_an_unknown_tag_changes_nothing),
        test(test_a_rewritten_set_has_only_what_is_added_then),
        test(test_a_half_written_set_is_rewritten_by_the_next_evapid),
        test(test_tags_of_one_slot_are_removed_in_every_order),
        test(test_a_slot_that_was_left_is_used_again),
        test(test_slots_that_were_left_become_empty),
        test(test_a_row_continues_at_the_first_slot),
        test(test_more_tags_than_the_set_holds_count_as_present),
        test(test_a_set_without_an_empty_slot_still_answers),
        test(test_random_changes_against_a_model),
        test(test_random_tags_against_a_model),
        test(test_a_reader_never_misses_a_tag_that_stays),
        test(test_a_reader_never_misses_a_tag_while_the_set_is_written_anew),
        test(test_a_connection_is_there_from_its_admission_to_its_end),
        test(test_a_connection_that_is_held_back_is_there_and_gets_nothing),
        test(test_a_slot_that_is_shared_is_exact_again_when_one_is_left),
        test(test_a_slot_takes_every_index_that_belongs_to_it),
        test(test_every_connection_counts_as_there_while_they_are_written_anew),
        test(test_a_session_is_known_if_it_is_the_last_or_the_one_before),
    };
    return cmocka_run_group_tests_name("presence", tests, NULL, NULL);
}
