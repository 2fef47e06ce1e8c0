/* The tag index: which clients carry a tag, in which order, and when the watcher is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "bus/tag.h"
#include "client/client.h"
#include "evapid/presence.h"

/* ---- a watcher that remembers -------------------------------------------------------------------------------------- */

#define HEARD_MAX 4096

static struct {
    struct {
        uint64_t hash;
        bool present;
    } calls[HEARD_MAX];
    size_t count;
} heard;

static void hear(void *owner, uint64_t hash, bool present)
{
    assert_ptr_equal(owner, &heard);
    assert_true(heard.count < HEARD_MAX);
    heard.calls[heard.count].hash = hash;
    heard.calls[heard.count++].present = present;
}

static struct tag_index new_index(void)
{
    heard.count = 0;
    return (struct tag_index){ .watch = hear, .owner = &heard };
}

static void assert_heard(size_t i, const char *tag, size_t length, bool present)
{
    assert_true(i < heard.count);
    assert_int_equal(heard.calls[i].hash, presence_hash(tag, length));
    assert_int_equal(heard.calls[i].present, present);
}

/* ---- clients of which only the tag's links are used ---------------------------------------------------------------- */

#define CLIENTS 24

static struct client *clients; /* CLIENTS of them, all of which get events unless a test says otherwise */

static int make_clients(void **state)
{
    (void)state;
    clients = calloc(CLIENTS, sizeof(*clients));
    for (size_t i = 0; clients != NULL && i < CLIENTS; i++)
        clients[i].roster.receives = true;
    return clients == NULL;
}

static int free_clients(void **state)
{
    (void)state;
    free(clients);
    return 0;
}

static bool give(struct tag_index *index, struct client *client, const char *tag)
{
    return tag_give(index, client, tag, strlen(tag));
}

/* As the bus does it. */
static void set_listed(struct tag_index *index, struct client *client, bool listed)
{
    if (client->roster.receives == listed)
        return;
    tag_note_receiver(index, client, listed);
    client->roster.receives = listed;
}

static struct tag *find(const struct tag_index *index, const char *tag)
{
    return tag_find(index, tag, strlen(tag));
}

/* The tag's clients are these, in this order; count 0: there is no such tag. */
static void assert_order(const struct tag_index *index, const char *name, size_t length,
                         struct client *const expected[], size_t count)
{
    const struct tag *tag = tag_find(index, name, length);
    if (count == 0) {
        assert_null(tag);
        return;
    }
    assert_non_null(tag);
    assert_int_equal(tag->clients, count);
    assert_int_equal(tag->length, length);
    assert_memory_equal(tag->name, name, length);
    assert_int_equal(tag->hash, presence_hash(name, length));
    const struct client *client = tag->first;
    for (size_t i = 0; i < count; i++, client = client->tagging.next) {
        assert_ptr_equal(client, expected[i]);
        assert_ptr_equal(client->tagging.tag, tag);
    }
    assert_null(client);
}

static void take_all(struct tag_index *index)
{
    for (size_t i = 0; i < CLIENTS; i++)
        tag_remove(index, &clients[i]);
    assert_null(index->tags);
}

/* ---- one at a time ------------------------------------------------------------------------------------------------- */

static void test_a_tag_that_nobody_carries_is_not_found(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    assert_null(find(&index, "x"));
    assert_true(give(&index, &clients[0], "xy"));
    assert_null(find(&index, "x"));
    assert_null(find(&index, "xyz"));
    assert_null(find(&index, "XY"));
    assert_null(find(&index, ""));
    take_all(&index);
    assert_null(find(&index, "xy"));
}

static void test_clients_of_a_tag_stand_in_the_order_in_which_they_got_it(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    struct client *const order[] = { &clients[3], &clients[0], &clients[2], &clients[1] };
    for (size_t i = 0; i < 4; i++) {
        assert_true(give(&index, order[i], "x"));
        assert_order(&index, "x", 1, order, i + 1);
    }
    take_all(&index);
}

static void test_a_client_that_goes_leaves_the_others_in_order(void **state)
{
    (void)state;
    for (size_t gone = 0; gone < 4; gone++) {
        struct tag_index index = new_index();
        struct client *left[4];
        size_t count = 0;
        for (size_t i = 0; i < 4; i++) {
            assert_true(give(&index, &clients[i], "x"));
            if (i != gone)
                left[count++] = &clients[i];
        }
        tag_remove(&index, &clients[gone]);
        assert_null(clients[gone].tagging.tag);
        assert_order(&index, "x", 1, left, count);
        assert_true(give(&index, &clients[gone], "x")); /* and stands last when it comes back */
        left[count++] = &clients[gone];
        assert_order(&index, "x", 1, left, count);
        take_all(&index);
    }
}

static void test_another_tag_takes_the_place_of_the_one_before(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    struct client *const both[] = { &clients[1], &clients[0] };
    assert_true(give(&index, &clients[0], "x"));
    assert_true(give(&index, &clients[1], "y"));
    assert_true(give(&index, &clients[0], "y"));
    assert_order(&index, "x", 1, NULL, 0);
    assert_order(&index, "y", 1, both, 2);
    take_all(&index);
}

/* A script that gives the tag again, on every message for example, must not move the client to the end. */
static void test_the_same_tag_again_changes_nothing(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    struct client *const order[] = { &clients[0], &clients[1] };
    assert_true(give(&index, &clients[0], "x"));
    assert_true(give(&index, &clients[1], "x"));
    assert_true(give(&index, &clients[0], "x"));
    assert_order(&index, "x", 1, order, 2);
    assert_int_equal(heard.count, 1);
    take_all(&index);
    assert_int_equal(heard.count, 2);
}

static void test_taking_from_a_client_that_has_none_does_nothing(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    tag_remove(&index, &clients[0]);
    assert_int_equal(heard.count, 0);
    assert_true(give(&index, &clients[0], "x"));
    tag_remove(&index, &clients[1]);
    tag_remove(&index, &clients[0]);
    tag_remove(&index, &clients[0]);
    assert_int_equal(heard.count, 2);
    assert_null(index.tags);
}

static void test_the_watcher_hears_of_the_first_and_the_last(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    assert_true(give(&index, &clients[0], "x"));
    assert_int_equal(heard.count, 1);
    assert_heard(0, "x", 1, true);
    assert_true(give(&index, &clients[1], "x"));
    tag_remove(&index, &clients[0]);
    assert_int_equal(heard.count, 1);
    tag_remove(&index, &clients[1]);
    assert_int_equal(heard.count, 2);
    assert_heard(1, "x", 1, false);
    assert_true(give(&index, &clients[0], "x"));
    assert_int_equal(heard.count, 3);
    assert_heard(2, "x", 1, true);
    assert_true(give(&index, &clients[0], "y")); /* the last of x is the first of y */
    assert_int_equal(heard.count, 5);
    assert_heard(3, "x", 1, false);
    assert_heard(4, "y", 1, true);
    take_all(&index);
    assert_heard(5, "y", 1, false);
}

/* ---- clients that get no events ------------------------------------------------------------------------------------ */

/* A client that is being admitted has its tag, and stands in its place, but an event would not reach it. */
static void test_the_watcher_hears_of_those_alone_that_get_events(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    struct client *const both[] = { &clients[0], &clients[1] };
    clients[0].roster.receives = clients[1].roster.receives = false;
    assert_true(give(&index, &clients[0], "x"));
    assert_true(give(&index, &clients[1], "x"));
    assert_int_equal(heard.count, 0);
    assert_order(&index, "x", 1, both, 2);
    set_listed(&index, &clients[1], true);
    assert_int_equal(heard.count, 1);
    assert_heard(0, "x", 1, true);
    set_listed(&index, &clients[0], true);
    set_listed(&index, &clients[1], false);
    assert_int_equal(heard.count, 1);
    set_listed(&index, &clients[0], false);
    assert_int_equal(heard.count, 2);
    assert_heard(1, "x", 1, false);
    assert_order(&index, "x", 1, both, 2);
    set_listed(&index, &clients[1], true);
    tag_remove(&index, &clients[0]);
    assert_int_equal(heard.count, 3);
    tag_remove(&index, &clients[1]);
    assert_int_equal(heard.count, 4);
    assert_heard(3, "x", 1, false);
    assert_null(index.tags);
    set_listed(&index, &clients[0], true);
}

static void test_a_client_without_a_tag_may_come_and_go(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    set_listed(&index, &clients[0], false);
    set_listed(&index, &clients[0], true);
    assert_int_equal(heard.count, 0);
    assert_null(index.tags);
}

/* The last of x that gets events goes to y: who asks for x is told that nobody is there, though one still carries it. */
static void test_a_tag_whose_last_listener_changes_it_is_absent(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    clients[1].roster.receives = false;
    assert_true(give(&index, &clients[0], "x"));
    assert_true(give(&index, &clients[1], "x"));
    assert_true(give(&index, &clients[0], "y"));
    assert_int_equal(heard.count, 3);
    assert_heard(1, "x", 1, false);
    assert_heard(2, "y", 1, true);
    assert_non_null(find(&index, "x"));
    assert_true(give(&index, &clients[1], "y"));
    assert_int_equal(heard.count, 3);
    assert_null(find(&index, "x"));
    clients[1].roster.receives = false;
    take_all(&index);
    assert_int_equal(heard.count, 4);
    clients[1].roster.receives = true;
}

/* ---- names of any bytes -------------------------------------------------------------------------------------------- */

static void test_names_of_every_length_and_byte_are_told_apart(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    char name[EVAPID_TAG_MAX + 1];
    size_t tags = 0;
    struct client *many = calloc((size_t)EVAPID_TAG_MAX + 256, sizeof(*many));
    assert_non_null(many);
    for (size_t i = 0; i < (size_t)EVAPID_TAG_MAX + 256; i++)
        many[i].roster.receives = true;
    memset(name, 0, sizeof(name));
    for (size_t length = 1; length <= EVAPID_TAG_MAX; length++) /* nothing but NULs */
        assert_true(tag_give(&index, &many[tags++], name, length));
    for (unsigned byte = 1; byte < 256; byte++) { /* the longest, that differ in the last byte */
        name[EVAPID_TAG_MAX - 1] = (char)byte;
        assert_true(tag_give(&index, &many[tags++], name, EVAPID_TAG_MAX));
    }
    assert_int_equal(HASH_COUNT(index.tags), tags);
    assert_int_equal(heard.count, tags);
    for (size_t i = 0; i < tags; i++) {
        memset(name, 0, sizeof(name));
        const size_t length = i < EVAPID_TAG_MAX ? i + 1 : EVAPID_TAG_MAX;
        name[EVAPID_TAG_MAX - 1] = (char)(i < EVAPID_TAG_MAX ? 0 : i - EVAPID_TAG_MAX + 1);
        struct client *const only[] = { &many[i] };
        assert_order(&index, name, length, only, 1);
    }
    for (size_t i = 0; i < tags; i++)
        tag_remove(&index, &many[i]);
    assert_null(index.tags);
    assert_int_equal(heard.count, 2 * tags);
    free(many);
}

static void test_the_name_is_a_copy(void **state)
{
    (void)state;
    struct tag_index index = new_index();
    char name[] = "front";
    struct client *const only[] = { &clients[0] };
    assert_true(tag_give(&index, &clients[0], name, 5));
    memset(name, '-', 5);
    assert_order(&index, "front", 5, only, 1);
    assert_null(find(&index, "-----"));
    take_all(&index);
}

/* ---- against a model ----------------------------------------------------------------------------------------------- */

struct name {
    const char *bytes;
    size_t length;
};

static const struct name names[] = {
    { "a", 1 },        { "ab", 2 },      { "abc", 3 },
    { "\0", 1 },       { "\0\0", 2 },    { "a\0", 2 },
    { "a\0b", 3 },     { "\xff", 1 },    { "sip:x", 5 },
    { "\xc3\xa9", 2 }, { "front\n", 6 }, { "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", 64 },
};

#define NAMES (sizeof(names) / sizeof(*names))

/* Lists of clients by tag, kept the simplest way there is. */
struct model {
    struct client *lists[NAMES][CLIENTS];
    size_t counts[NAMES];
    size_t of[CLIENTS]; /* the client's tag, NAMES: none */
};

static void model_take(struct model *m, size_t c)
{
    const size_t t = m->of[c];
    if (t == NAMES)
        return;
    size_t at = 0;
    while (m->lists[t][at] != &clients[c])
        at++;
    memmove(&m->lists[t][at], &m->lists[t][at + 1], (m->counts[t] - at - 1) * sizeof(struct client *));
    m->counts[t]--;
    m->of[c] = NAMES;
}

static void model_give(struct model *m, size_t c, size_t t)
{
    if (m->of[c] == t)
        return;
    model_take(m, c);
    m->lists[t][m->counts[t]++] = &clients[c];
    m->of[c] = t;
}

static size_t model_listed(const struct model *m, size_t t)
{
    size_t listed = 0;
    for (size_t i = 0; i < m->counts[t]; i++)
        listed += m->lists[t][i]->roster.receives;
    return listed;
}

/* What the watcher has heard since the last time, as changes of who is present. */
static void follow(bool present[NAMES])
{
    for (size_t i = 0; i < heard.count; i++) {
        size_t t = 0;
        while (heard.calls[i].hash != presence_hash(names[t].bytes, names[t].length))
            assert_true(++t < NAMES);
        assert_int_equal(present[t], !heard.calls[i].present);
        present[t] = heard.calls[i].present;
    }
    heard.count = 0;
}

static void test_random_use_agrees_with_a_model(void **state)
{
    (void)state;
    unsigned seed = 99;
    struct model model = { 0 };
    bool present[NAMES] = { false };
    struct tag_index index = new_index();
    for (size_t c = 0; c < CLIENTS; c++)
        model.of[c] = NAMES;
    for (unsigned round = 0; round < 50000; round++) {
        const size_t c = (unsigned)rand_r(&seed) % CLIENTS;
        const size_t t = (unsigned)rand_r(&seed) % (NAMES + 16);
        if (t < NAMES) {
            assert_true(tag_give(&index, &clients[c], names[t].bytes, names[t].length));
            model_give(&model, c, t);
        } else if (t < NAMES + 6) {
            tag_remove(&index, &clients[c]);
            model_take(&model, c);
        } else {
            set_listed(&index, &clients[c], !clients[c].roster.receives);
        }
        follow(present);
        size_t tags = 0;
        for (size_t i = 0; i < NAMES; i++) {
            assert_order(&index, names[i].bytes, names[i].length, model.lists[i], model.counts[i]);
            assert_int_equal(present[i], model_listed(&model, i) > 0);
            tags += model.counts[i] > 0;
        }
        assert_int_equal(HASH_COUNT(index.tags), tags);
        assert_int_equal(clients[c].tagging.tag != NULL, model.of[c] != NAMES);
    }
    take_all(&index);
    follow(present);
    for (size_t i = 0; i < NAMES; i++)
        assert_false(present[i]);
    for (size_t c = 0; c < CLIENTS; c++)
        clients[c].roster.receives = true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tag_that_nobody_carries_is_not_found),
        cmocka_unit_test(test_clients_of_a_tag_stand_in_the_order_in_which_they_got_it),
        cmocka_unit_test(test_a_client_that_goes_leaves_the_others_in_order),
        cmocka_unit_test(test_another_tag_takes_the_place_of_the_one_before),
        cmocka_unit_test(test_the_same_tag_again_changes_nothing),
        cmocka_unit_test(test_taking_from_a_client_that_has_none_does_nothing),
        cmocka_unit_test(test_the_watcher_hears_of_the_first_and_the_last),
        cmocka_unit_test(test_the_watcher_hears_of_those_alone_that_get_events),
        cmocka_unit_test(test_a_client_without_a_tag_may_come_and_go),
        cmocka_unit_test(test_a_tag_whose_last_listener_changes_it_is_absent),
        cmocka_unit_test(test_names_of_every_length_and_byte_are_told_apart),
        cmocka_unit_test(test_the_name_is_a_copy),
        cmocka_unit_test(test_random_use_agrees_with_a_model),
    };
    return cmocka_run_group_tests_name("tag", tests, make_clients, free_clients);
}
